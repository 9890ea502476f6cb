"""Rows: to records and back, and text that PostgreSQL or its JSONB cannot hold."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import msgspec

from tsmemory.engine.codec import decode_message, decode_value, encode_value
from tsmemory.engine.commit import Head
from tsmemory.engine.records import Key, Position
from tsmemory.engine.rows import corrupt_message, corrupt_session
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session

__all__ = [
    "MAX_BODY", "MESSAGE_COLUMNS", "SESSION_COLUMNS", "SessionRow", "escape_text", "message_of",
    "pack", "session_values", "unescape_text",
]  # fmt: skip

MAX_BODY = 250_000_000
"""Bytes of one message: under JSONB's limit of 268,435,455 for the elements of one object."""

MESSAGE_COLUMNS = "m.create_time, m.message_id, coalesce(m.exact::text, m.body::text) AS body"
SESSION_COLUMNS = (
    "s.id, s.user_id, s.session_id, s.create_time, s.update_time, s.version, s.message_count, "
    "s.last_time, s.ttl, s.expires_at, s.title, s.summary, "
    "coalesce(s.metadata_exact::text, s.metadata::text)"
)

_UNSTORABLE = re.compile("[\0\x01\ud800-\udfff]")
_ESCAPED = re.compile("\x01(?:([\x01\x02])|\x03([0-9a-f]{4}))")


def escape_text(text: str) -> str:
    """`text` as a column holds it, in the same order by code point: NUL is ``\\x01\\x01``,
    ``\\x01`` is ``\\x01\\x02``, a lone surrogate ``\\x01\\x03`` and its four hex digits."""
    return _UNSTORABLE.sub(
        lambda m: {"\0": "\x01\x01", "\x01": "\x01\x02"}.get(m[0], f"\x01\x03{ord(m[0]):04x}"),
        text,
    )


def unescape_text(text: str) -> str:
    """What `escape_text` was given."""
    if "\x01" not in text:
        return text
    return _ESCAPED.sub(lambda m: chr(ord(m[1]) - 1) if m[1] else chr(int(m[2], 16)), text)


# -- JSON ------------------------------------------------------------------------------------

_KEPT, _CHANGED, _REFUSED = range(3)
_NUL = b"\\u0000"
_decode, _encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


def pack(encoded: bytes) -> tuple[str, str | None]:
    """A JSON record as the two columns take it: JSONB, and the exact text.

    The exact text is None where JSONB gives the record back as it is, and empty where it is the
    same text (the statement copies it, so that it is sent once).
    """
    text = encoded.decode()
    if encoded.count(b"{") == 1 and encoded.startswith(b'{"role":') and _NUL not in encoded:
        return text, None  # texts under the codec's own keys: most messages
    value = _decode(encoded)
    fate = _CHANGED if encoded.startswith(b'{"v":1,"escaped":') else _KEPT
    fate = max(fate, _in_jsonb(value, top=True))
    if fate == _REFUSED:
        return _encode(_without_nul(value)).decode(), text
    return text, None if fate == _KEPT else ""


def _in_jsonb(value: Any, *, top: bool = False) -> int:
    """What JSONB does to a value: it orders keys by length and bytes, keeps numbers as decimals
    (no ``-0.0``, no ``1e300``), and refuses NUL (PostgreSQL manual, 8.14)."""
    kind = type(value)
    if kind is str:
        return _REFUSED if "\0" in value else _KEPT
    if kind is float:
        plain = 1e-5 < abs(value) < 1e15 or (value == 0 and math.copysign(1, value) == 1)
        return _KEPT if plain else _CHANGED
    if kind is dict:
        fate = _KEPT
        if len(value) > 1 and not top:  # the codec reads the top by name, in any order
            sizes = [(len(encoded), encoded) for encoded in map(str.encode, value)]
            fate = _KEPT if sizes == sorted(sizes) else _CHANGED
        parts = [*value, *value.values()]
        return max(fate, *map(_in_jsonb, parts)) if parts else fate
    if kind is list:
        return max(map(_in_jsonb, value), default=_KEPT)
    return _KEPT


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(k): _without_nul(v) for k, v in value.items()}
    return [_without_nul(v) for v in value] if isinstance(value, list) else value


# -- records ---------------------------------------------------------------------------------


class SessionRow(NamedTuple):
    """`SESSION_COLUMNS`."""

    id: int
    user_id: str
    session_id: str
    create_time: int
    update_time: int
    version: int
    message_count: int
    last_time: int
    ttl: float | None
    expires_at: int | None
    title: str | None
    summary: str | None
    metadata: str

    def session(self) -> Session | CorruptRecordError:
        """The record, or what stands in its place."""
        metadata: Any = {}
        problem: Exception | None = None
        if self.metadata != "{}":
            try:
                encoded = self.metadata.encode()
                if not encoded.startswith(b'{"v":1,"escaped":'):
                    encoded = b"[" + encoded + b"]"
                metadata = decode_value(encoded)
                if type(metadata) is not dict:
                    raise ValueError("the metadata is no object")
            except (ValueError, LookupError) as error:
                metadata, problem = {}, error
        session = Session(
            user_id=unescape_text(self.user_id),
            session_id=unescape_text(self.session_id),
            create_time=self.create_time,
            update_time=self.update_time,
            version=self.version,
            message_count=self.message_count,
            title=self.title and unescape_text(self.title),
            summary=self.summary and unescape_text(self.summary),
            expires_at=self.expires_at,
            ttl=self.ttl,
            metadata=metadata,
        )
        return corrupt_session(session, problem) if problem else session

    def head(self) -> Head:
        """The same for a writer.

        Raises:
            CorruptRecordError: the record does not decode.
        """
        session = self.session()
        if isinstance(session, CorruptRecordError):
            raise session
        return Head(session, self.last_time)


def session_values(head: Head) -> dict[str, Any]:
    """The columns of a session's row, by name."""
    session = head.session
    metadata, exact = "{}", None
    if session.metadata:
        encoded = encode_value(session.metadata, rich=False, path="metadata")
        escaped = encoded.startswith(b"{")
        # One level above the metadata, so that the order of its own keys counts.
        metadata, exact = pack(encoded if escaped else b'{"":' + encoded[1:-1] + b"}")
        if not escaped:
            metadata, exact = metadata[4:-1], exact and exact[4:-1]
        exact = metadata if exact == "" else exact
    return {
        "user_id": escape_text(session.user_id),
        "session_id": escape_text(session.session_id),
        "create_time": session.create_time,
        "update_time": session.update_time,
        "version": session.version,
        "message_count": session.message_count,
        "last_time": head.last_time,
        "ttl": session.ttl,
        "expires_at": session.expires_at,
        "title": session.title and escape_text(session.title),
        "summary": session.summary and escape_text(session.summary),
        "metadata": metadata,
        "metadata_exact": exact,
    }


def message_of(key: Key, create_time: int, message_id: str, body: str) -> Any:
    """The message of `MESSAGE_COLUMNS`, or the error that stands in its place."""
    message_id = unescape_text(message_id)
    try:
        message: Message = decode_message(body.encode(), message_id, create_time)
    except ValueError as error:
        return corrupt_message(key, Position(create_time, message_id), error)
    return message
