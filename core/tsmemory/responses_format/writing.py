"""A neutral message as items of the Responses API."""

from __future__ import annotations

from collections.abc import Sequence

from tsmemory.content import Block, block_text
from tsmemory.model import Message, ToolCall
from tsmemory.openai_format import arguments_text, data_url
from tsmemory.responses_format.reading import Item

__all__ = ["write"]

_ROLES = frozenset({"user", "assistant", "system", "developer"})


def write(message: Message) -> list[Item]:
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
    text = arguments_text(call)
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
        if last.get("role") == "assistant" and "type" not in last:  # made here, of a text
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
    notes = block.get("annotations")
    notes = [n for n in notes if isinstance(n, dict)] if isinstance(notes, list) else []
    notes = [{**note, "type": "url_citation"} for note in notes]
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
