"""Blocks that another framework wrote, in a form that every LangChain integration takes.

A model's answer may be sent to another provider than the one that gave it. The integrations convert
standard blocks where they are told that these are standard ones, but not all of them drop what
their API refuses. So what an answer is read back for is kept, and the rest stays in the record:

- texts, and the readable text of blocks that only one provider knows;
- media;
- calls, which ``tool_calls`` says already: as blocks only beside blocks whose order counts;
- reasoning only where a provider wants it back, which is beside calls, in the form of the provider
  whose signature it carries. An API refuses what another one signed, and none needs the reasoning
  of an answer that is finished: that is in ``additional_kwargs["reasoning_content"]``, where people
  find it and no API gets it.

An answer that is text and calls is plain text and ``tool_calls``. Any other list is marked
``output_version="v1"``, with the ``model_provider`` whose reasoning it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tsmemory import Block, Message
from tsmemory.blocks import block_text
from tsmemory.mapping import REASONING_KEY, reasoning_signature, type_names

__all__ = ["Presented", "present"]

_MEDIA = frozenset({"image", "audio", "video", "file", "text-plain"})
_ANTHROPIC, _OPENAI = "anthropic", "openai"


class Presented(NamedTuple):
    content: str | list[Any]
    response_metadata: dict[str, Any]
    additional_kwargs: dict[str, Any]


def present(message: Message, blocks: Sequence[Any]) -> Presented:
    """An assistant message's blocks, for LangChain.

    Args:
        message: the neutral message.
        blocks: its content in standard blocks; not empty.
    """
    parts: list[Any] = []
    thoughts: list[str] = []
    provider: str | None = None
    for block in blocks:
        part, whose = _part(block, bool(message.tool_calls))
        provider = provider or whose
        if part is not None:
            parts.append(part)
        elif block.get("type") == "reasoning" and block.get("reasoning"):
            thoughts.append(str(block["reasoning"]))
    kwargs = {REASONING_KEY: "\n\n".join(thoughts)} if thoughts else {}
    texts = [b for b in parts if b["type"] == "text"]
    if all(b["type"] in ("text", "tool_call") for b in parts) and len(texts) <= 1:
        text = texts[0]["text"] if texts else ""
        if text or message.tool_calls or thoughts:
            return Presented(text, {}, kwargs)
        return Presented(type_names(blocks), {}, kwargs)
    marks = {"output_version": "v1"}
    return Presented(parts, marks | ({"model_provider": provider} if provider else {}), kwargs)


def _part(block: Any, calling: bool) -> tuple[Any | None, str | None]:
    """A block as it is shown (None: it is not), and the provider that it is for."""
    if not isinstance(block, dict):
        return {"type": "text", "text": str(block)}, None
    kind = block.get("type")
    if kind == "reasoning":
        return _reasoning(block) if calling else (None, None)
    if kind in _MEDIA or kind == "tool_call":
        return block, None
    text = block_text(block)
    if not text:
        return None, None
    return ({"type": "text", "text": text} | _links(block)), None


def _links(block: Block) -> dict[str, Any]:
    """The annotations that every integration takes: those with a URL."""
    notes = block.get("annotations")
    if not isinstance(notes, list):
        return {}
    linked = [note for note in notes if isinstance(note, dict) and note.get("url")]
    return {"annotations": linked} if linked else {}


def _reasoning(block: Block) -> tuple[Any | None, str | None]:
    signature = reasoning_signature(block)
    if signature is not None:
        # Not as the standard block: langchain-openai would send the signature to OpenAI.
        thought = {"type": "thinking", "thinking": block.get("reasoning") or ""}
        return {**thought, "signature": signature}, _ANTHROPIC
    if str(block.get("id", "")).startswith("rs_"):
        return block, _OPENAI
    return None, None
