# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Mistakes that a type checker must report: an ignore that nothing needs is an error."""

from __future__ import annotations

from langchain_tsmemory import TSMemoryChatMessageHistory
from tsmemory import Message, Store, ToolCall, Window, open_store
from tsmemory.blocks import ImageBlock, TextBlock, ToolCallBlock


def misspelt(store: Store) -> None:
    chat = store.conversation("s")
    store.conversation("s", user="u")  # type: ignore[call-arg]
    open_store("memory:", ttl="an hour")  # type: ignore[arg-type]
    chat.append(Message.user("hi"), if_verson=3)  # type: ignore[call-arg]
    chat.window(lst=20)  # type: ignore[call-overload]
    chat.list_messages(limits=5)  # type: ignore[call-arg]
    Message.user("hi", id="m")  # type: ignore[call-arg]
    Message.user("hi", tool_call_id="c")  # type: ignore[call-arg]
    Window(latest=20)  # type: ignore[call-arg]


def of_another_type(store: Store) -> None:
    chat = store.conversation("s")
    open_store(5)  # type: ignore[arg-type]
    chat.append(5)  # type: ignore[arg-type]
    chat.append("hi")  # type: ignore[arg-type]
    chat.window("20")  # type: ignore[call-overload]
    Message.user(5)  # type: ignore[arg-type]
    Message.assistant(tool_calls=ToolCall("c", "f", {}))  # type: ignore[arg-type]
    Message.tool("no call")  # type: ignore[call-arg]
    chat.session().title  # type: ignore[union-attr]  # noqa: B018


def blocks() -> None:
    TextBlock(type="text", txt="hi")  # type: ignore[typeddict-unknown-key,typeddict-item]
    TextBlock(type="text")  # type: ignore[typeddict-item]
    TextBlock(type="image", text="hi")  # type: ignore[typeddict-item]
    ImageBlock(type="image", url=b"https://e.org/a.png")  # type: ignore[typeddict-item]
    ToolCallBlock(type="tool_call", id="c", name="f", args="{}")  # type: ignore[typeddict-item]
    Message.user(["hi"])  # type: ignore[list-item]
    Message.user({"type": "text", "text": "hi"})  # type: ignore[arg-type]
    Message.user(b"hi")  # type: ignore[arg-type]


def frozen() -> None:
    Message.user("hi").content = "other"  # type: ignore[misc]


async def not_awaited(store: Store) -> None:
    messages: list[Message] = store.conversation("s").awindow(5)  # type: ignore[assignment]
    print(messages)


def adapters() -> None:
    TSMemoryChatMessageHistory("s", store=5)  # type: ignore[arg-type]
