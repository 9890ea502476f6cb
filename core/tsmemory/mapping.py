"""What the mappings of every framework share: the rules by which a framework's message becomes a
neutral one and is read by another framework."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from tsmemory.content import Block

__all__ = [
    "LEFT_OUT",
    "REASONING_KEY",
    "as_text",
    "plain_value",
    "prepend",
    "reasoning_block",
    "reasoning_signature",
    "type_names",
]

LEFT_OUT: Any = object()
"""Stands for a value that cannot be kept."""

REASONING_KEY = "reasoning_content"
"""Where integrations keep an answer's reasoning, and read it, beside the content: a key of
``additional_kwargs`` in LangChain as in LlamaIndex."""


def reasoning_block(kwargs: Mapping[str, Any]) -> list[Block]:
    """The reasoning that an answer has in its ``additional_kwargs``, as one neutral block; none
    where there is no reasoning."""
    reasoning = kwargs.get(REASONING_KEY)
    if type(reasoning) is not str or not reasoning:
        return []
    return [{"type": "reasoning", "reasoning": reasoning}]


def reasoning_signature(block: Block) -> str | None:
    """The signature of a reasoning block, which its provider wants back; None where it has none."""
    extras = block.get("extras")
    signature = extras.get("signature") if isinstance(extras, dict) else None
    return signature if isinstance(signature, str) and signature else None


def prepend(blocks: list[Block], content: str | list[Block]) -> str | list[Block]:
    """`content` with `blocks` before it; `content` itself where there are none."""
    if not blocks:
        return content
    if isinstance(content, str):
        return [*blocks, {"type": "text", "text": content}] if content else blocks
    return blocks + content


def as_text(blocks: list[Block]) -> str | list[Block]:
    """The text that `prepend` made blocks of; `blocks` where they are more than one text."""
    if not blocks:
        return ""
    if len(blocks) > 1 or not isinstance(blocks[0], dict) or blocks[0].get("type") != "text":
        return blocks
    text = blocks[0].get("text")
    return text if isinstance(text, str) else blocks


def type_names(blocks: Iterable[Any]) -> str:
    """What an answer reads as of which no block can be shown, so that it does not arrive empty:
    the types of its blocks in brackets; empty where no block has a type."""
    names = dict.fromkeys(str(block.get("type")) for block in blocks if isinstance(block, dict))
    return f"[{', '.join(names)}]" if names else ""


_SCALARS: tuple[type[Any], ...] = (bytes, int, float)
_COLLECTIONS: tuple[type[Any], ...] = (list, tuple, set, frozenset)


def plain_value(value: Any) -> Any:
    """The plain value that an object of another class is made of.

    An enum's value; the plain text, number, bytes or collection that a subclass extends, and that
    compares equal; the number of a numeric library as an int or float; a dataclass or mapping as a
    dict. Its parts stay as they are.

    Returns:
        `value` itself, the very same object, where its class is plain or says nothing of that.
    """
    kind = type(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return value if kind is str else str.__str__(value)
    for base in _SCALARS:
        if isinstance(value, base):
            return value if kind in (base, bool) else base(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, decimal.Decimal):
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return value if kind is dict else dict(value)
    for base in _COLLECTIONS:
        if isinstance(value, base):
            return value if kind is base else base(value)
    return value
