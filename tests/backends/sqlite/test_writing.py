"""Writers that wait share a commit, each with its own outcome; nothing else waits for them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tsmemory import ConflictError, Message, Store, TimeoutError, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection, as far as SQLite's locks are concerned."""
    with open_store(f"sqlite:///{path}") as store:
        store.setup()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def opened(path: Path, **options: Any) -> Store:
    return open_store(f"sqlite:///{path}", durability="normal", **options)


async def queued(store: Store, count: int) -> None:
    """Return when `count` writes wait."""
    while len(store.backend.writer._queue) < count:  # noqa: ASYNC110  # the queue is no event
        await asyncio.sleep(0.001)


def traced(store: Store) -> list[str]:
    """The statements that the store's connection runs from now on."""
    statements: list[str] = []
    (db,) = store.backend.connections.idle
    db.set_trace_callback(statements.append)
    return statements


def test_waiting_writers_share_one_commit(path: Path, other: sqlite3.Connection) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.asetup()
            statements = traced(store)
            other.execute("BEGIN IMMEDIATE")
            chats = [store.conversation(f"s{i}") for i in range(50)]
            tasks = [asyncio.create_task(chat.aappend(Message.user("x"))) for chat in chats]
            await queued(store, 50)
            other.execute("ROLLBACK")
            stored = await asyncio.gather(*tasks)
            assert [len(messages) for messages in stored] == [1] * 50
            assert statements.count("COMMIT") == 1
            assert [await chat.acount() for chat in chats] == [1] * 50

    asyncio.run(main())


def test_one_that_fails_takes_no_other_along(path: Path, other: sqlite3.Connection) -> None:
    async def main() -> None:
        async with opened(path) as store:
            chat = store.conversation("s")
            first = await chat.aappend(Message.user("kept", message_id="a"))
            other.execute("BEGIN IMMEDIATE")
            tasks = [
                asyncio.create_task(work)
                for work in (
                    chat.aappend(Message.user("b", message_id="b")),
                    # Writes its row of the session, and "c", before it finds the conflict.
                    chat.aappend(
                        Message.user("c", message_id="c"), Message.user("other", message_id="a")
                    ),
                    chat.aappend(Message.user("kept", message_id="a")),
                    chat.aappend(Message.user("d"), if_version=99),
                    chat.aupdate_message("a", metadata={"seen": True}),
                    chat.aappend(Message.user("e", message_id="e")),
                )
            ]
            await queued(store, 6)
            other.execute("ROLLBACK")
            results = await asyncio.gather(*tasks, return_exceptions=True)
            expected = (list, ConflictError, list, ConflictError, Message, list)
            assert all(map(isinstance, results, expected)), results
            assert results[2] == list(first)
            assert [m.message_id async for m in chat.aiter_messages()] == ["a", "b", "e"]
            session = await chat.asession()
            assert (session.message_count, session.version) == (3, 4)
            assert await store.averify() == []

    asyncio.run(main())


def test_a_cancelled_waiter_is_not_written(path: Path, other: sqlite3.Connection) -> None:
    async def main() -> None:
        async with opened(path) as store:
            chat = store.conversation("s")
            other.execute("BEGIN IMMEDIATE")
            tasks = [
                asyncio.create_task(chat.aappend(Message.user(str(i), message_id=str(i))))
                for i in range(10)
            ]
            await queued(store, 10)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks[::2], return_exceptions=True)
            other.execute("ROLLBACK")
            await asyncio.gather(*tasks[1::2])
            assert [m.message_id async for m in chat.aiter_messages()] == list("13579")

    asyncio.run(main())


def test_cancelled_anywhere_it_is_written_once_or_not_at_all(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            chat = store.conversation("s")
            acknowledged = set()
            for i in range(60):
                task = asyncio.create_task(chat.aappend(Message.user("x", message_id=str(i))))
                for _ in range(i % 12):
                    await asyncio.sleep(0)
                if not task.cancel():
                    acknowledged.add(str(i))
                await asyncio.gather(task, return_exceptions=True)
                await chat.aappend(Message.user("x", message_id=str(i)))  # the retry
            ids = [m.message_id async for m in chat.aiter_messages()]
            assert ids == [str(i) for i in range(60)]
            assert acknowledged <= set(ids)

    asyncio.run(main())


def test_reads_and_the_application_go_on_while_writers_wait(
    path: Path, other: sqlite3.Connection
) -> None:
    async def main() -> None:
        async with opened(path) as store:
            chat = store.conversation("s")
            await chat.aappend(Message.user("x"))
            other.execute("BEGIN IMMEDIATE")
            tasks = [asyncio.create_task(chat.aappend(Message.user("w"))) for _ in range(40)]
            await queued(store, 40)
            for _ in range(5):
                assert len(await asyncio.wait_for(chat.awindow(5), 30)) == 1
                assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 30) == 1
            assert not any(task.done() for task in tasks)
            other.execute("ROLLBACK")
            await asyncio.gather(*tasks)
            assert await chat.acount() == 41

    asyncio.run(main())


def test_threads_that_wait_share_a_commit(path: Path, other: sqlite3.Connection) -> None:
    with opened(path) as store:
        store.setup()
        statements = traced(store)
        other.execute("BEGIN IMMEDIATE")
        chat = store.conversation("s")
        threads = [
            threading.Thread(target=chat.append, args=(Message.user(str(i)),)) for i in range(8)
        ]
        for thread in threads:
            thread.start()
        while len(store.backend.writer._queue) < 8:
            time.sleep(0.001)
        other.execute("ROLLBACK")
        for thread in threads:
            thread.join()
        assert statements.count("COMMIT") == 1
        assert chat.count() == 8


def test_a_caller_alone_starts_no_thread(path: Path) -> None:
    before = set(threading.enumerate())
    with opened(path) as store:
        chat = store.conversation("s")
        for _ in range(3):
            chat.append(Message.user("x"))
            chat.window(3)
        chat.delete()
        assert set(threading.enumerate()) <= before


def test_time_outs_do_not_add_up(path: Path, other: sqlite3.Connection) -> None:
    async def main() -> None:
        async with opened(path, timeout=0.2) as store:
            await store.asetup()
            statements = traced(store)
            other.execute("BEGIN IMMEDIATE")
            chat = store.conversation("s")
            outcomes = await asyncio.gather(
                *(chat.aappend(Message.user("x")) for _ in range(12)), return_exceptions=True
            )
            other.execute("ROLLBACK")
            assert [type(outcome) for outcome in outcomes] == [TimeoutError] * 12
            assert all("write lock" in str(outcome) for outcome in outcomes)
            # A wait of 0.2 s has 25 to 50 attempts; one wait after another would have over 300.
            assert 0 < statements.count("BEGIN IMMEDIATE") < 150
            assert await chat.acount() == 0

    asyncio.run(main())
