"""Blocks that another framework wrote, in a form that LlamaIndex's integrations take.

LlamaIndex's integrations refuse blocks that their API does not know, or send reasoning to a
provider that did not sign it. So of an answer that LlamaIndex did not write:

- calls have the arguments of the neutral calls: a streamed block's own may be empty;
- reasoning is shown beside calls, where Anthropic's signature says that it is wanted back. Any
  other is in ``additional_kwargs["reasoning_content"]``: people find it there, and no API gets it;
- citations are left out; the text that cites is there;
- of blocks that only one provider knows, the readable text is shown.

All of it is still in the store's record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tsmemory import Block, ToolCall
from tsmemory.blocks import block_text
from tsmemory.mapping import reasoning_signature, type_names

__all__ = ["Presented", "present"]

_KNOWN = frozenset({"audio", "file", "image", "text", "text-plain", "video"})


class Presented(NamedTuple):
    blocks: list[Block]
    """In the neutral vocabulary, for `blocks.from_blocks`."""
    reasoning: str
    """What is shown of the reasoning in ``additional_kwargs``; empty where there is none."""


def present(content: Sequence[Block], calls: Sequence[ToolCall]) -> Presented:
    """An answer's blocks, for LlamaIndex.

    Args:
        content: the neutral message's; not empty.
        calls: the neutral message's.
    """
    by_id = {call.id: call for call in calls}
    blocks: list[Block] = []
    thoughts: list[str] = []
    for block in content:
        kind = block.get("type")
        if kind == "reasoning":
            if calls and reasoning_signature(block):
                blocks.append(block)
            elif block.get("reasoning"):
                thoughts.append(str(block["reasoning"]))
        elif kind in ("tool_call", "invalid_tool_call"):
            call = by_id.get(block.get("id"))
            blocks.append(block if call is None else {**block, "args": call.arguments})
        elif kind in _KNOWN:
            blocks.append({k: v for k, v in block.items() if k != "annotations"})
        elif text := block_text(block):
            blocks.append({"type": "text", "text": text})
    if not blocks and not calls and not thoughts:
        blocks = [{"type": "text", "text": type_names(content)}]
    return Presented(blocks, "\n\n".join(thoughts))
