"""The contract, over a Cluster of three masters with replicas."""

from __future__ import annotations

import pytest

from tests._soak import SOAK
from tests.backends.redis.conftest import engine_on
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing import BackendConformance, Engine, run_against_oracle
from tsmemory.testing._harness import Mode
from tsmemory.testing.servers.redis import RedisCluster


class TestCluster(BackendConformance):
    @pytest.fixture(params=["async"])  # sync differs in the client only: see the other two
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        return Mode(request.param)

    @pytest.fixture
    def engine(self, cluster: RedisCluster, prefix: str) -> Engine:
        return engine_on(cluster, prefix)


def test_random_operations(cluster: RedisCluster, prefix: str) -> None:
    run_against_oracle(
        lambda: RedisBackend.from_url(cluster.url, prefix=prefix), examples=12 if SOAK else 6
    )
