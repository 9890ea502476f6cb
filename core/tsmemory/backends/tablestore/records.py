"""Sessions to rows and back.

A row has ``update_time``, the metadata in columns of their names, and one column of ours,
``tsmemory``: the flag ``1`` or ``2`` (see `_tablestore_rows`) and a JSON object that begins with
``t``, the token of the last commit. Every commit makes a new token and is written only where the
old one still stands: that is the lock. The column is in the index too, so a listing needs no second
read; hence ``r`` repeats the metadata. The others: ``n`` version, ``c`` message count, ``k``
create_time, ``l`` last_time, ``x`` expires_at, ``y`` ttl, and the fields of `Record`.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from tsmemory.backends.tablestore.layout import (
    RESERVED,
    UPDATE_TIME,
    Layout,
    is_column,
    native_value,
)
from tsmemory.backends.tablestore.rows import join
from tsmemory.backends.tablestore.sdk import Columns, all_of, any_of, compare, negate
from tsmemory.engine.codec import decode_session, encode_session
from tsmemory.engine.records import Key, Position
from tsmemory.engine.rows import corrupt_session
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Session

__all__ = [
    "MAX_PINS",
    "Intent",
    "Record",
    "columns_of",
    "native_of",
    "new_token",
    "read",
    "unchanged",
]

MAX_PINS = 200
"""Instructions whose places a session's record lists; with more, they are looked for."""
_MAX_RECORD = 2_000_000  # bytes, under the 2 MB of one column


class Intent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit sets out to do to the messages, so that whoever comes next can finish it."""

    first: int = 0
    """The time of the first appended message; the others follow at 1 µs each."""
    ids: tuple[str, ...] = ()
    """Of the appended messages."""
    insert: tuple[Position, ...] = ()
    """Rows put at times of their own."""
    move: tuple[tuple[int, int, str], ...] = ()
    """Rows put anew at another time: old time, new time, id."""
    delete: tuple[Position, ...] = ()
    through: Position | None = None
    """Every message up to here goes."""
    over: tuple[Position, ...] = ()
    """Rows written over where they stand."""
    held: bool = False
    """The session's version moves only when all this is done."""

    def appended(self) -> list[Position]:
        return [Position(self.first + i, mid) for i, mid in enumerate(self.ids)]

    def only_appends(self) -> bool:
        return not (self.insert or self.move or self.delete or self.through or self.held)

    def only_inserts(self) -> bool:
        return not (self.move or self.delete or self.through or self.over)

    def inserted(self) -> list[Position]:
        """Every row that the commit brings, in the order of its list."""
        return [
            *self.appended(), *self.insert, *(Position(new, mid) for _, new, mid in self.move)
        ]  # fmt: skip


class _Kept(msgspec.Struct, omit_defaults=True):
    t: str
    n: int
    c: int
    k: int
    l: int  # noqa: E741  # the column's spelling; few bytes, read by machines
    r: msgspec.Raw
    x: int | None = None
    y: float | None = None
    e: str = ""
    q: int = 0
    g: int = 0
    p: tuple[Position, ...] | None = ()
    w: Intent | None = None
    d: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A session's row, read."""

    session: Session | CorruptRecordError
    last_time: int = 0
    """The highest create_time that the session ever gave or took."""
    token: str | None = None
    """Of the last commit; None where others wrote the row, or it cannot be read."""
    life: str = ""
    """Names this life of the session: deleted and begun anew it has another."""
    puts: int = 0
    """Counts the commits that put messages elsewhere than at the end."""
    gone: int = 0
    """Counts the rows that only keep a place."""
    pins: tuple[Position, ...] | None = ()
    """Where the instructions stand, in order; None: more than are listed."""
    intent: Intent | None = None
    """What the last commit does to the messages."""
    deleting: bool = False
    """Somebody is deleting the session: it is not there any more."""
    native: Columns = msgspec.field(default_factory=dict)
    """The metadata columns as found."""


