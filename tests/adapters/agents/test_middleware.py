"""`TSMemoryMiddleware`: one transcript, whatever happens to the state."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    hook_config,
)
from langchain.agents.middleware.types import AgentMiddleware
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

import langchain_tsmemory
from langchain_tsmemory import TSMemoryChatMessageHistory, TSMemoryMiddleware
from tests._chat_api import refusal
from tests.adapters.agents._agents import (
    agent,
    ask,
    config,
    ids,
    roles,
    step,
    texts,
    tool_of,
    transcript,
)
from tests.adapters.agents._models import ScriptedModel, StreamingModel, loop, say
from tsmemory import ConflictError, InvalidInputError, Message, Store, Window, open_store


def test_a_conversation_goes_on(store: Store, mode: str) -> None:
    model = ScriptedModel(script=say("Hi Ada!", "Ada."))
    made = agent(store, model)
    ask(made, "I am Ada.", mode=mode)
    state = ask(made, "Who am I?", mode=mode)
    assert model.shown() == ["Be brief.", "I am Ada.", "Hi Ada!", "Who am I?"]
    assert texts(store) == ["I am Ada.", "Hi Ada!", "Who am I?", "Ada."]
    assert [m.text for m in state["messages"]] == ["Who am I?", "Ada."]  # the state is as it was


def test_what_is_stored_is_the_state_s_messages(store: Store, mode: str) -> None:
    state = ask(agent(store, ScriptedModel(script=loop(2))), "go", mode=mode)
    assert TSMemoryChatMessageHistory("s", store=store).messages == state["messages"]
    assert roles(store) == ["uatata"]


def test_a_checkpointer_beside_it(store: Store, mode: str) -> None:
    model = ScriptedModel(script=loop(2))
    made = agent(store, model, checkpointer=InMemorySaver())
    for _ in range(3):
        state = ask(made, "go", mode=mode, thread_id="t")
    assert TSMemoryChatMessageHistory("s", store=store).messages == state["messages"]
    assert len(model.requests[-1]) == 1 + 6 * 2 + 5


def test_it_adopts_a_thread_that_began_without_it(store: Store) -> None:
    saver = InMemorySaver()
    plain = create_agent(ScriptedModel(script=loop(1)), [step], checkpointer=saver)
    ask(plain, "one", thread_id="t")
    made = agent(store, ScriptedModel(script=loop(1)), checkpointer=saver)
    state = ask(made, "two", thread_id="t")
    assert TSMemoryChatMessageHistory("s", store=store).messages == state["messages"]


def test_the_window_bounds_what_is_shown(store: Store, mode: str) -> None:
    model = ScriptedModel(script=say())
    made = agent(store, model, window=Window(last=3, summary=True))
    for i in range(9):
        ask(made, f"q{i}", mode=mode)
    store.conversation("s").update_session(summary="They count.")
    ask(made, "q9", mode=mode)
    system, summary, *rest = model.shown()
    assert (system, "They count." in summary, rest) == ("Be brief.", True, ["q8", "shown 4", "q9"])
    assert len(texts(store)) == 20


def test_a_long_tool_loop_is_not_cut(store: Store) -> None:
    model = ScriptedModel(script=loop(12))
    ask(agent(store, model, window=4), "go")
    assert roles(store) == ["u" + "at" * 12 + "a"]
    assert len(model.requests[-1]) == 1 + 1 + 24


@pytest.mark.parametrize("how", ["updates", "values", "messages"])
def test_streaming(store: Store, mode: str, how: str) -> None:
    made = agent(store, StreamingModel(script=say("one two three", "four five")))
    for text in ("a", "b"):
        asked = {"messages": [HumanMessage(text)]}
        if mode == "sync":
            parts = list(made.stream(asked, config(), stream_mode=how))
        else:

            async def read(asked: Any = asked) -> list[Any]:
                return [p async for p in made.astream(asked, config(), stream_mode=how)]

            parts = asyncio.run(read())
        assert parts
    assert texts(store) == ["a", "one two three", "b", "four five"]
    found = TSMemoryChatMessageHistory("s", store=store).messages
    assert [type(m).__name__ for m in found] == ["HumanMessage", "AIMessage"] * 2


def test_parallel_calls(store: Store, mode: str) -> None:
    def script(messages: list[Any]) -> AIMessage:
        if messages[-1].type == "tool":
            return AIMessage("done")
        calls = [{"name": "step", "args": {"number": i}, "id": f"c{i}"} for i in range(4)]
        return AIMessage("", tool_calls=calls)

    model = ScriptedModel(script=script)
    made = agent(store, model)
    ask(made, "go", mode=mode)
    ask(made, "go", mode=mode)  # the same call ids again
    assert roles(store) == ["uatttta" * 2]
    assert len({m.message_id for m in transcript(store)}) == 14


def test_summarisation_rewrites_the_state_and_not_the_transcript(store: Store, mode: str) -> None:
    writer = ScriptedModel(script=lambda _: AIMessage("in short"))
    model = ScriptedModel(script=loop(1))
    summarise = SummarizationMiddleware(writer, trigger=("messages", 6), keep=("messages", 3))
    made = agent(store, model, summarise, checkpointer=InMemorySaver())
    for i in range(6):
        state = ask(made, f"q{i}", mode=mode, thread_id="t")
    assert writer.requests
    assert roles(store) == ["uata" * 6]
    assert not any("in short" in text for text in texts(store))
    assert len(state["messages"]) < 10
    assert "in short" in model.shown()[1]  # the model sees the summary in place of the old
    assert len(model.requests[-1]) <= 8
    assert "q0" not in model.shown()


def test_other_doors_messages_are_shown_to_a_thread_with_a_summary(store: Store) -> None:
    writer = ScriptedModel(script=lambda _: AIMessage("in short"))
    model = ScriptedModel(script=say())
    summarise = SummarizationMiddleware(writer, trigger=("messages", 4), keep=("messages", 2))
    made = agent(store, model, summarise, checkpointer=InMemorySaver())
    for i in range(4):
        ask(made, f"q{i}", thread_id="t")
    store.conversation("s").append(Message.user("elsewhere"), Message.assistant("yes"))
    ask(made, "q5", thread_id="t")
    assert model.shown()[-3:] == ["elsewhere", "yes", "q5"]
    assert "in short" in model.shown()[1]


class Forgetful(AgentMiddleware):
    """Empties the state before each model call but for the newest message."""

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        old = state["messages"][:-1]
        return {"messages": [RemoveMessage(m.id) for m in old]} if len(old) > 1 else None


def test_what_others_remove_from_the_state_is_kept_and_not_shown(store: Store) -> None:
    model = ScriptedModel(script=say())
    made = agent(store, model, Forgetful(), checkpointer=InMemorySaver())
    for i in range(4):
        state = ask(made, f"q{i}", thread_id="t")
    assert len(state["messages"]) == 2
    assert roles(store) == ["ua" * 4]
    assert model.shown()[-1] == "q3"
    assert len(model.shown()) == 2  # the instructions and what the state holds


# -- interruptions -----------------------------------------------------------------------------


def interrupted(store: Store, *, first: bool) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel(script=loop(2))
    review = HumanInTheLoopMiddleware(interrupt_on={"step": True})
    mine = TSMemoryMiddleware(store)
    made = create_agent(
        model,
        [step],
        middleware=[mine, review] if first else [review, mine],
        checkpointer=InMemorySaver(),
    )
    return made, model


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("decision", ["approve", "reject", "edit"])
def test_a_person_in_the_loop(store: Store, mode: str, first: bool, decision: str) -> None:
    made, _ = interrupted(store, first=first)
    run = config(thread_id="t")
    answers: dict[str, Any] = {
        "approve": {"type": "approve"},
        "reject": {"type": "reject", "message": "no"},
        "edit": {"type": "edit", "edited_action": {"name": "step", "args": {"number": 9}}},
    }
    state = ask(made, "go", mode=mode, thread_id="t")
    for _ in range(2):
        assert "__interrupt__" in state
        resume = Command(resume={"decisions": [answers[decision]]})
        if mode == "sync":
            state = made.invoke(resume, run)
        else:
            state = asyncio.run(made.ainvoke(resume, run))
    assert roles(store) == ["uatata"]
    found = TSMemoryChatMessageHistory("s", store=store).messages
    assert ids(found) == ids(state["messages"])
    if first:  # else the result is stored before the review puts its note to it
        assert [m.text for m in found] == [m.text for m in state["messages"]]


def test_an_interruption_that_nobody_resumes(store: Store, mode: str) -> None:
    made, model = interrupted(store, first=True)
    ask(made, "go", mode=mode, thread_id="t")
    model.script = say("all right")
    ask(made, "never mind", mode=mode, thread_id="t")
    assert roles(store) == ["uaua"]  # the call that was never answered is in the transcript
    assert transcript(store)[1].tool_calls
    assert model.shown() == ["go", "step 1", "never mind"]


# -- what tools give ---------------------------------------------------------------------------


def test_a_tool_that_gives_a_command(store: Store, mode: str) -> None:
    def jump(runtime: ToolRuntime) -> Command[Any]:
        """Jump."""
        result = ToolMessage("jumped", tool_call_id=str(runtime.tool_call_id))
        return Command(update={"messages": [result, HumanMessage("a remark")]})

    def script(messages: list[Any]) -> AIMessage:
        if any(m.type == "tool" for m in messages):
            return AIMessage("done")
        return AIMessage("", tool_calls=[{"name": "jump", "args": {}, "id": "c"}])

    made = agent(store, ScriptedModel(script=script), tools=[tool_of(jump)])
    state = ask(made, "go", mode=mode)
    assert TSMemoryChatMessageHistory("s", store=store).messages == state["messages"]
    assert texts(store) == ["go", "", "jumped", "a remark", "done"]


class Again(AgentMiddleware):
    """Runs each tool a second time, as a retry on a poor result does."""

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        handler(request)
        return handler(request)


def test_a_tool_that_is_run_again_has_one_result(store: Store) -> None:
    count = iter(range(9))

    def step(number: int) -> str:
        """Take a step."""
        return f"run {next(count)}"

    mine = TSMemoryMiddleware(store)
    model = ScriptedModel(script=loop(1))
    made = create_agent(model, [tool_of(step)], middleware=[Again(), mine])
    ask(made, "go")
    assert texts(store) == ["go", "step 1", "run 1", "1 steps done"]


def test_a_tool_that_fails(store: Store) -> None:
    def step(number: int) -> str:
        """Take a step."""
        raise RuntimeError("broken")

    model = ScriptedModel(script=loop(1))
    made = agent(store, model, tools=[tool_of(step)])
    with pytest.raises(RuntimeError, match="broken"):
        ask(made, "go")
    assert roles(store) == ["ua"]
    model.script = say("sorry")
    ask(made, "and now?")
    assert model.shown() == ["Be brief.", "go", "step 1", "and now?"]  # repaired, so accepted


def test_a_call_that_does_not_parse(store: Store, mode: str) -> None:
    def script(messages: list[Any]) -> AIMessage:
        if len(messages) > 2:
            return AIMessage("done")
        broken = {"name": "step", "args": "{", "id": "c", "error": "no JSON"}
        return AIMessage("hm", invalid_tool_calls=[{**broken, "type": "invalid_tool_call"}])

    model = ScriptedModel(script=script)
    made = agent(store, model)
    ask(made, "go", mode=mode)
    ask(made, "go on", mode=mode)
    assert refusal(store.conversation("s").window()) is None
    assert roles(store)[0].replace("t", "") == "uaua"


# -- who wrote what ----------------------------------------------------------------------------


class Guard(AgentMiddleware):
    """Ends a run before the model is asked."""

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        if "secret" not in state["messages"][-1].text:
            return None
        return {"messages": [AIMessage("I may not.")], "jump_to": "end"}


def test_what_other_middleware_answers_is_stored(store: Store, mode: str) -> None:
    made = agent(store, ScriptedModel(script=say("yes")), Guard())
    ask(made, "hello", mode=mode)
    ask(made, "a secret", mode=mode)
    assert texts(store) == ["hello", "yes", "a secret", "I may not."]


def test_a_limit_of_model_calls(store: Store) -> None:
    limit = ModelCallLimitMiddleware(run_limit=2, exit_behavior="end")
    state = ask(agent(store, ScriptedModel(script=loop(9)), limit), "go")
    assert ids(state["messages"]) == [m.message_id for m in transcript(store)]


def test_what_is_taken_out_of_a_message_is_not_stored(store: Store) -> None:
    pii = PIIMiddleware("email", strategy="redact", apply_to_output=True)
    model = ScriptedModel(script=say("written to bob@example.org", "yes"))
    made = agent(store, model, pii)
    ask(made, "I am ada@example.org")
    ask(made, "sure?")
    assert "example" not in str(transcript(store))
    assert not any("example" in text for text in model.shown())


class Hint(AgentMiddleware):
    """Adds to each request what is in no state."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        hint = HumanMessage("It is Monday.")
        return handler(request.override(messages=[*request.messages, hint]))


