"""Backends over the local server, and a way around them."""

from __future__ import annotations

from typing import Any

from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.engine.records import Key
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
    from tablestore import Direction, Row

    layout = backend(server, **options).layout

    def damage(user_id: str, session_id: str, message_id: str | None) -> None:
        client = server.client()
        key = Key(user_id, session_id)
        if message_id is None:
            broken = Row(layout.session_key(key), {"PUT": [("tsmemory", "{")]})
            client.update_row(layout.session_table, broken, None)
            if layout.isolated:
                broken = Row(layout.head_key(key), {"PUT": [("tsmemory_head", "{")]})
                client.update_row(layout.head_table, broken, None)
        else:
            start, end = layout.id_range(key, message_id)
            _, _, (row,), _ = client.get_range(
                layout.message_index, Direction.FORWARD, start, end, max_version=1
            )
            position = layout.message_key(key, row.primary_key[2][1], message_id)
            client.update_row("message", Row(position, {"PUT": [("tsmemory", "{")]}), None)
        client.connection.pool.clear()

    return Engine(open=lambda: backend(server, **options), damage=damage)
