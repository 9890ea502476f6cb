"""The commit template, and the rules of order, exactly-once and conflicts that it applies.

A backend that decides in the client (under its lock, in its transaction) gives two functions,
``load`` and ``apply``, and `commit` does the rest:

1. encode every message, which finds what cannot be stored before any I/O;
2. ``load`` the session's head and those of its messages that the change touches;
3. compare what is appended with what is stored under the same id;
4. `plan` the new head, rows, overwrites and deletions: pure, no I/O;
5. ``apply`` the plan, where it changes anything.

A backend that decides in the server (a Lua script, one SQL statement) passes the same conformance
suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from tsmemory.engine.codec import encode_message
from tsmemory.engine.records import UNSET, Change, Key, Outcome, Position, SessionPatch
from tsmemory.engine.steps import Steps
from tsmemory.errors import ConflictError, CorruptRecordError
from tsmemory.model import Message, Session

__all__ = [
    "CLOCK_SKEW_US", "Apply", "Head", "Load", "Loaded", "Plan", "activity", "at_time", "commit",
    "content_conflict", "encode_bodies", "is_expired", "plan", "same_content", "touched_ids",
]  # fmt: skip


CLOCK_SKEW_US = 60_000_000
"""By how much one host's clock may be ahead of another's and still count as a clock: ours, well
over what NTP leaves."""


class Head(NamedTuple):
    """A session as its engine keeps it."""

    session: Session
    last_time: int
    """The highest create_time that the session ever gave or took: deletions do not lower it."""


class Loaded(NamedTuple):
    """What ``load`` found of a session. Everything empty where there is none, or an expired one."""

    head: Head | None
    appended: Mapping[str, Message | CorruptRecordError]
    """Stored messages by id, of the ids in `Change.append`."""
    positions: Mapping[str, Position]
    """Of the ids in `Change.put` and `Change.delete` that are stored."""
    through: int = 0
    """How many messages `Change.delete_through` covers."""


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


Load: TypeAlias = Callable[[], Steps[Loaded]]
Apply: TypeAlias = "Callable[[Plan, Mapping[str, bytes]], Steps[None]]"
"""Takes the plan and the encoded messages by id."""


def commit(
    key: Key,
    change: Change,
    *,
    clock: Callable[[], int],
    load: Load,
    apply: Apply,
    bodies: Mapping[str, bytes] | None = None,
) -> Steps[Outcome]:
    """Do `change` by the steps of the module's docstring.

    Args:
        clock: µs since the epoch, read after ``load``, so under the backend's lock.
        bodies: what `encode_bodies` gave, where the backend encoded before it took its lock.

    Raises:
        InvalidInputError: a message cannot be stored. Nothing was read.
        ConflictError: the session's version, or the content under an id, is another.
        CorruptRecordError: a stored message that the outcome should hold does not decode.
    """
    if bodies is None:
        bodies = encode_bodies(change)
    loaded = yield from load()
    _compare(key, change, loaded.appended, bodies)
    existing = dict(loaded.positions)
    for mid, row in loaded.appended.items():
        existing[mid] = Position(row.create_time or 0, mid)
    planned = plan(key, loaded.head, change, existing, clock(), loaded.through)
    if planned.changed:
        yield from apply(planned, bodies)
    stored = [
        row if isinstance(row, Message) else _decoded(loaded.appended[row])
        for row in planned.stored
    ]
    session = planned.head.session if planned.head else None
    return Outcome(session, stored, len(planned.delete) + loaded.through)


def _compare(
    key: Key,
    change: Change,
    stored: Mapping[str, Message | CorruptRecordError],
    bodies: Mapping[str, bytes],
) -> None:
    """Step 3: an id that is there must have the same content."""
    for message in change.append:
        row = stored.get(message.message_id)
        if row is not None and not same_content(message, _decoded(row), bodies):
            raise content_conflict(key, message.message_id)


def same_content(
    message: Message, stored: Message, bodies: Mapping[str, bytes] | None = None
) -> bool:
    """Whether two messages say the same, whenever they were stored.

    Args:
        bodies: `message` encoded, by id, where it is at hand.
    """
    if at_time(message, stored.create_time or 0) == stored:
        return True
    # NaN is not equal to itself; its encoded form is.
    body = bodies[message.message_id] if bodies else encode_message(message)
    return body == encode_message(stored)


def content_conflict(key: Key, message_id: str) -> ConflictError:
    """What an append raises for an id under which other content is stored."""
    return ConflictError(
        f"session {key.session_id!r} has another message under the id {message_id!r}; give the "
        "new one an id of its own, or overwrite the stored one with put_message"
    )


def _decoded(row: Message | CorruptRecordError) -> Message:
    if isinstance(row, CorruptRecordError):
        raise row
    return row


def is_expired(session: Session, now: int) -> bool:
    """Whether the session has expired at `now` (µs)."""
    return session.expires_at is not None and session.expires_at <= now


def encode_bodies(change: Change, limit: int | None = None) -> dict[str, bytes]:
    """The encoded messages of a change, by id.

    Raises:
        InvalidInputError: a message cannot be stored, or is over `limit` bytes.
    """
    encoded = {m.message_id: encode_message(m, limit) for m in change.append}
    if change.put:
        encoded.update((m.message_id, encode_message(m, limit)) for m in change.put)
    return encoded


def touched_ids(change: Change) -> list[str]:
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
        existing: the positions of those `touched_ids` that are there.
        now: the engine's clock, µs.
        through: how many messages `change.delete_through` covers.

    Raises:
        ConflictError: `change.if_version` is not the session's version.
    """
    nothing = Plan(head, [], [], [], [], False)
    if change.if_version is not None:
        _check_version(key, head, change, existing)
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


def _check_version(
    key: Key, head: Head | None, change: Change, existing: Mapping[str, Position]
) -> None:
    actual = head.session.version if head else 0
    if actual != change.if_version and not _is_retry(change, existing):
        raise ConflictError(
            f"session {key.session_id!r} is at version {actual}, not {change.if_version}; "
            "read it again and decide anew",
            expected=change.if_version,
            actual=actual,
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
        update_time = activity(now, last, old.update_time if old else 0)
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


def activity(now: int, *times: int) -> int:
    """When a session was last active: `now`, or the latest of `times` where that is ahead of `now`
    by no more than a clock's usual skew. A clock that was years ahead must not keep a session first
    in listings for years (all in µs)."""
    return max(now, *(time for time in times if time <= now + CLOCK_SKEW_US), now)


def _first(new: Any, old: Any) -> Any:
    return old if new is UNSET else new


def _metadata(old: dict[str, Any], patch: SessionPatch) -> dict[str, Any]:
    if patch.metadata is UNSET and not patch.remove:
        return old
    merged = (
        {} if patch.replace_metadata else {k: v for k, v in old.items() if k not in patch.remove}
    )
    return merged if patch.metadata is UNSET else {**merged, **patch.metadata}
