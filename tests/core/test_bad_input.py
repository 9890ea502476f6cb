"""Whatever is passed in, only errors of the tree come out, and what is acknowledged can be read."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import math
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsmemory import (
    Filter,
    InvalidInputError,
    Message,
    Store,
    ToolCall,
    TSMemoryError,
    Window,
    open_store,
    where,
)
from tsmemory.engine.codec import decode_message, decode_session, decode_value
from tsmemory.filters import And, Compare, Not, Or


class _Text(str):
    """A str that is none exactly."""


def _nested(depth: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"k": value}
    return value


def _deep_filter(depth: int) -> Filter:
    condition: Filter = where("k").exists()
    for i in range(depth):
        condition = Not(condition) if i % 2 else Or((condition,))
    return condition


_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0.0,
    -0.5, 1.5, 1e300, math.nan, math.inf, "", "x", "asc", "desc", "raise", "skip", "m", "\0",
    "\ud800",
    "x" * 256, "日" * 90, _Text("t"), b"", b"x", bytearray(b"x"), [], [1], [None], ["m"], (), (1,),
    {}, {"role": "user"}, {"role": "user", "content": "x"}, {"role": 5}, {"k": 1}, {"k": object()},
    {5: 1}, OrderedDict(k=1), set(), frozenset({"m"}), object(), int, len, uuid.UUID(int=1),
    dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),  # noqa: DTZ001
    dt.datetime.min.replace(tzinfo=dt.timezone.utc), dt.date(2026, 1, 1), "2026-01-01T00:00:00Z",
    _nested(99), _nested(5_000), _nested(5_000, dict), {"k": _nested(5_000)}, range(3),
    Message("user", "x"), Message("", "x"), Message("user", 5), Message("user", [{"type": 5}]),  # type: ignore[arg-type]
    Message("user", "x", metadata={"k": _nested(101)}), Message("user", _nested(101)),
    Message("user", message_id=5), Message("user", metadata=None), Message("user", extensions=5),  # type: ignore[arg-type]
    Message("assistant", tool_calls=(ToolCall(5, "f", {}),)),  # type: ignore[arg-type]
    Message("assistant", tool_calls=(ToolCall("i", "f", {}, error=5),)),  # type: ignore[arg-type]
    Message("assistant", tool_calls=(ToolCall("i", _Text("f"), OrderedDict()),)),
    Message(_Text("user"), _Text("x"), name=_Text("n")), Message("user", "x", create_time=True),
    Message("user", "x", create_time=2**63), Message("user", metadata={"k": 2**64}),
    Message("user", [OrderedDict(type="text", text="x")]), Window(), Window(last=2**70),
    "bad cursor",
    where("k"), where("k") == 1, where("k") == 2**70, where("k").in_([_nested(200)]), Filter(),
    _deep_filter(99), _deep_filter(5_000), And((1,)), Compare("k", "bogus", 1), Compare(5, "eq", 1),  # type: ignore[arg-type]
    Compare("k", "in", 5), Compare("k", "gt", "x"), And(tuple(where("k") == i for i in range(600))),
    base64.urlsafe_b64encode(b'["messages-asc",-1,"m"]').decode(),
    base64.urlsafe_b64encode(b'["messages-asc",99999999999999999999,"m"]').decode(),
    base64.urlsafe_b64encode(b'["messages-asc",5,"' + b"x" * 9_999 + b'"]').decode(),
    base64.urlsafe_b64encode(b'["messages-asc",5,"\\ud800"]').decode(),
    base64.urlsafe_b64encode(b"[" * 100_000).decode(),
]  # fmt: skip
_odd = st.integers(0, len(_ODD) - 1)
"""Indexes: hypothesis prints what it draws, and some of these cannot be printed."""

_OPERATIONS: dict[str, tuple[int, tuple[str, ...]]] = {
    "append": (1, ("if_version",)),
    "put_message": (1, ()),
    "put_messages": (1, ()),
    "replace": (1, ()),
    "update_message": (
        1,
        ("role", "content", "name", "tool_calls", "tool_call_id", "metadata", "remove_metadata",
         "extensions"),
    ),
    "delete_message": (1, ()),
    "truncate": (1, ()),
    "get_message": (1, ()),
    "window": (1, ("explain",)),
    "list_messages": (
        0, ("where", "created_from", "created_to", "order", "limit", "cursor", "on_error"),
    ),
    "count": (0, ("where",)),
    "update_session": (
        0,
        ("title", "summary", "metadata", "remove_metadata", "replace_metadata", "ttl",
         "create_time", "update_time", "if_version"),
    ),
    "set_ttl": (1, ()),
    "search": (
        1,
        ("kinds", "match", "role", "created_from", "where", "order", "limit", "cursor", "around"),
    ),
    "fork": (1, ("until",)),
}  # fmt: skip


# Made once: hypothesis spends more on a strategy made for each example than the operation takes.


def _options(names: Sequence[str]) -> st.SearchStrategy[dict[str, int]]:
    if not names:
        return st.just({})
    return st.dictionaries(st.sampled_from(names), _odd, max_size=2)


_calls = st.one_of(
    st.tuples(st.just(name), st.tuples(*[_odd] * positional), _options(keywords))
    for name, (positional, keywords) in _OPERATIONS.items()
)
_listing_options = _options(
    ("user_id", "where", "updated_from", "updated_to", "order", "limit", "cursor", "on_error")
)


@pytest.fixture(scope="module")
def shared() -> Store:
    return open_store("memory:")


@settings(max_examples=1_500, deadline=None)
@given(_calls)
def test_operations_raise_only_errors_of_the_tree(
    shared: Store, call: tuple[str, tuple[int, ...], dict[str, int]]
) -> None:
    name, arguments, options = call
    chat = shared.conversation("s")
    chat.put_message(Message("user", "there", message_id="m", metadata={"k": 1}))
    with contextlib.suppress(TSMemoryError):
        getattr(chat, name)(
            *(_ODD[index] for index in arguments),
            **{keyword: _ODD[index] for keyword, index in options.items()},
        )
    assert shared.verify() == []
    list(chat.iter_messages())
    chat.window(None)
    chat.delete()


@settings(max_examples=300, deadline=None)
@given(_listing_options, st.tuples(*[_odd] * 6))
def test_stores_raise_only_errors_of_the_tree(
    shared: Store, listing: dict[str, int], values: tuple[int, ...]
) -> None:
    options = {name: _ODD[index] for name, index in listing.items()}
    session_id, user_id, ttl, erased, default_ttl, url = (_ODD[index] for index in values)
    for attempt in (
        lambda: shared.list_sessions(**options),
        lambda: shared.conversation(session_id, user_id=user_id, ttl=ttl),
        lambda: shared.erase_user(erased),
        lambda: Store(shared.backend, ttl=default_ttl),
        lambda: open_store(url),
    ):
        with contextlib.suppress(TSMemoryError):
            attempt()


@pytest.mark.parametrize(
    "call",
    [
        ToolCall(5, "f", {}),
        ToolCall("i", "f", {}, error=5),
        ToolCall("i", 5, {}),
        ToolCall("i", "f", 5),
    ],  # type: ignore[arg-type]
)
def test_a_call_that_could_not_be_read_is_refused(shared: Store, call: ToolCall) -> None:
    with pytest.raises(InvalidInputError, match="tool call"):
        shared.conversation("refused").append(Message.assistant(tool_calls=[call]))
    assert shared.conversation("refused").session() is None


_TAGS = ["$bytes", "$float", "$dict", "$set", "$datetime", "$timedelta", "$decimal", "$uuid"]
_KEYS = [*_TAGS, "role", "content", "metadata", "tool_calls", "escaped", "v", "x"]
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(_KEYS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
_STARTS = [b'{"role":"u","metadata":{"x":', b'{"v":1,"escaped":', b"[", b'{"metadata":{"x":']


@settings(max_examples=400, deadline=None)
@given(
    _json | st.binary(max_size=40),
    st.sampled_from(_STARTS),
)
def test_damaged_rows_are_value_errors(value: Any, start: bytes) -> None:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    for data in (raw, start + raw + (b"]" if start == b"[" else b"}")):
        for decode in (lambda d: decode_message(d, "m", 1), decode_session, decode_value):
            with contextlib.suppress(ValueError):
                decode(data)


@pytest.mark.parametrize("opening", [b"[", b'{"k":', b'{"$set":[', b'{"$tuple":['])
@pytest.mark.parametrize("start", _STARTS)
def test_deeply_nested_rows_are_value_errors(start: bytes, opening: bytes) -> None:
    closing = {b"[": b"]", b'{"k":': b"}", b'{"$set":[': b"]}", b'{"$tuple":[': b"]}"}[opening]
    for depth in (150, 900, 50_000):
        ends = {b'{"role":"u","metadata":{"x":': b"}}", b'{"v":1,"escaped":': b"}", b"[": b"]"}
        data = start + opening * depth + closing * depth + ends.get(start, b"}}")
        for decode in (lambda d: decode_message(d, "m", 1), decode_session, decode_value):
            with contextlib.suppress(ValueError):
                decode(data)


def test_a_missing_login_is_refused_by_name(shared: Store) -> None:
    for refused in (
        lambda: shared.conversation("s", user_id=None),  # type: ignore[arg-type]
        lambda: shared.list_sessions(user_id=None),  # type: ignore[arg-type]
        lambda: shared.search_messages("x", user_id=None),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInputError, match=r"^user_id is None; .*logged in"):
            refused()
