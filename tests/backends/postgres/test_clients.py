"""Clients of the caller's, URLs, and errors of the driver as ours."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import psycopg_pool
import pytest

from tsmemory import (
    AuthenticationError,
    BackendError,
    InvalidInputError,
    Message,
    Store,
    UnavailableError,
    open_store,
)
from tsmemory.backends.postgres import PostgresBackend
from tsmemory.testing.servers.postgres import PgBouncer, PostgresServer
from tsmemory.testing.servers.redis import CuttingProxy


@pytest.fixture
def tables(server: PostgresServer, prefix: str) -> str:
    with Store(PostgresBackend.from_url(server.url, prefix=prefix)) as store:
        store.setup()
    return prefix


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_connection_of_the_caller_s(
    server: PostgresServer, tables: str, autocommit: bool
) -> None:
    with psycopg.connect(server.url, autocommit=autocommit) as connection:
        store = Store(PostgresBackend(client=connection, prefix=tables))
        chat = store.conversation("s")
        chat.append(Message.user("a", message_id="a"))
        chat.append(Message.user("a", message_id="a"))
        chat.update_message("a", metadata={"x": 1})
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with connection.transaction(force_rollback=True):  # and what we write with it
            chat.append(Message.user("b"))
            chat.put_message(Message.user("c"))
            assert chat.count() == 3
        assert [m.text for m in chat.window(5)] == ["a"]
        assert [m.text for m in asyncio.run(chat.awindow(5))] == ["a"]
        store.close()
        assert not connection.closed
    with pytest.raises(BackendError):
        Store(PostgresBackend(client=connection, prefix=tables, retry_for=0)).stats()


def test_pools_of_the_caller_s(server: PostgresServer, tables: str) -> None:
    with psycopg_pool.ConnectionPool(server.url, min_size=1, max_size=2) as pool:
        store = Store(PostgresBackend(client=pool, prefix=tables))
        store.conversation("s").append(Message.user("a"))
        store.conversation("s").put_message(Message.user("b"))
        store.close()
        with pool.connection() as connection:
            assert not connection.closed

    async def main() -> list[str]:
        async with psycopg_pool.AsyncConnectionPool(
            server.url, min_size=1, max_size=2, open=False
        ) as pool:
            store = Store(PostgresBackend(client=pool, prefix=tables))
            chat = store.conversation("s")
            await chat.aappend(Message.user("c"))
            await chat.aput_message(Message.user("d"))
            texts = [m.text for m in await chat.awindow(9)]
            await store.aclose()
            with pytest.raises(InvalidInputError, match="async client"):
                Store(PostgresBackend(client=pool, prefix=tables)).stats()
            async with pool.connection() as connection:
                assert not connection.closed
            return texts

    assert asyncio.run(main()) == ["a", "b", "c", "d"]


def test_many_event_loops(server: PostgresServer, tables: str) -> None:
    with Store(PostgresBackend.from_url(server.url, prefix=tables)) as store:
        for i in range(3):
            asyncio.run(store.conversation("s").aappend(Message.user(str(i))))
        assert store.conversation("s").count() == 3


def prepared(connection: Any) -> int:
    return int(connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0])


def test_statements_are_prepared_only_without_a_pooler(
    server: PostgresServer, bouncer: PgBouncer, tables: str
) -> None:
    for url, expected in ((server.url, True), (bouncer.url, False)):
        backend = PostgresBackend.from_url(url, prefix=tables)
        with Store(backend) as store:
            for _ in range(6):
                store.conversation("s").count()
            with backend._client()._lease() as connection:
                assert (prepared(connection) > 0) is expected
                assert connection.behind_pooler is not expected


def test_a_lost_reply_doubles_nothing(server: PostgresServer, tables: str) -> None:
    with CuttingProxy(server.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
        with Store(PostgresBackend.from_url(url, prefix=tables)) as store:
            chat = store.conversation("s")
            chat.append(Message.user("a"))
            for text in (b"INSERT INTO", b"COMMIT"):
                proxy.cut_next_reply(text)
                chat.append(Message.user("b"), Message.user("c"))
                chat.put_message(Message.user("d", message_id="d"))
            assert proxy.cuts == 2
            assert [m.text for m in chat.iter_messages()] == ["a", "b", "c", "d", "b", "c"]
            session = chat.session()
            assert session is not None
            assert session.message_count == 6


def test_errors_are_ours(server: PostgresServer, tables: str, prefix: str) -> None:
    host = f"127.0.0.1:{server.port}"

    def fails(error: type[Exception], match: str, url: str, **options: Any) -> None:
        with open_store(url, **{"prefix": tables, "retry_for": 0.0, **options}) as store:
            with pytest.raises(error, match=match) as raised:
                store.conversation("s").append(Message.user("a"))
        assert "s3cret" not in f"{raised.value}{store.backend!r}"

    fails(UnavailableError, r"has setup\(\) created the tables", server.url, prefix="absent_")
    fails(UnavailableError, "does not exist", f"postgresql://postgres@{host}/absent")
    fails(AuthenticationError, "role", f"postgresql://absent:s3cret@{host}/x")
    fails(UnavailableError, "refused", "postgres://u:s3cret@127.0.0.1:1/x")
    read_only = f"{server.url}?options=-c%20default_transaction_read_only%3Don"
    fails(UnavailableError, "read-only", read_only)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://h/d?colour=red", "no option 'colour'"),
        ("postgresql://h/d?schema=A%22;", "lower-case"),
        ("postgresql://h/d?pool_size=0", "pool_size"),
        ("postgresql://h/d?timeout=-1", "more than 0"),
        ("postgresql://h/d?timeout=x", "timeout"),
        ("postgresql://h/d?partitions=5000", "partitions"),
        ("postgresql://h/d?row_security=maybe", "row_security"),
        ("postgresql://u:s3cret@[h/d", "percent-encode"),
        ("postgresql://u:s3%cret@h/d", "percent-encoded"),
    ],
)
def test_urls_that_are_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as raised:
        open_store(url)
    assert "s3" not in str(raised.value)


def test_options_and_parameters_of_libpq(server: PostgresServer, tables: str) -> None:
    url = f"{server.url}?application_name=mine&pool_size=3&prefix={tables}&connect_timeout=3"
    backend = PostgresBackend.from_url(url)
    with Store(backend) as store:
        store.stats()
        with backend._client()._lease() as connection:
            assert connection.execute("SHOW application_name").fetchone() == ("mine",)
            assert connection.execute("SHOW statement_timeout").fetchone() == ("30s",)
    with pytest.raises(InvalidInputError, match="connection string"):
        PostgresBackend()
