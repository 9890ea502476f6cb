"""Sessions to rows and back.

A session's head and its row in the session table have the same columns of ours:

- the *state*, in ``tsmemory_head`` on a head in the message table and in ``tsmemory`` on a row of
  the session table: a flag and a JSON object with the fields of `_State`. On a row of the session
  table the flag says whether every metadata value has a column (``1``) or not (``2``), so that the
  service can filter alone. The object begins with the *token* of the last commit: every commit
  makes a new one and is written only where the old one is still there. That is the lock.
- ``tsmemory_session``, the title, the summary and the metadata (``agent-memory``: only metadata
  that no column holds; others change the columns, and what they write counts);
- ``tsmemory_intent``, on heads only: what the last commit does to the messages.

They are separate so that an append sends the state and the intent only, however long the summary.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from tsmemory.backends.tablestore.layout import (
    DESCRIPTION,
    HEAD,
    INTENT,
    RESERVED,
    SEQUENCE,
    UPDATE_TIME,
    Layout,
    is_column,
    native_value,
)
from tsmemory.backends.tablestore.sdk import Columns, all_of, any_of, compare, negate
from tsmemory.engine.codec import decode_session, encode_session
from tsmemory.engine.records import Key, Position
from tsmemory.engine.rows import corrupt_session
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Session

__all__ = [
    "MAX_INSTRUCTIONS", "Intent", "Record", "head_columns", "listing_columns", "native_columns",
    "new_token", "read", "unchanged",
]  # fmt: skip

MAX_INSTRUCTIONS = 200
"""Instructions whose positions a session's state lists; with more, they are looked for."""
_MAX_NATIVE = 512
"""Metadata values in columns of their own; the service takes 1,024 columns in one row change."""


class Intent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit sets out to do to the messages, so that whoever comes next can finish it."""

    first: int = 0
    """The time of the first appended message; the others follow at 1 µs each."""
    ids: tuple[str, ...] = ()
    """Of the appended messages."""
    insert: tuple[Position, ...] = ()
    """Messages put at times of their own."""
    move: tuple[tuple[int, int, str], ...] = ()
    """Messages put at another time: old time, new time, id."""
    delete: tuple[Position, ...] = ()
    delete_through: Position | None = None
    """Every message up to here is deleted."""
    overwrites: tuple[Position, ...] = ()
    """Messages overwritten where they are."""
    defers_version: bool = False
    """The session's version is raised only when all this is done."""

    def appended(self) -> list[Position]:
        return [Position(self.first + i, mid) for i, mid in enumerate(self.ids)]

    def only_inserts(self) -> bool:
        return not (self.move or self.delete or self.delete_through or self.overwrites)

    def inserted(self) -> list[Position]:
        """The position of every row that the commit brings: appended, put, moved."""
        return [
            *self.appended(), *self.insert, *(Position(new, mid) for _, new, mid in self.move)
        ]  # fmt: skip


class _State(msgspec.Struct, omit_defaults=True):
    token: str
    version: int
    message_count: int
    create_time: int
    last_time: int
    sequence: int = 0
    indexed_time: int = 0
    expires_at: int | None = None
    ttl: float | None = None
    incarnation: str = ""
    put_count: int = 0
    tombstone_count: int = 0
    instruction_positions: tuple[Position, ...] | None = ()
    deleting: bool = False
    lease: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A session's head or listing row, read."""

    session: Session | CorruptRecordError
    last_time: int = 0
    """The highest create_time that the session ever gave or took."""
    token: str | None = None
    """Of the last commit; None where others wrote the row, or it cannot be read."""
    sequence: int = 0
    """Rises with every write of the head, also where the version does not."""
    indexed_time: int = 0
    """The index was seen to hold every message up to this time."""
    incarnation: str = ""
    """Made when the session begins; another one after it was deleted and begun again."""
    put_count: int = 0
    """Commits that put messages elsewhere than at the end."""
    tombstone_count: int = 0
    """Rows that only occupy a position."""
    instruction_positions: tuple[Position, ...] | None = ()
    """In order; None: more than are listed."""
    intent: Intent | None = None
    """What the last commit does to the messages; None where it is known to be done."""
    deleting: bool = False
    """The session is being deleted: for every reader it no longer exists."""
    lease: str = ""
    """Names the rewrite that asked other writers to wait; empty: none."""
    raw_columns: Columns = msgspec.field(default_factory=dict)
    """The metadata columns as found."""


_encoder = msgspec.json.Encoder()
_decode_state = msgspec.json.Decoder(_State).decode
_decode_intent = msgspec.json.Decoder(Intent | None).decode


def new_token() -> str:
    return secrets.token_urlsafe(9)


