"""The mapping: home again exactly, across faithfully, and nothing of LangChain unknown to it."""

from __future__ import annotations

import dataclasses
import enum
import http
import inspect
import json
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import langchain_core.messages as lc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import content as lc_content
from pydantic import BaseModel

from langchain_tsmemory import from_neutral, to_neutral
from langchain_tsmemory.mapping import message_id
from langchain_tsmemory.mapping.blocks import from_blocks, to_blocks
from langchain_tsmemory.mapping.blocks.writing import STANDARD
from langchain_tsmemory.mapping.roles import KINDS, MAPPED_FIELDS
from tests.adapters.langchain.strategies import blocks, chunks, messages, standard_blocks, thorough
from tsmemory import InvalidInputError, Message, Store, ToolCall, Window, open_store


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with open_store("memory:") as opened:
        yield opened


def stored(store: Store, *found: Message) -> list[Message]:
    """What another process would read."""
    chat = store.conversation("mapping")
    chat.delete()
    chat.append(*found)
    return chat.list_messages(limit=1000).items


def home(store: Store, message: lc.BaseMessage) -> lc.BaseMessage:
    return from_neutral(stored(store, to_neutral(message))[0])


@settings(thorough, suppress_health_check=[HealthCheck.too_slow])
@given(message=messages)
@example(message=lc.ChatMessage([""], role="assistant"))
@example(message=lc.ChatMessage(["text", {"type": "refusal", "refusal": "no"}], role="assistant"))
def test_home_again_is_exact(store: Store, message: lc.BaseMessage) -> None:
    before = message.model_copy(deep=True)
    back = home(store, message)
    assert type(back) is type(message)
    assert back == message
    assert back.model_dump() == message.model_dump()
    assert message == before, "the message that was given is changed"
    neutral = stored(store, to_neutral(message))[0]
    from_neutral(neutral)
    again = to_neutral(from_neutral(neutral))
    assert again.extensions == neutral.extensions
    assert again.content == neutral.content


@settings(thorough, suppress_health_check=[HealthCheck.too_slow])
@given(block=blocks)
def test_blocks_are_neutral_and_come_home(block: dict[str, Any]) -> None:
    (neutral,) = to_blocks([block])
    assert neutral["type"] in STANDARD
    assert from_blocks([neutral]) == [block]
    if len(neutral.get("base64", "")) == 200:
        assert repr(neutral).count(neutral["base64"]) == 1, "the medium is kept twice"


@given(block=standard_blocks)
@thorough
def test_standard_blocks_pass_untouched(block: dict[str, Any]) -> None:
    assert to_blocks([block])[0] is block


@given(chunk=chunks)
@thorough
def test_chunks_are_folded(store: Store, chunk: lc.BaseMessageChunk) -> None:
    whole = lc.message_chunk_to_message(chunk)
    back = home(store, chunk)
    assert type(back) is type(whole)
    assert not isinstance(back, lc.BaseMessageChunk)
    assert back.__dict__ == whole.__dict__
    assert back.__pydantic_extra__ == chunk.__pydantic_extra__


def test_what_is_plain_needs_no_extension() -> None:
    for message in (
        lc.HumanMessage("hi", id="1"),
        lc.AIMessage("hi", id="1", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c"}]),
        lc.SystemMessage("hi", id="1"),
        lc.SystemMessage("hi", id="1", additional_kwargs={"__openai_role__": "developer"}),
        lc.ToolMessage("hi", id="1", tool_call_id="c", name="f"),
        lc.FunctionMessage("hi", id="1", name="f"),
        lc.ChatMessage("hi", id="1", role="narrator"),
    ):
        assert to_neutral(message).extensions == {}
        assert from_neutral(to_neutral(message)) == message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (lc.HumanMessage("hi", id="1", name="Ada"), Message.user("hi", message_id="1", name="Ada")),
        (
            lc.SystemMessage("x", id="1", additional_kwargs={"__openai_role__": "developer"}),
            Message.developer("x", message_id="1"),
        ),
        (
            lc.AIMessage(
                "x",
                id="1",
                tool_calls=[{"name": "f", "args": {"a": [1]}, "id": "c1"}],
                invalid_tool_calls=[{"name": "g", "args": "{", "id": "c2", "error": "no JSON"}],
            ),
            Message.assistant(
                "x",
                message_id="1",
                tool_calls=[
                    ToolCall("c1", "f", {"a": [1]}),
                    ToolCall("c2", "g", "{", "no JSON"),
                ],
            ),
        ),
        (
            lc.ToolMessage("42", id="1", name="f", tool_call_id="c1"),
            Message.tool("42", message_id="1", name="f", tool_call_id="c1"),
        ),
        (
            lc.FunctionMessage("42", id="1", name="f"),
            Message("function", "42", message_id="1", name="f"),
        ),
        (lc.ChatMessage("x", id="1", role="narrator"), Message("narrator", "x", message_id="1")),
    ],
)
def test_across(message: lc.BaseMessage, expected: Message) -> None:
    assert to_neutral(message) == expected
    assert from_neutral(expected) == message


