"""Hypothesis strategies for everything that langchain-core can put into a message."""

from __future__ import annotations

import datetime as dt
import os
from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)

__all__ = [
    "EXAMPLES",
    "blocks",
    "chunks",
    "contents",
    "message_lists",
    "messages",
    "standard_blocks",
    "thorough",
]

EXAMPLES = int(os.environ.get("TSMEMORY_EXAMPLES", "150"))
thorough = settings(max_examples=EXAMPLES, deadline=None)

texts = st.text(alphabet=st.characters(codec=None), max_size=20)  # lone surrogates and NUL too
words = st.text(alphabet="abcdefghij_-", min_size=1, max_size=8)
base64s = st.sampled_from(["", "aGk=", "iVBORw0KGgo=", "AAAA" * 50])
mimes = st.sampled_from(["image/png", "image/svg+xml", "audio/wav", "application/pdf"])
urls = st.one_of(
    st.sampled_from(
        [
            "https://example.org/a.png",
            "data:image/png;base64,iVBORw0KGgo=",
            "data:image/png;charset=x;base64,aGk=",
            "data:,hello",
            "data:image/png;base64,",
            "data:image/png;base64,a\nb",
        ]
    ),
    texts,
)

whole_numbers = st.integers(-(2**63), 2**63 - 1)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    whole_numbers,
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=9),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), whole_numbers, st.floats(allow_nan=False), texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
moments = st.one_of(
    st.datetimes(),
    st.datetimes(timezones=st.just(dt.timezone.utc)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False).map(Decimal),
    st.uuids(),
)
keys = st.one_of(
    texts,
    st.sampled_from(["langchain", "origin", "$bytes", "$dict", "type", "tool_calls", "packed"]),
)
rich_values = st.recursive(
    st.one_of(scalars, moments, st.builds(frozenset, st.lists(words, max_size=2))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(whole_numbers, inner, max_size=2),
        st.builds(
            Document,
            page_content=texts,
            metadata=st.dictionaries(keys, inner, max_size=2),
            id=st.none() | words,
        ),
    ),
    max_leaves=6,
)
kwargs = st.one_of(st.just({}), st.dictionaries(keys, rich_values, max_size=3))
json_objects = st.dictionaries(texts, json_values, max_size=3)

call_ids = st.none() | words | texts
tool_calls = st.fixed_dictionaries(
    {"name": words | texts, "args": st.dictionaries(keys, json_values, max_size=3), "id": call_ids}
)
invalid_tool_calls = st.fixed_dictionaries(
    {
        "name": st.none() | st.just("") | words,
        "args": st.none() | st.just("") | texts,
        "id": call_ids,
        "error": st.none() | texts,
    }
)


def _block(kind: str, required: dict[str, Any], **optional: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"type": st.just(kind), **required},
        optional={k: v for k, v in optional.items() if k not in required},
    )


_about = {"id": words, "index": st.integers(0, 9) | words, "extras": json_objects}
_citation = _block("citation", {}, url=urls, title=texts, start_index=st.integers(0, 99))
_medium = {**_about, "mime_type": mimes}


def _media(kind: str) -> list[st.SearchStrategy[Any]]:
    return [
        _block(kind, {"url": urls}, **_medium),
        _block(kind, {"base64": base64s}, **_medium),
        _block(kind, {"file_id": words}, **_medium),
    ]


standard_blocks = st.one_of(
    _block("text", {"text": texts}, annotations=st.lists(_citation, max_size=2), **_about),
    _block("reasoning", {}, reasoning=texts, **_about),
    *_media("image"),
    *_media("audio"),
    *_media("video"),
    *_media("file"),
    _block("text-plain", {"text": texts}, title=texts, context=texts, **_medium),
    _block("tool_call", {"id": call_ids, "name": words, "args": json_objects}, **_about),
    _block("invalid_tool_call", {"id": call_ids, "name": words, "args": texts, "error": texts}),
    _block("tool_call_chunk", {"id": call_ids, "name": words, "args": texts, "index": st.just(0)}),
    _block("server_tool_call", {"id": words, "name": words, "args": json_objects}, **_about),
    _block("server_tool_call_chunk", {}, id=words, name=words, args=texts),
    _block(
        "server_tool_result",
        {"tool_call_id": words, "status": st.sampled_from(["success", "error"])},
        output=json_values,
    ),
    _block("non_standard", {"value": json_objects}, id=words),
    _citation,
    _block("non_standard_annotation", {"value": json_objects}),
)


