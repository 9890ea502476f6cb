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

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory.content import Block, block_text
from tsmemory.errors import InvalidInputError
from tsmemory.model import Message, ToolCall
from tsmemory.openai_format import data_url, source_of

__all__ = ["check_item", "from_items", "to_items"]

Item = dict[str, Any]

_EXTENSION = "openai_responses"
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_ROLES = frozenset({"user", "assistant", "system", "developer"})
_CITATION = ("url", "title", "start_index", "end_index")


class _Part(NamedTuple):
    """What an item says in neutral fields."""

    role: str
    content: str | list[Block] = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None


def from_items(items: Iterable[Mapping[str, Any]]) -> list[Message]:
    """The messages that items are, in order. Each has a random `message_id`.

    Args:
        items: dicts as the API takes and gives them; one of role and content alone is a message.

    Raises:
        InvalidInputError: not an item: no dict, no type, or a content of another shape.
    """
    messages: list[Message] = []
    turn: list[tuple[Item, _Part]] = []
    for raw in items:
        part = _read(raw)
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
    _read(raw)


def to_items(message: Message) -> list[Item]:
    """A message as items of the Responses API, whoever wrote it.

    Reasoning that OpenAI did not give, and blocks that only another provider knows, are left out.
    """
    written = _write(message)
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


def _goes_on(turn: Sequence[tuple[Item, _Part]], raw: Mapping[str, Any]) -> bool:
    """Whether an item is of the same answer: a text ends one, but for the calls behind it."""
    if not any(_kind(item) == "message" for item, _ in turn):
        return True
    return _kind(raw) not in ("message", "reasoning")


def _message(turn: Sequence[tuple[Item, _Part]]) -> Message:
    items = [item for item, _ in turn]
    message = _neutral([part for _, part in turn])
    written = _write(message)
    if written == items:
        return message
    kept: list[Item | None] = list(items)
    if len(written) == len(items):
        kept = [None if w == i else i for w, i in zip(written, items, strict=True)]
    return msgspec.structs.replace(message, extensions={_EXTENSION: {"items": kept}})


def _neutral(parts: Sequence[_Part]) -> Message:
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
        return _plain(_read(kept)) == _plain(_read(written))
    except InvalidInputError:
        return False


def _plain(part: _Part) -> _Part:
    return part._replace(content=_blocks_of(part.content))


def _is_whole(items: Sequence[Item], message: Message) -> bool:
    """Whether the message says what the items say, all of it."""
    try:
        said = _neutral([_read(item) for item in items])
    except InvalidInputError:
        return False
    return (said.content, said.tool_calls) == (message.content, message.tool_calls)


# -- item → neutral ----------------------------------------------------------------------------


def _kind(raw: Mapping[str, Any]) -> Any:
    return raw.get("type", "message")


def _read(raw: Any) -> _Part:
    if not isinstance(raw, Mapping):
        raise InvalidInputError(f"not an item of the Responses API, which is a dict: {raw!r:.80}")
    kind = _kind(raw)
    if not isinstance(kind, str):
        raise InvalidInputError(f"an item's type is a text, not {kind!r:.80}")
    if kind == "message":
        return _read_message(raw)
    if kind == "reasoning":
        return _Part("assistant", _thoughts(raw))
    if kind in _CALLS:
        call_id = raw.get("call_id", raw.get("id"))
        name = raw.get("name")
        if not isinstance(name, str):
            raise InvalidInputError(f"a {kind} without a name")
        call = ToolCall(
            None if call_id is None else str(call_id), name, _arguments(raw.get(_CALLS[kind]))
        )
        return _Part("assistant", calls=(call,))
    # A local shell's output names its call by its own id.
    call_id = raw.get("call_id", raw.get("id") if kind == "local_shell_call_output" else None)
    if kind.endswith("_output") and isinstance(call_id, (str, int)):
        output = raw.get("output", raw.get("tools"))
        content = output if isinstance(output, str) else _blocks(output, _output_block)
        return _Part("tool", content, call_id=str(call_id))
    return _Part("assistant", [{"type": "non_standard", "value": dict(raw)}])


