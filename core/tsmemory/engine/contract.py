"""The contract of a backend. `tsmemory.testing.BackendConformance` asserts it, line by line.

A backend keeps sessions, and in each session messages, for its `Store`, which has checked every
argument, opens cursors, cuts windows and compares versions. Each primitive is a generator function
that yields steps and returns its result (`tsmemory.engine.steps`): it is written once for sync and
async. A backend without a client marks plain methods with `immediate`.

For every primitive:

- **Identity** is the whole key, `(user_id, session_id)`, compared by code points.
- **Missing or expired** sessions are alike: reads give nothing, deletes delete nothing. A session
  is expired once ``expires_at <= clock()``; a write to it begins a new session.
- **Order** of messages is `(create_time, message_id)`, of sessions `(update_time, user_id,
  session_id)`; ids compare by code point.
- **Broken** records are returned as `CorruptRecordError` *objects* in the place of the record, not
  raised, so that the neighbours stay readable. A filter never hides one. A write to a session that
  has lost a part raises it, and changes nothing.
- **Atomic**: `commit` is seen whole or not at all, the session's record with it; where
  `capabilities.atomic` is False, a repeated commit finishes what a failed one began.
- **Idempotent**: a commit repeated (same message ids, same content) after a lost reply changes
  nothing more. Other content under an id that is there raises `ConflictError`, and changes nothing.
- **Interrupts**: whatever ends an operation (an error, an interrupt, a cancellation, a fork), no
  later one sees what it left: no foreign reply, no open transaction, no lock.
- Errors are those of `tsmemory.errors`; a driver's own never leave.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from tsmemory.engine.steps import Pause, Steps
from tsmemory.errors import ConflictError, CorruptRecordError
from tsmemory.filters import Filter
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = [
    "UNSET", "Backend", "Capabilities", "Change", "Decide", "Key", "MessageQuery", "Outcome",
    "Position", "Read", "SessionPatch", "SessionQuery", "Snapshot", "Unset", "now_us",
]  # fmt: skip

T = TypeVar("T")
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
    total: bool = False
    """Also give how many messages the session holds, from the same snapshot."""
    session: bool = False
    """Also give the session's record, from the same snapshot where the backend has one."""


class Read(NamedTuple):
    rows: list[Message | CorruptRecordError]
    """In the direction of the query."""
    pinned: Sequence[Message | CorruptRecordError] = ()
    """In order, oldest first, all before the oldest of `rows`."""
    total: int | None = None
    """Where the query asks for it: messages in the session, whatever the query lets through."""
    session: Session | CorruptRecordError | None = None
    """Where the query asks for it; None where there is no session."""


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


class Snapshot(NamedTuple):
    """What a `rewrite` decides on."""

    session: Session | None
    messages: Sequence[Message | CorruptRecordError]
    """In order: those with the ids asked for, or all."""


Decide: TypeAlias = Callable[[Snapshot], "Change | None"]
"""From what is stored to what changes; None or an empty change leaves everything as it is. Called
once per attempt, so it must not have effects of its own."""

REWRITE_SECONDS = 30.0
"""How long a `rewrite` tries while other writers change the session under it."""


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

    def commit_and_read(
        self, key: Key, change: Change, query: MessageQuery
    ) -> Steps[tuple[Outcome, Read]]:
        """`commit`, then `read`. Override where one request can do both."""
        outcome = yield from self.commit(key, change)
        return outcome, (yield from self.read(key, query))

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        """Commit what `decide` makes of the session (of the messages `ids`; None: of all).

        Makes progress beside other writers. This default repeats on a conflict, ever more slowly;
        a backend with a lock or a transaction overrides it and holds its place there.

        Raises:
            ConflictError: others wrote faster than this, for `REWRITE_SECONDS`; says so.
        """
        attempts, deadline = 0, time.monotonic() + REWRITE_SECONDS
        while True:
            session = yield from self.get_session(key)
            if isinstance(session, CorruptRecordError):
                raise session
            if ids is None:
                messages = (yield from self.read(key, MessageQuery(limit=None))).rows
            else:
                messages = yield from self.get_messages(key, ids)
            change = decide(Snapshot(session, messages))
            if change is None:
                return Outcome(session, [], 0)
            version = session.version if session else 0
            try:
                return (
                    yield from self.commit(key, msgspec.structs.replace(change, if_version=version))
                )
            except ConflictError as error:
                attempts += 1
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"session {key.session_id!r}: other writers changed it {attempts} times "
                        f"in {REWRITE_SECONDS:.0f} s while this change was prepared; repeat it "
                        "when they are done",
                        expected=error.expected,
                        actual=error.actual,
                    ) from error
                yield Pause(min(0.001 * 2**attempts, 1.0) * random.uniform(0.5, 1.0))

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
        return 0
        yield  # a generator, though it never yields

    @abstractmethod
    def close(self) -> None:
        """Release what the backend itself opened, in the synchronous colour. Idempotent."""

    async def aclose(self) -> None:
        """Release what the backend itself opened, in both colours. Idempotent."""
        self.close()


def now_us() -> int:
    """This machine's clock: µs since the Unix epoch, UTC."""
    return time.time_ns() // 1000
