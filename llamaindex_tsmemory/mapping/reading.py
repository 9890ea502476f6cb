"""From neutral messages to LlamaIndex."""

from __future__ import annotations

import re
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from llamaindex_tsmemory.mapping.across import present
from llamaindex_tsmemory.mapping.blocks import from_blocks, make_text, make_tool_call
from llamaindex_tsmemory.mapping.calls import CALLS_KEY, claim, drop_raw_calls
from llamaindex_tsmemory.mapping.roles import ANSWERS, EXTENSION, ROLES
from llamaindex_tsmemory.mapping.values import decode
from tsmemory import InvalidInputError, Message, ToolCall
from tsmemory.mapping import REASONING_KEY, as_text, reasoning_block

__all__ = ["from_neutral"]

_PARTICIPANT = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what chat APIs accept as a name


def from_neutral(message: Message) -> ChatMessage:
    """The LlamaIndex message for a neutral one: equal to what `to_neutral` was given, or, where
    another framework wrote it, the nearest there is.

    A role that LlamaIndex does not have becomes ``user`` (all that the model has not said is input
    to it), with the role as ``additional_kwargs["name"]`` where there is no name. Blocks of no use
    to it (provider-specific ones) are left out. The record in the store has them still.

    Raises:
        InvalidInputError: not a `tsmemory.Message`, or its LlamaIndex extension does not read.
    """
    if not isinstance(message, Message):
        raise InvalidInputError(f"from_neutral takes a tsmemory.Message, not {type(message)}")
    content = message.content
    role = ROLES.get(message.role)
    if type(content) is str and role is not None and EXTENSION not in message.extensions:
        # Most messages: a text and calls.
        kwargs: dict[str, Any] = {}
        _set_kwargs(kwargs, message)
        calls = message.tool_calls
        blocks: list[Any] = [make_text(content)] if content or not calls else []
        blocks += [make_tool_call(call) for call in calls]
        return _build(role, blocks, kwargs)
    try:
        return _from_neutral(message)
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        raise InvalidInputError(
            f"message {message.message_id!r}: what llamaindex_tsmemory keeps in it does not read: "
            f"{type(error).__name__}: {error}"
        ) from error


def _set_kwargs(kwargs: dict[str, Any], message: Message) -> None:
    # The two of `KWARGS_FIELDS`, without a loop: it is done for every message.
    if message.name is not None:
        kwargs["name"] = message.name
    if message.tool_call_id is not None:
        kwargs["tool_call_id"] = message.tool_call_id


def _build(role: MessageRole, blocks: list[Any], kwargs: dict[str, Any]) -> ChatMessage:
    # Not the constructor: it would add a block for each of additional_kwargs["images"] again.
    return ChatMessage.model_construct(role=role, additional_kwargs=kwargs, blocks=blocks)


def _from_neutral(message: Message) -> ChatMessage:
    extension = message.extensions.get(EXTENSION) or {}
    kwargs: dict[str, Any] = decode(extension.get("additional_kwargs", {}))
    _set_kwargs(kwargs, message)
    role = ROLES.get(message.role)
    if message.role == "assistant" and "role" in extension:
        role = MessageRole(extension["role"])
    if role is None:
        role = MessageRole.USER
        if _PARTICIPANT.fullmatch(message.role):
            kwargs.setdefault("name", message.role)

    claimed: set[int] = set()
    content: Any = message.content
    own = "blocks" in extension
    if type(content) is list:
        content = _without_reasoning(content, kwargs, own)
    if type(content) is list and content and not own and message.role in ANSWERS:
        content, reasoning = present(content, message.tool_calls)
        if reasoning:
            kwargs[REASONING_KEY] = reasoning
    if isinstance(content, str):
        empty = not content and message.tool_calls and not extension.get("empty_text")
        blocks: list[Any] = [] if empty else [make_text(content)]
    else:
        blocks = from_blocks([b for b in content if _is_made(b, message.tool_calls, claimed)])
    if CALLS_KEY in kwargs:
        claimed |= drop_raw_calls(kwargs, message.tool_calls)
    blocks += [make_tool_call(c) for i, c in enumerate(message.tool_calls) if i not in claimed]
    return _build(role, blocks, kwargs)


def _without_reasoning(content: list[Any], kwargs: dict[str, Any], own: bool) -> Any:
    """`content` as it was before the reasoning of `kwargs` was put before it."""
    reasoning = reasoning_block(kwargs)
    if not reasoning or content[:1] != reasoning:
        return content
    return content[1:] if own else as_text(content[1:])


def _is_made(block: dict[str, Any], calls: tuple[ToolCall, ...], claimed: set[int]) -> bool:
    """Whether a block belongs to the message still: a call that a window took out does not."""
    if block["type"] not in ("tool_call", "invalid_tool_call"):
        return True
    return claim(calls, claimed, block.get("id"), block.get("name") or "")
