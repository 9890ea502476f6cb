"""Messages to rows and back.

A row has the metadata in columns of their names, each of its own type; the text in ``content``, the
role in ``role``; and one column of ours, ``tsmemory``: a flag and a JSON object. The flag says

    1   every metadata value is in a column, so the service can answer filters alone
    2   some are in ``r``: keys that are no column names, values that no column holds
    0   no message: the row keeps a place that a late writer must not take

and the object holds ``r``, the message as `_codec` writes it less what is in columns; ``b`` and
``i``, the commit that wrote the row and its place in the batch (-1: it was put, not appended);
``u``, the user, where the table's key lacks it; and what a reader of the newest row needs to know
of the session: ``x``, when it expires (µs), and ``p``, where its instructions stand. ``a`` says:
ask the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory.backends.tablestore.layout import (
    ASK,
    CONTENT,
    GONE,
    MAX_COLUMN,
    MAX_ROW,
    RESERVED,
    ROLE,
    Layout,
    is_column,
    native_value,
)
from tsmemory.backends.tablestore.sdk import Columns, Row
from tsmemory.engine.codec import decode_message, encode_message
from tsmemory.engine.records import Key, Position
from tsmemory.engine.rows import corrupt_message
from tsmemory.errors import CorruptRecordError, MessageTooLargeError
from tsmemory.model import Message, is_pinned

__all__ = [
    "MAX_MESSAGE", "PLAIN", "Encoded", "Word", "decode", "encode", "is_gone", "join", "split",
    "tombstone", "word",
]  # fmt: skip

MAX_MESSAGE = MAX_ROW - 8192
"""Bytes of an encoded message: the row's limit, less its key and our bookkeeping."""
PLAIN = ("1{", "1|")
"""The range of ``tsmemory`` in the rows that the service can filter alone ("|" follows "{")."""
_MAX_NATIVE = 512  # columns; the service takes 1,024 in a row change
_PIECE = MAX_COLUMN - 3  # a character of UTF-8 may stand across the cut


class _Kept(msgspec.Struct, omit_defaults=True):
    b: str
    r: msgspec.Raw
    i: int = 0
    u: str | None = None
    x: int | None = None
    p: tuple[Position, ...] = ()
    a: bool = False


class Word(NamedTuple):
    """What a row says of its session."""

    expires_at: int | None = None
    pins: tuple[Position, ...] = ()
    ask: bool = False
    batch: str = ""
    place: int = 0
    """In its batch."""


class Encoded(NamedTuple):
    """A message, but for what is only known when it is written."""

    columns: Columns
    flag: str
    rest: bytes
    size: int
    pinned: bool

    def finish(self, user: str | None, word: Word) -> Columns:
        """The row's columns."""
        kept = _Kept(
            b=word.batch, r=msgspec.Raw(self.rest), i=word.place, u=user, x=word.expires_at,
            p=word.pins, a=word.ask,
        )  # fmt: skip
        return {**self.columns, **split(self.flag + _encoder.encode(kept).decode())}


_encoder = msgspec.json.Encoder()
_decode_kept = msgspec.json.Decoder(_Kept).decode


def split(text: str) -> Columns:
    """A text over as many columns as it takes."""
    data = text.encode()
    if len(data) <= MAX_COLUMN:
        return {RESERVED: text}
    pieces: Columns = {}
    start = 0
    while start < len(data):
        end = min(start + _PIECE, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # inside a character
            end += 1
        name = f"{RESERVED}_{len(pieces)}" if pieces else RESERVED
        pieces[name] = data[start:end].decode()
        start = end
    return pieces


def join(columns: Columns) -> str | None:
    """What `split` was given; None where there is nothing of ours.

    Raises:
        ValueError: a column holds something else.
    """
    text = columns.get(RESERVED)
    number = 1
    while text is not None and (piece := columns.get(f"{RESERVED}_{number}")) is not None:
        text = text + piece if isinstance(piece, str) and isinstance(text, str) else b""
        number += 1
    if text is not None and not isinstance(text, str):
        raise ValueError(f"the column {RESERVED} is {type(text).__name__}, not text")
    return text


def encode(message: Message, layout: Layout) -> Encoded:
    """The row of `message`.

    Raises:
        InvalidInputError: a value that cannot be stored.
        MessageTooLargeError: it is over the row's limit.
    """
    columns: Columns = {}
    odd: dict[str, Any] = {}
    size = 0
    for key, value in message.metadata.items():
        if (
            type(key) is str and len(columns) < _MAX_NATIVE and is_column(key, "message")
            and native_value(value)
        ):  # fmt: skip
            columns[key] = value
            size += len(key) + _size(value)
        else:
            odd[key] = value
    content = message.content
    if isinstance(content, str) and content and native_value(content):
        columns[CONTENT] = content
        content = ""
    rest = encode_message(
        Message(
            message.role, content, message.message_id, None, message.name, message.tool_calls,
            message.tool_call_id, odd, message.extensions,
        )
    )  # fmt: skip
    text = "" if layout.isolated or CONTENT in columns else message.text
    if text and native_value(text):  # others' readers see at least the text of the blocks
        columns[CONTENT] = text
    if native_value(message.role):
        columns[ROLE] = message.role
    size += len(rest) + _size(columns.get(CONTENT, "")) + len(message.role) * 4
    if size > MAX_MESSAGE:
        raise MessageTooLargeError(
            f"message {message.message_id!r} takes {size} bytes, over Tablestore's {MAX_MESSAGE} "
            "for one row; keep large attachments elsewhere and store their url"
        )
    return Encoded(columns, "2" if odd else "1", rest, size, is_pinned(message.role))


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, (bytes, bytearray, memoryview)) else 8


