"""Real conversations through every integration and back, in turns, and two runs at once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents.middleware import wrap_tool_call
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from llama_index.core.memory import Memory
from llama_index.core.storage.chat_store.base_db import MessageStatus

from langchain_tsmemory import TSMemoryChatMessageHistory, history_factory
from llamaindex_tsmemory import TSMemoryAsyncChatStore, TSMemoryChatStore
from tests._chat_api import conversations, refusal
from tests.adapters._python import CONFIGURED_IN_ASYNCIO
from tests.adapters.agents._agents import (
    agent,
    ask,
    ask_llama,
    config,
    roles,
    texts,
    tool_of,
    transcript,
)
from tests.adapters.agents._models import ScriptedLLM, ScriptedModel, llama_loop, loop, say
from tests.adapters.cross.test_two_frameworks import (
    facts,
    facts_of_langchain,
    facts_of_llamaindex,
    facts_of_openai,
    llamaindex_message,
)
from tsmemory import ConflictError, Message, Store

pytestmark = [
    # RunnableWithMessageHistory is deprecated upstream; it is still supported.
    pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory"),
    # llama-index-workflows looks at every attribute of an agent, deprecated ones of pydantic too.
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
]


# -- the real conversations --------------------------------------------------------------------


class EndOfScriptError(Exception):
    """The conversation ends with a tool's result, behind which a model is asked once more."""


def replay(raws: list[dict[str, Any]]) -> tuple[ScriptedModel, list[Any], Callable[..., Any]]:
    """A model that says what the assistant of a conversation said; its user's turns; its tools."""
    messages = convert_to_messages(raws)
    answers = [m for m in messages if isinstance(m, AIMessage)]
    results = {}
    waiting = iter([m for m in messages if isinstance(m, ToolMessage)])
    for answer in answers:
        for call in answer.tool_calls:
            results[id(answer), call["id"]] = next(waiting)
    said: list[AIMessage] = []

    def script(shown: list[Any]) -> AIMessage:
        if len(said) == len(answers):
            raise EndOfScriptError
        said.append(answers[len(said)])
        return said[-1].model_copy()

    def run(request: Any, handler: Any) -> ToolMessage:
        found = results[id(said[-1]), request.tool_call["id"]]
        return found.model_copy()

    return ScriptedModel(script=script), messages, run


@pytest.mark.parametrize(  # what keeps the state of a run knows nothing of the store
    ("store", "kept"),
    [("sqlite", False), ("memory", True)],
    ids=["state of a run", "checkpointer"],
    indirect=["store"],
)
def test_real_conversations_under_create_agent(store: Store, kept: bool) -> None:
    for name, raws in conversations().items():
        model, messages, run = replay(raws)
        made = agent(
            store,
            model,
            wrap_tool_call(run),
            checkpointer=InMemorySaver() if kept else None,
        )
        pending: list[Any] = []
        for i, message in enumerate(messages):
            if isinstance(message, (AIMessage, ToolMessage)) and not pending:
                continue
            if isinstance(message, (AIMessage, ToolMessage)):
                with contextlib.suppress(EndOfScriptError):
                    made.invoke({"messages": pending}, config(name, thread_id=name))
                pending = []
            else:
                pending.append(message.model_copy(update={"id": f"m{i}"}))
        stored = TSMemoryChatMessageHistory(name, store=store).messages
        count = len(stored)
        assert facts_of_langchain(stored) == facts_of_openai(raws)[:count]
        # What a conversation ends with unanswered, a last "thank you" say, no agent was asked.
        assert all(m.type == "human" for m in messages[count:])


def test_real_conversations_under_memory(store: Store) -> None:
    async def run() -> None:
        for name, raws in conversations().items():
            written = [llamaindex_message(raw) for raw in raws]
            kept = Memory.from_defaults(
                session_id=name,
                chat_store=TSMemoryAsyncChatStore(store),
                tokenizer_fn=str.split,
                token_limit=600,
                token_flush_size=100,
            )
            for i in range(0, len(written), 5):
                await kept.aput_messages([m.model_copy(deep=True) for m in written[i : i + 5]])
            assert await kept.aget_all() == written
            assert facts(transcript(store, name)) == facts_of_openai(raws)
            active = [m async for m in store.conversation(name).aiter_messages(order="asc")][
                -len(await kept.aget_all(MessageStatus.ACTIVE)) :
            ]
            assert refusal(active) is None or active[-1].tool_calls
            assert facts_of_langchain(
                TSMemoryChatMessageHistory(name, store=store).messages
            ) == facts_of_openai(raws)

    asyncio.run(run())


