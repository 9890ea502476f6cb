"""Filters that the server answers in part, so that it need not send a whole session.

A message can only match ``where("topic") == "travel"`` if the text ``"topic":"travel"`` stands in
its body: JSON is written in one way here. A filter becomes a list of parts; a body that has none
of the texts of a part cannot match. What is left is looked at again by `Filter.matches`, so the
server may send too much, never too little:

- ``and`` is all the parts of its parts; ``or`` of one-part conditions is one part of their texts.
- Numbers have more than one spelling (1, 1.0), containers may hold them, and an order is no text:
  there only the key is looked for.
- Negations say nothing about what a body holds.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tsmemory.filters import And, Compare, Filter, Or

__all__ = ["texts"]

Parts = list[list[bytes]]


def texts(condition: Filter | None) -> Parts:
    """For each part the texts of which a matching body has at least one. Empty: nothing known."""
    if isinstance(condition, And):
        return [part for alternative in condition.parts for part in texts(alternative)]
    if isinstance(condition, Or):
        alternatives = [texts(alternative) for alternative in condition.parts]
        if not all(alternatives):
            return []
        # Any part of an alternative will do as its witness; the first is as good as another.
        return [[text for parts in alternatives for text in parts[0]]]
    if isinstance(condition, Compare):
        return _compare(condition)
    return []


def _compare(condition: Compare) -> Parts:
    if condition.operator in ("ne", "not_in"):
        return []
    try:
        key = msgspec.json.encode(condition.key) + b":"
        if condition.operator == "eq":
            return [[key + _value(condition.value)]]
        if condition.operator == "in":
            return [[key + _value(value) for value in condition.value] or [key]]
    except UnicodeEncodeError:  # lone surrogates: those bodies are escaped, and always sent
        return []
    return [[key]]


def _value(value: Any) -> bytes:
    if value is None or isinstance(value, (str, bool)):
        return msgspec.json.encode(value)
    return b""