def _read_message(raw: Mapping[str, Any]) -> _Part:
    role, content = raw.get("role"), raw.get("content")
    if not isinstance(role, str):
        raise InvalidInputError("a message item has a text 'role'")
    call_id = raw.get("tool_call_id") if role == "tool" else None
    if isinstance(content, str):
        return _Part(role, content, call_id=call_id)
    blocks = _blocks(content, _foreign_block)
    own_id = raw.get("id")
    if role == "assistant" and isinstance(own_id, str) and own_id.startswith("msg_"):
        blocks = [{**block, "id": own_id} for block in blocks]
    return _Part(role, blocks, call_id=call_id)


def _thoughts(raw: Mapping[str, Any]) -> list[Block]:
    """A reasoning item; also one without a text, for it leads to what follows it."""
    block: Block = {"type": "reasoning"}
    if isinstance(raw.get("id"), str):
        block["id"] = raw["id"]
    extras = {k: v for k, v in raw.items() if k not in ("type", "id", "summary", "content")}
    first = {**block, "extras": extras} if extras else block
    parts = [p for p in raw.get("summary") or raw.get("content") or () if isinstance(p, Mapping)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    if not texts:
        return [first]
    shown = [{**first, "reasoning": texts[0]}]
    return shown + [{**block, "reasoning": text} for text in texts[1:]]


def _arguments(value: Any) -> dict[str, Any] | str:
    if isinstance(value, dict):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return str(value) if value is not None else {}
    return parsed if isinstance(parsed, dict) else str(value)


def _blocks(content: Any, foreign: Callable[[Mapping[str, Any]], Block]) -> list[Block]:
    """The blocks of a content's parts; `foreign` for those that have no neutral form."""
    if content is None:
        return []
    if not isinstance(content, list):
        content = [content]
    blocks: list[Block] = []
    for part in content:
        if isinstance(part, str):
            blocks.append({"type": "text", "text": part})
        elif isinstance(part, Mapping):
            blocks.append(_block(part) or foreign(part))
        else:
            raise InvalidInputError(f"not a part of a content: {part!r:.80}")
    return blocks


def _foreign_block(part: Mapping[str, Any]) -> Block:
    return {"type": "non_standard", "value": dict(part)}


def _output_block(part: Mapping[str, Any]) -> Block:
    """What a tool gave that is neither text nor a medium, as the text that a model can read."""
    streams = [part[name] for name in ("stdout", "stderr") if isinstance(part.get(name), str)]
    text = "".join(streams) if streams else json.dumps(part, ensure_ascii=False, default=str)
    return {"type": "text", "text": text}


def _block(part: Mapping[str, Any]) -> Block | None:
    kind = part.get("type")
    if kind in _TEXTS and isinstance(part.get("text"), str):
        return _text_block(part)
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "refusal", "refusal": part["refusal"]}
    if kind in ("input_image", "computer_screenshot"):
        block: Block = {"type": "image", **_medium(part, "image_url", "image_url")}
        if "detail" in part:
            block["origin"] = {"openai": {"detail": part["detail"]}}
        return block if len(block) > 1 + ("detail" in part) else None
    if kind == "input_file":
        block = {"type": "file", **_medium(part, "file_url", "file_data")}
        if "filename" in part:
            block["extras"] = {"filename": part["filename"]}
        return block if len(block) > 1 + ("filename" in part) else None
    sound = part.get("input_audio")
    if kind == "input_audio" and isinstance(sound, Mapping) and isinstance(sound.get("data"), str):
        mime_type = f"audio/{sound.get('format')}"
        return {"type": "audio", "base64": sound["data"], "mime_type": mime_type}
    return None


def _text_block(part: Mapping[str, Any]) -> Block:
    block: Block = {"type": "text", "text": part["text"]}
    notes = part.get("annotations")
    if isinstance(notes, list) and notes:
        block["annotations"] = [
            {"type": "citation"} | {k: note[k] for k in _CITATION if k in note}
            for note in notes
            if isinstance(note, Mapping) and note.get("type") == "url_citation"
        ]
    extras = {k: v for k, v in part.items() if k not in ("type", "text", "annotations")}
    return {**block, "extras": extras} if extras else block


def _medium(part: Mapping[str, Any], *names: str) -> dict[str, Any]:
    if isinstance(part.get("file_id"), str):
        return {"file_id": part["file_id"]}
    return next((source_of(part[name]) for name in names if isinstance(part.get(name), str)), {})


# -- neutral → item ----------------------------------------------------------------------------


