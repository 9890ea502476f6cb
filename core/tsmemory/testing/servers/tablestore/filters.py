"""Column conditions: the filters of reads and the conditions of writes.

A comparison holds only between values of one type; with another type the column is there but
nothing is true of it, except that it is not equal. Of a column with several versions, any may
satisfy the condition unless ``latest_version_only`` is set. Whether a filter could see primary-key
columns is not documented; here they count as missing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import limits
from ._wire import DecodeError, filter_pb
from .errors import invalid
from .plainbuffer import Value, decode_variant
from .rows import Cell

#: Says whether a row passes, from the versions of its columns.
Predicate = Callable[[Mapping[str, Iterable[Cell]]], bool]

_COMPARE: dict[int, Callable[[Any, Any], bool]] = {
    filter_pb.CT_EQUAL: operator.eq,
    filter_pb.CT_NOT_EQUAL: operator.ne,
    filter_pb.CT_GREATER_THAN: operator.gt,
    filter_pb.CT_GREATER_EQUAL: operator.ge,
    filter_pb.CT_LESS_THAN: operator.lt,
    filter_pb.CT_LESS_EQUAL: operator.le,
}
_CASTS: dict[int, Callable[[str], Value]] = {
    filter_pb.VT_INTEGER: int,
    filter_pb.VT_DOUBLE: float,
    filter_pb.VT_STRING: str,
}


class Filter:
    """A decoded filter.

    Attributes:
        passes: the condition on a row; None when every row passes.
        pagination: offset and limit over a row's columns, when that was asked for.
    """

    def __init__(self, encoded: bytes) -> None:
        self.passes: Predicate | None = None
        self.pagination: tuple[int, int] | None = None
        self._nodes = 0
        if not encoded:
            return
        message = _parse(filter_pb.Filter(), encoded)
        if message.type == filter_pb.FT_COLUMN_PAGINATION:
            page = _parse(filter_pb.ColumnPaginationFilter(), message.filter)
            if page.limit <= 0 or page.offset < 0:
                raise invalid("Invalid offset or limit of column pagination filter.")
            self.pagination = (page.offset, page.limit)
        else:
            self.passes = self._node(message)

    def _node(self, message: Any) -> Predicate:
        self._nodes += 1
        if self._nodes > limits.FILTER_NODES:
            raise invalid(f"The count of filters exceeds the upper limit: {limits.FILTER_NODES}.")
        if message.type == filter_pb.FT_SINGLE_COLUMN_VALUE:
            return _single(_parse(filter_pb.SingleColumnValueFilter(), message.filter))
        if message.type == filter_pb.FT_COMPOSITE_COLUMN_VALUE:
            composite = _parse(filter_pb.CompositeColumnValueFilter(), message.filter)
            parts = [self._node(part) for part in composite.sub_filters]
            if composite.combinator == filter_pb.LO_NOT:
                if len(parts) != 1:
                    raise invalid("The NOT filter takes exactly one sub filter.")
                only = parts[0]
                return lambda columns: not only(columns)
            if not parts:
                raise invalid("The AND and OR filters take at least one sub filter.")
            if composite.combinator == filter_pb.LO_AND:
                return lambda columns: all(part(columns) for part in parts)
            return lambda columns: any(part(columns) for part in parts)
        raise invalid("A column pagination filter cannot be part of another filter.")


def _parse(message: Any, encoded: bytes) -> Any:
    try:
        message.ParseFromString(encoded)
    except DecodeError:
        raise invalid("Invalid filter.") from None
    return message


def _same_type(value: Value, other: Value) -> bool:
    return type(value) is type(other)


def _transform(rule: Any) -> Callable[[Value], Value | None]:
    try:
        pattern = re.compile(rule.regex)
    except re.error:
        raise invalid(f"Invalid regex: '{rule.regex}'.") from None
    cast = _CASTS.get(rule.cast_type)
    if cast is None:
        raise invalid("Invalid cast type of value transfer rule.")

    def apply(value: Value) -> Value | None:
        match = pattern.search(value) if isinstance(value, str) else None
        if match is None:
            return None
        try:
            return cast(match.group(1) if pattern.groups else match.group())
        except (TypeError, ValueError):
            return None

    return apply


def _single(message: Any) -> Predicate:
    name = message.column_name
    limit_to_latest = message.latest_version_only
    when_missing = not message.filter_if_missing
    if message.comparator == filter_pb.CT_EXIST:
        return lambda columns: bool(columns.get(name))
    if message.comparator == filter_pb.CT_NOT_EXIST:
        return lambda columns: not columns.get(name)
    expected = decode_variant(message.column_value)
    if expected is None:
        raise invalid(f"The value of the filter on column: '{name}' is missing.")
    compare = _COMPARE[message.comparator]
    unequal = message.comparator == filter_pb.CT_NOT_EQUAL
    rule = _transform(message.value_trans_rule) if message.HasField("value_trans_rule") else None

    def passes(columns: Mapping[str, Iterable[Cell]]) -> bool:
        versions = columns.get(name)
        if not versions:
            return when_missing
        for cell in versions:
            value: Value | None = cell.value
            if rule is not None and value is not None:
                value = rule(value)
            if value is None:
                matched = False
            elif _same_type(value, expected):
                matched = compare(value, expected)
            else:
                matched = unequal
            if matched:
                return True
            if limit_to_latest:
                return False
        return False

    return passes
