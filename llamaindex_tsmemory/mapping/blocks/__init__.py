"""Content blocks: LlamaIndex's classes and the neutral dicts, each way.

A neutral block is LangChain's standard content block; what only LlamaIndex has of it stands within,
under ``origin["llamaindex"]``:

    block     the ``block_type``, where the neutral type alone does not tell it
    fields    the block's fields whose values the neutral ones do not give
    raw       true: the medium was kept as bare bytes, not as base64
    citable   title and source of a `CitableBlock`; `span` says how many neutral blocks, from this
              one on, are its content

A block with ``origin["llamaindex"]`` is restored field by field, without validators (a path's file
may be gone). Without, it comes from elsewhere and goes through the class's constructor. Other
frameworks' origins are not read. A `CitationBlock` behind a text is an annotation of that text.
"""

from __future__ import annotations

from llamaindex_tsmemory.mapping.blocks.reading import from_blocks, make_text, make_tool_call
from llamaindex_tsmemory.mapping.blocks.writing import to_blocks

__all__ = ["from_blocks", "make_text", "make_tool_call", "to_blocks"]
