"""Whatever ends an operation, no later one reads what it left: signals and cancellations."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import redis
import redis.asyncio

from tsmemory import Conversation, Message, Store, TSMemoryError, UnavailableError
from tsmemory.backends.redis import RedisBackend
from tsmemory.backends.redis.layout import KeyNames
from tsmemory.engine.records import Key
from tsmemory.testing.servers.redis import RedisCluster, RedisServer, wait_until

COUNT = 1500 if os.environ.get("TSMEMORY_SOAK") == "1" else 100
USERS = ("ann", "bob", "eve")


class Interrupt(BaseException):
    """As KeyboardInterrupt, and nobody else's."""


@contextmanager
def alarms() -> Iterator[Any]:
    """Gives a function that runs another one under an alarm at a random instant."""

    def ring(number: int, frame: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, ring)
    numbers = random.Random(7)

    def under_alarm(call: Any) -> bool:
        """Whether the call was interrupted."""
        try:
            signal.setitimer(signal.ITIMER_REAL, numbers.uniform(0.00002, 0.0015))
            call()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            return True
        return False

    try:
        yield under_alarm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def connections(client: Any) -> int:
    if isinstance(client, redis.RedisCluster):
        return sum(len(info) for info in client.client_list(target_nodes=client.PRIMARIES).values())
    return len(client.client_list())


def no_more_than(client: Any, count: int) -> bool:
    return connections(client) <= count


def check(store: Store, sent: dict[str, list[str]], acknowledged: dict[str, list[str]]) -> None:
    """Every session holds its own messages, none twice, and all that were acknowledged."""
    for user in USERS:
        texts = [m.text for m in store.conversation("s", user_id=user).iter_messages()]
        assert len(texts) == len(set(texts))
        assert set(acknowledged[user]) <= set(texts) <= set(sent[user])
    assert store.verify() == []


# Python reports an alarm that rings in a destructor, and goes on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("server", ["one", "ready client", "cluster"])
def test_alarms_at_random_instants(
    request: pytest.FixtureRequest, server: str, prefix: str
) -> None:
    kind: Any = request.getfixturevalue("cluster" if server == "cluster" else "valkey")
    sent: dict[str, list[str]] = {user: [] for user in USERS}
    acknowledged: dict[str, list[str]] = {user: [] for user in USERS}
    with kind.client() as outside, kind.client() as ready, alarms() as under_alarm:
        backend = RedisBackend(ready, prefix=prefix)
        if server != "ready client":
            backend = RedisBackend.from_url(kind.url, prefix=prefix)
        with Store(backend) as store:
            check(store, sent, acknowledged)
            before = connections(outside)
            interrupted = 0
            for i in range(COUNT):
                user = USERS[i % 3]
                chat = store.conversation("s", user_id=user)

                def operate(chat: Any = chat, user: str = user, i: int = i) -> None:
                    text = f"{user} {i}"
                    sent[user].append(text)
                    chat.append(Message.user(text))
                    acknowledged[user].append(text)
                    assert all(m.text.startswith(user) for m in chat.window(3))
                    assert chat.session().user_id == user

                interrupted += under_alarm(operate)
                other = USERS[(i + 1) % 3]
                shown = store.conversation("s", user_id=other).window(3)
                assert all(m.text.startswith(other) for m in shown)
            assert interrupted > COUNT / 5
            check(store, sent, acknowledged)
            few = partial(no_more_than, outside, before + 3)
            wait_until(few, "the server to see what was closed")


