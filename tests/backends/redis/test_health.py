"""What of a server's set-up puts conversations at risk: found, and warned of once."""

from __future__ import annotations

import logging
import os
import re
import signal

import pytest

from tests.backends.redis.conftest import require
from tsmemory import AuthenticationError, Message, Store
from tsmemory.backends.redis import RedisBackend
from tsmemory.backends.redis.health import findings
from tsmemory.engine.records import Finding
from tsmemory.testing.servers.redis import RedisCluster, RedisServer, wait_until

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
            states = {f.name: f.ok for f in found}
            assert states == {"eviction": False, "persistence": False, "expired_sessions": True}


def test_a_safe_server_is_not(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(require("valkey-server"), options=SAFE) as server:
        with Store(RedisBackend.from_url(server.url, prefix=prefix, protocol=3)) as store:
            store.conversation("s").append(Message.user("a"))
            found = store.run(store.backend.check_server())
    states = {f.name: f.ok for f in found}
    assert states == {"eviction": True, "persistence": True, "expired_sessions": True}
    assert not caplog.records


def test_replicas_without_a_minimum(cluster: RedisCluster, prefix: str) -> None:
    with Store(RedisBackend.from_url(cluster.url, prefix=prefix)) as store:
        found = {f.name: f for f in store.run(store.backend.check_server())}
    assert not found["replicas"].ok
    assert "min-replicas-to-write is 0" in found["replicas"].value
    nodes = {server.url.removeprefix("redis://") for server in cluster.servers[: cluster.masters]}
    assert all(node in found["replica_lag"].value for node in nodes)


def _look(server: RedisServer, prefix: str) -> dict[str, Finding]:
    with Store(RedisBackend.from_url(server.url, prefix=prefix)) as store:
        return {finding.name: finding for finding in store.run(store.backend.check_server())}


def test_a_replica_that_is_late_and_one_that_is_cut_off(prefix: str) -> None:
    kind = require("valkey-server")
    backlog = ("repl-backlog-size 16kb", "repl-diskless-sync-delay 0")
    with RedisServer(kind, options=backlog) as master:
        options = (f"replicaof 127.0.0.1 {master.port}", "replica-announce-ip 127.0.0.1")
        with RedisServer(kind, options=options) as replica, master.client() as client:
            where = f"127.0.0.1:{replica.port}"
            lag = wait_until(lambda: _in_step(master, prefix), "the replica to be in step")
            assert lag.value.startswith(f"{where} online, 0 bytes behind, heard ")
            wait_until(lambda: not _cut_off(replica, prefix), "the replica to be linked")
            writable = _look(replica, prefix)["writable"]
            assert not writable.ok
            assert f"its master, 127.0.0.1:{master.port}" in writable.value

            os.kill(replica.pid, signal.SIGSTOP)  # it hears nothing more, and the link stays
            try:
                client.set("filler", "x" * 50_000)
                lag = _look(master, prefix)["replica_lag"]
                assert not lag.ok
                assert int(re.sub(r"\D", "", lag.value.split(",", 1)[1].partition("b")[0])) > 50_000
            finally:
                os.kill(replica.pid, signal.SIGCONT)
            master.kill()
            lag = wait_until(lambda: _cut_off(replica, prefix), "the replica to notice")
            assert lag.value.startswith(f"the link to 127.0.0.1:{master.port} has been down for")


def _in_step(master: RedisServer, prefix: str) -> Finding | None:
    lag = _look(master, prefix).get("replica_lag")
    return lag if lag is not None and lag.ok and " 0 bytes behind" in lag.value else None


def _cut_off(replica: RedisServer, prefix: str) -> Finding | None:
    lag = _look(replica, prefix)["replica_lag"]
    return None if lag.ok else lag


def test_a_full_server_and_expired_sessions(prefix: str) -> None:
    options = ("maxmemory 100mb",)
    with RedisServer(require("valkey-server"), options=options) as server:
        assert _look(server, prefix)["memory"].ok
        with Store(RedisBackend.from_url(server.url, prefix=prefix)) as store:
            chat = store.conversation("s", ttl=0.001)
            chat.append(Message.user("x"))
            wait_until(lambda: chat.session() is None, "the session to expire")
        with server.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] * 20 // 19)
        found = _look(server, prefix)
    assert not found["memory"].ok
    assert "writes will soon fail" in found["memory"].value
    assert found["expired_sessions"].value == '1; "tsmemory purge" removes them'


def test_odd_replies() -> None:
    """A replica without an address has no line of its own; a snapshot for one may fail."""
    info = (
        "role:master\r\nconnected_slaves:2\r\nslave0:ip=h,port=2,state=online,offset=0,lag=0\r\n"
        "aof_enabled:1\r\naof_last_write_status:ok\r\nrdb_last_bgsave_status:err\r\n"
    )
    minimum = [b"min-replicas-to-write", b"1"]
    for save, sound in ((b"", True), (b"3600 1", False)):
        found = {f.name: f for f in findings([info.encode(), [b"save", save], minimum])}
        assert found["persistence"].ok is sound
        assert found["replica_lag"].value.startswith("h:2 online")


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
