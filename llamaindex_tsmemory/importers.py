"""Bringing in what LlamaIndex's chat stores have kept.

from llamaindex_tsmemory.importers import import_simple_chat_store

with open_store("sqlite:///chat.db") as store:
    report = import_simple_chat_store(store, "chat_store.json")

Their data is read as data: JSON that is validated as `ChatMessage`s. A key becomes a session of one
user, as `TSMemoryChatStore` reads it. Each importer is `tsmemory.transfer.import_from` with a
format, and may be run again: a message is known by what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from llama_index.core.base.llms.types import ChatMessage

from llamaindex_tsmemory.mapping import to_neutral
from tsmemory import InvalidInputError, Message, Problem, Store
from tsmemory.transfer import Imported, Report, import_from
from tsmemory.transfer.sources import (
    Source,
    attempt,
    json_in,
    micros_of,
    open_redis,
    open_sql,
    read_bytes,
)

__all__ = [
    "import_postgres_chat_store",
    "import_redis_chat_store",
    "import_simple_chat_store",
    "import_sql_chat_store",
    "read_postgres",
    "read_redis",
    "read_simple",
    "read_sql",
]


def import_simple_chat_store(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in a file of `SimpleChatStore.persist`: `import_from`, ``llamaindex-simple``."""
    return import_from(store, source, format="llamaindex-simple", user_id=user_id, **options)


