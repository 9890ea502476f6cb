"""Searches from the frameworks: retrievers, a tool for agents, a memory block."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import Memory
from llama_index.core.schema import NodeWithScore

import langchain_tsmemory
import llamaindex_tsmemory
from langchain_tsmemory import TSMemoryMiddleware, search_tool
from llamaindex_tsmemory import TSMemoryAsyncChatStore, TSMemoryRecallBlock
from tests.adapters._processes import printed
from tests.adapters._python import CONFIGURED_IN_ASYNCIO
from tests.adapters.agents._models import ScriptedModel
from tsmemory import InvalidInputError, Message, Store, open_store
from tsmemory.adapters import recall

QUESTION = "Where's the ferry to Bergen? -- \"Tell me* (8:30)"


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any):
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'c.db'}"
    with open_store(url, durability="normal") if "sqlite" in url else open_store(url) as opened:
        trip = opened.conversation("trip", user_id="ada")
        trip.append(
            Message.user("Which boat goes north?", message_id="1"),
            Message.assistant("The Bergen ferry, from pier 7.", message_id="2"),
            Message.user("Thanks.", message_id="3"),
        )
        opened.conversation("work", user_id="ada").append(Message.user("The report is late."))
        opened.conversation("trip", user_id="bob").append(Message.user("Bergen ferry! Ferry!"))
        yield opened


def found(result: Any) -> list[str]:
    """The ids of messages that a retriever of either framework gave."""
    documents = [r.node if isinstance(r, NodeWithScore) else r for r in result]
    assert all(d.metadata["user_id"] == "ada" for d in documents)
    return [d.metadata["message_id"] for d in documents]


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("framework", ["langchain", "llamaindex"])
def test_a_retriever(store: Store, framework: str, colour: str) -> None:
    def retrieve(question: str, **options: Any) -> Any:
        if framework == "langchain":
            langchain = langchain_tsmemory.TSMemoryRetriever(store=store, user_id="ada", **options)
            if colour == "sync":
                return langchain.invoke(question)
            return asyncio.run(langchain.ainvoke(question))
        llamaindex = llamaindex_tsmemory.TSMemoryRetriever(store, user_id="ada", **options)
        if colour == "sync":
            return llamaindex.retrieve(question)
        return asyncio.run(llamaindex.aretrieve(question))

    assert found(retrieve(QUESTION))[0] == "2"
    assert found(retrieve(QUESTION, session_id="work")) != ["2"]
    assert found(retrieve("?!")) == []
    assert len(retrieve("the boat ferry report", **_most(framework, 2))) == 2
    (hit,) = retrieve("pier", around=1)
    text = hit.node.text if isinstance(hit, NodeWithScore) else hit.page_content
    assert text == (
        "user: Which boat goes north?\nassistant: The Bergen ferry, from pier 7.\nuser: Thanks."
    )
    with pytest.raises(InvalidInputError):
        retrieve("pier", **_most(framework, 0))


def _most(framework: str, count: int) -> dict[str, int]:
    return {"k" if framework == "langchain" else "similarity_top_k": count}


# -- the tool of an agent ----------------------------------------------------------------------


def searching(messages: list[BaseMessage]) -> AIMessage:
    """A script that searches once, then says what it was answered."""
    if isinstance(messages[-1], ToolMessage):
        return AIMessage(str(messages[-1].content))
    call = {"name": "search_conversations", "args": {"query": "pier of the ferry"}, "id": "c1"}
    return AIMessage("", tool_calls=[call])


@dataclass
class Context:
    user_id: str


@pytest.mark.parametrize("colour", ["sync", pytest.param("async", marks=CONFIGURED_IN_ASYNCIO)])
@pytest.mark.parametrize("given", ["configurable", "context", "fixed"])
def test_an_agent_searches_its_user_s_sessions(store: Store, given: str, colour: str) -> None:
    user = {"user_id": "ada"} if given == "fixed" else {}
    agent: Any = create_agent(
        ScriptedModel(script=searching),
        [search_tool(store, **user)],
        middleware=[TSMemoryMiddleware(store, **user)],
        context_schema=Context,
    )
    configurable = {"session_id": "now"} | ({"user_id": "ada"} if given == "configurable" else {})
    options = {"context": Context("ada")} if given == "context" else {}
    asked = {"messages": [HumanMessage("Which pier was it?")]}
    if colour == "sync":
        state = agent.invoke(asked, {"configurable": configurable}, **options)
    else:
        state = asyncio.run(agent.ainvoke(asked, {"configurable": configurable}, **options))
    answer = state["messages"][-1].text
    assert "assistant: The Bergen ferry, from pier 7." in answer
    assert "session trip" in answer
    assert "Ferry!" not in answer  # bob's
    (result,) = [m for m in state["messages"] if isinstance(m, ToolMessage)]
    assert result.artifact[0]["text"] == "The Bergen ferry, from pier 7."
    stored = store.conversation("now", user_id="ada").iter_messages()
    assert [m.role for m in stored] == ["user", "assistant", "tool", "assistant"]


def test_the_model_cannot_choose_the_user(store: Store) -> None:
    tool = search_tool(store)
    assert list(tool.args) == ["query"]
    assert tool.invoke({"query": "ferry", "user_id": "ada"}) == "Nothing matches."
    config: Any = {"configurable": {"user_id": None}}
    with pytest.raises(InvalidInputError, match="user_id is None"):
        tool.invoke({"query": "ferry"}, config)
    with pytest.raises(InvalidInputError, match="open_store"):
        search_tool("memory:")  # type: ignore[arg-type]


# -- the memory block --------------------------------------------------------------------------


def test_a_memory_block_recalls_what_the_memory_no_longer_shows(store: Store) -> None:
    block = TSMemoryRecallBlock(store=store, user_id="ada", limit=2)
    memory = Memory.from_defaults(
        session_id="now",
        chat_store=TSMemoryAsyncChatStore(store, user_id="ada"),
        memory_blocks=[block],
        tokenizer_fn=str.split,
    )

    async def talk() -> list[ChatMessage]:
        await memory.aput(ChatMessage(role="user", content="From which pier is the ferry?"))
        return await memory.aget()

    system, question = asyncio.run(talk())
    assert "assistant: The Bergen ferry, from pier 7." in (system.content or "")
    assert "From which pier" not in (system.content or "")  # it is shown anyway
    assert "Ferry!" not in (system.content or "")
    assert question.content == "From which pier is the ferry?"
    assert "store" not in block.model_dump()


def test_a_memory_block_is_cut_to_the_limit(store: Store) -> None:
    def ask(**options: Any) -> str:
        block = TSMemoryRecallBlock(store=store, user_id="ada", **options)
        return asyncio.run(block.aget([ChatMessage(role="user", content="ferry report boat")]))

    assert ask().count("\n") == 2
    assert ask(limit=1).count("\n") == 0
    assert ask(max_characters=5) == ""
    block = TSMemoryRecallBlock(store=store, user_id="ada")
    whole = ask()
    shorter = asyncio.run(block.atruncate(whole, 5))
    assert shorter == whole[: whole.rindex("\n")]
    assert asyncio.run(block.atruncate(whole, 1_000)) is None
    assert asyncio.run(block.aget([])) == ""


# -- what both ask -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("我把护照放在抽屉里了", "请问我的护照在哪里？"),
        ("ตั๋วอยู่ในกระเป๋า", "ตั๋วไปไหน"),
        ("パスポートは引き出し", "パスポートはどこ?"),
        ("The passport is in the drawer", "where did I put my PASSPORT?!"),
    ],
)
def test_a_question_in_any_language(said: str, question: str) -> None:
    with open_store("memory:") as store:
        store.conversation("s", user_id="ada").append(Message.user(said), Message.user("."))
        (hit,) = store.run(recall(store, question, user_id="ada", limit=3))
        assert hit.message.text == said


def test_common_words_do_not_hide_an_old_message() -> None:
    with open_store("memory:") as store:
        chat = store.conversation("s", user_id="ada")
        chat.append(Message.user("I left my passport in the drawer"))
        chat.append([Message.user(f"I left my desk at {i}") for i in range(1_500)])
        (hit, *_) = store.run(recall(store, "where is my passport", user_id="ada", limit=3))
        assert hit.message.text == "I left my passport in the drawer"
        assert store.run(recall(store, "x" * 9_000 + " my " * 90, user_id="ada", limit=3))
        assert (
            store.run(
                recall(
                    store, " ".join(f"{'y' * 60}{i}" for i in range(999)), user_id="ada", limit=3
                )
            )
            == []
        )


def test_searches_are_imported_where_they_are_used() -> None:
    script = (
        "import sys, langchain_tsmemory, llamaindex_tsmemory as l; "
        "assert 'langchain_tsmemory.search' not in sys.modules; "
        "assert 'llamaindex_tsmemory.search' not in sys.modules; "
        "l.TSMemoryRecallBlock, langchain_tsmemory.search_tool"
    )
    printed(script)
    with pytest.raises(AttributeError):
        langchain_tsmemory.TSMemoryNothing  # noqa: B018  # the attribute is what is tested
