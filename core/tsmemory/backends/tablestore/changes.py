"""What a change means for Tablestore's rows: the writer's pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tsmemory.backends.tablestore.layout import MAX_ROW
from tsmemory.backends.tablestore.records import MAX_INSTRUCTIONS, Intent, Record
from tsmemory.backends.tablestore.rows import Encoded
from tsmemory.engine.codec import encode_session
from tsmemory.engine.commit import Plan
from tsmemory.engine.records import UNSET, Change, Key, Position
from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, Session, is_pinned

__all__ = ["BATCH_WRITE", "check_patch", "instructions_after", "intent_of", "parts", "position_of"]

BATCH_WRITE = 200
"""Rows of one BatchWriteRow (Tablestore, "Limits on the Wide Column model")."""

_BATCH_BYTES = MAX_ROW - 65_536
"""Bytes of messages in one request, less room for keys and our bookkeeping (a row that is larger
goes alone)."""
_MAX_PATCH = 1_500_000
"""Bytes of a session's title, summary and metadata, which share a column."""
_ROW_BYTES = 2048  # keys, of up to 255 bytes an id, and bookkeeping of a row


def position_of(message: Message) -> Position:
    return Position(message.create_time or 0, message.message_id)


def intent_of(
    change: Change, planned: Plan, positions: Mapping[str, Position], through: Sequence[Position]
) -> Intent:
    """What `planned` does to the messages.

    Args:
        positions: where the messages that it changes are.
        through: the messages that `change.delete_through` covers.
    """
    appended_ids = {message.message_id for message in change.append}
    appended = [m for m in planned.insert if m.message_id in appended_ids]
    moved = [m for m in planned.overwrite if positions[m.message_id] != position_of(m)]
    return Intent(
        first=appended[0].create_time or 0 if appended else 0,
        ids=tuple(m.message_id for m in appended),
        insert=tuple(position_of(m) for m in planned.insert if m.message_id not in appended_ids),
        move=tuple(
            (positions[m.message_id].create_time, m.create_time or 0, m.message_id) for m in moved
        ),
        delete=tuple(positions[mid] for mid in planned.delete),
        delete_through=change.delete_through if through else None,
        overwrites=tuple(position_of(m) for m in planned.overwrite if m not in moved),
    )


def instructions_after(
    old: Record | None, planned: Plan, intent: Intent, positions: Mapping[str, Position]
) -> tuple[Position, ...] | None:
    """The positions of the session's instructions once `planned` is done; None: too many."""
    before = old.instruction_positions if old is not None else ()
    if before is None:
        return None
    remaining = set(before) - set(intent.delete)
    remaining -= {positions[m.message_id] for m in planned.overwrite}
    if intent.delete_through is not None:
        last = intent.delete_through
        remaining = {position for position in remaining if position > last}
    remaining |= {position_of(m) for m in planned.insert + planned.overwrite if is_pinned(m.role)}
    return tuple(sorted(remaining)) if len(remaining) <= MAX_INSTRUCTIONS else None


def check_patch(key: Key, change: Change) -> None:
    """Refuse what cannot be stored, before any I/O."""
    assert change.session is not None
    patch = change.session
    record = encode_session(
        Session(
            user_id=key.user_id, session_id=key.session_id, create_time=0, update_time=0,
            version=0, message_count=0,
            title=None if patch.title is UNSET else patch.title,
            summary=None if patch.summary is UNSET else patch.summary,
            metadata={} if patch.metadata is UNSET else patch.metadata,
        )
    )  # fmt: skip
    if len(record) > _MAX_PATCH:
        raise InvalidInputError(
            f"title, summary and metadata of session {key.session_id!r} take {len(record)} bytes, "
            f"over {_MAX_PATCH}: shorten them"
        )


def parts(change: Change, encoded: Mapping[str, Encoded]) -> Iterator[Change]:
    """The change in parts that each fit one request of messages."""
    rows: list[tuple[str, object]] = [
        *(("append", m) for m in change.append), *(("put", m) for m in change.put),
        *(("delete", mid) for mid in change.delete),
    ]  # fmt: skip
    first = True
    while rows or first:
        size, taken = 0, 0
        for _, row in rows[:BATCH_WRITE]:
            if isinstance(row, Message):
                size += encoded[row.message_id].size + _ROW_BYTES
            if taken and size > _BATCH_BYTES:
                break
            taken += 1
        batch, rows = rows[:taken], rows[taken:]
        lists = {
            kind: tuple(row for k, row in batch if k == kind)
            for kind in ("append", "put", "delete")
        }
        if first:
            yield msgspec.structs.replace(change, **lists)
        else:
            yield Change(ttl=change.ttl, create=change.create, **lists)  # type: ignore[arg-type]  # each has its kind
        first = False
