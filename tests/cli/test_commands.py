"""What each command says, in this process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.cli.conftest import Say, read
from tsmemory import Message, ToolCall, open_store
from tsmemory.backends.memory import MemoryBackend


@pytest.mark.usefixtures("terminal")
def test_sessions_page(say: Say, url: str) -> None:
    first = read(say("sessions", "-s", url, "--limit", "2", "--json"))
    rest = read(say("sessions", "-s", url, "--cursor", first["next_cursor"], "--json"))
    assert [s["session_id"] for s in first["sessions"] + rest["sessions"]] == [
        "trip", "old", "trip"
    ]  # fmt: skip
    assert rest["next_cursor"] is None
    only = read(say("sessions", "-s", url, "-u", "bob", "--json"))["sessions"]
    assert len(only) == 1
    assert set(only[0]) == {
        "user_id", "session_id", "create_time", "update_time", "version", "message_count",
        "title", "summary", "expires_at", "ttl", "metadata",
    }  # fmt: skip
    code, out, err = say("sessions", "-s", url, "--limit", "1")
    assert code == 0
    assert "bob" in out
    assert "more: --cursor " in err
    assert say("sessions", "-s", "memory:")[1] == "no sessions\n"


@pytest.mark.usefixtures("terminal")
def test_show(say: Say, url: str) -> None:
    code, out, _ = say("show", "trip", "-u", "ada", "-s", url)
    assert code == 0
    for part in ("A trip", "Ada travels.", "Where do I go?", '→ search({"to": "Bergen"})',
                 "answers c1", "To Bergen."):  # fmt: skip
        assert part in out
    assert out.index("Where do I go?") < out.index("To Bergen.")
    newest = say("show", "trip", "-u", "ada", "-s", url, "--last", "1")[1]
    assert "To Bergen." in newest
    assert "Where do I go?" not in newest


def test_show_as_json_loses_nothing(say: Say, url: str) -> None:
    with open_store(url) as store:
        chat = store.conversation("trip", user_id="ada")
        chat.append(Message.user("odd", metadata={"score": float("nan"), "raw": b"\x00\xff"}))
    found = read(say("show", "trip", "-u", "ada", "-s", url, "--json"))
    assert found["session"]["title"] == "A trip"
    assert found["broken"] == []
    last = found["messages"][-1]
    assert set(last) == {
        "role", "content", "message_id", "create_time", "name", "tool_calls", "tool_call_id",
        "metadata", "extensions",
    }  # fmt: skip
    assert last["metadata"] == {"raw": {"$bytes": "AP8="}, "score": {"$float": "nan"}}
    assert found["messages"][2]["tool_calls"] == [
        {"id": "c1", "name": "search", "arguments": {"to": "Bergen"}, "error": None}
    ]


@pytest.mark.usefixtures("terminal")
def test_show_a_window(say: Say, url: str) -> None:
    with open_store(url) as store:
        chat = store.conversation("trip", user_id="ada")
        chat.append(Message.user("and then?"), Message.assistant("Home."))
    found = read(say("show", "trip", "-u", "ada", "-s", url, "--window", "2", "--json"))
    assert [m["content"] for m in found["messages"]] == ["Be kind.", "and then?", "Home."]
    assert {"message", "reason"} == set(found["left_out"][0])
    assert found["older"] is False
    assert found["tokens"] is None
    code, out, _ = say("show", "trip", "-u", "ada", "-s", url, "--window", "2")
    assert code == 0
    assert "the model sees 3 messages" in out
    assert "left out: 4 messages" in out
    tokens = read(say("show", "trip", "-u", "ada", "-s", url, "--max-tokens", "500", "--json"))
    assert tokens["tokens"] > 0
    summed = read(
        say("show", "trip", "-u", "ada", "-s", url, "--window", "2", "--summary", "--json")
    )
    assert any("Ada travels." in m["content"] for m in summed["messages"])


@pytest.mark.usefixtures("terminal")
def test_show_shortens_unless_told(say: Say, url: str) -> None:
    with open_store(url) as store:
        store.conversation("long").append(Message.user("x" * 5_000 + "END"))
    assert "END" not in say("show", "long", "-s", url)[1]
    assert "END" in say("show", "long", "-s", url, "--full")[1].replace("\n  ", "")


def test_show_says_what_a_block_is(say: Say, url: str) -> None:
    block = {"type": "image", "base64": "AAAA" * 100, "mime_type": "image/png"}
    with open_store(url) as store:
        store.conversation("seen").append(Message.user([{"type": "text", "text": "look"}, block]))
    out = say("show", "seen", "-s", url)[1]
    assert "[image image/png 400 characters of base64]" in out
    assert "AAAA" not in out


def test_what_is_not_there(say: Say, url: str) -> None:
    code, out, err = say("show", "trip", "-u", "carol", "-s", url)
    assert (code, out) == (1, "")
    assert "user 'carol' has no session 'trip'; user 'bob', 'ada' has one: pass --user" in err


def test_looking_does_not_make_a_database(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "typo.db"
    url = f"sqlite:///{path}"
    for command in (["sessions"], ["stats"], ["verify"], ["doctor"], ["show", "x"], ["compact"]):
        code, out, err = say(*command, "--store", url)
        assert code == 1
        assert f"there is no store at {path}" in out + err
    assert not path.exists()
    code, _, err = say("stats", "-s", f"jsonl:///{path.parent}/none")
    assert (code, "there is no store at" in err) == (1, True)
    assert say("setup", "--store", url)[:2] == (0, f"set up: {url}\n")
    assert path.exists()


@pytest.mark.parametrize("compatible", ["0", "1"])
def test_messages_cannot_act_on_the_terminal(
    say: Say, url: str, compatible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", compatible)
    evil = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202egnp.exe\ud800\x00end"
    with open_store(url) as store:
        chat = store.conversation(f"s{evil[:8]}", user_id=f"u{evil[:8]}")
        call = ToolCall(evil, evil, {evil: evil})
        chat.append(
            Message("user\x1b[1m", evil, name=evil, metadata={"k": "\x1b"}),
            Message.assistant("", tool_calls=[call]),
            Message.tool(evil, tool_call_id=evil),
            Message.user("and now?"),
            Message.assistant("", tool_calls=[call]),
        )
        chat.update_session(title=evil, summary=evil, metadata={evil: evil})
    for command in (
        ["sessions"],
        ["sessions", "--json"],
        ["show", f"s{evil[:8]}", "-u", f"u{evil[:8]}"],
        ["show", f"s{evil[:8]}", "-u", f"u{evil[:8]}", "--json"],
        ["show", f"s{evil[:8]}", "-u", f"u{evil[:8]}", "--window", "5"],
        ["show", "missing\x1b[2J", "-u", "\x1b"],
        ["show", f"s{evil[:8]}", "-u", f"u{evil[:8]}", "--window", "1"],
        ["show", f"s{evil[:8]}", "-u", f"u{evil[:8]}", "--csv"],
        ["tail", f"s{evil[:8]}", "-u", f"u{evil[:8]}"],
        ["erase-user", f"u{evil[:8]}", "--yes"],
    ):
        _, *printed = say(*command, "--store", url)
        for text in printed:
            assert not set(text) & set("\x1b\x07\r\x9b\u202e\x00"), command


@pytest.mark.usefixtures("terminal")
def test_stats(say: Say, url: str) -> None:
    found = read(say("stats", "-s", url, "--json"))
    assert (found["users"], found["sessions"], found["messages"]) == (2, 3, 7)
    assert set(found) == {"users", "sessions", "messages", "expired_sessions", "bytes"}
    assert "messages                        7" in say("stats", "-s", url)[1]


def test_broken_records_are_named(say: Say, url: str) -> None:
    assert say("verify", "-s", url)[:2] == (0, "all is well\n")
    assert read(say("verify", "-s", url, "--json")) == {"problems": []}
    path = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE messages SET body = x'ff' WHERE message_id = 'm1'")
        db.execute("UPDATE sessions SET body = x'7b' WHERE session_id = 'old'")
    problems = read(say("verify", "-s", url, "--json"), 1)["problems"]
    assert {p["message_id"] for p in problems} == {None, "m1"}
    code, out, err = say("verify", "-s", url)
    assert code == 1
    assert "bob / trip / m1: does not decode" in out
    assert "2 problems" in err
    code, out, err = say("show", "trip", "-u", "bob", "-s", url)
    assert code == 1
    assert "broken" in out
    assert "1 message cannot be decoded" in err
    assert read(say("show", "trip", "-u", "bob", "-s", url, "--json"), 1)["broken"]
    listed = read(say("sessions", "-s", url, "--json"), 1)["sessions"]
    assert [s["user_id"] for s in listed] == ["bob", "ada"]


def test_doctor(say: Say, url: str) -> None:
    found = read(say("doctor", "-s", url, "--write", "--json"))
    assert found["ok"] is True
    checks = {check["name"]: check["value"] for check in found["checks"]}
    assert checks["engine"] == "SQLiteBackend"
    assert checks["atomic_batches"] is True
    assert checks["schema"].endswith("journal_mode wal")
    assert checks["wal"].endswith(" bytes")
    assert checks["free_space"].endswith(" GB")
    assert checks["permissions"] == "not open"
    assert checks["expired_sessions"] == "0"
    assert checks["max_message_bytes"] == 1_000_000_000
    assert 0 < checks["round_trip_ms"] < 1_000
    assert 0 < checks["write_ms"] < 1_000
    assert read(say("stats", "-s", url, "--json"))["sessions"] == 3
    code, out, _ = say("doctor", "-s", "sqlite:///not/here/x.db")
    assert code == 1
    assert "FAIL" in out
    assert say("doctor", "-s", "memory:")[0] == 0
    path = Path(url.removeprefix("sqlite:///"))
    path.chmod(0o644)
    code, out, _ = say("doctor", "-s", url)
    assert code == 1
    assert f"FAIL\tpermissions\topen to every user of this machine; chmod o= {path}" in out
    path.chmod(0o600)
    with open_store(url) as store:
        store.conversation("old", user_id="ada").set_ttl(60)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
        db.execute("UPDATE sessions SET expires_at = 1 WHERE session_id = 'old'")
    checks = {c["name"]: c["value"] for c in read(say("doctor", "-s", url, "--json"))["checks"]}
    assert checks["expired_sessions"] == '1; "tsmemory purge" removes them'


def test_erase_purge_compact(say: Say, url: str) -> None:
    assert read(say("compact", "-s", url, "--json")) == {"sessions": 3, "bytes": 0}
    assert say("compact", "trip", "-u", "bob", "-s", url)[1].startswith("1 session compacted")
    assert say("compact", "nope", "-s", url)[0] == 1
    assert read(say("erase-user", "ada", "--yes", "-s", url, "--json")) == {
        "user_id": "ada", "sessions": 2, "messages": 6
    }  # fmt: skip
    assert say("erase-user", "ada", "--yes", "-s", url)[1] == "erased 0 sessions, 0 messages\n"
    assert read(say("purge", "-s", url, "--json")) == {"sessions": 0, "messages": 0}


def test_what_nobody_expected_is_a_line_too(
    say: Say, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any) -> Any:
        raise RuntimeError("the password is s3cret-s3cret")

    monkeypatch.setattr(MemoryBackend, "stats", broken)
    monkeypatch.setenv("MY_DB_PASSWORD", "s3cret-s3cret")
    code, out, err = say("stats", "-s", "memory:")
    assert (code, out) == (1, "")
    assert err == (
        "tsmemory: unexpected RuntimeError: the password is *** (TSMEMORY_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("TSMEMORY_DEBUG", "1")
    err = say("stats", "-s", "memory:")[2]
    assert "Traceback" in err
    assert "s3cret" not in err


def test_search_shows_what_matches(say: Say, url: str) -> None:
    code, out, err = say("search", "bergen", "--store", url, "--user", "ada")
    assert (code, err) == (0, "")
    ((user, session, _, role, text),) = [line.split("\t") for line in out.splitlines()]
    assert (user, session, role, text) == ("ada", "trip", "assistant", "To Bergen.")
    both = ("search", "bergen", "-s", url, "--kind", "text", "--kind", "tool_results")
    assert len(say(*both)[1].splitlines()) == 2
    assert say(*both, "--role", "tool")[1].count("\n") == 1
    found = read(say(*both, "--json", "--limit", "1", "--around", "1"))
    (hit,) = found["hits"]
    start, end = hit["spans"][0]
    assert hit["snippet"][start:end] == "Bergen"
    assert hit["message"]["role"] == "assistant"
    assert [m["role"] for m in hit["around"]] == ["assistant", "tool", "assistant"]
    again = read(say(*both, "--json", "--cursor", found["next_cursor"]))
    assert [hit["message"]["role"] for hit in again["hits"]] == ["tool"]
    any_word = ("search", "hello nowhere", "-s", url, "--session", "old")
    assert say(*any_word) == (0, "", "no messages match\n")
    assert say(*any_word, "--match", "any", "--order", "relevance")[1].endswith("hello\n")


def test_search_refuses_what_is_no_query(say: Say, url: str) -> None:
    for wrong in (["?!"], ["a", "--kind", "all"], ["a", "--match", "some"], ["a", "--order", "x"]):
        code, out, err = say("search", *wrong, "--store", url)
        assert (code, out) == (2, "")
        assert err.startswith("tsmemory: ")


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_found_acts_on_the_terminal(
    say: Say, url: str, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    with open_store(url) as store:
        store.conversation("s\x1b[2J", user_id="eve").append(
            Message.user("needle \x1b]0;title\x07 \u202eneedle\tnext\nline")
        )
    if terminal:
        watched = Console(force_terminal=True, color_system="standard", highlight=False)
        for module in ("search", "output"):
            monkeypatch.setattr(f"tsmemory.cli.{module}.console", watched)
    _, out, _ = say("search", "needle", "--store", url, "--around", "1")
    assert "\x1b]" not in out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert ("\x1b[1;33mneedle" in out) is terminal
    assert terminal or out.count("\n") == 1
    assert terminal or out.count("\t") == 4
