"""Redis and Valkey, with their own persistence off: everything is in the server's memory."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import redis

from benchmarks.contenders import (
    MARGIN,
    SESSION,
    SESSIONS,
    WORD,
    Append,
    Contender,
    Place,
    bodies,
    new_id,
    view,
)
from benchmarks.contenders.shared import (
    appender,
    langchain_history,
    llamaindex_messages,
    llamaindex_store,
    tsmemory_store,
)

__all__ = ["community", "floor", "langchain", "llamaindex", "ours"]


class ByHand:
    """redis-py: a transaction adds to an order, to bodies, a head with counts, and the list of
    sessions; a window takes two round trips, as does a listing. Nobody finds out that a key was
    evicted, and two writers in one microsecond have no order."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def append(self, session: str, messages: list[dict[str, Any]]) -> Any:
        pipeline = self.client.pipeline(transaction=True)
        now = time.time_ns() // 1000
        ids = [new_id() for _ in messages]
        pipeline.zadd(f"{session}:order", {mid: now + i for i, mid in enumerate(ids)}, nx=True)
        stored = {mid: json.dumps(body) for mid, body in zip(ids, messages, strict=True)}
        pipeline.hset(f"{session}:bodies", mapping=stored)
        pipeline.hincrby(f"{session}:head", "count", len(messages))
        pipeline.hincrby(f"{session}:head", "version", 1)
        pipeline.hset(f"{session}:head", "update_time", now)
        pipeline.hsetnx(f"{session}:head", "create_time", now)
        pipeline.zadd("sessions", {session: now})
        return pipeline.execute()

    def window(self, session: str) -> list[Any]:
        pipeline = self.client.pipeline(transaction=False)
        pipeline.zrevrange(f"{session}:order", 0, 19 + MARGIN, withscores=True)
        pipeline.hvals(f"{session}:rules")
        order, rules = pipeline.execute()
        found: Any = self.client.hmget(f"{session}:bodies", [mid for mid, _ in order])
        newest = [
            {**json.loads(body), "id": mid.decode(), "created": int(score)}
            for body, (mid, score) in zip(found, order, strict=True)
        ]
        return view(newest, [json.loads(rule) for rule in rules])

    def listing(self) -> list[Any]:
        names: Any = self.client.zrevrange("sessions", 0, 20)
        pipeline = self.client.pipeline(transaction=False)
        for name in names[:20]:
            pipeline.hgetall(f"{name.decode()}:head")
        heads = pipeline.execute()
        return [
            {"id": name.decode(), **{key.decode(): int(value) for key, value in head.items()}}
            for name, head in zip(names[:20], heads, strict=True)
        ]


def _used(place: Place) -> float:
    with redis.Redis.from_url(place.url) as client:
        return float(client.info("memory")["used_memory_dataset"])


def floor(stack: ExitStack, place: Place) -> Contender:
    store = ByHand(stack.enter_context(redis.Redis.from_url(place.url)))

    async def tasks(count: int) -> AsyncIterator[Append]:
        import redis.asyncio

        pool = redis.asyncio.BlockingConnectionPool.from_url(place.url, max_connections=50)
        async with redis.asyncio.Redis(connection_pool=pool) as client:
            served = ByHand(client)  # its pipeline's execute gives what is to be awaited
            yield lambda number: served.append(f"a{number}", bodies(1))
        await pool.disconnect()

    return Contender(
        lambda count: store.append(SESSION, bodies(count)),
        lambda: store.window(SESSION),
        store.listing,
        begin=lambda: [store.append(f"s{i}", bodies(1)) for i in range(SESSIONS)],
        hold=lambda name: store.append(name, bodies(1)),
        size=lambda: _used(place),
        appender=appender(tasks),
    )


def ours(stack: ExitStack, place: Place) -> Contender:
    return tsmemory_store(stack, place.url, lambda: _used(place))


def community(stack: ExitStack, place: Place) -> Contender:
    from langchain_community.chat_message_histories import RedisChatMessageHistory

    return langchain_history(
        lambda session: RedisChatMessageHistory(session, url=place.url, key_prefix="langchain:"),
        size=lambda: _used(place),
    )


def langchain(stack: ExitStack, place: Place) -> Contender:
    """It needs a server with RediSearch and RedisJSON: see `benchmarks.servers`. With redis-py's
    default protocol, langchain-redis 0.2.6 fails where its index exists already."""
    from langchain_redis import RedisChatMessageHistory

    def opened(session: str) -> Any:
        return RedisChatMessageHistory(session, redis_url=f"{place.url}?protocol=2")

    history = opened(SESSION)

    return langchain_history(
        opened,
        search=lambda: history.search_messages(WORD, limit=20),
        size=lambda: _used(place),
    )


def llamaindex(stack: ExitStack, place: Place) -> Contender:
    from llama_index.storage.chat_store.redis import RedisChatStore

    store = RedisChatStore(redis_url=place.url)
    stack.callback(store._redis_client.close)

    async def tasks(_: int) -> AsyncIterator[Append]:
        served = RedisChatStore(redis_url=place.url)
        yield lambda number: served.async_add_message(f"a{number}", llamaindex_messages(1)[0])
        await served._aredis_client.aclose()

    return llamaindex_store(store, size=lambda: _used(place), appender=appender(tasks))
