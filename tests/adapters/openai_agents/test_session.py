"""`TSMemorySession` beside the SDK's own session, in runs, and read by the other frameworks."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("agents", reason="pip install openai-agents")
from agents import Agent, RunConfig, Runner, SQLiteSession, function_tool, handoff
from agents.items import ModelResponse
from agents.memory import Session, SessionSettings
from agents.models.interface import Model
from agents.usage import Usage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
)

from langchain_tsmemory import TSMemoryChatMessageHistory
from langchain_tsmemory import from_neutral as to_langchain
from llamaindex_tsmemory import TSMemoryChatStore
from llamaindex_tsmemory import from_neutral as to_llamaindex
from openai_agents_tsmemory import TSMemorySession, from_items, to_items
from tests.adapters._processes import printed
from tests.core.test_responses_format import ITEMS
from tsmemory import InvalidInputError, Message, Store, Window, open_store, to_openai
from tsmemory.transfer import import_from

Items = list[dict[str, Any]]
NO_TRACE = RunConfig(tracing_disabled=True)

THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "ferry",
        "arguments": '{"to": "Bergen"}', "status": "completed"}  # fmt: skip
CALL_2 = {**CALL, "id": "fc_2", "call_id": "c2"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "08:30"}
OUTPUT_2 = {"type": "function_call_output", "call_id": "c2",
            "output": [{"type": "input_text", "text": "09:00"}]}  # fmt: skip
ANSWER = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
          "content": [{"type": "output_text", "text": "At 08:30.", "annotations": []}]}  # fmt: skip
TURN: Items = [{"role": "user", "content": "Ferry?"}, THOUGHT, CALL, CALL_2, OUTPUT, OUTPUT_2,
               ANSWER]  # fmt: skip


@pytest.fixture(params=["memory", "sqlite", "jsonl"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/chat.db?durability=normal",
            "jsonl": f"jsonl:///{tmp_path}/chats"}  # fmt: skip
    with open_store(urls[request.param]) as opened:
        yield opened


def do(work: Callable[[TSMemorySession], Any], store: Store, **options: Any) -> Any:
    return asyncio.run(work(TSMemorySession("s", store=store, **options)))


# -- as the SDK's own ----------------------------------------------------------------------------

ACTION = st.one_of(
    st.tuples(st.just("add"), ITEMS),
    st.tuples(st.just("get"), st.one_of(st.none(), st.integers(-1, 9))),
    st.tuples(st.just("pop"), st.none()),
    st.tuples(st.just("clear"), st.none()),
)


def without_ids(items: Items) -> Items:
    """Where items have ids, ours knows a repeated one, and the SDK's session does not."""
    return [{k: v for k, v in item.items() if k != "id"} for item in items]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(ACTION, max_size=8))
def test_it_does_what_the_sdk_s_own_session_does(actions: list[tuple[str, Any]]) -> None:
    async def main() -> None:
        with open_store("memory:") as store:
            ours = TSMemorySession("s", store=store)
            theirs = SQLiteSession("s")
            for name, argument in [*actions, ("get", None)]:
                results = []
                for session in (ours, theirs):
                    if name == "add":
                        await session.add_items(without_ids(argument))  # type: ignore[arg-type]
                    elif name == "get":
                        results.append(await session.get_items(argument))
                    elif name == "pop":
                        results.append(await session.pop_item())
                    else:
                        await session.clear_session()
                assert not results or results[0] == results[1]
            theirs.close()

    asyncio.run(main())


def test_it_is_a_session_of_the_protocol(store: Store) -> None:
    session = TSMemorySession("s", store=store)
    assert isinstance(session, Session)
    assert session.session_id == "s"
    assert session.session_settings is None


def test_items_come_back_equal_in_another_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"

    async def write() -> None:
        async with TSMemorySession("s", store=url) as session:
            await session.add_items(TURN)  # type: ignore[arg-type]
            await session.add_items(TURN[:1])  # type: ignore[arg-type]

    asyncio.run(write())
    program = (
        "import asyncio, json\n"
        "from openai_agents_tsmemory import TSMemorySession\n"
        "async def main():\n"
        "    async with TSMemorySession('s', store=arguments[0]) as session:\n"
        "        print(json.dumps(await session.get_items()))\n"
        "asyncio.run(main())\n"
    )
    assert json.loads(printed(program, url)) == [*TURN, TURN[0]]


def test_limits(store: Store) -> None:
    async def main(session: TSMemorySession) -> None:
        await session.add_items(TURN)  # type: ignore[arg-type]
        for n in range(len(TURN) + 2):
            assert await session.get_items(n) == (TURN[-n:] if n else [])
        assert await session.get_items(-1) == TURN
        session.session_settings = SessionSettings(limit=2)
        assert await session.get_items() == TURN[-2:]
        assert await session.get_items(limit=3) == TURN[-3:]
        with pytest.raises(InvalidInputError, match="str"):
            await session.get_items("3")  # type: ignore[arg-type]

    do(main, store)


