"""LlamaIndex → neutral → store → neutral → LlamaIndex, and what other frameworks wrote."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import io
import pathlib
import sys
import threading
import zoneinfo
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from pydantic import BaseModel

from llamaindex_tsmemory import TSMemoryChatStore, from_neutral, to_neutral
from llamaindex_tsmemory.mapping.blocks import from_blocks, to_blocks
from llamaindex_tsmemory.mapping.blocks.reading import BLOCK_TYPES
from llamaindex_tsmemory.mapping.blocks.writing import WRITERS
from llamaindex_tsmemory.mapping.values import decode, encode, same, union_members
from tests.adapters._processes import printed
from tests.adapters.llamaindex.conftest import call_async, call_sync
from tests.adapters.llamaindex.strategies import (
    BLOCKS,
    PDF,
    PNG,
    THIS_FILE,
    given_many,
    messages,
    other_classes,
)
from tsmemory import InvalidInputError, Message, Store, ToolCall, open_store

# -- home again --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    path = tmp_path_factory.mktemp("home") / "chat.db"
    with open_store("memory:") as first, open_store(f"sqlite:///{path}?durability=normal") as other:
        yield [first, other]


def test_home_again_is_exact(stores: list[Store]) -> None:
    @given_many
    @given(st.lists(messages, min_size=1, max_size=3), st.sampled_from(stores))
    def check(written: list[ChatMessage], store: Store) -> None:
        chat = store.conversation("home")
        for mode in (call_sync, call_async):  # making the messages takes longer than keeping them
            chat.delete()
            mode(chat, "append", *map(to_neutral, written))
            read = [from_neutral(m) for m in mode(chat, "list_messages").items]
            assert read == written
            assert same(read, written)  # True is not 1

    check()


@given_many
@given(other_classes)
def test_values_of_other_classes_compare_equal(value: Any) -> None:
    written = in_kwargs(value)
    assert from_neutral(to_neutral(written)) == written


@given_many
@given(messages)
def test_a_neutral_message_says_what_the_message_says(message: ChatMessage) -> None:
    neutral = to_neutral(message)
    spoken_by_model = message.role in (MessageRole.CHATBOT, MessageRole.MODEL)
    assert neutral.role == ("assistant" if spoken_by_model else message.role.value)
    for block in message.blocks:
        if isinstance(block, TextBlock):
            assert block.text in neutral.text
    calls = [b for b in message.blocks if isinstance(b, ToolCallBlock)]
    found = neutral.tool_calls[: len(calls)]
    assert [(c.id, c.name) for c in found] == [(c.tool_call_id, c.tool_name) for c in calls]
    for key in ("name", "tool_call_id"):
        value = message.additional_kwargs.get(key)
        assert getattr(neutral, key) == (value if type(value) is str else None)


def test_text_alone_needs_no_extension() -> None:
    neutral = to_neutral(ChatMessage(role="user", content="hello"))
    assert (neutral.content, neutral.extensions, neutral.tool_calls) == ("hello", {}, ())
    called = ToolCallBlock(tool_call_id="c1", tool_name="f", tool_kwargs={"a": 1})
    neutral = to_neutral(ChatMessage(role="assistant", blocks=[TextBlock(text="so"), called]))
    assert (neutral.content, neutral.extensions) == ("so", {})
    assert neutral.tool_calls == (ToolCall("c1", "f", {"a": 1}),)


@pytest.mark.parametrize("content", [None, "", []])
@pytest.mark.parametrize("calls", [[], [{"id": "1", "name": "f", "args": {}}]])
def test_no_content_and_empty_content_are_kept_apart(content: Any, calls: list[Any]) -> None:
    more = {"tool_calls": calls} if calls else {}
    message = ChatMessage(role="assistant", content=content, additional_kwargs=more)
    assert from_neutral(to_neutral(message)) == message
    assert from_neutral(to_neutral(message)).content == message.content


def test_a_medium_is_stored_once() -> None:
    data = base64.b64encode(PNG).decode()
    image = ImageBlock(image=PNG, detail="high")
    for blocks in (
        [image],
        [CitableBlock(title="t", source="s", content=[TextBlock(text="x"), image])],
        [CitationBlock(cited_content=image, source="s", title="t", additional_location_info={})],
    ):
        with open_store("memory:") as store:
            chat = store.conversation("s")
            chat.append(to_neutral(ChatMessage(role="user", blocks=blocks)))
            (stored,) = chat.iter_messages()
        written = repr(stored)
        encoded = base64.b64encode(data.encode()).decode()
        assert written.count(data) + written.count(encoded) == 1


def test_a_stream_comes_back_as_its_bytes() -> None:
    stream = io.BytesIO(PNG)
    stream.seek(3)
    message = ChatMessage(role="user", blocks=[ImageBlock(image=stream)])
    (block,) = from_neutral(to_neutral(message)).blocks
    assert isinstance(block, ImageBlock)
    assert block.resolve_image().read() == PNG
    assert stream.tell() == 3
    nested = CitableBlock(title="t", source="s", content=[DocumentBlock(data=io.BytesIO(PDF))])
    (block,) = from_neutral(to_neutral(ChatMessage(role="user", blocks=[nested]))).blocks
    assert block.content[0].resolve_document().read() == PDF
    with pytest.raises(InvalidInputError, match=r"blocks\[0\].image: the stream cannot be read"):
        to_neutral(ChatMessage(role="user", blocks=[ImageBlock(image=io.StringIO("x"))]))


def test_a_path_whose_file_is_gone_is_read(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a b.png"
    file.write_bytes(PNG)
    message = ChatMessage(role="user", blocks=[ImageBlock(path=file), VideoBlock(path=THIS_FILE)])
    neutral = to_neutral(message)
    file.unlink()
    assert same(from_neutral(neutral), message)
    assert neutral.content[0]["url"] == f"file://{tmp_path}/a%20b.png"


def test_lone_surrogates_are_read() -> None:
    assert from_neutral(Message.user("a\ud800")).content == "a\ud800"


# -- values ------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(str, enum.Enum):
    LOW = "low"


@dataclasses.dataclass
class Noted:
    name: str
    value: Any


class Mine(BaseModel):
    a: int = 1


class Pair(list[Any]):
    pass


LONDON = zoneinfo.ZoneInfo("Europe/London")


def in_kwargs(value: Any) -> ChatMessage:
    return ChatMessage(role="user", content="x", additional_kwargs={"found": [value]})


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2024, 10, 27, 1, 30, tzinfo=LONDON, fold=1),
        dt.time(1, 2, fold=1),
        bytearray(b"x"),
        2**100,
        float("nan"),
        float("-inf"),
        decimal.Decimal("sNaN"),
        {1: {2: 3}},
        {"@": "enum"},
        {("a", 1): "tuple"},
        frozenset({"red"}),
    ],
)
def test_values_that_come_back(value: Any) -> None:
    message = in_kwargs(value)
    assert same(from_neutral(to_neutral(message)), message)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Colour.RED, "red"),
        (Level.LOW, "low"),
        (MessageRole.USER, "user"),
        ({Colour.RED}, {"red"}),
        (np.float64(1.5), 1.5),
        (np.int64(1), 1),
        (Mine(), {"a": 1}),
        (Pair([1, 2]), [1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (ChatMessage(content="nested").blocks, [TextBlock(text="nested")]),
        (Noted("a", Mine(a=2)), {"name": "a", "value": {"a": 2}}),
    ],
)
def test_objects_of_other_classes_come_back_as_plain_values(value: Any, kept: Any) -> None:
    (found,) = from_neutral(to_neutral(in_kwargs(value))).additional_kwargs["found"]
    assert same(found, kept)


@pytest.mark.parametrize(
    ("value", "name"),
    [(object(), "builtins.object"), (1j, "builtins.complex"), (threading.Lock(), "lock")],
)
def test_what_cannot_be_kept_is_left_out_and_named(
    value: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = ChatMessage(
        role="assistant",
        blocks=[
            TextBlock(text="x"),
            ThinkingBlock(content="t", additional_information={"client": value, "signature": "s"}),
            ToolCallBlock(tool_call_id="c", tool_name="f", tool_kwargs={"a": 1, "client": value}),
        ],
        additional_kwargs={"client": value, "found": [{"deep": value}, 1]},
    )
    read = from_neutral(to_neutral(message))
    assert read.additional_kwargs == {"found": [{}, 1]}
    text, thought, call = read.blocks
    assert text == TextBlock(text="x")
    assert isinstance(thought, ThinkingBlock)
    assert thought.additional_information == {"signature": "s"}
    assert isinstance(call, ToolCallBlock)
    assert call.tool_kwargs == {"a": 1}
    assert {record.name for record in caplog.records} == {"tsmemory.llamaindex"}
    assert all(name in record.message for record in caplog.records)
    assert "additional_kwargs['found'][0]['deep'] is left out" in caplog.text


def test_a_value_in_itself_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    loop: list[Any] = []
    loop.append(loop)
    read = from_neutral(to_neutral(in_kwargs(loop)))
    assert (read.content, read.additional_kwargs) == ("x", {})
    assert "in itself" in caplog.text


def test_what_is_no_message_is_refused_by_name() -> None:
    for value, name in ((Message.user("x"), "Message"), ("text", "builtins.str"), (None, "None")):
        with pytest.raises(InvalidInputError, match=name):
            to_neutral(value)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="ChatMessage"):
        from_neutral(ChatMessage(content="x"))  # type: ignore[arg-type]

    class Richer(ChatMessage):
        more: int = 1

    with pytest.raises(InvalidInputError, match="Richer would come back as a ChatMessage"):
        to_neutral(Richer(content="x"))

    class Shouted(TextBlock):
        pass

    with pytest.raises(InvalidInputError, match="Shouted is no content block"):
        to_neutral(ChatMessage(blocks=[Shouted(text="x")]))


_READ_FIRST = """
import sys
from llamaindex_tsmemory import TSMemoryChatStore
with TSMemoryChatStore(arguments[0]) as chats:
    assert "openai" not in sys.modules
    kwargs = chats.get_messages("s")[0].additional_kwargs
