"""Other people's libraries, as they come from PyPI, on the local server."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from typing import Any

import pytest

SESSIONS = 12


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """`init_table` sleeps a second for the service; the local tables are there at once."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def memory() -> Any:
    return pytest.importorskip("tablestore_for_agent_memory.base.base_memory_store")


def store_arguments() -> dict[str, Any]:
    from tablestore import FieldSchema, FieldType
    from tablestore_for_agent_memory.base.common import MetaType

    return {
        "session_secondary_index_meta": {
            "meta_string": MetaType.STRING,
            "meta_int": MetaType.INTEGER,
        },
        "session_search_index_schema": [
            FieldSchema("title", FieldType.TEXT),
            FieldSchema("meta_string", FieldType.KEYWORD),
        ],
        "message_search_index_schema": [FieldSchema("meta_int", FieldType.LONG)],
    }


def session_of(memory: Any, number: int) -> Any:
    metadata = {
        "meta_string": f"s{number % 3}",
        "meta_int": number,
        "meta_double": number / 2,
        "meta_bool": number % 2 == 0,
        "meta_bytes": bytearray(b"\x00\xff"),
        "title": f"talk number {number}",
    }
    return memory.Session("u", f"s{number:02}", 1_000_000 + number, metadata)


def message_of(memory: Any, number: int, session: str = "s00") -> Any:
    metadata = {"meta_int": number, "even": number % 2 == 0}
    return memory.Message(session, f"m{number:03}", 2_000_000 + number, f"text {number}", metadata)


def test_agent_memory(server: Any, memory: Any) -> None:
    from tablestore_for_agent_memory.base.common import Order
    from tablestore_for_agent_memory.base.filter import Filters
    from tablestore_for_agent_memory.memory.memory_store import MemoryStore

    client = server.client()
    store = MemoryStore(client, **store_arguments())
    store.init_table()
    store.init_table()
    store.init_search_index()
    assert client.list_table() == ("message", "session")

    # sessions
    sessions = [session_of(memory, number) for number in range(SESSIONS)]
    for session in sessions:
        store.put_session(session)
    store.put_session(memory.Session("other", "s00", 9_000_000))
    assert store.get_session("u", "s03") == sessions[3]
    assert store.get_session("u", "none") is None
    assert list(store.list_sessions("u")) == sessions
    assert len(list(store.list_all_sessions())) == SESSIONS + 1
    recent = [s.session_id for s in store.list_recent_sessions("u", max_count=5)]
    assert recent == [f"s{number:02}" for number in range(11, 6, -1)]
    with server.counting() as counted:
        assert len(list(store.list_recent_sessions("u", max_count=5))) == 5
    assert counted.total.requests == 1
    page = store.list_recent_sessions_paginated("u", page_size=7)
    rest = store.list_recent_sessions_paginated("u", page_size=7, next_token=page.next_token)
    assert [len(page.hits), len(rest.hits), rest.next_token] == [7, 5, None]
    chosen = Filters.logical_and(
        [Filters.eq("meta_string", "s1"), Filters.logical_not([Filters.gt("meta_int", 6)])]
    )
    assert [s.session_id for s in store.list_sessions("u", chosen)] == ["s01", "s04"]
    assert [s.session_id for s in store.list_recent_sessions("u", metadata_filter=chosen)] == [
        "s04", "s01",
    ]  # fmt: skip
    found = store.search_sessions(Filters.text_match("title", "number 4"), limit=2)
    assert found.hits[0].session_id == "s04"
    more = store.search_sessions(
        Filters.text_match("title", "number 4"), limit=100, next_token=found.next_token
    )
    assert len(found.hits) + len(more.hits) == SESSIONS
    changed = memory.Session("u", "s03", 5_000_000, {"meta_int": 33})
    store.update_session(changed)
    assert store.get_session("u", "s03").metadata == sessions[3].metadata | {"meta_int": 33}
    assert next(store.list_recent_sessions("u")).session_id == "s03"

    # messages
    messages = [message_of(memory, number) for number in range(30)]
    for message in messages:
        store.put_message(message)
    store.put_message(message_of(memory, 0, "s01"))
    assert list(store.list_messages("s00")) == messages[::-1]
    assert list(store.list_messages("s00", order=Order.ASC)) == messages
    between = store.list_messages("s00", 2_000_005, 2_000_008, Order.ASC)
    assert [m.message_id for m in between] == ["m005", "m006", "m007", "m008"]
    evens = store.list_messages("s00", metadata_filter=Filters.eq("even", True), max_count=3)
    assert [m.message_id for m in evens] == ["m028", "m026", "m024"]
    assert store.get_message("s00", "m007") == messages[7]
    assert store.get_message("s00", "m007", 2_000_007) == messages[7]
    assert store.get_message("s00", "none") is None
    page = store.list_messages_paginated("s00", page_size=20)
    rest = store.list_messages_paginated("s00", page_size=20, next_token=page.next_token)
    assert page.hits + rest.hits == messages[::-1]
    found = store.search_messages(
        Filters.logical_and([Filters.In("meta_int", [3, 4]), Filters.eq("session_id", "s00")])
    )
    assert [m.message_id for m in found.hits] == ["m003", "m004"]
    store.update_message(memory.Message("s00", "m007", None, "new", {}))
    assert store.get_message("s00", "m007").content == "new"
    store.delete_message("s00", "m007")
    assert store.get_message("s00", "m007") is None
    store.delete_session_and_messages("u", "s00")
    assert list(store.list_messages("s00")) == []
    assert store.get_session("u", "s00") is None
    store.delete_all_messages()
    assert list(store.list_all_messages()) == []
    store.delete_sessions("u")
    assert [s.user_id for s in store.list_all_sessions()] == ["other"]
    store.delete_all_sessions()
    store._delete_table()
    assert client.list_table() == ()


