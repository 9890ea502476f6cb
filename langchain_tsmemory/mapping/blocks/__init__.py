"""Content blocks: LangChain's forms, which are many, to the neutral vocabulary and exactly back.

The neutral vocabulary is LangChain's own standard one, so a block that is standard already passes
untouched. A provider's block becomes the standard one that says the same, and carries what it
takes to become itself again under the key ``origin``, inside the block, so that whoever drops,
moves or copies the block takes it along::

    {"type": "image", "base64": "iVBOR…", "mime_type": "image/png",
     "origin": {"langchain": {"raw": {"type": "image", "source": {"type": "base64"}},
                              "moved": {"base64": "source.data",
                                        "mime_type": "source.media_type"}}}}

``raw`` is what is left of the provider's block once the values named in ``moved`` (neutral place →
raw place, dotted) have been taken out; the empty place is the block itself. So nothing is kept
twice, and going home needs no table. What has no standard form that leads back exactly is
``{"type": "non_standard", "value": <the block>}``.
"""

from __future__ import annotations

from langchain_tsmemory.mapping.blocks.reading import from_blocks
from langchain_tsmemory.mapping.blocks.writing import to_blocks

__all__ = ["from_blocks", "to_blocks"]
