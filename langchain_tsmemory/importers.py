"""Bringing in what LangChain's message histories and LangGraph's checkpoints have stored.

from langchain_tsmemory.importers import import_sql_history

with open_store("sqlite:///chat.db") as store:
    report = import_sql_history(store, "sqlite:///memory.db")

Their data is read as data: each row is JSON of ``message_to_dict``, and only langchain-core's own
message classes are built from it. The package that wrote it need not be installed. Each importer is
`tsmemory.transfer.import_from` with a format, and may be run again: a message keeps its own id, and
one without is known by what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, messages_from_dict

from langchain_tsmemory._checkpoints import messages_in, newest_checkpoints, open_saver
from langchain_tsmemory.mapping import message_id, to_neutral
from tsmemory import InvalidInputError, Message, Problem, Store
from tsmemory.transfer import Imported, Report, import_from
from tsmemory.transfer.sources import (
    Source,
    attempt,
    glob_of,
    json_in,
    micros_of,
    open_redis,
    open_sql,
    read_bytes,
)

__all__ = [
    "import_checkpoints",
    "import_file_history",
    "import_postgres_history",
    "import_redis_history",
    "import_sql_history",
    "read_checkpoints",
    "read_file",
    "read_postgres",
    "read_redis_json",
    "read_redis_lists",
    "read_sql",
]


def import_file_history(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in the file of a `FileChatMessageHistory`: `import_from`, ``langchain-file``."""
    return import_from(store, source, format="langchain-file", user_id=user_id, **options)


