"""What of a server's set-up puts conversations at risk: found, and warned of once."""

from __future__ import annotations

import logging

import pytest

from tests.backends.redis.conftest import require
from tsmemory import AuthenticationError, Message, Store
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing.servers.redis import RedisCluster, RedisServer

SAFE = ("appendonly yes", "maxmemory-policy noeviction")


@pytest.mark.parametrize("kind", ["valkey-server", "redis-server"])
def test_a_cache_is_warned_of(kind: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    options = ("maxmemory-policy allkeys-lru",)
    with RedisServer(require(kind), options=options) as server, caplog.at_level(logging.WARNING):
        with Store(RedisBackend.from_url(server.url, prefix=prefix)) as store:
            for _ in range(3):
                store.conversation("s").append(Message.user("a"))
            assert [record.name for record in caplog.records] == ["tsmemory.redis"] * 2
            assert "allkeys-lru" in caplog.text
            assert "nothing is on disk" in caplog.text
            found = store.run(store.backend.check_server())
            assert {f.name: f.ok for f in found} == {"eviction": False, "persistence": False}


def test_a_safe_server_is_not(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(require("valkey-server"), options=SAFE) as server:
        with Store(RedisBackend.from_url(server.url, prefix=prefix, protocol=3)) as store:
            store.conversation("s").append(Message.user("a"))
            found = store.run(store.backend.check_server())
    assert {f.name: f.ok for f in found} == {"eviction": True, "persistence": True}
    assert not caplog.records


def test_replicas_without_a_minimum(cluster: RedisCluster, prefix: str) -> None:
    with Store(RedisBackend.from_url(cluster.url, prefix=prefix)) as store:
        found = {f.name: f for f in store.run(store.backend.check_server())}
    assert not found["replicas"].ok
    assert "min-replicas-to-write is 0" in found["replicas"].value


RULES = (
    "~{prefix}:* +@connection +eval +evalsha +time +get +set +del +exists +hget +hgetall +hmget"
    " +hset +hdel +hlen +llen +lindex +linsert +lrange +lrem +lset +ltrim +lpos +rpush +zadd +zcard"
    " +zrange +zrangebyscore +zrank +zrem +zrevrange +zrevrangebyscore +zrevrank +zscore +pexpire"
    " +pexpireat +pttl +persist +rename +unlink +scan +memory|usage"
)
"""What `docs/redis.md` says that a user needs."""


@pytest.mark.parametrize("kind", ["valkey-server", "redis-server"])
def test_the_permissions_that_are_needed(kind: str, prefix: str) -> None:
    rules = RULES.format(prefix=prefix)
    users = (
        f"user ann on >secret {rules}",
        f"user bob on >secret {rules.replace(' +time', '')}",
        f"user eve on >secret ~other:* {rules.partition(' ')[2]}",
    )
    with RedisServer(require(kind), options=users) as server:
        url = f"redis://ann:secret@127.0.0.1:{server.port}"
        with Store(RedisBackend.from_url(url, prefix=prefix)) as store:
            chat = store.conversation("s", user_id="u", ttl=100)
            chat.append(Message.system("rules"), *(Message.user(str(i)) for i in range(1200)))
            chat.append(*(Message.user(str(i), message_id=str(i)) for i in range(9)))
            chat.window(5)
            chat.update_message("3", content="new")
            chat.put_message(Message.user("between", create_time=5))
            chat.delete_message("4")
            chat.set_ttl(None)
            chat.update_session(title="t")
            chat.replace([Message.user("new")])
            chat.truncate(0)
            chat.fork("f")
            assert len(store.list_sessions(user_id="u", limit=1).items) == 1
            assert store.verify() == []
            assert store.stats().sessions == 2
            store.erase_user("u")
            store.purge_expired()
            store.clear()
        for user in ("bob", "eve"):
            denied = url.replace("ann", user)
            with Store(RedisBackend.from_url(denied, prefix=prefix)) as store:
                with pytest.raises(AuthenticationError) as caught:
                    store.conversation("s").append(Message.user("a"))
                assert "secret" not in str(caught.value)
