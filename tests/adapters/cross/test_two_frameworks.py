"""One conversation, two frameworks: what one wrote the other reads, and nothing is lost at home."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock

import langchain_tsmemory
import llamaindex_tsmemory
from langchain_tsmemory import TSMemoryChatMessageHistory
from llamaindex_tsmemory import TSMemoryChatStore
from tests._chat_api import conversations, refusal
from tsmemory import Message, Store, from_openai, open_store, to_openai


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path / 'c.db'}?durability=normal"}
    with open_store(urls[request.param]) as opened:
        yield opened


class Frameworks:
    """Both frameworks on one store, called in one mode."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop | None) -> None:
        self.store = store
        self.loop = loop  # None: synchronous
        self.chat_store = TSMemoryChatStore(store=store)

    def _call(self, plain: Callable[[], Any], async_call: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return await async_call()

        return plain() if self.loop is None else self.loop.run_until_complete(run())

    def langchain_write(self, session: str, messages: list[BaseMessage]) -> None:
        history = TSMemoryChatMessageHistory(session, store=self.store)
        self._call(lambda: history.add_messages(messages), lambda: history.aadd_messages(messages))

    def langchain_read(self, session: str) -> list[BaseMessage]:
        history = TSMemoryChatMessageHistory(session, store=self.store)
        return self._call(lambda: history.messages, history.aget_messages)

    def llamaindex_write(self, session: str, messages: list[ChatMessage]) -> None:
        for message in messages:
            self._call(
                lambda m=message: self.chat_store.add_message(session, m),
                lambda m=message: self.chat_store.async_add_message(session, m),
            )

    def llamaindex_read(self, session: str) -> list[ChatMessage]:
        return self._call(
            lambda: self.chat_store.get_messages(session),
            lambda: self.chat_store.aget_messages(session),
        )


@pytest.fixture(params=["sync", "async"])
def frameworks(store: Store, request: pytest.FixtureRequest) -> Iterator[Frameworks]:
    if request.param == "sync":
        yield Frameworks(store, None)
        return
    loop = asyncio.new_event_loop()
    yield Frameworks(store, loop)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


Facts = list[tuple[Any, ...]]


def facts_of_openai(raws: list[dict[str, Any]]) -> Facts:
    """Role, text, calls, the id answered and the name: what every framework must agree on."""
    return facts([from_openai(raw) for raw in raws])


def facts(messages: list[Message]) -> Facts:
    return [
        (
            m.role,
            m.text,
            [(c.id, c.name, c.arguments) for c in m.tool_calls],
            m.tool_call_id,
            m.name,
        )
        for m in messages
    ]


_LANGCHAIN_ROLES = {"human": "user", "ai": "assistant"}


def facts_of_langchain(messages: list[BaseMessage]) -> Facts:
    return [
        (
            _LANGCHAIN_ROLES.get(m.type, m.type),
            str(m.text),
            [(c["id"], c["name"], c["args"]) for c in getattr(m, "tool_calls", ())],
            getattr(m, "tool_call_id", None),
            m.name,
        )
        for m in messages
    ]


def facts_of_llamaindex(messages: list[ChatMessage]) -> Facts:
    return [
        (
            m.role.value,
            m.content or "",
            [
                (b.tool_call_id, b.tool_name, b.tool_kwargs)
                for b in m.blocks
                if isinstance(b, ToolCallBlock)
            ],
            m.additional_kwargs.get("tool_call_id"),
            m.additional_kwargs.get("name"),
        )
        for m in messages
    ]


def llamaindex_message(raw: dict[str, Any]) -> ChatMessage:
    """A message of the OpenAI format as a LlamaIndex integration would make it."""
    message = from_openai(raw)
    extra = {k: raw[k] for k in ("tool_call_id", "name") if k in raw}
    blocks: list[Any] = [TextBlock(text=message.text)] if message.text else []
    blocks += [
        ToolCallBlock(tool_call_id=c.id, tool_name=c.name, tool_kwargs=c.arguments)
        for c in message.tool_calls
    ]
    return ChatMessage(role=raw["role"], blocks=blocks, additional_kwargs=extra)


def test_langchain_writes_both_read(frameworks: Frameworks) -> None:
    for name, raws in conversations().items():
        messages = convert_to_messages(raws)
        frameworks.langchain_write(name, messages)
        assert frameworks.langchain_read(name) == messages
        assert facts_of_llamaindex(frameworks.llamaindex_read(name)) == facts_of_openai(raws)


def test_llamaindex_writes_both_read(frameworks: Frameworks) -> None:
    for name, raws in conversations().items():
        messages = [llamaindex_message(raw) for raw in raws]
        frameworks.llamaindex_write(name, messages)
        assert frameworks.llamaindex_read(name) == messages
        assert facts_of_langchain(frameworks.langchain_read(name)) == facts_of_openai(raws)


def test_the_openai_format_is_a_door_too(store: Store) -> None:
    for name, raws in conversations().items():
        frameworks = Frameworks(store, None)
        frameworks.langchain_write(name, convert_to_messages(raws))
        found = [to_openai(m) for m in store.conversation(name).iter_messages()]
        assert facts_of_openai(found) == facts_of_openai(raws)


def test_in_turns(frameworks: Frameworks) -> None:
    """Each framework goes on where the other stopped; both see one whole transcript."""
    for name, raws in list(conversations().items())[:10]:
        for i in range(0, len(raws), 6):
            frameworks.langchain_write(name, convert_to_messages(raws[i : i + 3]))
            frameworks.llamaindex_write(name, [llamaindex_message(r) for r in raws[i + 3 : i + 6]])
            expected = facts_of_openai(raws[: i + 6])
            assert facts_of_langchain(frameworks.langchain_read(name)) == expected
            assert facts_of_llamaindex(frameworks.llamaindex_read(name)) == expected


def test_saving_what_was_read_changes_nothing(frameworks: Frameworks, store: Store) -> None:
    """`set_messages` of what LangChain wrote keeps what only LangChain can say."""
    original = [
        SystemMessage("rules"),
        HumanMessage("hi", id="h1"),
        AIMessage(
            "hello",
            id="a1",
            response_metadata={"model": "m"},
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        ),
        ToolMessage("r", tool_call_id="t", artifact={"x": b"1"}, status="error"),
    ]
    frameworks.langchain_write("s", original)
    version = store.conversation("s").session().version
    read = frameworks.llamaindex_read("s")
    frameworks.chat_store.set_messages("s", read)
    assert frameworks.langchain_read("s") == original
    assert store.conversation("s").session().version == version
    frameworks.chat_store.set_messages("s", [*read, ChatMessage(role="user", content="more")])
    assert frameworks.langchain_read("s")[:-1] == original
    assert frameworks.langchain_read("s")[-1].text == "more"


def test_blocks_cross(frameworks: Frameworks) -> None:
    png = "iVBORw0KGgo="
    frameworks.langchain_write(
        "lc",
        [
            HumanMessage(
                [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}},
                    {"type": "image", "url": "https://example.org/a.png"},
                ]
            )
        ],
    )
    (message,) = frameworks.llamaindex_read("lc")
    text, data, link = message.blocks
    assert (text.text, type(data), type(link)) == ("look", ImageBlock, ImageBlock)
    assert data.resolve_image(as_base64=True).read().decode() == png
    assert data.image_mimetype == "image/png"
    assert str(link.url) == "https://example.org/a.png"

    frameworks.llamaindex_write("li", [ChatMessage(role="user", blocks=message.blocks)])
    (back,) = frameworks.langchain_read("li")
    kinds = [block["type"] for block in back.content_blocks]
    assert kinds == ["text", "image", "image"]
    assert back.content_blocks[1]["base64"] == png


