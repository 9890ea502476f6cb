"""Any value that a message may carry, as plain values that every store keeps, and back.

The core keeps text, numbers, bytes, times, decimals, UUIDs, lists, tuples, sets and dicts with text
keys. Here these become a dict with the key ``@``, and come back as they were:

    {"@": "model", "class": "module:Name", "fields": {…}}      pydantic, of `_sdk` and LlamaIndex
    {"@": "path" | "url", "class": …, "value": …}
    {"@": "datetime" | "time", "value": …, "zone": …, "fold": …}
    {"@": "bytearray" | "int", "value": …}   {"@": "set" | "frozenset", "items": […]}
    {"@": "dict", "items": [[key, value], …]}                  keys that are not text, or are @

Objects of other classes come back as the plain values that they are made of: an enum as its value,
a subclass of text, a number, a list or a dict as the plain one (which compares equal), a pydantic
object or dataclass as a dict of its fields. Anything else (a client, a lock) is left out, and a
warning of the logger ``tsmemory.llamaindex`` names it: it must not take the message along, which
was paid for.

Stored data is data: a class that they name is looked up in lists of this package, never by name
alone; what is read does not depend on what else the process has imported.
"""

from __future__ import annotations

from llamaindex_tsmemory.mapping.values.classes import union_members
from llamaindex_tsmemory.mapping.values.decoding import decode, without_tags
from llamaindex_tsmemory.mapping.values.encoding import encode
from llamaindex_tsmemory.mapping.values.equality import same

__all__ = ["decode", "encode", "same", "union_members", "without_tags"]
