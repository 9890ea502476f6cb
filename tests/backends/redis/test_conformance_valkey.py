"""The contract, over one Valkey server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.redis.conftest import engine_on
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing import BackendConformance, Engine, run_against_oracle
from tsmemory.testing.servers.redis import RedisServer


class TestValkey(BackendConformance):
    @pytest.fixture
    def engine(self, valkey: RedisServer, prefix: str) -> Iterator[Engine]:
        with valkey.client() as client:
            yield engine_on(
                client, prefix, lambda: RedisBackend.from_url(valkey.url, prefix=prefix)
            )


def test_random_operations(valkey: RedisServer, prefix: str) -> None:
    run_against_oracle(lambda: RedisBackend.from_url(valkey.url, prefix=prefix), examples=12)
