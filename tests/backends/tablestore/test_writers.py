"""Many writers of one session, late indexes, and writers that are not ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tablestore import Row

from tsmemory import Message, Store
from tsmemory.engine.contract import now_us
from tsmemory.engine.records import Key
from tsmemory.testing.servers.tablestore import TablestoreProcess

from ._open import backend


@pytest.fixture
def store(server: TablestoreProcess) -> Iterator[Store]:
    with Store(backend(server)) as store:
        store.setup()
        yield store


@pytest.fixture
def shared(server: TablestoreProcess) -> Iterator[Store]:
    """In the tables of agent-memory, which others write too."""
    with Store(backend(server, layout="agent-memory")) as store:
        store.setup()
        yield store


def _say(*texts: str) -> list[Message]:
    return [Message.user(text, message_id=text) for text in texts]


def _peers_message(server: TablestoreProcess, session_id: str, message_id: str, time: int) -> None:
    client = server.client()
    key = [("session_id", session_id), ("create_time", time), ("message_id", message_id)]
    client.put_row("message", Row(key, [("content", message_id)]), None)
    client.connection.pool.clear()


# -- in one process --------------------------------------------------------------------------


def test_waiting_appends_are_committed_together(server: TablestoreProcess, store: Store) -> None:
    async def write() -> list[int]:
        async with Store(backend(server)) as mine:
            chat = mine.conversation("s")
            await chat.aappend(*_say("first"))

            async def one(task: int) -> list[int]:
                times = []
                for i in range(10):
                    (stored,) = await chat.aappend(*_say(f"{task}.{i}"))
                    times.append(stored.create_time or 0)
                assert times == sorted(times)
                return times

            with server.counting() as counted:
                found = await asyncio.gather(*(one(task) for task in range(40)))
            assert counted.total.requests <= 120, "far fewer than 2 per append"
            return [time for times in found for time in times]

    times = asyncio.run(write())
    assert len(set(times)) == 400
    chat = store.conversation("s")
    session = chat.session()
    assert session is not None
    assert (session.message_count, session.version) == (401, 401)
    assert len(chat.list_messages(limit=1000)) == 401
    assert store.verify() == []


def test_what_waits_with_others_fails_alone(server: TablestoreProcess, store: Store) -> None:
    store.conversation("s").append(*_say("a"))

    async def write() -> list[Any]:
        async with Store(backend(server)) as mine:
            chat = mine.conversation("s")
            batches = [_say("b"), [Message.user("other", message_id="a")], _say("c"), _say("a")]
            return await asyncio.gather(
                *(chat.aappend(*batch) for batch in batches), return_exceptions=True
            )

    b, conflict, c, again = asyncio.run(write())
    assert [m.text for m in (*b, *c, *again)] == ["b", "c", "a"]
    assert type(conflict).__name__ == "ConflictError"
    assert sorted(m.text for m in store.conversation("s").list_messages()) == ["a", "b", "c"]


def test_a_cancelled_wait_leaves_the_queue(
    server: TablestoreProcess, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was cancelled after its head was written is called off by the next; after 2 s otherwise.
    monkeypatch.setattr("tsmemory.backends.tablestore.backend._PATIENCE", 0.1)

    async def write() -> None:
        async with Store(backend(server)) as mine:
            chat = mine.conversation("s")
            for _ in range(5):
                tasks = [asyncio.ensure_future(chat.aappend(Message.user("x"))) for _ in range(20)]
                await asyncio.sleep(0)
                for task in tasks[::3]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.wait_for(chat.aappend(Message.user("end")), 4)

    asyncio.run(write())
    assert store.conversation("s").window(1)[0].text == "end"
    assert store.verify() == []


def test_stores_of_one_process_take_turns(server: TablestoreProcess, store: Store) -> None:
    store.conversation("s").append(*_say("first"))
    errors: list[BaseException] = []

    def write(name: int) -> None:
        try:
            with Store(backend(server)) as mine:
                for i in range(15):
                    mine.conversation("s").append(*_say(f"{name}.{i}"))
        except BaseException as error:  # noqa: BLE001  # a thread's error is the test's
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    texts = [m.text for m in store.conversation("s").iter_messages()]
    assert len(texts) == len(set(texts)) == 91
    assert store.verify() == []


def test_a_rewrite_makes_progress_beside_appenders(server: TablestoreProcess, store: Store) -> None:
    """In another process a rewrite would lose to each append; its lease makes them wait."""
    chat = store.conversation("s")
    chat.append(*_say("first"))
    done = threading.Event()
    appended = []

    def append() -> None:
        with Store(backend(server)) as mine:
            mine.backend._writer.scope = "another process"  # type: ignore[attr-defined]  # its turns
            while not done.is_set():
                mine.conversation("s").append(*_say(f"m{len(appended)}"))
                appended.append(1)

    thread = threading.Thread(target=append)
    thread.start()
    try:
        for i in range(10):
            chat.update_message("first", content=f"changed {i}")
    finally:
        done.set()
        thread.join()
    assert chat.list_messages(limit=1).items[0].text == "changed 9"
    assert chat.count() == len(appended) + 1
    assert store.verify() == []


# -- late indexes ----------------------------------------------------------------------------


def test_a_late_index_doubles_nothing(server: TablestoreProcess, store: Store) -> None:
    chat = store.conversation("s")
    chat.append(*_say("old"))
    server.set_options(local_index_lag=2.0)
    for i in range(30):
        chat.append(*_say(f"m{i}"))
    chat.append(*_say(*(f"n{i}" for i in range(40))))
    for _ in range(2):  # in processes that know nothing, the second one after the first one's write
        with Store(backend(server)) as other:
            again = other.conversation("s")
            for i in (29, 0, 15):
                again.append(*_say(f"m{i}"))
            again.append(*_say(*(f"n{i}" for i in range(40))))
            again.append(*_say("old"))
            assert again.count() == 71
    chat.append(*_say("m3", "n7"))
    texts = [m.text for m in chat.list_messages(limit=200)]
    assert len(texts) == len(set(texts)) == 71
    server.set_options(local_index_lag=0.0)
    server.settle()
    assert store.verify() == []


# -- writers that are not ours ---------------------------------------------------------------


def test_a_peer_with_its_clock_ahead(server: TablestoreProcess, shared: Store) -> None:
    chat = shared.conversation("s", user_id="u")
    chat.append(*_say("a"))
    _peers_message(server, "s", "peer", now_us() + 10_000_000)
    chat.append(*_say("b"))  # a warm writer sees it
    _peers_message(server, "s", "peer 2", now_us() + 20_000_000)
    with Store(backend(server, layout="agent-memory")) as cold:
        cold.conversation("s", user_id="u").append(*_say("c"))
    expected = ["a", "peer", "b", "peer 2", "c"]
    assert [m.text for m in chat.list_messages()] == expected
    assert [m.text for m in chat.window(3)] == expected[2:]


def test_erasing_a_user_of_a_shared_session_id(server: TablestoreProcess, shared: Store) -> None:
    one, two = (shared.conversation("s", user_id=user) for user in ("one", "two"))
    one.append(*_say("a", "b"))
    two.append(*_say("c"))
    _peers_message(server, "s", "whose", now_us())
    assert shared.erase_user("one").messages == 2
    assert [m.text for m in two.list_messages()] == ["c", "whose"]
    assert one.session() is None
    shared.erase_user("two")
    assert shared.conversation("s", user_id="three").list_messages().items == []


def test_the_tables_of_others_are_checked(server: TablestoreProcess) -> None:
    from tablestore import CapacityUnit, ReservedThroughput, TableMeta, TableOptions

    client = server.client()
    key = [("user_id", "STRING"), ("session_id", "STRING")]
    for name, options in (
        ("expires", TableOptions(time_to_live=86_400)),
        ("fixed", TableOptions(allow_update=False)),
    ):
        client.create_table(
            TableMeta(name, key, [("update_time", "INTEGER")]), options,
            ReservedThroughput(CapacityUnit(0, 0)),
        )  # fmt: skip
        with Store(backend(server, layout="agent-memory", session_table=name)) as store:
            with pytest.raises(Exception, match=r"time_to_live|allow_update"):
                store.setup()
    client.connection.pool.clear()


def test_a_key_names_its_session() -> None:
    from tsmemory.backends.tablestore.layout import Layout

    layout = Layout()
    for key in (Key("u", "s"), Key("a:b/c", "d/e"), Key("字", "x" * 255)):
        assert layout.key_of(layout.partition_of(key)) == key
    with pytest.raises(ValueError, match="not a partition value"):
        layout.key_of("0000:1:u/s")
