"""``export``, ``import`` and ``copy``, as faces of `tsmemory.transfer`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Say, read
from tsmemory import Message, open_store


def content(url: str) -> list[tuple[str, str, list[Message]]]:
    with open_store(url) as store:
        return sorted(
            (
                (
                    session.user_id,
                    session.session_id,
                    list(
                        store.conversation(
                            session.session_id, user_id=session.user_id
                        ).iter_messages()
                    ),
                )
                for session in store.iter_sessions()
            ),
            key=lambda found: found[:2],
        )


def same(one: str, other: str) -> bool:
    return content(one) == content(other)


def test_copy(say: Say, url: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path / 'copy.db'}"
    assert read(say("copy", url, target, "--json")) == {
        "sessions": 3, "messages": 7, "written": 7, "problems": []
    }  # fmt: skip
    assert same(url, target)
    assert say("copy", url, target)[1] == (
        "copied 3 sessions, 7 messages; 0 written, the rest was there\n"
    )
    with open_store(target) as store:
        store.conversation("trip", user_id="bob").append(Message.user("of its own"))
    code, _, err = say("copy", url, target)
    assert code == 1
    assert "bob / trip" in err
    only = f"sqlite:///{tmp_path / 'bob.db'}"
    assert read(say("copy", url, only, "-u", "bob", "--no-verify", "--json"))["sessions"] == 1


def test_copying_what_is_not_there(say: Say, url: str, tmp_path: Path) -> None:
    assert say("copy", f"sqlite:///{tmp_path / 'none.db'}", url)[0] == 1
    assert say("copy", url)[0] == 2
    code, _, err = say("copy", url, "sqlite:///x.db?password=hunter2-hunter2")
    assert code == 2
    assert "hunter2" not in err


def test_export_and_import(say: Say, run: Run, url: str, tmp_path: Path) -> None:
    file, target = tmp_path / "all.jsonl", f"sqlite:///{tmp_path / 'back.db'}"
    assert say("export", str(file), "-s", url)[1] == "exported 3 sessions, 7 messages\n"
    code, _, err = say("export", str(file), "-s", url)
    assert code == 2
    assert "--force" in err
    assert read(say("export", str(file), "-s", url, "--force", "--json"))["messages"] == 7
    assert read(say("import", str(file), "-s", target, "--json"))["written"] == 7
    assert same(url, target)
    assert "0 written" in say("import", str(file), "-s", target)[1]
    done = run("export", "-s", url)
    assert done.stdout.encode() == file.read_bytes()
    assert done.stderr == "exported 3 sessions, 7 messages\n"
    assert sorted(path.name for path in tmp_path.iterdir() if "jsonl" in path.name) == ["all.jsonl"]


def test_a_file_cut_short(say: Say, url: str, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    say("export", str(file), "-s", url)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    code, _, err = say("import", str(file), "-s", f"sqlite:///{tmp_path / 'new.db'}")
    assert code == 2
    assert "cut short" in err


def test_the_openai_format(say: Say, url: str, tmp_path: Path) -> None:
    file, target = tmp_path / "chat.jsonl", f"sqlite:///{tmp_path / 'new.db'}"
    assert say("export", str(file), "-s", url, "-u", "ada", "--format", "openai")[0] == 0
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert {line["id"] for line in lines} == {"trip", "old"}
    assert say("import", str(file), "-s", target, "--format", "openai")[0] == 0
    assert [found[:2] for found in content(target)] == [("ada", "old"), ("ada", "trip")]
    file.write_text('{"id": "x"}\n', encoding="utf-8")
    code, _, err = say("import", str(file), "-s", target, "--format", "openai")
    assert code == 1
    assert "line 1" in err


def test_directories(say: Say, tmp_path: Path) -> None:
    old, target = tmp_path / "sessions", f"sqlite:///{tmp_path / 'new.db'}"
    old.mkdir()
    (old / "a.jsonl").write_text('{"role": "user", "content": "hi"}\n', encoding="utf-8")
    found = read(say("import", str(old), "-s", target, "--format", "picoclaw", "--json"))
    assert (found["sessions"], found["messages"]) == (1, 1)
    (old / "b.json").write_text(
        json.dumps({"key": "b", "messages": [{"role": "user", "content": "yo"}]}), encoding="utf-8"
    )
    found = read(say("import", str(old), "-s", target, "--format", "picoclaw-json", "--json"))
    assert (found["sessions"], found["messages"]) == (1, 1)
    assert (old / "b.json").exists()


def test_formats_and_their_options(say: Say, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path / 'new.db'}"
    shown = say("import", "--format", "list")[1]
    assert "chatgpt" in shown
    assert set(read(say("import", "--format", "list", "--json"))) < set(shown.split())
    turns = {
        name: {
            "id": name,
            "parent": parent,
            "message": {
                "id": name,
                "author": {"role": "user"},
                "content": {"content_type": "text", "parts": [name]},
            },
        }
        for name, parent in (("a", None), ("b", "a"), ("c", "a"))
    }
    chat = {"id": "s", "title": "T", "mapping": turns, "current_node": "c"}
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps([chat]), encoding="utf-8")
    command = ["import", str(file), "-s", target, "--format", "chatgpt", "--json"]
    assert read(say(*command))["written"] == 2
    assert read(say(*command, "-o", "branches=true"))["written"] == 2
    code, _, err = say(*command[:-1], "-o", "wrong=1")
    assert (code, "branches" in err) == (2, True)
    assert say(*command[:-1], "-o", "wrong")[0] == 2


def test_markdown(say: Say, url: str, tmp_path: Path) -> None:
    file = tmp_path / "all.md"
    assert say("export", str(file), "-s", url, "-u", "ada", "--format", "markdown")[0] == 0
    text = file.read_text(encoding="utf-8")
    assert "- session: `trip`" in text
    assert "## User" in text


def test_broken_records(say: Say, url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
        db.execute("UPDATE messages SET body = x'ff' WHERE message_id = 'm1'")
    file = tmp_path / "all.jsonl"
    code, _, err = say("export", str(file), "-s", url)
    assert code == 1
    assert "message 'm1'" in err
    assert not file.exists()
    assert read(say("export", str(file), "-s", url, "--skip-broken", "--json"))["messages"] == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "--format", "xml"], "tsmemory, openai, markdown"),
        (["export", "--json"], "give a FILE"),
        (["export", "--format", "openai", "--skip-broken"], "not for the format openai"),
        (["import", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["import", "nowhere", "--format", "picoclaw"], "no directory"),
        (["import", "nowhere", "--format", "martian"], "chatgpt"),
        (["import", "x", "-u", "ada"], "has its users"),
        (["import"], "SOURCE"),
    ],
)
def test_bad_input(say: Say, arguments: list[str], says: str) -> None:
    code, out, err = say(*arguments, "-s", "memory:")
    assert (code, out) == (2, "")
    assert says in err
