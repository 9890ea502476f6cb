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

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from tsmemory.engine.records import (
    Capabilities,
    Change,
    Decide,
    Finding,
    Key,
    MessageQuery,
    Outcome,
    Read,
    SessionQuery,
    Snapshot,
)
from tsmemory.engine.steps import Pause, Steps
from tsmemory.errors import ConflictError, CorruptRecordError
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = ["REWRITE_SECONDS", "Backend", "now_us"]

T = TypeVar("T")
REWRITE_SECONDS = 30.0
"""How long a `rewrite` tries while other writers change the session under it."""


class Backend(ABC):
    """One engine. See the module for the contract."""

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

    at_once: int = 1
    """Sessions that `read_many` asks for in one request."""

    def read_many(self, keys: Sequence[Key], query: MessageQuery) -> Steps[list[Read]]:
        """`read`, of each of these sessions. Override, with `at_once`, where one request can ask
        for several."""
        reads: list[Read] = []
        for key in keys:
            reads.append((yield from self.read(key, query)))  # noqa: PERF401  # it yields
        return reads

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
        import random  # for a conflict, which is rare

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

    def check_server(self) -> Steps[list[Finding]]:
        """Look at how the server is set up: what `tsmemory doctor` shows."""
        return []
        yield  # a generator, though it never yields

    def compact(self, key: Key) -> Steps[int]:
        """Reclaim what deleted messages of the session still occupy: bytes freed."""
        return 0
        yield  # a generator, though it never yields

    @abstractmethod
    def close(self) -> None:
        """Release what the backend itself opened, for sync callers. Idempotent."""

    async def aclose(self) -> None:
        """Release what the backend itself opened, for sync and async callers. Idempotent."""
        self.close()


def now_us() -> int:
    """This machine's clock: µs since the Unix epoch, UTC."""
    return time.time_ns() // 1000
