"""The contract, over one Redis server, the oldest that is supported."""

from __future__ import annotations

import pytest

from tests.backends.redis.conftest import engine_on
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing import BackendConformance, Engine, run_against_oracle
from tsmemory.testing._harness import Mode
from tsmemory.testing.servers.redis import RedisServer


class TestRedis(BackendConformance):
    @pytest.fixture(params=["sync"])  # async differs in the client only: see the other two
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        return Mode(request.param)

    @pytest.fixture
    def engine(self, redis_6: RedisServer, prefix: str) -> Engine:
        return engine_on(redis_6, prefix)


def test_random_operations(redis_6: RedisServer, prefix: str) -> None:
    run_against_oracle(lambda: RedisBackend.from_url(redis_6.url, prefix=prefix), examples=12)