def _write(message: Message) -> list[Item]:
    content = message.content
    if message.role == "assistant":
        return _write_answer(message)
    if message.role == "tool":
        output = content if isinstance(content, str) else _parts(content)
        call_id = message.tool_call_id or ""
        return [{"type": "function_call_output", "call_id": call_id, "output": output}]
    role = message.role if message.role in _ROLES else "user"
    return [{"role": role, "content": content if isinstance(content, str) else _parts(content)}]


def _write_answer(message: Message) -> list[Item]:
    calls = list(message.tool_calls)
    if isinstance(message.content, str):
        text: list[Item] = [{"role": "assistant", "content": message.content}]
        return [*(text if message.content or not calls else []), *map(_write_call, calls)]
    items: list[Item] = []
    for block in message.content:
        kind = block.get("type")
        if kind == "reasoning":
            _add_thought(items, block)
        elif kind in ("tool_call", "invalid_tool_call"):
            call = next((call for call in calls if call.id == block.get("id")), None)
            if call is not None:
                calls.remove(call)
                items.append(_write_call(call))
        elif _is_item(block):
            items.append(block["value"])
        else:
            _add_text(items, block)
    return [*items, *map(_write_call, calls)]


def _is_item(block: Block) -> bool:
    value = block.get("value") if block.get("type") == "non_standard" else None
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and (
        kind.endswith("_call") or kind.startswith("mcp_") or kind == "compaction"
    )


def _write_call(call: ToolCall) -> Item:
    text = call.arguments
    if not isinstance(text, str):
        text = json.dumps(text)
    return {"type": "function_call", "call_id": call.id or "", "name": call.name, "arguments": text}


def _add_thought(items: list[Item], block: Block) -> None:
    own_id, extras = block.get("id"), block.get("extras")
    extras = extras if isinstance(extras, dict) else {}
    if not str(own_id).startswith("rs_") and "encrypted_content" not in extras:
        return
    text = block.get("reasoning")
    summary = [{"type": "summary_text", "text": text}] if isinstance(text, str) else []
    last = items[-1] if items else {}
    if last.get("type") == "reasoning" and last.get("id") == own_id and not extras:
        last["summary"] += summary
        return
    identity = {"id": own_id} if isinstance(own_id, str) else {}
    items.append({"type": "reasoning", **identity, "summary": summary, **extras})


def _add_text(items: list[Item], block: Block) -> None:
    text = block_text(block)
    if text is None:
        return
    last = items[-1] if items else {}
    own_id = block.get("id")
    if not (isinstance(own_id, str) and own_id.startswith("msg_")):
        if last.get("role") == "assistant" and isinstance(last["content"], str):
            last["content"] += text
        else:
            items.append({"role": "assistant", "content": text})
        return
    if last.get("type") != "message" or last.get("id") != own_id:
        last = {"type": "message", "id": own_id, "role": "assistant", "status": "completed",
                "content": []}  # fmt: skip
        items.append(last)
    if block.get("type") == "refusal":
        last["content"].append({"type": "refusal", "refusal": text})
        return
    notes = [{**note, "type": "url_citation"} for note in block.get("annotations") or ()]
    extras = block.get("extras")
    last["content"].append(
        {"type": "output_text", "text": text, "annotations": notes}
        | (extras if isinstance(extras, dict) else {})
    )


def _parts(content: Sequence[Block]) -> list[Item]:
    """The parts of what a person, or a tool, says."""
    return [part for part in map(_part, content) if part is not None]


def _part(block: Block) -> Item | None:
    kind = block.get("type")
    source = {"file_id": block["file_id"]} if isinstance(block.get("file_id"), str) else {}
    url = data_url(block)
    if kind == "image" and (source or url is not None):
        origin = block.get("origin")
        ours = origin.get("openai") if isinstance(origin, dict) else None
        detail = ours if isinstance(ours, dict) else {"detail": "auto"}
        return {"type": "input_image", **(source or {"image_url": url}), **detail}
    if kind == "file" and (source or url is not None):
        name = "file_data" if "base64" in block else "file_url"
        file = {"type": "input_file", **(source or {name: url})}
        extras = block.get("extras")
        if isinstance(extras, dict) and "filename" in extras:
            file["filename"] = extras["filename"]
        return file
    if kind == "audio" and "base64" in block:
        form = str(block.get("mime_type", "")).removeprefix("audio/")
        return {"type": "input_audio", "input_audio": {"data": block["base64"], "format": form}}
    text = block_text(block)
    return None if text is None else {"type": "input_text", "text": text}
