"""What contenders of several engines have in common: ours, and the frameworks' interfaces."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.contenders import (
    SESSION,
    SESSIONS,
    WORD,
    Append,
    Contender,
    bodies,
    new_id,
    text,
)

__all__ = [
    "appender", "bytes_of", "langchain_appender", "langchain_history", "langchain_messages",
    "llamaindex_store", "saver", "tsmemory_store",
]  # fmt: skip


def appender(open_them: Callable[[int], Any]) -> Callable[[int], AbstractAsyncContextManager[Any]]:
    """`Contender.appender` of an async generator function that gives it once."""
    return asynccontextmanager(open_them)


def bytes_of(path: Path) -> float:
    """Bytes of a file with what belongs to it (``-wal``), or of all in a directory."""
    if path.suffix == ".db":
        import sqlite3

        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return float(sum(file.stat().st_size for file in files if file.is_file()))


def tsmemory_store(
    stack: ExitStack, url: str, size: Callable[[], float] | None = None, *, search: bool = True
) -> Contender:
    """Ours, by its public names."""
    from tsmemory import Message, open_store

    store = stack.enter_context(open_store(url))
    store.setup()
    chat = store.conversation(SESSION)
    roles = ("user", "assistant")

    def begin() -> None:
        for i in range(SESSIONS):
            store.conversation(f"s{i}").append(Message.user("x"))

    def hold(name: str) -> object:
        opened = store.conversation(name)
        opened.append(Message.user(text()))
        return opened

    async def tasks(_: int) -> AsyncIterator[Append]:
        async with open_store(url) as served:
            await served.asetup()
            yield lambda number: served.conversation(f"a{number}").aappend(Message.user(text()))

    return Contender(
        lambda count: chat.append(*[Message(roles[i % 2], text()) for i in range(count)]),
        lambda: chat.window(20),
        lambda: store.list_sessions(user_id="default", limit=20),
        (lambda: store.search_messages(WORD, limit=20)) if search else None,
        begin=begin,
        hold=hold,
        size=size,
        appender=appender(tasks),
    )


# -- LangChain -------------------------------------------------------------------------------


def langchain_messages(count: int) -> list[Any]:
    from langchain_core.messages import AIMessage, HumanMessage

    return [(HumanMessage, AIMessage)[i % 2](text(), id=new_id()) for i in range(count)]


def langchain_appender(make: Callable[[str], Any]) -> Callable[[int], Any]:
    """Tasks on histories that `make` gives: `aadd_messages`, which is a thread of the loop's
    executor where a history does not write its own."""

    async def tasks(count: int) -> AsyncIterator[Append]:
        histories = [make(f"a{number}") for number in range(count)]
        yield lambda number: histories[number].aadd_messages(langchain_messages(1))

    return appender(tasks)


def langchain_history(make: Callable[[str], Any], **more: Any) -> Contender:
    """A chat message history, which `make` opens by its session id."""
    history = make(SESSION)

    def hold(name: str) -> object:
        opened = make(name)
        opened.add_messages(langchain_messages(1))
        return opened

    more.setdefault("appender", langchain_appender(make))
    more.setdefault("hold", hold)
    return Contender(
        lambda count: history.add_messages(langchain_messages(count)),
        lambda: history.messages[-20:],
        **more,
    )


# -- LlamaIndex ------------------------------------------------------------------------------


def llamaindex_messages(count: int) -> list[Any]:
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(**body) for body in bodies(count)]


def llamaindex_store(store: Any, **more: Any) -> Contender:
    """A `BaseChatStore`."""

    def append(count: int) -> None:
        for message in llamaindex_messages(count):
            store.add_message(SESSION, message)

    def hold(name: str) -> None:
        store.add_message(name, llamaindex_messages(1)[0])

    async def tasks(_: int) -> AsyncIterator[Append]:
        yield lambda number: store.async_add_message(f"a{number}", llamaindex_messages(1)[0])

    more.setdefault("appender", appender(tasks))
    return Contender(append, lambda: store.get_messages(SESSION)[-20:], hold=hold, **more)


# -- langgraph -------------------------------------------------------------------------------


class SavedThread:
    """A checkpoint per append, with the whole list of messages, as an agent's turn writes it."""

    def __init__(self, thread: str) -> None:
        self.config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        self.messages: list[Any] = []
        self.versions = itertools.count(1)

    def next(self, count: int) -> tuple[Any, ...]:
        """The arguments of a saver's ``put``."""
        from langgraph.checkpoint.base import empty_checkpoint

        self.messages.extend(langchain_messages(count))
        number = str(next(self.versions))
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": self.messages}
        checkpoint["channel_versions"] = {"messages": number}
        return self.config, checkpoint, {}, {"messages": number}


def saver(kept: Any, tasks: Callable[[int], Any] | None = None, **more: Any) -> Contender:
    """A checkpointer; a session is a thread of it."""
    thread = SavedThread(SESSION)

    def window() -> object:
        return kept.get_tuple(thread.config).checkpoint["channel_values"]["messages"][-20:]

    def append(count: int) -> None:
        # A process that continues a thread has its messages from the newest checkpoint.
        if not thread.messages and (found := kept.get_tuple(thread.config)):
            thread.messages.extend(found.checkpoint["channel_values"]["messages"])
        kept.put(*thread.next(count))

    return Contender(
        append,
        window,
        hold=lambda name: kept.put(*SavedThread(name).next(1)),
        appender=appender(tasks) if tasks else None,
        **more,
    )
