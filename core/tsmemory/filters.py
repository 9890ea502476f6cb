"""Filters over metadata: built once, evaluated here, compiled by the engines that can.

    where("topic") == "travel"
    (where("score") > 0.5) & where("lang").in_(["de", "en"])
    ~where("archived").exists()

A filter is a value: comparable, printable, walked by the engines that push it down. This module
is the truth about what one means; an engine that compiles filters must agree with `matches`:

- A missing key equals nothing, is in nothing, and is neither less nor greater; so ``eq``, ``gt``,
  ``ge``, ``lt``, ``le``, ``in``, ``contains`` are false of it, and ``ne`` and ``not_in``, being
  exactly the negations of ``eq`` and ``in``, are true of it.
- None is a value: ``where(k) == None`` asks for a key that is there and holds None.
- Numbers compare across int and float. A bool is not a number: True is not 1.
- Values of different types are never equal and never ordered. Only numbers, text and bytes have
  an order: text by code point, bytes by byte.
- ``contains`` is for text within text, case-sensitive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from tsmemory.errors import InvalidInputError
from tsmemory.values import MAX_DEPTH, as_json

__all__ = ["And", "Compare", "Field", "Filter", "Not", "Or", "as_filter", "where"]

Operator: TypeAlias = Literal[
    "eq", "ne", "gt", "ge", "lt", "le", "in", "not_in", "exists", "contains"
]


_OPERATORS = frozenset(get_args(Operator))
MAX_COMPARISONS = 500
"""Comparisons in one filter: ours, inside every engine's limit for one query."""


class Filter:
    """A condition on a metadata dict. Combine with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether `metadata` meets the condition."""
        raise TypeError(f"{type(self).__name__} is not a condition; use where(…)")

    def __and__(self, other: Filter) -> And:
        return And((*_parts(And, self), *_parts(And, _checked(other))))

    def __or__(self, other: Filter) -> Or:
        return Or((*_parts(Or, self), *_parts(Or, _checked(other))))

    def __invert__(self) -> Filter:
        return self.part if isinstance(self, Not) else Not(self)

    def __bool__(self) -> bool:
        raise InvalidInputError("combine filters with & and |, not with 'and' and 'or'")


@dataclass(frozen=True, slots=True)
class Compare(Filter):
    """One comparison: the leaf of a filter."""

    key: str
    operator: Operator
    value: Any = None
    """What is compared with; a tuple for ``in`` and ``not_in``, True for ``exists``."""

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        operator = self.operator
        if operator == "exists":
            return self.key in metadata
        if self.key not in metadata:
            return operator in ("ne", "not_in")
        value = metadata[self.key]
        if operator == "eq":
            return equal(value, self.value)
        if operator == "ne":
            return not equal(value, self.value)
        if operator == "in":
            return any(equal(value, v) for v in self.value)
        if operator == "not_in":
            return not any(equal(value, v) for v in self.value)
        if operator == "contains":
            return isinstance(value, str) and self.value in value
        if not _ordered(value, self.value):
            return False
        if operator == "gt":
            return bool(value > self.value)
        if operator == "ge":
            return bool(value >= self.value)
        if operator == "lt":
            return bool(value < self.value)
        return bool(value <= self.value)


