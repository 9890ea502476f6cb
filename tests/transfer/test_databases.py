"""Databases of LangChain, LangGraph and LlamaIndex, written by their own packages, brought in twice
with the source changed in between."""

from __future__ import annotations

import asyncio
import json
import operator
import sqlite3
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage

from langchain_tsmemory.importers import import_checkpoints, import_postgres_history
from llamaindex_tsmemory.importers import import_postgres_chat_store, import_sql_chat_store
from tsmemory import InvalidInputError, Store, open_store
from tsmemory.testing.servers.postgres import PostgresServer
from tsmemory.transfer import import_from

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages read here


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("memory:") as store:
        yield store


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> str:
    return postgres_server.url


def texts(store: Store, session: str) -> list[str]:
    return [m.text for m in store.conversation(session).iter_messages()]


# -- LangGraph --------------------------------------------------------------------------------


def _graph(saver: Any) -> Any:
    graph = pytest.importorskip("langgraph.graph", reason="pip install langgraph")
    from typing_extensions import TypedDict

    fields: dict[str, Any] = {
        "messages": Annotated[list[AnyMessage], graph.add_messages],
        "other": Annotated[list[Any], operator.add],
    }
    state_type = TypedDict("State", fields)  # type: ignore[operator]

    def answer(state: Any) -> dict[str, Any]:
        asked = state["messages"][-1].content
        call = {"id": "c", "name": "f", "args": {"x": asked}, "type": "tool_call"}
        return {
            "messages": [
                AIMessage("", tool_calls=[call], id=f"call {asked}"),
                ToolMessage("ok", tool_call_id="c", id=f"result {asked}"),
                AIMessage(f"answer to {asked}", id=f"answer {asked}"),
            ],
            "other": [{"plain": 1}],
        }

    builder = graph.StateGraph(state_type)
    builder.add_node("answer", answer)
    builder.add_edge(graph.START, "answer")
    builder.add_edge("answer", graph.END)
    return builder.compile(checkpointer=saver)


def _ask(graph: Any, thread: str, text: str) -> None:
    asked = {"messages": [HumanMessage(text, id=f"asked {text}")]}
    graph.invoke(asked, {"configurable": {"thread_id": thread}})


def test_langgraph_checkpoints_in_sqlite(store: Store, tmp_path: Path) -> None:
    sqlite = pytest.importorskip(
        "langgraph.checkpoint.sqlite", reason="langgraph-checkpoint-sqlite"
    )
    path = tmp_path / "checkpoints.db"
    with sqlite.SqliteSaver.from_conn_string(str(path)) as saver:
        for thread in ("one", "two"):
            _ask(_graph(saver), thread, "hi")
    before = sorted(p.name for p in tmp_path.iterdir())
    report = import_checkpoints(store, path)
    assert (report.sessions, report.messages, report.problems) == (2, 8, [])
    found = list(store.conversation("one").iter_messages())
    assert [(m.role, m.text) for m in found] == [
        ("user", "hi"), ("assistant", ""), ("tool", "ok"), ("assistant", "answer to hi"),
    ]  # fmt: skip
    assert [m.message_id for m in found][-1] == "answer hi"
    assert found[1].tool_calls[0].arguments == {"x": "hi"}
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    # The state was trimmed, and went on.
    with sqlite.SqliteSaver.from_conn_string(str(path)) as saver:
        graph = _graph(saver)
        from langchain_core.messages import RemoveMessage

        config = {"configurable": {"thread_id": "one"}}
        graph.update_state(config, {"messages": [RemoveMessage("asked hi")]})
        _ask(graph, "one", "more")
        report = import_from(store, saver, format="langgraph")
    assert report.written == 4
    assert texts(store, "one") == [
        "hi",
        "",
        "ok",
        "answer to hi",
        "more",
        "",
        "ok",
        "answer to more",
    ]
    assert [p.session_id for p in report.problems] == ["one"]
    # A checkpoint that does not decode does not take the other thread along.
    with sqlite3.connect(path) as db:
        db.execute("UPDATE checkpoints SET checkpoint = x'ff00' WHERE thread_id = 'two'")
    db.close()
    report = import_checkpoints(store, path)
    assert report.written == 0
    assert [p.session_id for p in report.problems] == ["one", "two"]
    for missing in (tmp_path / "none.db", f"sqlite:///{tmp_path}/none.db", 5):
        with pytest.raises(InvalidInputError):
            import_checkpoints(store, missing)


