"""From LlamaIndex to neutral messages."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock

from llamaindex_tsmemory.mapping.blocks import to_blocks
from llamaindex_tsmemory.mapping.calls import CALLS_KEY, calls_in_kwargs, make_call
from llamaindex_tsmemory.mapping.roles import ANSWERS, EXTENSION, KWARGS_FIELDS, SPOKEN_BY_MODEL
from llamaindex_tsmemory.mapping.values import encode
from tsmemory import InvalidInputError, Message, ToolCall
from tsmemory.mapping import prepend, reasoning_block

__all__ = ["to_neutral"]


def to_neutral(message: ChatMessage) -> Message:
    """The neutral form of a LlamaIndex message, with a new `message_id`.

    `from_neutral` gives back an equal message, except that a medium given as an open stream comes
    back as its bytes, and objects of classes that `values` does not know as plain values.

    Raises:
        InvalidInputError: not a `ChatMessage`, or a block in it is none of LlamaIndex's.
    """
    if type(message) is not ChatMessage:
        raise _no_message(message)
    role = message.role
    blocks = message.blocks
    if not message.additional_kwargs and len(blocks) == 1 and role not in SPOKEN_BY_MODEL:
        (block,) = blocks
        if type(block) is TextBlock and type(block.text) is str:
            return Message(MessageRole(role).value, block.text)
    return _to_neutral(message)


def _no_message(value: Any) -> InvalidInputError:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, ChatMessage):
        return InvalidInputError(
            f"a {name} would come back as a ChatMessage, without what it adds; convert it first"
        )
    return InvalidInputError(
        f"{name} is not a llama_index ChatMessage; make one with ChatMessage(role=…, content=…)"
    )


def _to_neutral(message: ChatMessage) -> Message:
    extension: dict[str, Any] = {}
    role = MessageRole(message.role)
    if role in SPOKEN_BY_MODEL:
        extension["role"] = role.value
    kwargs = dict(message.additional_kwargs)
    fields = {name: kwargs.pop(name) for name in KWARGS_FIELDS if type(kwargs.get(name)) is str}
    raw_calls = kwargs.get(CALLS_KEY)
    if kwargs:
        extension["additional_kwargs"] = encode(kwargs, "additional_kwargs")
    calls = [
        make_call(b.tool_call_id, b.tool_name, b.tool_kwargs, f"blocks[{i}].tool_kwargs")
        for i, b in enumerate(message.blocks)
        if type(b) is ToolCallBlock
    ]
    content = _text_before_calls(message.blocks, calls)
    if content is None or (calls and raw_calls):
        content = to_blocks(message.blocks)
    calls += calls_in_kwargs(raw_calls, calls)
    if content == "" and not message.blocks and not calls:
        content = []  # "" is the message of one empty text
    elif content == "" and message.blocks and calls and type(message.blocks[0]) is TextBlock:
        extension["empty_text"] = True
    if type(content) is list and content and role.value in ANSWERS:
        extension["blocks"] = True
    return Message(
        role="assistant" if role in SPOKEN_BY_MODEL else role.value,
        content=prepend(reasoning_block(kwargs), content) if kwargs else content,
        tool_calls=tuple(calls),
        extensions={EXTENSION: extension} if extension else {},
        **fields,
    )


def _text_before_calls(blocks: list[Any], calls: list[ToolCall]) -> str | list[Any] | None:
    """The text of a message that is one text at most and, behind it, calls of which the neutral
    `calls` say all; else None."""
    has_text = bool(blocks) and type(blocks[0]) is TextBlock
    behind = blocks[has_text:]
    text = blocks[0].text if has_text else ""
    if type(text) is not str or any(type(b) is not ToolCallBlock for b in behind):
        return None
    exact = all(b.tool_kwargs is c.arguments for b, c in zip(behind, calls, strict=True))
    return text if exact else None
