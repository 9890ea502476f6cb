"""What the model is shown is what the run's state holds, and what others wrote."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, RemoveMessage
from langchain_core.outputs import ChatGenerationChunk
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_tsmemory import TSMemoryMiddleware
from tests.adapters._python import CONFIGURED_IN_ASYNCIO
from tests.adapters.agents._agents import agent, ask, config, roles, step, texts, tool_of
from tests.adapters.agents._models import ScriptedModel, loop, say
from tsmemory import Message, Store, Window, open_store

SOAK = 20 if os.environ.get("TSMEMORY_SOAK") else 1


class Spy(AgentMiddleware):
    """Records the state that each model call is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[list[str]] = []

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self.states.append([m.text for m in request.state["messages"]])
        return handler(request)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "fork", "again", "edit", "remove", "other"]),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=9,
)


class Thread:
    """A checkpointed agent, and what is done to its thread."""

    def __init__(self) -> None:
        self.store = open_store("memory:")
        self.chat = self.store.conversation("t")
        self.count = itertools.count()
        self.model = ScriptedModel(script=lambda _: AIMessage(f"a{next(self.count)}"))
        self.spy = Spy()
        mine = TSMemoryMiddleware(self.store)
        self.agent = create_agent(
            self.model, middleware=[mine, self.spy], checkpointer=InMemorySaver()
        )
        self.config: Any = {"configurable": {"thread_id": "t"}}
        self.others: list[str] = []

    def move(self, kind: str, number: int) -> None:
        history = [s for s in self.agent.get_state_history(self.config) if s.values.get("messages")]
        held = history[0].values["messages"] if history else []
        if kind == "other":
            self.others.append(f"other{next(self.count)}")
            self.chat.append(Message.user(self.others[-1]))
        elif kind == "ask" or not history:
            self.ask(self.config, f"q{next(self.count)}")
        elif kind == "fork":
            ends = [s for s in self.agent.get_state_history(self.config) if not s.next]
            begins = list(self.agent.get_state_history(self.config))[-1:]
            past = [*ends, *begins][number % (len(ends) + 1)]
            self.ask(past.config, f"q{next(self.count)}")
        elif kind == "again":
            before = [s for s in history if s.next == ("model",)]
            if before:
                self.run(before[number % len(before)].config, None)
        elif kind == "edit":
            asked = [m for m in held if m.type == "human"]
            if asked:
                old = asked[number % len(asked)]
                new = HumanMessage(f"edited{next(self.count)}", id=old.id)
                self.agent.update_state(self.config, {"messages": [new]})
        elif len(held) > 1:
            gone = held[number % len(held)]
            self.agent.update_state(self.config, {"messages": [RemoveMessage(str(gone.id))]})

    def ask(self, at: Any, text: str) -> None:
        self.run(at, {"messages": [HumanMessage(text)]})

    def run(self, at: Any, asked: Any) -> None:
        calls = len(self.model.requests)
        self.agent.invoke(asked, at)
        if len(self.model.requests) == calls:
            return
        shown = self.model.shown()
        assert [t for t in shown if t not in self.others] == self.spy.states[-1]
        assert [t for t in shown if t in self.others] == self.others


@settings(max_examples=25 * SOAK, deadline=None)
@given(MOVES)
def test_random_forks_edits_removals_and_regenerations(moves: list[tuple[str, int]]) -> None:
    thread = Thread()
    said: list[str] = []
    for kind, number in moves:
        thread.move(kind, number)
        transcript = [m.text for m in thread.chat.iter_messages()]
        assert transcript[: len(said)] == said  # nothing is ever taken out of it
        said = transcript


def test_a_regenerated_answer_without_a_checkpointer(store: Store, mode: str) -> None:
    model = ScriptedModel(script=say("first", "second", "third", "fourth"))
    made = agent(store, model)
    ask(made, HumanMessage("q1", id="q1"), mode=mode)
    ask(made, HumanMessage("q1", id="q1"), mode=mode)
    assert model.shown() == ["Be brief.", "q1"]
    ask(made, "q2", mode=mode)
    assert model.shown() == ["Be brief.", "q1", "second", "q2"]
    assert texts(store) == ["q1", "first", "second", "q2", "third"]


def test_a_thread_that_a_checkpointer_has_lost_is_shown(store: Store) -> None:
    """An in-memory checkpointer ends with its process; the transcript does not."""
    model = ScriptedModel(script=say("a1", "a2"))
    for text in ("q1", "q2"):
        ask(agent(store, model, checkpointer=InMemorySaver()), text, thread_id="t")
    assert model.shown() == ["Be brief.", "q1", "a1", "q2"]


