"""Records to bytes and back: JSON that anybody can read, and nothing lost.

The body of a message is a JSON object with the fields of `Message`, less its id and its time
(those are keys, and kept as such); fields at their defaults are left out. ``v`` is the format's
version; absent means 1. Decoding builds records and plain values, never other objects.

Values that JSON cannot hold are tagged as `tsmemory.values` says; metadata holds plain ones, and
bytes and floats; content, tool-call arguments and `extensions` rich ones too. A record with lone
surrogates, which UTF-8 cannot hold, is ``{"v": 1, "escaped": {…}}``, its strings escaped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from tsmemory.errors import InvalidInputError, MessageTooLargeError
from tsmemory.model import Message, Session, ToolCall
from tsmemory.values import as_json, escaped, restored, unescaped

__all__ = [
    "decode_message",
    "decode_session",
    "decode_value",
    "encode_message",
    "encode_session",
    "encode_value",
]

T = TypeVar("T")

VERSION = 1


class _Body(msgspec.Struct, omit_defaults=True):
    role: str
    content: str | list[dict[str, Any]] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    metadata: dict[str, Any] = {}
    extensions: dict[str, Any] = {}
    v: int = VERSION


class _SessionBody(msgspec.Struct, omit_defaults=True):
    title: str | None = None
    summary: str | None = None
    metadata: dict[str, Any] = {}
    v: int = VERSION


class _Escaped(msgspec.Struct):
    v: int
    escaped: Any


_encoder = msgspec.json.Encoder()
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_session_body = msgspec.json.Decoder(_SessionBody).decode
_decode_escaped = msgspec.json.Decoder(_Escaped).decode
_decode_list = msgspec.json.Decoder(list[Any]).decode


def _encode(record: Any) -> bytes:
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(record)
        return _encoder.encode(_Escaped(VERSION, escaped(plain)))
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidInputError(f"cannot be stored as JSON: {error}") from error


def _decode(data: bytes, kind: type[T], decode: Callable[[bytes], T]) -> T:
    try:
        if data.startswith(_ESCAPED_MARK):
            return msgspec.convert(unescaped(_decode_escaped(data).escaped), kind)
        return decode(data)
    except RecursionError:
        raise ValueError("nested too deep") from None


_OTHER_VERSION = "written in format {}; this release reads format {}"
_ESCAPED_MARK = b'{"v":1,"escaped":'

# -- messages --------------------------------------------------------------------------------


def encode_message(message: Message, limit: int | None = None) -> bytes:
    """The body of `message`: everything but its id and time.

    Raises:
        InvalidInputError: a value that cannot be stored, named by its path.
        MessageTooLargeError: the body has more than `limit` bytes.
    """
    content = message.content
    if type(content) is not str:
        content = as_json(content, True, "content")
    calls = message.tool_calls
    if calls:
        calls = tuple(_tag_call(call, i) for i, call in enumerate(calls))
    body = _Body(
        role=message.role,
        content=content,
        name=message.name,
        tool_calls=calls,
        tool_call_id=message.tool_call_id,
        metadata=as_json(message.metadata, False, "metadata") if message.metadata else {},
        extensions=as_json(message.extensions, True, "extensions") if message.extensions else {},
    )
    utf8 = _encode(body)
    if limit is not None and len(utf8) > limit:
        raise MessageTooLargeError(
            f"message {message.message_id!r} takes {len(utf8)} bytes, over this engine's limit of "
            f"{limit}; keep large attachments elsewhere and store their url"
        )
    return utf8


def _tag_call(call: ToolCall, index: int) -> ToolCall:
    arguments = as_json(call.arguments, True, f"tool_calls[{index}].arguments")
    if arguments is call.arguments:
        return call
    return ToolCall(call.id, call.name, arguments, call.error)


def decode_message(data: bytes, message_id: str, create_time: int) -> Message:
    """The message whose body `data` is.

    Raises:
        ValueError: `data` is no such body (msgspec's errors are subclasses).
    """
    try:
        body = _decode_body(data)
    except (ValueError, RecursionError):
        body = _decode(data, _Body, _decode_body)  # it is escaped, or this says what is wrong
    if body.v != VERSION:
        raise ValueError(_OTHER_VERSION.format(body.v, VERSION))
    content, calls = body.content, body.tool_calls
    metadata, extensions = body.metadata, body.extensions
    if b"$" in data and b'"$' in data:  # looking for one byte costs a tenth of looking for two
        content, metadata, extensions = map(restored, (content, metadata, extensions))
        calls = tuple(ToolCall(c.id, c.name, restored(c.arguments), c.error) for c in calls)
    return Message(
        body.role,
        content,
        message_id,
        create_time,
        body.name,
        calls,
        body.tool_call_id,
        metadata,
        extensions,
    )


# -- sessions --------------------------------------------------------------------------------


def encode_session(session: Session) -> bytes:
    """The free part of a session's record: title, summary, metadata.

    Raises:
        InvalidInputError: a metadata value that cannot be stored, named by its path.
    """
    metadata = as_json(session.metadata, False, "metadata")
    return _encode(_SessionBody(session.title, session.summary, metadata))


def decode_session(data: bytes) -> tuple[str | None, str | None, dict[str, Any]]:
    """Title, summary and metadata.

    Raises:
        ValueError: `data` is no such body.
    """
    body = _decode(data, _SessionBody, _decode_session_body)
    if body.v != VERSION:
        raise ValueError(_OTHER_VERSION.format(body.v, VERSION))
    metadata = restored(body.metadata) if b'"$' in data else body.metadata
    return body.title, body.summary, metadata


# -- single values, for engines with columns of their own ------------------------------------


def encode_value(value: Any, *, rich: bool = True, path: str = "value") -> bytes:
    """One value as JSON, tagged as the module says.

    Raises:
        InvalidInputError: the value cannot be stored.
    """
    return _encode([as_json(value, rich, path)])


def decode_value(data: bytes) -> Any:
    """What `encode_value` was given.

    Raises:
        ValueError: `data` is not of its making.
    """
    plain = _decode(data, list[Any], _decode_list)
    if len(plain) != 1:
        raise ValueError("not one value")
    return restored(plain[0])
