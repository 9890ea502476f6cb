"""From plain values to what was encoded in them."""

from __future__ import annotations

import datetime as dt
import pathlib
import zoneinfo
from collections.abc import Callable
from typing import Any

import pydantic

from llamaindex_tsmemory.mapping.values.classes import (
    BLOCK_CLASSES,
    PATHS,
    TAG,
    is_url,
    named_class,
)

__all__ = ["decode", "without_tags"]


def decode(value: Any) -> Any:
    """What `encode` was given.

    Raises:
        ValueError, KeyError, TypeError: `value` is not of its making.
    """
    return _decode(value, _REVIVE)


def without_tags(value: Any) -> Any:
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
    kind = named_class(name)
    if kind is None:
        return fields
    if kind in BLOCK_CLASSES:
        return kind.model_construct(_fields_set=set(fields), **fields)
    aliases = {name: info.alias or name for name, info in kind.model_fields.items()}
    try:
        return kind.model_validate({aliases.get(name, name): v for name, v in fields.items()})
    except pydantic.ValidationError:
        # Written by another release of the SDK: its fields are still there to be read.
        return fields


def _decode_path(tagged: dict[str, Any]) -> pathlib.PurePath:
    kind = next(p for p in PATHS if p.__name__ == tagged["class"])
    if issubclass(kind, pathlib.Path) and not isinstance(pathlib.Path(), kind):
        kind = next(p for p in PATHS[2:] if issubclass(kind, p))  # another system's
    return kind(tagged["value"])


def _decode_url(tagged: dict[str, Any]) -> Any:
    kind = vars(pydantic.networks)[tagged["class"]]
    if not is_url(kind):
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
