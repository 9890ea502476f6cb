"""From LlamaIndex's blocks to the neutral ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CitableBlock,
    CitationBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from pydantic import BaseModel

from llamaindex_tsmemory.mapping.blocks.fields import GENERATED_ID, OWN
from llamaindex_tsmemory.mapping.blocks.media import DATA_FIELDS, read_stream, write_medium
from llamaindex_tsmemory.mapping.blocks.reading import (
    BLOCK_TYPES,
    FIELDS,
    from_blocks,
    read_citation,
)
from llamaindex_tsmemory.mapping.calls import make_call
from llamaindex_tsmemory.mapping.values import decode, encode, same
from tsmemory import Block, InvalidInputError
from tsmemory.mapping import LEFT_OUT

__all__ = ["WRITERS", "to_blocks"]


def to_blocks(blocks: Sequence[Any]) -> list[Block]:
    """The neutral form of a message's blocks.

    Raises:
        InvalidInputError: one of them is no content block of the installed llama-index-core, or
            holds a value that cannot be stored.
    """
    out: list[Block] = []
    cited = False  # whether the last of `out` is a text that a citation may follow
    for i, block in enumerate(blocks):
        path = f"blocks[{i}]"
        if type(block) is TextBlock:
            out.append({"type": "text", "text": _text(block, path)})
            cited = True
        elif cited and type(block) is CitationBlock and (note := _annotation(block)) is not None:
            out[-1].setdefault("annotations", []).append(note)
        else:
            out.extend(_exactly(block, path))
            cited = False
    return out


def _exactly(block: Any, path: str) -> list[Block]:
    """Neutral blocks that give back `block`; of values that cannot be kept, the plain ones."""
    kind = type(block)
    if kind not in BLOCK_TYPES.values():
        raise InvalidInputError(
            f"{path}: a {kind.__module__}.{kind.__qualname__} is no content block of LlamaIndex; "
            "use its own classes (a subclass would come back as its base)"
        )
    block = read_stream(block, path)
    out = _written(block, path) or _written(_with_plain_values(block, path), path)
    if out is None:
        raise InvalidInputError(f"{path}: this {kind.__name__} would not come back as it is")
    return out


def _written(block: Any, path: str) -> list[Block] | None:
    """Neutral blocks that give back an equal one; None where there are none."""
    for write in (WRITERS.get(type(block)), _whole):
        if write is None:
            continue
        out = write(block, path)
        restored = from_blocks(out)
        if len(restored) == 1 and same(restored[0], block):
            return out
    return None


def _with_plain_values(block: BaseModel, path: str) -> BaseModel:
    """A copy whose values are what the store can keep of them."""
    values: dict[str, Any] = {}
    for name, field in type(block).model_fields.items():
        encoded = encode(block.__dict__[name], f"{path}.{name}")
        if encoded is LEFT_OUT:
            values[name] = field.get_default(call_default_factory=True)
        else:
            values[name] = decode(encoded)
    return block.model_copy(update=values)


def _text(block: TextBlock, path: str) -> str:
    if type(block.text) is not str:
        raise InvalidInputError(f"{path}: text is a str, not {type(block.text).__name__}")
    return block.text


def _annotation(block: CitationBlock) -> Block | None:
    if type(block.cited_content) is not TextBlock:
        return None
    extras = {"source": block.source, "additional_location_info": block.additional_location_info}
    note = {
        "type": "citation",
        "cited_text": block.cited_content.text,
        "title": block.title,
        "extras": extras,
    }
    return note if same(read_citation(note), block) else None


def _write_medium(block: Any, path: str) -> list[Block]:
    out, origin = write_medium(block)
    return [_complete(out, block, origin, path)]


def _write_thinking(block: Any, path: str) -> list[Block]:
    out: Block = {"type": "reasoning"}
    if block.content is not None:
        out["reasoning"] = block.content
    extras = dict(block.additional_information)
    if type(extras.get("id")) is str and not extras["id"].startswith(GENERATED_ID):
        out["id"] = extras.pop("id")
    extras = {k: v for k, v in extras.items() if encode(v, f"{path}[{k!r}]") is v}
    if extras:
        out["extras"] = extras
    return [_complete(out, block, {}, path)]


def _write_tool_call(block: Any, path: str) -> list[Block]:
    call = make_call(block.tool_call_id, block.tool_name, block.tool_kwargs, f"{path}.tool_kwargs")
    out: Block = {"type": "tool_call", "id": call.id, "name": call.name, "args": call.arguments}
    if isinstance(call.arguments, str):
        out["type"], out["error"] = "invalid_tool_call", call.error
    return [_complete(out, block, {}, path)]


def _write_citable(block: Any, path: str) -> list[Block]:
    parts = [part for p in block.content for part in _exactly(p, path)]
    if not parts:
        return []
    origin = {"title": block.title, "source": block.source, "span": len(parts)}
    own = parts[0].get("origin", {}).get(OWN, {})
    return [{**parts[0], "origin": {OWN: {**own, "citable": origin}}}, *parts[1:]]


def _write_text(block: Any, path: str) -> list[Block]:
    return [{"type": "text", "text": _text(block, path)}]


def _whole(block: Any, path: str) -> list[Block]:
    """Any block, for LlamaIndex alone."""
    fields = _encode_fields(block, block.__dict__.keys(), path)
    value = {"type": fields.pop("block_type", block.block_type), **fields}
    origin = {OWN: {"block": block.block_type, "keys": sorted(fields)}}
    return [{"type": "non_standard", "value": value, "origin": origin}]


def _encode_fields(block: BaseModel, names: Any, path: str) -> dict[str, Any]:
    values = {n: block.__dict__[n] for n in type(block).model_fields if n in names}
    encoded = {n: encode(v, f"{path}.{n}") for n, v in values.items()}
    return {n: v for n, v in encoded.items() if v is not LEFT_OUT}


def _complete(out: Block, block: Any, origin: dict[str, Any], path: str) -> Block:
    """`out`, with what it does not say of `block` in its origin."""
    restored = FIELDS[type(block)]({**out, "origin": {OWN: origin}})
    missing = [
        name
        for name, value in block.__dict__.items()
        if name != "block_type" and (name not in restored or not same(restored[name], value))
    ]
    if missing:
        origin = {**origin, "fields": _encode_fields(block, missing, path)}
    # A medium is marked as ours even where the neutral fields say all: restoring it then takes no
    # second look at its bytes to guess a type.
    if origin or type(block) in DATA_FIELDS:
        out["origin"] = {OWN: origin}
    return out


WRITERS: dict[type, Callable[[Any, str], list[Block]]] = {
    **dict.fromkeys(DATA_FIELDS, _write_medium),
    TextBlock: _write_text,
    ThinkingBlock: _write_thinking,
    ToolCallBlock: _write_tool_call,
    CitableBlock: _write_citable,
}
