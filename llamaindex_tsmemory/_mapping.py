"""One message: LlamaIndex's `ChatMessage` and the neutral `tsmemory.Message`, each way.

    ChatMessage                                neutral
    role chatbot, model                        assistant; the name in the extension
    one TextBlock, calls as plain blocks       content a str, tool_calls
    any other blocks                           content a list (see `_blocks`), tool_calls
    additional_kwargs["tool_call_id"], ["name"]  tool_call_id, name
    additional_kwargs["tool_calls"]            tool_calls, and as they stand in the extension
    other additional_kwargs                    the extension

The extension, ``extensions["llamaindex"]``, has the keys ``role``, ``additional_kwargs`` (encoded
as `_values` says), ``empty_text``, and ``blocks``: that LlamaIndex wrote this answer's list of
blocks. There is no extension where there is nothing to say. Reasoning in
``additional_kwargs["reasoning_content"]`` is in the neutral content too.

An answer's blocks that another framework wrote are shown as `_across` says.

Calls that a window has taken out of a message are taken out of its blocks and its
``additional_kwargs["tool_calls"]`` too. Calls that another framework made become `ToolCallBlock`s,
the form that llama-index-core 0.14 and its integrations read.
"""

from __future__ import annotations

import re
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock

from llamaindex_tsmemory._across import REASONING, present
from llamaindex_tsmemory._blocks import from_blocks, make_text, make_tool_call, to_blocks
from llamaindex_tsmemory._calls import claim, make_call, read_call
from llamaindex_tsmemory._values import decode, encode
from tsmemory import InvalidInputError, Message, ToolCall

__all__ = ["from_neutral", "to_neutral"]

_OWN = "llamaindex"
_SPOKEN_BY_MODEL = frozenset({MessageRole.CHATBOT, MessageRole.MODEL})
_ROLES: dict[str, MessageRole] = {
    role.value: role for role in MessageRole if role not in _SPOKEN_BY_MODEL
}
_ANSWERS = frozenset({"assistant", "chatbot", "model"})
_PARTICIPANT = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what chat APIs accept as a name
_CALLS = "tool_calls"
_FIELDS = {"name": "name", "tool_call_id": "tool_call_id"}


def to_neutral(message: ChatMessage) -> Message:
    """The neutral form of a LlamaIndex message, with a new `message_id`.

    `from_neutral` gives back an equal message, except that a medium given as an open stream comes
    back as its bytes, and objects of classes that `_values` does not know as plain values.

    Raises:
        InvalidInputError: not a `ChatMessage`, or a block in it is none of LlamaIndex's.
    """
    if type(message) is not ChatMessage:
        raise _no_message(message)
    role = message.role
    blocks = message.blocks
    if not message.additional_kwargs and len(blocks) == 1 and role not in _SPOKEN_BY_MODEL:
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
    if role in _SPOKEN_BY_MODEL:
        extension["role"] = role.value
    kwargs = dict(message.additional_kwargs)
    fields = {f: kwargs.pop(k) for k, f in _FIELDS.items() if type(kwargs.get(k)) is str}
    in_kwargs = kwargs.get(_CALLS)
    if kwargs:
        extension["additional_kwargs"] = encode(kwargs, "additional_kwargs")
    calls = [
        make_call(b.tool_call_id, b.tool_name, b.tool_kwargs, f"blocks[{i}].tool_kwargs")
        for i, b in enumerate(message.blocks)
        if type(b) is ToolCallBlock
    ]
    content = _text_before_calls(message.blocks, calls)
    if content is None or (calls and in_kwargs):
        content = to_blocks(message.blocks)
    calls += _calls_in_kwargs(in_kwargs, calls)
    if content == "" and not message.blocks and not calls:
        content = []  # "" is the message of one empty text
    elif content == "" and message.blocks and calls and type(message.blocks[0]) is TextBlock:
        extension["empty_text"] = True
    if type(content) is list and content and role.value in _ANSWERS:
        extension["blocks"] = True
    thought = _thought(kwargs)
    if thought:
        texts = [{"type": "text", "text": content}] if type(content) is str and content else content
        content = [*thought, *texts]
    return Message(
        role="assistant" if role in _SPOKEN_BY_MODEL else role.value,
        content=content,
        tool_calls=tuple(calls),
        extensions={_OWN: extension} if extension else {},
        **fields,
    )


def _thought(kwargs: dict[str, Any]) -> list[Any]:
    """The reasoning that a message has in its ``additional_kwargs``, as a neutral block."""
    text = kwargs.get(REASONING)
    return [{"type": "reasoning", "reasoning": text}] if type(text) is str and text else []


