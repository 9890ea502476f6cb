"""Across and back, on generated messages of the kinds that both frameworks know.

What only one of them can say (a call without a name, a medium without data, a call in a system
message) is each adapter's own test of coming home; here is what must survive the journey.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import langchain_tsmemory
import llamaindex_tsmemory
from tsmemory import Message, ToolCall

EXAMPLES = int(os.environ.get("TSMEMORY_EXAMPLES", "200"))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
words = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
media = st.sampled_from(
    [
        {"type": "image", "url": "https://example.org/a.png"},
        {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"},
        {"type": "audio", "base64": "UklGRg==", "mime_type": "audio/wav"},
        {"type": "video", "url": "https://example.org/a.mp4"},
        {"type": "file", "base64": "JVBERi0=", "mime_type": "application/pdf"},
    ]
)
text_blocks = st.builds(lambda text: {"type": "text", "text": text}, texts.filter(bool))
reasoning = st.builds(
    lambda text, sign: {"type": "reasoning", "reasoning": text, "extras": {"signature": sign}},
    texts.filter(bool),
    words,
)
calls = st.lists(
    st.builds(ToolCall, words, words, st.dictionaries(words, json_values, max_size=3)),
    max_size=3,
    unique_by=lambda call: call.id,
).map(tuple)
inputs = st.one_of(texts, st.lists(text_blocks | media, min_size=1, max_size=4))
answers = st.one_of(texts, st.lists(text_blocks | reasoning, min_size=1, max_size=4))
messages = st.one_of(
    st.builds(Message, st.sampled_from(["system", "developer"]), texts),
    st.builds(Message, st.just("user"), inputs, name=st.none() | words),
    st.builds(Message, st.just("assistant"), answers, tool_calls=calls),
    st.builds(Message, st.just("tool"), texts, tool_call_id=words, name=st.none() | words),
)


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(thoughts)


def facts(message: Message) -> tuple[Any, ...]:
    """Role, text, calls with ids, the id answered, the name, the media in order, the reasoning."""
    blocks = message.content if isinstance(message.content, list) else []
    shown = [
        (b["type"], b.get("text") or b.get("reasoning") or b.get("base64") or b.get("url"))
        for b in blocks
        if b["type"] not in ("text", "tool_call", "reasoning")
    ]
    thoughts = [b["reasoning"] for b in blocks if b["type"] == "reasoning" and b["reasoning"]]
    called = [(c.id, c.name, c.arguments) for c in message.tool_calls]
    return (
        message.role,
        message.text,
        called,
        message.tool_call_id,
        message.name,
        shown,
        _joined(thoughts),
    )


def through(mapping: Any, message: Message) -> Message:
    """As the framework writes what it read."""
    return mapping.to_neutral(mapping.from_neutral(message))


@settings(max_examples=EXAMPLES, deadline=None)
@given(messages)
def test_langchain_to_llamaindex_and_back(message: Message) -> None:
    written = through(langchain_tsmemory, message)
    assert facts(written) == facts(message)
    read = through(llamaindex_tsmemory, written)
    assert facts(read) == facts(message)
    assert facts(through(langchain_tsmemory, read)) == facts(message)


@settings(max_examples=EXAMPLES, deadline=None)
@given(messages)
def test_llamaindex_to_langchain_and_back(message: Message) -> None:
    written = through(llamaindex_tsmemory, message)
    assert facts(written) == facts(message)
    read = through(langchain_tsmemory, written)
    assert facts(read) == facts(message)
    assert facts(through(llamaindex_tsmemory, read)) == facts(message)
