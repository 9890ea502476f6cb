"""Neutral blocks as LangChain had them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from langchain_tsmemory.mapping.blocks.forms import Raw
from langchain_tsmemory.mapping.blocks.paths import copy_of, get_at, put_at
from tsmemory import Block

__all__ = ["from_blocks", "restore"]


def from_blocks(blocks: Iterable[Block]) -> list[str | Raw]:
    """Neutral blocks as LangChain had them; the standard ones where they come from elsewhere."""
    return [_from_block(block) for block in blocks]


def _from_block(block: Block) -> str | Raw:
    if "origin" not in block:
        return block
    try:
        note = block["origin"]["langchain"]
        return restore(block, note.get("raw", {}), note["moved"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        # Not ours, or changed by somebody who did not know: the neutral fields are what counts.
        return {key: value for key, value in block.items() if key != "origin"}


def restore(block: Block, remaining: Raw, moved: dict[str, str]) -> str | Raw:
    """`remaining` with the values of `block` at the places that `moved` names."""
    raw = copy_of(remaining)
    for key, path in moved.items():
        if key == "data_url":
            value: Any = f"data:{block['mime_type']};base64,{block['base64']}"
        elif key == "bytes":
            value = base64.b64decode(block["base64"])
        else:
            value = get_at(block, key)
        if not path:
            return value  # type: ignore[no-any-return]  # the element itself
        put_at(raw, path, value)
    return raw  # type: ignore[no-any-return]  # a copy of a dict
