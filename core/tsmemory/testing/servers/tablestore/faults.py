"""Faults a test injects, and when they strike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from .errors import DEFAULT_MESSAGE, ServiceError
from .usage import PartialFailure

FaultKind = Literal["throttle", "error", "hang", "drop_before", "drop_after", "damage", "partial"]


@dataclass(frozen=True)
class Fault:
    """One way a request goes wrong.

    Attributes:
        kind: ``throttle`` answers OTSServerBusy with 503, or ``code``; ``error`` answers
            OTSInternalServerError with 500, or ``code``; ``hang`` keeps the request ``seconds`` and
            then drops it; ``drop_before`` and ``drop_after`` close the connection without a reply,
            before or after the request took effect; ``damage`` changes a byte of the reply;
            ``partial`` makes ``rows`` random rows of a
            batch fail with OTSServerBusy, or ``code``, while the others apply.
        operations: the operations it strikes, such as ``("BatchWriteRow",)``; all when empty.
        nth: strike the n-th matching request, from 1; with ``times``, from the n-th on.
        probability: chance to strike a matching request, when ``nth`` is not given.
        times: how often it strikes at most; once with ``nth``, else without end.
        seed: makes the chances repeatable.
        seconds: how long a ``hang`` lasts.
        applied: whether the request takes effect before an ``error`` or ``hang``.
        code: the error code; ``status``: the HTTP status, by default the code's own.
        rows: how many rows of a batch a ``partial`` fails.
    """

    kind: FaultKind
    operations: Sequence[str] = ()
    nth: int | None = None
    probability: float = 1.0
    times: int | None = None
    seed: int | None = None
    seconds: float = 60.0
    applied: bool = False
    code: str | None = None
    status: int | None = None
    rows: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"kind is one of {get_args(FaultKind)}, not {self.kind!r}")
        if isinstance(self.operations, str):
            raise TypeError("operations is a sequence of names, not a string")
        object.__setattr__(self, "operations", tuple(self.operations))
        if self.nth is not None and self.nth < 1:
            raise ValueError("nth counts from 1")
        if not 0 <= self.probability <= 1:
            raise ValueError("probability is between 0 and 1")

    @classmethod
    def of(cls, values: dict[str, Any]) -> Fault:
        """From JSON.

        Raises:
            ValueError, TypeError: for an unknown field or a bad value.
        """
        names = {field.name for field in fields(cls)}
        if unknown := set(values) - names:
            raise ValueError(f"unknown fields {sorted(unknown)}, known are {sorted(names)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


_CODES = {
    "throttle": "OTSServerBusy",
    "error": "OTSInternalServerError",
    "partial": "OTSServerBusy",
}


class ArmedFault:
    """A fault with its count and its dice. Not thread-safe: the owner locks."""

    def __init__(self, identity: int, fault: Fault) -> None:
        self.identity = identity
        self.fault = fault
        self.seen = 0
        self.struck = 0
        self.chance = random.Random(fault.seed)

    def strikes(self, operation: str) -> bool:
        """Whether this request is hit."""
        fault = self.fault
        if fault.operations and operation not in fault.operations:
            return False
        self.seen += 1
        most = fault.times
        if fault.nth is not None:
            most = 1 if most is None else most
            if self.seen < fault.nth:
                return False
        elif self.chance.random() >= fault.probability:
            return False
        if most is not None and self.struck >= most:
            return False
        self.struck += 1
        return True

    def error(self) -> ServiceError:
        """What the request is answered."""
        code = self.fault.code or _CODES.get(self.fault.kind, "OTSServerBusy")
        status = self.fault.status
        if status is None and self.fault.kind == "throttle":
            status = 503
        return ServiceError(code, DEFAULT_MESSAGE.get(code, "Injected fault."), status)

    def partial(self) -> PartialFailure:
        """The rows of a batch that fail."""
        code = self.fault.code or _CODES["partial"]
        return PartialFailure(self.fault.rows, code, self.chance)