@pytest.mark.parametrize("first", [True, False])
def test_what_others_add_to_a_request_is_shown_and_not_stored(store: Store, first: bool) -> None:
    model = ScriptedModel(script=say("a", "b"))
    mine = TSMemoryMiddleware(store)
    made = create_agent(model, middleware=[mine, Hint()] if first else [Hint(), mine])
    ask(made, "one")
    ask(made, "two")
    assert model.shown() == ["one", "a", "two", "It is Monday."]
    assert texts(store) == ["one", "a", "two", "b"]


def test_the_same_input_twice(store: Store) -> None:
    """A call that is repeated after an error whose outcome is unknown."""
    made = agent(store, ScriptedModel(script=say("a", "b")))
    ask(made, HumanMessage("one", id="q1"))
    ask(made, HumanMessage("one", id="q1"))
    assert texts(store) == ["one", "a", "b"]
    ask(made, "one")  # the same words are another message
    assert texts(store)[3] == "one"


def test_two_yes_are_two(store: Store) -> None:
    made = agent(store, ScriptedModel(script=say("sure?", "really?", "done")))
    for _ in range(3):
        ask(made, "yes")
    assert texts(store) == ["yes", "sure?", "yes", "really?", "yes", "done"]


# -- whose conversation --------------------------------------------------------------------------