def test_a_limit_behind_messages_that_say_nothing(store: Store) -> None:
    chat = store.conversation("s")
    silent = Message.assistant([{"type": "reasoning", "reasoning": "Another provider's."}])
    chat.append([Message.user("q"), silent, Message.user("r")])
    assert do(lambda session: session.get_items(2), store) == [
        {"role": "user", "content": "q"}, {"role": "user", "content": "r"}
    ]  # fmt: skip


def test_the_newest_item_is_popped_out_of_a_message(store: Store) -> None:
    async def main(session: TSMemorySession) -> None:
        await session.add_items(TURN[:4])  # type: ignore[arg-type]
        before = [m.create_time for m in store.conversation("s").iter_messages()]
        for left in (3, 2, 1):
            assert await session.pop_item() == TURN[left]
            assert await session.get_items() == TURN[:left]
            stored = list(store.conversation("s").iter_messages())
            assert [m.create_time for m in stored] == before[: len(stored)]
        assert await session.pop_item() == TURN[0]
        assert await session.pop_item() is None

    do(main, store)


def test_the_newest_item_before_messages_that_say_nothing(store: Store) -> None:
    async def main(session: TSMemorySession) -> None:
        await session.add_items(TURN[:1])  # type: ignore[arg-type]
        silent = Message.assistant([{"type": "reasoning", "reasoning": "hm"}])
        await session.conversation.aappend(
            [msgspec.structs.replace(silent, message_id=f"m{i}") for i in range(11)]
        )
        assert await session.pop_item() == TURN[0]
        assert await session.pop_item() is None

    do(main, store)


def test_many_pop_at_once(store: Store) -> None:
    async def main(session: TSMemorySession) -> None:
        four = [{**CALL, "call_id": f"c{i}"} for i in range(4)]
        await session.add_items([TURN[0], THOUGHT, *four])  # type: ignore[list-item]
        popped = await asyncio.gather(*(session.pop_item() for _ in range(6)))
        calls = sorted(item["call_id"] for item in popped if item and "call_id" in item)  # type: ignore[typeddict-item]
        assert calls == ["c0", "c1", "c2", "c3"]
        assert await session.get_items() == []

    do(main, store)


# -- repeated ------------------------------------------------------------------------------------


def test_adding_again_after_a_lost_reply(store: Store) -> None:
    async def main(session: TSMemorySession) -> None:
        for part in (TURN, TURN[1:4], TURN[1:], TURN):
            await session.add_items(part)  # type: ignore[arg-type]
        assert await session.get_items() == TURN

    do(main, store)


def test_items_without_ids_are_not_compared(store: Store) -> None:
    fake = {**ANSWER, "id": "__fake_id__"}
    yes: Items = [{"role": "user", "content": "yes"}, fake, OUTPUT,
                  {"type": "item_reference", "id": "msg_1"}]  # fmt: skip

    async def main(session: TSMemorySession) -> None:
        for _ in range(3):
            await session.add_items(yes)  # type: ignore[arg-type]
        await session.add_items([ANSWER, {**ANSWER, "status": "incomplete"}])  # type: ignore[list-item]
        assert await session.get_items() == [*yes * 3, ANSWER, {**ANSWER, "status": "incomplete"}]

    do(main, store)


def test_ids_of_any_length_and_characters(store: Store) -> None:
    items = [{**ANSWER, "id": own_id} for own_id in ("msg_" + "x" * 400, "msg_é" * 80, " ")]

    async def main(session: TSMemorySession) -> None:
        for _ in range(2):
            await session.add_items([*items, TURN[0]])  # type: ignore[list-item]
        assert await session.get_items() == [*items, TURN[0]]

    do(main, store)


@pytest.mark.parametrize(
    "odd",
    [5, "text", {"role": "user"}, [5], [{"role": "user", "content": 5}],
     [{"type": "x_call", "f": object()}]],
    ids=range(6),
)  # fmt: skip
def test_no_items(store: Store, odd: Any) -> None:
    with pytest.raises(InvalidInputError):
        do(lambda session: session.add_items(odd), store)
    assert do(lambda session: session.get_items(), store) == []


@pytest.mark.parametrize(
    "options", [{"window": "x"}, {"ttl": -1}, {"user_id": ""}, {"session_settings": 5}], ids=str
)
def test_arguments_are_checked_at_once(store: Store, options: Any) -> None:
    with pytest.raises(InvalidInputError):
        TSMemorySession("s", store=store, **options)


