"""The checkpoints of LangGraph: opened read-only, the newest of each thread, its messages."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from typing import Any

from tsmemory import InvalidInputError, MissingDependencyError
from tsmemory.transfer.sources import Source, sqlite_connection, sqlite_file

__all__ = ["messages_in", "newest_checkpoints", "open_saver"]


def messages_in(saver: Any, names: dict[str, str], channel: str) -> list[Any] | None:
    """The messages of a checkpoint; None for a graph without."""
    checkpoint = saver.get_tuple({"configurable": names})
    messages = checkpoint.checkpoint["channel_values"].get(channel) if checkpoint else None
    return messages if isinstance(messages, list) or messages is None else [messages]


_NEWEST = (
    "SELECT thread_id, max(checkpoint_id) AS newest FROM checkpoints WHERE checkpoint_ns = '' "
    "GROUP BY thread_id"
)
"""Checkpoint ids sort by time, and a checkpoint that does not decode is not in the way."""


def newest_checkpoints(saver: Any) -> dict[str, str]:
    """The newest checkpoint of each thread, by way of a saver's public methods."""
    newest: dict[str, str] = {}
    for checkpoint in saver.list(None):
        names = checkpoint.config["configurable"]
        if names.get("checkpoint_ns", "") == "":
            thread = str(names["thread_id"])
            newest[thread] = max(newest.get(thread, ""), names["checkpoint_id"])
    return newest


def open_saver(source: Source, stack: ExitStack) -> tuple[Any, dict[str, str]]:
    """A read-only saver, which builds langchain-core's messages and plain values only, and the
    newest checkpoint of each thread."""
    try:
        from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

        serializer = JsonPlusSerializer(allowed_msgpack_modules=None)
        path = sqlite_file(source)
        if path is not None:
            from langgraph.checkpoint.sqlite import SqliteSaver

            db: sqlite3.Connection = stack.enter_context(sqlite_connection(path))
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'").fetchone():
                raise InvalidInputError(f"{path} has no table 'checkpoints'")
            saver = SqliteSaver(db, serde=serializer)
            saver.is_setup = True  # its tables are there, and it may not create any
            return saver, dict(db.execute(_NEWEST).fetchall())
        if not isinstance(source, str):
            raise InvalidInputError("give a checkpointer, a SQLite file, or a PostgreSQL URL")
        from langgraph.checkpoint.postgres import PostgresSaver
        from psycopg import Connection
        from psycopg.rows import DictRow, dict_row
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"reading checkpoints needs {error.name}; pip install langgraph-checkpoint-sqlite or "
            "langgraph-checkpoint-postgres"
        ) from error
    connection: Connection[DictRow] = stack.enter_context(
        Connection[DictRow].connect(
            source, autocommit=True, row_factory=dict_row, prepare_threshold=None
        )
    )
    rows = connection.execute(_NEWEST).fetchall()
    newest = {row["thread_id"]: row["newest"] for row in rows}
    return PostgresSaver(connection, serde=serializer), newest
