"""Messages to rows and back.

A row has the metadata in columns of their names, each of its own type; the text in ``content``, the
role in ``role``; and one column of ours, ``tsmemory``: a flag and a JSON object. The flag says

    1   every metadata value is in a column, so the service can filter alone
    2   some are in the body: keys that are no column names, values that no column holds
    0   no message: the row occupies a position that a late writer must not take

and the object holds ``token``, of the commit that wrote the row; ``body``, the message as
`tsmemory.engine.codec` encodes it less what is in columns; and ``user_id``, where the table's key
lacks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory.backends.tablestore.layout import (
    CONTENT,
    MAX_COLUMN,
    MAX_ROW,
    RESERVED,
    ROLE,
    TEXT,
    TOMBSTONE,
    Layout,
    is_column,
    native_value,
)
from tsmemory.backends.tablestore.sdk import Columns, Row
from tsmemory.engine.codec import decode_message, encode_message
from tsmemory.engine.records import Key, Position
from tsmemory.engine.rows import corrupt_message
from tsmemory.errors import CorruptRecordError, MessageTooLargeError
from tsmemory.model import Message

__all__ = [
    "MAX_MESSAGE", "PLAIN", "Encoded", "decode", "encode", "is_tombstone", "join", "split",
    "token_of", "tombstone", "with_token",
]  # fmt: skip

MAX_MESSAGE = MAX_ROW - 8192
"""Bytes of an encoded message: the row's limit, less its key and our bookkeeping."""
PLAIN = ("1{", "1|")
"""The range of ``tsmemory`` in the rows that the service can filter alone ("|" follows "{")."""
_MAX_NATIVE = 512  # columns; the service takes 1,024 in a row change
_PIECE = MAX_COLUMN - 3  # a character of UTF-8 may stand across the cut


class _Reserved(msgspec.Struct, omit_defaults=True):
    token: str
    body: msgspec.Raw
    user_id: str | None = None


class Encoded(NamedTuple):
    """A message's row, but for what is only known when it is written."""

    columns: Columns
    flag: str
    body: bytes
    size: int

    def finish(self, user_id: str | None, token: str) -> Columns:
        """The row's columns."""
        reserved = _Reserved(token, msgspec.Raw(self.body), user_id)
        return {**self.columns, **split(self.flag + _encoder.encode(reserved).decode())}


_encoder = msgspec.json.Encoder()
_decode_reserved = msgspec.json.Decoder(_Reserved).decode


def split(text: str) -> Columns:
    """A text over as many columns as it takes."""
    encoded = text.encode()
    if len(encoded) <= MAX_COLUMN:
        return {RESERVED: text}
    pieces: Columns = {}
    start = 0
    while start < len(encoded):
        end = min(start + _PIECE, len(encoded))
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:  # inside a character
            end += 1
        name = f"{RESERVED}_{len(pieces)}" if pieces else RESERVED
        pieces[name] = encoded[start:end].decode()
        start = end
    return pieces


def join(columns: Columns) -> str | None:
    """The text that `split` was given; None where there is none of ours.

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
    body = encode_message(
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
    size += len(body) + _size(columns.get(CONTENT, "")) + len(message.role) * 4
    if size > MAX_MESSAGE:
        raise MessageTooLargeError(
            f"message {message.message_id!r} takes {size} bytes, over Tablestore's {MAX_MESSAGE} "
            "for one row; keep large attachments elsewhere and store their url"
        )
    return Encoded(columns, "2" if odd else "1", body, size)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, (bytes, bytearray, memoryview)) else 8


def tombstone() -> Columns:
    """The columns of a row that only occupies a position."""
    return {RESERVED: "0{}", TOMBSTONE: 1}


def with_token(row: Row, token: str) -> Columns:
    """The columns of the row as they are, but of the commit `token`.

    Raises:
        ValueError: the row does not decode.
    """
    text = join(row.columns)
    if text is None:
        raise ValueError(f"the column {RESERVED} is missing")
    reserved = _decode_reserved(text[1:])
    reserved.token = token
    others = {k: v for k, v in row.columns.items() if not k.startswith(RESERVED) or k == TEXT}
    return {**others, **split(text[0] + _encoder.encode(reserved).decode())}


def is_tombstone(row: Row) -> bool:
    """Whether the row only occupies a position."""
    return TOMBSTONE in row.columns


def token_of(row: Row) -> str:
    """The commit that wrote the row; empty where it does not say."""
    try:
        text = join(row.columns)
        return _decode_reserved(text[1:]).token if text else ""
    except ValueError:
        return ""


def decode(row: Row, key: Key, layout: Layout) -> Message | CorruptRecordError | None:
    """The message; None where the row is not a message of this session."""
    _, create_time, message_id = row.key
    if is_tombstone(row):
        return None
    try:
        text = join(row.columns)
        if text is None:
            if layout.isolated:
                raise ValueError(f"the column {RESERVED} is missing")
            return _foreign(row)
        if text[:1] not in ("1", "2"):
            raise ValueError(f"written in format {text[:1]!r}; this release reads 1 and 2")
        reserved = _decode_reserved(text[1:])
        if reserved.user_id is not None and reserved.user_id != key.user_id:
            return None
        message = decode_message(bytes(reserved.body), message_id, create_time)
        return _whole(message, row.columns, layout)
    except ValueError as error:
        return corrupt_message(key, Position(create_time, message_id), error)


def _whole(message: Message, columns: Columns, layout: Layout) -> Message:
    content = message.content
    if CONTENT in columns:
        text = columns[CONTENT]
        if not isinstance(text, str):
            raise ValueError(f"the column {CONTENT} is {type(text).__name__}, not text")
        # In the other layout the column repeats the text of blocks, unless a peer changed it.
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
