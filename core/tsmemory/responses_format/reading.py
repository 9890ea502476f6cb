"""What an item of the Responses API says in neutral fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tsmemory.content import Block
from tsmemory.errors import InvalidInputError
from tsmemory.model import ToolCall
from tsmemory.openai_format import source_of

__all__ = ["Item", "Part", "kind_of", "read"]

Item = dict[str, Any]

_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_CITATION = ("url", "title", "start_index", "end_index")


class Part(NamedTuple):
    """What an item says in neutral fields."""

    role: str
    content: str | list[Block] = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None


def kind_of(raw: Mapping[str, Any]) -> Any:
    return raw.get("type", "message")


def read(raw: Any) -> Part:
    if not isinstance(raw, Mapping):
        raise InvalidInputError(f"not an item of the Responses API, which is a dict: {raw!r:.80}")
    kind = kind_of(raw)
    if not isinstance(kind, str):
        raise InvalidInputError(f"an item's type is a text, not {kind!r:.80}")
    if kind == "message":
        return _read_message(raw)
    if kind == "reasoning":
        return Part("assistant", _thoughts(raw))
    if kind in _CALLS:
        call_id = raw.get("call_id", raw.get("id"))
        name = raw.get("name")
        if not isinstance(name, str):
            raise InvalidInputError(f"a {kind} without a name")
        call = ToolCall(
            None if call_id is None else str(call_id), name, _arguments(raw.get(_CALLS[kind]))
        )
        return Part("assistant", calls=(call,))
    # A local shell's output names its call by its own id.
    call_id = raw.get("call_id", raw.get("id") if kind == "local_shell_call_output" else None)
    if kind.endswith("_output") and isinstance(call_id, (str, int)):
        output = raw.get("output", raw.get("tools"))
        content = output if isinstance(output, str) else _blocks(output, _output_block)
        return Part("tool", content, call_id=str(call_id))
    return Part("assistant", [{"type": "non_standard", "value": dict(raw)}])


def _read_message(raw: Mapping[str, Any]) -> Part:
    role, content = raw.get("role"), raw.get("content")
    if not isinstance(role, str):
        raise InvalidInputError("a message item has a text 'role'")
    call_id = raw.get("tool_call_id") if role == "tool" else None
    if isinstance(content, str):
        return Part(role, content, call_id=call_id)
    blocks = _blocks(content, _foreign_block)
    own_id = raw.get("id")
    if role == "assistant" and isinstance(own_id, str) and own_id.startswith("msg_"):
        blocks = [{**block, "id": own_id} for block in blocks]
    return Part(role, blocks, call_id=call_id)


def _thoughts(raw: Mapping[str, Any]) -> list[Block]:
    """A reasoning item; also one without a text, for it leads to what follows it."""
    block: Block = {"type": "reasoning"}
    if isinstance(raw.get("id"), str):
        block["id"] = raw["id"]
    extras = {k: v for k, v in raw.items() if k not in ("type", "id", "summary", "content")}
    first = {**block, "extras": extras} if extras else block
    parts = raw.get("summary") or raw.get("content") or []
    if not isinstance(parts, list):
        raise InvalidInputError(f"a reasoning's summary is a list of parts, not {parts!r:.80}")
    parts = [part for part in parts if isinstance(part, Mapping)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    if not texts:
        return [first]
    shown = [{**first, "reasoning": texts[0]}]
    return shown + [{**block, "reasoning": text} for text in texts[1:]]


def _arguments(value: Any) -> dict[str, Any] | str:
    if isinstance(value, dict):
        _json(value)
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
    return {"type": "text", "text": "".join(streams) if streams else _json(part)}


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError) as error:  # a key, a circle, the depth
        raise InvalidInputError(f"not JSON: {error}") from error


def _block(part: Mapping[str, Any]) -> Block | None:
    kind = part.get("type")
    if not isinstance(kind, str):
        return None
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
