"""The contract of a backend, written as law. `tsmemory.testing` asserts it, line by line.

A backend keeps sessions, and in each session messages, for its `Store`, which has checked every
argument, opens cursors, cuts windows and retries conflicts. It is asked for nine primitives. Each
is a generator function that yields *steps* and returns its result: a step is a function of the
engine's client, and what the runner sends back is what the client returned (awaited first, in the
asynchronous colour). So an operation is written once. An engine without a client of two colours
marks plain methods with `immediate`. `run` and `arun` drive the generators.

The law, for every primitive:

- **Identity** is the whole key, `(user_id, session_id)`, compared by exact code points.
- **Missing or expired** sessions are alike: reads give nothing, deletes remove nothing. A session
  is expired once ``expires_at <= clock()``; a write to it begins a new session.
- **Order** of messages is `(create_time, message_id)`, of sessions `(update_time, user_id,
  session_id)`; ids compare by code point.
- **Broken** records come back as `CorruptRecordError` *objects* in the place of the record, not
  raised, so that the neighbours stay readable. A filter never hides one.
- **Atomic**: `commit` is seen whole or not at all, the session's record with it; where
  `capabilities.atomic` is False, a repeated commit finishes what a failed one began.
- **Idempotent**: a commit repeated (same message ids) after a lost reply changes nothing more.
- Errors are those of `tsmemory.errors`; a driver's own never leave.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

import msgspec

from tsmemory.errors import CorruptRecordError
from tsmemory.filters import Filter
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = [
    "UNSET", "Backend", "Capabilities", "Change", "Key", "MessageQuery", "Outcome", "Position",
    "Read", "SessionPatch", "SessionQuery", "Steps", "immediate", "now_us",
]  # fmt: skip

T = TypeVar("T")
P = ParamSpec("P")
Steps: TypeAlias = Generator[Callable[[Any], Any], Any, T]
UNSET = msgspec.UNSET
Unset: TypeAlias = msgspec.UnsetType


class Key(NamedTuple):
    user_id: str
    session_id: str


class Position(NamedTuple):
    """Where a message stands in its session."""

    create_time: int
    message_id: str


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    atomic: bool = True
    """A commit is seen whole or not at all, and a crash cannot leave a part of it."""
    max_message_bytes: int | None = None
    """The largest encoded message; None where only memory bounds it."""


class MessageQuery(msgspec.Struct, frozen=True, kw_only=True):
    limit: int | None
    descending: bool = False
    after: Position | None = None
    """Exclusive, in reading direction: only what comes after this position."""
    created_from: int | None = None
    created_to: int | None = None
    """Both inclusive, µs."""
    where: Filter | None = None
    pinned: bool = False
    """Also give the system and developer messages that stand before the rows (descending only)."""


class Read(NamedTuple):
    rows: list[Message | CorruptRecordError]
    """In the direction of the query."""
    pinned: Sequence[Message | CorruptRecordError] = ()
    """In order, oldest first, all before the oldest of `rows`."""


class SessionQuery(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str | None
    """None for every user's."""
    limit: int | None
    descending: bool = True
    after: tuple[int, str, str] | None = None
    """Exclusive, in reading direction: (update_time, user_id, session_id)."""
    updated_from: int | None = None
    updated_to: int | None = None
    where: Filter | None = None


class SessionPatch(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in a session's record; UNSET leaves a field as it is."""

    title: str | Unset | None = UNSET
    summary: str | Unset | None = UNSET
    metadata: dict[str, Any] | Unset = UNSET
    """Merged key by key into what is there."""
    remove: tuple[str, ...] = ()
    """Metadata keys to remove, before the merge."""
    replace_metadata: bool = False
    ttl: float | Unset | None = UNSET
    """Seconds; None removes the time to live."""
    create_time: int | Unset = UNSET
    update_time: int | Unset = UNSET
    expires_at: int | Unset | None = UNSET
    """Only for records brought from elsewhere; a time to live sets it by itself."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A set of changes to one session, committed together."""

    append: tuple[Message, ...] = ()
    """Each gets ``max(clock, last time + 1)``; one whose id is there already is left alone."""
    put: tuple[Message, ...] = ()
    """Inserted or overwritten by id, at their own create_time; without one, where they stand, or
    as appended."""
    delete: tuple[str, ...] = ()
    """Ids; those that are not there are ignored."""
    delete_through: Position | None = None
    """Everything up to this position, inclusive. Not together with `delete`."""
    session: SessionPatch | None = None
    if_version: int | None = None
    """0: there is no such session. `ConflictError` otherwise, except where the change only
    appends, and every id is there already: that is the retry of a success."""
    create: bool = True
    """False: do nothing where there is no session."""
    ttl: float | None = None
    """Seconds: the session's time to live from now on, if anything changes at all."""
    default_ttl: float | None = None
    """Seconds, for a session that this change begins."""


class Outcome(NamedTuple):
    session: Session | None
    """As it is now; None where there is none."""
    stored: list[Message]
    """For each of `append`, then of `put`: the message as stored."""
    deleted: int


class Backend(ABC):
    """One engine. See the module for the law."""

    capabilities: Capabilities = Capabilities()
    clock: Callable[[], int]
    """µs since the epoch; a test may set it. An engine with a clock of its own may ignore it."""

    @abstractmethod
    def run(self, steps: Steps[T]) -> T:
        """Drive an operation to its end."""

    @abstractmethod
    async def arun(self, steps: Steps[T]) -> T:
        """Drive an operation to its end without blocking the event loop."""

    @abstractmethod
    def setup(self) -> Steps[None]:
        """Create what is missing (files, tables, indexes). Safe to call again, and by many."""

    @abstractmethod
    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]: ...

    @abstractmethod
    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]: ...

    @abstractmethod
    def read(self, key: Key, query: MessageQuery) -> Steps[Read]: ...

    @abstractmethod
    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        """Those that are there, in no particular order."""

    @abstractmethod
    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        """Make the changes. Raises before any I/O what cannot be stored (`InvalidInputError`)."""

    @abstractmethod
    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        """Remove a session, a user (session_id None), or everything (both None): rows, index
        entries, files; expired sessions too."""

    @abstractmethod
    def purge_expired(self) -> Steps[Erased]:
        """Remove the sessions that are past their time to live."""

    @abstractmethod
    def stats(self) -> Steps[Stats]: ...

    @abstractmethod
    def verify(self) -> Steps[list[Problem]]:
        """Read everything, expired sessions too, and name what is broken."""

    def compact(self, key: Key) -> Steps[int]:
        """Reclaim what deleted messages of the session still occupy: bytes freed."""
        return _nothing()

    @abstractmethod
    def close(self) -> None:
        """Release what the backend itself opened, in the synchronous colour. Idempotent."""

    async def aclose(self) -> None:
        """Release what the backend itself opened, in both colours. Idempotent."""
        self.close()


def immediate(method: Callable[P, T]) -> Callable[P, Steps[T]]:
    """Make a plain method an operation of no steps, for engines that live in this process."""

    @wraps(method)
    def operation(*args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        return method(*args, **kwargs)
        yield  # a generator, though it never yields

    return operation


@immediate
def _nothing() -> int:
    return 0


def now_us() -> int:
    """This machine's clock: µs since the Unix epoch, UTC."""
    return time.time_ns() // 1000
