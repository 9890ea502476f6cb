"""From neutral messages to LangChain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_tsmemory.mapping.across import present
from langchain_tsmemory.mapping.blocks import from_blocks
from langchain_tsmemory.mapping.calls import drop_raw_calls, set_calls
from langchain_tsmemory.mapping.kwargs import without_kwargs
from langchain_tsmemory.mapping.roles import (
    AI,
    CHAT,
    DEVELOPER,
    EXTENSION,
    FUNCTION,
    ROLES,
    SYSTEM,
    TOOL,
    TYPES,
    Kind,
)
from langchain_tsmemory.mapping.values import decode
from tsmemory import InvalidInputError, Message

__all__ = ["from_neutral", "is_same"]


def from_neutral(message: Message) -> BaseMessage:
    """The LangChain form of a neutral message, whoever wrote it.

    Args:
        message: what `to_neutral` made gives an equal message of the same class; one from
            elsewhere gives a message with LangChain's standard content blocks. Nested values are
            shared with the result.

    Raises:
        InvalidInputError: not a neutral message, or its LangChain extension does not read.
    """
    if type(message) is not Message:
        raise InvalidInputError(f"{type(message).__name__} is not a tsmemory.Message")
    try:
        return _from_neutral(message)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"message {message.message_id!r}: what langchain_tsmemory keeps in it does not read: "
            f"{type(error).__name__}: {error}"
        ) from error


def is_same(a: Message, b: Message) -> bool:
    """Whether LangChain reads the same message of both, whoever wrote them."""
    return from_neutral(a) == from_neutral(b)


def _from_neutral(message: Message) -> BaseMessage:
    extension = message.extensions.get(EXTENSION)
    if type(extension) is not dict:
        extension = {}
    kind = ROLES.get(message.role, CHAT)
    if "type" in extension:
        kind = TYPES.get(extension["type"], kind)
    built = kind.cls(**_fields(message, kind, extension))
    # Set and not passed: the constructor would parse the provider's copy of tool calls again, and
    # copy every dict.
    if len(extension) > ("id" in extension):
        read = decode if extension.get("encoded") else _as_it_is
        for name, _ in kind.extension_fields:
            if name in extension:
                setattr(built, name, read(extension[name]))
        if "extra" in extension and built.__pydantic_extra__ is not None:
            built.__pydantic_extra__.update(read(extension["extra"]))
    if kind is AI:
        if message.tool_calls:
            set_calls(built, message.tool_calls, extension)
        if "calls" in extension and extension["calls"] != len(message.tool_calls):
            drop_raw_calls(built, message.tool_calls)
    elif kind is SYSTEM and message.role == "developer" and "additional_kwargs" not in extension:
        built.additional_kwargs = dict(DEVELOPER)
    return built


def _fields(message: Message, kind: Kind, extension: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments. What is None is left to it: it takes its time over each."""
    content: Any = message.content
    fields: dict[str, Any] = {}
    if type(content) is not str:
        content = from_blocks(content)
        if kind is AI:
            kwargs = extension.get("additional_kwargs")
            if type(kwargs) is dict:
                content = without_kwargs(content, kwargs, "blocks" in extension)
            if type(content) is list and content and "blocks" not in extension:
                presented = present(message, content)
                content = presented.content
                if presented.response_metadata:
                    fields["response_metadata"] = presented.response_metadata
                if presented.additional_kwargs:
                    fields["additional_kwargs"] = presented.additional_kwargs
    fields["content"] = content
    lc_id = extension.get("id", message.message_id)
    if lc_id is not None:
        fields["id"] = lc_id
    if message.name is not None:
        fields["name"] = message.name
    if kind is TOOL:
        fields["tool_call_id"] = message.tool_call_id or ""
    elif kind is CHAT:
        fields["role"] = extension.get("role", message.role)
    elif kind is FUNCTION:
        fields.setdefault("name", "")
    return fields


def _as_it_is(value: Any) -> Any:
    return value