def _nested(key: str, **fields: Any) -> dict[str, Any]:
    return {key: st.fixed_dictionaries(fields)}


def _source(kind: str, **fields: Any) -> dict[str, Any]:
    return _nested("source", type=st.just(kind), **fields)


_bedrock = st.fixed_dictionaries(
    {
        "format": st.sampled_from(["png", "pdf", "mp4", "odd"]),
        "source": st.fixed_dictionaries({"bytes": st.binary(max_size=9)}),
    },
    optional={"name": words},
)
provider_blocks = st.one_of(
    # OpenAI
    _block("image_url", {"image_url": urls}),
    _block(
        "image_url",
        {"image_url": st.fixed_dictionaries({"url": urls}, optional={"detail": words})},
    ),
    _block("input_audio", _nested("input_audio", data=base64s, format=st.just("wav"))),
    _block("file", _nested("file", file_data=urls, filename=words)),
    _block("file", _nested("file", file_id=words)),
    _block("input_image", {}, image_url=urls, file_id=words, detail=words),
    _block("input_file", {}, file_data=urls, file_url=urls, file_id=words, filename=words),
    _block("input_text", {"text": texts}),
    _block("output_text", {"text": texts}, annotations=st.lists(json_objects, max_size=1)),
    _block("refusal", {"refusal": texts}),
    _block(
        "reasoning",
        {
            "summary": st.lists(
                st.fixed_dictionaries({"type": st.just("summary_text"), "text": texts}), max_size=3
            )
        },
        id=words,
        encrypted_content=texts,
    ),
    _block("function_call", {"name": words, "arguments": texts, "call_id": words}, id=words),
    # Anthropic
    _block("thinking", {"thinking": texts}, signature=texts, index=st.integers(0, 3)),
    _block("redacted_thinking", {"data": base64s}),
    _block(
        "tool_use",
        {"id": words, "name": words, "input": json_objects | texts},
        partial_json=texts,
        index=st.integers(0, 3),
    ),
    _block("server_tool_use", {"id": words, "name": words, "input": json_objects}),
    _block("web_search_tool_result", {"tool_use_id": words, "content": json_values}),
    _block("tool_result", {"tool_use_id": words, "content": texts}, is_error=st.booleans()),
    *(
        _block(kind, source, title=texts, cache_control=json_objects)
        for kind in ("image", "document")
        for source in (
            _source("base64", media_type=mimes, data=base64s),
            _source("url", url=urls),
            _source("file", file_id=words),
            _source("text", media_type=st.just("text/plain"), data=texts),
            _source("content", content=json_values),
        )
    ),
    # LangChain 0.x
    *(
        _block(
            kind,
            {"source_type": st.sampled_from(["base64", "url", "id", "text", "odd"])},
            data=base64s,
            url=urls,
            id=words,
            text=texts,
            mime_type=mimes | st.none(),
            filename=words,
        )
        for kind in ("image", "audio", "file", "text")
    ),
    # Google
    _block("media", {"mime_type": mimes}, data=base64s | st.binary(max_size=9), file_uri=urls),
    _block("executable_code", {"executable_code": texts, "language": words}),
    # Bedrock
    st.fixed_dictionaries({"text": texts}),
    st.fixed_dictionaries({"image": _bedrock}),
    st.fixed_dictionaries({"document": _bedrock}),
    st.fixed_dictionaries(
        {
            "toolUse": st.fixed_dictionaries(
                {"toolUseId": words, "name": words, "input": json_objects}
            )
        }
    ),
    _block("reasoning_content", _nested("reasoning_content", text=texts, signature=texts)),
)
odd_blocks = st.one_of(
    st.dictionaries(keys, json_values, max_size=4),
    # A known type, and nothing that it promises.
    st.builds(
        lambda kind, rest: {**rest, "type": kind},
        st.sampled_from(
            ["text", "image", "file", "tool_use", "thinking", "reasoning", "media", "image_url"]
        )
        | words,
        st.dictionaries(keys | st.sampled_from(["text", "url", "source", "input"]), json_values),
    ),
)
blocks = st.one_of(standard_blocks, provider_blocks, odd_blocks)
contents = st.one_of(texts, st.lists(st.one_of(texts, blocks), max_size=4))

