"""Values that LangChain's own objects put into kwargs, metadata and artifacts, and JSON does not
know: kept reversibly, and rebuilt only as the classes named here. The rest is the store's to take
(bytes, dates, tuples, sets …) or to refuse by name (enums, pydantic models, your own classes).

    Document                          {"langchain": "document", "page_content": …, …}
    a dict with keys that are no str,
    or with the key "langchain"       {"langchain": "dict", "items": [[key, value], …]}
"""

from __future__ import annotations

import enum
from typing import Any

from langchain_core.documents import Document

from tsmemory import InvalidInputError

__all__ = ["pack", "plain", "unpack"]

_TAG = "langchain"
_MAX_DEPTH = 100
"""The store's own limit: what nests deeper, or in itself, it refuses."""


def plain(value: Any, depth: int = 0) -> Any:
    """`value` with texts of subclasses (LangChain's `message.text` is one) as `str`.

    The very same object where there are none.

    Raises:
        InvalidInputError: nested deeper than 100, or in itself.
    """
    kind = type(value)
    if kind is str:
        return value
    if kind is dict:
        return _changed(value, {k: plain(v, _deeper(depth)) for k, v in value.items()})
    if kind is list:
        deeper = _deeper(depth)
        items = [plain(v, deeper) for v in value]
        return value if all(map(_same, value, items)) else items
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str.__str__(value)
    return value


def pack(value: Any, depth: int = 0) -> Any:
    """`value` as the store can keep it; the very same object where it can already.

    Raises:
        InvalidInputError: nested deeper than 100, or in itself.
    """
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is dict:
        deeper = _deeper(depth)
        packed = {k: pack(v, deeper) for k, v in value.items()}
        if _TAG in value or not all(type(k) is str for k in value):
            return {_TAG: "dict", "items": [[pack(k), v] for k, v in packed.items()]}
        return _changed(value, packed)
    if kind is list or kind is tuple:
        deeper = _deeper(depth)
        items = [pack(v, deeper) for v in value]
        return value if all(map(_same, value, items)) else kind(items)
    if kind is Document:
        return {_TAG: "document"} | {k: pack(v, depth + 1) for k, v in value.__dict__.items()}
    return plain(value)


def unpack(value: Any) -> Any:
    """What `pack` was given."""
    kind = type(value)
    if kind is dict:
        tag = value.get(_TAG)
        if tag == "dict":
            return {unpack(k): unpack(v) for k, v in value["items"]}
        if tag == "document":
            return Document(**{k: unpack(v) for k, v in value.items() if k != _TAG})
        return {k: unpack(v) for k, v in value.items()}
    if kind is list or kind is tuple:
        return kind(unpack(v) for v in value)
    return value


def _same(a: Any, b: Any) -> bool:
    return a is b


def _changed(before: dict[Any, Any], after: dict[Any, Any]) -> dict[Any, Any]:
    return before if all(map(_same, before.values(), after.values())) else after


def _deeper(depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise InvalidInputError(f"a value nests deeper than {_MAX_DEPTH}, or in itself")
    return depth + 1
