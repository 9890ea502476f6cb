"""The database of the OpenAI Agents SDK's ``SQLiteSession``, and of its ``SQLAlchemySession``,
whose tables are alike: ``agent_messages`` has a JSON item per row, in the order of ``id``
(github.com/openai/openai-agents-python, ``src/agents/memory``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tsmemory.errors import InvalidInputError
from tsmemory.model import Problem
from tsmemory.transfer.formats.openai_chat import read_messages
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.sources import (
    Source,
    each,
    json_in,
    micros_of,
    open_sql,
    sqlite_connection,
    sqlite_file,
)

__all__ = ["read"]


def read(
    source: Source,
    *,
    user_id: str,
    sessions_table: str = "agent_sessions",
    messages_table: str = "agent_messages",
) -> Iterator[Imported | Problem]:
    """Every session in a database.

    Args:
        sessions_table: as it was given to the session.
        messages_table: as it was given to the session.
    """
    source = getattr(source, "db_path", source)  # a SQLiteSession itself
    path = sqlite_file(source)
    if path is not None:
        with sqlite_connection(path) as db:
            names = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
            if messages_table not in names:
                raise InvalidInputError(f"{path} has no table {messages_table}")
            quoted = ['"{}"'.format(t.replace('"', '""')) for t in (sessions_table, messages_table)]
            times = {}
            if sessions_table in names:
                times = {
                    row[0]: row[1:]
                    for row in db.execute(
                        f"SELECT session_id, created_at, updated_at FROM {quoted[0]}"
                    )
                }
            rows = db.execute(
                f"SELECT session_id, message_data FROM {quoted[1]} ORDER BY session_id, id"
            ).fetchall()
        yield from _sessions(rows, times, user_id)
        return
    with open_sql(source) as db:
        import sqlalchemy

        table = sqlalchemy.Table(messages_table, sqlalchemy.MetaData(), autoload_with=db)
        body = sqlalchemy.type_coerce(table.c.message_data, sqlalchemy.Text)
        query = sqlalchemy.select(table.c.session_id, body).order_by(table.c.session_id, table.c.id)
        rows = [tuple(row) for row in db.execute(query)]
    yield from _sessions(rows, {}, user_id)


def _sessions(rows: list[Any], times: dict[Any, Any], user_id: str) -> Iterator[Imported | Problem]:
    sessions: dict[Any, list[Any]] = {}
    for session_id, body in rows:
        sessions.setdefault(session_id, []).append(body)
    for session_id, bodies in sessions.items():
        if session_id is None:
            yield Problem(user_id, None, None, f"{len(bodies)} items without a session id")
            continue

        def place(number: int, name: str = str(session_id)) -> Problem:
            return Problem(user_id, name, None, f"item {number}")

        decoded, problems = each(bodies, json_in, place)
        messages, odd = read_messages(decoded, user_id, f"session {session_id}")
        created, updated = times.get(session_id, (None, None))
        yield Imported(
            session_id=str(session_id),
            user_id=user_id,
            messages=messages,
            create_time=micros_of(created),
            update_time=micros_of(updated),
            problems=[*problems, *(p._replace(session_id=str(session_id)) for p in odd)],
        )
