"""Records to bytes and back: JSON that anybody can read, and nothing lost.

The body of a message is a JSON object with the fields of `Message`, less its id and its time
(those are keys, and kept as such); fields at their defaults are left out. ``v`` is the format's
version; absent means 1. Decoding builds records and plain values, never other objects.

What JSON cannot hold is an object with one key::

    {"$bytes": "<base64>"}   {"$float": "nan" | "inf" | "-inf"}   {"$dict": {…}}

the last for a dict that has a key beginning with ``$`` itself. Inside `content`, tool-call
arguments and `extensions` also ``$datetime $date $time $timedelta $decimal $uuid $tuple $set
$frozenset``. A record with lone surrogates, which UTF-8 cannot hold, is ``{"v": 1, "escaped":
{…}}``: in each of its strings a backslash is doubled and a surrogate is ``\\uXXXX``.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import msgspec

from tsmemory.errors import InvalidInputError, MessageTooLargeError
from tsmemory.model import Message, Session, ToolCall

__all__ = [
    "MAX_DEPTH",
    "decode_message",
    "decode_session",
    "decode_value",
    "encode_message",
    "encode_session",
    "encode_value",
]

VERSION = 1
MAX_DEPTH = 100
"""How deep metadata and content may nest: ours, well inside every JSON parser's."""


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
_decode_any = msgspec.json.Decoder().decode

# -- values ----------------------------------------------------------------------------------

_RICH: dict[type, tuple[str, Callable[[Any], Any]]] = {
    dt.datetime: ("$datetime", dt.datetime.isoformat),
    dt.date: ("$date", dt.date.isoformat),
    dt.time: ("$time", dt.time.isoformat),
    dt.timedelta: ("$timedelta", lambda v: [v.days, v.seconds, v.microseconds]),
    decimal.Decimal: ("$decimal", str),
    uuid.UUID: ("$uuid", str),
}

_UNTAG: dict[str, Callable[[Any], Any]] = {
    "$bytes": partial(base64.b64decode, validate=True),
    "$float": float,
    "$datetime": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$time": dt.time.fromisoformat,
    "$timedelta": lambda v: dt.timedelta(v[0], v[1], v[2]),
    "$decimal": decimal.Decimal,
    "$uuid": uuid.UUID,
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
}
_COLLECTIONS: dict[type, str] = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}


def _tag(value: Any, rich: bool, path: str, depth: int = 0) -> Any:
    """`value` as JSON can hold it; the very same object where it already is."""
    kind = type(value)
    if kind is str or kind is bool or kind is int or value is None:
        return value
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"{path[:80]}…: nested deeper than {MAX_DEPTH}, or in itself")
    if kind is dict:
        return _tag_dict(value, rich, path, depth)
    if kind is list:
        tagged = [_tag(v, rich, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        return value if all(a is b for a, b in zip(value, tagged, strict=True)) else tagged
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(value).decode()}
    if rich:
        if kind in _RICH:
            tag, encode = _RICH[kind]
            return {tag: encode(value)}
        if kind in _COLLECTIONS:
            return {_COLLECTIONS[kind]: [_tag(v, rich, path, depth + 1) for v in value]}
    raise InvalidInputError(
        f"{path}: a {kind.__module__}.{kind.__qualname__} cannot be stored; use str, int, float, "
        "bool, bytes, None, or lists and dicts of them"
    )


def _tag_dict(value: dict[Any, Any], rich: bool, path: str, depth: int) -> Any:
    changed = reserved = False
    tagged = {}
    for key, v in value.items():
        if type(key) is not str:
            raise InvalidInputError(f"{path}: key {key!r} is not a str; keys must be text")
        reserved = reserved or key[:1] == "$"
        t = tagged[key] = _tag(v, rich, f"{path}.{key}", depth + 1)
        changed = changed or t is not v
    if reserved:
        return {"$dict": tagged}
    return tagged if changed else value


def _untag(value: Any) -> Any:
    if type(value) is dict:
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key == "$dict":
                return {k: _untag(v) for k, v in inner.items()}
            if key in _UNTAG:
                return _UNTAG[key](_untag(inner))
            if key[:1] == "$":
                raise ValueError(f"unknown tag {key!r}")
        return {k: _untag(v) for k, v in value.items()}
    if type(value) is list:
        return [_untag(v) for v in value]
    return value


def _restore(value: Any) -> Any:
    """`value` without its tags; ValueError where a tag does not hold what it says."""
    try:
        return _untag(value)
    except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"a tagged value does not read: {error}") from error


