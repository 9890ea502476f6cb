"""Items of OpenAI's Responses API, both ways: its ``input``, and what the Agents SDK keeps.

A message of ours is what a model gave at once, as in every other format: its reasoning, text and
calls together (https://platform.openai.com/docs/api-reference/responses/create). There and back is
exact, and each item comes back as the one it was: what the neutral fields do not give again is kept
in ``extensions["openai_responses"]["items"]``, None for an item that they give.

    item                            neutral
    message                         a message of its role; the text block has the id ``msg_…``
    reasoning                       a reasoning block for each part of its summary, with its id
    function_call                   a tool call (``custom_tool_call`` too: its input is text)
    …_output with a ``call_id``     a message of role tool
    anything else                   a ``non_standard`` block, in the message of the model

The neutral fields are the truth: an item whose text or call was changed, or is not in a window's
view, is not given as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tsmemory.content import Block
from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, ToolCall
from tsmemory.responses_format.reading import Item, Part, kind_of, read
from tsmemory.responses_format.writing import write

__all__ = ["check_item", "from_items", "to_items"]

_EXTENSION = "openai_responses"


def from_items(items: Iterable[Mapping[str, Any]]) -> list[Message]:
    """The messages that items are, in order. Each has a random `message_id`.

    Args:
        items: dicts as the API takes and gives them; one of role and content alone is a message.

    Raises:
        InvalidInputError: not an item: no dict, no type, or a content of another shape.
    """
    messages: list[Message] = []
    turn: list[tuple[Item, Part]] = []
    for raw in items:
        part = read(raw)
        if turn and not (part.role == "assistant" and _goes_on(turn, raw)):
            messages.append(_message(turn))
            turn = []
        turn.append((dict(raw), part))
        if part.role != "assistant":
            messages.append(_message(turn))
            turn = []
    if turn:
        messages.append(_message(turn))
    return messages


def check_item(raw: Any) -> None:
    """Raises:
    InvalidInputError: `from_items` does not take it.
    """
    read(raw)


def to_items(message: Message) -> list[Item]:
    """A message as items of the Responses API, whoever wrote it.

    Reasoning that OpenAI did not give, and blocks that only another provider knows, are left out.
    """
    written = write(message)
    extension = message.extensions.get(_EXTENSION)
    kept = extension.get("items") if isinstance(extension, dict) else None
    if not isinstance(kept, list):
        return written
    originals = [item for item in kept if isinstance(item, dict)]
    whole = originals
    if len(kept) == len(written):
        whole = [k or w for k, w in zip(kept, written, strict=True)]
    if len(whole) == len(kept) and _is_whole(whole, message):
        return whole
    out: list[Item] = []
    for item in written:
        original = next((k for k in originals if _same(k, item)), None)
        if original is not None:
            originals.remove(original)
        out.append(item if original is None else original)
    return out


def _goes_on(turn: Sequence[tuple[Item, Part]], raw: Mapping[str, Any]) -> bool:
    """Whether an item is of the same answer: a text ends one, but for the calls behind it."""
    if not any(kind_of(item) == "message" for item, _ in turn):
        return True
    return kind_of(raw) not in ("message", "reasoning")


def _message(turn: Sequence[tuple[Item, Part]]) -> Message:
    items = [item for item, _ in turn]
    message = _neutral([part for _, part in turn])
    written = write(message)
    if written == items:
        return message
    kept: list[Item | None] = list(items)
    if len(written) == len(items):
        kept = [None if w == i else i for w, i in zip(written, items, strict=True)]
    return msgspec.structs.replace(message, extensions={_EXTENSION: {"items": kept}})


def _neutral(parts: Sequence[Part]) -> Message:
    first = parts[0]
    if len(parts) == 1 and (first.role != "assistant" or not first.calls):
        return Message(first.role, first.content, tool_call_id=first.call_id)
    # Calls are blocks too only where their order counts: where something else stands behind one.
    calling = [bool(part.calls) for part in parts]
    as_blocks = True in calling and not all(calling[calling.index(True) :])
    content: list[Block] = []
    for part in parts:
        content += _blocks_of(part.content)
        if as_blocks:
            content += map(_call_block, part.calls)
    calls = tuple(call for part in parts for call in part.calls)
    return Message("assistant", content or "", tool_calls=calls)


def _blocks_of(content: str | list[Block]) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def _call_block(call: ToolCall) -> Block:
    kind = "tool_call" if isinstance(call.arguments, dict) else "invalid_tool_call"
    return {"type": kind, "id": call.id, "name": call.name, "args": call.arguments}


def _same(kept: Item, written: Item) -> bool:
    """Whether two items say the same in neutral fields."""
    try:
        return _plain(read(kept)) == _plain(read(written))
    except InvalidInputError:
        return False


def _plain(part: Part) -> Part:
    return part._replace(content=_blocks_of(part.content))


def _is_whole(items: Sequence[Item], message: Message) -> bool:
    """Whether the message says what the items say, all of it."""
    try:
        said = _neutral([read(item) for item in items])
    except InvalidInputError:
        return False
    return (said.content, said.tool_calls) == (message.content, message.tool_calls)