def import_redis_chat_store(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in what `RedisChatStore` keeps: `import_from`, ``llamaindex-redis``."""
    return import_from(store, source, format="llamaindex-redis", user_id=user_id, **options)


def import_sql_chat_store(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in the table of `SQLAlchemyChatStore`: `import_from`, ``llamaindex-sql``."""
    return import_from(store, source, format="llamaindex-sql", user_id=user_id, **options)


def import_postgres_chat_store(
    store: Store, source: Source, *, user_id: str = "default", **options: Any
) -> Report:
    """Bring in the table of `PostgresChatStore`: `import_from`, ``llamaindex-postgres``."""
    return import_from(store, source, format="llamaindex-postgres", user_id=user_id, **options)


# -- readers -----------------------------------------------------------------------------------


def read_simple(source: Source, *, user_id: str) -> Iterator[Imported | Problem]:
    """A file that `SimpleChatStore.persist` wrote: every key in it.

    Args:
        source: a path or an open file, or a `SimpleChatStore` itself.
    """
    keys = getattr(source, "store", None)
    if not isinstance(keys, dict):
        try:
            content = json_in(read_bytes(source))
            if isinstance(content, str):  # as older releases wrote it: JSON in JSON
                content = json_in(content)
        except InvalidInputError:
            raise
        except ValueError as error:
            raise InvalidInputError(f"not what SimpleChatStore.persist writes: {error}") from error
        keys = content.get("store") if isinstance(content, dict) else None
    if not isinstance(keys, dict):
        raise InvalidInputError("not what SimpleChatStore.persist writes: it has no 'store'")
    for key, rows in keys.items():
        if isinstance(rows, list):
            yield _conversation(user_id, key, rows)
        else:
            yield Problem(user_id, key, None, "not a list of messages")


def read_redis(source: Source, *, user_id: str, match: str = "*") -> Iterator[Imported | Problem]:
    """What `RedisChatStore` keeps.

    It uses its keys as they are, without a prefix, so every list in the database that `match` lets
    through is taken for a conversation; one that holds something else is reported. What is left of
    a key's time to live is left to the session.

    Args:
        source: a URL, or a ``redis.Redis`` or ``valkey.Valkey``.
        match: which keys, as Redis's ``SCAN … MATCH`` understands it.
    """
    with open_redis(source) as client:
        for key in sorted(client.scan_iter(match=match), key=_text):
            if _text(client.type(key)) != "list":
                continue
            conversation = _conversation(user_id, _text(key), client.lrange(key, 0, -1))
            if not conversation.messages:
                what = "not what LlamaIndex writes: none of its items is a message"
                yield Problem(user_id, _text(key), None, what)
                continue
            ttl_ms = client.pttl(key)
            conversation.ttl = ttl_ms / 1000 if ttl_ms > 0 else None
            yield conversation


def read_sql(
    source: Source, *, user_id: str, table_name: str = "llama_index_memory"
) -> Iterator[Imported | Problem]:
    """The table of `SQLAlchemyChatStore`: every key in it, archived messages too, in the order and
    with the times of the store.

    Args:
        source: a SQLAlchemy URL (the asynchronous one too), a SQLite file, or an engine.
        table_name: as it was given to the store; ``llama_index_memory`` is that of `Memory`.
    """
    with open_sql(source) as db:
        table, sqlalchemy = _table(db, table_name, {"key", "timestamp", "data", "id"})
        content = sqlalchemy.type_coerce(table.c.data, sqlalchemy.types.NullType())
        query = sqlalchemy.select(table.c.key, content, table.c.timestamp)
        query = query.order_by(table.c.key, table.c.timestamp, table.c.id)
        keys: dict[str, tuple[list[Any], list[Any]]] = {}
        for key, row, time in db.execute(query):
            rows, times = keys.setdefault(str(key), ([], []))
            rows.append(row)
            times.append(time)
    for key, (rows, times) in keys.items():
        yield _conversation(user_id, key, rows, times)


def read_postgres(
    source: Source, *, user_id: str, table_name: str = "chatstore", schema_name: str = "public"
) -> Iterator[Imported | Problem]:
    """The table of `PostgresChatStore`: every key in it.

    Args:
        source: a URL, or a SQLAlchemy engine.
        table_name: as it was given to the store; with the ``data_`` of older releases, too.
        schema_name: as it was given to the store.
    """
    with open_sql(source) as db:
        import sqlalchemy

        names = (f"data_{table_name}".lower(), table_name.lower())
        inspector = sqlalchemy.inspect(db)
        name = next((n for n in names if inspector.has_table(n, schema=schema_name)), names[1])
        table, _ = _table(db, name, {"key", "value"}, schema_name)
        query = sqlalchemy.select(table.c.key, table.c.value).order_by(table.c.key)
        conversations = [(str(key), value) for key, value in db.execute(query)]
    for key, value in conversations:
        yield _conversation(user_id, key, value or [])


def _table(db: Any, name: str, columns: set[str], schema: str | None = None) -> tuple[Any, Any]:
    import sqlalchemy

    if not sqlalchemy.inspect(db).has_table(name, schema=schema):
        raise InvalidInputError(f"the database has no table {name!r}")
    table = sqlalchemy.Table(name, sqlalchemy.MetaData(), autoload_with=db, schema=schema)
    missing = columns - set(table.c.keys())
    if missing:
        raise InvalidInputError(f"the table {name!r} has no column {min(missing)!r}")
    return table, sqlalchemy


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _conversation(
    user_id: str, key: str, rows: Iterable[Any], times: Iterable[Any] = ()
) -> Imported:
    """One conversation; a row that is no `ChatMessage` is reported."""
    messages: list[Message] = []
    problems: list[Problem] = []
    clock = iter(times)
    for number, row in enumerate(rows, 1):
        time = micros_of(next(clock, None))
        problem = Problem(user_id, key, None, f"message {number} is not LlamaIndex's")
        parsed = attempt(lambda: _message(row), problem)  # noqa: B023  # called at once
        if isinstance(parsed, Problem):
            problems.append(parsed)
        else:
            messages.append(msgspec.structs.replace(parsed, create_time=time))
    return Imported(session_id=key, user_id=user_id, messages=messages, problems=problems)


def _message(row: Any) -> Message:
    if isinstance(row, (str, bytes)):
        row = json_in(row)
    if not isinstance(row, ChatMessage):
        row = ChatMessage.model_validate(row)
    return to_neutral(row)
