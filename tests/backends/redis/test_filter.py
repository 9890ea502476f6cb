"""The server's part of a filter leaves out nothing that matches."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tsmemory import Message, where
from tsmemory.backends.redis.filter import texts
from tsmemory.engine.codec import encode_message

keys = st.sampled_from(["a", "b", 'q"uote', "$dollar", "ü\n", "\x00"])
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, 1.0, -2.0, 0.5]),
    st.sampled_from(["", "x", 'a"b', "\\", "ü\n\u2028", "\x7f", "</script>"]),
    st.binary(max_size=2),
    st.lists(st.integers(0, 1), max_size=2),
)


def _leaves() -> Any:
    return st.one_of(
        st.builds(lambda k, v: where(k).eq(v), keys, values),
        st.builds(lambda k, v: where(k).ne(v), keys, values),
        st.builds(lambda k, v: where(k).in_(v), keys, st.lists(values, max_size=3)),
        st.builds(lambda k, v: where(k).not_in(v), keys, st.lists(values, max_size=3)),
        st.builds(lambda k, v: where(k).ge(v), keys, st.integers(-2, 2)),
        st.builds(lambda k: where(k).exists(), keys),
        st.builds(lambda k: where(k).contains("x"), keys),
    )


filters = st.recursive(
    _leaves(),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=6,
)


@given(filters, st.dictionaries(keys, values, max_size=4))
def test_what_matches_has_the_texts(condition: Any, metadata: dict[str, Any]) -> None:
    body = encode_message(Message.user("text", metadata=metadata))
    if condition.matches(metadata):
        assert all(any(text in body for text in part) for part in texts(condition))


def test_what_they_are() -> None:
    a, b = where("a") == "x", where("b") > 1
    assert texts(None) == texts(~a) == texts(a | (where("b") != 1)) == []
    assert texts(a & b) == [[b'"a":"x"'], [b'"b":']]
    assert texts(a | b) == [[b'"a":"x"', b'"b":']]
    assert texts(where("a").in_(["x", True, 1])) == [[b'"a":"x"', b'"a":true', b'"a":']]