def _without_thought(content: list[Any], kwargs: dict[str, Any], own: bool) -> Any:
    """`content` as it was before the reasoning of `kwargs` was put before it."""
    thought = _thought(kwargs)
    if not thought or content[:1] != thought:
        return content
    rest = content[1:]
    if own or len(rest) > 1 or (rest and rest[0].get("type") != "text"):
        return rest
    return rest[0]["text"] if rest else ""


def _text_before_calls(blocks: list[Any], calls: list[ToolCall]) -> str | list[Any] | None:
    """The text of a message that is one text at most and, behind it, calls of which the neutral
    `calls` say all; else None."""
    begins = bool(blocks) and type(blocks[0]) is TextBlock
    behind = blocks[begins:]
    text = blocks[0].text if begins else ""
    if type(text) is not str or any(type(b) is not ToolCallBlock for b in behind):
        return None
    exact = all(b.tool_kwargs is c.arguments for b, c in zip(behind, calls, strict=True))
    return text if exact else None


def _calls_in_kwargs(raw: Any, in_blocks: list[ToolCall]) -> list[ToolCall]:
    """The calls of ``additional_kwargs["tool_calls"]`` that do not stand in the blocks as well."""
    taken: set[int] = set()
    return [
        call
        for _, call in _read_calls(raw)
        if call is not None and claim(in_blocks, taken, call.id, call.name) is None
    ]


def _read_calls(raw: Any) -> list[tuple[Any, ToolCall | None]]:
    if type(raw) is not list and type(raw) is not tuple:
        return []
    path = f"additional_kwargs[{_CALLS!r}]"
    return [(entry, read_call(entry, f"{path}[{i}]")) for i, entry in enumerate(raw)]


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
    role = _ROLES.get(message.role)
    if type(content) is str and role is not None and _OWN not in message.extensions:
        # Most messages: a text and calls.
        kwargs = {}
        if message.name is not None:
            kwargs["name"] = message.name
        if message.tool_call_id is not None:
            kwargs["tool_call_id"] = message.tool_call_id
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


def _build(role: MessageRole, blocks: list[Any], kwargs: dict[str, Any]) -> ChatMessage:
    # Not the constructor: it would add a block for each of additional_kwargs["images"] again.
    return ChatMessage.model_construct(role=role, additional_kwargs=kwargs, blocks=blocks)


def _from_neutral(message: Message) -> ChatMessage:
    extension = message.extensions.get(_OWN) or {}
    kwargs: dict[str, Any] = decode(extension.get("additional_kwargs", {}))
    for key, field in _FIELDS.items():
        value = getattr(message, field)
        if value is not None:
            kwargs[key] = value
    role = _ROLES.get(message.role)
    if message.role == "assistant" and "role" in extension:
        role = MessageRole(extension["role"])
    if role is None:
        role = MessageRole.USER
        if _PARTICIPANT.fullmatch(message.role):
            kwargs.setdefault("name", message.role)

    shown: set[int] = set()
    content: Any = message.content
    own = "blocks" in extension
    if type(content) is list:
        content = _without_thought(content, kwargs, own)
    if type(content) is list and content and not own and message.role in _ANSWERS:
        content, reasoning = present(content, message.tool_calls)
        if reasoning:
            kwargs[REASONING] = reasoning
    if isinstance(content, str):
        empty = not content and message.tool_calls and not extension.get("empty_text")
        blocks: list[Any] = [] if empty else [make_text(content)]
    else:
        blocks = from_blocks([b for b in content if _is_made(b, message.tool_calls, shown)])
    if _CALLS in kwargs:
        shown |= _repair(kwargs, message.tool_calls)
    blocks += [make_tool_call(c) for i, c in enumerate(message.tool_calls) if i not in shown]
    return _build(role, blocks, kwargs)


def _is_made(block: dict[str, Any], calls: tuple[ToolCall, ...], shown: set[int]) -> bool:
    """Whether a block belongs to the message still: a call that a window took out does not."""
    if block["type"] not in ("tool_call", "invalid_tool_call"):
        return True
    return claim(calls, shown, block.get("id"), block.get("name") or "") is not None


def _repair(kwargs: dict[str, Any], calls: tuple[ToolCall, ...]) -> set[int]:
    """Take out of ``kwargs["tool_calls"]`` what is not in `calls`; which of those it has."""
    shown: set[int] = set()
    entries = _read_calls(kwargs[_CALLS])
    kept = [
        entry
        for entry, call in entries
        if call is None or claim(calls, shown, call.id, call.name) is not None
    ]
    if len(kept) < len(entries):
        kwargs[_CALLS] = type(kwargs[_CALLS])(kept)
        if not kept:
            del kwargs[_CALLS]  # chat APIs refuse an empty list
    return shown
