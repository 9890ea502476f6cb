"""The contract, with clients that decode replies: over one server, and, if asked, the Cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.backends.redis.conftest import engine_on
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing import BackendConformance, Engine

FULL = os.environ.get("TSMEMORY_REDIS_FULL") == "1"


class TestDecoding(BackendConformance):
    @pytest.fixture(params=["valkey", *(["redis_6", "cluster"] if FULL else [])])
    def engine(self, request: pytest.FixtureRequest, prefix: str) -> Iterator[Engine]:
        server = request.getfixturevalue(request.param)

        def open_backend() -> Any:
            backend = RedisBackend.from_url(server.url, prefix=prefix, protocol=2)
            assert backend.target is not None
            backend.target.connection["decode_responses"] = True
            return backend

        with server.client() as client:
            yield engine_on(client, prefix, open_backend)
