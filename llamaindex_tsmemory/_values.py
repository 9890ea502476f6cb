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

import dataclasses
import datetime as dt
import decimal
import enum
import logging
import math
import numbers
import pathlib
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

import pydantic
from llama_index.core.base.llms import types as llm_types
from llama_index.core.llms.llm import ToolSelection
from pydantic import BaseModel

from llamaindex_tsmemory._sdk import is_sdk_class, sdk_class
from tsmemory import InvalidInputError

__all__ = ["BLOCK_CLASSES", "LEFT_OUT", "decode", "encode", "plain", "same", "union_members"]

_LOG = logging.getLogger("tsmemory.llamaindex")
TAG = "@"
LEFT_OUT: Any = object()
"""Stands for a value that cannot be kept."""
_MAX_DEPTH = 90  # the core's limit is 100, counted from the message
_INT_RANGE = range(-(2**63), 2**64)  # what JSON parsers of 64 bits agree on

_KEPT_BY_CORE = (dt.date, dt.timedelta, decimal.Decimal, uuid.UUID)
_PATHS = (
    pathlib.PosixPath,
    pathlib.WindowsPath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
)
_MODEL_CLASSES: frozenset[type[BaseModel]] = frozenset({ToolSelection, llm_types.LogProb})


def union_members(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The classes of an annotated union."""
    if get_origin(annotation) is Annotated:
        return union_members(get_args(annotation)[0])
    return get_args(annotation) or (annotation,)


BLOCK_CLASSES: frozenset[type[BaseModel]] = frozenset(
    {*union_members(llm_types.ContentBlock), llm_types.CacheControl}
)
"""LlamaIndex's content blocks and their parts. They are restored without their validators, which
want a path's file to exist still."""


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
    if kind in _PATHS:
        return {TAG: "path", "class": kind.__name__, "value": str(value)}
    if _is_url(kind):
        tagged = {TAG: "url", "class": kind.__name__, "value": str(value)}
        return tagged if decode(tagged) == value else str(value)
    if isinstance(value, BaseModel):
        return _encode_model(value, path, depth)
    simple = _simple(value)
    return _left_out(value, path) if simple is value else _encode(simple, path, depth + 1)


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
    for key, item in value.items():
        text_keys = text_keys and type(key) is str
        new = encode_value(item, f"{path}[{key!r}]", depth + 1)
        changed = changed or new is not item
        if new is not LEFT_OUT:
            encoded[key] = new
    if text_keys:
        return encoded if changed else value
    pairs = [[_encode(k, f"{path}: key {k!r}", depth + 1), v] for k, v in encoded.items()]
    return {TAG: "dict", "items": [pair for pair in pairs if pair[0] is not LEFT_OUT]}


def _simple(value: Any) -> Any:
    """The plain value that an object of another class is made of; `value` itself where it is of no
    class that says so."""
    if isinstance(value, enum.Enum):
        return value.value
    for kind in (str, bytes, int, float):
        if isinstance(value, kind) and type(value) not in (kind, bool):
            return str.__str__(value) if kind is str else kind(value)  # type: ignore[arg-type]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, decimal.Decimal):
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        base = next(k for k in (list, tuple, set, frozenset) if isinstance(value, k))
        return base(value) if type(value) is not base else value
    return value


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
    every = {k: v for k, v in value.__dict__.items() if k in _fields(kind)}
    extra = value.__pydantic_extra__ or {}
    if not _is_record(kind):
        return _encode({**every, **extra}, path, depth + 1)
    # The fields that were given are enough, as a rule; all of them, where a default is drawn anew.
    fields: dict[str, Any] = {}
    for names in (value.model_fields_set, every.keys()):
        given = {k: v for k, v in every.items() if k in names} | extra
        fields = {k: _encode(v, f"{path}.{k}", depth + 1) for k, v in given.items()}
        fields = {k: v for k, v in fields.items() if v is not LEFT_OUT}
        tagged = {TAG: "model", "class": _class_name(kind), "fields": _escape(fields)}
        if same(decode(tagged), value):
            return tagged
    return _escape(fields)


def _escape(fields: dict[str, Any]) -> Any:
    return {TAG: "dict", "items": [[k, v] for k, v in fields.items()]} if TAG in fields else fields


def decode(value: Any) -> Any:
    """What `encode` was given.

    Raises:
        ValueError, KeyError, TypeError: `value` is not of its making.
    """
    return _decode(value, _REVIVE)


def plain(value: Any) -> Any:
    """The encoded `value` for readers of other frameworks: without tags, in plain values."""
    return _decode(value, _PLAIN)


def _decode(value: Any, readers: dict[str, Callable[[Any], Any]]) -> Any:
    kind = type(value)
    if kind is dict:
        if TAG in value:
            read = readers.get(value[TAG]) if isinstance(value[TAG], str) else None
            if read is None:
                raise ValueError(f"unknown tag {value[TAG]!r}")
            return read({k: _decode(v, readers) for k, v in value.items() if k != TAG})
        return {k: _decode(v, readers) for k, v in value.items()}
    if kind is list:
        return [_decode(v, readers) for v in value]
    if kind is tuple:
        return tuple(_decode(v, readers) for v in value)
    return value


def _decode_model(tagged: dict[str, Any]) -> Any:
    name, fields = tagged["class"], tagged["fields"]
    kind = _OWN_CLASSES.get(name) or sdk_class(name)
    if kind is None:
        return fields
    if kind in BLOCK_CLASSES:
        return kind.model_construct(_fields_set=set(fields), **fields)
    aliases = {name: info.alias or name for name, info in _fields(kind).items()}
    try:
        return kind.model_validate({aliases.get(name, name): v for name, v in fields.items()})
    except pydantic.ValidationError:
        # Written by another release of the SDK: its fields are still there to be read.
        return fields


def _decode_path(tagged: dict[str, Any]) -> pathlib.PurePath:
    kind = next(p for p in _PATHS if p.__name__ == tagged["class"])
    if issubclass(kind, pathlib.Path) and not isinstance(pathlib.Path(), kind):
        kind = next(p for p in _PATHS[2:] if issubclass(kind, p))  # another system's
    return kind(tagged["value"])


def _decode_url(tagged: dict[str, Any]) -> Any:
    kind = vars(pydantic.networks)[tagged["class"]]
    if not _is_url(kind):
        raise ValueError(f"no URL class {tagged['class']!r}")
    return kind(tagged["value"])


def _decode_time(tagged: dict[str, Any], kind: type[dt.datetime] | type[dt.time]) -> Any:
    value = kind.fromisoformat(tagged["value"])
    zone = zoneinfo.ZoneInfo(tagged["zone"]) if "zone" in tagged else value.tzinfo
    return value.replace(tzinfo=zone, fold=tagged["fold"])


def _pairs(tagged: dict[str, Any]) -> dict[Any, Any]:
    return {key: value for key, value in tagged["items"]}  # noqa: C416  # lists, not tuples


_REVIVE: dict[str, Callable[[Any], Any]] = {
    "model": _decode_model,
    "path": _decode_path,
    "url": _decode_url,
    "datetime": lambda t: _decode_time(t, dt.datetime),
    "time": lambda t: _decode_time(t, dt.time),
    "bytearray": lambda t: bytearray(t["value"]),
    "int": lambda t: int(t["value"], 16),
    "set": lambda t: set(t["items"]),
    "frozenset": lambda t: frozenset(t["items"]),
    "dict": _pairs,
}

_PLAIN: dict[str, Callable[[Any], Any]] = {
    "model": lambda t: t["fields"],
    "path": lambda t: t["value"],
    "url": lambda t: t["value"],
    "datetime": lambda t: str(_decode_time(t, dt.datetime)),
    "time": lambda t: str(_decode_time(t, dt.time)),
    "bytearray": lambda t: t["value"],
    "int": lambda t: t["value"],
    "set": lambda t: t["items"],
    "frozenset": lambda t: t["items"],
    "dict": lambda t: {k if type(k) is str else str(k): v for k, v in t["items"]},
}


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


_OWN_CLASSES = {_class_name(kind): kind for kind in BLOCK_CLASSES | _MODEL_CLASSES}


def _is_record(kind: type[BaseModel]) -> bool:
    return kind in _MODEL_CLASSES or kind in BLOCK_CLASSES or is_sdk_class(kind)


def _fields(kind: type[BaseModel]) -> dict[str, Any]:
    return kind.model_fields


def _is_url(kind: Any) -> bool:
    return (
        isinstance(kind, type)
        and kind.__module__ == "pydantic.networks"
        and kind.__name__.endswith(("Url", "Dsn"))
    )


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal in type and in all their parts; a NaN equals itself."""
    kind = type(a)
    if kind is not type(b):
        return False
    if a is b:
        return True
    if kind is dict:
        return len(a) == len(b) and all(k in b and same(v, b[k]) for k, v in a.items())
    if kind is list or kind is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    if kind is float:
        return bool(a == b) or (math.isnan(a) and math.isnan(b))
    if kind is decimal.Decimal:
        return str(a) == str(b)
    if isinstance(a, BaseModel):
        return (
            same(a.__dict__, b.__dict__)
            and same(a.__pydantic_extra__ or {}, b.__pydantic_extra__ or {})
            and same(a.__pydantic_private__ or {}, b.__pydantic_private__ or {})
        )
    return bool(a == b)
