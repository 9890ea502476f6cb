"""Any value that a message may carry, as plain values that every store keeps, and back.

The core keeps text, numbers, bytes, times, decimals, UUIDs, lists, tuples, sets and dicts with text
keys. Here the rest becomes a dict with the key ``@``:

    {"@": "enum", "class": "module:Name", "name": …, "value": …}
    {"@": "model", "class": "module:Name", "fields": {…}}      pydantic, of `_MODEL_MODULES` only
    {"@": "path" | "url", "class": …, "value": …}
    {"@": "datetime" | "time", "value": …, "zone": …, "fold": …}
    {"@": "bytearray" | "int", "value": …}   {"@": "set" | "frozenset", "items": […]}
    {"@": "dict", "items": [[key, value], …]}                  keys that are not text, or are @

Stored data is data: reading imports nothing and calls nothing that the data names. An enum's member
is looked up in a class that is loaded already, and so is a model's class, which must also be a
record of a known SDK, and validates its fields. Where the class is not loaded, the enum's value or
the model's fields as a dict take its place.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import pathlib
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import pydantic
from llama_index.core.base.llms import types as llm_types
from llama_index.core.llms.llm import ToolSelection
from pydantic import BaseModel

from tsmemory import InvalidInputError

__all__ = ["BLOCK_CLASSES", "decode", "encode", "plain", "same", "union_members"]

TAG = "@"
_MAX_DEPTH = 90  # the core's limit is 100, counted from the message
_INT_RANGE = range(-(2**63), 2**64)  # what JSON parsers of 64 bits agree on

_KEPT_BY_CORE = (dt.date, dt.timedelta, decimal.Decimal, uuid.UUID)
_PATHS = (
    pathlib.PosixPath,
    pathlib.WindowsPath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
)
_MODEL_MODULES = (
    "openai.types",
    "anthropic.types",
    "cohere.types",
    "google.genai.types",
    "groq.types",
    "mistralai.models",
    "ollama._types",
)
"""Modules, with those below them, whose pydantic classes are records of an API and nothing more:
validating one reads no file, opens no connection."""
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


def _refuse(value: Any, path: str, why: str = "cannot be stored") -> InvalidInputError:
    kind = type(value)
    return InvalidInputError(
        f"{path}: a {kind.__module__}.{kind.__qualname__} {why}; give plain values instead: str, "
        "int, float, bool, bytes, None, lists and dicts of them (of a pydantic object, its "
        "model_dump())"
    )


def encode(value: Any, path: str, depth: int = 0) -> Any:
    """`value` in values that the core keeps; the very same object where it is made of them.

    Args:
        path: what to call it in an error.

    Raises:
        InvalidInputError: it holds something that would not come back; names it by its path.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None or kind is float or kind is bytes:
        return value
    if depth > _MAX_DEPTH:
        raise InvalidInputError(f"{path[:80]}…: nested deeper than {_MAX_DEPTH}, or in itself")
    if kind is dict:
        return _encode_dict(value, path, depth)
    if kind is int:
        return value if value in _INT_RANGE else {TAG: "int", "value": hex(value)}
    if kind in (list, tuple, set, frozenset):
        items = [encode(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        if all(a is b for a, b in zip(value, items, strict=True)):
            return value
        if kind is list or kind is tuple:
            return kind(items)
        return {TAG: kind.__name__, "items": items}
    if kind in _KEPT_BY_CORE:
        return value
    if kind is dt.datetime or kind is dt.time:
        return _encode_time(value, path)
    if kind is bytearray:
        return {TAG: "bytearray", "value": bytes(value)}
    if isinstance(value, enum.Enum):
        return _encode_enum(value, path, depth)
    if kind in _PATHS:
        return {TAG: "path", "class": kind.__name__, "value": str(value)}
    if _is_url(kind):
        tagged = {TAG: "url", "class": kind.__name__, "value": str(value)}
        if decode(tagged) == value:
            return tagged
    if isinstance(value, BaseModel):
        return _encode_model(value, path, depth)
    raise _refuse(value, path)


def _encode_dict(value: dict[Any, Any], path: str, depth: int) -> Any:
    changed = False
    text_keys = TAG not in value
    encoded: dict[Any, Any] = {}
    for key, item in value.items():
        text_keys = text_keys and type(key) is str
        new = encoded[key] = encode(item, f"{path}[{key!r}]", depth + 1)
        changed = changed or new is not item
    if text_keys:
        return encoded if changed else value
    items = [[encode(k, f"{path}: key {k!r}", depth + 1), v] for k, v in encoded.items()]
    return {TAG: "dict", "items": items}


def _encode_time(value: Any, path: str) -> Any:
    zone = value.tzinfo
    if zone is None or type(zone) is dt.timezone:
        if not value.fold:
            return value
        return {TAG: type(value).__name__, "value": value.isoformat(), "fold": 1}
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        naive = value.replace(tzinfo=None).isoformat()
        return {TAG: type(value).__name__, "value": naive, "zone": zone.key, "fold": value.fold}
    raise _refuse(value, path, f"with a {type(zone).__qualname__} time zone cannot be stored")


def _encode_enum(value: enum.Enum, path: str, depth: int) -> Any:
    kind = type(value)
    if _find(_class_name(kind)) is not kind or kind.__members__.get(value.name) is not value:
        raise _refuse(value, path, "is no member of an importable enum")
    tagged = {TAG: "enum", "class": _class_name(kind), "name": value.name}
    return {**tagged, "value": encode(value.value, f"{path}.value", depth + 1)}


def _encode_model(value: BaseModel, path: str, depth: int) -> Any:
    kind = type(value)
    if not _is_record(kind) or _find(_class_name(kind)) is not kind:
        raise _refuse(value, path)
    # The fields that were given are enough, as a rule; all of them, where a default is drawn anew.
    for names in (value.model_fields_set, value.__dict__.keys()):
        given = {k: v for k, v in value.__dict__.items() if k in names and k in _fields(kind)}
        given.update(value.__pydantic_extra__ or {})
        fields = {k: encode(v, f"{path}.{k}", depth + 1) for k, v in given.items()}
        tagged = {TAG: "model", "class": _class_name(kind), "fields": _escape(fields)}
        if same(decode(tagged), value):
            return tagged
    raise _refuse(value, path, "does not come back the same from its own fields")


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


def _decode_enum(tagged: dict[str, Any]) -> Any:
    kind = _find(tagged["class"])
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind.__members__.get(tagged["name"], tagged["value"])
    return tagged["value"]


def _decode_model(tagged: dict[str, Any]) -> Any:
    kind, fields = _find(tagged["class"]), tagged["fields"]
    if not (isinstance(kind, type) and issubclass(kind, BaseModel) and _is_record(kind)):
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
    "enum": _decode_enum,
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
    "enum": lambda t: t["value"],
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


def _find(name: str) -> Any:
    """The class of that name, if its module is loaded; None otherwise.

    Read from the modules' own dicts: an attribute lookup could run a module's ``__getattr__``.
    """
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if found is None or not hasattr(found, "__dict__"):
            return None
        found = vars(found).get(part)
    return found


def _is_record(kind: type[BaseModel]) -> bool:
    if kind in _MODEL_CLASSES or kind in BLOCK_CLASSES:
        return True
    module = kind.__module__
    return any(module == known or module.startswith(f"{known}.") for known in _MODEL_MODULES)


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
