"""What LangChain keeps of an answer in ``additional_kwargs`` alone, in the neutral content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmemory import Block
from tsmemory.mapping import as_text, prepend, reasoning_block

__all__ = ["with_kwargs", "without_kwargs"]


def with_kwargs(content: str | list[Block], kwargs: Mapping[str, Any], calling: bool) -> Any:
    """The neutral `content` with what `kwargs` alone say; the same where they say nothing more.

    Args:
        calling: whether the answer has tool calls.
    """
    added = reasoning_block(kwargs)
    if not content and not calling:
        added += _texts(kwargs)
    return prepend(added, content)


def without_kwargs(content: list[Block], kwargs: Mapping[str, Any], own: bool) -> Any:
    """What `with_kwargs` was given; `content` as it is where somebody changed it since.

    Args:
        own: the content was a list.
    """
    reasoning = reasoning_block(kwargs)
    has_reasoning = content[: len(reasoning)] == reasoning
    blocks = content[len(reasoning) :] if has_reasoning else content
    if blocks and blocks == _texts(kwargs):
        blocks = []
    return blocks if own or blocks is content else as_text(blocks)


def _texts(kwargs: Mapping[str, Any]) -> list[Block]:
    """What an answer without content says in its `additional_kwargs`, as neutral blocks."""
    audio, legacy = kwargs.get("audio"), kwargs.get("function_call")
    texts = [kwargs.get("refusal")]
    if isinstance(audio, Mapping):
        texts.append(audio.get("transcript"))
    if isinstance(legacy, Mapping) and isinstance(legacy.get("name"), str):
        texts.append(f"{legacy['name']}({legacy.get('arguments') or ''})")
    return [{"type": "text", "text": text} for text in texts if type(text) is str and text]
