"""The law, with clients that decode replies: over one server, and, if asked, the Cluster too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from tests.backends.redis.conftest import engine_on
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing import BackendConformance, Engine

FULL = os.environ.get("TSMEMORY_REDIS_FULL") == "1"


class TestDecoding(BackendConformance):
    expected_failures: ClassVar = {
        "test_other_content_under_a_stored_id_is_a_conflict": "content is not compared yet",
    }

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