ids = st.one_of(
    st.none(), words, texts, st.just(""), st.just("é" * 200), st.just("x" * 255), st.just("x" * 256)
)
counts = st.integers(0, 9999)
usages = st.none() | st.fixed_dictionaries(
    {"input_tokens": counts, "output_tokens": counts, "total_tokens": counts},
    optional={
        "input_token_details": st.fixed_dictionaries({}, optional={"cache_read": counts}),
        "output_token_details": st.fixed_dictionaries({}, optional={"reasoning": counts}),
    },
)
_extra = st.dictionaries(
    st.sampled_from(["example", "mood", "langchain", "text"]), rich_values, max_size=1
)
_raw_calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": words,
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": words, "arguments": st.sampled_from(['{"a": 1}', "{", "{}"])}
            ),
        }
    ),
    min_size=1,
    max_size=2,
)


@st.composite
def _built(draw: st.DrawFn, cls: type[BaseMessage], **fields: Any) -> BaseMessage:
    values = {
        "content": draw(contents),
        "id": draw(ids),
        "additional_kwargs": draw(kwargs),
        "response_metadata": draw(kwargs),
        **{name: draw(values) for name, values in fields.items()},
        **draw(_extra),
    }
    values["additional_kwargs"].pop("tool_calls", None)
    if cls is AIMessage and draw(st.booleans()):
        values["additional_kwargs"]["tool_calls"] = draw(_raw_calls)
        if draw(st.booleans()):  # what the constructor parses out of it
            del values["tool_calls"], values["invalid_tool_calls"]
    return cls(**values)


names = st.none() | words | texts
messages = st.one_of(
    _built(HumanMessage, name=names),
    _built(
        AIMessage,
        name=names,
        tool_calls=st.lists(tool_calls, max_size=3),
        invalid_tool_calls=st.lists(invalid_tool_calls, max_size=2),
        usage_metadata=usages,
    ),
    _built(SystemMessage, name=names),
    _built(
        SystemMessage,
        additional_kwargs=st.fixed_dictionaries(
            {"__openai_role__": st.sampled_from(["developer", "system"])},
            optional={"a": scalars},
        ),
    ),
    _built(
        ToolMessage,
        name=names,
        tool_call_id=words | texts,
        artifact=st.none() | rich_values,
        status=st.sampled_from(["success", "error"]),
    ),
    _built(FunctionMessage, name=words | texts),
    _built(
        ChatMessage,
        name=names,
        role=st.sampled_from(["user", "assistant", "system", "developer", "tool", "", "chat"])
        | texts,
    ),
)


def _distinct(found: list[BaseMessage]) -> bool:
    known = [m.id for m in found if m.id is not None]
    return len(known) == len(set(known))


message_lists = st.lists(messages, max_size=5).filter(_distinct)

chunks = st.one_of(
    st.builds(HumanMessageChunk, content=texts, id=ids, mood=st.none() | words),
    st.builds(
        AIMessageChunk,
        content=texts,
        id=ids,
        usage_metadata=usages,
        tool_call_chunks=st.lists(
            st.fixed_dictionaries(
                {
                    "name": words,
                    "args": st.sampled_from(['{"a": 1}', '{"a"', "[1]", ""]),
                    "id": words,
                    "index": st.just(0),
                }
            ),
            max_size=2,
        ),
        chunk_position=st.none() | st.just("last"),
    ),
)