def import_sql_history(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in the table of `SQLChatMessageHistory`: `import_from`, ``langchain-sql``."""
    return import_from(store, source, format="langchain-sql", user_id=user_id, **options)


def import_postgres_history(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in the table of langchain-postgres: `import_from`, ``langchain-postgres``."""
    return import_from(store, source, format="langchain-postgres", user_id=user_id, **options)


def import_redis_history(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in langchain-community's `RedisChatMessageHistory`: `import_from`,
    ``langchain-redis-list``."""
    return import_from(store, source, format="langchain-redis-list", user_id=user_id, **options)


def import_checkpoints(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in the messages of LangGraph's checkpoints: `import_from`, ``langgraph``."""
    return import_from(store, source, format="langgraph", user_id=user_id, **options)


# -- readers -----------------------------------------------------------------------------------


def read_file(
    source: Source, *, user_id: str, session_id: str | None = None, encoding: str = "utf-8"
) -> Iterator[Imported | Problem]:
    """The file of a `FileChatMessageHistory`: one conversation.

    Args:
        session_id: the session it becomes; the file's name without its ending where not given.
        encoding: as it was given to the history, which takes the platform's where none was.
    """
    name = session_id
    if name is None:
        path = getattr(source, "file_path", getattr(source, "name", source))
        name = Path(path).stem if isinstance(path, (str, Path)) else "history"
    source = getattr(source, "file_path", source)  # the history itself
    content = read_bytes(source)
    try:
        text = (
            content if encoding.lower().replace("_", "-") == "utf-8" else content.decode(encoding)
        )
        rows = json_in(text)
        if not isinstance(rows, list):
            raise InvalidInputError("not a list of messages")
    except (ValueError, LookupError) as error:
        yield Problem(user_id, name, None, f"not what FileChatMessageHistory writes: {error}")
        return
    yield _conversation(user_id, name, rows)


def read_sql(
    source: Source,
    *,
    user_id: str,
    table_name: str = "message_store",
    session_id_field_name: str = "session_id",
) -> Iterator[Imported | Problem]:
    """The table of `SQLChatMessageHistory`: every session in it.

    Args:
        source: a SQLAlchemy URL, a SQLite file, an ``Engine`` or an ``AsyncEngine``.
        table_name: as it was given to the history.
        session_id_field_name: as it was given to the history.
    """
    yield from _read_table(source, user_id, table_name, session_id_field_name, None)


def read_postgres(
    source: Source, *, user_id: str, table_name: str = "chat_history"
) -> Iterator[Imported | Problem]:
    """The table of langchain-postgres's `PostgresChatMessageHistory`: every session in it, with
    the times at which its messages were written.

    Args:
        source: a URL, or a SQLAlchemy ``Engine`` or ``AsyncEngine``.
        table_name: as it was given to the history.
    """
    yield from _read_table(source, user_id, table_name, "session_id", "created_at")


def _read_table(
    source: Source, user_id: str, table_name: str, session_field: str, time_field: str | None
) -> Iterator[Imported | Problem]:
    with open_sql(source) as db:
        import sqlalchemy

        if not sqlalchemy.inspect(db).has_table(table_name):
            raise InvalidInputError(f"the database has no table {table_name!r}")
        table = sqlalchemy.Table(table_name, sqlalchemy.MetaData(), autoload_with=db)
        missing = {session_field, "id", "message"} - set(table.c.keys())
        if missing:
            raise InvalidInputError(f"the table {table_name!r} has no column {min(missing)!r}")
        session = table.c[session_field]
        # As it is stored: one row that is not JSON must not end the reading of all.
        body = sqlalchemy.type_coerce(table.c.message, sqlalchemy.types.NullType())
        columns = [session, body]
        timed = time_field is not None and time_field in table.c
        if time_field is not None and timed:
            columns.append(table.c[time_field])
        names = [row[0] for row in db.execute(sqlalchemy.select(session).distinct())]
        for name in sorted(names, key=str):
            query = sqlalchemy.select(*columns).where(session == name).order_by(table.c.id)
            rows = [tuple(row) for row in db.execute(query)]
            if name is None:
                count = sqlalchemy.select(sqlalchemy.func.count()).where(session.is_(None))
                number = db.execute(count.select_from(table)).scalar()
                yield Problem(user_id, None, None, f"{number} rows without a session id")
                continue
            times = [row[2] for row in rows] if timed else ()
            yield _conversation(user_id, str(name), [row[1] for row in rows], times)


def read_redis_lists(
    source: Source, *, user_id: str, key_prefix: str = "message_store:"
) -> Iterator[Imported | Problem]:
    """What langchain-community's `RedisChatMessageHistory` keeps: every session under its prefix.
    What is left of a key's time to live is left to the session.

    Args:
        source: a URL, or a ``redis.Redis`` or ``valkey.Valkey``.
        key_prefix: as it was given to the history.
    """
    with open_redis(source) as client:
        for key in sorted(client.scan_iter(match=glob_of(key_prefix)), key=_text):
            if _text(client.type(key)) != "list":
                continue
            rows = client.lrange(key, 0, -1)[::-1]  # the newest is first
            conversation = _conversation(user_id, _text(key)[len(key_prefix) :], rows)
            ttl_ms = client.pttl(key)
            conversation.ttl = ttl_ms / 1000 if ttl_ms > 0 else None
            yield conversation


def read_redis_json(
    source: Source, *, user_id: str, key_prefix: str = "chat:"
) -> Iterator[Imported | Problem]:
    """What langchain-redis's `RedisChatMessageHistory` keeps: a document of RedisJSON per message,
    ``{prefix}{session_id}:{ULID}``, with ``type``, ``data``, ``session_id`` and ``timestamp``
    (seconds). A session's time to live is the shortest of its messages'.

    Args:
        source: a URL, or a ``redis.Redis``.
        key_prefix: as it was given to the history.
    """
    sessions: dict[str, list[tuple[Any, str, Any]]] = {}
    ttls: dict[str, float] = {}
    with open_redis(source) as client:
        for key in sorted(client.scan_iter(match=glob_of(key_prefix)), key=_text):
            name = _text(key)
            if _text(client.type(key)) != "ReJSON-RL":
                continue
            problem = Problem(user_id, None, None, name)
            raw = client.execute_command("JSON.GET", key)
            document = attempt(lambda: _document(raw), problem)  # noqa: B023  # called at once
            if isinstance(document, Problem):
                yield document
                continue
            session_id = str(document["session_id"])
            own_id = str(document.get("message_id") or name.rpartition(":")[2])
            sessions.setdefault(session_id, []).append((document["timestamp"], own_id, document))
            ttl_ms = client.pttl(key)
            if ttl_ms > 0:
                ttls[session_id] = min(ttl_ms / 1000, ttls.get(session_id, ttl_ms / 1000))
    for session_id, documents in sessions.items():
        documents.sort(key=lambda entry: entry[:2])
        conversation = _conversation(
            user_id,
            session_id,
            [document for _, _, document in documents],
            [time for time, _, _ in documents],
            [own_id for _, own_id, _ in documents],
        )
        conversation.ttl = ttls.get(session_id)
        yield conversation


def _document(raw: Any) -> dict[str, Any]:
    document = json_in(raw)
    if not isinstance(document, dict) or not isinstance(document.get("timestamp"), (int, float)):
        raise InvalidInputError("not what langchain-redis writes")
    if not isinstance(document.get("session_id"), str):
        raise InvalidInputError("it has no session_id")
    return document


def read_checkpoints(
    source: Source, *, user_id: str, channel: str = "messages"
) -> Iterator[Imported | Problem]:
    """The messages in the newest checkpoint of each thread of LangGraph; those of subgraphs are
    not read.

    Args:
        source: a checkpointer, or the file of a ``SqliteSaver``, or a PostgreSQL URL of a
            ``PostgresSaver``; the package of the saver must be installed.
        channel: the key of the state that holds the messages.
    """
    with ExitStack() as stack:
        if hasattr(source, "get_tuple"):
            saver, newest = source, newest_checkpoints(source)
        else:
            saver, newest = open_saver(source, stack)
        for thread, checkpoint_id in sorted(newest.items()):
            problem = Problem(user_id, thread, None, "its checkpoint cannot be read")
            names = {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
            conversation = attempt(lambda: messages_in(saver, names, channel), problem)  # noqa: B023
            if isinstance(conversation, Problem):
                yield conversation
            elif conversation is not None:
                yield _conversation(user_id, thread, conversation)


# -- rows --------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _conversation(
    user_id: str,
    session_id: str,
    rows: Iterable[Any],
    times: Iterable[Any] = (),
    row_ids: Iterable[str] = (),
) -> Imported:
    """One conversation; a row that is no message of langchain-core is reported.

    Args:
        times: when the rows were written, as the source has it.
        row_ids: of the rows, for messages without an id.
    """
    messages: list[Message] = []
    ids: list[str | None] = []
    problems: list[Problem] = []
    clock, names = iter(times), iter(row_ids)
    used: set[str] = set()
    for number, row in enumerate(rows, 1):
        time, row_id = micros_of(next(clock, None)), next(names, None)
        problem = Problem(user_id, session_id, None, f"message {number} is not LangChain's")
        parsed = attempt(lambda: _message(row, used), problem)  # noqa: B023  # called at once
        if isinstance(parsed, Problem):
            problems.append(parsed)
            continue
        neutral, own_id = parsed
        messages.append(neutral if time is None else _at(neutral, time))
        ids.append(own_id or row_id)
    return Imported(
        session_id=session_id, user_id=user_id, messages=messages, ids=ids, problems=problems
    )


def _at(message: Message, time: int) -> Message:
    import msgspec

    return msgspec.structs.replace(message, create_time=time)


def _message(row: Any, used: set[str]) -> tuple[Message, str | None]:
    if isinstance(row, (str, bytes)):
        row = json_in(row)
    if not isinstance(row, BaseMessage):
        if not isinstance(row, dict):
            raise InvalidInputError(f"{row!r:.80}")
        (row,) = messages_from_dict([row])
    if row.id in used:
        row = row.model_copy(update={"id": None})  # another message has it; here ids are unique
    elif row.id is not None:
        used.add(row.id)
    return to_neutral(row), None if row.id is None else message_id(row.id)