def test_messages_of_others_become_good_ones() -> None:
    assert from_neutral(Message("tool", "x", message_id="1")) == lc.ToolMessage(
        "x", id="1", tool_call_id=""
    )
    assert from_neutral(Message("function", "x", message_id="1")).name == ""
    assert from_neutral(
        Message("assistant", "x", message_id="1", extensions={"llamaindex": {"a": 1}})
    ) == lc.AIMessage("x", id="1")
    text_calls = Message.assistant(tool_calls=[ToolCall("c", "f", "{")], message_id="1")
    assert from_neutral(text_calls) == lc.AIMessage(
        "",
        id="1",
        invalid_tool_calls=[{"name": "f", "args": "{", "id": "c", "error": None}],
    )
    theirs = {"type": "text", "text": "hi", "origin": {"llamaindex": {"block": "x"}}}
    assert from_neutral(Message.user([theirs])).content == [{"type": "text", "text": "hi"}]


@pytest.mark.parametrize(
    "origin",
    [
        None,
        7,
        {"langchain": None},
        {"langchain": {}},
        {"langchain": {"moved": {"gone": "x"}}},
        {"langchain": {"moved": 3}},
        {"langchain": {"raw": {"a": 1}, "moved": {"text": "a.b"}}},
        {"langchain": {"raw": 5, "moved": {"text": "a"}}},
        {"langchain": {"moved": {"bytes": "a"}}},
    ],
)
def test_an_origin_that_makes_no_sense_is_left_out(origin: Any) -> None:
    block = {"type": "text", "text": "hi", "origin": origin}
    assert from_blocks([block]) == [{"type": "text", "text": "hi"}]


B64 = "iVBORw0KGgo="


@pytest.mark.parametrize(
    ("raw", "neutral"),
    [
        ("hi", {"type": "text", "text": "hi"}),
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{B64}"}},
            {"type": "image", "mime_type": "image/png", "base64": B64},
        ),
        (
            {"type": "image_url", "image_url": "https://x/y"},
            {"type": "image", "url": "https://x/y"},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": B64, "format": "wav"}},
            {"type": "audio", "base64": B64, "mime_type": "audio/wav"},
        ),
        (
            {
                "type": "file",
                "file": {"file_data": f"data:application/pdf;base64,{B64}", "filename": "a.pdf"},
            },
            {
                "type": "file",
                "base64": B64,
                "mime_type": "application/pdf",
                "extras": {"filename": "a.pdf"},
            },
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": B64}},
            {"type": "image", "base64": B64, "mime_type": "image/png"},
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
            {"type": "file", "url": "https://x/y.pdf"},
        ),
        (
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "hi"},
            },
            {"type": "text-plain", "text": "hi", "mime_type": "text/plain"},
        ),
        (
            {"type": "image", "source_type": "base64", "data": B64, "mime_type": "image/png"},
            {"type": "image", "base64": B64, "mime_type": "image/png"},
        ),
        (
            {"type": "file", "source_type": "id", "id": "file-1"},
            {"type": "file", "file_id": "file-1"},
        ),
        (
            {"type": "media", "mime_type": "video/mp4", "data": B64},
            {"type": "video", "mime_type": "video/mp4", "base64": B64},
        ),
        (
            {"image": {"format": "png", "source": {"bytes": b"hi"}}},
            {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
        ),
        (
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "s"}},
        ),
        (
            {
                "type": "reasoning",
                "id": "rs",
                "summary": [
                    {"type": "summary_text", "text": "a"},
                    {"type": "summary_text", "text": "b"},
                ],
            },
            {"type": "reasoning", "id": "rs", "reasoning": "a\n\nb"},
        ),
        (
            {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
            {"type": "tool_call", "id": "c", "name": "f", "args": {"a": 1}},
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}'},
            {"type": "tool_call", "id": "c", "name": "f", "args": {"a": 1}},
        ),
        (
            {"type": "web_search_tool_result", "tool_use_id": "c", "content": []},
            {"type": "server_tool_result", "tool_call_id": "c", "output": [], "status": "success"},
        ),
        (
            {"type": "refusal", "refusal": "no"},
            {"type": "refusal", "refusal": "no"},
        ),
        (
            {"type": "refusal"},
            {"type": "non_standard", "value": {"type": "refusal"}},
        ),
        (
            {"type": "text", "text": "hi", "origin": "Rome"},
            {"type": "non_standard", "value": {"type": "text", "text": "hi", "origin": "Rome"}},
        ),
    ],
)
def test_provider_blocks_say_the_same_in_the_standard(raw: Any, neutral: Any) -> None:
    (block,) = to_blocks([raw])
    assert {k: v for k, v in block.items() if k != "origin"} == neutral
    assert from_blocks([block]) == [raw]


