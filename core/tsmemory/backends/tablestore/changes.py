"""What a change means for Tablestore's rows: pure functions of the writer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tsmemory.backends.tablestore.layout import MAX_ROW
from tsmemory.backends.tablestore.records import MAX_PINS, Record
from tsmemory.backends.tablestore.recovery import BATCH_WRITE
from tsmemory.backends.tablestore.rows import Encoded
from tsmemory.engine.codec import encode_session
from tsmemory.engine.commit import Plan
from tsmemory.engine.records import UNSET, Change, Key, Position
from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, Session, is_pinned

__all__ = ["check_patch", "parts", "pins_after", "place_of", "says_something"]

_BATCH_BYTES = MAX_ROW - 65_536
"""Bytes of messages in one request, less room for keys and our bookkeeping (a row that is larger
goes alone)."""
_MAX_PATCH = 1_500_000
"""Bytes of a session's title, summary and metadata: they share a column with our bookkeeping."""
_ROW_BYTES = 2048  # keys, of up to 255 bytes an id, and bookkeeping of a row


def place_of(message: Message) -> Position:
    return Position(message.create_time or 0, message.message_id)


def says_something(record: Record) -> bool:
    """Whether messages' rows have something to say of the session."""
    session = record.session
    return record.pins != () or (isinstance(session, Session) and session.expires_at is not None)


def pins_after(
    old: Record | None,
    planned: Plan,
    gone: Sequence[Position],
    existing: Mapping[str, Position],
    through: Position | None,
) -> tuple[Position, ...] | None:
    pins = old.pins if old is not None else ()
    if pins is None:
        return None
    kept = set(pins) - set(gone) - {existing[m.message_id] for m in planned.overwrite}
    if through is not None:
        kept = {pin for pin in kept if pin > through}
    kept |= {place_of(m) for m in planned.insert + planned.overwrite if is_pinned(m.role)}
    return tuple(sorted(kept)) if len(kept) <= MAX_PINS else None


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


def parts(change: Change, bodies: Mapping[str, Encoded]) -> Iterator[Change]:
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
                size += bodies[row.message_id].size + _ROW_BYTES
            if taken and size > _BATCH_BYTES:
                break
            taken += 1
        some, rows = rows[:taken], rows[taken:]
        lists = {
            kind: tuple(row for k, row in some if k == kind) for kind in ("append", "put", "delete")
        }
        if first:
            yield msgspec.structs.replace(change, **lists)
        else:
            yield Change(ttl=change.ttl, create=change.create, **lists)  # type: ignore[arg-type]  # each has its kind
        first = False
