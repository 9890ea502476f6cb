"""The content of a message: what a block is, and what any reader can make of one.

`tsmemory.blocks` has the types of the standard blocks; it is loaded only by those who use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tsmemory.blocks import Content

__all__ = ["Block", "as_content", "block_text"]

Block = dict[str, Any]
"""One part of a message's content, as it is stored and read: a dict with a ``type``; the standard
ones are typed in `tsmemory.blocks`. The key ``origin`` is reserved: what one framework needs to
restore its own form of the block exactly, and no reader of the neutral form needs."""


def as_content(content: Content) -> str | list[Block]:
    """An argument as a message holds it: a list where a tuple was given; `checks` judges it."""
    return cast("str | list[Block]", list(content) if isinstance(content, tuple) else content)


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
