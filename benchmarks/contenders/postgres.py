"""PostgreSQL, with fsync on; each contender has a database of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import psycopg

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
    langchain_history,
    langchain_messages,
    llamaindex_messages,
    llamaindex_store,
    saver,
    tsmemory_store,
)

__all__ = ["floor", "langchain", "llamaindex", "ours", "saver_in_a_database"]

CONNECTIONS = 10
"""That a peer without a pool of its own is given, for 10 and more tasks."""


class ByHand:
    """psycopg: one prepared statement per append, which upserts the session, adds the messages
    and their search index in one round trip. It keeps no users, and a repeated id is an error."""

    SCHEMA = """
        CREATE TABLE IF NOT EXISTS s (pk bigserial PRIMARY KEY, id text UNIQUE, created bigint,
            t bigint, version bigint, n bigint, title text, summary text, expires_at bigint,
            metadata jsonb NOT NULL DEFAULT '{}') WITH (fillfactor = 70);
        CREATE INDEX IF NOT EXISTS s_t ON s (t);
        CREATE TABLE IF NOT EXISTS m (s bigint, t bigint, id text, pinned boolean, body jsonb,
            search tsvector, PRIMARY KEY (s, id));
        CREATE INDEX IF NOT EXISTS m_t ON m (s, t, id);
        CREATE INDEX IF NOT EXISTS m_pinned ON m (s, t) WHERE pinned;
        CREATE INDEX IF NOT EXISTS m_search ON m USING gin (search);
    """
    NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    APPEND = f"""
        WITH head AS (
            INSERT INTO s AS old (id, created, t, version, n)
            VALUES (%(session)s, {NOW}, {NOW} + %(count)s, 1, %(count)s)
            ON CONFLICT (id) DO UPDATE SET t = greatest({NOW}, old.t) + %(count)s,
                version = old.version + 1, n = old.n + %(count)s
            RETURNING pk, t)
        INSERT INTO m SELECT head.pk, head.t - %(count)s + new.i, new.id,
            new.body->>'role' = 'system', new.body,
            to_tsvector('simple', new.body->>'content')
        FROM head, unnest(%(ids)s::text[], %(bodies)s::jsonb[]) WITH ORDINALITY AS new (id, body, i)
        RETURNING t
    """
    WINDOW = """
        (SELECT t, id, body FROM m WHERE s = (SELECT pk FROM s WHERE id = %(session)s)
            ORDER BY t DESC, id DESC LIMIT %(limit)s)
        UNION ALL
        (SELECT 0, id, body FROM m WHERE s = (SELECT pk FROM s WHERE id = %(session)s) AND pinned)
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.db = connection
        connection.autocommit = True
        connection.prepare_threshold = 0
        connection.execute(self.SCHEMA, prepare=False)

    @staticmethod
    def values(session: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
        from psycopg.types.json import Jsonb

        stored = [Jsonb(message) for message in messages]
        ids = [new_id() for _ in messages]
        return {"session": session, "count": len(ids), "ids": ids, "bodies": stored}

    def append(self, session: str, messages: list[dict[str, Any]]) -> None:
        self.db.execute(self.APPEND, self.values(session, messages)).fetchall()

    def window(self, session: str) -> list[Any]:
        values = {"session": session, "limit": 20 + MARGIN}
        rows = self.db.execute(self.WINDOW, values).fetchall()
        messages = [{**body, "id": mid, "created": t} for t, mid, body in rows]
        return view(
            [m for m in messages if m["created"]], [m for m in messages if not m["created"]]
        )

    def listing(self) -> list[dict[str, Any]]:
        rows = self.db.execute(
            "SELECT id, created, t, version, n, title, summary, expires_at, metadata FROM s WHERE "
            f"expires_at IS NULL OR expires_at > {self.NOW} ORDER BY t DESC LIMIT 21"
        ).fetchall()
        names = ("id", "created", "updated", "version", "count", "title", "summary", "expires")
        return [{**dict(zip(names, row, strict=False)), "metadata": row[-1]} for row in rows[:20]]

    def search(self) -> list[Any]:
        return self.db.execute(
            "SELECT s.id, m.t, m.id, m.body FROM m JOIN s ON s.pk = m.s WHERE m.search @@ "
            "to_tsquery('simple', %s) ORDER BY m.t DESC LIMIT 20",
            (WORD,),
        ).fetchall()


def _size(place: Place) -> float:
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return float(row[0]) if row else 0.0


def floor(stack: ExitStack, place: Place) -> Contender:
    store = ByHand(stack.enter_context(psycopg.connect(place.url)))

    async def tasks(count: int) -> AsyncIterator[Append]:
        from psycopg_pool import AsyncConnectionPool

        options = {"autocommit": True, "prepare_threshold": 0}
        async with AsyncConnectionPool(
            place.url, kwargs=options, min_size=1, max_size=CONNECTIONS, open=False
        ) as pool:

            async def append(number: int) -> None:
                async with pool.connection() as connection:
                    await connection.execute(ByHand.APPEND, ByHand.values(f"a{number}", bodies(1)))

            yield append

    return Contender(
        lambda count: store.append(SESSION, bodies(count)),
        lambda: store.window(SESSION),
        store.listing,
        store.search,
        begin=lambda: [store.append(f"s{i}", bodies(1)) for i in range(SESSIONS)],
        hold=lambda name: store.append(name, bodies(1)),
        size=lambda: _size(place),
        appender=appender(tasks),
    )


def ours(stack: ExitStack, place: Place) -> Contender:
    return tsmemory_store(stack, place.url, lambda: _size(place))


def langchain(stack: ExitStack, place: Place) -> Contender:
    from langchain_postgres import PostgresChatMessageHistory

    connection = stack.enter_context(psycopg.connect(place.url))
    PostgresChatMessageHistory.create_tables(connection, "chat_history")

    def named(name: str) -> str:  # its session ids are UUIDs
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name))

    async def tasks(count: int) -> AsyncIterator[Append]:
        async with AsyncExitStack() as served:
            connections = [
                await served.enter_async_context(await psycopg.AsyncConnection.connect(place.url))
                for _ in range(min(count, CONNECTIONS))
            ]
            histories = [
                PostgresChatMessageHistory(
                    "chat_history",
                    named(f"a{number}"),
                    async_connection=connections[number % len(connections)],
                )
                for number in range(count)
            ]
            yield lambda number: histories[number].aadd_messages(langchain_messages(1))

    return langchain_history(
        lambda session: PostgresChatMessageHistory(
            "chat_history", named(session), sync_connection=connection
        ),
        size=lambda: _size(place),
        appender=appender(tasks),
    )


