"""`RunnableWithMessageHistory` on tsmemory: runs of one session at once lose and double nothing."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableLambda
from langchain_core.runnables import history as lc_history
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import BaseModel

from langchain_tsmemory import (
    USER_HISTORY_FIELDS,
    TSMemoryChatMessageHistory,
    history_factory,
    user_history_factory,
)
from tests._pairs import in_pairs
from tsmemory import InvalidInputError, Store, Window, open_store

Hook = Callable[[str], None]
AHook = Callable[[str], Awaitable[None]]


def no_wait(_: str) -> None:
    pass


async def no_await(_: str) -> None:
    pass


class Model(BaseChatModel):
    """Answers what it was asked; `wait` is called in the middle of it."""

    wait: Hook = no_wait
    await_: AHook = no_await

    @property
    def _llm_type(self) -> str:
        return "test"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.wait(str(messages[-1].content))
        return _answer(messages)

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        await self.await_(str(messages[-1].content))
        return _answer(messages)


def _answer(messages: list[BaseMessage]) -> ChatResult:
    text = f"re: {messages[-1].content} ({len(messages)})"
    return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


def model(wait: Hook = no_wait, await_: AHook = no_await) -> Runnable[Any, Any]:
    """LangChain hands a bare model's input to its listeners as a copy."""
    return Model(wait=wait, await_=await_)


def chain(wait: Hook = no_wait, await_: AHook = no_await) -> Runnable[Any, Any]:
    return RunnableLambda(_same) | Model(wait=wait, await_=await_)


def texts(wait: Hook = no_wait, await_: AHook = no_await) -> Runnable[Any, Any]:
    """A chain that gives no message and no id, only a text."""

    def call(messages: list[BaseMessage]) -> str:
        wait(str(messages[-1].content))
        return "ok"

    async def acall(messages: list[BaseMessage]) -> str:
        await await_(str(messages[-1].content))
        return "ok"

    return RunnableLambda(call, acall)


def _same(value: Any) -> Any:
    return value


def with_history(runnable: Any, get: Any, **options: Any) -> RunnableWithMessageHistory:
    with warnings.catch_warnings():
        # Deprecated since langchain-core 1.3.3, and asked for all the same.
        warnings.simplefilter("ignore")
        return RunnableWithMessageHistory(runnable, get, **options)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Store]:
    url = "memory:"
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/chat.db?durability=normal"
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def memory() -> Iterator[Store]:
    with open_store("memory:") as opened:
        yield opened


def from_factory(store: Store, window: Any) -> Any:
    return history_factory(store, window=window)


def made_per_call(store: Store, window: Any) -> Any:
    return lambda session_id: TSMemoryChatMessageHistory(session_id, store=store, window=window)


def kept_and_shared(store: Store, window: Any) -> Any:
    """As LangChain's documentation does it."""
    kept: dict[str, BaseChatMessageHistory] = {}

    def get_by_session_id(session_id: str) -> BaseChatMessageHistory:
        if session_id not in kept:
            kept[session_id] = TSMemoryChatMessageHistory(session_id, store=store, window=window)
        return kept[session_id]

    return get_by_session_id


def subclassed(store: Store, window: Any) -> Any:
    class Mine(TSMemoryChatMessageHistory):
        @property
        def messages(self) -> list[BaseMessage]:  # type: ignore[override]
            return super().messages

        async def aget_messages(self) -> list[BaseMessage]:
            return await super().aget_messages()

    return lambda session_id: Mine(session_id, store=store, window=window)


GETS = [from_factory, made_per_call, kept_and_shared]
CHAINS = [model, chain, texts]
CONFIG: Any = {"configurable": {"session_id": "s"}}


def said(store: Store, session_id: str = "s", user_id: str = "default") -> list[str]:
    history = TSMemoryChatMessageHistory(session_id, store=store, user_id=user_id)
    return [str(m.content) for m in history.messages]


def inputs(found: Sequence[str]) -> list[str]:
    return [text for text in found if not text.startswith(("re:", "ok"))]


def run(runnable: Runnable[Any, Any], how: str, value: Any, config: Any = CONFIG) -> None:
    async def astream() -> None:
        async for _ in runnable.astream(value, config):
            pass

    if how == "invoke":
        runnable.invoke(value, config)
    elif how == "stream":
        list(runnable.stream(value, config))
    elif how == "ainvoke":
        asyncio.run(runnable.ainvoke(value, config))
    else:
        asyncio.run(astream())


