"""Bringing in what langchain-community's chat message histories have stored.

from langchain_tsmemory.importers import import_sql_history

with open_store("sqlite:///chat.db") as store:
    report = import_sql_history(store, "sqlite:///memory.db")

Their data is read as data: each row is JSON of ``message_to_dict``, and only langchain-core's own
message classes are built from it. langchain-community need not be installed. Each may be run again
(see `tsmemory.transfer.import_sessions`): a message keeps its own id, and the n-th of a
conversation without one is ``langchain:n``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from langchain_core.messages import messages_from_dict

from langchain_tsmemory._mapping import message_id, to_neutral
from tsmemory import Message, MissingDependencyError, Problem, Store
from tsmemory.transfer import Imported, Report, import_sessions, numbered

__all__ = ["import_file_history", "import_redis_history", "import_sql_history"]

_GLOB = re.compile(r"([*?\[\]\\])")


def import_file_history(
    store: Store,
    path: str | os.PathLike[str],
    *,
    session_id: str | None = None,
    user_id: str = "default",
    encoding: str = "utf-8",
) -> Report:
    """Bring in the file of a `FileChatMessageHistory`: one conversation.

    Args:
        session_id: the session it becomes; the file's name without its ending where not given.
        user_id: whose.
        encoding: as it was given to the history, which takes the platform's where none was.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    name = path.stem if session_id is None else session_id
    found = _conversation(user_id, name, lambda: json.loads(path.read_text(encoding=encoding)))
    return import_sessions(store, [found])


def import_sql_history(
    store: Store,
    connection: Any,
    *,
    table_name: str = "message_store",
    session_id_field_name: str = "session_id",
    user_id: str = "default",
) -> Report:
    """Bring in the table of `SQLChatMessageHistory`: every session in it.

    Args:
        connection: a SQLAlchemy URL, or an ``Engine``, which stays open.
        table_name: as it was given to the history.
        session_id_field_name: as it was given to the history.
        user_id: whose sessions they become.

    Raises:
        MissingDependencyError: SQLAlchemy is not installed.
        sqlalchemy.exc.SQLAlchemyError: the database cannot be read, or has no such table.
    """
    try:
        import sqlalchemy  # of the caller's choice, with the driver of the database
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "SQLChatMessageHistory keeps its data by SQLAlchemy; pip install sqlalchemy"
        ) from error
    engine = sqlalchemy.create_engine(connection) if isinstance(connection, str) else connection
    try:
        table = sqlalchemy.Table(table_name, sqlalchemy.MetaData(), autoload_with=engine)
        session = table.c[session_id_field_name]
        with engine.connect() as db:
            names = db.execute(sqlalchemy.select(session).distinct().order_by(session))

            def conversations() -> Iterator[Imported | Problem]:
                for (name,) in names.all():
                    query = (
                        sqlalchemy.select(table.c.message)
                        .where(session == name)
                        .order_by(table.c.id)
                    )
                    rows = db.execute(query).scalars().all()
                    yield _conversation(user_id, name, lambda rows=rows: map(json.loads, rows))

            return import_sessions(store, conversations())
    finally:
        if engine is not connection:
            engine.dispose()


def import_redis_history(
    store: Store, client: Any, *, key_prefix: str = "message_store:", user_id: str = "default"
) -> Report:
    """Bring in what `RedisChatMessageHistory` keeps: every session under its prefix.

    What is left of a key's time to live is left to the session.

    Args:
        client: a ``redis.Redis`` or ``valkey.Valkey``, whatever its ``decode_responses``.
        key_prefix: as it was given to the history.
        user_id: whose sessions they become.
    """

    def conversations() -> Iterator[Imported | Problem]:
        for key in sorted(client.scan_iter(match=_GLOB.sub(r"\\\1", key_prefix) + "*"), key=_text):
            if _text(client.type(key)) != "list":
                continue
            rows = client.lrange(key, 0, -1)[::-1]  # the newest stands first
            found = _conversation(
                user_id,
                _text(key)[len(key_prefix) :],
                lambda rows=rows: [json.loads(row) for row in rows],
            )
            left = client.pttl(key)
            if isinstance(found, Imported) and left > 0:
                found.ttl = left / 1000
            yield found

    return import_sessions(store, conversations())


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _conversation(user_id: str, session_id: str, read: Any) -> Imported | Problem:
    """One conversation, or why it cannot be read."""
    try:
        return Imported(session_id=session_id, user_id=user_id, messages=_messages(read()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"not what langchain-community writes: {type(error).__name__}: {error}"
        return Problem(user_id, session_id, None, what)


def _messages(rows: Iterable[Any]) -> list[Message]:
    found = messages_from_dict(list(rows))
    used: set[str] = set()
    for message in found:
        if message.id in used:
            message.id = None  # another message has it; ours are unique in a session
        elif message.id is not None:
            used.add(message.id)
    ids = [None if message.id is None else message_id(message.id) for message in found]
    return numbered(map(to_neutral, found), "langchain", ids)