def test_langgraph_checkpoints_in_postgres(store: Store, postgres: str) -> None:
    module = pytest.importorskip("langgraph.checkpoint.postgres", reason="…-checkpoint-postgres")
    with module.PostgresSaver.from_conn_string(postgres) as saver:
        saver.setup()
        _ask(_graph(saver), "one", "hi")
        assert import_checkpoints(store, postgres).written == 4
        _ask(_graph(saver), "one", "more")
        report = import_checkpoints(store, postgres)
    assert (report.written, report.problems) == (4, [])
    assert texts(store, "one")[-1] == "answer to more"


# -- langchain-postgres -----------------------------------------------------------------------


def test_langchain_postgres(store: Store, postgres: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("langchain_postgres", reason="pip install langchain-postgres")
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as db:
        history_class = module.PostgresChatMessageHistory
        history_class.create_tables(db, "chat_history")
        sessions = [str(uuid.uuid4()) for _ in range(2)]
        for session in sessions:
            history = history_class("chat_history", session, sync_connection=db)
            history.add_messages([HumanMessage("a"), AIMessage("b", id="own"), HumanMessage("c")])
        report = import_postgres_history(store, postgres)
        assert (report.sessions, report.messages, report.problems) == (2, 6, [])
        found = list(store.conversation(sessions[0]).iter_messages())
        assert [m.text for m in found] == ["a", "b", "c"]
        assert found[1].message_id == "own"
        written = db.execute("SELECT max(created_at) FROM chat_history").fetchone()[0]
        assert abs(found[0].create_time / 1e6 - written.timestamp()) < 60
        db.execute("DELETE FROM chat_history WHERE id IN (1, 2)")
        db.execute(
            "INSERT INTO chat_history (session_id, message) VALUES (%s, %s)",
            (sessions[0], json.dumps({"type": "nobody"})),
        )
        history_class("chat_history", sessions[0], sync_connection=db).add_message(
            HumanMessage("d")
        )
        sqlalchemy = pytest.importorskip("sqlalchemy", reason="pip install sqlalchemy")
        url = postgres.replace("postgresql://", "postgresql+psycopg://")
        engine = sqlalchemy.create_engine(url)
        report = import_postgres_history(store, engine)
        engine.dispose()
        assert report.written == 1
        assert texts(store, sessions[0]) == ["a", "b", "c", "d"]
        assert len(report.problems) == 2  # the row that is none, and what is gone
        with pytest.raises(InvalidInputError, match="no table"):
            import_postgres_history(store, postgres, table_name="none")


# -- LlamaIndex -------------------------------------------------------------------------------


def test_llamaindex_sqlalchemy_chat_store(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("aiosqlite", reason="pip install aiosqlite")
    from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

    url = f"sqlite+aiosqlite:///{tmp_path}/memory.db"

    async def write(*changes: Any) -> Any:
        theirs = SQLAlchemyChatStore(table_name="llama_index_memory", async_database_uri=url)
        for change in changes:
            await change(theirs)
        engine = theirs._async_engine
        assert engine is not None
        await engine.dispose()
        return engine

    def say(*words: str) -> Any:
        messages = [ChatMessage(role="user", content=word) for word in words]
        return lambda theirs: theirs.add_messages("k", messages)

    asyncio.run(write(say("a", "b"), say("c")))
    files = sorted(p.name for p in tmp_path.iterdir())
    report = import_sql_chat_store(store, url)
    assert (report.sessions, report.messages, report.problems) == (1, 3, [])
    found = list(store.conversation("k").iter_messages())
    assert [m.text for m in found] == ["a", "b", "c"]
    assert found[0].create_time < found[1].create_time < found[2].create_time
    # Archived, and replaced: their rows get other ids and times.
    engine = asyncio.run(
        write(
            lambda theirs: theirs.archive_oldest_messages("k", 1),
            say("d"),
        )
    )
    assert import_sql_chat_store(store, engine).written == 1
    replaced = [ChatMessage(role="user", content=word) for word in ("c", "d", "e")]
    asyncio.run(write(lambda theirs: theirs.set_messages("k", replaced)))
    report = import_from(store, tmp_path / "memory.db", format="llamaindex-sql")
    assert report.written == 1
    assert texts(store, "k") == ["a", "b", "c", "d", "e"]
    assert [p.what.split(",")[0] for p in report.problems] == ["2 messages brought in before"]
    with sqlite3.connect(tmp_path / "memory.db") as db:
        db.execute("UPDATE llama_index_memory SET data = '{' WHERE data LIKE '%\"d\"%'")
    db.close()
    report = import_sql_chat_store(store, url)
    assert report.written == 0
    assert any("is not LlamaIndex's" in p.what for p in report.problems)
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    with pytest.raises(InvalidInputError, match="no file"):
        import_sql_chat_store(store, f"sqlite+aiosqlite:///{tmp_path}/none.db")


@pytest.mark.parametrize("use_jsonb", [False, True])
def test_llamaindex_postgres_chat_store(store: Store, postgres: str, use_jsonb: bool) -> None:
    module = pytest.importorskip(
        "llama_index.storage.chat_store.postgres",
        reason="pip install llama-index-storage-chat-store-postgres",
    )
    table = f"chats_{use_jsonb}".lower()
    theirs = module.PostgresChatStore.from_params(
        connection_string=postgres.replace("postgresql://", "postgresql+psycopg://"),
        async_connection_string=postgres.replace("postgresql://", "postgresql+asyncpg://"),
        table_name=table,
        use_jsonb=use_jsonb,
    )
    try:
        say = [ChatMessage(role="user", content=word) for word in "abc"]
        for message in say:
            theirs.add_message("k", message)
        report = import_postgres_chat_store(store, postgres, table_name=table)
        assert (report.written, report.problems) == (3, [])
        theirs.delete_message("k", 0)
        theirs.add_message("k", ChatMessage(role="user", content="d"))
        report = import_postgres_chat_store(store, postgres, table_name=table)
    finally:
        theirs._session.kw["bind"].dispose()
    assert (report.written, len(report.problems)) == (1, 1)
    assert texts(store, "k") == ["a", "b", "c", "d"]


# -- langchain-redis, which needs a server with RedisJSON: documents as its code writes them -------


class _RedisJSON:
    """The commands that reading takes, over documents as langchain-redis loads them. No server of
    the test environment has the module."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.ttls: dict[str, int] = {}

    def add(self, session: str, ulid: str, kind: str, content: str, at: float, **data: Any) -> None:
        self.documents[f"chat:{session}:{ulid}"] = {
            "type": kind,
            "message_id": ulid,
            "data": {"content": content, "additional_kwargs": {}, "type": kind, **data},
            "session_id": session,
            "timestamp": at,
        }

    def scan_iter(self, match: str) -> Iterator[bytes]:
        assert match == "chat:*"
        yield from (key.encode() for key in self.documents)

    def type(self, key: bytes) -> bytes:
        return b"ReJSON-RL"

    def execute_command(self, command: str, key: bytes) -> bytes:
        assert command == "JSON.GET"
        return json.dumps(self.documents[key.decode()]).encode()

    def pttl(self, key: bytes) -> int:
        return self.ttls.get(key.decode(), -1)


def test_langchain_redis(store: Store) -> None:
    client = _RedisJSON()
    client.add("s:1", "01B", "ai", "b", 1_700_000_000.5)
    client.add("s:1", "01A", "human", "a", 1_700_000_000.25)
    client.add("s:1", "01C", "tool", "ok", 1_700_000_001.0, tool_call_id="c", status="success")
    client.ttls["chat:s:1:01A"] = 60_000
    client.documents["chat:odd"] = {"type": "human"}
    report = import_from(store, client, format="langchain-redis")
    assert (report.sessions, report.messages, len(report.problems)) == (1, 3, 1)
    found = list(store.conversation("s:1").iter_messages())
    assert [(m.role, m.text) for m in found] == [("user", "a"), ("assistant", "b"), ("tool", "ok")]
    assert found[0].create_time == 1_700_000_000_250_000
    assert 0 < store.conversation("s:1").get_ttl() <= 60
    del client.documents["chat:s:1:01A"]  # it expired by itself
    assert [m.message_id for m in found] == ["01A", "01B", "01C"]
    client.add("s:1", "01D", "human", "a", 1_700_000_002.0)
    report = import_from(store, client, format="langchain-redis")
    assert report.written == 1
    assert texts(store, "s:1") == ["a", "b", "ok", "a"]
