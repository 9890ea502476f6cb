"""From one store to another: everything but the version, which counts the target's own writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from tsmemory.engine import steps as runner
from tsmemory.engine.codec import encode_message
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import UNSET, Change, Key, SessionPatch, Unset
from tsmemory.engine.steps import Steps
from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, Page, Problem, Session
from tsmemory.store import Store
from tsmemory.usecases import ConversationSteps, OnError, StoreSteps

__all__ = [
    "Progress",
    "Report",
    "acopy",
    "copy",
    "drive",
    "on",
    "put_page",
    "put_session",
    "read_page",
    "read_sessions",
]

T = TypeVar("T")

_PAGE = 200  # messages a read and a write: what the most limited engine takes in one request


class Progress(NamedTuple):
    """How far it is: what has been read so far, whether it had to be written or not."""

    sessions: int
    messages: int
    user_id: str
    """Of the session at hand."""
    session_id: str


class Report(msgspec.Struct, kw_only=True):
    """What came of it."""

    sessions: int = 0
    """Sessions read."""
    messages: int = 0
    """Messages read."""
    written: int = 0
    """Messages written: those that were not there yet, or not like this."""
    problems: list[Problem] = msgspec.field(default_factory=list)
    """What could not be read, and, where it was verified, what differs. Empty: all is well."""


def copy(
    source: Store,
    target: Store,
    *,
    user_id: str | Unset = UNSET,
    progress: Callable[[Progress], None] | None = None,
    verify: bool = True,
    on_error: OnError = "raise",
) -> Report:
    """Copy sessions with all that belongs to them, whatever the engines.

    Order, ids, times, metadata, extensions, title, summary and what is left of the time to live
    are the same afterwards; only `Session.version` counts the target's own writes. A session that
    is complete in the target is not written again, one that is not is completed, so a run that was
    killed is finished by running it again. Nothing is removed from the target: a message that the
    source does not have stays, and is told as a difference.

    Args:
        source: read only. Writes to it meanwhile may be missed; run again.
        target: an open store, `Store.setup` done. Its default `ttl` is not applied.
        user_id: whose sessions; leave it out for every user's.
        progress: called after every page of messages.
        verify: read both again at the end, and compare.
        on_error: ``"skip"`` leaves out records that do not decode; they show as differences.

    Raises:
        CorruptRecordError: a record of the source does not decode.
        MessageTooLargeError: a message is over the target's limit.
        InvalidInputError: source and target are the same object.
    """
    return drive(_copy(source, target, user_id, progress, verify, on_error))


async def acopy(
    source: Store,
    target: Store,
    *,
    user_id: str | Unset = UNSET,
    progress: Callable[[Progress], None] | None = None,
    verify: bool = True,
    on_error: OnError = "raise",
) -> Report:
    """Same as `copy`, for asyncio."""
    work = _copy(source, target, user_id, progress, verify, on_error)
    return await runner.arun(work, lambda step: step(lambda backend, steps: backend.arun(steps)))


def drive(work: Steps[T]) -> T:
    """Do `work`, synchronously."""
    return runner.run(work, lambda step: step(lambda backend, steps: backend.run(steps)))


def on(backend: Backend, steps: Steps[T]) -> Steps[T]:
    """Do `steps` on `backend`, as a part of work over several stores.

    There a step's client is the mode, so that it runs the operation on the store that it is for.
    """
    return (yield lambda run: run(backend, steps))  # type: ignore[no-any-return]


def _copy(
    source: Store,
    target: Store,
    user_id: str | Unset,
    progress: Callable[[Progress], None] | None,
    verify: bool,
    on_error: OnError,
) -> Steps[Report]:
    if source is target or source.backend is target.backend:
        raise InvalidInputError("source and target are one store; give two")
    report = Report()
    sessions = yield from read_sessions(source.backend, user_id, on_error)
    for session in sessions:
        key = Key(session.user_id, session.session_id)
        report.sessions += 1
        stored = yield from on(target.backend, target.backend.get_session(key))
        done = isinstance(stored, Session) and _same(session, stored)
        cursor, more = None, not done
        while more:
            page = yield from on(source.backend, read_page(source.backend, key, cursor, on_error))
            report.messages += len(page.items)
            report.written += yield from put_page(
                target.backend, key, page.items, new=stored is None
            )
            cursor, more = page.next_cursor, page.next_cursor is not None
            if progress is not None:
                progress(Progress(report.sessions, report.messages, *key))
        if done:
            report.messages += session.message_count
            if progress is not None:
                progress(Progress(report.sessions, report.messages, *key))
        else:
            yield from put_session(target.backend, session)
    if verify:
        for session in sessions:
            report.problems += yield from _differences(source.backend, target.backend, session)
    return report


def _same(first: Session, second: Session) -> bool:
    return msgspec.structs.replace(first, version=0) == msgspec.structs.replace(second, version=0)


def read_sessions(
    backend: Backend, user_id: str | Unset, on_error: OnError
) -> Steps[list[Session]]:
    """All of them, before anything is written: a listing by last activity that the copy cannot
    move. The least recently active come first."""
    sessions: list[Session] = []
    cursor = None
    while True:
        listing = StoreSteps(backend).list_sessions(
            user_id=user_id, order="asc", limit=_PAGE, cursor=cursor, on_error=on_error
        )
        page = yield from on(backend, listing)
        sessions += page.items
        cursor = page.next_cursor
        if cursor is None:
            return sessions


def read_page(
    backend: Backend,
    key: Key,
    cursor: str | None,
    on_error: OnError,
    first: int | None = None,
    last: int | None = None,
) -> Steps[Page[Message]]:
    """A page of a session, oldest first; between two times (µs, inclusive) where they are given."""
    return ConversationSteps(backend, key).list_messages(
        created_from=first, created_to=last, limit=_PAGE, cursor=cursor, on_error=on_error
    )


def put_page(target: Backend, key: Key, messages: list[Message], *, new: bool) -> Steps[int]:
    """Write those of `messages` (in order, with times) that are not there, or not like this.

    Args:
        new: the target has no such session, so nothing needs to be looked up.

    Returns:
        How many were written.
    """
    if not messages:
        return 0
    stored: dict[str, Message] = {}
    cursor = None
    while not new:
        first, last = messages[0].create_time, messages[-1].create_time
        page = yield from on(target, read_page(target, key, cursor, "skip", first, last))
        stored.update((m.message_id, m) for m in page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    missing = tuple(m for m in messages if stored.get(m.message_id) != m)
    if missing:
        yield from on(target, target.commit(key, Change(put=missing)))
    return len(missing)


def put_session(target: Backend, session: Session) -> Steps[None]:
    """Make the target's record that of `session`; after the messages, whose writing moves it."""
    patch = SessionPatch(
        title=session.title,
        summary=session.summary,
        metadata=session.metadata,
        replace_metadata=True,
        ttl=session.ttl,
        expires_at=session.expires_at,
        create_time=session.create_time,
        update_time=session.update_time,
    )
    key = Key(session.user_id, session.session_id)
    yield from on(target, target.commit(key, Change(session=patch)))


