"""Backends over the local server, a way around them, and writers in other processes."""

from __future__ import annotations

from typing import Any

from tests._forks import FORKS
from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.engine.records import Key
from tsmemory.testing import Engine
from tsmemory.testing.servers.tablestore import TablestoreProcess

from . import _writer


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


class Writer:
    """A process of `_writer`, which does one task after the other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.busy = False
        self._pipe, its_pipe = FORKS.Pipe()
        self._process = FORKS.Process(target=_writer.serve, args=(its_pipe,), daemon=True)
        self._process.start()
        its_pipe.close()

    def start(self, server: TablestoreProcess, **task: Any) -> None:
        task["server"] = {
            "endpoint": server.endpoint,
            "instance_name": server.instance_name,
            "access_key_id": server.access_key_id,
            "access_key_secret": server.access_key_secret,
        }
        task.setdefault("options", {"timeout": 2.0, "retry_for": 10.0})
        self.busy = True
        self._pipe.send({"name": self.name, "session": "shared", **task})

    def go(self, batches: int = 1) -> None:
        """Let a writer with ``turns`` append so many batches."""
        for _ in range(batches):
            self._pipe.send(None)

    def read(self) -> list[list[Any]]:
        """What the writer was told is stored: text and time of each message of its next batch."""
        rows = self._pipe.recv()
        assert isinstance(rows, list), rows
        return rows

    def finish(self) -> tuple[list[list[Any]], list[str]]:
        """The rest of what it was told is stored, and the errors that reached it."""
        rows: list[list[Any]] = []
        while isinstance(found := self._pipe.recv(), list):
            rows += found
        self.busy = False
        return rows, found["errors"]

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()
