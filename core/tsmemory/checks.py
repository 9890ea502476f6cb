"""What a caller may pass: every check before any I/O, each with what to do instead."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from tsmemory.engine.contract import Key
from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, ToolCall

__all__ = [
    "DEFAULT_USER",
    "MAX_ID_BYTES",
    "MAX_TIME",
    "check_id",
    "check_key",
    "check_messages",
    "check_size",
    "check_ttl",
    "decode_cursor",
    "encode_cursor",
    "micros",
]

T = TypeVar("T")

DEFAULT_USER = "default"
MAX_ID_BYTES = 255
"""UTF-8 bytes of a user, session or message id: two of them and a time stay under every engine's
key limit (Tablestore's is 1,024 bytes)."""
MAX_TIME = 2**63 - 2
"""The largest create_time: one less than the largest signed 64-bit integer."""


def check_id(what: str, value: Any) -> str:
    """`value`, which is an id: 1 to 255 bytes of UTF-8, any characters.

    Raises:
        InvalidInputError: it is not.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"{what} is a str, not {type(value).__name__}")
    if not value:
        raise InvalidInputError(f"{what} is empty; give it at least one character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} holds a lone surrogate at {error.start}, which no engine can compare; "
            "decode it properly, or encode it (base64, percent) first"
        ) from None
    if size > MAX_ID_BYTES:
        raise InvalidInputError(
            f"{what} takes {size} bytes of UTF-8, over {MAX_ID_BYTES}; use a digest of it"
        )
    return value


def check_key(user_id: Any, session_id: Any) -> Key:
    """The key of a session.

    Raises:
        InvalidInputError: one of the ids is not one.
    """
    return Key(check_id("user_id", user_id), check_id("session_id", session_id))


def check_messages(messages: Iterable[Any]) -> tuple[Message, ...]:
    """`messages`, checked as far as their values, which the codec checks.

    Raises:
        InvalidInputError: one of them is no message, or a field of it has a wrong type.
    """
    checked = tuple(messages)
    for message in checked:
        if not isinstance(message, Message):
            raise InvalidInputError(
                f"{type(message).__name__} is not a tsmemory.Message; make one with "
                "Message.user(…), Message.assistant(…) …, or use a framework's adapter"
            )
        _check_message(message)
    return checked


def _check_message(message: Message) -> None:
    check_id("message_id", message.message_id)
    role = message.role
    if type(role) is not str or not role:
        raise InvalidInputError(f"role is {role!r}; give a non-empty str")
    content = message.content
    if type(content) is not str:
        if not isinstance(content, list):
            raise InvalidInputError(
                f"content is a str or a list of blocks, not {type(content).__name__}"
            )
        for block in content:
            if not isinstance(block, dict) or not isinstance(block.get("type"), str):
                raise InvalidInputError("a content block is a dict with a text 'type'")
    for name in ("name", "tool_call_id"):
        value = getattr(message, name)
        if value is not None and type(value) is not str:
            raise InvalidInputError(f"{name} is a str or None, not {type(value).__name__}")
    if type(message.metadata) is not dict or type(message.extensions) is not dict:
        raise InvalidInputError("metadata and extensions are dicts")
    if type(message.tool_calls) is not tuple:
        raise InvalidInputError("tool_calls is a tuple of ToolCall")
    for call in message.tool_calls:
        if not isinstance(call, ToolCall) or not isinstance(call.name, str):
            raise InvalidInputError("tool_calls is a tuple of ToolCall, each with a text name")
        if not isinstance(call.arguments, (dict, str)):
            raise InvalidInputError("a tool call's arguments are a dict, or text if they must be")
    if message.create_time is not None:
        _check_time("create_time", message.create_time)


def _check_time(what: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TIME:
        raise InvalidInputError(
            f"{what} is {value!r}; give microseconds since the epoch, 0 to 2**63 - 2"
        )
    return value


def micros(what: str, value: Any) -> int | None:
    """A time argument as µs since the epoch: an int of them, or an aware datetime.

    Raises:
        InvalidInputError: it is neither, negative, or naive.
    """
    if value is None:
        return None
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise InvalidInputError(f"{what} has no time zone; use datetime.now(timezone.utc)")
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
        value = (value - epoch) // dt.timedelta(microseconds=1)
    return _check_time(what, value)


def check_ttl(value: Any) -> float | None:
    """A time to live in seconds.

    Raises:
        InvalidInputError: not a positive, finite number.
    """
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 < value <= MAX_TIME / 4e6:
        raise InvalidInputError(
            f"a time to live is a positive number of seconds, not {value!r}; None for no end"
        )
    return float(value)


def check_size(what: str, value: Any, *, least: int = 0) -> int:
    """A count.

    Raises:
        InvalidInputError: not an int, or less than `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInputError(f"{what} is an int, not {type(value).__name__}")
    if value < least:
        raise InvalidInputError(f"{what} is {value}; give {least} or more")
    return value


def encode_cursor(kind: str, place: tuple[Any, ...]) -> str:
    """An opaque cursor: the place of the last row of a page, in a listing of this kind."""
    return base64.urlsafe_b64encode(msgspec.json.encode([kind, *place])).decode().rstrip("=")


def decode_cursor(kind: str, shape: type[T], cursor: str | None) -> T | None:
    """The place that `cursor` tells.

    Raises:
        InvalidInputError: not a cursor of a listing of this kind and direction.
    """
    if cursor is None:
        return None
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found, *place = msgspec.json.decode(data, type=list[Any])
        if found != kind:
            raise ValueError(found)
        return msgspec.convert(place, shape)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(
            "cursor is not from this listing; pass a page's next_cursor back with the same order="
        ) from error
