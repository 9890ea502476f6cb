"""LangChain's blocks in the neutral vocabulary."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any

from langchain_tsmemory.mapping.blocks.forms import DATA_URL, MEDIA, Raw, form_of
from langchain_tsmemory.mapping.blocks.paths import copy_of, get_at, put_at, take_at
from langchain_tsmemory.mapping.blocks.reading import restore
from tsmemory import Block

__all__ = ["STANDARD", "to_blocks"]

STANDARD = MEDIA | {
    "citation",
    "invalid_tool_call",
    "non_standard",
    "non_standard_annotation",
    "reasoning",
    "refusal",
    "server_tool_call",
    "server_tool_call_chunk",
    "server_tool_result",
    "text",
    "text-plain",
    "tool_call",
    "tool_call_chunk",
}
"""The types of LangChain's standard content blocks and annotations (langchain-core 1.8)."""

_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]*={0,2}\s*")


def to_blocks(content: Iterable[str | Raw]) -> list[Block]:
    """The elements of a LangChain message's content as neutral blocks."""
    return [_to_block(raw) for raw in content]


def _to_block(raw: str | Raw) -> Block:
    if isinstance(raw, str):
        return {"type": "text", "text": raw, "origin": _itself("text")}
    if "origin" not in raw:
        if _is_standard(raw):
            return raw
        block = _convert(raw)
        if block is not None:
            return block
    return {"type": "non_standard", "value": raw, "origin": _itself("value")}


def _itself(key: str) -> dict[str, Any]:
    """The origin of a block whose value at `key` is the whole of what it was."""
    return {"langchain": {"moved": {key: ""}}}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_standard(block: Raw) -> bool:
    """Whether readers of the neutral vocabulary can rely on this block as it is."""
    kind = block.get("type")
    if not isinstance(kind, str) or kind not in STANDARD:
        return False
    if kind == "text":
        return _is_text(block.get("text"))
    if kind == "refusal":
        return _is_text(block.get("refusal"))
    if kind in MEDIA or kind == "text-plain":
        sources = [block[k] for k in ("url", "base64", "file_id") if k in block]
        if kind == "text-plain" and "text" in block:
            sources.append(block["text"])
        foreign = "source" in block or "source_type" in block
        return bool(sources) and all(map(_is_text, sources)) and not foreign
    if kind == "reasoning":
        return "summary" not in block and _is_text(block.get("reasoning", ""))
    if kind in ("tool_call", "server_tool_call"):
        name, args, call = block.get("name"), block.get("args"), block.get("id")
        return _is_text(name) and isinstance(args, dict) and (call is None or _is_text(call))
    if kind == "server_tool_result":
        return _is_text(block.get("tool_call_id"))
    if kind == "non_standard":
        return "value" in block
    return True


def _convert(raw: Raw) -> Block | None:
    """A provider's block as the standard one that leads back to it exactly; None: there is none."""
    try:
        form = form_of(raw)
        if form is None:
            return None
        block: Block = {"type": form.type}
        remaining = copy_of(raw)
        for key, path in form.moved.items():
            value = get_at(raw, path)
            if key == "data_url":
                _, block["mime_type"], block["base64"], _ = DATA_URL.split(value)
            elif key == "bytes":
                block["base64"] = base64.b64encode(value).decode()
            else:
                put_at(block, key, value)
            take_at(remaining, path)
        if not _BASE64.fullmatch(block.get("base64", "")):
            return None
        block.update(form.derived)
        block["origin"] = {"langchain": {"raw": remaining, "moved": form.moved}}
        exact = restore(block, remaining, form.moved) == raw
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None  # not in the form that its type promises
    return block if exact and _is_standard(block) else None
