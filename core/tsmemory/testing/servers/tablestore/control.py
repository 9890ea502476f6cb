"""The test powers: counters, faults, latency, options.

`Control` is the server's side; `ServerControl` is the face that tests use, the same whether the
server is in this process or another. Both speak in verbs with JSON arguments, which over HTTP are
``POST /_control/<verb>`` with the key of the server in ``x-control-key``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .engine import Engine
from .faults import ArmedFault, Fault
from .options import ServerOptions
from .usage import Usage

_LOG_LENGTH = 10_000


@dataclass
class OperationCount:
    """What one operation, or all of them, came to.

    Attributes:
        requests: requests that arrived, those that were refused or struck by a fault included.
        errors: those answered with an error, or not at all.
        rows_read: rows looked at; of a search, those returned.
        rows_returned: rows in replies.
        rows_written: rows put, updated or deleted.
        bytes_in, bytes_out: request and reply bodies.
    """

    requests: int = 0
    errors: int = 0
    rows_read: int = 0
    rows_returned: int = 0
    rows_written: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def plus(self, other: OperationCount, sign: int = 1) -> OperationCount:
        """The sum, or with ``sign`` -1 the difference."""
        return OperationCount(
            **{
                field.name: getattr(self, field.name) + sign * getattr(other, field.name)
                for field in fields(self)
            }
        )


@dataclass
class Counters:
    """Counts by operation."""

    operations: dict[str, OperationCount] = field(default_factory=dict)

    @property
    def total(self) -> OperationCount:
        """All operations together."""
        total = OperationCount()
        for count in self.operations.values():
            total = total.plus(count)
        return total

    def __getitem__(self, operation: str) -> OperationCount:
        return self.operations.get(operation, OperationCount())

    def since(self, before: Counters) -> Counters:
        """What was added after ``before``."""
        return Counters(
            {
                name: difference
                for name, count in self.operations.items()
                if (difference := count.plus(before[name], -1)) != OperationCount()
            }
        )


class Control:
    """The server's counters, faults and latencies. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = threading.Lock()
        self._counts: dict[str, OperationCount] = {}
        self._faults: list[ArmedFault] = []
        self._next_fault = 1
        self._latency: dict[str, float] = {}
        self._log: deque[dict[str, Any]] = deque(maxlen=_LOG_LENGTH)

    # --- used by the service ------------------------------------------------------------

    def strike(self, operation: str) -> ArmedFault | None:
        """The fault that hits this request, if one does."""
        if not self._faults:
            return None
        with self._lock:
            for armed in self._faults:
                if armed.strikes(operation):
                    return armed
        return None

    def latency(self, operation: str) -> float:
        """Seconds to wait before this request is looked at."""
        if not self._latency:
            return 0.0
        return self._latency.get(operation, self._latency.get("*", 0.0)) / 1000

    def account(
        self, operation: str, usage: Usage, code: str | None, bytes_in: int, bytes_out: int
    ) -> None:
        """Enter a finished request.

        Args:
            code: the error it was answered, ``dropped`` when it was not answered, None when fine.
        """
        with self._lock:
            count = self._counts.setdefault(operation, OperationCount())
            count.requests += 1
            count.errors += code is not None
            count.rows_read += usage.rows_read
            count.rows_returned += usage.rows_returned
            count.rows_written += usage.rows_written
            count.bytes_in += bytes_in
            count.bytes_out += bytes_out
            self._log.append({"operation": operation, "tables": usage.tables, "code": code})

    # --- verbs --------------------------------------------------------------------------

    def call(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Perform a control verb.

        Raises:
            ValueError, TypeError: for an unknown verb or bad arguments.
        """
        handler = getattr(self, f"_do_{verb}", None)
        if handler is None:
            raise ValueError(f"unknown control verb {verb!r}")
        result: dict[str, Any] = handler(**arguments)
        return result

    def _do_ping(self) -> dict[str, Any]:
        return {}

    def _do_counters(self) -> dict[str, Any]:
        with self._lock:
            return {name: asdict(count) for name, count in sorted(self._counts.items())}

    def _do_reset_counters(self) -> dict[str, Any]:
        with self._lock:
            self._counts.clear()
            self._log.clear()
        return {}

    def _do_requests(self) -> dict[str, Any]:
        with self._lock:
            return {"requests": list(self._log)}

    def _do_inject(self, **values: Any) -> dict[str, Any]:
        fault = Fault.of(values)
        with self._lock:
            armed = ArmedFault(self._next_fault, fault)
            self._next_fault += 1
            self._faults.append(armed)
        return {"id": armed.identity}

    def _do_faults(self) -> dict[str, Any]:
        with self._lock:
            return {
                "faults": [
                    {"id": a.identity, "seen": a.seen, "struck": a.struck, **a.fault.to_dict()}
                    for a in self._faults
                ]
            }

    def _do_clear_faults(self) -> dict[str, Any]:
        with self._lock:
            self._faults.clear()
        return {}

    def _do_latency(self, **milliseconds: Any) -> dict[str, Any]:
        self._latency = {name: float(value) for name, value in milliseconds.items()}
        return {}

    def _do_options(self, **changes: Any) -> dict[str, Any]:
        with self.engine.lock:
            self.engine.options.update(changes)
        return asdict(self.engine.options)

    def _do_settle(self) -> dict[str, Any]:
        with self.engine.lock:
            self.engine.settle()
        return {}

    def _do_reset(self) -> dict[str, Any]:
        with self.engine.lock:
            self.engine.reset()
            self.engine.options.update(asdict(ServerOptions()))
        self._do_clear_faults()
        self._latency = {}
        return self._do_reset_counters()


class ServerControl:
    """What a test can do to a running server. Mixed into the classes that run one."""

    def _control(self, verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        raise TypeError("a class that runs a server says how to reach its control")

    def counters(self) -> Counters:
        """What has arrived since the start or the last reset, by operation."""
        counters = self._control("counters", {})
        return Counters({name: OperationCount(**count) for name, count in counters.items()})

    def reset_counters(self) -> None:
        """Start counting anew; clears the request log too."""
        self._control("reset_counters", {})

    @contextmanager
    def counting(self) -> Iterator[Counters]:
        """Count what arrives inside the block; the yielded counters are filled when it ends."""
        before = self.counters()
        counted = Counters()
        try:
            yield counted
        finally:
            counted.operations.update(self.counters().since(before).operations)

    def requests(self) -> list[dict[str, Any]]:
        """The last 10,000 requests in order: ``operation``, ``tables``, ``code`` (None: fine)."""
        requests: list[dict[str, Any]] = self._control("requests", {})["requests"]
        return requests

    def inject(self, fault: Fault) -> int:
        """Arm a fault; the first armed one that strikes a request wins. Returns its id."""
        return int(self._control("inject", fault.to_dict())["id"])

    def faults(self) -> list[dict[str, Any]]:
        """The armed faults, with ``seen`` (matching requests) and ``struck``."""
        faults: list[dict[str, Any]] = self._control("faults", {})["faults"]
        return faults

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._control("clear_faults", {})

    def set_latency(self, milliseconds: Mapping[str, float]) -> None:
        """Delay requests by operation; ``"*"`` stands for the others. Replaces what was set."""
        self._control("latency", milliseconds)

    def options(self) -> ServerOptions:
        """The options in force."""
        return ServerOptions(**self._control("options", {}))

    def set_options(self, **changes: Any) -> ServerOptions:
        """Change options, by the names of `options.ServerOptions`.

        Raises:
            ValueError: for an unknown option or a bad value.
        """
        return ServerOptions(**self._control("options", changes))

    def settle(self) -> None:
        """Let lagging indexes catch up at once."""
        self._control("settle", {})

    def reset(self) -> None:
        """Drop all tables, faults, latencies and counts, and take the default options."""
        self._control("reset", {})
