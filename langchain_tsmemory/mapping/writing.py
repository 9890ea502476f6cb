"""From LangChain to neutral messages."""

from __future__ import annotations

import hashlib
from typing import Any

from langchain_core.messages import (
    BaseMessage,
    BaseMessageChunk,
    RemoveMessage,
    message_chunk_to_message,
)

from langchain_tsmemory.mapping.blocks import to_blocks
from langchain_tsmemory.mapping.calls import to_calls
from langchain_tsmemory.mapping.kwargs import with_kwargs
from langchain_tsmemory.mapping.roles import (
    AI,
    CHAT,
    DEVELOPER,
    EXTENSION,
    KINDS,
    OPENAI_ROLE,
    ROLES,
    SYSTEM,
    TOOL,
    Kind,
)
from langchain_tsmemory.mapping.values import encode, plain
from tsmemory import InvalidInputError, Message, ToolCall
from tsmemory.mapping import LEFT_OUT

__all__ = ["message_id", "to_neutral"]

_SHORT = 63  # characters that are at most 255 bytes of UTF-8, whichever they are
_MAX_ID_BYTES = 255


def to_neutral(message: BaseMessage) -> Message:
    """The neutral form of a LangChain message.

    Args:
        message: of one of langchain-core's classes; a chunk is folded to a whole message. Nested
            values are shared with the result, which the store copies when it writes.

    Returns:
        The message, without a time of the store. One whose ``id`` is None gets a random
        `message_id`, another one each time.

    Raises:
        InvalidInputError: not a message, a subclass of yours, or a `RemoveMessage`, which is an
            instruction to a history and not a part of one.
    """
    kind = KINDS.get(type(message))
    if kind is None:
        message = _whole(message)
        kind = KINDS[type(message)]
    fields = message.__dict__
    extension = _extension(message, kind)
    role = kind.role
    calls: tuple[ToolCall, ...] = ()
    if kind is AI:
        if fields["tool_calls"] or fields["invalid_tool_calls"]:
            calls = to_calls(fields, extension)
        if fields["additional_kwargs"].get("tool_calls"):
            extension["calls"] = len(calls)
    elif kind is SYSTEM:
        role = _system_role(fields["additional_kwargs"], extension)
    elif kind is CHAT:
        role = _chat_role(fields["role"], extension)

    content = fields["content"]
    if type(content) is not str:
        content = to_blocks(plain(content))
    if kind is AI:
        kwargs = fields["additional_kwargs"]
        if type(content) is list and (content or kwargs):
            extension["blocks"] = True
        if kwargs:
            content = with_kwargs(content, kwargs, bool(calls))
    stored_id: dict[str, Any] = {}
    if fields["id"] is None:
        extension["id"] = None
    else:
        stored_id["message_id"] = message_id(fields["id"])
        if stored_id["message_id"] != fields["id"]:
            extension["id"] = fields["id"]
    return Message(
        role,
        content,
        **stored_id,
        name=fields["name"],
        tool_calls=calls,
        tool_call_id=fields["tool_call_id"] if kind is TOOL else None,
        extensions={EXTENSION: extension} if extension else {},
    )


def _extension(message: BaseMessage, kind: Kind) -> dict[str, Any]:
    """The fields that no neutral one carries, where they are not the default."""
    extension: dict[str, Any] = {}
    fields = message.__dict__
    is_encoded = False
    for name, default in kind.extension_fields:
        value = fields[name]
        if value is default or (type(value) is type(default) and value == default):
            continue
        encoded = encode(value, name)
        if encoded is not LEFT_OUT:
            extension[name] = encoded
            is_encoded = is_encoded or encoded is not value
    extra = message.__pydantic_extra__
    if extra:
        encoded = encode(extra, "extra")
        if encoded is not LEFT_OUT:
            extension["extra"] = encoded
            is_encoded = is_encoded or encoded is not extra
    if is_encoded:
        extension["encoded"] = True
    return extension


def _system_role(kwargs: dict[str, Any], extension: dict[str, Any]) -> str:
    """The neutral role of a `SystemMessage`; out of `extension` what that says already."""
    if kwargs.get(OPENAI_ROLE) != "developer":
        return "system"
    if kwargs == DEVELOPER:
        del extension["additional_kwargs"]
    return "developer"


def _chat_role(role: str, extension: dict[str, Any]) -> str:
    """The neutral role of a `ChatMessage`, and in `extension` what tells it from other classes."""
    if not role:
        extension["role"] = role
        role = "chat"
    if role in ROLES:
        extension["type"] = "chat"
    return role


def message_id(lc_id: str) -> str:
    """The store's id of the message whose id in LangChain is `lc_id`: the same, where it can be
    one (1 to 255 bytes of UTF-8); else a digest of it."""
    if 0 < len(lc_id) <= _SHORT and lc_id.isascii():
        return lc_id
    encoded = lc_id.encode("utf-8", "surrogatepass")
    if 0 < len(encoded) <= _MAX_ID_BYTES and not any("\ud800" <= c <= "\udfff" for c in lc_id):
        return lc_id
    return f"langchain:{hashlib.sha256(encoded).hexdigest()}"


def _whole(message: Any) -> BaseMessage:
    """A message of one of the classes that we know, from anything else."""
    kind = type(message)
    if not isinstance(message, BaseMessage):
        raise InvalidInputError(
            f"{kind.__module__}.{kind.__qualname__} is not a LangChain message; "
            "give HumanMessage(…), AIMessage(…) …"
        )
    if isinstance(message, RemoveMessage):
        raise InvalidInputError(
            "a RemoveMessage is not stored; give it to add_messages of a history, which removes "
            "the message that it names"
        )
    if isinstance(message, BaseMessageChunk) and kind.__mro__[1] in KINDS:
        whole = message_chunk_to_message(message)
        if message.__pydantic_extra__ and whole.__pydantic_extra__ is not None:
            whole.__pydantic_extra__.update(message.__pydantic_extra__)
        return whole
    raise InvalidInputError(
        f"{kind.__module__}.{kind.__qualname__} is a message class of your own, which nobody else "
        "could read back; give one of langchain-core's (additional_kwargs keeps your fields)"
    )
