"""The contract, over a server, through PgBouncer, and over Debian's older server."""

from __future__ import annotations

import pytest

from tests._soak import SOAK
from tests.backends.postgres.conftest import engine_on
from tsmemory.backends.postgres import PostgresBackend
from tsmemory.testing import BackendConformance, Engine, run_against_oracle
from tsmemory.testing._harness import Mode
from tsmemory.testing.servers.postgres import PgBouncer, PostgresServer


class TestPostgres(BackendConformance):
    @pytest.fixture
    def engine(self, server: PostgresServer, empty_prefix: str) -> Engine:
        return engine_on(server.url, server, empty_prefix)


class TestThroughPgBouncer(BackendConformance):
    @pytest.fixture(params=["async"])  # statements are the same in both modes; see the first
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        return Mode(request.param)

    @pytest.fixture
    def engine(self, server: PostgresServer, bouncer: PgBouncer, empty_prefix: str) -> Engine:
        return engine_on(bouncer.url, server, empty_prefix)


if SOAK:  # the third time

    class TestDebians15(BackendConformance):
        @pytest.fixture
        def engine(self, older_server: PostgresServer, prefix: str) -> Engine:
            return engine_on(f"{older_server.url}?partitions=3", older_server, prefix)


def test_random_operations(server: PostgresServer, prefix: str) -> None:
    def open_backend() -> PostgresBackend:
        backend = PostgresBackend.from_url(server.url, prefix=prefix)
        backend.run(backend.setup())
        backend.run(backend.erase(None))
        return backend

    run_against_oracle(open_backend, examples=8)
