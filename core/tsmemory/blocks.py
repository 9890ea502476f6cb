"""What a reader who does not know a content block can still make of it."""

from __future__ import annotations

from typing import Any

from tsmemory.model import Block

__all__ = ["block_text"]

_TEXTS = ("text", "refusal", "transcript", "code")
"""Keys under which the providers' blocks hold what a person would read."""


def block_text(block: Block) -> str | None:
    """The readable text of a block; None where it has none.

    A ``text``, ``text-plain`` or ``refusal`` block's own; of a block in no standard form, and of
    what a ``non_standard`` one wraps, what is under ``text``, ``refusal``, ``transcript`` or
    ``code``. Reasoning, calls and results are not readable text: no prompt shows them as such.
    """
    if block.get("type") == "non_standard":
        inner = block.get("value")
        return _first(inner) if isinstance(inner, dict) else None
    return _first(block)


def _first(block: dict[Any, Any]) -> str | None:
    for name in _TEXTS:
        value = block.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            return str(value["text"])
    return None