HOWS = ["invoke", "stream", "ainvoke", "astream"]


@pytest.mark.parametrize(
    ("how", "make", "get", "store"),
    in_pairs(HOWS, CHAINS, [*GETS, subclassed], ["memory", "sqlite"]),
    indirect=["store"],
)
def test_one_run_after_another(store: Store, get: Any, make: Any, how: str) -> None:
    for window in (None, 0, 1, 3, Window(max_tokens=30)):
        store.clear()
        runnable = with_history(make(), get(store, window))
        asked = [f"q{i}" for i in range(6)]
        for text in asked:
            run(runnable, how, [HumanMessage(text)])
        found = said(store)
        assert found[::2] == asked
        assert inputs(found) == asked
        assert len(found) == 12


@pytest.mark.parametrize("how", HOWS)
def test_dicts(store: Store, how: str) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be {mood}."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    runnable = with_history(
        prompt | Model(),
        history_factory(store, window=2),
        input_messages_key="question",
        history_messages_key="history",
    )
    for i in range(3):
        run(runnable, how, {"mood": "brief", "question": f"q{i}"})
    assert said(store) == [
        "q0", "re: q0 (2)", "q1", "re: q1 (4)", "q2", "re: q2 (4)",
    ]  # fmt: skip

    inside = with_history(
        RunnableLambda(lambda value: {"output": f"ok {len(value['asked'])}"}),
        history_factory(store, window=2),
        input_messages_key="asked",
        output_messages_key="output",
    )
    for i in range(3):
        run(inside, how, {"asked": [HumanMessage(f"q{i}")]}, {"configurable": {"session_id": "d"}})
    assert said(store, "d") == ["q0", "ok 1", "q1", "ok 3", "q2", "ok 3"]


def seed(store: Store, turns: int) -> list[str]:
    history = TSMemoryChatMessageHistory("s", store=store)
    before: list[str] = []
    for i in range(turns):
        history.add_messages([HumanMessage(f"old {i}"), AIMessage(f"re: old {i}")])
        before += [f"old {i}", f"re: old {i}"]
    return before


TURNS = [(0, True), (1, False), (3, True), (3, False)]
"""How many turns there are before, and whether both runs ask the same."""


@pytest.mark.parametrize(
    ("turns_and_same", "window", "make", "get", "how"),
    in_pairs(TURNS, [None, 1, 3], CHAINS, GETS, ["invoke", "stream"]),
)
def test_two_threads_at_once(
    memory: Store, get: Any, make: Any, window: Any, turns_and_same: tuple[int, bool], how: str
) -> None:
    """Both read; the second answers and writes; then the first does."""
    turns, same = turns_and_same
    before = seed(memory, turns)
    both_read = threading.Barrier(2, timeout=120)
    second_wrote = threading.Event()
    first = threading.local()

    def wait(_: str) -> None:
        both_read.wait()
        if getattr(first, "yes", False):
            assert second_wrote.wait(120)

    runnable = with_history(make(wait), get(memory, window))

    def one() -> None:
        first.yes = True
        run(runnable, how, [HumanMessage("yes" if same else "one")])

    def two() -> None:
        run(runnable, how, [HumanMessage("yes" if same else "two")])
        second_wrote.set()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(one), pool.submit(two)]:
            done.result(120)
    found = said(memory)
    assert found[: len(before)] == before
    assert inputs(found[len(before) :]) == (["yes", "yes"] if same else ["two", "one"])
    assert len(found) == len(before) + 4


@pytest.mark.parametrize(
    ("turns_and_same", "window", "make", "get", "how"),
    in_pairs(TURNS, [None, 1, 3], CHAINS, GETS, ["ainvoke", "astream"]),
)
def test_two_tasks_at_once(
    memory: Store, get: Any, make: Any, window: Any, turns_and_same: tuple[int, bool], how: str
) -> None:
    turns, same = turns_and_same
    before = seed(memory, turns)

    async def main() -> None:
        reading, second_wrote = 0, asyncio.Event()
        both_read = asyncio.Event()
        first = asyncio.Event()

        async def await_(_: str) -> None:
            nonlocal reading
            reading += 1
            mine = reading == 1
            first.set()
            if reading == 2:
                both_read.set()
            await both_read.wait()
            if mine:
                await second_wrote.wait()

        runnable = with_history(make(await_=await_), get(memory, window))

        async def go(text: str) -> None:
            value = [HumanMessage(text)]
            if how == "ainvoke":
                await runnable.ainvoke(value, CONFIG)
            else:
                async for _ in runnable.astream(value, CONFIG):
                    pass

        async def one() -> None:
            await go("yes" if same else "one")

        async def two() -> None:
            await first.wait()
            await go("yes" if same else "two")
            second_wrote.set()

        await asyncio.wait_for(asyncio.gather(one(), two()), 30)

    asyncio.run(main())
    found = said(memory)
    assert found[: len(before)] == before
    assert inputs(found[len(before) :]) == (["yes", "yes"] if same else ["two", "one"])
    assert len(found) == len(before) + 4


