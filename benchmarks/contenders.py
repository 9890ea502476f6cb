"""Who is compared: for each engine the same work by hand, tsmemory, and the packages people use.

A contender appends user and assistant messages of `TEXT` to one session and reads its last 20. What
a package does not offer (a window, a listing, a search) is left out; reading the whole history and
cutting it is what its users do for a window, and so it is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.jsonl_memory import ByHand as FileByHand
from benchmarks.redis_memory import ByHand as RedisByHand
from benchmarks.sqlite import FloorB
from tsmemory import Message, Store, open_store

__all__ = ["ENGINES", "SESSIONS", "TEXT", "Contender"]

TEXT = "The quick brown fox jumps over the lazy dog, and says so at some length. " * 4
SESSIONS = 200  # beside the measured one, with one message each
_ROLES = ("user", "assistant")
_S = "measured"


class Contender(NamedTuple):
    """One way to keep a conversation."""

    name: str
    append: Callable[[int], object]
    """Appends so many messages."""
    window: Callable[[], object]
    """The last 20."""
    listing: Callable[[], object] | None = None
    """The 20 sessions of the latest activity."""
    search: Callable[[], object] | None = None
    """The newest 20 messages with a word that all have."""
    files: Path | None = None
    """Where its file or directory is."""


Open = Callable[[ExitStack, Path], Iterator[Contender]]


def _bodies(count: int) -> list[dict[str, Any]]:
    return [{"role": _ROLES[i % 2], "content": TEXT} for i in range(count)]


def _ours(stack: ExitStack, url: str, files: Path | None = None) -> Contender:
    store: Store = stack.enter_context(open_store(url))
    store.setup()
    chat = store.conversation(_S)
    for i in range(SESSIONS):
        store.conversation(f"s{i}").append(Message.user("x"))
    return Contender(
        "tsmemory",
        lambda count: chat.append(*(Message(_ROLES[i % 2], TEXT) for i in range(count))),
        lambda: chat.window(20),
        lambda: store.list_sessions(limit=20),
        lambda: store.search_messages("quick", limit=20),
        files,
    )


def _langchain(
    name: str, history: Any, files: Path | None = None, cut: Callable[[], object] | None = None
) -> Contender:
    from langchain_core.messages import AIMessage, HumanMessage

    kinds = (HumanMessage, AIMessage)
    return Contender(
        name,
        lambda count: history.add_messages(
            [kinds[i % 2](TEXT, id=str(uuid.uuid4())) for i in range(count)]
        ),
        cut or (lambda: history.messages[-20:]),
        files=files,
    )


def _llamaindex(name: str, store: Any) -> Contender:
    from llama_index.core.llms import ChatMessage

    def append(count: int) -> None:
        for body in _bodies(count):
            store.add_message(_S, ChatMessage(**body))

    return Contender(name, append, lambda: store.get_messages(_S)[-20:])


def _saver(name: str, saver: Any, files: Path | None = None) -> Contender:
    """A checkpoint of an agent per append, with its whole list of messages."""
    from langchain_core.messages import HumanMessage
    from langgraph.checkpoint.base import empty_checkpoint

    messages: list[Any] = []
    versions = itertools.count(1)
    config: Any = {"configurable": {"thread_id": _S, "checkpoint_ns": ""}}

    def append(count: int) -> None:
        messages.extend(HumanMessage(TEXT, id=str(uuid.uuid4())) for _ in range(count))
        version = str(next(versions))
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": messages}
        checkpoint["channel_versions"] = {"messages": version}
        saver.put(config, checkpoint, {}, {"messages": version})

    def window() -> object:
        return saver.get_tuple(config).checkpoint["channel_values"]["messages"][-20:]

    return Contender(name, append, window, files=files)


# -- engines -----------------------------------------------------------------------------------


def memory(stack: ExitStack, root: Path) -> Iterator[Contender]:
    from langchain_core.chat_history import InMemoryChatMessageHistory
    from llama_index.core.storage.chat_store import SimpleChatStore

    rows: list[dict[str, Any]] = []
    yield Contender("by hand: a list", lambda n: rows.extend(_bodies(n)), lambda: rows[-20:])
    yield _ours(stack, "memory:")
    yield _langchain("langchain-core InMemoryChatMessageHistory", InMemoryChatMessageHistory())
    yield _llamaindex("LlamaIndex SimpleChatStore", SimpleChatStore())


def sqlite(stack: ExitStack, root: Path) -> Iterator[Contender]:
    floor = FloorB(root / "floor.db", "full")
    stack.callback(floor.db.close)
    for i in range(SESSIONS):
        floor.append(f"s{i}", *_bodies(1))
    yield Contender(
        "by hand: sqlite3 and json, same duties",
        lambda count: floor.append(_S, *_bodies(count)),
        lambda: floor.window(_S, 20),
        lambda: floor.db.execute("SELECT id, t, n FROM s ORDER BY t DESC LIMIT 20").fetchall(),
        files=root / "floor.db",
    )
    yield _ours(stack, f"sqlite:///{root / 'ours.db'}", root / "ours.db")
    from langchain_community.chat_message_histories import SQLChatMessageHistory

    path = root / "langchain.db"
    history = SQLChatMessageHistory(_S, connection=f"sqlite:///{path}")
    stack.callback(history.engine.dispose)
    yield _langchain("langchain-community SQLChatMessageHistory", history, path)
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    yield _sqlalchemy_store(stack, loop, root / "llamaindex.db")
    yield _agents_session(stack, loop, root / "agents.db")
    yield from _sqlite_saver(stack, root / "saver.db")


def _sqlalchemy_store(stack: ExitStack, loop: asyncio.AbstractEventLoop, path: Path) -> Contender:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

    store = SQLAlchemyChatStore(table_name="m", async_database_uri=f"sqlite+aiosqlite:///{path}")
    run = loop.run_until_complete
    run(store._initialize())
    engine: Any = store._async_engine
    stack.callback(lambda: run(engine.dispose()))
    return Contender(
        "LlamaIndex SQLAlchemyChatStore",
        lambda count: run(store.add_messages(_S, [ChatMessage(**b) for b in _bodies(count)])),
        lambda: run(store.get_messages(_S, limit=20)),
        files=path,
    )


def _agents_session(stack: ExitStack, loop: asyncio.AbstractEventLoop, path: Path) -> Contender:
    from agents import SQLiteSession

    session = SQLiteSession(_S, path)
    stack.callback(session.close)
    bodies: Any = _bodies
    return Contender(
        "OpenAI Agents SQLiteSession",
        lambda count: loop.run_until_complete(session.add_items(bodies(count))),
        lambda: loop.run_until_complete(session.get_items(20)),
        files=path,
    )


def _sqlite_saver(stack: ExitStack, path: Path) -> Iterator[Contender]:
    try:
        from langgraph.checkpoint.sqlite import SqliteSaver
    except ModuleNotFoundError:
        return
    connection = sqlite3.connect(path, check_same_thread=False)
    stack.callback(connection.close)
    yield _saver("langgraph SqliteSaver, whole state", SqliteSaver(connection), path)


def jsonl(stack: ExitStack, root: Path) -> Iterator[Contender]:
    from langchain_community.chat_message_histories import FileChatMessageHistory

    floor = FileByHand(root / "floor.jsonl", sync=True)
    stack.callback(floor.file.close)
    stack.callback(os.close, floor.lock)

    def window() -> object:
        with open(floor.path, "rb") as file:
            file.seek(max(0, floor.path.stat().st_size - 20 * 400))
            return file.read().splitlines()[-20:]

    yield Contender(
        "by hand: one line and fdatasync",
        lambda count: floor.append(_bodies(count)),
        window,
        files=floor.path,
    )
    yield _ours(stack, f"jsonl:///{root / 'ours'}", root / "ours")
    path = root / "langchain.json"
    history = FileChatMessageHistory(str(path))
    yield _langchain("langchain-community FileChatMessageHistory", history, path)


def redis(stack: ExitStack, root: Path) -> Iterator[Contender]:
    from langchain_community.chat_message_histories import RedisChatMessageHistory
    from llama_index.storage.chat_store.redis import RedisChatStore

    from tsmemory.testing.servers.redis import RedisServer, find_server

    kind = "valkey-server" if find_server("valkey-server") else "redis-server"
    server = stack.enter_context(RedisServer(kind))
    hand = RedisByHand(stack.enter_context(server.client()))
    for i in range(SESSIONS):
        hand.append(f"s{i}", *_bodies(1))
    yield Contender(
        "by hand: redis-py, same duties",
        lambda count: hand.append(_S, *_bodies(count)),
        lambda: hand.window(_S, 20),
        lambda: hand.client.zrevrange("sessions", 0, 19, withscores=True),
    )
    yield _ours(stack, server.url)
    history = RedisChatMessageHistory(_S, url=server.url, key_prefix="langchain:")
    stack.callback(history.redis_client.close)
    yield _langchain("langchain-community RedisChatMessageHistory", history)
    store = RedisChatStore(redis_url=server.url)
    stack.callback(store._redis_client.close)
    yield _llamaindex("LlamaIndex RedisChatStore", store)


def postgres(stack: ExitStack, root: Path) -> Iterator[Contender]:
    from tsmemory.testing.servers.postgres import PostgresServer

    server = stack.enter_context(PostgresServer(fsync=True))
    yield _postgres_floor(stack.enter_context(server.connect()))
    yield _ours(stack, server.url)
    from langchain_postgres import PostgresChatMessageHistory

    connection: Any = stack.enter_context(server.connect())
    PostgresChatMessageHistory.create_tables(connection, "chat_history")
    history = PostgresChatMessageHistory(
        "chat_history", str(uuid.uuid4()), sync_connection=connection
    )
    yield _langchain("langchain-postgres PostgresChatMessageHistory", history)
    try:
        from langgraph.checkpoint.postgres import PostgresSaver
        from psycopg.rows import dict_row
    except ModuleNotFoundError:
        return
    saving: Any = stack.enter_context(server.connect())
    saving.row_factory = dict_row
    saver = PostgresSaver(saving)
    saver.setup()
    yield _saver("langgraph PostgresSaver, whole state", saver)


def _postgres_floor(connection: Any) -> Contender:
    import json

    connection.autocommit = True
    connection.execute(
        "CREATE TABLE floor (s text, t bigserial, id uuid PRIMARY KEY, body jsonb);"
        "CREATE INDEX ON floor (s, t)"
    )

    def append(count: int) -> None:
        rows = [value for b in _bodies(count) for value in (_S, uuid.uuid4(), json.dumps(b))]
        values = ", ".join(["(%s, %s, %s)"] * count)
        connection.execute(f"INSERT INTO floor (s, id, body) VALUES {values}", rows)

    return Contender(
        "by hand: psycopg, one INSERT",
        append,
        lambda: connection.execute(
            "SELECT id, body FROM floor WHERE s = %s ORDER BY t DESC LIMIT 20", (_S,)
        ).fetchall(),
    )


def tablestore(stack: ExitStack, root: Path) -> Iterator[Contender]:
    """On the local server, which answers at once: the figures are the clients' own time."""
    import tablestore as sdk
    from llama_index.storage.chat_store.tablestore import TablestoreChatStore
    from tablestore_for_agent_memory.base.base_memory_store import Message as TheirMessage
    from tablestore_for_agent_memory.base.base_memory_store import Session as TheirSession
    from tablestore_for_agent_memory.memory.memory_store import MemoryStore

    from tsmemory.backends.tablestore import TablestoreBackend
    from tsmemory.testing.servers.tablestore import TablestoreProcess

    server = stack.enter_context(TablestoreProcess())
    client = sdk.OTSClient(
        server.endpoint, server.access_key_id, server.access_key_secret, server.instance_name
    )
    theirs = MemoryStore(
        client,
        session_table_name="a",
        session_secondary_index_name="a_index",
        message_table_name="b",
        message_secondary_index_name="b_index",
    )
    theirs.init_table()

    def append(count: int) -> None:
        for body in _bodies(count):
            theirs.put_message(
                TheirMessage(session_id=_S, message_id=str(uuid.uuid4()), content=body["content"])
            )
        theirs.put_session(TheirSession(user_id="u", session_id=_S))

    yield Contender(
        "tablestore-for-agent-memory",
        append,
        lambda: list(theirs.list_messages(session_id=_S, max_count=20)),
        lambda: list(theirs.list_recent_sessions(user_id="u", max_count=20)),
    )
    backend = TablestoreBackend(
        server.endpoint,
        instance_name=server.instance_name,
        access_key_id=server.access_key_id,
        access_key_secret=server.access_key_secret,
    )
    stack.callback(backend.close)
    store = Store(backend)
    store.setup()
    chat = store.conversation(_S)
    for i in range(SESSIONS):
        store.conversation(f"s{i}").append(Message.user("x"))
        theirs.put_session(TheirSession(user_id="u", session_id=f"s{i}"))
    yield Contender(
        "tsmemory",
        lambda count: chat.append(*(Message(_ROLES[i % 2], TEXT) for i in range(count))),
        lambda: chat.window(20),
        lambda: store.list_sessions(limit=20),
    )
    chat_store = TablestoreChatStore(tablestore_client=client)
    chat_store.create_table_if_not_exist()
    yield _llamaindex("LlamaIndex TablestoreChatStore", chat_store)


ENGINES: dict[str, Open] = {
    "memory": memory,
    "sqlite": sqlite,
    "jsonl": jsonl,
    "redis": redis,
    "postgres": postgres,
    "tablestore": tablestore,
}
"""Each gives its contenders, the floor first."""


@contextmanager
def opened(engine: str, root: Path) -> Iterator[list[Contender]]:
    """The contenders of an engine; those that are not installed are left out."""
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers announce what they will remove
        yield list(ENGINES[engine](stack, root))