# -- comparing ---------------------------------------------------------------------------------


def _differences(source: Backend, target: Backend, session: Session) -> Steps[list[Problem]]:
    key = Key(session.user_id, session.session_id)
    mine = yield from on(source, source.get_session(key))
    theirs = yield from on(target, target.get_session(key))
    if mine is None and theirs is None:  # it has expired meanwhile
        return []
    if not isinstance(mine, Session) or not isinstance(theirs, Session):
        where = "target" if isinstance(mine, Session) else "source"
        return [Problem(*key, None, f"there is no such session in the {where} that reads")]
    problems = [
        Problem(*key, None, f"{name} differs")
        for name in Session.__struct_fields__
        if name != "version" and getattr(mine, name) != getattr(theirs, name)
    ]
    source_rows, target_rows = _Reading(source, key), _Reading(target, key)
    while True:
        yield from source_rows.fill()
        yield from target_rows.fill()
        if not source_rows.rows and not target_rows.rows:
            return problems
        if not target_rows.rows or (
            source_rows.rows and _place(source_rows.rows[0]) < _place(target_rows.rows[0])
        ):
            what, message = "is only in the source", source_rows.rows.popleft()
        elif not source_rows.rows or _place(target_rows.rows[0]) < _place(source_rows.rows[0]):
            what, message = "is only in the target", target_rows.rows.popleft()
        else:
            message = source_rows.rows.popleft()
            if same_message(message, target_rows.rows.popleft()):
                continue
            what = "differs"
        problems.append(Problem(*key, message.message_id, what))


def same_message(first: Message, second: Message) -> bool:
    """Whether two messages are the same as stored: a nan, which is not equal to itself, too."""
    return first == second or (
        _place(first) == _place(second) and encode_message(first) == encode_message(second)
    )


def _place(message: Message) -> tuple[int, str]:
    return message.create_time or 0, message.message_id


class _Reading:
    """The messages of a session, a page at a time."""

    def __init__(self, backend: Backend, key: Key) -> None:
        self.rows: deque[Message] = deque()
        self._backend = backend
        self._key = key
        self._cursor: str | None = None
        self._ended = False

    def fill(self) -> Steps[None]:
        """Have rows, unless there are no more."""
        while not self.rows and not self._ended:
            page = yield from on(
                self._backend, read_page(self._backend, self._key, self._cursor, "skip")
            )
            self.rows.extend(page.items)
            self._cursor = page.next_cursor
            self._ended = self._cursor is None
