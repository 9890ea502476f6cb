"""SQLite: a file, durable to power loss (``synchronous=FULL``, also the default of the peers)."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import (
    MARGIN,
    SESSION,
    SESSIONS,
    WORD,
    Append,
    Contender,
    Place,
    bodies,
    new_id,
    view,
)
from benchmarks.contenders.shared import (
    SavedThread,
    appender,
    bytes_of,
    langchain_appender,
    langchain_history,
    llamaindex_messages,
    saver,
    tsmemory_store,
)

__all__ = ["agents", "floor", "langchain", "llamaindex", "ours", "saver_in_a_file"]


class ByHand:
    """`sqlite3` and `json`: two tables and an FTS5 index. It keeps no users, checks nothing that
    comes in, and compares no contents under an id that is there."""

    SCHEMA = """
        CREATE TABLE s (pk INTEGER PRIMARY KEY, id TEXT UNIQUE, created INTEGER, t INTEGER,
            version INTEGER, n INTEGER, title TEXT, summary TEXT, expires_at INTEGER,
            metadata TEXT NOT NULL DEFAULT '{}');
        CREATE INDEX s_t ON s (t);
        CREATE TABLE m (pk INTEGER PRIMARY KEY, s INTEGER, t INTEGER, id TEXT, role TEXT,
            body BLOB);
        CREATE INDEX m_t ON m (s, t, id);
        CREATE UNIQUE INDEX m_id ON m (s, id);
        CREATE INDEX m_role ON m (s, t) WHERE role = 'system';
        CREATE VIRTUAL TABLE f USING fts5(text, content='', columnsize=0);
    """

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        if not self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self.db.executescript(self.SCHEMA)

    def append(self, session: str, messages: list[dict[str, Any]]) -> None:
        now, execute = time.time_ns() // 1000, self.db.execute
        execute("BEGIN IMMEDIATE")
        row = execute("SELECT pk, t, n FROM s WHERE id = ?", (session,)).fetchone()
        if row is None:
            values = (session, now)
            added = execute(
                "INSERT INTO s (id, created, t, version, n) VALUES (?, ?, 0, 0, 0)", values
            )
            row = (added.lastrowid, 0, 0)
        pk, last, count = row
        for message in messages:
            last = max(now, last + 1)
            added = execute(
                "INSERT INTO m (s, t, id, role, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO "
                "NOTHING",
                (pk, last, new_id(), message["role"], json.dumps(message)),
            )
            if added.rowcount:
                count += 1
                execute(
                    "INSERT INTO f (rowid, text) VALUES (?, ?)",
                    (added.lastrowid, message["content"]),
                )
        execute("UPDATE s SET t = ?, n = ?, version = version + 1 WHERE pk = ?", (last, count, pk))
        execute("COMMIT")

    def window(self, session: str) -> list[Any]:
        rows = self.db.execute(
            "SELECT t, id, body FROM m WHERE s = (SELECT pk FROM s WHERE id = ?) "
            "ORDER BY t DESC, id DESC LIMIT ?",
            (session, 20 + MARGIN),
        ).fetchall()
        newest = [{**json.loads(body), "id": mid, "created": t} for t, mid, body in rows]
        rules = self.db.execute(
            "SELECT body FROM m WHERE s = (SELECT pk FROM s WHERE id = ?) AND role = 'system' "
            "AND t < ?",
            (session, newest[-1]["created"]),
        ).fetchall()
        return view(newest, [json.loads(body) for (body,) in rules])

    def listing(self) -> list[dict[str, Any]]:
        rows = self.db.execute(
            "SELECT id, created, t, version, n, title, summary, expires_at, metadata FROM s "
            "WHERE expires_at IS NULL OR expires_at > ? ORDER BY t DESC LIMIT 21",
            (time.time_ns() // 1000,),
        ).fetchall()
        names = ("id", "created", "updated", "version", "count", "title", "summary", "expires")
        return [
            {**dict(zip(names, row, strict=False)), "metadata": json.loads(row[-1])}
            for row in rows[:20]
        ]

    def search(self) -> list[Any]:
        rows = self.db.execute(
            "SELECT s.id, m.t, m.id, m.body FROM f JOIN m ON m.pk = f.rowid JOIN s ON s.pk = m.s "
            "WHERE f MATCH ? ORDER BY f.rowid DESC LIMIT 20",
            (WORD,),
        ).fetchall()
        return [
            {**json.loads(body), "id": mid, "created": t, "session": session}
            for session, t, mid, body in rows
        ]


def floor(stack: ExitStack, place: Place) -> Contender:
    path = place.root / "floor.db"
    store = ByHand(path)
    stack.callback(store.db.close)
    return Contender(
        lambda count: store.append(SESSION, bodies(count)),
        lambda: store.window(SESSION),
        store.listing,
        store.search,
        begin=lambda: [store.append(f"s{i}", bodies(1)) for i in range(SESSIONS)],
        hold=lambda name: store.append(name, bodies(1)),
        size=partial(bytes_of, path),
    )


def ours(stack: ExitStack, place: Place) -> Contender:
    path = place.root / "ours.db"
    return tsmemory_store(stack, f"sqlite:///{path}", partial(bytes_of, path))


def langchain(stack: ExitStack, place: Place) -> Contender:
    from langchain_community.chat_message_histories import SQLChatMessageHistory
    from sqlalchemy import create_engine

    path = place.root / "langchain.db"
    engine = create_engine(f"sqlite:///{path}")
    stack.callback(engine.dispose)

    async def tasks(count: int) -> AsyncIterator[Append]:
        from sqlalchemy.ext.asyncio import create_async_engine

        served = create_async_engine(f"sqlite+aiosqlite:///{path}")
        of = langchain_appender(lambda name: SQLChatMessageHistory(name, connection=served))
        async with of(count) as append:
            yield append
        await served.dispose()

    return langchain_history(
        lambda session: SQLChatMessageHistory(session, connection=engine),
        size=partial(bytes_of, path),
        appender=appender(tasks),
    )


def llamaindex(stack: ExitStack, place: Place) -> Contender:
    import asyncio

    from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

    path = place.root / "llamaindex.db"
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    run = loop.run_until_complete

    def opened() -> Any:
        return SQLAlchemyChatStore(table_name="m", async_database_uri=f"sqlite+aiosqlite:///{path}")

    store: Any = opened()
    run(store._initialize())
    stack.callback(lambda: run(store._async_engine.dispose()))

    async def tasks(_: int) -> AsyncIterator[Append]:
        served = opened()
        await served._initialize()
        yield lambda number: served.add_message(f"a{number}", llamaindex_messages(1)[0])
        await served._async_engine.dispose()

    return Contender(
        lambda count: run(store.add_messages(SESSION, llamaindex_messages(count))),
        lambda: run(store.get_messages(SESSION, limit=20)),
        hold=lambda name: run(store.add_messages(name, llamaindex_messages(1))),
        size=partial(bytes_of, path),
        appender=appender(tasks),
    )


def agents(stack: ExitStack, place: Place) -> Contender:
    import asyncio

    from agents import SQLiteSession

    path = place.root / "agents.db"
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    run, items = loop.run_until_complete, bodies

    def opened(name: str) -> Any:
        return SQLiteSession(name, path)

    session = opened(SESSION)
    stack.callback(session.close)

    def hold(name: str) -> object:
        held = opened(name)
        run(held.add_items(items(1)))
        return held

    async def tasks(count: int) -> AsyncIterator[Append]:
        sessions = [opened(f"a{number}") for number in range(count)]
        yield lambda number: sessions[number].add_items(items(1))
        for one in sessions:
            one.close()

    return Contender(
        lambda count: run(session.add_items(items(count))),
        lambda: run(session.get_items(20)),
        hold=hold,
        size=partial(bytes_of, path),
        appender=appender(tasks),
    )


def saver_in_a_file(stack: ExitStack, place: Place) -> Contender:
    from langgraph.checkpoint.sqlite import SqliteSaver

    path = place.root / "saver.db"
    connection = sqlite3.connect(path, check_same_thread=False)
    stack.callback(connection.close)

    async def tasks(count: int) -> AsyncIterator[Append]:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        threads = [SavedThread(f"a{number}") for number in range(count)]
        async with AsyncSqliteSaver.from_conn_string(str(path)) as kept:
            yield lambda number: kept.aput(*threads[number].next(1))

    return saver(SqliteSaver(connection), tasks, size=partial(bytes_of, path))
