"""One real server, and one PgBouncer, for the whole directory; each test has tables of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tsmemory.backends.postgres import PostgresBackend
from tsmemory.backends.postgres.rows import escape_text
from tsmemory.testing import Engine
from tsmemory.testing.servers.postgres import (
    PgBouncer,
    PostgresServer,
    find_pgbouncer,
    find_postgres,
)

_numbers = itertools.count()


def require(what: str, found: object, remedy: str) -> None:
    """Skip where a server is not installed, or fail where servers were promised."""
    if found is None:
        if os.environ.get("TSMEMORY_REQUIRE_SERVERS") == "1" and what == "PostgreSQL":
            pytest.fail(f"no {what}, though TSMEMORY_REQUIRE_SERVERS=1")
        pytest.skip(f"no {what}; {remedy}")


@pytest.fixture(scope="session")
def server(postgres_server: PostgresServer) -> PostgresServer:
    return postgres_server


@pytest.fixture(scope="session")
def older_server() -> Iterator[PostgresServer]:
    binaries = find_postgres(15)
    require("PostgreSQL 15", binaries, "apt-get install postgresql-15")
    with PostgresServer(binaries=binaries) as server:
        yield server


@pytest.fixture(scope="session")
def bouncer(server: PostgresServer) -> Iterator[PgBouncer]:
    require("PgBouncer", find_pgbouncer(), "apt-get install pgbouncer")
    with PgBouncer(server) as bouncer:
        yield bouncer


@pytest.fixture
def prefix() -> str:
    return f"t{next(_numbers)}_"


@pytest.fixture(scope="session")
def shared_tables(server: PostgresServer) -> Iterator[PostgresBackend]:
    """Tables for tests of what is in them: to make one's own takes longer than such a test."""
    backend = PostgresBackend.from_url(server.url, prefix="shared_")
    backend.run(backend.setup())
    yield backend
    backend.close()


@pytest.fixture
def empty_prefix(shared_tables: PostgresBackend) -> str:
    """The prefix of the shared tables, nothing in them."""
    shared_tables.run(shared_tables.erase(None))
    return "shared_"


def engine_on(url: str, server: PostgresServer, prefix: str, **options: object) -> Engine:
    """What the conformance suite needs; it goes round the API over a connection of its own."""

    def damage(user_id: str, session_id: str, message_id: str | None) -> None:
        key = {"user": escape_text(user_id), "session": escape_text(session_id), "id": message_id}
        with server.connect() as connection:
            if message_id is None:
                sql = f'UPDATE {prefix}sessions SET metadata = \'{{"x": {{"$bytes": "?"}}}}\''
            else:
                sql = (
                    f"UPDATE {prefix}messages SET body = '{{\"v\": 99}}', exact = NULL "
                    f"FROM {prefix}sessions s"
                )
            where = " WHERE user_id = %(user)s AND session_id = %(session)s"
            if message_id is not None:
                where = (
                    " WHERE session = s.id AND s.user_id = %(user)s AND session_id = %(session)s "
                    "AND message_id = %(id)s"
                )
            assert connection.execute(sql + where, key).rowcount == 1

    return Engine(
        open=lambda: PostgresBackend.from_url(url, prefix=prefix, **options),
        damage=damage,
        client_clock=False,
    )