@dataclass(frozen=True, slots=True)
class And(Filter):
    """Every part holds."""

    parts: tuple[Filter, ...]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return all(part.matches(metadata) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """At least one part holds."""

    parts: tuple[Filter, ...]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return any(part.matches(metadata) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The part does not hold."""

    part: Filter

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return not self.part.matches(metadata)


class Field:
    """A metadata key, waiting for its comparison. Made by `where`."""

    __slots__ = ("_key",)
    __hash__ = None  # type: ignore[assignment]  # == builds a filter, so a hash would lie

    def __init__(self, key: str) -> None:
        if not isinstance(key, str):
            raise InvalidInputError(f"a metadata key is a str, not {type(key).__name__}")
        self._key = key

    def __eq__(self, value: object) -> Compare:  # type: ignore[override]  # builds a filter
        return self.eq(value)

    def __ne__(self, value: object) -> Compare:  # type: ignore[override]  # builds a filter
        return self.ne(value)

    def __gt__(self, value: Any) -> Compare:
        return self.gt(value)

    def __ge__(self, value: Any) -> Compare:
        return self.ge(value)

    def __lt__(self, value: Any) -> Compare:
        return self.lt(value)

    def __le__(self, value: Any) -> Compare:
        return self.le(value)

    def eq(self, value: Any) -> Compare:
        """The key is there and holds `value`."""
        return Compare(self._key, "eq", _operand(value))

    def ne(self, value: Any) -> Compare:
        """Not ``eq``: also true where the key is missing."""
        return Compare(self._key, "ne", _operand(value))

    def gt(self, value: float | str | bytes) -> Compare:
        """Greater than `value`, which has the same type."""
        return Compare(self._key, "gt", _orderable(value))

    def ge(self, value: float | str | bytes) -> Compare:
        """Greater than or equal to `value`, which has the same type."""
        return Compare(self._key, "ge", _orderable(value))

    def lt(self, value: float | str | bytes) -> Compare:
        """Less than `value`, which has the same type."""
        return Compare(self._key, "lt", _orderable(value))

    def le(self, value: float | str | bytes) -> Compare:
        """Less than or equal to `value`, which has the same type."""
        return Compare(self._key, "le", _orderable(value))

    def in_(self, values: Iterable[Any]) -> Compare:
        """The key is there and holds one of `values`."""
        return Compare(self._key, "in", _operands(values))

    def not_in(self, values: Iterable[Any]) -> Compare:
        """Not ``in_``: also true where the key is missing."""
        return Compare(self._key, "not_in", _operands(values))

    def exists(self) -> Compare:
        """The key is there, whatever it holds."""
        return Compare(self._key, "exists", True)

    def contains(self, text: str) -> Compare:
        """The key holds text, and `text` is a part of it (case-sensitive)."""
        if not isinstance(text, str):
            raise InvalidInputError(f"contains() takes text, not {type(text).__name__}")
        return Compare(self._key, "contains", text)


def where(key: str) -> Field:
    """Begin a filter on the metadata key `key` (the exact key; no path, no wildcard).

    Raises:
        InvalidInputError: `key` is not text.
    """
    return Field(key)


def as_filter(condition: Filter | Mapping[str, Any] | None) -> Filter | None:
    """What a ``where=`` argument means: a filter, or a dict of keys and the values they equal.

    Raises:
        InvalidInputError: it is neither, or too large, or holds what metadata never does.
    """
    if isinstance(condition, Mapping):
        condition = And(tuple(Field(k).eq(v) for k, v in condition.items()))
    if condition is None or isinstance(condition, Filter):
        _check(condition)
        return condition
    if isinstance(condition, Field):
        raise InvalidInputError("where= got a bare where(key); add a comparison, as .exists()")
    raise InvalidInputError(
        f"where= takes a filter made with where(…) or a dict, not {type(condition).__name__}"
    )


def _check(condition: Filter | None) -> None:
    """Check a whole filter, which may have been built from the classes, or by a program."""
    level = [] if condition is None else [condition]
    depth = comparisons = 0
    while level:
        depth += 1
        inner: list[Filter] = []
        for part in level:
            if isinstance(part, Compare):
                _check_compare(part)
                comparisons += 1
            elif isinstance(part, Not):
                inner.append(part.part)
            elif isinstance(part, (And, Or)) and isinstance(part.parts, tuple):
                inner.extend(part.parts)
            else:
                raise InvalidInputError(f"a filter has a {type(part).__name__} in it; use where(…)")
        if depth > MAX_DEPTH or comparisons > MAX_COMPARISONS:
            raise InvalidInputError(
                f"a filter nests up to {MAX_DEPTH} deep and compares up to {MAX_COMPARISONS} "
                "times; in_ takes many values at once"
            )
        level = inner


def _check_compare(compare: Compare) -> None:
    if type(compare.key) is not str or compare.operator not in _OPERATORS:
        raise InvalidInputError("a comparison has a text key and an operator; use where(…)")
    values = compare.value
    if compare.operator not in ("in", "not_in"):
        values = (values,)
    elif not isinstance(values, tuple):
        raise InvalidInputError("in and not_in compare with a tuple; use where(…).in_(…)")
    for value in values:
        as_json(_operand(value), False, f"where({compare.key[:40]!r})")


def equal(a: Any, b: Any) -> bool:
    """Equality as filters mean it: by value, bool apart from number, inside containers too."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)):
        return isinstance(b, (int, float)) and a == b
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ordered(a: Any, b: Any) -> bool:
    if _is_number(a):
        return _is_number(b)
    return (isinstance(a, str) and isinstance(b, str)) or (
        isinstance(a, bytes) and isinstance(b, bytes)
    )


def _operand(value: Any) -> Any:
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if value is None or isinstance(value, (str, int, float, bool, bytes, list, dict)):
        return value
    raise InvalidInputError(
        f"metadata never holds a {type(value).__name__}; compare with str, int, float, bool, "
        "bytes, None, a list or a dict"
    )


def _operands(values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes)):
        raise InvalidInputError("in_ and not_in take several values, as a list; got one text")
    return tuple(_operand(v) for v in values)


def _orderable(value: Any) -> Any:
    value = _operand(value)
    if _is_number(value) or isinstance(value, (str, bytes)):
        return value
    raise InvalidInputError(
        f"a {type(value).__name__} has no order; use a number, text or bytes, or eq and ne"
    )


def _parts(kind: type[And] | type[Or], condition: Filter) -> tuple[Filter, ...]:
    return condition.parts if isinstance(condition, kind) else (condition,)


def _checked(other: Any) -> Filter:
    if isinstance(other, Filter):
        return other
    raise InvalidInputError(
        f"a filter combines with a filter, not with {type(other).__name__}; put each comparison "
        "in parentheses"
    )
