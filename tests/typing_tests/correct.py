# pyright: strict
"""What an application writes, and the types that it gets."""

from __future__ import annotations

import datetime as dt
import uuid

from agents.memory import Session as AgentsSession
from langchain_core.messages import BaseMessage
from llama_index.core.base.llms.types import ChatMessage
from typing_extensions import assert_type

from langchain_tsmemory import TSMemoryChatMessageHistory
from llamaindex_tsmemory import TSMemoryChatStore
from openai_agents_tsmemory import TSMemorySession
from tsmemory import (
    Block,
    Conversation,
    Erased,
    Message,
    MessageList,
    Page,
    Session,
    Store,
    ToolCall,
    Window,
    WindowReport,
    from_openai,
    open_store,
    where,
)
from tsmemory.blocks import Content, ContentBlock, ImageBlock, TextBlock


def core(store: Store) -> None:
    assert_type(open_store("sqlite:///chat.db", ttl=60), Store)
    chat = store.conversation("s", user_id="u")
    assert_type(chat, Conversation)
    call = ToolCall("c", "weather", {"city": "Bergen"})
    assert_type(
        chat.append(
            Message.user("hi", message_id="m", metadata={"n": 1}),
            Message.assistant(tool_calls=[call]),
            Message.tool("rain", tool_call_id="c"),
        ),
        list[Message],
    )
    assert_type(chat.append([Message.user("a list")], if_version=3), list[Message])
    assert_type(chat.append({"role": "user", "content": "OpenAI's"}), list[Message])
    assert_type(from_openai({"role": "user", "content": "hi"}), Message)
    assert_type(chat.window(20), MessageList)
    assert_type(chat.window(Window(last=20, max_tokens=4000), explain=True), WindowReport)
    assert_type(chat.list_messages(limit=5, where=where("n") > 1), Page[Message])
    assert_type(store.list_sessions(user_id="u"), Page[Session])
    assert_type(chat.session(), Session | None)
    assert_type(chat.get_message("m"), Message | None)
    assert_type(chat.delete(), Erased)
    for message in chat.iter_messages():
        assert_type(message, Message)
        assert_type(message.text, str)
    store.conversation(uuid.uuid4(), user_id=7)
    Message.user("when", create_time=dt.datetime.now(dt.timezone.utc))


def blocks() -> None:
    Message.user([{"type": "text", "text": "hi"}, {"type": "image", "url": "https://e.org/a.png"}])
    Message.user([{"type": "input_text", "text": "a provider's own"}])
    text: TextBlock = {"type": "text", "text": "Where is this?"}
    image: ImageBlock = {"type": "image", "base64": "R0lG", "mime_type": "image/gif"}
    Message.user([text, image])
    Message.tool([TextBlock(type="text", text="rain")], tool_call_id="c")
    typed: list[TextBlock] = [text]
    standard: list[ContentBlock] = [text, image]
    plain: list[Block] = [{"type": "text", "text": "hi"}]
    for content in (typed, standard, plain, (text, image), "text"):
        Message.assistant(content)
    content_of: Content = [text, *plain]
    Message.system(content_of)
    assert_type(Message.developer(typed).content, str | list[Block])


async def asynchronous() -> None:
    async with open_store("memory:") as store:
        chat = store.conversation("s")
        assert_type(await chat.aappend(Message.user("hi")), list[Message])
        assert_type(await chat.awindow(20), MessageList)
        assert_type(await chat.awindow(20, explain=True), WindowReport)
        assert_type(await chat.asession(), Session | None)
        async for message in chat.aiter_messages():
            assert_type(message, Message)


def langchain() -> None:
    with TSMemoryChatMessageHistory("s", store="sqlite:///chat.db", window=20) as history:
        assert_type(history.messages, list[BaseMessage])


def llamaindex(store: Store) -> None:
    chats = TSMemoryChatStore(store, user_id="u")
    assert_type(chats.get_messages("s"), list[ChatMessage])


def openai_agents(store: Store) -> AgentsSession:
    return TSMemorySession("s", store=store, user_id="u", window=20)
