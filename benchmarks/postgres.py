"""PostgreSQL: what an append and a window cost, beside the same statement by hand and the peers.

A real server with fsync on, in a temporary directory. Every case takes turns with the others.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from rich.table import Table

from benchmarks._measure import compare, console, show
from tsmemory import Message, Store
from tsmemory.backends.postgres import PostgresBackend
from tsmemory.engine.commit import encode_bodies
from tsmemory.engine.records import Change, Key, MessageQuery
from tsmemory.testing.servers.postgres import PostgresServer

TEXT = "What is the weather like in Rome this week, and should I pack an umbrella?"
SIZES = (100, 1_000_000)
ROUNDS = 400
_WINDOW = MessageQuery(limit=28, descending=True, pinned=True)


@contextmanager
def opened(url: str, **options: Any) -> Iterator[Store]:
    with Store(PostgresBackend.from_url(url, **options)) as store:
        store.setup()
        yield store


def fill(connection: Any, session: str, count: int) -> None:
    """`count` messages, written round the API: a million appends would take minutes."""
    connection.execute(
        "INSERT INTO tsmemory_sessions (user_id, session_id, create_time, update_time, version, "
        "message_count, last_time) VALUES ('default', %s, 0, 0, 1, %s, %s)",
        [session, count, count],
    )
    connection.execute(
        "INSERT INTO tsmemory_messages SELECT s.id, i, md5(i::text), s.user_id, i = 1, "
        "jsonb_build_object('role', CASE WHEN i %% 2 = 1 THEN 'user' ELSE 'assistant' END, "
        "'content', %s::text) FROM tsmemory_sessions s, generate_series(1, %s) i "
        "WHERE s.session_id = %s",
        [TEXT, count, session],
    )
    connection.execute("VACUUM ANALYZE tsmemory_messages, tsmemory_sessions")


def by_hand(connection: Any, store: Store, session: str) -> dict[str, Callable[[], object]]:
    """The backend's own statements with psycopg alone, prepared in the server."""
    backend: Any = store.backend
    key = Key("default", session)
    message = Message.user(TEXT)
    change = Change(append=(message,))
    sql, values = backend.append_statement(key, change, [message], encode_bodies(change))
    window = backend.read_statement(key, _WINDOW, None, 28)

    def append() -> object:
        values["ids"] = [str(uuid.uuid4())]
        return connection.execute(sql, values, prepare=True).fetchall()

    def read() -> object:
        rows = connection.execute(*window, prepare=True).fetchall()
        return [json.loads(row[3]) for row in rows]

    return {"append": append, "window": read}


def ratios(server: PostgresServer) -> None:
    """Medians in µs, and ratios to the statement by hand."""
    for commit in ("on", "off"):
        url = f"{server.url}?options=-c%20synchronous_commit%3D{commit}"
        with opened(url) as store, psycopg.connect(url, autocommit=True) as connection:
            for size in SIZES:
                session = f"{commit}-{size}"
                fill(connection, session, size)
                hand = by_hand(connection, store, session)
                chat = store.conversation(session)
                title = f"{size:,} messages, synchronous_commit {commit}"
                show(f"append of one message: {title}", compare({
                    "psycopg by hand": hand["append"],
                    "tsmemory": lambda chat=chat: chat.append(Message.user(TEXT)),
                }, ROUNDS))  # fmt: skip
                show(f"window(20): {title}", compare({
                    "psycopg by hand": hand["window"],
                    "tsmemory": lambda chat=chat: chat.window(20),
                }, ROUNDS))  # fmt: skip


def buffers(server: PostgresServer) -> None:
    """Pages of the server's buffer cache that each statement touches."""
    table = Table(title="buffers touched (EXPLAIN ANALYZE, BUFFERS)", title_justify="left")
    for column in ("statement", *(f"{size:,} messages" for size in SIZES)):
        table.add_column(column, justify="right")
    found: dict[str, list[str]] = {}
    with opened(server.url) as store, server.connect() as connection:
        cursor = psycopg.ClientCursor(connection)
        backend: Any = store.backend
        for size in SIZES:
            key, message = Key("default", f"on-{size}"), Message.user(TEXT)
            change = Change(append=(message,))
            for name, (sql, values) in {
                "append": backend.append_statement(key, change, [message], encode_bodies(change)),
                "window(20)": backend.read_statement(key, _WINDOW, None, 28),
            }.items():
                with connection.transaction(force_rollback=True):
                    cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", values)
                    plan = (cursor.fetchone() or ())[0][0]["Plan"]
                touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                found.setdefault(name, []).append(str(touched))
    for name, row in found.items():
        table.add_row(name, *row)
    console.print(table)


# -- peers -----------------------------------------------------------------------------------