@pytest.mark.parametrize(
    ("store", "get", "make"),
    in_pairs(["memory", "sqlite"], [*GETS, subclassed], CHAINS),
    indirect=["store"],
)
def test_many_at_once(store: Store, get: Any, make: Any) -> None:
    runnable = with_history(make(), get(store, 3))

    def ask(who: int) -> None:
        for i in range(5):
            runnable.invoke([HumanMessage(f"q {who} {i}")], CONFIG)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    found = inputs(said(store))
    assert sorted(found) == sorted(f"q {who} {i}" for who in range(8) for i in range(5))
    for who in range(8):
        own = [text for text in found if text.startswith(f"q {who} ")]
        assert own == sorted(own)

    async def main() -> None:
        await asyncio.gather(
            *(runnable.ainvoke([HumanMessage(f"a {i}")], CONFIG) for i in range(20))
        )

    asyncio.run(main())
    found = inputs(said(store))[40:]
    assert sorted(found) == sorted(f"a {i}" for i in range(20))
    runnable.batch([[HumanMessage(f"b {i}")] for i in range(9)], CONFIG)
    assert sorted(inputs(said(store))[60:]) == [f"b {i}" for i in range(9)]


@pytest.mark.parametrize(
    ("store", "get", "how"), in_pairs(["memory", "sqlite"], GETS, HOWS), indirect=["store"]
)
def test_a_run_that_fails_is_forgotten(store: Store, get: Any, how: str) -> None:
    seed(store, 3)

    def fail(messages: list[BaseMessage]) -> str:
        if messages[-1].content == "fail":
            raise RuntimeError("as asked")
        return "ok"

    runnable = with_history(RunnableLambda(fail), get(store, 3))
    for _ in range(2):
        for _ in range(3):
            with pytest.raises(RuntimeError, match="as asked"):
                run(runnable, how, [HumanMessage("fail")])
        run(runnable, how, [HumanMessage("more"), HumanMessage("than one")])
    assert said(store)[6:] == ["more", "than one", "ok"] * 2


def test_a_step_that_reads_and_writes_the_history_itself(store: Store) -> None:
    seed(store, 2)
    get = kept_and_shared(store, 2)

    def step(messages: list[BaseMessage]) -> str:
        history = get("s")
        assert [m.content for m in messages[-3:-1]] == [m.content for m in history.messages]
        history.add_user_message("from inside")
        assert history.messages[-1].content == "from inside"
        return "ok"

    run(with_history(RunnableLambda(step), get), "invoke", [HumanMessage("q")])
    assert said(store)[4:] == ["from inside", "q", "ok"]


def test_instructions_and_tokens(store: Store) -> None:
    """A window may be longer at the end of a run than at its beginning, or shorter."""
    TSMemoryChatMessageHistory("s", store=store).add_messages([SystemMessage("Be brief.")])
    seen: list[list[str]] = []

    def step(messages: list[BaseMessage]) -> str:
        seen.append([str(m.content) for m in messages])
        return "ok"

    runnable = with_history(RunnableLambda(step), history_factory(store, window=2))
    for i in range(3):
        run(runnable, "invoke", [HumanMessage(f"q{i}")])
    assert seen[-1] == ["Be brief.", "q1", "ok", "q2"]
    assert said(store) == ["Be brief.", "q0", "ok", "q1", "ok", "q2", "ok"]


# -- the factories -------------------------------------------------------------------------------


