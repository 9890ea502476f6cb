"""Values that LangChain's own objects put into kwargs, metadata and artifacts, and JSON does not
know. A `Document`, and a dict whose keys are no text, come back as they were::

    Document                          {"langchain": "document", "page_content": …, …}
    a dict with keys that are no str,
    or with the key "langchain"       {"langchain": "dict", "items": [[key, value], …]}

An integration's own classes come back as the plain values that they are made of: an enum as its
value, a dict's, list's, text's or number's subclass as the plain one (which compares equal), a
pydantic object or dataclass as a dict of its fields. The store keeps bytes, dates, tuples and sets
itself. Anything else (a client, a lock) is left out, and a warning of the logger
``tsmemory.langchain`` names it: it must not take the message along, which was paid for.
"""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import uuid
from typing import Any

from langchain_core.documents import Document
from pydantic import BaseModel

from tsmemory import InvalidInputError
from tsmemory.mapping import LEFT_OUT, plain_value

__all__ = ["decode", "encode", "plain"]

_LOG = logging.getLogger("tsmemory.langchain")
_TAG = "langchain"
_MAX_DEPTH = 100
"""The store's own limit: what nests deeper, or in itself, it refuses."""
_KEPT_BY_STORE = (
    bool, float, bytes, bytearray, dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal,
    uuid.UUID, set, frozenset,
)  # fmt: skip


def plain(value: Any, depth: int = 0) -> Any:
    """`value` with its texts, numbers and containers of subclasses (LangChain's `message.text` is
    one) as plain ones, and enums as their values.

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
    simple = _simple(value)
    return value if simple is value else plain(simple, _deeper(depth))


def encode(value: Any, path: str) -> Any:
    """`value` as the store can keep it: the very same object where it can already; `LEFT_OUT`, and
    a warning, where nothing of it can be kept or it nests deeper than 100, or in itself.

    Args:
        path: what to call it, and its parts, in a warning.
    """
    try:
        return _encode(value, path, 0)
    except InvalidInputError as error:
        _LOG.warning("%s is left out: %s", path, error)
        return LEFT_OUT


def _encode(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is dict:
        return _encode_dict(value, path, _deeper(depth))
    if kind is list or kind is tuple:
        deeper = _deeper(depth)
        items = [_encode(v, f"{path}[{i}]", deeper) for i, v in enumerate(value)]
        if all(map(_same, value, items)):
            return value
        return kind(None if item is LEFT_OUT else item for item in items)
    if kind is Document:
        parts = {k: _encode(v, f"{path}.{k}", depth + 1) for k, v in value.__dict__.items()}
        return {_TAG: "document"} | {k: v for k, v in parts.items() if v is not LEFT_OUT}
    if kind in _KEPT_BY_STORE:
        return value
    simple = _simple(value)
    if simple is not value:
        return _encode(simple, path, _deeper(depth))
    _LOG.warning("%s is left out: a %s.%s cannot be stored", path, kind.__module__, kind.__name__)
    return LEFT_OUT


def _encode_dict(value: dict[Any, Any], path: str, depth: int) -> Any:
    encoded = {k: _encode(v, f"{path}.{k}", depth) for k, v in value.items()}
    if any(v is LEFT_OUT for v in encoded.values()):
        encoded = {k: v for k, v in encoded.items() if v is not LEFT_OUT}
    if _TAG in value or not all(type(k) is str for k in value):
        return {_TAG: "dict", "items": [[_encode(k, path, depth), v] for k, v in encoded.items()]}
    return encoded if len(encoded) < len(value) else _changed(value, encoded)


def _simple(value: Any) -> Any:
    """As `plain_value`; a pydantic object as a dict of its fields."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields} | (
            value.__pydantic_extra__ or {}
        )
    return plain_value(value)


def decode(value: Any) -> Any:
    """What `encode` was given, its objects as the plain values that were kept."""
    kind = type(value)
    if kind is dict:
        tag = value.get(_TAG)
        if tag == "dict":
            return {decode(k): decode(v) for k, v in value["items"]}
        if tag == "document":
            return Document(**{k: decode(v) for k, v in value.items() if k != _TAG})
        return {k: decode(v) for k, v in value.items()}
    if kind is list or kind is tuple:
        return kind(decode(v) for v in value)
    return value


def _same(a: Any, b: Any) -> bool:
    return a is b


def _changed(before: dict[Any, Any], after: dict[Any, Any]) -> dict[Any, Any]:
    return before if all(map(_same, before.values(), after.values())) else after


def _deeper(depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise InvalidInputError(f"a value nests deeper than {_MAX_DEPTH}, or in itself")
    return depth + 1