@pytest.mark.parametrize("server", ["one", "ready client", "cluster"])
def test_cancellations_at_random_instants(
    request: pytest.FixtureRequest, server: str, prefix: str
) -> None:
    kind: Any = request.getfixturevalue("cluster" if server == "cluster" else "valkey")
    sent: dict[str, list[str]] = {user: [] for user in USERS}
    acknowledged: dict[str, list[str]] = {user: [] for user in USERS}
    numbers = random.Random(8)

    async def operate(store: Store, i: int) -> None:
        user = USERS[i % 3]
        chat = store.conversation("s", user_id=user)
        sent[user].append(f"{user} {i}")
        await chat.aappend(Message.user(f"{user} {i}"))
        acknowledged[user].append(f"{user} {i}")
        assert all(m.text.startswith(user) for m in await chat.awindow(3))

    async def run() -> int:
        ready = redis.asyncio.Redis(port=valkey.port) if server == "ready client" else None
        backend = RedisBackend(ready, prefix=prefix) if ready else None
        async with Store(backend or RedisBackend.from_url(kind.url, prefix=prefix)) as store:
            cancelled = 0
            for i in range(COUNT):
                tasks = [asyncio.create_task(operate(store, 3 * i + j)) for j in range(3)]
                # More of the early instants: a fast machine is done within a millisecond.
                await asyncio.sleep(0.003 * numbers.random() ** 3)
                tasks[0].cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                cancelled += isinstance(results[0], asyncio.CancelledError)
                assert not [r for r in results[1:] if r is not None]
        if ready:
            await ready.aclose()
        return cancelled

    valkey = request.getfixturevalue("valkey")
    with kind.client() as outside:
        before = connections(outside)
        assert asyncio.run(run()) > COUNT / 5
        wait_until(partial(no_more_than, outside, before), "the server to see what was closed")
    with Store(RedisBackend.from_url(kind.url, prefix=prefix)) as store:
        check(store, sent, acknowledged)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_list_out_of_reach_leaves_no_session_unlisted(
    cluster: RedisCluster, prefix: str, is_async: bool
) -> None:
    """The node of the session's list answers nothing: the session is not committed before it."""
    names = KeyNames(prefix)
    with cluster.client() as client:

        def port_of(key: str) -> int:
            return int(client.get_node_from_key(key).port)

        sessions = {str(i): names.session(Key("u", str(i))) for i in range(60)}
        ports = {i: (port_of(s.keys[0]), port_of(s.lists[0])) for i, s in sessions.items()}
    session_id, (home, list_home) = next((i, p) for i, p in ports.items() if p[0] != p[1])
    other = next(i for i, p in ports.items() if p[0] == home and p[1] != list_home)
    list_node = next(server for server in cluster.servers if server.port == list_home)

    async def append_async(chat: Conversation) -> None:
        await chat.aappend(Message.user("a"))

    def append(chat: Conversation) -> None:
        if is_async:
            asyncio.run(append_async(chat))
        else:
            chat.append(Message.user("a"))

    def append_while_it_hangs(store: Store) -> None:
        # The session's node has the script, and the list's has no connection yet.
        store.conversation(other, user_id="u").append(Message.user("a"))
        chat = store.conversation(session_id, user_id="u")
        os.kill(list_node.pid, signal.SIGSTOP)  # shorter than what makes a replica its successor
        try:
            with pytest.raises(TSMemoryError):
                append(chat)
        finally:
            os.kill(list_node.pid, signal.SIGCONT)

    backend = RedisBackend.from_url(
        f"{cluster.url}?socket_timeout=0.2&socket_connect_timeout=0.2", prefix=prefix, retry_for=0
    )
    with Store(backend) as store:
        append_while_it_hangs(store)
    with Store(RedisBackend.from_url(cluster.url, prefix=prefix)) as store:
        assert store.verify() == []
        assert [s.session_id for s in store.iter_sessions()] == [other]


def test_a_cold_cluster_client_under_many_first_appends(cluster: RedisCluster, prefix: str) -> None:
    async def run() -> int:
        async with Store(RedisBackend.from_url(cluster.url, prefix=prefix)) as store:
            await asyncio.gather(
                *(store.conversation(str(i)).aappend(Message.user("a")) for i in range(100))
            )
            return (await store.astats()).sessions

    assert asyncio.run(run()) == 100


def test_a_foreign_reply_is_an_error_and_repeated(valkey: RedisServer, prefix: str) -> None:
    """Replies mixed up by something between us and the server are recognised."""

    class MixedUp(redis.Connection):
        mix = False

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            reply = super().read_response(*args, **kwargs)
            if MixedUp.mix and isinstance(reply, list):
                MixedUp.mix = False
                return [b"of another command", *reply[1:]]
            return reply

    pool = redis.ConnectionPool(port=valkey.port, connection_class=MixedUp)
    with redis.Redis(connection_pool=pool) as client:
        with Store(RedisBackend(client, prefix=prefix)) as store:
            chat = store.conversation("s")
            chat.append(Message.user("a"))
            MixedUp.mix = True
            assert [m.text for m in chat.window(5)] == ["a"]
            assert not MixedUp.mix
        with Store(RedisBackend(client, prefix=prefix, retry_for=0)) as store:
            MixedUp.mix = True
            with pytest.raises(UnavailableError):
                store.conversation("s").window(5)
        pool.disconnect()


def test_a_store_closed_while_threads_work(valkey: RedisServer, prefix: str) -> None:
    problems: list[Exception] = []
    working = threading.Barrier(5)
    store = Store(RedisBackend.from_url(valkey.url, prefix=prefix))

    def work(name: int) -> None:
        chat = store.conversation(str(name))
        chat.append(Message.user("a"))
        working.wait()
        try:
            while True:
                chat.window(5)
        except Exception as error:  # noqa: BLE001  # the test looks at every kind
            problems.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    working.wait()
    store.close()
    for thread in threads:
        thread.join()
    assert [type(error) for error in problems] == [UnavailableError] * 4


def test_more_threads_than_connections(valkey: RedisServer, prefix: str) -> None:
    with redis.Redis(port=valkey.port, max_connections=2) as client:
        with Store(RedisBackend(client, prefix=prefix)) as store:
            threads = [
                threading.Thread(
                    target=store.conversation(str(i)).append, args=(Message.user("a"),)
                )
                for i in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert store.stats().sessions == 8


def test_a_cluster_s_limit_is_of_each_node(cluster: RedisCluster, prefix: str) -> None:
    """Of all nodes together, exchanges would wait for each other: each needs several nodes."""
    url = f"{cluster.url}?max_connections=1&prefix={prefix}&retry_for=0"
    backend = RedisBackend.from_url(url)
    with Store(backend) as store, ThreadPoolExecutor(8) as threads:
        chats = [store.conversation(str(i)) for i in range(40)]
        list(threads.map(lambda chat: chat.append(Message.user("a")), chats))
        assert store.stats().sessions == 40
        assert {len(wires) for wires in backend._client()._open.values()} == {1}