call, usage = kwargs["tool_calls"][0], kwargs["usage"]
print(type(call).__name__, call.function.name, call.extra, usage.total_tokens)
"""


def test_openai_objects_come_back_in_every_process(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("openai")
    from openai.types.chat import chat_completion_message_function_tool_call as calls
    from openai.types.completion_usage import CompletionUsage

    call = calls.ChatCompletionMessageFunctionToolCall.model_validate(
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'},
         "extra": "kept"}
    )  # fmt: skip
    usage = CompletionUsage(completion_tokens=1, prompt_tokens=2, total_tokens=3)
    message = ChatMessage(
        role="assistant", additional_kwargs={"tool_calls": [call], "usage": usage}
    )
    neutral = to_neutral(message)
    assert neutral.tool_calls == (ToolCall("c1", "f", {"a": 1}),)
    read = from_neutral(neutral)
    assert same(read, message)
    assert read.additional_kwargs["tool_calls"][0].model_fields_set == call.model_fields_set

    url = f"sqlite:///{tmp_path}/a.db"
    with TSMemoryChatStore(url) as chats:
        chats.add_message("s", message)
    words = printed(_READ_FIRST, url).split()
    assert words == ["ChatCompletionMessageFunctionToolCall", "f", "kept", "3"]


def test_fields_of_a_class_that_the_sdk_no_longer_has() -> None:
    name = "openai.types.chat.chat_completion_message_tool_call:Function"
    fields = {"name": 7}
    assert decode({"@": "model", "class": name, "fields": fields}) == fields
    name = "openai.types.chat.gone:Function"
    assert decode({"@": "model", "class": name, "fields": fields}) == fields


def test_reading_makes_nothing_that_the_data_names(tmp_path: pathlib.Path) -> None:
    for name in (
        "subprocess:Popen",
        "llama_index.core.storage.chat_store.simple_chat_store:SimpleChatStore",
        "llamaindex_tsmemory.chat_store:TSMemoryChatStore",
        "llama_index.core.base.llms.types:ChatMessage",
        "antigravity:anything",
        f"{__name__}:Mine",
        "builtins:dict.fromkeys",
        "openai:OpenAI",
        "openai.types.chat.chat_completion_message:BaseModel",
    ):
        fields = {"args": [f"touch {tmp_path}/made"], "url": f"sqlite:///{tmp_path}/made"}
        assert decode({"@": "model", "class": name, "fields": fields}) == fields
    assert "antigravity" not in sys.modules
    assert not list(tmp_path.iterdir())
    for tagged in ({"@": "eval", "value": "1"}, {"@": ["x"]}, {"@": "path", "class": "x"}):
        extension = {"llamaindex": {"additional_kwargs": {"x": tagged}}}
        with pytest.raises(InvalidInputError, match="does not read"):
            from_neutral(Message.user("x", extensions=extension))


def test_encode_leaves_plain_values_alone() -> None:
    value = {"a": [1, "x", None, {"b": (1, b"x")}]}
    assert encode(value, "value") is value


# -- tool calls --------------------------------------------------------------------------------

OPENAI_CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{"}},
    {"id": "c3", "type": "custom", "custom": {"name": "h", "input": "free text"}},
]


def test_both_forms_of_tool_calls_are_neutral_calls() -> None:
    old = ChatMessage(role="assistant", additional_kwargs={"tool_calls": OPENAI_CALLS})
    new = ChatMessage(
        role="assistant",
        blocks=[
            ToolCallBlock(tool_call_id="c1", tool_name="f", tool_kwargs={"a": 1}),
            ToolCallBlock(tool_call_id="c2", tool_name="g", tool_kwargs="{"),
            ToolCallBlock(tool_call_id="c3", tool_name="h", tool_kwargs="free text"),
        ],
    )
    both = ChatMessage(
        role="assistant", blocks=new.blocks, additional_kwargs={"tool_calls": OPENAI_CALLS}
    )
    for message in (old, new, both):
        calls = to_neutral(message).tool_calls
        assert [(c.id, c.name, c.arguments) for c in calls] == [
            ("c1", "f", {"a": 1}),
            ("c2", "g", "{"),
            ("c3", "h", "free text"),
        ]
        assert [c.error is None for c in calls] == [True, False, False]
        assert from_neutral(to_neutral(message)) == message


def test_a_call_that_the_window_dropped_stays_dropped(store: Store) -> None:
    chat = store.conversation("s")
    blocks = [
        TextBlock(text="let me see"),
        ToolCallBlock(tool_call_id="c1", tool_name="f", tool_kwargs='{"a": 1}'),
        ToolCallBlock(tool_call_id="c2", tool_name="g", tool_kwargs="{"),
    ]
    for caller in (
        ChatMessage(role="assistant", blocks=blocks),
        ChatMessage(role="assistant", content="x", additional_kwargs={"tool_calls": OPENAI_CALLS}),
        ChatMessage(
            role="assistant", blocks=blocks, additional_kwargs={"tool_calls": OPENAI_CALLS}
        ),
    ):
        chat.delete()
        answer = ChatMessage(role="tool", content="1", additional_kwargs={"tool_call_id": "c1"})
        chat.append(to_neutral(ChatMessage(role="user", content="?")), to_neutral(caller))
        chat.append(to_neutral(answer), to_neutral(ChatMessage(role="user", content="and?")))
        _, shown, result, _ = map(from_neutral, chat.window(10))
        assert result == answer
        assert "c2" not in repr(shown)
        assert "c3" not in repr(shown)
        assert "c1" in repr(shown)
        assert [from_neutral(m) for m in chat.iter_messages()][1] == caller
        chat.delete_message(chat.window(10)[-2].message_id)
        _, shown, _ = map(from_neutral, chat.window(10))
        assert shown.additional_kwargs == {}
        assert [type(b) for b in shown.blocks] == [TextBlock]


# -- across ------------------------------------------------------------------------------------


def test_neutral_messages_of_others() -> None:
    content: list[dict[str, Any]] = [
        {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "s"}, "id": "rs_1"},
        {
            "type": "text",
            "text": "Yes.",
            "annotations": [
                {"type": "citation", "cited_text": "q", "title": "t", "url": "https://u/"}
            ],
            "origin": {"langchain": {"anything": 1}},
        },
        {"type": "image", "base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"},
        {"type": "image", "url": "https://a.b/c.png", "extras": {"detail": "low"}},
        {"type": "audio", "base64": "SUQz", "mime_type": "audio/mpeg"},
        {"type": "video", "url": "https://a.b/c.mp4"},
        {"type": "file", "base64": "JVBERg==", "extras": {"filename": "a.pdf"}},
        {"type": "text-plain", "text": "abcd", "title": "note"},
        {"type": "refusal", "refusal": "I cannot."},
        {"type": "image", "file_id": "file-1"},
        {"type": "tool_call", "id": "c1", "name": "f", "args": {"a": 1}, "extras": {}},
        {"type": "server_tool_call", "id": "s1", "name": "search", "args": {}},
        {"type": "non_standard", "value": {"x": 1}, "origin": {"langchain": {}}},
    ]
    neutral = Message.assistant(
        content,
        tool_calls=(ToolCall("c1", "f", {"a": 1}), ToolCall("c2", "g", "{", "bad")),
        name="n",
    )
    message = from_neutral(neutral)
    assert message.role is MessageRole.ASSISTANT
    assert message.additional_kwargs == {"name": "n"}
    thinking, text, image, linked, audio, video, file, note, refused, *more = message.blocks
    lost, *calls = more
    assert refused == TextBlock(text="I cannot.")
    assert thinking == ThinkingBlock(
        content="hm", additional_information={"signature": "s", "id": "rs_1"}
    )
    assert text == TextBlock(text="Yes.")  # what it cites would be refused by most integrations
    assert image == ImageBlock(image=PNG)
    assert linked == ImageBlock(url="https://a.b/c.png", detail="low")
    assert (audio.format, audio.resolve_audio().read()) == ("mp3", b"ID3")
    assert str(video.url) == "https://a.b/c.mp4"
    assert (file.title, file.resolve_document().read()) == ("a.pdf", b"%PDF")
    assert (note.title, note.resolve_document().read()) == ("note", b"abcd")
    assert lost.text == "[image: file-1]"
    assert calls == [
        ToolCallBlock(tool_call_id="c1", tool_name="f", tool_kwargs={"a": 1}),
        ToolCallBlock(tool_call_id="c2", tool_name="g", tool_kwargs="{"),
    ]


def test_results_names_and_roles_of_others() -> None:
    result = from_neutral(Message.tool("42", tool_call_id="c1", name="f"))
    assert result == ChatMessage(
        role="tool", content="42", additional_kwargs={"tool_call_id": "c1", "name": "f"}
    )
    assert from_neutral(Message.assistant("", tool_calls=[ToolCall("1", "f", {})])).content is None
    critic = from_neutral(Message("critic", "no"))
    assert critic == ChatMessage(role="user", content="no", additional_kwargs={"name": "critic"})
    assert from_neutral(Message("the critic", "no")) == ChatMessage(role="user", content="no")
    assert from_neutral(Message("critic", "no", name="Bo")).additional_kwargs == {"name": "Bo"}


# -- introspection: a later release's new parts fail here ----------------------------------------

KNOWN_FIELDS = {
    "ChatMessage": {"role", "additional_kwargs", "blocks"},
    "TextBlock": {"block_type", "text"},
    "ImageBlock": {"block_type", "image", "path", "url", "image_mimetype", "detail"},
    "AudioBlock": {"block_type", "audio", "path", "url", "format"},
    "VideoBlock": {"block_type", "video", "path", "url", "video_mimetype", "detail", "fps"},
    "DocumentBlock": {"block_type", "data", "path", "url", "title", "document_mimetype"},
    "CachePoint": {"block_type", "cache_control"},
    "CacheControl": {"type", "ttl"},
    "CitableBlock": {"block_type", "title", "source", "content"},
    "CitationBlock": {
        "block_type",
        "cited_content",
        "source",
        "title",
        "additional_location_info",
    },
    "ThinkingBlock": {"block_type", "content", "num_tokens", "additional_information"},
    "ToolCallBlock": {"block_type", "tool_call_id", "tool_name", "tool_kwargs"},
}


def test_every_role_block_and_field_is_known() -> None:
    assert {role.value for role in MessageRole} == {
        *("system", "developer", "user", "assistant", "function", "tool", "chatbot", "model")
    }
    union = set(union_members(ContentBlock))
    assert union == set(BLOCK_TYPES.values()) == set(BLOCKS)
    written = set(WRITERS) | {CachePoint, CitationBlock}  # those two have other ways
    assert union == written
    cache_control = CachePoint.model_fields["cache_control"].annotation
    assert cache_control is not None
    for kind in (ChatMessage, cache_control, *union):
        assert set(kind.model_fields) <= KNOWN_FIELDS[kind.__name__], kind  # an older one has fewer


def test_a_block_of_a_later_release_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class NewBlock(TextBlock):
        block_type: Literal["new"] = "new"  # type: ignore[assignment]
        when: dt.date

    monkeypatch.setitem(BLOCK_TYPES, "new", NewBlock)
    block = NewBlock(text="x", when=dt.date(2030, 1, 1))
    (neutral,) = to_blocks([block])
    assert neutral["value"] == {"type": "new", "text": "x", "when": dt.date(2030, 1, 1)}
    assert from_blocks([neutral]) == [block]
    monkeypatch.undo()
    assert from_blocks([neutral]) == []