def test_an_agent_that_is_a_node_of_a_graph_follows_the_graph_s_forks(store: Store) -> None:
    model = ScriptedModel(script=say("a1", "a2", "a3"))
    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent(store, model))
    graph.add_edge(START, "agent")
    made: Any = graph.compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "s"}}
    for text in ("q1", "q2"):
        made.invoke({"messages": [HumanMessage(text)]}, thread)
    assert model.shown() == ["Be brief.", "q1", "a1", "q2"]
    past = next(
        s
        for s in made.get_state_history(thread)
        if not s.next and len(s.values.get("messages", ())) == 2
    )
    made.invoke({"messages": [HumanMessage("q2 edited")]}, past.config)
    assert model.shown() == ["Be brief.", "q1", "a1", "q2 edited"]
    assert texts(store) == ["q1", "a1", "q2", "a2", "q2 edited", "a3"]


# -- clients that send everything ----------------------------------------------------------------


@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("edits", [True, False])
def test_a_client_that_sends_the_whole_conversation(
    store: Store, mode: str, with_ids: bool, edits: bool
) -> None:
    model = ScriptedModel(script=say("a0", "a1", "a2", "a3"))
    made = agent(store, model, window=50)
    client: list[dict[str, Any]] = []
    for turn in range(4):
        if edits and turn == 3:
            del client[2:]  # the second question is asked in other words
        client.append({"role": "user", "content": f"q{turn}"})
        if with_ids:
            client[-1]["id"] = f"u{turn}"
        asked = {"messages": [dict(m) for m in client]}
        if mode == "sync":
            state = made.invoke(asked, config())
        else:
            state = asyncio.run(made.ainvoke(asked, config()))
        answer = state["messages"][-1]
        client.append({"role": "assistant", "content": answer.text})
        if with_ids:
            client[-1]["id"] = answer.id
    assert texts(store) == ["q0", "a0", "q1", "a1", "q2", "a2", "q3", "a3"]
    whole = ["q0", "a0", "q3"] if edits else ["q0", "a0", "q1", "a1", "q2", "a2", "q3"]
    assert model.shown()[1:] == whole


# -- answers -------------------------------------------------------------------------------------


def test_an_answer_whose_id_is_used_already_is_stored(store: Store, mode: str) -> None:
    answers = iter(["one", "two", "three"])
    model = ScriptedModel(script=lambda _: AIMessage(next(answers), id="same"))
    made = agent(store, model, checkpointer=InMemorySaver())
    for text in ("q1", "q2", "q3"):
        state = ask(made, text, mode=mode, thread_id="t")
    assert texts(store) == ["q1", "one", "q2", "two", "q3", "three"]
    assert [m.text for m in state["messages"]] == texts(store)


def test_an_id_that_is_further_back_than_the_window(store: Store) -> None:
    answers = iter(["one", *(f"a{i}" for i in range(12)), "two"])
    ids = iter(["same", *(None for _ in range(12)), "same"])
    model = ScriptedModel(script=lambda _: AIMessage(next(answers), id=next(ids)))
    for i in range(14):
        ask(agent(store, model, window=2), f"q{i}")
    assert texts(store).count("one") == texts(store).count("two") == 1


