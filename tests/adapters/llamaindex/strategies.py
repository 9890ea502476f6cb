"""The whole message space of the installed llama-index-core, for hypothesis."""

from __future__ import annotations

import base64
import datetime as dt
import os
import pathlib
import string
import zoneinfo
from collections import OrderedDict, defaultdict
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.llms.llm import ToolSelection
from pydantic import AnyUrl


class _List(list[Any]):
    pass


EXAMPLES = int(os.environ.get("TSMEMORY_EXAMPLES", "150"))

given_many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""150 examples, or as many as the environment variable TSMEMORY_EXAMPLES says."""

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n"
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"

THIS_FILE = pathlib.Path(__file__)
"""Media by path must name a file that exists, when they are made."""

# pydantic refuses lone surrogates in text; NUL and the rest of Unicode are fine.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
ids = st.none() | names.map(lambda name: f"call_{name}")

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=False)  # a NaN is not equal to itself; it has a test of its own
    | texts
    | st.binary(max_size=20)
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.just(dt.datetime(2024, 10, 27, 1, 30, tzinfo=zoneinfo.ZoneInfo("Europe/London"), fold=1))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary(max_size=5).map(bytearray)
    | st.builds(LogProb, token=texts, logprob=st.floats(max_value=0), bytes=st.just([1, 2]))
    | st.builds(TextBlock, text=texts)
    | st.just(AnyUrl("https://example.com/a?b=c"))
    | st.just(pathlib.PurePosixPath("a/b"))
)
hashables = st.none() | st.booleans() | st.integers() | texts | st.dates()
# "@" and "$…" are what tags are written with.
keys = st.sampled_from(["@", "$bytes", "$dict", "id", "type", "name", "tool_calls", "text"]) | texts
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(hashables, inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.sets(hashables, max_size=3)
        | st.frozensets(hashables, max_size=3)
    ),
    max_leaves=6,
)

other_classes = st.recursive(
    st.sampled_from(MessageRole) | st.integers() | texts,
    lambda inner: (
        st.dictionaries(texts, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(texts, inner, max_size=3).map(lambda items: defaultdict(list, items))
        | st.lists(inner, max_size=3).map(_List)
        | st.dictionaries(st.sampled_from(MessageRole), inner, max_size=3)
    ),
    max_leaves=6,
)
"""Enums and subclasses, as providers' objects hold them: they come back as plain values."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
argument_texts = st.sampled_from(
    ["", " ", "{}", "{", '{"a": 1}', '{"a":1}', "[1]", '{"a": 1, "a": 2}', '{"a": NaN}', "1e999"]
)

urls = st.sampled_from(
    [
        "https://example.com/x.png",
        "https://EXAMPLE.com/é?q=ü&a=b#f",
        "http://host:8080/voice.mp3",
        "data:image/png;base64,iVBORw0KGgo=",
        "data:audio/wav;base64,UklGRg==",
        "s3://bucket/key.mp4",
        "file:///srv/x.pdf",
    ]
)
media = st.sampled_from([None, b"", b"abcd", b"ab", b"\xff\x00", PNG, PDF, WAV]) | st.binary(
    max_size=40
)
maybe_text = st.none() | texts
mime_types = st.sampled_from([None, "", "image/png", "audio/mpeg", "video/mp4", "text/plain", "x"])
paths = st.none() | st.just(THIS_FILE)
kwargs = st.dictionaries(keys, values, max_size=3)

