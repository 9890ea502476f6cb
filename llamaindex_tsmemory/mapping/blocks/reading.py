"""From neutral blocks to LlamaIndex's."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CitableBlock,
    CitationBlock,
    ContentBlock,
    DocumentBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from pydantic import BaseModel, ValidationError

from llamaindex_tsmemory.mapping.blocks.fields import (
    GENERATED_ID,
    OWN,
    dict_or_empty,
    own_origin,
    text_or_empty,
)
from llamaindex_tsmemory.mapping.blocks.media import DATA_FIELDS, NEUTRAL_TYPES, medium_fields
from llamaindex_tsmemory.mapping.values import decode, union_members
from tsmemory import Block, ToolCall
from tsmemory.blocks import block_text

__all__ = ["BLOCK_TYPES", "FIELDS", "from_blocks", "make_text", "make_tool_call", "read_citation"]

BLOCK_TYPES: dict[str, type[BaseModel]] = {
    kind.model_fields["block_type"].default: kind for kind in union_members(ContentBlock)
}
"""Every block that the installed llama-index-core lets a message hold, by its ``block_type``."""


def from_blocks(blocks: Sequence[Block]) -> list[Any]:
    """LlamaIndex's blocks for neutral ones; those that only another framework reads are left out.

    Raises:
        ValueError, KeyError, TypeError: an origin of ours that we did not write.
    """
    out: list[Any] = []
    remaining = iter(blocks)
    for block in remaining:
        origin = own_origin(block)
        if origin is not None and "citable" in origin:
            out.append(_read_citable(block, origin, remaining))
        else:
            out.extend(_read(block, origin))
    return out


def _read_citable(first: Block, origin: dict[str, Any], remaining: Iterator[Block]) -> CitableBlock:
    citable = origin["citable"]
    own = {k: v for k, v in origin.items() if k != "citable"}
    head = {k: v for k, v in first.items() if k != "origin"}
    parts = [{**head, "origin": {OWN: own}} if own or first["type"] in _MEDIA_TYPES else head]
    parts += [next(remaining) for _ in range(citable["span"] - 1)]
    return CitableBlock.model_construct(
        content=from_blocks(parts), title=citable["title"], source=citable["source"]
    )


def _read(block: Block, origin: dict[str, Any] | None) -> Sequence[Any]:
    kind = block["type"]
    if kind == "text":
        return _read_text(block)
    if origin is not None and kind == "non_standard":
        return _read_whole(block, origin)
    if kind in _CLASSES:
        cls = _CLASSES[kind]
        if cls in DATA_FIELDS and origin is None:
            return [_read_foreign_medium(cls, block)]
        fields = FIELDS[cls](block)
        if origin is not None:
            fields |= decode(origin.get("fields", {}))
        return [cls.model_construct(_fields_set=set(fields), **fields)]
    if kind == "text-plain":
        return [_read_text_file(block)]
    if kind == "refusal":
        return [make_text(text_or_empty(block.get("refusal")))]
    # non_standard, a provider's own tool calls and results: no class of LlamaIndex holds them.
    text = block_text(block)
    return [make_text(text)] if text else []


def _read_whole(block: Block, origin: dict[str, Any]) -> list[Any]:
    cls = BLOCK_TYPES.get(origin["block"])
    if cls is None:
        return []  # a class of a later llama-index-core
    fields = {name: decode(block["value"][name]) for name in origin["keys"]}
    return [cls.model_construct(_fields_set=set(fields), **fields)]


def make_text(text: str) -> TextBlock:
    """A text block, also of text that pydantic refuses (lone surrogates)."""
    try:
        return TextBlock(text=text)
    except ValidationError:
        return TextBlock.model_construct(text=text)


def _read_text(block: Block) -> list[Any]:
    blocks: list[Any] = [make_text(text_or_empty(block.get("text")))]
    notes = block.get("annotations")
    if isinstance(notes, list):
        blocks += [
            read_citation(n) for n in notes if isinstance(n, dict) and n.get("type") == "citation"
        ]
    return blocks


def read_citation(note: Block) -> CitationBlock:
    extras = dict_or_empty(note.get("extras"))
    info = extras.get("additional_location_info")
    if not isinstance(info, dict):
        info = {k: note[k] for k in ("start_index", "end_index") if type(note.get(k)) is int}
    return CitationBlock.model_construct(
        cited_content=make_text(text_or_empty(note.get("cited_text"))),
        source=text_or_empty(extras.get("source", note.get("url", note.get("title")))),
        title=text_or_empty(note.get("title")),
        additional_location_info=info,
    )


def _reasoning_fields(block: Block) -> dict[str, Any]:
    info = dict(dict_or_empty(block.get("extras")))
    block_id = block.get("id")
    if type(block_id) is str and not block_id.startswith(GENERATED_ID):
        info["id"] = block_id
    return {
        "content": block.get("reasoning"),
        "num_tokens": None,
        "additional_information": info,
    }


def _tool_call_fields(block: Block) -> dict[str, Any]:
    return {
        "tool_call_id": block.get("id"),
        "tool_name": block.get("name") or "",
        "tool_kwargs": block.get("args") if block.get("args") is not None else {},
    }


def make_tool_call(call: ToolCall) -> ToolCallBlock:
    """The block of a neutral call."""
    return ToolCallBlock.model_construct(
        tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments
    )


def _read_foreign_medium(cls: type[BaseModel], block: Block) -> Any:
    """A medium that no LlamaIndex wrote, as its constructor makes it; a text that names it where
    that is not to be had (a provider's file id, say)."""
    fields = {}
    try:
        fields = {n: v for n, v in FIELDS[cls](block).items() if v is not None}
        if any(fields.get(field) for field in (DATA_FIELDS[cls], "url")):
            return cls(**fields)
    except ValueError:  # pydantic's, and of text that is no ASCII
        pass
    name = block.get("file_id") or block.get("url") or "no data"
    return make_text(f"[{block['type']}: {name}]")


def _read_text_file(block: Block) -> Any:
    text = block.get("text")
    if type(text) is not str:
        return _read_foreign_medium(DocumentBlock, block)
    # Encoded first: DocumentBlock would take bytes such as b"abcd" for base64.
    base64_text = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")
    return _read_foreign_medium(
        DocumentBlock,
        {**block, "base64": base64_text, "mime_type": block.get("mime_type", "text/plain")},
    )


_MEDIA_TYPES = frozenset(NEUTRAL_TYPES.values())
_CLASSES: dict[str, type[BaseModel]] = {
    **{neutral: cls for cls, neutral in NEUTRAL_TYPES.items()},
    "reasoning": ThinkingBlock,
    "tool_call": ToolCallBlock,
    "invalid_tool_call": ToolCallBlock,
}
FIELDS: dict[type, Callable[[Block], dict[str, Any]]] = {
    **{cls: medium_fields(cls) for cls in DATA_FIELDS},
    ThinkingBlock: _reasoning_fields,
    ToolCallBlock: _tool_call_fields,
}
"""For each class but the texts, the fields that a neutral block gives it."""
