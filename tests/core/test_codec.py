"""Bytes in, bytes out: whatever is stored comes back the same, and is JSON for everybody."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import json
import math
import uuid
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsmemory import InvalidInputError, Message, MessageTooLargeError, Session, ToolCall
from tsmemory.engine.codec import (
    decode_message,
    decode_session,
    decode_value,
    encode_message,
    encode_session,
    encode_value,
)
from tsmemory.values import MAX_DEPTH

# Any code point at all, lone surrogates included.
texts = st.text(st.characters(), max_size=12)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.binary(), texts
)
rich = st.one_of(
    plain,
    st.datetimes(timezones=st.sampled_from([None, dt.timezone.utc])),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
keys = st.one_of(texts, st.sampled_from(["$bytes", "$dict", "$", "escaped", "v"]))


def nested(leaves: st.SearchStrategy[Any], more: bool) -> st.SearchStrategy[Any]:
    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        kinds = [st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)]
        if more:
            kinds += [st.lists(inner, max_size=3).map(tuple), st.frozensets(st.integers())]
        return st.one_of(kinds)

    return st.recursive(leaves, extend, max_leaves=12)


metadata = st.dictionaries(keys, nested(plain, more=False), max_size=4)
extensions = st.dictionaries(keys, nested(rich, more=True), max_size=3)
blocks = st.dictionaries(keys, nested(rich, more=True), max_size=3).map(
    lambda block: {**block, "type": "x"}
)
calls = st.builds(
    ToolCall, st.one_of(st.none(), texts), texts, st.one_of(texts, metadata), st.none() | texts
)
messages = st.builds(
    Message,
    st.sampled_from(["user", "assistant", "tool"]),
    st.one_of(texts, st.lists(blocks, max_size=3)),
    message_id=st.just("m"),
    create_time=st.just(5),
    name=st.none() | texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=st.none() | texts,
    metadata=metadata,
    extensions=extensions,
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return a == b


@settings(max_examples=150, deadline=None)
@given(messages)
def test_a_message_comes_back_the_same(message: Message) -> None:
    data = encode_message(message)
    assert json.loads(data.decode("utf-8")), "anybody's JSON parser reads it"
    back = decode_message(data, "m", 5)
    assert back == message
    assert same(back.metadata, message.metadata)
    assert same(back.extensions, message.extensions)
    assert same(back.content, message.content)
    assert same([c.arguments for c in back.tool_calls], [c.arguments for c in message.tool_calls])


@settings(max_examples=80, deadline=None)
@given(st.none() | texts, st.none() | texts, metadata)
def test_a_session_comes_back_the_same(title: Any, summary: Any, values: Any) -> None:
    session = Session(
        user_id="u",
        session_id="s",
        create_time=1,
        update_time=2,
        version=1,
        message_count=0,
        title=title,
        summary=summary,
        metadata=values,
    )
    back = decode_session(encode_session(session))
    assert same(list(back), [title, summary, values])


@settings(max_examples=80, deadline=None)
@given(nested(rich, more=True))
def test_a_value_comes_back_the_same(value: Any) -> None:
    assert same(decode_value(encode_value(value)), value)


def test_plain_messages_are_plain_json() -> None:
    data = encode_message(Message.user("hi", metadata={"n": 1}))
    assert data == b'{"role":"user","content":"hi","metadata":{"n":1}}'


class Colour(str, Enum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [object(), Colour.RED, (1,), {1}, dt.date(2026, 1, 1), uuid.uuid4(), decimal.Decimal(1), len],
    ids=lambda v: type(v).__name__,
)
def test_metadata_takes_plain_values_only(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"metadata\.a\[0\]"):
        encode_message(Message.user("x", metadata={"a": [value]}))


@pytest.mark.parametrize("value", [object(), Colour.RED, len, 1j], ids=lambda v: type(v).__name__)
def test_extensions_refuse_by_name_what_they_cannot_keep(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=type(value).__qualname__):
        encode_message(Message.user("x", extensions={"a": value}))


def test_buffers_are_kept_as_bytes() -> None:
    values = {"a": bytearray(b"1"), "b": memoryview(b"2")}
    data = encode_message(Message.user("x", metadata=values))
    assert decode_message(data, "m", 1).metadata == {"a": b"1", "b": b"2"}


def test_depth() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH - 2):
        deep = [deep]
    data = encode_message(Message.user("x", metadata={"d": deep}))
    assert decode_message(data, "m", 1).metadata == {"d": deep}
    for _ in range(9):
        deep = [deep]
    with pytest.raises(InvalidInputError, match="nested"):
        encode_message(Message.user("x", metadata={"d": deep}))


def test_the_limit_counts_bytes() -> None:
    message = Message.user("字" * 100)
    size = len(encode_message(message))
    assert encode_message(message, size)
    with pytest.raises(MessageTooLargeError, match=f"limit of {size - 1}"):
        encode_message(message, size - 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"role":7}',
        b'{"role":"user","content":7}',
        b'{"role":"user","content":[7]}',
        b'{"role":"user","metadata":[]}',
        b'{"role":"user","tool_calls":[{"id":1}]}',
        b'{"role":"user","v":2}',
        b'{"role":"user","metadata":{"x":{"$python/object":"os.system"}}}',
        b'{"role":"user","metadata":{"x":{"$bytes":"?"}}}',
        b'{"role":"user","metadata":{"x":{"$bytes":7}}}',
        b'{"role":"user","metadata":{"x":{"$datetime":"soon"}}}',
        b'{"role":"user","metadata":{"x":{"$timedelta":{}}}}',
        b'{"role":"user","metadata":{"x":{"$decimal":"x"}}}',
        b'{"role":"user","metadata":{"x":{"$set":[[]]}}}',
        b'{"v":1,"escaped":{"content":"no role"}}',
        b'{"v":1,"escaped":7}',
    ],
)
def test_what_does_not_decode_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # msgspec's own kinds among them
        decode_message(data, "m", 1)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), messages, st.integers(0, 200), st.integers(0, 255))
def test_damage_is_a_value_error_or_a_message(
    noise: bytes, message: Message, at: int, byte: int
) -> None:
    data = bytearray(encode_message(message))
    data[at % len(data)] = byte
    for damaged in (noise, bytes(data), bytes(data[: at % len(data)])):
        with contextlib.suppress(ValueError):
            assert isinstance(decode_message(damaged, "m", 1), Message)