def test_a_window_drops_a_call_from_everywhere(store: Store) -> None:
    """A call that got no result must not reach a provider in another form."""

    def raw(call_id: str) -> dict[str, Any]:
        return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}

    ai = lc.AIMessage(
        [
            {"type": "text", "text": "looking"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
            {"type": "tool_use", "id": "c2", "name": "f", "input": {}},
        ],
        id="ai",
        tool_calls=[{"name": "f", "args": {}, "id": "c1"}, {"name": "f", "args": {}, "id": "c2"}],
        invalid_tool_calls=[{"name": None, "args": None, "id": "c3", "error": None}],
        additional_kwargs={"tool_calls": [raw("c1"), raw("c2"), raw("c3")], "refusal": None},
    )
    chat = store.conversation("repair")
    chat.append(
        *map(
            to_neutral,
            [
                lc.HumanMessage("hi"),
                ai,
                lc.ToolMessage("1", tool_call_id="c2"),
                lc.HumanMessage("and?"),
            ],
        )
    )
    shown = from_neutral(chat.window(10)[1])
    assert isinstance(shown, lc.AIMessage)
    assert [call["id"] for call in shown.tool_calls] == ["c2"]
    assert shown.invalid_tool_calls == []
    assert [block.get("id") for block in shown.content] == [None, "c2"]  # type: ignore[union-attr]
    assert shown.additional_kwargs == {"tool_calls": [raw("c2")], "refusal": None}
    assert from_neutral(chat.list_messages().items[1]) == ai

    alone = store.conversation("repair all")
    alone.append(*map(to_neutral, [lc.HumanMessage("hi"), ai, lc.HumanMessage("and?")]))
    shown = from_neutral(alone.window(10)[1])
    assert (shown.tool_calls, shown.additional_kwargs) == ([], {"refusal": None})  # type: ignore[attr-defined]
    told = [from_neutral(m) for m in alone.window(Window(last=10, unanswered="error"))]
    assert told[1] == ai
    assert [m.tool_call_id for m in told[2:-1]] == ["c1", "c2", "c3"]  # type: ignore[attr-defined]


def test_changed_after_construction(store: Store) -> None:
    """What a constructor would not give, but code that sets attributes does."""
    message = lc.AIMessage("x", additional_kwargs={"tool_calls": [{"id": "c"}]})
    message.tool_calls = []
    assert home(store, message) == message
    message.tool_calls = [{"name": "f", "args": {"a": 1}, "id": "c"}]  # without a type
    assert home(store, message) == message
    message.usage_metadata = {"input_tokens": 1}  # type: ignore[typeddict-item]
    assert home(store, message) == message


def test_text_of_a_message_is_text(store: Store) -> None:
    text = lc.AIMessage("hi").text
    message = lc.HumanMessage(
        [{"type": "text", "text": text}, {"type": "odd", "in": [{"deep": text}]}],
        additional_kwargs={"quote": text, "list": [text]},
    )
    assert home(store, message) == message


def test_documents_in_an_artifact(store: Store) -> None:
    message = lc.ToolMessage(
        "found",
        tool_call_id="c",
        artifact=[Document("a", id="1", metadata={"page": 3, "at": (1, b"2")}), Document("b")],
    )
    back = home(store, message)
    assert back == message
    assert type(back.artifact[0]) is Document  # type: ignore[attr-defined]


class Colour(enum.Enum):
    RED = "red"


class Mood(str, enum.Enum):  # StrEnum is newer than Python 3.10
    GOOD = "good"


class Form(BaseModel):
    a: int = 1


class Usage(OrderedDict[str, int]):
    """As LiteLLM and others have them."""


@dataclasses.dataclass
class Part:
    text: str


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (Mood.GOOD, "good"),
        (Form(), {"a": 1}),
        (Usage(tokens=1), {"tokens": 1}),
        (OrderedDict([("b", Mood.GOOD), ("a", Form(a=2))]), {"b": "good", "a": {"a": 2}}),
        (Part("t"), {"text": "t"}),
        (http.HTTPStatus.OK, 200),
    ],
)
@pytest.mark.parametrize("field", ["additional_kwargs", "response_metadata"])
def test_values_of_other_classes_come_back_plain(
    store: Store, field: str, value: Any, plain: Any
) -> None:
    for nested, wanted in (
        ({"k": value}, {"k": plain}),
        ({"k": [1, {"deep": value}]}, {"k": [1, {"deep": plain}]}),
    ):
        back = home(store, lc.AIMessage("x", **{field: nested}))
        assert getattr(back, field) == wanted
    back = home(store, lc.HumanMessage([{"type": "odd", "k": value}]))
    assert back.content == [{"type": "odd", "k": plain}]
    back = home(store, lc.ToolMessage("x", tool_call_id="c", artifact=value))
    assert back.artifact == plain  # type: ignore[attr-defined]


