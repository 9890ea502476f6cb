"""Filters that the service runs, so that rows which cannot match are not sent.

The service compares within one type only, and knows the columns of a row and nothing else. So a
filter is compiled exactly, for rows whose every metadata value is in a column (flag ``1``, see
`rows`), and every other row is sent too: what the service leaves out cannot match, what
it sends is looked at again by `Filter.matches`. Damage that reaches the opening of our column is
sent as well, so that no filter hides it.

A number is compared with both number types, at the bound that is exact in each. What has no exact
form (``contains``, negated; a part on columns that the index lacks; over 32 conditions) is left to
the client, and the rest of the filter still runs in the service.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from tsmemory.backends.tablestore.layout import RESERVED, is_column, native_value
from tsmemory.backends.tablestore.rows import PLAIN
from tsmemory.backends.tablestore.sdk import all_of, any_of, compare, negate
from tsmemory.filters import And, Compare, Filter, Not, Or

__all__ = ["compiled"]

_MAX_NODES = 32
"""Conditions of a filter (Tablestore, "Limits on the Wide Column model")."""
_INT64 = range(-(2**63), 2**63)
_OPERATORS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}

_Condition: TypeAlias = "Any | bool | None"
"""A condition of the SDK's; True and False where every plain row agrees; None: not known."""


def compiled(
    condition: Filter | None,
    kind: Literal["message", "session"],
    *,
    foreign: bool = False,
    visible: Callable[[str], bool] | None = None,
) -> Any:
    """The service's part of a filter; None where it has none.

    Args:
        kind: of which rows.
        foreign: whether rows without our column are whole rows too (all metadata in columns).
        visible: which columns there are to compare; None: all.
    """
    if condition is None:
        return None
    parts = [condition]
    if isinstance(condition, And):
        parts = list(condition.parts)
    compiled_parts, room = [], _MAX_NODES - 6

    def column_known(key: str) -> bool | None:
        """Whether there is such a column in plain rows; None: perhaps, but not to compare."""
        if not is_column(key, kind):
            return None if foreign else False
        return True if visible is None or visible(key) else None

    for part in parts:
        compiled_part = _compile(part, False, column_known)
        if compiled_part is None or compiled_part is True:
            continue
        size = 0 if compiled_part is False else _nodes(compiled_part)
        if size <= room:
            compiled_parts.append(compiled_part)
            room -= size + 1
    if not compiled_parts:
        return None
    low, high = PLAIN
    plain = all_of(compare(RESERVED, ">=", low), compare(RESERVED, "<", high))
    if foreign:
        other = any_of(compare(RESERVED, "<", low), compare(RESERVED, ">=", high))
    else:
        other = negate(plain)
    if any(compiled_part is False for compiled_part in compiled_parts):
        return None if foreign else other
    return any_of(other, all_of(*compiled_parts))


def _nodes(condition: Any) -> int:
    parts = getattr(condition, "sub_conditions", ())
    return 1 + sum(_nodes(part) for part in parts)


def _compile(
    condition: Filter, negated: bool, column_known: Callable[[str], bool | None]
) -> _Condition:
    if isinstance(condition, Not):
        return _compile(condition.part, not negated, column_known)
    if isinstance(condition, (And, Or)):
        parts = [_compile(part, negated, column_known) for part in condition.parts]
        return _all(parts) if isinstance(condition, And) != negated else _any(parts)
    assert isinstance(condition, Compare)
    if condition.operator in ("ne", "not_in"):
        condition = Compare(
            condition.key, "eq" if condition.operator == "ne" else "in", condition.value
        )
        negated = not negated
    column_there = column_known(condition.key)
    if not column_there:
        return None if column_there is None else negated
    compiled_parts = _leaf(condition, negated)
    if isinstance(compiled_parts, bool):
        return compiled_parts != negated
    return compiled_parts if compiled_parts is None or not negated else negate(compiled_parts)


def _all(parts: list[_Condition]) -> _Condition:
    """Sound with parts left out, for what passes is looked at again."""
    if any(part is False for part in parts):
        return False
    column_known = [part for part in parts if part is not None and part is not True]
    if column_known:
        return all_of(*column_known)
    return None if any(part is None for part in parts) else True


def _any(parts: list[_Condition]) -> _Condition:
    if any(part is True for part in parts):
        return True
    if any(part is None for part in parts):
        return None
    column_known = [part for part in parts if part is not False]
    return any_of(*column_known) if column_known else False


def _leaf(condition: Compare, negated: bool) -> _Condition:
    key, operator, value = condition.key, condition.operator, condition.value
    if operator == "eq":
        return _equal(key, value)
    if operator == "in":
        return _any([_equal(key, compiled_part) for compiled_part in value])
    if operator == "exists":
        lowest = [("", ">="), (b"", ">="), (-(2**63), ">="), (-1.7976931348623157e308, ">=")]
        truth = [compare(key, "==", True), compare(key, "==", False)]
        return any_of(*(compare(key, sign, bound) for bound, sign in lowest), *truth)
    if operator == "contains":
        return None if negated else compare(key, ">=", "")
    if isinstance(value, (str, bytes)):
        return compare(key, _OPERATORS[operator], value) if native_value(value) else None
    return _ordered(key, operator, value)


def _equal(key: str, value: Any) -> _Condition:
    if isinstance(value, bool):
        return compare(key, "==", value)
    if isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            return False
        compiled_parts = [compare(key, "==", int(value))] if value == int(value) in _INT64 else []
        try:
            if float(value) == value:
                compiled_parts.append(compare(key, "==", float(value)))
        except OverflowError:
            pass
        return any_of(*compiled_parts) if compiled_parts else False
    if not native_value(value):
        return False  # None, lists, dicts and odd texts are in no column
    return compare(key, "==", value)


def _ordered(key: str, operator: str, value: float) -> _Condition:
    if math.isnan(value):
        return False
    up = operator in ("gt", "ge")
    if value in (math.inf, -math.inf) or not -(10**300) < value < 10**300:
        return None
    # Whole numbers: the nearest bound inside.
    bound = math.ceil(value) if up else math.floor(value)
    strict = operator in ("gt", "lt") and bound == value
    if bound not in _INT64:
        above = bound > 0
        whole = None if above == up else compare(key, ">=", -(2**63))
    else:
        whole = compare(key, (">" if up else "<") + ("" if strict else "="), bound)
    # Fractions: float() rounds to the nearest, so the next one on the other side is beyond `value`.
    near = float(value)
    strict = operator in ("gt", "lt") if near == value else (near < value) == up
    part = compare(key, (">" if up else "<") + ("" if strict else "="), near)
    return part if whole is None else any_of(whole, part)