text_blocks = st.builds(TextBlock, text=texts)
image_blocks = st.builds(
    ImageBlock,
    image=media,
    path=paths,
    url=st.none() | urls | urls.map(AnyUrl),
    image_mimetype=mime_types,
    detail=st.sampled_from([None, "low", "high", ""]),
)
audio_blocks = st.builds(
    AudioBlock,
    audio=media,
    path=paths,
    url=st.none() | urls,
    format=st.sampled_from([None, "mp3", "wav", "mpeg", "audio/mpeg", "", "x-wav"]),
)
video_blocks = st.builds(
    VideoBlock,
    video=media,
    path=paths,
    url=st.none() | urls,
    video_mimetype=mime_types,
    detail=maybe_text,
    fps=st.none() | st.integers(-1, 60),
)
document_blocks = st.builds(
    DocumentBlock,
    data=media,
    path=paths | st.sampled_from(["gone.txt", "a b/ü.pdf", ""]),
    url=st.none() | urls | texts,
    title=maybe_text | st.just("input_document"),
    document_mimetype=mime_types,
)
cache_points = st.builds(CachePoint, cache_control=st.builds(CacheControl, type=texts, ttl=texts))
citable_blocks = st.builds(
    CitableBlock,
    title=texts,
    source=texts,
    content=texts | st.lists(text_blocks | image_blocks | document_blocks, max_size=3),
)
citation_blocks = st.builds(
    CitationBlock,
    cited_content=texts | text_blocks | image_blocks,
    source=texts,
    title=texts,
    additional_location_info=st.dictionaries(texts, st.integers(0, 99), max_size=2),
)
thinking_blocks = st.builds(
    ThinkingBlock,
    content=maybe_text,
    num_tokens=st.none() | st.integers(0, 9999),
    additional_information=st.dictionaries(
        st.sampled_from(["signature", "id", "summary", "@"]) | texts,
        texts | st.just("lc_1") | values,
        max_size=3,
    ),
)
tool_call_blocks = st.builds(
    ToolCallBlock,
    tool_call_id=ids,
    tool_name=names | texts,
    tool_kwargs=st.dictionaries(texts, json_values, max_size=3) | kwargs | argument_texts,
)

BLOCKS: dict[type, st.SearchStrategy[Any]] = {
    TextBlock: text_blocks,
    ImageBlock: image_blocks,
    AudioBlock: audio_blocks,
    VideoBlock: video_blocks,
    DocumentBlock: document_blocks,
    CachePoint: cache_points,
    CitableBlock: citable_blocks,
    CitationBlock: citation_blocks,
    ThinkingBlock: thinking_blocks,
    ToolCallBlock: tool_call_blocks,
}
"""Every class of the `ContentBlock` union; a test compares."""

blocks = st.one_of(*BLOCKS.values())

openai_calls = st.builds(
    lambda call_id, name, arguments: {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    ids,
    names,
    argument_texts,
)
other_calls = (
    st.builds(ToolSelection, tool_id=names, tool_name=names, tool_kwargs=kwargs)
    | st.fixed_dictionaries({"id": ids, "name": names, "args": kwargs})
    | st.fixed_dictionaries({"id": names, "name": names, "input": st.just({"q": 1})})
    | values
)
additional_kwargs = st.fixed_dictionaries(
    {},
    optional={
        "name": names | st.none() | st.integers(),
        "tool_call_id": names | st.none() | texts,
        "tool_calls": st.lists(openai_calls | other_calls, max_size=3) | values,
        "function_call": st.just({"name": "f", "arguments": "{}"}),
        "refusal": st.none(),
        "@": values,
    },
) | kwargs.map(lambda found: {k: v for k, v in found.items() if k != "images"})


def _message(role: MessageRole, content: Any, more: dict[str, Any]) -> ChatMessage:
    return ChatMessage(role=role, content=content, additional_kwargs=more)


messages = st.builds(
    _message,
    st.sampled_from(MessageRole),
    st.none()
    | texts
    | st.lists(text_blocks | tool_call_blocks, max_size=4)
    | st.lists(blocks, max_size=4),
    st.just({}) | additional_kwargs,
)
"""Messages of every role, block and kind of additional kwarg."""

plain_messages = st.builds(_message, st.sampled_from(MessageRole), texts | st.none(), st.just({}))
"""Messages of a text, for tests whose subject is the list and not the message."""