_SURROGATE = re.compile("[\\\\\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|u([0-9a-f]{4}))")


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(k): _map_strings(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(v, change) for v in value]
    return value


def _escape(text: str) -> str:
    return _SURROGATE.sub(
        lambda m: "\\\\" if m[0] == "\\" else f"\\u{ord(m[0]):04x}",
        text,
    )


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else "\\", text)


def _dumps(record: Any) -> bytes:
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(record)
        return _encoder.encode(_Escaped(VERSION, _map_strings(plain, _escape)))
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidInputError(f"cannot be stored as JSON: {error}") from error


def _unescape_record(data: bytes, kind: type[Any]) -> Any:
    escaped = _decode_escaped(data)
    return msgspec.convert(_map_strings(escaped.escaped, _unescape), kind)


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
        content = _tag(content, True, "content")
    calls = message.tool_calls
    if calls:
        calls = tuple(_tag_call(call, i) for i, call in enumerate(calls))
    body = _Body(
        role=message.role,
        content=content,
        name=message.name,
        tool_calls=calls,
        tool_call_id=message.tool_call_id,
        metadata=_tag(message.metadata, False, "metadata") if message.metadata else {},
        extensions=_tag(message.extensions, True, "extensions") if message.extensions else {},
    )
    data = _dumps(body)
    if limit is not None and len(data) > limit:
        raise MessageTooLargeError(
            f"message {message.message_id!r} takes {len(data)} bytes, over this engine's limit of "
            f"{limit}; keep large attachments elsewhere and store their url"
        )
    return data


def _tag_call(call: ToolCall, index: int) -> ToolCall:
    arguments = _tag(call.arguments, True, f"tool_calls[{index}].arguments")
    if arguments is call.arguments:
        return call
    return ToolCall(call.id, call.name, arguments, call.error)


def decode_message(data: bytes, message_id: str, create_time: int) -> Message:
    """The message whose body `data` is.

    Raises:
        ValueError: `data` is no such body (msgspec's errors are subclasses).
    """
    escaped = data.startswith(_ESCAPED_MARK)
    body = _unescape_record(data, _Body) if escaped else _decode_body(data)
    if body.v != VERSION:
        raise ValueError(f"written in format {body.v}; this release reads format {VERSION}")
    content, calls = body.content, body.tool_calls
    metadata, extensions = body.metadata, body.extensions
    if b'"$' in data:
        content, metadata, extensions = map(_restore, (content, metadata, extensions))
        calls = tuple(ToolCall(c.id, c.name, _restore(c.arguments), c.error) for c in calls)
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
    metadata = _tag(session.metadata, False, "metadata")
    return _dumps(_SessionBody(session.title, session.summary, metadata))


def decode_session(data: bytes) -> tuple[str | None, str | None, dict[str, Any]]:
    """Title, summary and metadata.

    Raises:
        ValueError: `data` is no such body.
    """
    escaped = data.startswith(_ESCAPED_MARK)
    body = _unescape_record(data, _SessionBody) if escaped else _decode_session_body(data)
    if body.v != VERSION:
        raise ValueError(f"written in format {body.v}; this release reads format {VERSION}")
    metadata = _restore(body.metadata) if b'"$' in data else body.metadata
    return body.title, body.summary, metadata


# -- single values, for engines with columns of their own ------------------------------------


def encode_value(value: Any, *, rich: bool = True, path: str = "value") -> bytes:
    """One value as JSON, tagged as the module says.

    Raises:
        InvalidInputError: the value cannot be stored.
    """
    return _dumps([_tag(value, rich, path)])


def decode_value(data: bytes) -> Any:
    """What `encode_value` was given.

    Raises:
        ValueError: `data` is not of its making.
    """
    if data.startswith(_ESCAPED_MARK):
        plain = _unescape_record(data, list[Any])
    else:
        plain = cast("list[Any]", _decode_any(data))
    return _restore(plain[0])