def llamaindex(stack: ExitStack, place: Place) -> Contender:
    from llama_index.storage.chat_store.postgres import PostgresChatStore

    def opened() -> Any:
        return PostgresChatStore.from_uri(place.url.replace("postgresql", "postgresql+psycopg"))

    store = opened()

    async def tasks(_: int) -> AsyncIterator[Append]:
        served = opened()
        yield lambda number: served.async_add_message(f"a{number}", llamaindex_messages(1)[0])
        await served._async_session.kw["bind"].dispose()

    return llamaindex_store(
        store,
        fill=lambda count: store.set_messages(SESSION, llamaindex_messages(count)),
        size=lambda: _size(place),
        appender=appender(tasks),
    )


def saver_in_a_database(stack: ExitStack, place: Place) -> Contender:
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row

    connection: Any = stack.enter_context(
        psycopg.connect(place.url, autocommit=True, prepare_threshold=0, row_factory=dict_row)
    )
    kept = PostgresSaver(connection)
    kept.setup()

    async def tasks(count: int) -> AsyncIterator[Append]:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg_pool import AsyncConnectionPool

        options: Any = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        threads = [SavedThread(f"a{number}") for number in range(count)]
        pool: Any = AsyncConnectionPool(
            place.url, kwargs=options, min_size=1, max_size=CONNECTIONS, open=False
        )
        async with pool:
            served = AsyncPostgresSaver(pool)
            yield lambda number: served.aput(*threads[number].next(1))

    return saver(kept, tasks, size=lambda: _size(place))
