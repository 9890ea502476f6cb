"""Bringing in conversations that have no times or ids of ours: one way for every importer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tsmemory.checks import DEFAULT_USER, check_key, check_messages, check_ttl
from tsmemory.engine.contract import Backend
from tsmemory.engine.records import Change, MessageQuery, SessionPatch
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Problem, Session
from tsmemory.store import Store
from tsmemory.transfer._copy import Progress, Report, drive, on, same_message

__all__ = ["Imported", "import_sessions", "numbered"]

_BATCH = 200  # messages a write


class Imported(msgspec.Struct, kw_only=True):
    """A conversation from elsewhere, as far as it is known there."""

    session_id: str
    user_id: str = DEFAULT_USER
    messages: Sequence[Message]
    """In order. Their ids must be the same whenever they are read again (see `numbered`). Times
    are kept where every message has one, else given in order."""
    title: str | None = None
    summary: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    create_time: int | None = None
    """µs since the epoch."""
    update_time: int | None = None
    """µs since the epoch."""
    ttl: float | None = None
    """Seconds that are left of it; None where it stays."""


def numbered(
    messages: Iterable[Message], kind: str, ids: Iterable[str | None] = ()
) -> list[Message]:
    """Messages with ids that are the same whenever the same conversation is brought in.

    Args:
        kind: where it comes from; the n-th message is ``kind:n``.
        ids: the messages' own ids, None where they have none; one that stands twice counts once.
    """
    own = iter(ids)
    used: set[str] = set()
    found = []
    for i, message in enumerate(messages):
        mid = next(own, None)
        if not mid or mid in used:
            mid = f"{kind}:{i}"
        used.add(mid)
        found.append(msgspec.structs.replace(message, message_id=mid))
    return found


def import_sessions(
    store: Store,
    sessions: Iterable[Imported | Problem],
    *,
    progress: Callable[[Progress], None] | None = None,
    done: Callable[[Imported], None] | None = None,
) -> Report:
    """Bring conversations in. What is there by id stays where it is, and is written again only
    where it says something else; what is new goes to the end. A session that holds other messages
    too has lived on here: its title, summary, times and time to live stay as they are.

    Args:
        sessions: one after the other; a `Problem` among them goes into the report.
        progress: called after every batch of messages.
        done: called once a conversation is in the store.

    Raises:
        InvalidInputError: an id or a message that no store can hold.
    """
    return drive(_import(store.backend, iter(sessions), progress, done))


def _import(
    backend: Backend,
    sessions: Iterator[Imported | Problem],
    progress: Callable[[Progress], None] | None,
    done: Callable[[Imported], None] | None,
) -> Steps[Report]:
    report = Report()
    for found in sessions:
        if isinstance(found, Problem):
            report.problems.append(found)
            continue
        key = check_key(found.user_id, found.session_id)
        messages = check_messages(found.messages)
        report.sessions += 1
        report.messages += len(messages)
        before = yield from on(backend, backend.get_session(key))
        there: dict[str, Any] = {}
        if before is not None:
            read = yield from on(backend, backend.read(key, MessageQuery(limit=None)))
            there = {row.message_id or "": row for row in read.rows}
        timed = all(m.create_time is not None for m in messages)
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            fresh = tuple(m for m in batch if m.message_id not in there)
            other = tuple(
                m for m in batch if m.message_id in there and not _equal(m, there[m.message_id])
            )
            if timed:
                change = Change(put=fresh + other)
            else:
                change = Change(append=fresh, put=tuple(map(_timeless, other)))
            if fresh or other:
                yield from on(backend, backend.commit(key, change))
                report.written += len(fresh) + len(other)
            if progress is not None:
                progress(Progress(report.sessions, report.messages, *key))
        alone = there.keys() <= {m.message_id for m in messages}
        patch = _patch(found, before) if alone else None
        if patch is not None:
            yield from on(backend, backend.commit(key, Change(session=patch)))
        if done is not None:
            done(found)
    return report


def _equal(message: Message, stored: Message | CorruptRecordError) -> bool:
    if isinstance(stored, CorruptRecordError):
        return False
    if message.create_time is None:
        message = msgspec.structs.replace(message, create_time=stored.create_time)
    return same_message(message, stored)


def _timeless(message: Message) -> Message:
    return msgspec.structs.replace(message, create_time=None)


def _patch(found: Imported, before: Session | CorruptRecordError | None) -> SessionPatch | None:
    """What the record becomes; None where it is like that."""
    old = before if isinstance(before, Session) else None
    patch: dict[str, Any] = {}
    for name in ("title", "summary", "create_time", "update_time"):
        value = getattr(found, name)
        if value is not None and value != (getattr(old, name) if old else None):
            patch[name] = value
    kept = old.metadata if old else {}
    if any(key not in kept or kept[key] != value for key, value in found.metadata.items()):
        patch["metadata"] = found.metadata
    if found.ttl is not None and (old is None or old.ttl is None):
        patch["ttl"] = check_ttl(found.ttl)
    if not patch and old is None and not found.messages:
        return SessionPatch()
    return SessionPatch(**patch) if patch else None