def test_agent_memory_async(server: Any, memory: Any) -> None:
    from tablestore_for_agent_memory.base.filter import Filters
    from tablestore_for_agent_memory.memory.async_memory_store import AsyncMemoryStore

    async def use() -> None:
        async with server.async_client() as client:
            store = AsyncMemoryStore(client, **store_arguments())
            await store.init_table()
            await store.init_search_index()
            sessions = [session_of(memory, number) for number in range(SESSIONS)]
            for session in sessions:
                await store.put_session(session)
            assert await store.get_session("u", "s03") == sessions[3]
            recent = await store.list_recent_sessions("u", max_count=3)
            assert [s.session_id async for s in recent] == ["s11", "s10", "s09"]
            page = await store.list_recent_sessions_paginated("u", page_size=7)
            assert (len(page.hits), page.next_token is None) == (7, False)
            found = await store.search_sessions(Filters.eq("meta_string", "s2"))
            assert len(found.hits) == 4
            messages = [message_of(memory, number) for number in range(5)]
            for message in messages:
                await store.put_message(message)
            listed = await store.list_messages("s00")
            assert [m async for m in listed] == messages[::-1]
            assert await store.get_message("s00", "m002") == messages[2]
            await store.delete_messages("s00")
            assert [m async for m in await store.list_messages("s00")] == []
            await store._delete_table()

    asyncio.run(use())


def test_llama_index_chat_store(server: Any) -> None:
    with warnings.catch_warnings():
        # llama-index and what it imports warn of their own deprecations.
        warnings.simplefilter("ignore")
        module = pytest.importorskip("llama_index.storage.chat_store.tablestore")
        from llama_index.core.base.llms.types import ChatMessage

        store = module.TablestoreChatStore(
            endpoint=server.endpoint,
            instance_name=server.instance_name,
            access_key_id=server.access_key_id,
            access_key_secret=server.access_key_secret,
        )
        store.create_table_if_not_exist()
        store.create_table_if_not_exist()
        first = [
            ChatMessage(role="user", content="hi"),
            ChatMessage(role="assistant", content="ho"),
        ]
        store.set_messages("one", first)
        store.add_message("one", ChatMessage(role="user", content="more é"))
        store.add_message("two", ChatMessage(role="user", content="x"))
        assert [m.content for m in store.get_messages("one")] == ["hi", "ho", "more é"]
        assert store.delete_message("one", 1).content == "ho"
        assert store.delete_last_message("one").content == "more é"
        assert sorted(store.get_keys()) == ["one", "two"]
        assert len(store.delete_messages("one")) == 1
        store.clear_store()
        assert store.get_keys() == []


def test_langgraph_store_and_saver(server: Any, caplog: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        module = pytest.importorskip("langgraph.store.tablestore")
        from langgraph.checkpoint.base import empty_checkpoint
        from langgraph.checkpoint.tablestore import TablestoreSaver
        from tablestore import OTSClientError

        client = server.client()
        store = module.TablestoreStore(client)
        store.mset([(("a", "b"), "k", {"x": 1}), (("a", "b"), "l", {"x": 2})])
        assert store.mget([(("a", "b"), "k"), (("a", "b"), "l"), (("a",), "k")]) == [
            {"x": 1}, {"x": 2}, None,
        ]  # fmt: skip
        saver = TablestoreSaver(client)
        TablestoreSaver(client)
        assert "checkpoints" in client.list_table()
        # 0.1.0 writes a datetime column, which the SDK cannot encode; it never reaches a server.
        config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        with caplog.at_level(logging.CRITICAL), pytest.raises(OTSClientError, match="datetime"):
            saver.put(config, empty_checkpoint(), {}, {})
        assert list(saver.list(config)) == []
