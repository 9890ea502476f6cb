"""From any value to the plain values that every store keeps."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from llamaindex_tsmemory.mapping.values.classes import (
    PATHS,
    TAG,
    class_name,
    is_record,
    is_url,
)
from llamaindex_tsmemory.mapping.values.decoding import decode
from llamaindex_tsmemory.mapping.values.equality import same
from tsmemory import InvalidInputError
from tsmemory.mapping import LEFT_OUT, plain_value

__all__ = ["encode"]

_LOG = logging.getLogger("tsmemory.llamaindex")
_MAX_DEPTH = 90  # the core's limit is 100, counted from the message
_INT_RANGE = range(-(2**63), 2**64)  # what JSON parsers of 64 bits agree on
_KEPT_BY_CORE = (dt.date, dt.timedelta, decimal.Decimal, uuid.UUID)


def encode(value: Any, path: str) -> Any:
    """`value` in values that the core keeps; the very same object where it is made of them.

    Of a dict, what cannot be kept or nests deeper than 90, or in itself, is left out, and named in
    a warning. Of anything else in that case: `LEFT_OUT`.

    Args:
        path: what to call it, and its parts, in a warning.
    """
    if type(value) is dict:
        return _encode_dict(value, path, 0, _guarded)
    return _guarded(value, path, 0)


def _guarded(value: Any, path: str, depth: int) -> Any:
    try:
        return _encode(value, path, depth)
    except InvalidInputError as error:
        _LOG.warning("%s is left out: %s", path, error)
        return LEFT_OUT


def _left_out(value: Any, path: str) -> Any:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    _LOG.warning("%s is left out: a %s cannot be stored", path, name)
    return LEFT_OUT


def _encode(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None or kind is float or kind is bytes:
        return value
    if depth > _MAX_DEPTH:
        raise InvalidInputError(f"nested deeper than {_MAX_DEPTH}, or in itself")
    if kind is dict:
        return _encode_dict(value, path, depth, _encode)
    if kind is int:
        return value if value in _INT_RANGE else {TAG: "int", "value": hex(value)}
    if kind in (list, tuple, set, frozenset):
        return _encode_items(value, kind, path, depth)
    if kind in _KEPT_BY_CORE:
        return value
    if kind is dt.datetime or kind is dt.time:
        return _encode_time(value, path)
    if kind is bytearray:
        return {TAG: "bytearray", "value": bytes(value)}
    if kind in PATHS:
        return {TAG: "path", "class": kind.__name__, "value": str(value)}
    if is_url(kind):
        tagged = {TAG: "url", "class": kind.__name__, "value": str(value)}
        return tagged if decode(tagged) == value else str(value)
    if isinstance(value, BaseModel):
        return _encode_model(value, path, depth)
    plain = plain_value(value)
    return _left_out(value, path) if plain is value else _encode(plain, path, depth + 1)


def _encode_items(value: Any, kind: type, path: str, depth: int) -> Any:
    items = [_encode(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
    if all(a is b for a, b in zip(value, items, strict=True)):
        return value
    if kind is list or kind is tuple:
        return kind(None if item is LEFT_OUT else item for item in items)
    return {TAG: kind.__name__, "items": [item for item in items if item is not LEFT_OUT]}


def _encode_dict(
    value: dict[Any, Any], path: str, depth: int, encode_value: Callable[[Any, str, int], Any]
) -> Any:
    changed = False
    text_keys = TAG not in value
    encoded: dict[Any, Any] = {}
    for key, part in value.items():
        text_keys = text_keys and type(key) is str
        new = encode_value(part, f"{path}[{key!r}]", depth + 1)
        changed = changed or new is not part
        if new is not LEFT_OUT:
            encoded[key] = new
    if text_keys:
        return encoded if changed else value
    pairs = [[_encode(k, f"{path}: key {k!r}", depth + 1), v] for k, v in encoded.items()]
    return {TAG: "dict", "items": [pair for pair in pairs if pair[0] is not LEFT_OUT]}


def _encode_time(value: Any, path: str) -> Any:
    zone = value.tzinfo
    if zone is None or type(zone) is dt.timezone:
        if not value.fold:
            return value
        return {TAG: type(value).__name__, "value": value.isoformat(), "fold": 1}
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        naive = value.replace(tzinfo=None).isoformat()
        return {TAG: type(value).__name__, "value": naive, "zone": zone.key, "fold": value.fold}
    return value.isoformat()  # with the offset, the one thing that all time zones say


def _encode_model(value: BaseModel, path: str, depth: int) -> Any:
    kind = type(value)
    every = {k: v for k, v in value.__dict__.items() if k in kind.model_fields}
    extra = value.__pydantic_extra__ or {}
    if not is_record(kind):
        return _encode({**every, **extra}, path, depth + 1)
    # The fields that were given are enough, as a rule; all of them, where a default is drawn anew.
    fields: dict[str, Any] = {}
    for names in (value.model_fields_set, every.keys()):
        named_fields = {k: v for k, v in every.items() if k in names} | extra
        fields = {k: _encode(v, f"{path}.{k}", depth + 1) for k, v in named_fields.items()}
        fields = {k: v for k, v in fields.items() if v is not LEFT_OUT}
        tagged = {TAG: "model", "class": class_name(kind), "fields": _escape(fields)}
        if same(decode(tagged), value):
            return tagged
    return _escape(fields)


def _escape(fields: dict[str, Any]) -> Any:
    return {TAG: "dict", "items": [[k, v] for k, v in fields.items()]} if TAG in fields else fields