def native_columns(session: Session) -> Columns:
    """The metadata that has columns of its own."""
    columns: Columns = {}
    for name, value in session.metadata.items():
        if len(columns) == _MAX_NATIVE:
            break
        if type(name) is str and is_column(name, "session") and native_value(value):
            columns[name] = value
    return columns


def _state(record: Record) -> str:
    session = record.session
    assert isinstance(session, Session)
    return _encoder.encode(
        _State(
            token=record.token or "", version=session.version,
            message_count=session.message_count, create_time=session.create_time,
            last_time=record.last_time, sequence=record.sequence,
            indexed_time=record.indexed_time, expires_at=session.expires_at,
            ttl=session.ttl, incarnation=record.incarnation, put_count=record.put_count,
            tombstone_count=record.tombstone_count,
            instruction_positions=record.instruction_positions, deleting=record.deleting,
            lease=record.lease,
        )
    ).decode()  # fmt: skip


def head_columns(record: Record, layout: Layout) -> Columns:
    """Every column of a session's head."""
    session = record.session
    assert isinstance(session, Session)
    intent = _encoder.encode(record.intent).decode()
    if not layout.isolated:
        return {**listing_columns(record, layout), INTENT: intent}
    return {
        UPDATE_TIME: session.update_time,
        HEAD: "1" + _state(record),
        DESCRIPTION: encode_session(session).decode(),
        INTENT: intent,
    }


def listing_columns(record: Record, layout: Layout) -> Columns:
    """Every column of a session's row in the session table, but a head's intent."""
    session = record.session
    assert isinstance(session, Session)
    native = native_columns(session)
    others = {k: v for k, v in session.metadata.items() if k not in native}
    described = session if layout.isolated else msgspec.structs.replace(session, metadata=others)
    columns = {
        UPDATE_TIME: session.update_time,
        RESERVED: ("2" if others else "1") + _state(record),
        DESCRIPTION: encode_session(described).decode(),
        **native,
    }
    return {**columns, SEQUENCE: record.sequence} if layout.isolated else columns


def unchanged(token: str | None, column: str, field: str = "token") -> Any:
    """The condition that a row's last commit is still `token`'s; None: no commit of ours."""
    if token is None:
        return negate(any_of(compare(column, ">=", ""), compare(column, "<", "")))
    # In JSON of ours a comma follows the token, and "-" follows the comma.
    begins = (f'{flag}{{"{field}":"{token}"' for flag in "12")
    return any_of(*(all_of(compare(column, ">", b), compare(column, "<", b + "-")) for b in begins))


def read(key: Key, columns: Columns, layout: Layout, column: str = RESERVED) -> Record:
    """A head, or a row of the session table or of its index.

    Args:
        column: where the state is.
    """
    update_time = columns.get(UPDATE_TIME, 0)
    native = {k: v for k, v in columns.items() if k != UPDATE_TIME and not k.startswith(RESERVED)}
    bare = Session(
        user_id=key.user_id, session_id=key.session_id, create_time=0,
        update_time=update_time if isinstance(update_time, int) else 0, version=1, message_count=0,
    )  # fmt: skip
    try:
        if not isinstance(update_time, int):
            raise ValueError(f"the column {UPDATE_TIME} is not an integer")
        text = _text(columns, column)
        if text is None:
            if layout.isolated:
                raise ValueError(f"the column {column} is missing")
            session = msgspec.structs.replace(bare, create_time=update_time, metadata=native)
            return Record(session=session, instruction_positions=None, raw_columns=native)
        if text[:1] not in ("1", "2"):
            raise ValueError(f"written in format {text[:1]!r}; this release reads 1 and 2")
        state = _decode_state(text[1:])
        described = _text(columns, DESCRIPTION)
        if described is None:
            raise ValueError(f"the column {DESCRIPTION} is missing")
        title, summary, metadata = decode_session(described.encode())
        intent = _decode_intent(_text(columns, INTENT) or "null")
    except ValueError as error:
        broken = corrupt_session(bare, error)
        return Record(session=broken, instruction_positions=None, raw_columns=native)
    session = Session(
        user_id=key.user_id, session_id=key.session_id, create_time=state.create_time,
        update_time=update_time, version=state.version, message_count=state.message_count,
        title=title, summary=summary, expires_at=state.expires_at, ttl=state.ttl,
        metadata=metadata if layout.isolated else {**metadata, **native},
    )  # fmt: skip
    return Record(
        session=session, last_time=state.last_time, token=state.token,
        sequence=state.sequence, indexed_time=state.indexed_time,
        incarnation=state.incarnation, put_count=state.put_count,
        tombstone_count=state.tombstone_count,
        instruction_positions=state.instruction_positions, intent=intent,
        deleting=state.deleting, lease=state.lease, raw_columns=native,
    )  # fmt: skip


def _text(columns: Columns, name: str) -> str | None:
    value = columns.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the column {name} is {type(value).__name__}, not text")
    return value