def test_one_key(store: Store) -> None:
    runnable = with_history(chain(), history_factory(store, user_id="ada", ttl=60))
    runnable.invoke([HumanMessage("hi")], CONFIG)
    assert said(store, user_id="ada")[0] == "hi"
    assert said(store) == []
    left = store.conversation("s", user_id="ada").get_ttl()
    assert left is not None
    assert 50 < left <= 60
    with pytest.raises(ValueError, match="session_id"):
        runnable.invoke([HumanMessage("hi")], {"configurable": {}})
    with pytest.raises(InvalidInputError, match="empty"):
        runnable.invoke([HumanMessage("hi")], {"configurable": {"session_id": ""}})


@pytest.mark.parametrize("how", HOWS)
def test_two_keys(store: Store, how: str) -> None:
    runnable = with_history(
        chain(),
        user_history_factory(store, window=4),
        history_factory_config=USER_HISTORY_FIELDS,
    )
    assert {spec.id for spec in runnable.config_specs} == {"user_id", "conversation_id"}
    for user in ("ada", "bob"):
        for _ in range(2):
            config = {"configurable": {"user_id": user, "conversation_id": "1"}}
            run(runnable, how, [HumanMessage(f"I am {user}")], config)
    for user in ("ada", "bob"):
        assert inputs(said(store, "1", user)) == [f"I am {user}"] * 2
    with pytest.raises(ValueError, match="conversation_id"):
        run(runnable, how, [HumanMessage("hi")], {"configurable": {"user_id": "ada"}})


def test_a_key_by_another_name(store: Store) -> None:
    thread = ConfigurableFieldSpec(id="thread_id", annotation=str, default="", is_shared=True)
    runnable = with_history(chain(), history_factory(store), history_factory_config=[thread])
    run(runnable, "invoke", [HumanMessage("hi")], {"configurable": {"thread_id": "t"}})
    assert said(store, "t")[0] == "hi"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"window": -1}, "-1"),
        ({"window": "x"}, "str"),
        ({"ttl": -1}, "-1"),
        ({"user_id": ""}, "empty"),
    ],
)
def test_factories_check_at_once(store: Store, arguments: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        history_factory(store, **arguments)
    if "user_id" not in arguments:
        with pytest.raises(InvalidInputError, match=named):
            user_history_factory(store, **arguments)
    for factory in (history_factory, user_history_factory):
        with pytest.raises(InvalidInputError, match="open_store"):
            factory("memory:")  # type: ignore[operator]


def test_langchain_still_reads_where_we_look() -> None:
    """A release that reads in other methods, or names its input otherwise, fails here."""
    for name in ("_enter_history", "_aenter_history", "_exit_history", "_aexit_history"):
        method = getattr(RunnableWithMessageHistory, name)
        assert method.__globals__["__name__"] == lc_history.__name__
        names = {"self", "input_messages"} if "exit" in name else {"self", "value"}
        assert names <= set(method.__code__.co_varnames)
    configures = RunnableWithMessageHistory._merge_configs
    assert configures.__globals__["__name__"] == lc_history.__name__
    assert "config" in configures.__code__.co_varnames


@pytest.mark.parametrize("how", HOWS)
def test_what_is_streamed_is_stored_whole(store: Store, how: str) -> None:
    words = GenericFakeChatModel(messages=iter([]))
    for runnable in (words, RunnableLambda(_same) | words):
        words.messages = iter([AIMessage("several words of it")])
        store.clear()
        run(with_history(runnable, history_factory(store)), how, [HumanMessage("q")])
        back = TSMemoryChatMessageHistory("s", store=store).messages
        assert [type(m) for m in back] == [HumanMessage, AIMessage]
        assert back[1].content == "several words of it"


class Sailing(BaseModel):
    port: str
    hour: int


@pytest.mark.parametrize(
    ("value", "back"), [(Sailing(port="Bergen", hour=8), True), (object(), False)]
)
def test_a_turn_is_kept_whatever_its_answer_carries(
    store: Store, caplog: pytest.LogCaptureFixture, value: Any, back: bool
) -> None:
    """LangChain runs the end of a run as a listener, whose errors it logs and does not raise: a
    value that cannot be stored must not take the turn along."""

    def answer(_: Any) -> AIMessage:
        return AIMessage("x", additional_kwargs={"parsed": value})

    run(with_history(RunnableLambda(answer), history_factory(store)), "invoke", [HumanMessage("q")])
    assert said(store) == ["q", "x"]
    kwargs = TSMemoryChatMessageHistory("s", store=store).messages[1].additional_kwargs
    assert kwargs == ({"parsed": {"port": "Bergen", "hour": 8}} if back else {})
    assert ("additional_kwargs.parsed is left out" in caplog.text) is not back
