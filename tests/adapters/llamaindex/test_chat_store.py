"""`TSMemoryChatStore`, sync and async, against LlamaIndex's own `SimpleChatStore`."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store import BaseChatStore, SimpleChatStore

from llamaindex_tsmemory import TSMemoryAsyncChatStore, TSMemoryChatStore, to_neutral
from llamaindex_tsmemory._operations import align
from tests.adapters.llamaindex.conftest import Call, call_async, call_sync
from tests.adapters.llamaindex.strategies import given_many, messages, plain_messages
from tsmemory import (
    CorruptRecordError,
    InvalidInputError,
    Message,
    Store,
    ToolCall,
    Window,
    open_store,
)


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def texts(found: list[ChatMessage] | None) -> list[str | None]:
    return [m.content for m in found or []]


# -- the oracle --------------------------------------------------------------------------------

keys = st.sampled_from(["a", "b", "a/../b", "%_{}\x00"])
positions = st.integers(-6, 6)
operations = st.lists(
    st.tuples(st.just("add_message"), keys, messages)
    | st.tuples(st.just("add_message"), keys, plain_messages, positions)
    | st.tuples(st.just("set_messages"), keys, st.lists(plain_messages, min_size=1, max_size=5))
    | st.tuples(st.just("edit"), keys, positions, plain_messages)
    | st.tuples(st.just("delete_message"), keys, positions)
    | st.tuples(st.just("delete_last_message"), keys)
    | st.tuples(st.just("delete_messages"), keys),
    max_size=12,
)


def expected(simple: SimpleChatStore, method: str, *args: Any) -> Any:
    """What SimpleChatStore does, or None where it raises IndexError."""
    try:
        return getattr(simple, method)(*args)
    except IndexError:
        return None


@given_many
@given(operations)
def test_it_does_what_simple_chat_store_does(steps: list[tuple[Any, ...]]) -> None:
    for mode in (call_sync, call_async):
        check_against_simple(mode, steps)


def check_against_simple(mode: Call, steps: list[tuple[Any, ...]]) -> None:
    simple = SimpleChatStore()
    with open_store("memory:") as store:
        chats = TSMemoryChatStore(store)
        for method, key, *args in steps:
            if method == "set_messages":
                args = [list(args[0])]  # SimpleChatStore keeps, and changes, the list it is given
            if method == "edit":  # set_messages with one message changed, as an application would
                method = "set_messages"
                changed = list(simple.get_messages(key))
                changed[args[0] : args[0] + 1] = [args[1]]
                args = [changed]
            wanted = expected(simple, method, key, *args)
            assert mode(chats, method, key, *args) == wanted
            assert mode(chats, "get_messages", key) == simple.get_messages(key)
        assert sorted(mode(chats, "get_keys")) == sorted(simple.get_keys())


def test_every_method_of_the_base_is_implemented_sync_and_async() -> None:
    own = vars(TSMemoryChatStore)
    for name, method in vars(BaseChatStore).items():
        if name.startswith("_") or name == "class_name" or not inspect.isfunction(method):
            continue
        assert name in own, name
        assert inspect.iscoroutinefunction(own[name]) == inspect.iscoroutinefunction(method)
        for parameter in inspect.signature(method).parameters:
            assert parameter in inspect.signature(own[name]).parameters


def test_a_missing_key(chats: TSMemoryChatStore, call: Call) -> None:
    assert call(chats, "get_messages", "no") == []
    assert call(chats, "delete_messages", "no") is None
    assert call(chats, "delete_message", "no", 0) is None
    assert call(chats, "delete_last_message", "no") is None
    assert call(chats, "get_keys") == []


def test_the_list_is_the_callers(chats: TSMemoryChatStore, call: Call) -> None:
    call(chats, "set_messages", "k", [user("a"), assistant("b")])
    call(chats, "get_messages", "k").pop()
    found = call(chats, "get_messages", "k")
    found[0].blocks[0].text = "changed"
    assert texts(call(chats, "get_messages", "k")) == ["a", "b"]


def test_users_are_kept_apart(store: Store, call: Call) -> None:
    ada, bob = TSMemoryChatStore(store, user_id="ada"), TSMemoryChatStore(store, user_id="bob")
    call(ada, "add_message", "k", user("ada's"))
    call(bob, "add_message", "k", user("bob's"))
    call(bob, "add_message", "only bob", user("bob's"))
    assert call(ada, "get_keys") == ["k"]
    assert call(bob, "get_keys") == ["only bob", "k"]  # the most recently active first
    call(ada, "delete_messages", "k")
    assert texts(call(bob, "get_messages", "k")) == ["bob's"]


def test_more_messages_than_a_page(chats: TSMemoryChatStore, call: Call) -> None:
    many = [user(str(i)) for i in range(1203)]
    call(chats, "set_messages", "k", many)
    assert call(chats, "get_messages", "k") == many
    assert call(chats, "delete_message", "k", 1100).content == "1100"
    assert call(chats, "delete_message", "k", -1100).content == "102"
    assert len(call(chats, "delete_messages", "k")) == 1201


def test_ttl(store: Store, call: Call) -> None:
    call(TSMemoryChatStore(store, ttl=3600), "add_message", "k", user("a"))
    left = store.conversation("k").get_ttl()
    assert left is not None
    assert 3590 < left <= 3600


# -- set_messages ------------------------------------------------------------------------------


def neutral(store: Store, key: str = "k") -> list[Message]:
    return list(store.conversation(key).iter_messages())


def test_set_rewrites_only_what_differs(store: Store, call: Call) -> None:
    chat = store.conversation("k")
    theirs = {"langchain": {"usage_metadata": {"input_tokens": 1}}}
    chat.append(*(Message.user(str(i), extensions=theirs, metadata={"n": i}) for i in range(6)))
    chats = TSMemoryChatStore(store)
    before = neutral(store)
    shown = call(chats, "get_messages", "k")
    version = chat.session().version  # type: ignore[union-attr]

    call(chats, "set_messages", "k", shown)
    assert chat.session().version == version  # type: ignore[union-attr]  # nothing was written

    call(chats, "set_messages", "k", [*shown, user("new")])
    assert neutral(store)[:6] == before

    for changed in (
        [*shown[:2], user("between"), *shown[2:]],  # one inserted
        [*shown[:2], *shown[3:]],  # one taken out
        [user("summary"), *shown[4:]],  # the head replaced
        [shown[0], user("x"), shown[2], user("y"), *shown[4:], user("z")],
    ):
        chat.replace(before)
        call(chats, "set_messages", "k", changed)
        assert call(chats, "get_messages", "k") == changed
        stored = {m.message_id: m for m in neutral(store)}
        for message in before:
            if any(message.text == m.content for m in changed):
                kept = stored[message.message_id]
                assert (kept.extensions, kept.metadata) == (theirs, message.metadata)


@given_many
@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_align_pairs_equal_messages_in_order(old: list[str], new: list[str]) -> None:
    pairs = align([user(t) for t in old], [user(t) for t in new])
    assert all(old[i] == new[j] for i, j in pairs)
    assert pairs == sorted(set(pairs))
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    if old == new:
        assert len(pairs) == len(old)


def test_inserting_moves_as_little_as_can_be(store: Store, call: Call) -> None:
    chats = TSMemoryChatStore(store)
    store.conversation("k").append(*(Message.user(str(i)) for i in range(4)))  # successive µs
    before = neutral(store)
    call(chats, "add_message", "k", user("new"), 2)
    after = neutral(store)
    assert [m.text for m in after] == ["0", "1", "new", "2", "3"]
    assert after[:2] == before[:2]
    call(chats, "add_message", "k", user("first"), 0)
    call(chats, "add_message", "k", user("last"), 99)
    call(chats, "add_message", "k", user("near the end"), -1)
    call(chats, "add_message", "k", user("far before"), -99)
    assert texts(call(chats, "get_messages", "k")) == [
        *("far before", "first", "0", "1", "new", "2", "3", "near the end", "last")
    ]
    assert {m.message_id for m in before} <= {m.message_id for m in neutral(store)}


def test_inserting_among_messages_of_one_time(store: Store, call: Call) -> None:
    chats = TSMemoryChatStore(store)
    store.conversation("k").put_messages(
        Message.user(str(i), message_id=str(i), create_time=0 if i < 3 else 1) for i in range(5)
    )
    for at in (4, 2, 0):
        call(chats, "add_message", "k", user(f"before {at}"), at)
    assert texts(call(chats, "get_messages", "k")) == [
        *("before 0", "0", "1", "before 2", "2", "3", "before 4", "4")
    ]


# -- a window ----------------------------------------------------------------------------------


@pytest.fixture
def long(store: Store) -> list[ChatMessage]:
    found = [ChatMessage(role="system", content="be kind")]
    for i in range(10):
        found += [user(f"q{i}"), assistant(f"a{i}")]
    store.conversation("k").append(*map(to_neutral, found))
    return found


def test_a_window_shows_and_does_not_delete(
    store: Store, long: list[ChatMessage], call: Call
) -> None:
    chats = TSMemoryChatStore(store, window=4)
    shown = call(chats, "get_messages", "k")
    assert shown == [long[0], *long[-4:]]
    call(chats, "set_messages", "k", shown)
    call(chats, "set_messages", "k", [*shown, user("more")])
    assert len(neutral(store)) == 22

    edited = [long[0], user("earlier"), long[-2], user("q9 again"), long[-1], user("more")]
    call(chats, "set_messages", "k", edited)
    whole = TSMemoryChatStore(store)
    assert call(whole, "get_messages", "k") == [*long[:-4], *edited[1:]]

    assert call(chats, "delete_message", "k", 0).content == "be kind"
    assert call(chats, "delete_message", "k", -1).content == "more"
    assert call(chats, "delete_message", "k", 99) is None
    assert call(chats, "delete_last_message", "k").content == "a9"
    assert len(call(whole, "get_messages", "k")) == len(long[:-4]) + 3 - 1
    assert len(call(chats, "delete_messages", "k")) == len(long[:-4]) + 3 - 1
    assert neutral(store) == []


def test_setting_a_window_to_something_else(
    store: Store, long: list[ChatMessage], call: Call
) -> None:
    chats = TSMemoryChatStore(store, window=2)
    call(chats, "set_messages", "k", [user("x"), assistant("y")])
    whole = texts(call(TSMemoryChatStore(store), "get_messages", "k"))
    assert whole == [*texts(long[1:-2]), "x", "y"]


def test_what_a_window_makes_up_is_not_stored(store: Store, call: Call) -> None:
    chat = store.conversation("k")
    chat.append(
        Message.user("q"),
        Message.assistant("", tool_calls=[ToolCall("c1", "f", {})]),
    )
    chat.update_session(summary="they met")
    chats = TSMemoryChatStore(store, window=Window(summary=True, unanswered="error"))
    shown = call(chats, "get_messages", "k")
    assert [m.role.value for m in shown] == ["system", "user", "assistant", "tool"]
    call(chats, "set_messages", "k", shown)
    call(chats, "set_messages", "k", [*shown, user("go on")])
    call(chats, "set_messages", "k", [shown[0], user("before"), *shown[1:]])
    call(chats, "add_message", "k", user("the first"), 0)
    roles = [m.role for m in neutral(store)]
    assert roles == ["user", "user", "user", "assistant"]
    for made_up in (0, -1):
        with pytest.raises(InvalidInputError, match="made this message up"):
            call(chats, "delete_message", "k", made_up)


def test_window_is_checked_at_once(store: Store) -> None:
    for wrong in (-1, True, "5", {"last": -1}, {"size": 3}):
        with pytest.raises(InvalidInputError):
            TSMemoryChatStore(store, window=wrong)  # type: ignore[arg-type]


# -- errors ------------------------------------------------------------------------------------


def test_bad_arguments_write_nothing(store: Store, call: Call) -> None:
    chats = TSMemoryChatStore(store)
    call(chats, "set_messages", "k", [user("a")])
    for method, args in (
        ("add_message", ("k", "text")),
        ("add_message", ("k", user("x"), "0")),
        ("add_message", ("", user("x"))),
        ("set_messages", ("k", [user("b"), "text"])),
        ("set_messages", ("k", "text")),
        ("set_messages", ("k", user("b"))),
        ("set_messages", ("k", None)),
        ("delete_message", ("k", "0")),
    ):
        with pytest.raises(InvalidInputError):
            call(chats, method, *args)
    assert texts(call(chats, "get_messages", "k")) == ["a"]
    with pytest.raises(InvalidInputError, match="user_id"):
        TSMemoryChatStore(store, user_id="")
    with pytest.raises(InvalidInputError, match="time to live"):
        TSMemoryChatStore(store, ttl=-1)


def test_a_broken_record_is_no_empty_history(store: Store, call: Call) -> None:
    broken = {"llamaindex": {"additional_kwargs": {"x": {"@": "unknown"}}}}
    store.conversation("k").append(Message.user("a"), Message.user("b", extensions=broken))
    chats = TSMemoryChatStore(store)
    with pytest.raises(CorruptRecordError, match="session 'k'") as raised:
        call(chats, "get_messages", "k")
    assert raised.value.message_id == neutral(store)[1].message_id
    with pytest.raises(CorruptRecordError):
        call(chats, "set_messages", "k", [user("a")])
    assert texts(call(chats, "delete_messages", "k")) == ["a"]  # and yet it can be removed
    assert call(chats, "get_keys") == []


# -- concurrency -------------------------------------------------------------------------------


def test_deleting_the_last_at_once_removes_different_ones(store: Store) -> None:
    chats = TSMemoryChatStore(store)
    chats.set_messages("k", [user(str(i)) for i in range(40)])
    gone: list[str | None] = []

    def work() -> None:
        for _ in range(10):
            found = chats.delete_last_message("k")
            gone.append(found.content if found else None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(gone, key=str) == sorted(map(str, range(40)))


def test_tasks_at_once_lose_nothing(store: Store) -> None:
    chats = TSMemoryChatStore(store)

    async def work() -> None:
        await asyncio.gather(*(chats.async_add_message("k", user(str(i))) for i in range(30)))

    asyncio.run(work())
    assert sorted(texts(chats.get_messages("k")), key=str) == sorted(map(str, range(30)))


def test_the_event_loop_is_not_blocked_and_no_thread_runs_sync_methods(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = TSMemoryChatStore(store)
    for name in ("run", "to_thread"):
        target = "tsmemory.runner.Runner.run" if name == "run" else "asyncio.to_thread"
        if name == "to_thread" and "sqlite" in repr(store).lower():
            continue  # the engine's own worker thread
        monkeypatch.setattr(target, lambda *_, name=name: pytest.fail(f"{name} was called"))
    if "sqlite" in repr(store).lower():
        plain = type(store.backend).run
        loop_thread = threading.get_ident()

        def guarded(*args: Any) -> Any:
            assert threading.get_ident() != loop_thread
            return plain(*args)

        monkeypatch.setattr(type(store.backend), "run", guarded)

    async def work() -> None:
        await chats.aset_messages("k", [user("a"), user("b")])
        await chats.async_add_message("k", user("c"), 1)
        await chats.aget_messages("k")
        await chats.adelete_message("k", 0)
        await chats.adelete_last_message("k")
        await chats.aget_keys()
        await chats.adelete_messages("k")

    asyncio.run(work())


# -- a turn at once ----------------------------------------------------------------------------


def test_a_turn_is_one_commit(store: Store, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    commit = store.backend.commit

    def counted(key: Any, change: Any) -> Any:
        nonlocal commits
        commits += 1
        return (yield from commit(key, change))

    monkeypatch.setattr(store.backend, "commit", counted)
    chats = TSMemoryChatStore(store)
    call(chats, "add_messages", "k", [user("a"), assistant("b"), user("c"), assistant("d")])
    call(chats, "add_messages", "k", [])
    assert commits == 1
    assert texts(call(chats, "get_messages", "k")) == ["a", "b", "c", "d"]
    with pytest.raises(InvalidInputError):
        call(chats, "add_messages", "k", [user("e"), "f"])
    assert len(call(chats, "get_messages", "k")) == 4


@pytest.mark.parametrize("kind", [TSMemoryChatStore, TSMemoryAsyncChatStore])
def test_a_store_that_was_opened_for_a_bad_argument_is_closed(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Store] = []
    close = Store.close

    def counted(self: Store) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(Store, "close", counted)
    url = f"sqlite:///{tmp_path}/a.db"
    for make in (kind, kind.from_url):
        for wrong in ({"user_id": ""}, {"ttl": "x"}):
            with pytest.raises(InvalidInputError):
                make(url, **wrong)
            assert len(closed) == 1
            closed.clear()