@pytest.mark.parametrize(("value", "named"), [(object(), "object"), (1j, "complex")])
@pytest.mark.parametrize("field", ["additional_kwargs", "response_metadata"])
def test_what_cannot_be_kept_is_left_out_and_named(
    store: Store, field: str, value: Any, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = lc.AIMessage("x", **{field: {"k": value, "kept": 1, "list": [value, 2]}})
    back = home(store, message)
    assert getattr(back, field) == {"kept": 1, "list": [None, 2]}
    assert f"{field}.k is left out: a builtins.{named} cannot be stored" in caplog.text
    with pytest.raises(InvalidInputError, match=named):  # content is the message
        stored(store, to_neutral(lc.HumanMessage([{"type": "odd", "k": value}])))


def test_what_nests_in_itself(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    message = lc.AIMessage("x", additional_kwargs=loop)
    assert home(store, message).content == "x"
    assert "additional_kwargs is left out" in caplog.text
    with pytest.raises(InvalidInputError, match="in itself"):
        stored(store, to_neutral(lc.HumanMessage([{"type": "odd", "k": loop}])))


class Mine(lc.HumanMessage):
    pass


class MyChunk(lc.AIMessageChunk):
    pass


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("hi", "str"),
        ({"role": "user"}, "dict"),
        (None, "NoneType"),
        (Mine("hi"), "Mine"),
        (MyChunk("hi"), "MyChunk"),
        (lc.RemoveMessage(id="x"), "RemoveMessage"),
        (Message.user("hi"), "tsmemory"),
    ],
)
def test_what_is_no_message_is_refused_by_name(value: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        to_neutral(value)


def test_from_neutral_refuses_others() -> None:
    with pytest.raises(InvalidInputError, match="HumanMessage"):
        from_neutral(lc.HumanMessage("hi"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "notes",
    [
        {"encoded": True, "artifact": {"langchain": "dict"}},
        {"type": []},
        {"id": 5j},
        {"extra": 5},
        {"extra": {"a": 1}, "encoded": True, "artifact": {"langchain": "document", "a": 1}},
    ],
)
def test_an_extension_that_does_not_read_is_named(notes: dict[str, Any]) -> None:
    message = Message.tool("x", tool_call_id="c", message_id="m1", extensions={"langchain": notes})
    with pytest.raises(InvalidInputError, match="'m1'"):
        from_neutral(message)
    other = Message.tool("x", tool_call_id="c", message_id="m1", extensions={"langchain": [1]})
    assert from_neutral(other) == lc.ToolMessage("x", tool_call_id="c", id="m1")


@given(st.none() | st.text(alphabet=st.characters(codec=None), max_size=300))
def test_ids(lc_id: str | None) -> None:
    neutral = to_neutral(lc.HumanMessage("x", id=lc_id))
    assert 1 <= len(neutral.message_id.encode()) <= 255
    assert from_neutral(neutral).id == lc_id
    if lc_id is not None:
        assert to_neutral(lc.HumanMessage("x", id=lc_id)).message_id == neutral.message_id
        assert message_id(lc_id) == neutral.message_id


# -- introspection: what a later release adds fails here, instead of being dropped ---------------


def _message_classes() -> set[type[lc.BaseMessage]]:
    found = set()
    for name in lc.__all__:
        value = getattr(lc, name)
        if inspect.isclass(value) and issubclass(value, lc.BaseMessage):
            found.add(value)
    return found


def test_every_message_class_is_known() -> None:
    abstract = {lc.BaseMessage, lc.BaseMessageChunk}
    whole = {c for c in _message_classes() - abstract if not issubclass(c, lc.BaseMessageChunk)}
    assert whole - {lc.RemoveMessage} == set(KINDS)
    for chunk in _message_classes() - abstract - whole:
        assert chunk.__mro__[1] in KINDS


FIELDS = {
    "human": {"example"},  # until langchain-core 1.0
    "ai": {"example", "tool_calls", "invalid_tool_calls", "usage_metadata"},
    "system": set(),
    "tool": {"tool_call_id", "artifact", "status"},
    "function": set(),
    "chat": {"role"},
}
EVERY = {"content", "additional_kwargs", "response_metadata", "type", "name", "id"}


def test_every_field_of_every_class_is_known() -> None:
    for cls, kind in KINDS.items():
        assert set(cls.model_fields) <= EVERY | FIELDS[kind.type], cls
        assert {name for name, _ in kind.extension_fields} == set(cls.model_fields) - MAPPED_FIELDS
        assert not cls.__private_attributes__


def test_chunks_add_only_fields_that_folding_drops() -> None:
    for chunk in _message_classes():
        if issubclass(chunk, lc.BaseMessageChunk) and chunk is not lc.BaseMessageChunk:
            added = set(chunk.model_fields) - set(chunk.__mro__[1].model_fields)  # type: ignore[attr-defined]
            assert added <= {"tool_call_chunks", "chunk_position"}, chunk


def test_every_standard_block_type_is_known() -> None:
    kinds = set()
    for union in (lc_content.ContentBlock, lc_content.Annotation):
        for block in get_args(union):
            kinds |= set(get_args(get_type_hints(block)["type"]))
    assert kinds <= STANDARD
    assert set(lc_content.KNOWN_BLOCK_TYPES) <= STANDARD


def test_every_key_of_a_tool_call_is_known() -> None:
    assert set(lc.ToolCall.__annotations__) == {"name", "args", "id", "type"}
    built = lc.AIMessage(
        "",
        tool_calls=[{"name": "f", "args": {}, "id": "c"}],
        invalid_tool_calls=[{"name": "f", "args": "", "id": "c", "error": None}],
    )
    assert set(built.tool_calls[0]) == {"name", "args", "id", "type"}
    assert set(built.invalid_tool_calls[0]) == {"name", "args", "id", "error", "type"}


def test_nothing_is_built_but_messages_and_documents(store: Store) -> None:
    """What LangChain's own loader would make an object of stays data."""
    evil = {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": "x"}}
    message = lc.AIMessage([{"type": "odd", "v": evil}], additional_kwargs=evil, mood=evil)
    assert home(store, message) == message
    forged = Message.user("x", extensions={"langchain": {"type": "remove", "extra": {}}})
    assert type(from_neutral(forged)) is lc.HumanMessage
    assert json.dumps(home(store, message).additional_kwargs) == json.dumps(evil)


def test_the_core_names_a_message_of_langchain_that_is_appended_as_it_is(store: Store) -> None:
    for appended in (lc.HumanMessage("hi"), [lc.HumanMessage("hi")]):
        with pytest.raises(InvalidInputError, match=r"^HumanMessage is not a .*to_neutral"):
            store.conversation("raw").append(appended)  # type: ignore[arg-type]
