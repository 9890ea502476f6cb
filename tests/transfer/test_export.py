"""A store as a file and back: JSON Lines of our own, and the OpenAI chat format."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests._chat_api import conversations
from tests.transfer.test_copy import everything, fill, stores  # noqa: F401  # a fixture
from tsmemory import InvalidInputError, Message, Store, ToolCall, open_store
from tsmemory.transfer import export_jsonl, export_openai, import_jsonl, import_openai


@pytest.fixture
def exported(stores, tmp_path: Path) -> tuple[Store, Path]:  # noqa: F811  # the fixture
    source = stores("sqlite")
    fill(source)
    path = tmp_path / "all.jsonl"
    report = export_jsonl(source, path)
    assert (report.sessions, report.messages) == (5, 458)
    return source, path


@pytest.mark.parametrize("kind", ["sqlite", "jsonl", "memory"])
def test_export_and_import(stores, exported: tuple[Store, Path], kind: str) -> None:  # noqa: F811
    source, path = exported
    target = stores(kind)
    seen = []
    report = import_jsonl(target, path, progress=seen.append)
    assert (report.sessions, report.messages, report.written) == (5, 458, 458)
    assert seen[-1][:2] == (5, 458)
    assert everything(target) == everything(source)
    assert import_jsonl(target, path).written == 0
    assert everything(target) == everything(source)
    out = io.BytesIO()
    export_jsonl(target, out)
    ours, theirs = (
        [line for line in data.splitlines() if b'"role"' in line]
        for data in (out.getvalue(), path.read_bytes())
    )
    assert ours == theirs


def test_a_store_that_lived_on_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    with open_store("memory:") as store:
        for session in ("edited", "longer", "titled", "deleted", "same"):
            chat = store.conversation(session)
            chat.append(*(Message.user(text, message_id=text) for text in "ab"))
            chat.update_session(title="T")
        export_jsonl(store, path)
        store.conversation("edited").update_message("a", content="edited")
        store.conversation("longer").append(Message.user("c"))
        store.conversation("titled").update_session(title="another")
        store.conversation("deleted").delete()
        kept = {
            s.session_id: (s, [m.text for m in store.conversation(s.session_id).iter_messages()])
            for s in store.iter_sessions()
        }
        report = import_jsonl(store, path)
        assert report.written == 2
        assert [(p.session_id, p.message_id) for p in report.problems] == [
            ("edited", "a"),
            ("titled", None),
        ]
        for name, (session, texts) in kept.items():
            chat = store.conversation(name)
            assert (chat.session(), [m.text for m in chat.iter_messages()]) == (session, texts)
        assert store.conversation("deleted").session().title == "T"


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    with open_store("memory:", clock=lambda: 9) as store:
        chat = store.conversation("s", user_id="u")
        chat.append(Message.user("Hi", message_id="m"))
        chat.update_session(title="T")
        export_jsonl(store, path, user_id="u")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {"tsmemory_export": 1},
        {
            "session": {
                "user_id": "u",
                "session_id": "s",
                "create_time": 9,
                "update_time": 9,
                "version": 2,
                "message_count": 1,
                "record": {"title": "T"},
            }
        },
        {"create_time": 9, "message_id": "m", "role": "user", "content": "Hi"},
        {"end": {"sessions": 1, "messages": 1}},
    ]


def test_a_file_cut_short_is_known(stores, exported: tuple[Store, Path]) -> None:  # noqa: F811
    source, path = exported
    data = path.read_bytes()
    target = stores("memory")
    for size in (len(data) - 1, len(data) // 2, len(data) // 3):
        cut = io.BytesIO(data[:size] if size < len(data) - 1 else data[: data.rfind(b"\n{") + 1])
        with pytest.raises(InvalidInputError):
            import_jsonl(target, cut)
    import_jsonl(target, path)
    assert everything(target) == everything(source)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{}\n", "neither"),
        (b"[]\n", "line 3"),
        (b"nonsense\n", "line 3"),
        (b'{"create_time":1,"message_id":"m","role":"user","content":[7]}\n', "line 3"),
        (b'{"create_time":-1,"message_id":"m","role":"user"}\n', "line 3"),
        (b'{"create_time":1,"message_id":"","role":"user"}\n', "line 3"),
        (b'{"session":{"user_id":"u"}}\n', "line 3"),
    ],
)
def test_bad_lines_are_named(line: bytes, what: str) -> None:
    session = (
        b'{"session":{"user_id":"u","session_id":"s","create_time":1,"update_time":1,'
        b'"version":1,"message_count":1,"record":{}}}\n'
    )
    with open_store("memory:") as store:
        with pytest.raises(InvalidInputError, match=what):
            import_jsonl(store, io.BytesIO(b'{"tsmemory_export":1}\n' + session + line))
        for first in (b"", b"{}\n", line, b'{"tsmemory_export":2}\n'):
            with pytest.raises(InvalidInputError):
                import_jsonl(store, io.BytesIO(first))


# -- the OpenAI chat format -------------------------------------------------------------------


def test_the_real_conversations(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    raw = conversations()
    with path.open("w", encoding="utf-8") as file:
        for name, messages in raw.items():
            file.write(json.dumps({"id": name, "messages": messages}) + "\n")
    with open_store("memory:") as store:
        report = import_openai(store, path, user_id="airline")
        assert report.problems == []
        assert (report.sessions, report.messages) == (len(raw), sum(map(len, raw.values())))
        before = everything(store)
        assert import_openai(store, path, user_id="airline").written == 0
        assert everything(store) == before
        export_openai(store, tmp_path / "out.jsonl", user_id="airline")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert {line["id"]: line["messages"] for line in map(json.loads, lines)} == raw


def test_a_longer_file_adds_what_is_new() -> None:
    say = [{"role": "user", "content": str(i)} for i in range(4)]

    def file(count: int) -> io.BytesIO:
        line = {"id": "s", "user_id": "u", "messages": say[:count]}
        return io.BytesIO(json.dumps(line).encode())

    with open_store("memory:") as store:
        import_openai(store, file(2))
        chat = store.conversation("s", user_id="u")
        assert import_openai(store, file(4)).written == 2
        say[1]["content"] = "changed"
        assert import_openai(store, file(4)).written == 1
        assert [m.text for m in chat.iter_messages()] == ["0", "1", "2", "3", "changed"]
        chat.append(Message.user("lived on"))
        chat.update_session(title="mine")
        session = chat.session()
        assert import_openai(store, file(4)).written == 0
        assert chat.session() == session


def test_what_is_no_conversation_is_told() -> None:
    lines = ["nonsense", "[]", '{"messages": []}', '{"id": "a"}', '{"id":"b","messages":[7]}', ""]
    good = json.dumps({"id": "good", "messages": [{"role": "user", "content": "x"}]})
    with open_store("memory:") as store:
        report = import_openai(store, io.BytesIO("\n".join([*lines, good]).encode()))
        assert [p.what.split(":")[0] for p in report.problems] == [
            *(f"line {i}" for i in range(1, 5)),
            "line 5, message 1",
        ]
        assert [s.session_id for s in store.iter_sessions()] == ["good"]


def test_lone_surrogates_go_out_escaped() -> None:
    out = io.BytesIO()
    with open_store("memory:") as store:
        call = ToolCall("c", "f", {"x": "\ud800"})
        store.conversation("s").append(Message.assistant("\ud800", tool_calls=[call]))
        export_openai(store, out)
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert line["messages"][0]["content"] == "\ud800"
