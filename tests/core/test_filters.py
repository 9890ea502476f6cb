"""Filters: what each comparison means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmemory import InvalidInputError, where
from tsmemory.filters import And, Compare, Not, Or, as_filter, equal

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(-2, 2),
    st.sampled_from(["", "a", "b", "ab"]),
    st.binary(max_size=1),
    st.lists(st.one_of(st.booleans(), st.integers(0, 1)), max_size=2),
)
metadata = st.dictionaries(st.sampled_from(["k", "j"]), values)
comparisons = st.one_of(
    values.map(lambda v: where("k") == v),
    values.map(lambda v: where("k") != v),
    st.lists(values, max_size=2).map(lambda v: where("k").in_(v)),
    st.lists(values, max_size=2).map(lambda v: where("k").not_in(v)),
    st.floats(-2, 2).map(lambda v: where("k") > v),
    st.sampled_from(["a", "b"]).map(lambda v: where("k") <= v),
    st.just(where("k").exists()),
    st.sampled_from(["", "a"]).map(where("k").contains),
)


@given(metadata, comparisons, comparisons)
def test_and_or_not_are_two_valued(found: dict[str, Any], a: Compare, b: Compare) -> None:
    assert (a & b).matches(found) == (a.matches(found) and b.matches(found))
    assert (a | b).matches(found) == (a.matches(found) or b.matches(found))
    assert (~a).matches(found) != a.matches(found)
    assert (~~a) == a


@given(metadata, values)
def test_ne_and_not_in_are_exact_negations(found: dict[str, Any], value: Any) -> None:
    k = where("k")
    assert k.ne(value).matches(found) != k.eq(value).matches(found)
    assert k.not_in([value]).matches(found) != k.in_([value]).matches(found)
    assert k.in_([value]).matches(found) == k.eq(value).matches(found)


@given(values, values)
def test_equality_is_symmetric_and_typed(a: Any, b: Any) -> None:
    assert equal(a, b) == equal(b, a)
    assert equal(a, a)
    if isinstance(a, bool) != isinstance(b, bool):
        assert not equal(a, b)


@given(st.one_of(st.integers(-3, 3), st.floats(-3, 3)), st.floats(-3, 3))
def test_numbers_have_one_order(a: float, b: float) -> None:
    k = where("k")
    found = {"k": a}
    assert (k > b).matches(found) == (a > b)
    assert (k >= b).matches(found) == (a >= b)
    assert (k < b).matches(found) == (a < b)
    assert (k <= b).matches(found) == (a <= b)


@pytest.mark.parametrize("found", [{}, {"k": None}, {"k": True}, {"k": [1]}, {"k": "1"}])
def test_what_has_no_order_is_never_greater_nor_less(found: dict[str, Any]) -> None:
    k = where("k")
    assert not any(c.matches(found) for c in (k > 0, k >= 0, k < 9, k <= 9))


def test_large_numbers_compare_exactly() -> None:
    assert (where("k") > float(2**60)).matches({"k": 2**60 + 1})
    assert not where("k").eq(float(2**60)).matches({"k": 2**60 + 1})


def test_filters_are_values() -> None:
    a, b, c = where("a") == 1, where("b") == 2, where("c") == 3
    assert a & b & c == And((a, b, c))
    assert a | b | c == Or((a, b, c))
    assert ~(a & b) == Not(And((a, b)))
    assert hash(a) == hash(where("a").eq(1))
    assert repr(a) == "Compare(key='a', operator='eq', value=1)"


def test_a_dict_is_a_filter() -> None:
    condition = as_filter({"a": 1, "b": "x"})
    assert condition is not None
    assert condition.matches({"a": 1.0, "b": "x", "c": 0})
    assert not condition.matches({"a": 1})
    assert as_filter({}).matches({})


@pytest.mark.parametrize(
    "make",
    [
        lambda: where(7),
        lambda: where("a") > None,
        lambda: where("a") > True,
        lambda: where("a") > [1],
        lambda: where("a") == object(),
        lambda: where("a") == (1,),
        lambda: where("a").in_("text"),
        lambda: where("a").in_([object()]),
        lambda: where("a").contains(7),
        lambda: (where("a") == 1) & True,
        lambda: (where("a") == 1) and (where("b") == 2),
        lambda: bool(where("a") == 1),
        lambda: as_filter("a = 1"),
        lambda: as_filter(where("a")),
        lambda: as_filter({7: 1}),
    ],
)
def test_mistakes_are_named(make: Any) -> None:
    with pytest.raises(InvalidInputError):
        make()