@dataclass
class Context:
    user_id: str | None
    session_id: str


def test_user_and_session_of_the_context(store: Store, mode: str) -> None:
    for schema, context in (
        (Context, Context("ada", "c1")),
        (dict, {"user_id": "ada", "thread_id": "c2"}),
    ):
        mine = TSMemoryMiddleware(store)
        made = create_agent(
            ScriptedModel(script=loop(1)), [step], middleware=[mine], context_schema=schema
        )
        asked = {"messages": [HumanMessage("go")]}
        if mode == "sync":
            made.invoke(asked, context=context)
        else:
            asyncio.run(made.ainvoke(asked, context=context))
    found = store.list_sessions(user_id="ada")
    assert {(s.session_id, s.message_count) for s in found} == {("c1", 4), ("c2", 4)}


def test_user_and_session_of_the_config(store: Store) -> None:
    made = agent(store, ScriptedModel(script=say()))
    ask(made, "go", session="s1", user_id="ada", thread_id="t")
    made.invoke({"messages": [HumanMessage("go")]}, {"configurable": {"thread_id": "t"}})
    made.invoke({"messages": [HumanMessage("go")]}, {"configurable": {"conversation_id": "c"}})
    found = {(s.user_id, s.session_id) for s in store.iter_sessions()}
    assert found == {("ada", "s1"), ("default", "t"), ("default", "c")}


