"""What a caller may pass: every check before any I/O, each with what to do instead."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec

from tsmemory.engine.codec import encode_message, encode_value
from tsmemory.engine.records import Key
from tsmemory.errors import InvalidInputError, shown
from tsmemory.model import Message, ToolCall, as_id
from tsmemory.openai_format import from_openai
from tsmemory.times import MAX_TIME, micros

__all__ = [
    "DEFAULT_USER",
    "MAX_ID_BYTES",
    "MessageLike",
    "as_calls",
    "check_id",
    "check_key",
    "check_messages",
    "check_metadata",
    "check_size",
    "check_storable",
    "check_texts",
    "check_ttl",
    "decode_cursor",
    "encode_cursor",
    "flattened",
]

T = TypeVar("T")

MessageLike: TypeAlias = Message | Mapping[str, Any]
"""A message, as an argument: a record, or a dict in the OpenAI chat format."""

DEFAULT_USER = "default"
MAX_SIZE = 2**31 - 1024
"""The largest count that can be asked for: what is added to it stays within 32 bits."""
MAX_TTL = MAX_TIME / 4e6
"""Seconds; the expiry of a session written today stays within 64 bits of microseconds."""
MAX_ID_BYTES = 255
"""UTF-8 bytes of a user, session or message id: two of them and a time stay under every engine's
key limit (Tablestore's is 1,024 bytes)."""


def check_id(what: str, value: Any) -> str:
    """`value` as an id: 1 to 255 bytes of UTF-8, any characters. An int or a UUID becomes text.

    Raises:
        InvalidInputError: it is not.
    """
    if type(value) is str and value.isascii() and 0 < len(value) <= MAX_ID_BYTES:
        return value
    value = as_id(value)
    if value is None:
        whose = "the id of the user who is logged in" if what == "user_id" else "an id"
        raise InvalidInputError(f"{what} is None; give {whose}")
    if not isinstance(value, str):
        raise InvalidInputError(
            f"{what} is a str (or an int or a UUID, taken as text), not {type(value).__name__}"
        )
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


def flattened(
    arguments: tuple[MessageLike | Iterable[MessageLike], ...],
) -> Iterable[MessageLike]:
    """What a method that takes messages was given: the messages, or one list of them."""
    if len(arguments) == 1 and not isinstance(arguments[0], (Message, Mapping, str, bytes)):
        only: Any = arguments[0]
        # A framework's message is one too where it is a pydantic model, but it is no list.
        if isinstance(only, Iterable) and not hasattr(only, "model_dump"):
            return only
    return arguments  # type: ignore[return-value]  # a list among several is refused by its check


def check_messages(messages: Iterable[MessageLike]) -> tuple[Message, ...]:
    """`messages` as records, checked as far as their values, which the codec checks.

    Raises:
        InvalidInputError: one of them is no message, or a field of it has a wrong type.
    """
    if isinstance(messages, (str, bytes, Message, Mapping)) or not isinstance(messages, Iterable):
        raise InvalidInputError(f"messages is a list of messages, not a {type(messages).__name__}")
    return tuple(map(_as_message, messages))


def _as_message(raw: Any) -> Message:
    message = from_openai(raw) if isinstance(raw, Mapping) else raw
    if not isinstance(message, Message):
        raise InvalidInputError(
            f"{type(message).__name__} is not a tsmemory.Message; make one with "
            "Message.user(…), Message.assistant(…) …, give a dict in the OpenAI chat format, or "
            "convert a framework's message with to_neutral of langchain_tsmemory or "
            "llamaindex_tsmemory"
        )
    if type(message.message_id) is not str:
        message = msgspec.structs.replace(
            message, message_id=check_id("message_id", message.message_id)
        )
    _check_message(message)
    return message


def _check_message(message: Message) -> None:
    check_id("message_id", message.message_id)
    role = message.role
    if type(role) is not str or not role:
        raise InvalidInputError(f"role is {shown(role)}; give a non-empty str")
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
        _check_call(call)
    if message.create_time is not None and type(message.create_time) is not int:
        raise InvalidInputError("create_time is an int, µs since the epoch, or None")
    if message.create_time is not None:
        micros("create_time", message.create_time)


def _check_call(call: Any) -> None:
    if not isinstance(call, ToolCall):
        raise InvalidInputError(f"tool_calls is a tuple of ToolCall, not of {type(call).__name__}")
    if type(call.name) is not str:
        raise InvalidInputError(f"a tool call's name is a str, not {type(call.name).__name__}")
    for name in ("id", "error"):
        value = getattr(call, name)
        if value is not None and type(value) is not str:
            raise InvalidInputError(
                f"a tool call's {name} is a str or None, not {type(value).__name__}"
            )
    if type(call.arguments) not in (dict, str):
        raise InvalidInputError("a tool call's arguments are a dict, or text if they must be")


def check_storable(message: Message, **changes: Any) -> None:
    """Check a message with some of its fields changed, down to their values.

    Raises:
        InvalidInputError: as `check_messages`, or a value that cannot be stored, by its path.
    """
    (checked,) = check_messages([msgspec.structs.replace(message, **changes)])
    encode_message(checked)


def as_calls(calls: Any) -> tuple[Any, ...]:
    """An argument of tool calls as a tuple; what is in it is checked with its message.

    Raises:
        InvalidInputError: it is no list.
    """
    if isinstance(calls, (str, bytes, Mapping)) or not isinstance(calls, Iterable):
        raise InvalidInputError(f"tool_calls is a list of ToolCall, not a {type(calls).__name__}")
    return tuple(calls)


def check_metadata(what: str, value: Any) -> dict[str, Any]:
    """A dict of metadata, down to its values.

    Raises:
        InvalidInputError: it is none, or a value cannot be stored, by its path.
    """
    if type(value) is not dict:
        raise InvalidInputError(f"{what} is a dict, not {type(value).__name__}")
    encode_value(value, rich=False, path=what)
    return value


def check_texts(what: str, values: Any) -> frozenset[str]:
    """A list of metadata keys.

    Raises:
        InvalidInputError: it is no list, or one of them is no text.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{what} is a list of keys, not a {type(values).__name__}")
    texts = list(values)
    if not all(isinstance(text, str) for text in texts):
        raise InvalidInputError(f"{what} is a list of keys, which are text")
    return frozenset(texts)


def check_ttl(value: Any) -> float | None:
    """A time to live in seconds.

    Raises:
        InvalidInputError: not a positive, finite number.
    """
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= MAX_TTL:  # false of a NaN too
        raise InvalidInputError(
            f"a time to live is a positive number of seconds, up to {MAX_TTL:.0e}, not "
            f"{shown(value)}; None for no end"
        )
    return float(value)


def check_size(what: str, value: Any, *, least: int = 0, most: int = MAX_SIZE) -> int:
    """A count.

    Raises:
        InvalidInputError: not an int, less than `least`, or more than `most`.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInputError(f"{what} is an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidInputError(f"{what} is {shown(value)}; give {least} to {most}")
    return value


def check_version(value: Any) -> int | None:
    """An ``if_version``.

    Raises:
        InvalidInputError: neither None nor a version that a session can have.
    """
    return None if value is None else check_size("if_version", value, most=MAX_TIME)


def encode_cursor(kind: str, position: tuple[Any, ...]) -> str:
    """An opaque cursor: the place of the last row of a page, in a listing of this kind."""
    return base64.urlsafe_b64encode(msgspec.json.encode([kind, *position])).decode().rstrip("=")


def decode_cursor(kind: str, shape: type[T], cursor: str | None) -> T | None:
    """The place that `cursor` tells.

    Raises:
        InvalidInputError: not a cursor of a listing of this kind and direction.
    """
    if cursor is None:
        return None
    try:
        encoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        named, *position = msgspec.json.decode(encoded, type=list[Any])
        if named != kind or not all(map(_is_plausible, position)):
            raise ValueError(named)
        return msgspec.convert(position, shape)
    except (ValueError, TypeError, RecursionError):
        raise InvalidInputError(
            "cursor is not from this listing; pass a page's next_cursor back with the same order="
        ) from None


def _is_plausible(part: Any) -> bool:
    """Whether a part of a cursor is one that an engine can take: else a driver's error follows."""
    if isinstance(part, int):
        return abs(part) <= MAX_TIME + 1
    if isinstance(part, str):
        return len(part.encode()) <= 4 * MAX_ID_BYTES  # ValueError of a lone surrogate
    return True