class Slow(ScriptedModel):
    """Says three words, and then nothing more."""

    async def _astream(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        for word in ("ferries ", "leave ", "at "):
            yield ChatGenerationChunk(message=AIMessageChunk(word))
        await asyncio.Event().wait()


@CONFIGURED_IN_ASYNCIO
def test_a_stopped_stream_keeps_question_and_partial_answer(store: Store) -> None:
    async def stop() -> None:
        made = agent(store, Slow(script=say()))
        asked = {"messages": [HumanMessage("When?")]}
        stream = made.astream(asked, config(), stream_mode="messages")
        async for part, _ in stream:
            if part.text == "at ":
                break
        await stream.aclose()

    asyncio.run(stop())
    question, partial = store.conversation("s").iter_messages()
    assert (question.text, partial.text) == ("When?", "ferries leave at ")
    assert partial.metadata["langgraph"]["partial"] is True
    model = ScriptedModel(script=say("yes"))
    ask(agent(store, model), "And then?")
    assert model.shown() == ["Be brief.", "When?", "ferries leave at ", "And then?"]


def test_a_partial_answer_followed_by_the_whole_under_its_id(store: Store) -> None:
    class Breaks(ScriptedModel):
        broken: bool = True

        def _stream(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            yield ChatGenerationChunk(message=AIMessageChunk("one ", id="run-1"))
            if self.broken:
                raise ConnectionError("gone")
            yield ChatGenerationChunk(message=AIMessageChunk("two", id="run-1"))

    model = Breaks(script=say())
    made = agent(store, model, checkpointer=InMemorySaver())
    asked = {"messages": [HumanMessage("q", id="q")]}
    with pytest.raises(ConnectionError):
        list(made.stream(asked, config(thread_id="t"), stream_mode="messages"))
    assert texts(store) == ["q", "one "]
    model.broken = False
    list(made.stream(None, config(thread_id="t"), stream_mode="messages"))
    assert texts(store) == ["q", "one two"]


# -- agents in agents ----------------------------------------------------------------------------


def test_an_agent_in_a_tool_has_a_transcript_of_its_own(store: Store, mode: str) -> None:
    inner = ScriptedModel(script=say("inner 1", "inner 2"))

    def outer_and_inner(nested: Any) -> tuple[Any, ScriptedModel]:
        mine = TSMemoryMiddleware(store, nested=nested)
        sub = create_agent(inner, middleware=[mine], name="researcher")

        def research(question: str) -> str:
            """Ask the researcher."""
            asked = {"messages": [HumanMessage(question)]}
            return str(sub.invoke(asked)["messages"][-1].text)

        def script(messages: list[Any]) -> AIMessage:
            done = sum(m.type == "tool" for m in messages)
            if done == 2:
                return AIMessage("fin")
            call = {"name": "research", "args": {"question": f"task {done}"}, "id": f"c{done}"}
            return AIMessage("", tool_calls=[call])

        model = ScriptedModel(script=script)
        return agent(store, model, tools=[tool_of(research)], nested=nested), model

    made, _ = outer_and_inner("own")
    ask(made, "go", mode=mode)
    assert texts(store) == ["go", "", "inner 1", "", "inner 2", "fin"]
    found = list(store.iter_sessions(where={"parent_session_id": "s"}))
    assert len(found) == 2
    assert sorted(
        [m.text for m in store.conversation(s.session_id, user_id="default").iter_messages()]
        for s in found
    ) == [["task 0", "inner 1"], ["task 1", "inner 2"]]
    assert [str(m.text) for m in inner.requests[1]] == ["task 1"]

    inner.script = say("again 1", "again 2")
    made, _ = outer_and_inner("share")
    ask(made, "go", mode=mode, session="shared")
    assert "again 1" in texts(store, "shared")
    assert "task 0" in texts(store, "shared")


# -- tools ---------------------------------------------------------------------------------------


def test_parallel_results_are_stored_in_the_order_of_the_calls(store: Store, mode: str) -> None:
    finished = [threading.Event() for _ in range(3)]

    def wait(number: int) -> str:
        """Wait for the call behind this one: the last is the first to be done."""
        if number < 2:
            assert finished[number + 1].wait(60)
        finished[number].set()
        return f"r{number}"

    def script(messages: list[Any]) -> AIMessage:
        if messages[-1].type == "tool":
            return AIMessage("done")
        calls = [{"name": "wait", "args": {"number": i}, "id": f"c{i}"} for i in range(3)]
        return AIMessage("", tool_calls=calls)

    ask(agent(store, ScriptedModel(script=script), tools=[tool_of(wait)]), "go", mode=mode)
    assert texts(store) == ["go", "", "r0", "r1", "r2", "done"]


def test_a_tool_that_is_not_registered_is_answered_by_langchain(store: Store) -> None:
    state = ask(agent(store, ScriptedModel(script=loop(1, "nobody"))), "go")
    assert "nobody is not a valid tool" in state["messages"][2].text
    assert roles(store) == ["uata"]


# -- what it costs -------------------------------------------------------------------------------


class Counted:
    """How many operations reach a store's backend."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        inside = 0
        for name in ("read", "commit", "commit_and_read", "get_session", "get_messages", "rewrite"):
            inner = getattr(store.backend, name)

            def counted(*args: Any, _inner: Any = inner, _name: str = name, **kwargs: Any) -> Any:
                nonlocal inside
                if not inside:
                    self.names.append(_name)
                inside += 1
                try:
                    return (yield from _inner(*args, **kwargs))
                finally:
                    inside -= 1

            monkeypatch.setattr(store.backend, name, counted)


@pytest.mark.parametrize("checkpointed", [True, False])
@pytest.mark.parametrize("window", [None, 10, Window(last=10, step=10)])
def test_two_operations_per_model_call(
    store: Store, checkpointed: bool, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(store, monkeypatch)
    saver = InMemorySaver() if checkpointed else None
    made = agent(store, ScriptedModel(script=loop(3)), checkpointer=saver, window=window)
    for _ in range(3):
        counted.names.clear()
        ask(made, "go", thread_id="t")  # four model calls
        assert counted.names == ["commit_and_read", "commit"] * 4


def test_a_process_that_takes_a_thread_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = InMemorySaver()
    ask(agent(store, ScriptedModel(script=loop(3)), checkpointer=saver), "go", thread_id="t")
    counted = Counted(store, monkeypatch)
    ask(agent(store, ScriptedModel(script=loop(0)), checkpointer=saver), "go", thread_id="t")
    assert counted.names == ["commit_and_read", "commit"]


# -- caches --------------------------------------------------------------------------------------


def test_cache_control_is_set_where_the_request_stays_the_same(store: Store, mode: str) -> None:
    model = ScriptedModel(script=loop(1))
    made = agent(
        store,
        model,
        window=Window(last=4, step=4),
        cache_control={"type": "ephemeral"},
        tools=(step,),
    )
    for i in range(4):
        ask(made, f"q{i}", mode=mode)
    for request in model.requests:
        marked = [m for m in request if "cache_control" in str(m.content)]
        assert marked == [request[-1]]
    assert "cache_control" not in str(list(store.conversation("s").iter_messages()))
