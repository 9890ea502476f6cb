"""What a change does to a session: the law of order, exactly-once and conflicts, without I/O.

Every engine that decides on the client's side (under its lock or in its transaction) asks here,
so the rules are written once. An engine that decides in the server (a Lua script) answers to the
same conformance suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from tsmemory._codec import encode_message
from tsmemory.backends.base import UNSET, Change, Key, Position, SessionPatch
from tsmemory.errors import ConflictError
from tsmemory.model import Message, Session

__all__ = ["Head", "Plan", "at_time", "bodies", "is_expired", "mentioned", "plan"]


class Head(NamedTuple):
    """A session as its engine keeps it."""

    session: Session
    last_time: int
    """The highest create_time that the session ever gave or took: deletions do not lower it."""


class Plan(NamedTuple):
    head: Head | None
    """The session's new record; None where there is none and none is begun."""
    insert: list[Message]
    """New rows, their times given."""
    overwrite: list[Message]
    """Rows whose id is there: to be replaced, time included."""
    delete: list[str]
    """Ids that are there and go."""
    stored: list[Message | str]
    """For each of append, then put: what is stored; an id where that is what is there already."""
    changed: bool
    """False: nothing to write."""


def is_expired(session: Session, now: int) -> bool:
    """Whether a session's time to live is over at `now` (µs)."""
    return session.expires_at is not None and session.expires_at <= now


def bodies(change: Change, limit: int | None = None) -> dict[str, bytes]:
    """The encoded messages of a change, by id: of two appended with one id the first counts.

    Raises:
        InvalidInputError: a message that cannot be stored, or is over `limit` bytes.
    """
    encoded = {m.message_id: encode_message(m, limit) for m in reversed(change.append)}
    encoded.update((m.message_id, encode_message(m, limit)) for m in change.put)
    return encoded


def mentioned(change: Change) -> list[str]:
    """The ids whose presence `plan` asks about."""
    return [m.message_id for m in (*change.append, *change.put)] + list(change.delete)


def plan(
    key: Key,
    head: Head | None,
    change: Change,
    existing: Mapping[str, Position],
    now: int,
    through: int = 0,
) -> Plan:
    """What `change` does to the session whose live record is `head`.

    Args:
        existing: the positions of those `mentioned` messages that are there.
        now: the engine's clock, µs.
        through: how many messages `change.delete_through` covers.

    Raises:
        ConflictError: `change.if_version` is not the session's version.
    """
    nothing = Plan(head, [], [], [], [], False)
    if change.if_version is not None:
        actual = head.session.version if head else 0
        if actual != change.if_version and not _is_retry(change, existing):
            raise ConflictError(
                f"session {key.session_id!r} is at version {actual}, not {change.if_version}; "
                "read it again and decide anew",
                expected=change.if_version,
                actual=actual,
            )
    if head is None and not (change.create and (change.append or change.put or change.session)):
        return nothing

    last = head.last_time if head else 0
    insert: dict[str, Message] = {}
    overwrite: dict[str, Message] = {}
    stored: list[Message | str] = []
    for message in change.append:
        mid = message.message_id
        if mid in insert:
            stored.append(insert[mid])
        elif mid in existing:
            stored.append(mid)
        else:
            last = max(now, last + 1)
            insert[mid] = placed = at_time(message, last)
            stored.append(placed)
    for message in change.put:
        mid = message.message_id
        time = message.create_time
        if time is None:
            time = existing[mid].create_time if mid in existing else max(now, last + 1)
        last = max(last, time)
        placed = at_time(message, time)
        (overwrite if mid in existing else insert)[mid] = placed
        stored.append(placed)
    delete = [mid for mid in dict.fromkeys(change.delete) if mid in existing]

    if not (insert or overwrite or delete or through or change.session):
        return nothing._replace(stored=stored)
    count = head.session.message_count if head else 0
    session = _record(key, head, change, now, last if insert else 0)
    session = msgspec.structs.replace(
        session, message_count=count + len(insert) - len(delete) - through
    )
    return Plan(
        Head(session, last), list(insert.values()), list(overwrite.values()), delete, stored, True
    )


def _is_retry(change: Change, existing: Mapping[str, Position]) -> bool:
    only_appends = not (
        change.put or change.delete or change.delete_through or change.session is not None
    )
    return only_appends and all(m.message_id in existing for m in change.append)


def at_time(message: Message, create_time: int) -> Message:
    """The same message at `create_time` (µs)."""
    if message.create_time == create_time:
        return message
    return Message(
        message.role,
        message.content,
        message.message_id,
        create_time,
        message.name,
        message.tool_calls,
        message.tool_call_id,
        message.metadata,
        message.extensions,
    )


def _record(key: Key, head: Head | None, change: Change, now: int, last: int) -> Session:
    """The session's record after the change, its message count left for the caller."""
    patch = change.session or SessionPatch()
    old = head.session if head else None
    ttl = patch.ttl
    if ttl is UNSET and change.ttl is not None:
        ttl = change.ttl
    elif ttl is UNSET:
        ttl = old.ttl if old else change.default_ttl
    expires_at: Any = patch.expires_at
    if expires_at is UNSET:
        expires_at = now + round(ttl * 1_000_000) if ttl is not None else None
    update_time = patch.update_time
    if update_time is UNSET:
        update_time = max(now, last, old.update_time if old else 0)
    return Session(
        user_id=key.user_id,
        session_id=key.session_id,
        create_time=_first(patch.create_time, old.create_time if old else now),
        update_time=update_time,
        version=(old.version if old else 0) + 1,
        message_count=old.message_count if old else 0,
        title=_first(patch.title, old.title if old else None),
        summary=_first(patch.summary, old.summary if old else None),
        expires_at=expires_at,
        ttl=ttl,
        metadata=_metadata(old.metadata if old else {}, patch),
    )


def _first(new: Any, old: Any) -> Any:
    return old if new is UNSET else new


def _metadata(old: dict[str, Any], patch: SessionPatch) -> dict[str, Any]:
    if patch.metadata is UNSET and not patch.remove:
        return old
    kept = {} if patch.replace_metadata else {k: v for k, v in old.items() if k not in patch.remove}
    return kept if patch.metadata is UNSET else {**kept, **patch.metadata}