def test_user_and_session_as_told(store: Store) -> None:
    made = agent(
        store,
        ScriptedModel(script=say()),
        session_id=lambda context, configurable: f"room {configurable['room']}",
        user_id="everybody",
    )
    made.invoke({"messages": [HumanMessage("go")]}, {"configurable": {"room": "7"}})
    assert store.conversation("room 7", user_id="everybody").count() == 2


def test_no_session_and_a_missing_login(store: Store) -> None:
    made = agent(store, ScriptedModel(script=say()))
    with pytest.raises(InvalidInputError, match="session_id"):
        made.invoke({"messages": [HumanMessage("go")]})
    mine = TSMemoryMiddleware(store)
    made = create_agent(ScriptedModel(script=say()), middleware=[mine], context_schema=Context)
    with pytest.raises(InvalidInputError, match="user_id is None"):
        made.invoke({"messages": [HumanMessage("go")]}, context=Context(None, "s"))
    assert store.stats().sessions == 0


def test_bad_arguments(store: Store) -> None:
    bad: list[dict[str, Any]] = [
        {"window": 0},
        {"window": -1},
        {"session_id": ""},
        {"user_id": ""},
        {"ttl": -1},
    ]
    for arguments in bad:
        with pytest.raises(InvalidInputError):
            TSMemoryMiddleware(store, **arguments)
    with pytest.raises(InvalidInputError, match="open_store"):
        TSMemoryMiddleware(3)  # type: ignore[arg-type]


def test_a_url_is_opened_and_closed(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    with TSMemoryMiddleware(url, session_id="s", ttl=60) as mine:
        made = create_agent(ScriptedModel(script=say()), middleware=[mine])
        made.invoke({"messages": [HumanMessage("go")]})

    async def run() -> None:
        async with TSMemoryMiddleware(url, session_id="s") as mine:
            made = create_agent(ScriptedModel(script=say()), middleware=[mine])
            await made.ainvoke({"messages": [HumanMessage("go")]})

    asyncio.run(run())
    with open_store(url) as store:
        assert len(texts(store)) == 4
        assert 0 < (store.conversation("s").get_ttl() or 0) <= 60


# -- conflicts -----------------------------------------------------------------------------------


def test_a_conflict_is_reported(store: Store, mode: str) -> None:
    def script(messages: list[Any]) -> AIMessage:
        store.conversation("s").append(Message.user("meanwhile"))
        return AIMessage("too late")

    model = ScriptedModel(script=script)
    made = agent(store, model, exclusive=True)
    with pytest.raises(ConflictError):
        ask(made, "go", mode=mode)
    assert texts(store) == ["go", "meanwhile"]
    model.script = loop(2)
    ask(made, "again", mode=mode)
    assert roles(store) == ["uuuatata"]


# -- the package -----------------------------------------------------------------------------------


def test_langchain_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys; sys.modules['langchain'] = None\n"
        "import langchain_tsmemory\n"
        "try:\n"
        "    langchain_tsmemory.TSMemoryMiddleware\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "MissingDependencyError" in done.stdout
    assert "tsmemory[langchain-agents]" in done.stdout


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        langchain_tsmemory.nothing_like_it  # noqa: B018
