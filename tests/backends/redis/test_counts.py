"""What the server sees, by its own command statistics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tsmemory import Message, Store
from tsmemory.backends.redis import RedisBackend
from tsmemory.backends.redis.calls import Call
from tsmemory.backends.redis.layout import SHARDS
from tsmemory.backends.redis.wire import Wire
from tsmemory.testing.servers.redis import RedisCluster, RedisServer

_FROM_SCRIPTS = {
    "exists", "get", "hget", "hgetall", "hlen", "hmget", "hset", "lindex", "llen", "lrange",
    "rpush", "time", "zadd", "zcard", "zrange", "zrangebyscore", "zrank", "zrevrange",
    "zrevrangebyscore", "zrevrank", "zscore",
}  # fmt: skip
"""Commands that the scripts run inside the server, which count there too."""


class Counter:
    """Counts what servers are asked, less what the counting asks itself."""

    def __init__(self, clients: list[Any]) -> None:
        self.clients = clients

    def of(self, operation: Callable[[], Any]) -> tuple[int, dict[str, int]]:
        """How many requests arrived, and how often each command ran inside a script."""
        for client in self.clients:
            client.config_resetstat()
        operation()
        asked: dict[str, int] = {}
        for client in self.clients:
            for name, stat in client.info("commandstats").items():
                command = name.removeprefix("cmdstat_")
                asked[command] = asked.get(command, 0) + stat["calls"]
        inner = {name: count for name, count in asked.items() if name in _FROM_SCRIPTS}
        requests = {
            name: count
            for name, count in asked.items()
            if name not in _FROM_SCRIPTS and not name.startswith(("config", "info", "repl", "ping"))
        }
        assert set(requests) <= {"evalsha"}, requests
        return requests.get("evalsha", 0), inner


def _load_scripts(store: Store) -> None:
    chat = store.conversation("warm", user_id="warm")
    chat.append(Message.user("a"))
    chat.window(20)
    chat.session()
    store.list_sessions(user_id="warm", limit=5)


@pytest.fixture
def one(valkey: RedisServer, prefix: str) -> Iterator[tuple[Store, Counter]]:
    with valkey.client() as client:
        with Store(RedisBackend.from_url(valkey.url, prefix=prefix)) as store:
            _load_scripts(store)
            yield store, Counter([client])


def test_append_is_one_request(one: tuple[Store, Counter]) -> None:
    store, counter = one
    chat = store.conversation("s")
    chat.append(Message.user("first"))
    costs = []
    for size in (1, 4, 200):
        batch = [Message.user(str(i)) for i in range(size)]
        costs.append(counter.of(lambda b=batch: chat.append(*b)))  # type: ignore[misc]
    assert [requests for requests, _ in costs] == [1, 1, 1]
    # Inside, too, the same few commands whatever the batch: the record and what belongs to it are
    # looked at, then one write each to rows, ids, record and the two lists.
    assert costs[0][1] == {
        "time": 1, "hgetall": 1, "llen": 1, "hlen": 1, "get": 1, "hmget": 1,
        "rpush": 1, "hset": 2, "zadd": 2, "zrangebyscore": 1,
    }  # fmt: skip
    assert costs[1][1] == costs[2][1] == costs[0][1]


def test_a_window_is_one_request_at_any_length(one: tuple[Store, Counter]) -> None:
    store, counter = one
    chat = store.conversation("s")
    costs = []
    for size in (100, 10_000):
        count = chat.count()
        for first in range(count, size, 5000):
            some = range(first, min(first + 5000, size))
            chat.append(*(Message("user" if i % 2 else "assistant", str(i)) for i in some))
        costs.append(counter.of(lambda: chat.window(20)))
    assert costs[0][0] == 1
    assert costs[0][1] == {"time": 1, "hgetall": 1, "llen": 1, "hlen": 1, "lrange": 1}
    assert costs[1] == costs[0]
    append = counter.of(lambda: chat.append(Message.user("one more")))
    assert append[0] == 1


@pytest.mark.parametrize("size", [10, 2_000])
def test_recent_sessions_are_two_round_trips(one: tuple[Store, Counter], size: int) -> None:
    store, counter = one
    for i in range(size):
        store.conversation(f"s{i}", user_id="u").update_session()
    requests, inner = counter.of(lambda: store.list_sessions(user_id="u", limit=5))
    # One to the list, and one to the five sessions and the one that says there are more.
    assert requests == 1 + 1
    assert inner["hgetall"] == 6
    assert inner["zrevrangebyscore"] == SHARDS


def test_a_search_asks_for_several_sessions_at_once(one: tuple[Store, Counter]) -> None:
    store, _ = one
    for i in range(40):
        store.conversation(f"s{i}", user_id="u").append(Message.user("needle" if i < 2 else "hay"))
    exchanges: list[int] = []
    ask = Wire.ask

    def counted(wire: Wire, calls: Any) -> list[Any]:
        exchanges.append(len(calls))
        return ask(wire, calls)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Wire, "ask", counted)
        assert len(store.search_messages("needle", user_id="u")) == 2
    assert exchanges == [1, 1, 1, 2, 4, 8, 16, 9]  # the list, the records, then the sessions


def test_a_cluster_is_one_round_trip(cluster: RedisCluster, prefix: str) -> None:
    """The session and its entry in the index are asked in one exchange, whatever the batch."""
    backend = RedisBackend.from_url(cluster.url, prefix=prefix)
    exchanges: list[list[Call]] = []
    with Store(backend) as store:
        chat = store.conversation("s")
        chat.append(Message.user("first"))
        _load_scripts(store)
        ask = Wire.ask

        def counted(wire: Wire, calls: Any) -> list[Any]:
            exchanges.append(calls)
            return ask(wire, calls)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Wire, "ask", counted)
            for size in (1, 4, 200):
                exchanges.clear()
                chat.append(*(Message.user(str(i)) for i in range(size)))
                assert [len(calls) for calls in exchanges] == [2]
            exchanges.clear()
            chat.window(20)
            assert [len(calls) for calls in exchanges] == [1]
            exchanges.clear()
            store.list_sessions(user_id="warm", limit=5)
            assert [len(calls) for calls in exchanges] == [SHARDS, 1]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_client_of_a_cluster_begins_with_its_slots(
    cluster: RedisCluster, prefix: str, mode: str
) -> None:
    """Once, and without COMMAND: a reply of 100 kB, of which parsing is most of the start."""

    async def append() -> None:
        async with Store(RedisBackend.from_url(cluster.url, prefix=prefix)) as store:
            await store.conversation("s").aappend(Message.user("a"))

    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for server in cluster.servers]
        for client in clients:
            client.config_resetstat()
        if mode == "async":
            asyncio.run(append())
        else:
            with Store(RedisBackend.from_url(cluster.url, prefix=prefix)) as store:
                store.conversation("s").append(Message.user("a"))
        stats = [client.info("commandstats") for client in clients]
    assert not any("cmdstat_command" in stat for stat in stats)
    assert sum(stat.get("cmdstat_cluster|slots", {"calls": 0})["calls"] for stat in stats) == 1


@pytest.mark.parametrize("kind", ["one server", "cluster"])
def test_append_and_window_is_one_round_trip(
    kind: str, valkey: RedisServer, request: pytest.FixtureRequest, prefix: str
) -> None:
    url = valkey.url if kind == "one server" else request.getfixturevalue("cluster").url
    exchanges: list[int] = []
    with Store(RedisBackend.from_url(url, prefix=prefix)) as store:
        chat = store.conversation("s")
        chat.append(Message.system("be kind"), Message.user("first"))
        _load_scripts(store)
        ask = Wire.ask

        def counted(wire: Wire, calls: Any) -> list[Any]:
            exchanges.append(len(calls))
            return ask(wire, calls)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Wire, "ask", counted)
            for size in (1, 4, 200):
                exchanges.clear()
                batch = [Message.user(str(i)) for i in range(size)]
                done = store.run(chat.steps.append_and_window(batch, 5))
                assert exchanges == [3 if kind == "cluster" else 2]
                assert done.window.messages[-1] == done.messages[-1]
                assert done.session is not None
                assert done.window.messages == chat.window(5)
        # A retry of a success takes the longer path, and shows the same.
        again = store.run(chat.steps.append_and_window(batch, 5))
        assert again.messages == done.messages
        assert again.window.messages == done.window.messages


def test_a_read_that_overtook_its_append_is_asked_again(valkey: RedisServer, prefix: str) -> None:
    """As where a redirection sends the append elsewhere, and the read was answered at once."""
    with Store(RedisBackend.from_url(valkey.url, prefix=prefix)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("first"))
        _load_scripts(store)
        ask = Wire.ask

        def read_first(wire: Wire, calls: Any) -> list[Any]:
            return ask(wire, calls[::-1])[::-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Wire, "ask", read_first)
            done = store.run(chat.steps.append_and_window([Message.user("second")], 5))
        assert [m.text for m in done.window.messages] == ["first", "second"]


def test_a_filter_sends_little(valkey: RedisServer, one: tuple[Store, Counter]) -> None:
    store, _ = one
    chat = store.conversation("s")
    for first in range(0, 2000, 500):
        chat.append(
            *(
                Message.user("x" * 500, metadata={"topic": "rare" if i == 777 else "common"})
                for i in range(first, first + 500)
            )
        )
    with valkey.client() as client:
        before = client.info("stats")["total_net_output_bytes"]
        found = chat.list_messages(where={"topic": "rare"})
        sent = client.info("stats")["total_net_output_bytes"] - before
    assert len(found) == 1
    assert sent < 20_000  # of the session's megabyte