def test_from_url(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path}/chat.db"
        async with TSMemorySession.from_url("s", url, durability="normal", window=5) as session:
            await session.add_items(TURN[:1])  # type: ignore[arg-type]
            assert await session.get_items() == TURN[:1]
            assert "'s'" in repr(session)
        with pytest.raises(InvalidInputError):
            TSMemorySession.from_url("", url)

    asyncio.run(main())


# -- in runs -------------------------------------------------------------------------------------


def text(words: str, own_id: str = "msg_1") -> ResponseOutputMessage:
    part = ResponseOutputText(text=words, type="output_text", annotations=[])
    return ResponseOutputMessage(
        id=own_id, content=[part], role="assistant", status="completed", type="message"
    )


def call(name: str, call_id: str, arguments: str = "{}") -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        arguments=arguments, call_id=call_id, name=name, type="function_call", id=f"fc_{call_id}"
    )


def thought(own_id: str) -> ResponseReasoningItem:
    return ResponseReasoningItem(id=own_id, summary=[], type="reasoning")


class Script(Model):
    """Answers by a script, and keeps what it was shown."""

    def __init__(self, *turns: list[Any]) -> None:
        self.turns = list(turns)
        self.shown: list[Any] = []

    async def get_response(self, *arguments: Any, **options: Any) -> ModelResponse:
        self.shown.append(options.get("input", arguments[1] if len(arguments) > 1 else None))
        turn = self.turns.pop(0)
        if isinstance(turn[0], Exception):
            raise turn[0]
        return ModelResponse(output=turn, usage=Usage(), response_id=None)

    async def stream_response(self, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        answer = await self.get_response(*arguments, **options)
        response = Response(
            id="r", created_at=0, model="m", object="response", output=answer.output,
            tool_choice="none", tools=[], parallel_tool_calls=False,
        )  # fmt: skip
        yield ResponseCompletedEvent(
            type="response.completed", response=response, sequence_number=0
        )


@function_tool
def ferry(to: str) -> str:
    """When the next ferry goes."""
    return f"08:30 to {to}"


def crew() -> tuple[Agent[Any], Script]:
    script = Script(
        [
            thought("rs_1"),
            call("ferry", "c1", '{"to": "Bergen"}'),
            call("ferry", "c2", '{"to": "Os"}'),
        ],
        [call("transfer_to_captain", "c3")],
        [text("At 08:30.", "msg_1")],
        [text("Yes.", "msg_2")],
    )
    captain: Agent[Any] = Agent("captain", model=script)
    return Agent("desk", model=script, tools=[ferry], handoffs=[handoff(captain)]), script


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_keeps_what_the_sdk_s_own_session_keeps(store: Store, streamed: bool) -> None:
    async def talk(session: Any) -> tuple[Items, list[Any]]:
        agent, script = crew()
        for question in ("Ferry?", "Sure?"):
            if streamed:
                stream = Runner.run_streamed(agent, question, session=session, run_config=NO_TRACE)
                async for _ in stream.stream_events():
                    pass
            else:
                await Runner.run(agent, question, session=session, run_config=NO_TRACE)
        return await session.get_items(), script.shown

    async def main() -> Items:
        theirs = SQLiteSession("s")
        kept = await talk(theirs)
        assert await talk(TSMemorySession("s", store=store)) == kept
        theirs.close()
        return kept[0]

    kept: Any = asyncio.run(main())
    calls = [
        call.name for message in store.conversation("s").window() for call in message.tool_calls
    ]
    # The first answer calls twice and hands over; openai-agents 0.8 keeps less of it when streamed.
    assert calls == [item["name"] for item in kept if item.get("type") == "function_call"] != []


def test_a_window_is_a_prompt_that_the_api_takes(store: Store) -> None:
    """Where the SDK's limit of items would begin in the middle of a turn."""

    async def main() -> None:
        session = TSMemorySession("s", store=store)
        for i in range(4):
            own = [{**item, "id": f"{item['id']}{i}"} if "id" in item else item for item in TURN]
            await session.add_items(own)  # type: ignore[arg-type]
        for last in range(1, 14):
            session.window = Window(last=last, start="any")
            items: Any = await session.get_items()
            calls = [i["call_id"] for i in items if i.get("type") == "function_call"]
            outputs = [i["call_id"] for i in items if i.get("type") == "function_call_output"]
            assert sorted(calls) == sorted(outputs)
            behind = [b for a, b in itertools.pairwise(items) if a.get("type") == "reasoning"]
            assert {item.get("type") for item in behind} <= {"function_call"}
            # A message of calls is three items, and an answer to them is never shown without.
            assert 0 < len(items) <= max(6, 2 * last)
        agent, script = crew()
        script.turns = [[text("Yes.", "msg_9")]]
        session.window = Window(last=2)
        await Runner.run(agent, "Sure?", session=session, run_config=NO_TRACE)
        assert len(script.shown[0]) < len(TURN) + 3
        assert len(await session.get_items(1000)) == 4 * len(TURN) + 2

    asyncio.run(main())


def test_a_run_that_fails_keeps_the_question(store: Store) -> None:
    agent, script = crew()
    script.turns = [[RuntimeError("as asked")]]

    async def main(session: TSMemorySession) -> Any:
        with pytest.raises(RuntimeError, match="as asked"):
            await Runner.run(agent, "Ferry?", session=session, run_config=NO_TRACE)
        return await session.get_items()

    assert do(main, store) == [{"role": "user", "content": "Ferry?"}]


# -- with the others -----------------------------------------------------------------------------


def test_the_others_read_what_the_sdk_wrote(store: Store) -> None:
    do(lambda session: session.add_items(TURN), store)
    question, calling, first, second, answer = TSMemoryChatMessageHistory("s", store=store).messages
    assert (question.content, answer.content) == ("Ferry?", "At 08:30.")
    assert [c["id"] for c in calling.tool_calls] == ["c1", "c2"]  # type: ignore[attr-defined]
    assert (first.content, second.text) == ("08:30", "09:00")
    assert [m.tool_call_id for m in (first, second)] == ["c1", "c2"]  # type: ignore[attr-defined]

    chat = TSMemoryChatStore(store).get_messages("s")
    assert [m.role.value for m in chat] == ["user", "assistant", "tool", "tool", "assistant"]
    assert chat[-1].content == "At 08:30."

    raw = [to_openai(m) for m in store.conversation("s").iter_messages()]
    assert [c["function"]["name"] for c in raw[1]["tool_calls"]] == ["ferry", "ferry"]
    assert [m["role"] for m in raw] == ["user", "assistant", "tool", "tool", "assistant"]


@given(ITEMS)
def test_the_others_read_whatever_items_there_are(items: Items) -> None:
    """In any view, and nothing arrives without what it held."""
    with open_store("memory:") as store:
        chat = store.conversation("s")
        chat.append(from_items(items))
        for window in (Window(), Window(last=2, start="any"), Window(merge_roles=True)):
            for message in chat.window(window):
                to_items(message)
                langchain, llamaindex = to_langchain(message), to_llamaindex(message)
                calls = getattr(langchain, "tool_calls", []), message.tool_calls
                kwargs = langchain.additional_kwargs, llamaindex.additional_kwargs
                if message.content:
                    assert langchain.content or any(calls) or kwargs[0]
                    assert llamaindex.blocks or kwargs[1]


def test_the_sdk_reads_what_the_others_wrote(store: Store) -> None:
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    calls = [{"name": "ferry", "args": {"to": "Bergen"}, "id": "c1"}]
    TSMemoryChatMessageHistory("s", store=store).add_messages(
        [HumanMessage("Ferry?"), AIMessage("Let me look.", tool_calls=calls),
         ToolMessage("08:30", tool_call_id="c1")]
    )  # fmt: skip
    assert do(lambda session: session.get_items(), store) == [
        {"role": "user", "content": "Ferry?"},
        {"role": "assistant", "content": "Let me look."},
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "ferry",
            "arguments": '{"to": "Bergen"}',
        },
        {"type": "function_call_output", "call_id": "c1", "output": "08:30"},
    ]
    assert do(lambda session: session.pop_item(), store)["output"] == "08:30"
    assert do(lambda session: session.pop_item(), store)["type"] == "function_call"
    assert TSMemoryChatMessageHistory("s", store=store).messages[-1].content == "Let me look."


def test_the_reasoning_goes_on_with_langchain_s_openai(store: Store) -> None:
    """What LangChain's integration sends to the Responses API has the SDK's reasoning item."""
    base = pytest.importorskip("langchain_openai.chat_models.base")
    do(lambda session: session.add_items(TURN), store)
    messages = TSMemoryChatMessageHistory("s", store=store).messages
    sent = base._construct_responses_api_input(messages)
    reasoning = [item for item in sent if item.get("type") == "reasoning"]
    assert reasoning == [THOUGHT]
    assert [i["call_id"] for i in sent if i.get("type") == "function_call"] == ["c1", "c2"]


def test_what_was_brought_in_comes_back_equal(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"

    async def write() -> None:
        theirs = SQLiteSession("s", path)
        await theirs.add_items(TURN)  # type: ignore[arg-type]
        theirs.close()

    asyncio.run(write())
    report = import_from(store, path, format="openai-agents")
    assert report.problems == []
    assert do(lambda session: session.get_items(), store) == TURN
