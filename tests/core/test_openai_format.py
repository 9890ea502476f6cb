"""The OpenAI chat format: there and back is exact."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._chat_api import conversations
from tsmemory import InvalidInputError, Message, ToolCall, from_openai, open_store, to_openai

texts = st.text(max_size=8)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
arguments = st.one_of(
    st.dictionaries(texts, values, max_size=2).map(json.dumps),
    st.dictionaries(texts, values, max_size=2).map(lambda v: json.dumps(v, indent=1)),
    texts,
)
calls = st.builds(
    lambda i, name, text: {
        "id": i,
        "type": "function",
        "function": {"name": name, "arguments": text},
    },
    texts,
    texts,
    arguments,
)
base64s = st.binary(max_size=6).map(lambda b: __import__("base64").b64encode(b).decode())
parts = st.one_of(
    texts.map(lambda t: {"type": "text", "text": t}),
    base64s.map(
        lambda b: {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b}"}}
    ),
    st.just({"type": "image_url", "image_url": {"url": "https://example.org/a", "detail": "low"}}),
    base64s.map(lambda b: {"type": "input_audio", "input_audio": {"data": b, "format": "wav"}}),
    st.just({"type": "file", "file": {"file_id": "f1"}}),
    st.just(
        {"type": "file", "file": {"filename": "a", "file_data": "data:text/plain;base64,YQ=="}}
    ),
    st.just({"type": "refusal", "refusal": "no"}),
    texts.map(lambda t: {"type": "text", "text": t, "annotations": [t]}),
    st.just({"type": "image_url", "image_url": "not a dict"}),
)
raws = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer", "tool", "function"])},
    optional={
        "content": st.one_of(st.none(), texts, st.lists(parts, max_size=3)),
        "name": texts,
        "tool_calls": st.lists(calls, max_size=2),
        "tool_call_id": texts,
        "refusal": st.none() | texts,
        "annotations": st.just([]),
        "function_call": st.just({"name": "f", "arguments": "{}"}),
    },
)


@settings(max_examples=300, deadline=None)
@given(raws)
def test_there_and_back_is_exact(raw: dict[str, Any]) -> None:
    chat = open_store("memory:").conversation("s")
    chat.append(from_openai(raw))
    (stored,) = chat.list_messages()
    assert to_openai(stored) == raw


def test_the_real_conversations() -> None:
    for raws_ in conversations().values():
        assert [to_openai(from_openai(raw)) for raw in raws_] == raws_
        assert all(
            isinstance(call.arguments, dict)
            for raw in raws_
            for call in from_openai(raw).tool_calls
        )


def test_what_it_means() -> None:
    raw = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        ],
    }
    message = from_openai(raw, message_id="m")
    assert (message.role, message.content, message.message_id) == ("assistant", "", "m")
    assert message.tool_calls == (ToolCall("c", "f", {"a": 1}),)
    image = {"url": "data:image/png;base64,YQ=="}
    (block,) = from_openai(
        {"role": "user", "content": [{"type": "image_url", "image_url": image}]}
    ).content
    assert block == {"type": "image", "base64": "YQ==", "mime_type": "image/png"}


def test_neutral_messages_without_a_past() -> None:
    assert to_openai(Message.user("hi")) == {"role": "user", "content": "hi"}
    call = Message.assistant(tool_calls=[ToolCall("c", "f", {"a": 1})])
    assert to_openai(call) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        ],
    }
    thinking = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "so"}]
    assert to_openai(Message.assistant(thinking))["content"] == [{"type": "text", "text": "so"}]


def test_a_refusal_is_a_block_of_the_neutral_vocabulary() -> None:
    refusal = {"type": "refusal", "refusal": "I cannot help with that."}
    message = from_openai({"role": "assistant", "content": [refusal]})
    assert message.content == [refusal]
    assert to_openai(message) == {"role": "assistant", "content": [refusal]}


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"role": 7},
        {"role": "user", "content": 7},
        {"role": "user", "content": ["text"]},
        {"role": "assistant", "tool_calls": [{"id": "a"}]},
        {"role": "assistant", "tool_calls": ["a"]},
    ],
)
def test_other_shapes_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        from_openai(raw)


def test_no_message_has_an_empty_list_as_content() -> None:
    thought = {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "s"}}
    call = ToolCall("c", "f", {})
    assert to_openai(Message.assistant([thought], tool_calls=[call]))["content"] is None
    assert to_openai(Message.assistant([thought]))["content"] == ""
    assert to_openai(Message.user([]))["content"] == ""


def test_readable_text_of_other_blocks_is_text() -> None:
    blocks = [
        {"type": "refusal", "refusal": "no"},
        {"type": "non_standard", "value": {"type": "executable_code", "code": "1 + 1"}},
        {"type": "server_tool_call", "id": "s", "name": "search", "args": {}},
    ]
    raw = to_openai(Message.assistant(blocks))
    assert raw["content"] == [
        {"type": "refusal", "refusal": "no"},
        {"type": "text", "text": "1 + 1"},
    ]
    assert to_openai(from_openai(raw)) == raw


def test_a_list_is_no_message() -> None:
    with pytest.raises(InvalidInputError, match="is a dict, not list"):
        from_openai([{"role": "user", "content": "Hi"}])  # type: ignore[arg-type]  # as given
