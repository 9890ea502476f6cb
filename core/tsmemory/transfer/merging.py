"""Bringing conversations in: a merge, whatever happened to the source since the last time.

A message is known by where it came from and by what it says, never by its position alone. One that
has an id at the source keeps it, and where it came from and a digest of what it says (its mark) are
in ``extensions["import"]``. One that has none gets the id ``origin:mark:number``; the number tells
those with the same mark apart. For each conversation:

1. what is stored from this origin is read;
2. messages with an id of their own are looked up by it. One that says something else than the
   stored one did is a new version or another message: it is treated as one without an id;
3. the others are aligned with what is stored, in order (`align`), so that a source that was
   trimmed, compacted, cleared, or continued meets its own messages again, and a second "yes" is not
   taken for the first;
4. what has no counterpart is written: at its own time where the source has times, otherwise at the
   end. What is stored is never overwritten or removed;
5. what differs is reported: new versions, messages that were changed here, and messages that the
   source lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tsmemory.checks import check_key, check_ttl
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import Change, Key, MessageQuery, SessionPatch
from tsmemory.engine.steps import Steps
from tsmemory.errors import (
    BackendError,
    CorruptRecordError,
    InvalidInputError,
    TSMemoryError,
)
from tsmemory.model import Message, Problem, Session
from tsmemory.store import Store
from tsmemory.transfer.copying import Progress, Report, drive, on
from tsmemory.transfer.imported import Imported, Stored, storable, stored_message
from tsmemory.transfer.matching import differences, match, new_messages
from tsmemory.transfer.sources import redacted

__all__ = ["import_sessions"]

_BATCH = 200  # messages per write


def import_sessions(
    store: Store,
    sessions: Iterable[Imported | Problem],
    *,
    origin: str = "import",
    progress: Callable[[Progress], None] | None = None,
    done: Callable[[Imported], None] | None = None,
) -> Report:
    """Bring conversations in, by the steps of the module's docstring. May be repeated.

    A session that also has messages of another origin keeps its title, summary, times and time to
    live.

    Args:
        sessions: one after the other; a `Problem` among them goes into the report.
        origin: where they come from; the same whenever the same source is brought in.
        progress: called after every batch of messages.
        done: called once a conversation is in the store.

    Returns:
        What was read and written. `Report.problems` also names what differs. A conversation or a
        message that no store can hold is one of them; the others come in.

    Raises:
        BackendError: the store or the source fails.
        InvalidInputError: the source is not what it should be.
    """
    if not origin or ":" in origin:
        raise InvalidInputError(f"origin is a short name without a colon, not {origin!r}")
    return drive(_import(store.backend, _guarded(sessions), origin, progress, done))


def _guarded(sessions: Iterable[Imported | Problem]) -> Iterator[Imported | Problem]:
    """`sessions`, the errors of whatever reads the source as ours."""
    iterator = iter(sessions)
    while True:
        try:
            conversation = next(iterator)
        except StopIteration:
            return
        except TSMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # every driver has its own; none may leave
            what, secret = redacted(f"{type(error).__name__}: {error}")
            raise BackendError(f"the source cannot be read: {what}") from (
                None if secret else error
            )
        yield conversation


def _import(
    backend: Backend,
    sessions: Iterator[Imported | Problem],
    origin: str,
    progress: Callable[[Progress], None] | None,
    done: Callable[[Imported], None] | None,
) -> Steps[Report]:
    report = Report()
    for conversation in sessions:
        if isinstance(conversation, Problem):
            report.problems.append(conversation)
            continue
        report.problems.extend(conversation.problems)
        try:
            key = check_key(conversation.user_id, conversation.session_id)
        except InvalidInputError as error:
            report.problems.append(Problem(None, None, None, f"left out: {error}"))
            continue
        report.sessions += 1
        try:
            yield from _merge(backend, key, conversation, origin, report, progress)
        except (InvalidInputError, CorruptRecordError) as error:
            report.problems.append(Problem(*key, None, str(error)))
            continue
        if done is not None:
            done(conversation)
    return report


def _merge(
    backend: Backend,
    key: Key,
    conversation: Imported,
    origin: str,
    report: Report,
    progress: Callable[[Progress], None] | None,
) -> Steps[None]:
    incoming = storable(key, conversation, report.problems)
    report.messages += len(incoming)
    before = yield from on(backend, backend.get_session(key))
    if isinstance(before, CorruptRecordError):
        raise before
    if before is None and not incoming and conversation.problems:
        return  # nothing of it could be read
    stored: list[Stored] = []
    if before is not None:
        read = yield from on(backend, backend.read(key, MessageQuery(limit=None)))
        stored = [stored_message(row, origin) for row in read.rows]
    matched = match(incoming, stored, origin)
    report.problems += differences(key, incoming, stored, matched)
    new = new_messages(incoming, stored, matched, origin)
    timed = any(newcomer.message.create_time is not None for newcomer in incoming)
    for start in range(0, len(new), _BATCH):
        batch = tuple(new[start : start + _BATCH])
        written = yield from _write(backend, key, batch, timed=timed, report=report)
        report.written += written
        if progress is not None:
            progress(Progress(report.sessions, report.messages, *key))
    alone = all(row.imported_mark is not None for row in stored)
    patch = _patch(conversation, before) if alone else None
    if patch is not None:
        yield from on(backend, backend.commit(key, Change(session=patch)))
    if progress is not None and not new:
        progress(Progress(report.sessions, report.messages, *key))


def _write(
    backend: Backend, key: Key, batch: tuple[Message, ...], *, timed: bool, report: Report
) -> Steps[int]:
    """Step 4: how many were written. One that the backend refuses is reported, the others come
    in."""
    change = Change(put=batch) if timed else Change(append=batch)
    try:
        yield from on(backend, backend.commit(key, change))
    except InvalidInputError as error:
        if len(batch) == 1:
            report.problems.append(Problem(*key, batch[0].message_id, f"left out: {error}"))
            return 0
        half = len(batch) // 2
        first = yield from _write(backend, key, batch[:half], timed=timed, report=report)
        second = yield from _write(backend, key, batch[half:], timed=timed, report=report)
        return first + second
    return len(batch)


def _patch(conversation: Imported, before: Session | None) -> SessionPatch | None:
    """What the record becomes; None where it is like that."""
    times = [m.create_time for m in conversation.messages if m.create_time is not None]
    values = {
        "title": conversation.title,
        "summary": conversation.summary,
        "create_time": conversation.create_time or min(times, default=None),
        "update_time": conversation.update_time or max(times, default=None),
    }
    patch: dict[str, Any] = {
        name: value
        for name, value in values.items()
        if value is not None and value != (getattr(before, name) if before else None)
    }
    metadata = before.metadata if before else {}
    if any(
        key not in metadata or metadata[key] != value
        for key, value in conversation.metadata.items()
    ):
        patch["metadata"] = conversation.metadata
    if conversation.ttl is not None and (before is None or before.ttl is None):
        patch["ttl"] = check_ttl(conversation.ttl)
    if not patch and before is None and not conversation.messages:
        return SessionPatch()
    return SessionPatch(**patch) if patch else None