def peers(server: PostgresServer) -> None:
    """The same conversation in other packages' stores: 100 messages, then one more or a read."""
    appends: dict[str, Callable[[], object]] = {}
    windows: dict[str, Callable[[], object]] = {}
    with opened(server.url) as store:
        chat = store.conversation("peers")
        chat.append(*(Message.user(TEXT) for _ in range(100)))
        appends["tsmemory"] = lambda: chat.append(Message.user(TEXT))
        windows["tsmemory"] = lambda: chat.window(20)
        with server.connect() as connection, server.connect() as another:
            if importlib.util.find_spec("langchain_postgres"):
                _langchain(connection, appends, windows)
            if importlib.util.find_spec("langgraph.checkpoint.postgres"):
                _langgraph(another, appends, windows)
            if importlib.util.find_spec("llama_index.storage.chat_store.postgres"):
                _llamaindex(server, appends, windows)
            show("append to 100 messages", compare(appends, 100))
            show("read the last 20 of 100 messages (peers: what they offer)", compare(windows, 100))


def _langchain(connection: Any, appends: Any, windows: Any) -> None:
    from langchain_core.messages import HumanMessage
    from langchain_postgres import PostgresChatMessageHistory

    PostgresChatMessageHistory.create_tables(connection, "chat_history")
    history = PostgresChatMessageHistory(
        "chat_history", str(uuid.uuid4()), sync_connection=connection
    )
    history.add_messages([HumanMessage(TEXT) for _ in range(100)])
    appends["langchain-postgres"] = lambda: history.add_messages([HumanMessage(TEXT)])
    windows["langchain-postgres"] = lambda: history.messages[-20:]


def _langgraph(connection: Any, appends: Any, windows: Any) -> None:
    from langchain_core.messages import HumanMessage
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row

    connection.row_factory = dict_row
    saver = PostgresSaver(connection)
    saver.setup()
    messages = [HumanMessage(TEXT) for _ in range(100)]
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    versions = itertools.count(1)

    def put() -> object:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": messages}
        version = str(next(versions))
        checkpoint["channel_versions"] = {"messages": version}
        return saver.put(config, checkpoint, {}, {"messages": version})

    put()
    appends["langgraph-checkpoint-postgres"] = put
    windows["langgraph-checkpoint-postgres"] = lambda: saver.get_tuple(config)


def _llamaindex(server: PostgresServer, appends: Any, windows: Any) -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.storage.chat_store.postgres import PostgresChatStore

    peer = PostgresChatStore.from_uri(server.url.replace("postgresql", "postgresql+psycopg"))
    peer.set_messages("k", [ChatMessage(role="user", content=TEXT) for _ in range(100)])
    appends["llama-index PostgresChatStore"] = lambda: peer.add_message(
        "k", ChatMessage(role="user", content=TEXT)
    )
    windows["llama-index PostgresChatStore"] = lambda: peer.get_messages("k")[-20:]


# -- throughput ------------------------------------------------------------------------------


def throughput(server: PostgresServer) -> None:
    """Appends per second and p99, each writer to a session of its own."""
    table = Table(title="appends, synchronous_commit on", title_justify="left")
    for column in ("writers", "mode", "per second", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for writers in (1, 10, 100):
        for mode, run in (("sync", _threads), ("async", _tasks)):
            times, seconds = run(server, writers, max(10, 1_000 // writers))
            p99 = statistics.quantiles(times, n=100)[98]
            table.add_row(
                str(writers), mode, f"{len(times) / seconds:,.0f}",
                f"{statistics.median(times) * 1000:.2f}", f"{p99 * 1000:.2f}",
            )  # fmt: skip
    console.print(table)


def _threads(server: PostgresServer, writers: int, count: int) -> tuple[list[float], float]:
    times: list[float] = []
    with opened(server.url) as store:

        def write(number: int) -> None:
            chat = store.conversation(f"sync-{writers}-{number}")
            for _ in range(count):
                begin = time.perf_counter()
                chat.append(Message.user(TEXT))
                times.append(time.perf_counter() - begin)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(writers)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return times, time.perf_counter() - begin


def _tasks(server: PostgresServer, writers: int, count: int) -> tuple[list[float], float]:
    times: list[float] = []

    async def write(store: Store, number: int) -> None:
        chat = store.conversation(f"async-{writers}-{number}")
        for _ in range(count):
            begin = time.perf_counter()
            await chat.aappend(Message.user(TEXT))
            times.append(time.perf_counter() - begin)

    async def main() -> float:
        async with Store(PostgresBackend.from_url(server.url)) as store:
            await store.asetup()
            begin = time.perf_counter()
            await asyncio.gather(*(write(store, i) for i in range(writers)))
            return time.perf_counter() - begin

    return times, asyncio.run(main())


def main() -> None:
    with PostgresServer(fsync=True, options=("shared_buffers=512MB",)) as server:
        ratios(server)
        buffers(server)
        throughput(server)
    for commit in ("on", "off"):
        console.print(f"[bold]synchronous_commit {commit}[/]")
        with PostgresServer(fsync=True, options=(f"synchronous_commit={commit}",)) as server:
            peers(server)


if __name__ == "__main__":
    main()