def test_windows_are_the_same_through_every_door(store: Store) -> None:
    for name, raws in list(conversations().items())[:15]:
        chat = store.conversation(name)
        history = TSMemoryChatMessageHistory(name, store=store, window=6)
        engine = TSMemoryChatStore(store=store, window=6)
        for raw in raws:
            chat.append(from_openai(raw))
            shown = chat.window(6)
            assert refusal(shown) is None
            assert facts_of_langchain(history.messages) == facts(shown)
            assert facts_of_llamaindex(engine.get_messages(name)) == facts(shown)


def test_a_dropped_call_comes_back_through_no_door(store: Store) -> None:
    """A call that never got its result is left out of windows, in every form that it has."""
    raw_call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = TSMemoryChatMessageHistory("s", store=store, window=9)
    history.add_messages(
        [
            HumanMessage("hi"),
            AIMessage(
                [{"type": "text", "text": "look"}, {"type": "tool_use", "id": "c1", "name": "f",
                                                    "input": {}}],
                tool_calls=[{"name": "f", "args": {}, "id": "c1"}],
                additional_kwargs={"tool_calls": [raw_call]},
            ),
            HumanMessage("and?"),
        ]
    )  # fmt: skip
    _, look, _ = history.messages
    assert look.tool_calls == []
    assert "c1" not in str(look.model_dump())
    _, look, _ = TSMemoryChatStore(store=store, window=9).get_messages("s")
    assert "c1" not in str(look.model_dump())
    assert len(TSMemoryChatMessageHistory("s", store=store).messages[1].tool_calls) == 1


def test_the_mappings_meet_in_the_neutral_form() -> None:
    neutral = from_openai(
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
            ],
        }
    )
    for mapping in (langchain_tsmemory, llamaindex_tsmemory):
        (again,) = facts([mapping.to_neutral(mapping.from_neutral(neutral))])
        assert [again] == facts([neutral])
