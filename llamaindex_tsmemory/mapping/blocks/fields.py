"""The parts of a neutral block that other frameworks may have written as well, read with care."""

from __future__ import annotations

from typing import Any

from tsmemory import Block

__all__ = ["GENERATED_ID", "OWN", "dict_or_empty", "own_origin", "text_or_empty"]

OWN = "llamaindex"
GENERATED_ID = "lc_"
"""What LangChain's own block ids begin with; they mean nothing to a provider."""


def own_origin(block: Block) -> dict[str, Any] | None:
    """What LlamaIndex alone has of a block; None where LlamaIndex did not write it.

    Raises:
        ValueError: it is no dict.
    """
    origin = block.get("origin")
    own = origin.get(OWN) if type(origin) is dict else None
    if own is not None and type(own) is not dict:
        raise ValueError("origin['llamaindex'] is no dict")
    return own


def text_or_empty(value: Any) -> str:
    return value if type(value) is str else ""


def dict_or_empty(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