def tombstone() -> Columns:
    """The columns of a row that keeps a place."""
    return {RESERVED: "0{}", GONE: 1}


def stamped(row: Row, token: str) -> Columns:
    """The columns of the row as they are, but of the commit `token`.

    Raises:
        ValueError: the row does not read.
    """
    text = join(row.columns)
    if text is None:
        raise ValueError(f"the column {RESERVED} is missing")
    kept = _decode_kept(text[1:])
    kept.b = token
    others = {k: v for k, v in row.columns.items() if not k.startswith(RESERVED)}
    return {**others, **split(text[0] + _encoder.encode(kept).decode())}


def is_gone(row: Row) -> bool:
    """Whether the row only keeps a place."""
    return GONE in row.columns


def word(row: Row) -> Word:
    """What the row says of its session; to ask, where it says nothing readable."""
    try:
        text = join(row.columns)
        if text is None:
            return Word(ask=True)
        kept = _decode_kept(text[1:])
    except ValueError:
        return Word(ask=True)
    return Word(kept.x, kept.p, kept.a or ASK in row.columns, kept.b, kept.i)


def decode(row: Row, key: Key, layout: Layout) -> Message | CorruptRecordError | None:
    """The message; None where the row is no message of this session."""
    _, create_time, message_id = row.key
    if is_gone(row):
        return None
    try:
        text = join(row.columns)
        if text is None:
            if layout.isolated:
                raise ValueError(f"the column {RESERVED} is missing")
            return _foreign(row)
        if text[:1] not in ("1", "2"):
            raise ValueError(f"written in format {text[:1]!r}; this release reads 1 and 2")
        kept = _decode_kept(text[1:])
        if kept.u is not None and kept.u != key.user_id:
            return None
        message = decode_message(bytes(kept.r), message_id, create_time)
        return _whole(message, row.columns, layout)
    except ValueError as error:
        return corrupt_message(key, Position(create_time, message_id), error)


def _whole(message: Message, columns: Columns, layout: Layout) -> Message:
    content = message.content
    if CONTENT in columns:
        text = columns[CONTENT]
        if not isinstance(text, str):
            raise ValueError(f"the column {CONTENT} is {type(text).__name__}, not text")
        # In the other layout the column repeats the text of blocks, unless somebody changed it.
        if layout.isolated or not content or text != message.text:
            content = text
    native = _metadata(columns, (CONTENT, ROLE))
    return Message(
        message.role, content, message.message_id, message.create_time, message.name,
        message.tool_calls, message.tool_call_id, {**native, **message.metadata},
        message.extensions,
    )  # fmt: skip


def _foreign(row: Row) -> Message:
    """A message of tablestore-for-agent-memory: every column but the content is metadata."""
    content = row.columns.get(CONTENT, "")
    if not isinstance(content, str):
        raise ValueError(f"the column {CONTENT} is {type(content).__name__}, not text")
    role = row.columns.get(ROLE)
    return Message(
        role if isinstance(role, str) and role else "user",
        content,
        row.key[2],
        row.key[1],
        metadata=_metadata(row.columns, (CONTENT,)),
    )


def _metadata(columns: Columns, but: Sequence[str]) -> dict[str, Any]:
    return {
        name: value
        for name, value in columns.items()
        if name not in but and not name.startswith(RESERVED)
    }