_encoder = msgspec.json.Encoder()
_decode_kept = msgspec.json.Decoder(_Kept).decode


def new_token() -> str:
    return secrets.token_urlsafe(9)


def columns_of(record: Record) -> Columns:
    """The columns of a session's row.

    Raises:
        InvalidInputError: metadata that cannot be stored, or too much of it.
    """
    session = record.session
    assert isinstance(session, Session)
    kept = _Kept(
        record.token or "", session.version, session.message_count, session.create_time,
        record.last_time, msgspec.Raw(encode_session(session)), session.expires_at, session.ttl,
        record.life, record.puts, record.gone, record.pins, record.intent, record.deleting,
    )  # fmt: skip
    columns = native_of(record)
    flag = "1" if len(columns) == len(session.metadata) else "2"
    text = flag + _encoder.encode(kept).decode()
    if len(text) > _MAX_RECORD or len(text.encode()) > _MAX_RECORD:
        raise InvalidInputError(
            f"the record of session {session.session_id!r} takes over {_MAX_RECORD} bytes: "
            "shorten its summary or metadata"
        )
    return {UPDATE_TIME: session.update_time, RESERVED: text, **columns}


def native_of(record: Record) -> Columns:
    """The metadata that has columns of its own."""
    return (
        {
            k: v
            for k, v in record.session.metadata.items()
            if type(k) is str and is_column(k, "session") and native_value(v)
        }
        if isinstance(record.session, Session)
        else {}
    )


def unchanged(token: str | None, field: str = "t") -> Any:
    """The condition that the row's last commit is still `token`'s; None: no commit of ours."""
    if token is None:
        return negate(any_of(compare(RESERVED, ">=", ""), compare(RESERVED, "<", "")))
    # In JSON of ours a comma follows the token, and "-" follows the comma.
    begins = (f'{flag}{{"{field}":"{token}"' for flag in "12")
    return any_of(
        *(all_of(compare(RESERVED, ">", b), compare(RESERVED, "<", b + "-")) for b in begins)
    )


def read(key: Key, columns: Columns, layout: Layout) -> Record:
    """The session's row, as found in its table or, isolated only, in the index."""
    update_time = columns.get(UPDATE_TIME, 0)
    native = {k: v for k, v in columns.items() if k != UPDATE_TIME and not k.startswith(RESERVED)}
    bare = Session(
        user_id=key.user_id, session_id=key.session_id, create_time=0,
        update_time=update_time if isinstance(update_time, int) else 0, version=1, message_count=0,
    )  # fmt: skip
    try:
        if not isinstance(update_time, int):
            raise ValueError(f"the column {UPDATE_TIME} is no integer")
        text = join(columns)
        if text is None:
            if layout.isolated:
                raise ValueError(f"the column {RESERVED} is missing")
            session = msgspec.structs.replace(bare, create_time=update_time, metadata=native)
            return Record(session=session, pins=None, native=native)
        if text[:1] not in ("1", "2"):
            raise ValueError(f"written in format {text[:1]!r}; this release reads 1 and 2")
        kept = _decode_kept(text[1:])
        title, summary, metadata = decode_session(bytes(kept.r))
    except ValueError as error:
        return Record(session=corrupt_session(bare, error), pins=None, native=native)
    if not layout.isolated:  # others change the columns, and only those
        odd = {
            k: v for k, v in metadata.items() if not (is_column(k, "session") and native_value(v))
        }
        metadata = {**native, **odd}
    session = Session(
        user_id=key.user_id, session_id=key.session_id, create_time=kept.k,
        update_time=update_time, version=kept.n, message_count=kept.c, title=title,
        summary=summary, expires_at=kept.x, ttl=kept.y, metadata=metadata,
    )  # fmt: skip
    return Record(
        session=session, last_time=kept.l, token=kept.t, life=kept.e, puts=kept.q, gone=kept.g,
        pins=kept.p, intent=kept.w, deleting=kept.d, native=native,
    )  # fmt: skip