def test_real_conversations_are_the_same_through_every_door(store: Store) -> None:
    for name, raws in conversations().items():
        TSMemoryChatMessageHistory(name, store=store).add_messages(convert_to_messages(raws))
        found = asyncio.run(TSMemoryAsyncChatStore(store).get_messages(name, None))
        assert facts_of_llamaindex(found) == facts_of_openai(raws)
        assert found == TSMemoryChatStore(store).get_messages(name)


# -- one conversation, three integrations --------------------------------------------------------


def test_a_conversation_moves_between_integrations(store: Store, mode: str) -> None:
    model = ScriptedModel(script=loop(2))
    state = ask(agent(store, model), "first", mode=mode)
    first = ["first", "step 1", "did 1", "step 2", "did 2", "2 steps done"]
    assert texts(store) == first
    assert ids_of(store) == [m.id for m in state["messages"]]

    llm = ScriptedLLM(script=llama_loop(1))
    assert asyncio.run(ask_llama(store, llm, "second")) == "1 steps done"
    second = [*first, "second", "step 1", "did 1", "1 steps done"]
    assert texts(store) == second
    shown = llm.requests[-1]
    assert [m.content for m in shown] == ["Be brief.", *second[:-1]]
    assert facts_of_llamaindex(shown[1:]) == facts(transcript(store)[:-1])

    answer = RunnableLambda(lambda found: AIMessage(f"shown {len(found)}"))
    chain = RunnableWithMessageHistory(answer, history_factory(store))
    if mode == "sync":
        chain.invoke([HumanMessage("third")], config())
    else:
        asyncio.run(chain.ainvoke([HumanMessage("third")], config()))
    assert texts(store) == [*second, "third", "shown 11"]

    ask(agent(store, model), "fourth", mode=mode)
    assert model.shown()[:13] == ["Be brief.", *second, "third", "shown 11"]
    assert roles(store) == ["uatata" + "uata" + "ua" + "uatata"]
    assert refusal(transcript(store)) is None
    before = ids_of(store)
    assert len(set(before)) == len(before)
    assert [m.create_time for m in transcript(store)] == sorted(
        m.create_time or 0 for m in transcript(store)
    )


def test_a_crashed_agent_s_session_is_safe_for_llamaindex(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        ask(agent(store, ScriptedModel(script=loop(2)), tools=[broken()]), "first")
    assert roles(store) == ["ua"]
    llm = ScriptedLLM(script=llama_loop(1))
    assert asyncio.run(ask_llama(store, llm, "second")) == "1 steps done"
    assert roles(store) == ["uauata"]


def broken() -> Any:
    def step(number: int) -> str:
        """Take a step."""
        return str(number / 0)

    return tool_of(step)


def ids_of(store: Store) -> list[str]:
    return [m.message_id for m in transcript(store)]


# -- two at once ---------------------------------------------------------------------------------

RUNS = 6


def check_two(store: Store, each: list[str]) -> None:
    """Nothing lost, nothing doubled: of each of the texts as many as there were runs of it."""
    found = texts(store)
    assert sorted(found) == sorted(each * 2 * RUNS)
    assert len(set(ids_of(store))) == len(found)
    assert refusal(store.conversation("s").window()) is None


def test_two_agents_at_once(store: Store) -> None:
    model = ScriptedModel(script=loop(2))
    made = agent(store, model)
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait()
        for _ in range(RUNS):
            ask(made, "go")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(run) for _ in range(2)]:
            done.result()
    asked = [text for text in texts(store) if text == "go"]
    assert len(asked) == 2 * RUNS
    assert len(set(ids_of(store))) == len(ids_of(store))
    found = transcript(store)
    calls = [m for m in found if m.tool_calls]
    assert len([m for m in found if m.role == "tool"]) == len(calls)
    assert len(model.requests) == len([m for m in found if m.role == "assistant"])
    assert refusal(store.conversation("s").window()) is None


