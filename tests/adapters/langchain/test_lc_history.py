"""`TSMemoryChatMessageHistory` as a chat history of LangChain, sync and async."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)

from langchain_tsmemory import TSMemoryChatMessageHistory
from tests._chat_api import conversations
from tests.adapters.langchain.strategies import message_lists, thorough
from tsmemory import InvalidInputError, Message, Store, Window, open_store
from tsmemory.backends.memory import MemoryBackend
from tsmemory.engine.steps import Steps


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Store]:
    url = "memory:"
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('lc')}/chat.db?durability=normal"
    with open_store(url) as opened:
        yield opened


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    yield
    gc.collect()  # a store left open would warn here


class Both:
    """One set of test bodies, called sync and async."""

    def __init__(self, sync: bool) -> None:
        self.sync = sync

    def add(self, history: TSMemoryChatMessageHistory, messages: Any) -> None:
        if self.sync:
            history.add_messages(messages)
        else:
            asyncio.run(history.aadd_messages(messages))

    def read(self, history: TSMemoryChatMessageHistory) -> list[BaseMessage]:
        return history.messages if self.sync else asyncio.run(history.aget_messages())

    def clear(self, history: TSMemoryChatMessageHistory) -> None:
        if self.sync:
            history.clear()
        else:
            asyncio.run(history.aclear())


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Both:
    return Both(request.param == "sync")


Make = Callable[..., TSMemoryChatMessageHistory]


@pytest.fixture
def make(store: Store) -> Iterator[Make]:
    def history(session_id: str = "s", **options: Any) -> TSMemoryChatMessageHistory:
        return TSMemoryChatMessageHistory(session_id, store=store, **options)

    yield history
    store.clear()


def test_home_again(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"

    @settings(
        thorough,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        max_examples=max(20, thorough.max_examples // 10),
    )
    @given(messages=message_lists)
    def check(messages: list[BaseMessage]) -> None:
        # Making the messages takes longer than keeping them.
        for store, both in itertools.product(stores, (Both(sync=True), Both(sync=False))):
            history = TSMemoryChatMessageHistory("s", store=store)
            both.clear(history)
            both.add(history, messages)
            back = both.read(history)
            assert back == messages
            assert list(map(type, back)) == list(map(type, messages))

    with open_store("memory:") as first, open_store(f"sqlite:///{path}?durability=normal") as other:
        stores = (first, other)
        check()


def test_real_conversations_come_back_equal(make: Make, both: Both) -> None:
    for name, raw in conversations().items():
        messages = convert_to_messages(raw)
        history = make(name)
        both.add(history, messages)
        assert both.read(history) == messages
        assert both.read(make(name)) == messages


def test_it_is_a_chat_history(make: Make) -> None:
    history = make()
    assert isinstance(history, BaseChatMessageHistory)
    history.add_user_message("My name is Ada.")
    history.add_ai_message("Hi Ada!")
    history.add_message(SystemMessage("Be brief."))
    assert str(history) == "Human: My name is Ada.\nAI: Hi Ada!\nSystem: Be brief."
    assert repr(history) == "TSMemoryChatMessageHistory('s', user_id='default')"
    for name in ("aget_messages", "aadd_messages", "aclear"):
        ours = getattr(TSMemoryChatMessageHistory, name)
        assert inspect.iscoroutinefunction(ours)
        assert ours is not getattr(BaseChatMessageHistory, name), "it would block a thread"


def test_nothing_there(make: Make, both: Both) -> None:
    assert both.read(make()) == []
    assert both.read(make(window=5)) == []
    both.clear(make())
    both.add(make(), [])
    assert make().conversation.session() is None


def test_users_and_sessions_are_apart(make: Make, both: Both) -> None:
    for user in ("ada", "bob"):
        for session in ("1", "1/2"):
            both.add(make(session, user_id=user), [HumanMessage(f"{user} {session}")])
    both.clear(make("1", user_id="ada"))
    assert both.read(make("1", user_id="ada")) == []
    assert both.read(make("1", user_id="bob")) == [HumanMessage("bob 1")]
    assert both.read(make("1/2", user_id="ada")) == [HumanMessage("ada 1/2")]
    assert both.read(make("1")) == []


def test_a_reader_sees_what_is_there_now(make: Make, both: Both) -> None:
    reader, writer = make(window=2), make()
    assert both.read(reader) == []
    for i in range(3):
        both.add(writer, [HumanMessage(f"{i}"), AIMessage("ok")])
        assert both.read(reader) == [HumanMessage(f"{i}"), AIMessage("ok")]


def test_more_than_a_page(make: Make, both: Both) -> None:
    messages = [HumanMessage(str(i)) for i in range(1203)]
    both.add(make(), (m for m in messages))  # any iterable, once
    assert both.read(make()) == messages


def test_without_a_window_nothing_is_repaired(make: Make, both: Both) -> None:
    messages = [
        ToolMessage("orphan", tool_call_id="gone"),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "unanswered"}]),
        AIMessage("hi"),
    ]
    both.add(make(), messages)
    assert both.read(make()) == messages
    assert both.read(make(window=10)) == [AIMessage("hi")]


def test_windows(make: Make, both: Both) -> None:
    turns: list[BaseMessage] = [SystemMessage("Be brief.")]
    for i in range(5):
        turns += [HumanMessage(f"q{i}"), AIMessage(f"a{i}")]
    both.add(make(), turns)
    assert both.read(make(window=0)) == []
    assert both.read(make(window=2)) == [turns[0], *turns[-2:]]
    assert both.read(make(window=3)) == [turns[0], *turns[-4:]]
    assert both.read(make(window=Window(last=2, system="drop"))) == turns[-2:]
    make().conversation.update_session(summary="They met.")
    shown = both.read(make(window=Window(last=2, summary=True)))
    assert shown[1] == SystemMessage(
        "Summary of the conversation so far:\nThey met.", id="tsmemory:summary"
    )
    assert both.read(make()) == turns, "a window has written"


def test_an_id_is_stored_once(make: Make, both: Both) -> None:
    batch = [HumanMessage("yes", id="1"), AIMessage("ok", id="2")]
    for _ in range(2):
        both.add(make(), batch)
    assert both.read(make()) == batch
    both.add(make(), [HumanMessage("yes"), HumanMessage("yes")])
    assert len(both.read(make())) == 4, "told apart by content"


def test_remove_message(make: Make, both: Both) -> None:
    history = make()
    a, b, c = (HumanMessage(x, id=x) for x in "abc")
    both.add(history, [a, b])
    both.add(history, [RemoveMessage(id="a"), c])
    assert both.read(history) == [b, c]
    both.add(history, [RemoveMessage(id="not there")])
    both.add(history, [a, RemoveMessage(id="a")])
    assert both.read(history) == [b, c]
    newer = HumanMessage("newer", id="b")
    both.add(history, [RemoveMessage(id="b"), newer])
    assert both.read(history) == [c, newer]
    both.add(history, [a, RemoveMessage(id="__remove_all__"), b, RemoveMessage(id="x")])
    assert both.read(history) == [b]
    both.add(history, [RemoveMessage(id="__remove_all__")])
    assert both.read(history) == []


@pytest.mark.parametrize("odd", ["", "x" * 300, "é" * 128, "\ud800"])
def test_ids_that_the_store_cannot_have(make: Make, both: Both, odd: str) -> None:
    message = HumanMessage("hi", id=odd)
    both.add(make(), [message])
    both.add(make(), [message])
    assert both.read(make()) == [message]
    both.add(make(), [RemoveMessage(id=odd)])
    assert both.read(make()) == []


def test_chunks_are_stored_whole(make: Make, both: Both) -> None:
    pieces = [
        AIMessageChunk("Hel", id="1"),
        AIMessageChunk("lo", id="1"),
        AIMessageChunk(
            "",
            id="1",
            tool_call_chunks=[{"name": "f", "args": '{"a": 1}', "id": "c", "index": 0}],
        ),
    ]
    both.add(make(), [pieces[0] + pieces[1] + pieces[2]])
    assert both.read(make()) == [
        AIMessage("Hello", id="1", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c"}])
    ]


def test_nothing_is_written_of_a_batch_with_a_fault(make: Make, both: Both) -> None:
    history = make()
    for bad, named in (
        ([HumanMessage("ok"), "hi"], "str"),
        ([HumanMessage("ok"), HumanMessage([{"type": "odd", "k": object()}])], "object"),
        ("hi", "str"),
        (HumanMessage("hi"), "HumanMessage"),
        (None, "NoneType"),
        ([RemoveMessage(id="__remove_all__"), {"role": "user"}], "dict"),
    ):
        with pytest.raises(InvalidInputError, match=named):
            both.add(history, bad)
    assert history.conversation.session() is None


def test_clear_leaves_the_session(make: Make, both: Both) -> None:
    history = make()
    both.add(history, [HumanMessage("hi")])
    history.conversation.update_session(title="A title")
    both.clear(history)
    session = history.conversation.session()
    assert session is not None
    assert (session.title, session.message_count) == ("A title", 0)
    assert both.read(history) == []


def test_time_to_live(make: Make, both: Both) -> None:
    history = make(ttl=100)
    both.add(history, [HumanMessage("hi")])
    left = history.conversation.get_ttl()
    assert left is not None
    assert 90 < left <= 100


def test_what_others_wrote(make: Make, both: Both) -> None:
    history = make()
    history.conversation.append(
        Message.user([{"type": "image", "url": "https://x/y.png"}], message_id="1"),
        Message.assistant("nice", message_id="2", extensions={"llamaindex": {"a": 1}}),
        Message("critic", "hm", message_id="3"),
    )
    first, second, third = both.read(history)
    assert first == HumanMessage([{"type": "image", "url": "https://x/y.png"}], id="1")
    assert second == AIMessage("nice", id="2")
    assert (third.type, third.role) == ("chat", "critic")  # type: ignore[attr-defined]
    both.add(history, [second])  # as a framework that gives back what it read would
    kept = history.conversation.get_message("2")
    assert kept is not None
    assert kept.extensions == {"llamaindex": {"a": 1}}


def test_a_window_that_moves_in_steps(make: Make, both: Both) -> None:
    history = make(window=Window(last=4, step=4, merge_roles=True))
    before: list[Any] = []
    for i in range(8):
        both.add(history, [HumanMessage(f"q{i}"), AIMessage(f"a{i}")])
        now = both.read(history)
        assert len(now) in (2, 4, 6)
        if before and now[0] == before[0]:
            assert now[: len(before)] == before
        before = now


def test_another_message_under_a_used_id_is_kept(make: Make, both: Both) -> None:
    """As a cache gives it: the same id, and other usage."""
    history = make()
    answer = AIMessage("42", id="run-1")
    again = AIMessage("42", id="run-1", response_metadata={"cached": True})
    both.add(history, [HumanMessage("q", id="h1"), answer])
    both.add(history, [HumanMessage("q", id="h1"), answer])
    both.add(history, [HumanMessage("q again", id="h2"), again])
    asked, first, asked_again, second = both.read(history)
    assert [asked.text, first, asked_again.text] == ["q", answer, "q again"]
    assert second.id not in ("run-1", None)
    assert second == again.model_copy(update={"id": second.id})
    both.add(history, [AIMessage("a", id="x"), AIMessage("a", id="x"), AIMessage("b", id="x")])
    assert [m.text for m in both.read(history)[4:]] == ["a", "b"]


def test_from_a_url(tmp_path: Path, both: Both) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with TSMemoryChatMessageHistory("s", store=url) as history:
        both.add(history, [HumanMessage("hi")])
    with TSMemoryChatMessageHistory.from_url("s", url, window=3, durability="normal") as history:
        assert both.read(history) == [HumanMessage("hi")]
        history.close()

    async def main() -> list[BaseMessage]:
        async with TSMemoryChatMessageHistory("s", store=url) as opened:
            return await opened.aget_messages()

    assert asyncio.run(main()) == [HumanMessage("hi")]


def test_a_store_that_was_given_stays_open(store: Store) -> None:
    with TSMemoryChatMessageHistory("s", store=store) as history:
        history.add_user_message("hi")
    asyncio.run(history.aclose())
    assert len(TSMemoryChatMessageHistory("s", store=store).messages) == 1
    store.clear()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"store": None}, "NoneType"),
        ({"store": "nowhere://x"}, "nowhere"),
        ({"window": -1}, "-1"),
        ({"window": "5"}, "str"),
        ({"user_id": ""}, "user_id"),
        ({"session_id": "x" * 256}, "session_id"),
        ({"session_id": 5.5}, "session_id"),
        ({"ttl": 0}, "0"),
    ],
)
@pytest.mark.parametrize("url", [True, False])
@pytest.mark.usefixtures("collected")
def test_wrong_arguments(arguments: Any, named: str, url: bool, tmp_path: Path) -> None:
    with open_store("memory:") as opened:
        given = {
            "session_id": "s",
            "store": f"sqlite:///{tmp_path}/a.db" if url else opened,
            **arguments,
        }
        with pytest.raises(InvalidInputError, match=named):
            TSMemoryChatMessageHistory(given.pop("session_id"), **given)
        if url and "store" not in arguments:
            with pytest.raises(InvalidInputError, match=named):
                TSMemoryChatMessageHistory.from_url(
                    **{
                        ("url" if k == "store" else k): v
                        for k, v in (
                            {"session_id": "s"}
                            | given
                            | {k: v for k, v in arguments.items() if k == "session_id"}
                        ).items()
                    }
                )


class AsyncOnly(MemoryBackend):
    """An engine that has an async client only."""

    def run(self, steps: Steps[Any]) -> Any:
        raise AssertionError("a synchronous operation, from asynchronous code")

    async def arun(self, steps: Steps[Any]) -> Any:
        await asyncio.sleep(0)
        return MemoryBackend.run(self, steps)


def test_the_async_operations_are_native() -> None:
    async def main() -> None:
        for window in (None, 5):
            store = Store(AsyncOnly())
            history = TSMemoryChatMessageHistory("s", store=store, window=window)
            await history.aadd_messages([HumanMessage("hi", id="1"), AIMessage("hi")])
            await history.aadd_messages([RemoveMessage(id="1"), HumanMessage("again")])
            assert len(await history.aget_messages()) == (2 if window is None else 1)
            await history.aclear()
            assert await history.aget_messages() == []

    asyncio.run(main())


def test_importing_and_using_it_warns_of_nothing() -> None:
    code = (
        "from langchain_tsmemory import TSMemoryChatMessageHistory as H, history_factory\n"
        "from tsmemory import open_store\n"
        "s = open_store('memory:')\n"
        "h = H('s', store=s, window=3); h.add_user_message('hi'); h.messages\n"
        "history_factory(s)('s').messages; s.close()\n"
        "import sys; assert 'langchain_core.runnables.history' not in sys.modules\n"
    )
    theirs = (  # langchain-core imports langsmith, which Python 3.14 warns about
        "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning:"
        "langsmith._internal._beta_decorator"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-W", theirs, "-c", code],
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
