"""Tablestore, on the local server: the figures are mostly the clients' own time."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import tablestore as sdk

from benchmarks.contenders import (
    MARGIN,
    SESSION,
    SESSIONS,
    Append,
    Contender,
    Place,
    bodies,
    new_id,
    text,
    view,
)
from benchmarks.contenders.shared import (
    appender,
    llamaindex_messages,
    llamaindex_store,
    tsmemory_store,
)

__all__ = ["agent_memory", "floor", "llamaindex", "ours"]


def _access(place: Place) -> tuple[str, str, str, str]:
    """What a client is made of: the endpoint, an access key and its secret, the instance."""
    parts = urlsplit(place.url)
    endpoint = f"{parts.scheme}://{parts.hostname}:{parts.port}"
    return endpoint, parts.username or "", parts.password or "", parts.path.strip("/")


class ByHand:
    """The SDK: a batch per append writes the messages and counts in the session's row, one range
    per window. Messages and session are not written atomically, two writers in one microsecond
    have no order, and there is no listing."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def create(self) -> None:
        if "m" in self.client.list_table():
            return
        capacity = sdk.ReservedThroughput(sdk.CapacityUnit(0, 0))
        keys = {"m": [("s", "STRING"), ("t", "INTEGER"), ("id", "STRING")], "s": [("s", "STRING")]}
        for name, key in keys.items():
            self.client.create_table(sdk.TableMeta(name, key), sdk.TableOptions(), capacity)

    def request(self, session: str, messages: list[dict[str, Any]]) -> Any:
        now = time.time_ns() // 1000
        anyway = sdk.Condition(sdk.RowExistenceExpectation.IGNORE)
        rows = [
            sdk.PutRowItem(
                sdk.Row(
                    [("s", session), ("t", now + i), ("id", new_id())],
                    [("role", message["role"]), ("body", json.dumps(message))],
                ),
                anyway,
            )
            for i, message in enumerate(messages)
        ]
        changes = {
            "PUT": [("update_time", now)],
            "INCREMENT": [("count", len(messages)), ("version", 1)],
        }
        head = sdk.UpdateRowItem(sdk.Row([("s", session)], changes), anyway)
        request = sdk.BatchWriteRowRequest()
        request.add(sdk.TableInBatchWriteRowItem("m", rows))
        request.add(sdk.TableInBatchWriteRowItem("s", [head]))
        return request

    def append(self, session: str, messages: list[dict[str, Any]]) -> None:
        self.client.batch_write_row(self.request(session, messages))

    def window(self, session: str) -> list[Any]:
        _, _, rows, _ = self.client.get_range(
            "m",
            sdk.Direction.BACKWARD,
            [("s", session), ("t", sdk.INF_MAX), ("id", sdk.INF_MAX)],
            [("s", session), ("t", sdk.INF_MIN), ("id", sdk.INF_MIN)],
            limit=20 + MARGIN,
        )
        newest = []
        for row in rows:
            columns = {name: value for name, value, *_ in row.attribute_columns}
            (_, created), (_, mid) = row.primary_key[1][:2], row.primary_key[2][:2]
            newest.append({**json.loads(columns["body"]), "id": mid, "created": created})
        return view(newest, [])


def _client(place: Place) -> Any:
    return sdk.OTSClient(*_access(place))


def floor(stack: ExitStack, place: Place) -> Contender:
    store = ByHand(_client(place))
    store.create()

    async def tasks(_: int) -> AsyncIterator[Append]:
        async with sdk.AsyncOTSClient(*_access(place)) as client:
            yield lambda number: client.batch_write_row(store.request(f"a{number}", bodies(1)))

    return Contender(
        lambda count: store.append(SESSION, bodies(count)),
        lambda: store.window(SESSION),
        hold=lambda name: store.append(name, bodies(1)),
        appender=appender(tasks),
    )


def ours(stack: ExitStack, place: Place) -> Contender:
    server, _, instance = place.url.rpartition("/")
    return tsmemory_store(stack, f"tablestore+{server}/?instance={instance}", search=False)


def agent_memory(stack: ExitStack, place: Place) -> Contender:
    from tablestore_for_agent_memory.base.base_memory_store import Message, Session
    from tablestore_for_agent_memory.memory.async_memory_store import AsyncMemoryStore
    from tablestore_for_agent_memory.memory.memory_store import MemoryStore

    store = MemoryStore(_client(place))
    if "message" not in store._client.list_table():
        store.init_table()

    def message(session: str) -> Any:
        return Message(session_id=session, message_id=new_id(), content=text())

    def add(session: str, count: int) -> None:
        for _ in range(count):
            store.put_message(message(session))
        store.put_session(Session(user_id="u", session_id=session))

    async def tasks(_: int) -> AsyncIterator[Append]:
        served = AsyncMemoryStore(sdk.AsyncOTSClient(*_access(place)))

        async def append(number: int) -> None:
            await served.put_message(message(f"a{number}"))
            await served.put_session(Session(user_id="u", session_id=f"a{number}"))

        async with served:
            yield append

    return Contender(
        lambda count: add(SESSION, count),
        lambda: list(store.list_messages(session_id=SESSION, max_count=20)),
        lambda: list(store.list_recent_sessions(user_id="u", max_count=20)),
        begin=lambda: [add(f"s{i}", 1) for i in range(SESSIONS)],
        hold=lambda name: add(name, 1),
        appender=appender(tasks),
    )


def llamaindex(stack: ExitStack, place: Place) -> Contender:
    from llama_index.storage.chat_store.tablestore import TablestoreChatStore

    store = TablestoreChatStore(tablestore_client=_client(place))
    store.create_table_if_not_exist()
    return llamaindex_store(
        store, fill=lambda count: store.set_messages(SESSION, llamaindex_messages(count))
    )