@CONFIGURED_IN_ASYNCIO
def test_two_agents_at_once_in_one_loop(store: Store) -> None:
    async def run() -> None:
        made = agent(store, ScriptedModel(script=say(*["yes"] * 2 * RUNS)))
        for _ in range(RUNS):
            # An object of its own for each: LangGraph gives it its id, by which it is known again.
            asked = [{"messages": [HumanMessage("go")]} for _ in range(2)]
            await asyncio.gather(*(made.ainvoke(a, config()) for a in asked))

    asyncio.run(run())
    check_two(store, ["go", "yes"])


def test_of_two_exclusive_agents_one_is_told(store: Store) -> None:
    meet = threading.Barrier(2)

    def script(messages: list[Any]) -> AIMessage:
        meet.wait(120)  # both have been shown the conversation before either has answered
        return AIMessage("yes")

    made = agent(store, ScriptedModel(script=script), exclusive=True)

    def run() -> str:
        try:
            ask(made, "go")
        except ConflictError:
            return "conflict"
        return "answered"

    with ThreadPoolExecutor(2) as pool:
        outcomes = [done.result() for done in [pool.submit(run) for _ in range(2)]]
    # The other's question may have come between as well: then both are told.
    assert "conflict" in outcomes
    assert texts(store).count("yes") == outcomes.count("answered")
    assert texts(store).count("go") == 2


def test_two_memories_at_once(store: Store) -> None:
    async def run() -> None:
        for _ in range(RUNS):
            llms = [ScriptedLLM(script=llama_loop(1)) for _ in range(2)]
            await asyncio.gather(*(ask_llama(store, llm, "go") for llm in llms))

    asyncio.run(run())
    found = transcript(store)
    assert len([m for m in found if m.role == "user"]) == 2 * RUNS
    assert len(set(ids_of(store))) == len(found)
    assert len([m for m in found if m.tool_calls]) == len([m for m in found if m.role == "tool"])


def test_two_archive_at_once(store: Store) -> None:
    async def run() -> list[list[Any]]:
        ours = TSMemoryAsyncChatStore(store)
        messages = [llamaindex_message({"role": "user", "content": str(i)}) for i in range(40)]
        await ours.add_messages("s", messages)
        found = await asyncio.gather(*(ours.archive_oldest_messages("s", 5) for _ in range(6)))
        assert await ours.count_messages("s") == 10
        return found

    found = asyncio.run(run())
    archived = sorted(int(m.content) for batch in found for m in batch)
    assert archived == list(range(30))  # none twice, none left out


def test_two_chains_at_once(store: Store) -> None:
    answer = RunnableLambda(lambda found: AIMessage("yes"))
    chain = RunnableWithMessageHistory(answer, history_factory(store, window=4))

    def run() -> None:
        for _ in range(RUNS):
            chain.invoke([HumanMessage("go")], config())

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(run) for _ in range(2)]:
            done.result()
    check_two(store, ["go", "yes"])


def test_two_chat_stores_at_once(store: Store) -> None:
    ours = TSMemoryChatStore(store)

    def run() -> None:
        for _ in range(RUNS):
            ours.add_message("s", llamaindex_message({"role": "user", "content": "go"}))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(run) for _ in range(2)]:
            done.result()
    check_two(store, ["go"])


def test_a_question_of_another_run_is_not_taken_for_the_answer(store: Store) -> None:
    """A request ends with a question, whoever was answered in between."""
    ends: list[str] = []

    def script(messages: list[Any]) -> AIMessage:
        ends.append(messages[-1].type)
        return AIMessage("yes")

    made = agent(store, ScriptedModel(script=script))
    chat = store.conversation("s")
    chat.append(Message.user("theirs"))
    ask(made, HumanMessage("mine", id="q"))
    chat.append(Message.assistant("to theirs"))
    ask(made, HumanMessage("mine", id="q"))
    assert ends == ["human", "human"]
