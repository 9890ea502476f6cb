"""In memory: nothing outlives the process."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

from benchmarks.contenders import MARGIN, SESSION, Append, Contender, Place, bodies, new_id, view
from benchmarks.contenders.shared import (
    SavedThread,
    appender,
    langchain_history,
    llamaindex_store,
    saver,
    tsmemory_store,
)

__all__ = ["floor", "langchain", "llamaindex", "ours", "saver_in_memory"]


class ByHand:
    """Lists of dictionaries under a lock, with ids, increasing times and the latest activity. It
    copies nothing: a caller can change what is stored."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.ids: dict[str, set[str]] = {}
        self.active: dict[str, int] = {}

    def append(self, session: str, messages: list[dict[str, Any]]) -> None:
        with self.lock:
            rows, ids = self.rows.setdefault(session, []), self.ids.setdefault(session, set())
            last = rows[-1]["create_time"] if rows else 0
            for message in messages:
                message_id = new_id()
                if message_id not in ids:
                    ids.add(message_id)
                    last = max(time.time_ns() // 1000, last + 1)
                    rows.append({"message_id": message_id, "create_time": last, **message})
            self.active[session] = last

    def window(self, session: str) -> list[dict[str, Any]]:
        with self.lock:
            return view(self.rows[session][: -21 - MARGIN : -1], [])

    def listing(self) -> list[dict[str, Any]]:
        with self.lock:
            newest = sorted(self.active.items(), key=lambda pair: pair[1], reverse=True)[:20]
            return [{"id": s, "time": t, "count": len(self.rows[s])} for s, t in newest]


def floor(stack: ExitStack, place: Place) -> Contender:
    store = ByHand()

    async def tasks(_: int) -> AsyncIterator[Append]:
        async def append(number: int) -> None:
            store.append(f"a{number}", bodies(1))

        yield append

    return Contender(
        lambda count: store.append(SESSION, bodies(count)),
        lambda: store.window(SESSION),
        store.listing,
        begin=lambda: [store.append(f"s{i}", bodies(1)) for i in range(200)],
        hold=lambda name: store.append(name, bodies(1)),
        appender=appender(tasks),
    )


def ours(stack: ExitStack, place: Place) -> Contender:
    return tsmemory_store(stack, "memory:")


def langchain(stack: ExitStack, place: Place) -> Contender:
    from langchain_core.chat_history import InMemoryChatMessageHistory

    return langchain_history(lambda session: InMemoryChatMessageHistory())


def llamaindex(stack: ExitStack, place: Place) -> Contender:
    from llama_index.core.storage.chat_store import SimpleChatStore

    return llamaindex_store(SimpleChatStore())


def saver_in_memory(stack: ExitStack, place: Place) -> Contender:
    from langgraph.checkpoint.memory import InMemorySaver

    kept = InMemorySaver()

    async def tasks(count: int) -> AsyncIterator[Append]:
        threads = [SavedThread(f"a{number}") for number in range(count)]
        yield lambda number: kept.aput(*threads[number].next(1))

    return saver(kept, tasks)
