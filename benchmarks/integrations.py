"""What each integration costs beside the framework's own in-memory store, in one run.

The floor of each table is the framework with its own store, which forgets when the process ends.
Ours is measured on the memory engine, which shows what the adapter costs, and on SQLite, where each
write is on disk. The model answers at once: with one that takes a second, all ratios are 1.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.core.storage.chat_store import SimpleChatStore
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

from benchmarks._measure import Case, compare, console, show
from langchain_tsmemory import TSMemoryMiddleware, history_factory
from llamaindex_tsmemory import TSMemoryAsyncChatStore, TSMemoryChatStore
from tsmemory import Store, open_store

__all__ = ["main"]

TURNS = 10  # that each conversation has before a turn is measured
WINDOW = 20


def _model() -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=(AIMessage("At 08:30.") for _ in itertools.count()))


def _measured(cases: dict[str, Callable[[str], object]], rounds: int) -> dict[str, float]:
    """Each case takes one turn of a conversation that has had `TURNS` before."""
    sessions = (f"s{i}" for i in itertools.count())

    def turn(case: Callable[[str], object]) -> Case:
        waiting: list[str] = []
        for _ in range(rounds + 1):
            session = next(sessions)
            for _ in range(TURNS):
                case(session)
            waiting.append(session)
        return lambda: case(waiting.pop())

    return compare({name: turn(case) for name, case in cases.items()}, rounds)


def _agents(memory: Store, disk: Store) -> dict[str, Callable[[str], object]]:
    def run(made: Any) -> Callable[[str], object]:
        return lambda session: made.invoke(
            {"messages": [HumanMessage("Which ferry goes to Bergen?")]},
            {"configurable": {"thread_id": session}},
        )

    own = create_agent(_model(), checkpointer=InMemorySaver())
    cases = {"InMemorySaver": run(own)}
    for name, store in (("memory", memory), ("sqlite", disk)):
        made = create_agent(_model(), middleware=[TSMemoryMiddleware(store, window=WINDOW)])
        cases[f"TSMemoryMiddleware, {name}"] = run(made)
    return cases


def _chains(memory: Store, disk: Store) -> dict[str, Callable[[str], object]]:
    model = RunnableLambda(lambda messages: AIMessage("At 08:30."))

    def run(chain: Any) -> Callable[[str], object]:
        return lambda session: chain.invoke(
            [HumanMessage("Which ferry goes to Bergen?")], {"configurable": {"session_id": session}}
        )

    kept: dict[str, InMemoryChatMessageHistory] = {}
    own = RunnableWithMessageHistory(
        model, lambda session_id: kept.setdefault(session_id, InMemoryChatMessageHistory())
    )
    cases = {"InMemoryChatMessageHistory": run(own)}
    for name, store in (("memory", memory), ("sqlite", disk)):
        chain = RunnableWithMessageHistory(model, history_factory(store, window=WINDOW))
        cases[f"TSMemoryChatMessageHistory, {name}"] = run(chain)
    return cases


def _exchange() -> list[ChatMessage]:
    return [
        ChatMessage(role="user", content="Which ferry goes to Bergen?"),
        ChatMessage(role="assistant", content="At 08:30."),
    ]


def _buffers(memory: Store, disk: Store) -> dict[str, Callable[[str], object]]:
    def run(store: Any) -> Callable[[str], object]:
        def turn(session: str) -> None:
            kept = ChatMemoryBuffer.from_defaults(
                chat_store=store, chat_store_key=session, tokenizer_fn=str.split
            )
            question, answer = _exchange()
            kept.put(question)
            kept.get()
            kept.put(answer)

        return turn

    return {
        "SimpleChatStore": run(SimpleChatStore()),
        "TSMemoryChatStore, memory": run(TSMemoryChatStore(memory)),
        "TSMemoryChatStore, sqlite": run(TSMemoryChatStore(disk)),
    }


def _memories(
    memory: Store, disk: Store, own: SQLAlchemyChatStore, loop: asyncio.AbstractEventLoop
) -> dict[str, Callable[[str], object]]:
    def run(store: Any) -> Callable[[str], object]:
        async def turn(session: str) -> None:
            kept = Memory.from_defaults(
                session_id=session, chat_store=store, tokenizer_fn=str.split
            )
            question, answer = _exchange()
            await kept.aput(question)
            await kept.aget()
            await kept.aput(answer)

        return lambda session: loop.run_until_complete(turn(session))

    return {
        "SQLAlchemyChatStore, in memory": run(own),
        "TSMemoryAsyncChatStore, memory": run(TSMemoryAsyncChatStore(memory)),
        "TSMemoryAsyncChatStore, sqlite": run(TSMemoryAsyncChatStore(disk)),
    }


def main(rounds: int = 100) -> None:
    """Print a table for each integration: the median of one turn, and its ratio to the floor."""
    warnings.simplefilter("ignore")  # RunnableWithMessageHistory is deprecated upstream
    console.print(f"One turn behind {TURNS} others; medians of {rounds}.")
    loop = asyncio.new_event_loop()
    own = SQLAlchemyChatStore(table_name="m")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store("memory:") as memory,
        open_store(f"sqlite:///{Path(folder) / 'c.db'}?durability=normal") as disk,
    ):
        show("create_agent", _measured(_agents(memory, disk), rounds))
        show("RunnableWithMessageHistory", _measured(_chains(memory, disk), rounds))
        show("ChatMemoryBuffer", _measured(_buffers(memory, disk), rounds))
        show("Memory", _measured(_memories(memory, disk, own, loop), rounds))
        loop.run_until_complete(memory.aclose())
        loop.run_until_complete(disk.aclose())
    if own._async_engine is not None:
        loop.run_until_complete(own._async_engine.dispose())
    loop.close()


if __name__ == "__main__":
    main()
