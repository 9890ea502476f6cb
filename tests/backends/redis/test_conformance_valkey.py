"""The contract, over one Valkey server."""

from __future__ import annotations

import pytest

from tests.backends.redis.conftest import engine_on
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing import BackendConformance, Engine, run_against_oracle
from tsmemory.testing.servers.redis import RedisServer


class TestValkey(BackendConformance):
    @pytest.fixture
    def engine(self, valkey: RedisServer, prefix: str) -> Engine:
        return engine_on(valkey, prefix)


def test_random_operations(valkey: RedisServer, prefix: str) -> None:
    run_against_oracle(lambda: RedisBackend.from_url(valkey.url, prefix=prefix), examples=12)
