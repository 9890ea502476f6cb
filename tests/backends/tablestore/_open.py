"""Backends over the local server, and a way around them."""

from __future__ import annotations

from typing import Any

from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.testing import Engine
from tsmemory.testing.servers.tablestore import TablestoreProcess


def backend(server: TablestoreProcess, **options: Any) -> TablestoreBackend:
    return TablestoreBackend(
        server.endpoint,
        instance_name=server.instance_name,
        access_key_id=server.access_key_id,
        access_key_secret=server.access_key_secret,
        **options,
    )


def engine(server: TablestoreProcess, **options: Any) -> Engine:
    from tablestore import INF_MAX, INF_MIN, Direction, Row

    def damage(user_id: str, session_id: str, message_id: str | None) -> None:
        client = server.client()
        agent = options.get("layout") == "agent-memory"
        if message_id is None:
            table, key = "session", [("user_id", user_id), ("session_id", session_id)]
        else:
            table = "message"
            first = ("user_session_id", f"{len(user_id.encode())}:{user_id}/{session_id}")
            first = ("session_id", session_id) if agent else first
            _, _, (row,), _ = client.get_range(
                "message_secondary_index", Direction.FORWARD,
                [first, ("message_id", message_id), ("create_time", INF_MIN)],
                [first, ("message_id", message_id), ("create_time", INF_MAX)],
                max_version=1,
            )  # fmt: skip
            key = [first, ("create_time", row.primary_key[2][1]), ("message_id", message_id)]
        client.update_row(table, Row(key, {"PUT": [("tsmemory", "{")]}), None)
        client.connection.pool.clear()

    return Engine(open=lambda: backend(server, **options), damage=damage)
