"""Values as JSON and back: what JSON cannot hold, as objects with one key, and nothing lost.

    {"$bytes": "<base64>"}   {"$float": "nan" | "inf" | "-inf"}   {"$dict": {…}}

the last for a dict that has a key beginning with ``$`` itself. Rich values (`content`, tool-call
arguments, `extensions`) may also be ``$datetime $date $time $timedelta $decimal $uuid $tuple $set
$frozenset``. Decoding builds plain values, never other objects. A string with lone surrogates,
which UTF-8 cannot hold, is escaped: a backslash is doubled and a surrogate is ``\\uXXXX``.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from tsmemory.errors import InvalidInputError

__all__ = ["MAX_DEPTH", "as_json", "escaped", "restored", "unescaped"]

MAX_DEPTH = 100
"""How deep metadata and content may nest: ours, well inside every JSON parser's."""

_PLAIN = frozenset({str, bool, int, type(None)})
"""Classes whose objects are JSON as they are."""
_RICH: dict[type, tuple[str, Callable[[Any], Any]]] = {
    dt.datetime: ("$datetime", dt.datetime.isoformat),
    dt.date: ("$date", dt.date.isoformat),
    dt.time: ("$time", dt.time.isoformat),
    dt.timedelta: ("$timedelta", lambda v: [v.days, v.seconds, v.microseconds]),
    decimal.Decimal: ("$decimal", str),
    uuid.UUID: ("$uuid", str),
}

_UNTAG: dict[str, Callable[[Any], Any]] = {
    "$bytes": partial(base64.b64decode, validate=True),
    "$float": float,
    "$datetime": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$time": dt.time.fromisoformat,
    "$timedelta": lambda v: dt.timedelta(v[0], v[1], v[2]),
    "$decimal": decimal.Decimal,
    "$uuid": uuid.UUID,
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
}
_COLLECTIONS: dict[type, str] = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}


def as_json(value: Any, rich: bool, path: str, depth: int = 0) -> Any:
    """`value` as JSON can hold it; the very same object where it already is.

    Args:
        rich: datetimes, decimals, tuples and so on are taken too.
        path: of the value, as errors name it.
        depth: how deep it is nested already.

    Raises:
        InvalidInputError: a value that cannot be stored, named by its path.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"{path[:80]}…: nested deeper than {MAX_DEPTH}, or in itself")
    if kind is dict:
        return _dict_as_json(value, rich, path, depth)
    if kind is list:
        tagged = [as_json(v, rich, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
        return value if all(a is b for a, b in zip(value, tagged, strict=True)) else tagged
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(value).decode()}
    if rich:
        if kind in _RICH:
            tag, encode = _RICH[kind]
            return {tag: encode(value)}
        if kind in _COLLECTIONS:
            return {_COLLECTIONS[kind]: [as_json(v, rich, path, depth + 1) for v in value]}
    raise InvalidInputError(
        f"{path}: a {kind.__module__}.{kind.__qualname__} cannot be stored; use str, int, float, "
        "bool, bytes, None, or lists and dicts of them"
    )


def _dict_as_json(value: dict[Any, Any], rich: bool, path: str, depth: int) -> Any:
    changed = reserved = False
    tagged = {}
    for key, v in value.items():
        if type(key) is not str:
            raise InvalidInputError(f"{path}: key {key!r} is not a str; keys must be text")
        reserved = reserved or key[:1] == "$"
        if type(v) in _PLAIN:  # most values: no call for each
            tagged[key] = v
            continue
        t = tagged[key] = as_json(v, rich, f"{path}.{key}", depth + 1)
        changed = changed or t is not v
    if reserved:
        return {"$dict": tagged}
    return tagged if changed else value


def _untag(value: Any) -> Any:
    if type(value) is dict:
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key == "$dict":
                return {k: _untag(v) for k, v in inner.items()}
            if key in _UNTAG:
                return _UNTAG[key](_untag(inner))
            if key[:1] == "$":
                raise ValueError(f"unknown tag {key!r}")
        return {k: _untag(v) for k, v in value.items()}
    if type(value) is list:
        return [_untag(v) for v in value]
    return value


def restored(value: Any) -> Any:
    """What `as_json` was given.

    Raises:
        ValueError: a tag does not hold what it says, or the value is nested too deep.
    """
    try:
        return _untag(value)
    except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"a tagged value does not read: {error}") from error


_SURROGATE = re.compile("[\\\\\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|u([0-9a-f]{4}))")


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(k): _map_strings(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(v, change) for v in value]
    return value


def _escape_text(text: str) -> str:
    return _SURROGATE.sub(
        lambda m: "\\\\" if m[0] == "\\" else f"\\u{ord(m[0]):04x}",
        text,
    )


def _unescape_text(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else "\\", text)


def escaped(value: Any) -> Any:
    """`value` with the strings in it escaped, so that UTF-8 can hold them."""
    return _map_strings(value, _escape_text)


def unescaped(value: Any) -> Any:
    """What `escaped` was given."""
    return _map_strings(value, _unescape_text)
