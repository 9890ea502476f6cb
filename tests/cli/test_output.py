"""The forms of output: lines for a pipe, JSON, JSON Lines, CSV, a pager; options and completion."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Say, read
from tsmemory import Message, Session, open_store


def lines(found: tuple[int, str, str]) -> list[list[str]]:
    """The records and fields that a command wrote."""
    assert found[0] == 0, found
    return [line.split("\t") for line in found[1].splitlines()]


def test_one_record_per_line(run: Run, url: str) -> None:
    text = "first\nsecond\t" + "word " * 500 + "END"
    with open_store(url) as store:
        chat = store.conversation("long", user_id="ada" * 40)
        chat.append(Message.user(text, message_id="m1"))
        chat.update_session(title="of\nthree lines\n" + "t" * 300)
    done = run("show", "long", "-u", "ada" * 40, "-s", url, COLUMNS="40")
    ((time, role, message_id, shown),) = [line.split("\t") for line in done.stdout.splitlines()]
    assert (time[10], time[-1], role, message_id) == ("T", "Z", "user", "m1")
    assert shown == text.replace("\n", "\\n").replace("\t", "    ")
    listed = run("sessions", "-s", url, COLUMNS="40").stdout.splitlines()
    assert listed[0].split("\t")[:3] == ["ada" * 40, "long", "1"]
    assert [line.split("\t")[1] for line in listed] == ["long", "trip", "old", "trip"]
    assert listed[0].endswith("\\n" + "t" * 300)


def test_a_window_in_lines(say: Say, url: str) -> None:
    with open_store(url) as store:
        store.conversation("trip", user_id="ada").append(Message.user("and then?"))
    found = lines(say("show", "trip", "-u", "ada", "-s", url, "--window", "1"))
    assert [(f[0], f[2], f[4]) for f in found if f[0] == "shown"] == [
        ("shown", "system", "Be kind."),
        ("shown", "user", "and then?"),
    ]
    assert ["left out: before the window", "assistant", '→ search({"to": "Bergen"})'] in [
        [f[0], f[2], f[4]] for f in found
    ]


def test_json_lines_and_csv_of_every_listing(say: Say, url: str) -> None:
    shown = ["show", "trip", "-u", "ada", "-s", url]
    for command, count in (
        (["sessions", "-s", url], 3),
        (shown, 5),
        ([*shown, "--window", "2"], 5),
        (["doctor", "-s", url], None),
    ):
        records = [json.loads(line) for line in say(*command, "--jsonl")[1].splitlines()]
        rows = list(csv.DictReader(io.StringIO(say(*command, "--csv")[1])))
        assert len(records) == len(rows)
        assert count in (None, len(rows))
        assert set(rows[0]) == set(records[0])
    assert say("verify", "-s", url, "--csv")[1] == "user_id,session_id,message_id,what\n"
    header, row = say("stats", "-s", url, "--csv")[1].splitlines()
    assert (header.partition(",")[0], row.partition(",")[0]) == ("users", "2")
    (session,) = [
        json.loads(line)
        for line in say("sessions", "-s", url, "-u", "bob", "--jsonl")[1].splitlines()
    ]
    assert Session.from_dict(session).session_id == "trip"
    messages = [json.loads(line) for line in say(*shown, "--jsonl")[1].splitlines()]
    with open_store(url) as store:
        stored = list(store.conversation("trip", user_id="ada").iter_messages())
    assert [Message.from_dict(record) for record in messages] == stored
    assert say("sessions", "-s", url, "--json", "--csv")[0] == 2


def test_options_before_the_command(say: Say, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    after = say("sessions", "-s", url, "-u", "ada", "--json")
    assert say("-s", url, "-u", "ada", "--json", "sessions") == after
    assert say("-s", "nothing:", "-u", "bob", "sessions", "-s", url, "-u", "ada", "--json") == after
    monkeypatch.setenv("TSMEMORY_URL", "nothing:")
    assert say("-s", url, "sessions", "-u", "ada", "--json") == after
    code, _, err = say("-u", "ada", "-s", url, "purge")
    assert (code, "purge has no option --user" in err) == (2, True)


def test_h_is_help(say: Say) -> None:
    for command in ([], ["show"], ["export"]):
        assert say(*command, "-h") == say(*command, "--help")
        assert say(*command, "-h")[1].startswith("Usage: tsmemory")


def test_completion(run: Run) -> None:
    done = run(_TSMEMORY_COMPLETE="complete_bash", COMP_WORDS="tsmemory sess", COMP_CWORD="1")
    assert done.stdout.split() == ["sessions"]


def test_a_long_transcript_is_paged(url: str, tmp_path: Path) -> None:
    with open_store(url) as store:
        chat = store.conversation("long")
        chat.append(*(Message.user(f"message {i}") for i in range(2_000)))
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nhead -n 4 > paged\n")  # a reader that leaves early
    pager.chmod(0o700)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tsmemory.cli", "show", "long", "--store", url],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PAGER": str(pager), "TERM": "dumb"},
    ) as process:
        _, err = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, err) == (0, b"")
    assert (tmp_path / "paged").read_text().startswith("long  user default\n2,000 messages")


def test_tail_follows(url: str) -> None:
    command = [
        sys.executable, "-m", "tsmemory.cli", "tail", "trip", "-u", "ada", "-n", "1", "-f",
        "--interval", "0.05", "--store", url,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split("\t")[3] == "To Bergen.\n"
        with open_store(url) as store:
            store.conversation("trip", user_id="ada").append(Message.user("more"))
        assert process.stdout.readline().split("\t")[3] == "more\n"
        process.terminate()
    assert process.returncode != 0


def test_tail(say: Say, url: str) -> None:
    found = lines(say("tail", "trip", "-u", "ada", "-s", url, "-n", "2"))
    assert [fields[1] for fields in found] == ["tool", "assistant"]
    assert say("tail", "nope", "-s", url)[0] == 1


def test_delete(say: Say, url: str) -> None:
    code, _, err = say("delete", "trip", "-u", "bob", "-s", url)
    assert (code, "give --yes" in err) == (2, True)
    one = ["delete", "trip", "m1", "-u", "bob", "-s", url, "--yes", "--json"]
    assert read(say(*one)) == {"sessions": 0, "messages": 1}
    assert say(*one)[0] == 1
    assert read(say("delete", "trip", "-u", "ada", "-s", url, "-y", "--json")) == {
        "sessions": 1, "messages": 5
    }  # fmt: skip
    assert say("delete", "trip", "-u", "ada", "-s", url, "-y")[0] == 1


def test_rename_fork_ttl(say: Say, url: str) -> None:
    trip = ["trip", "-u", "ada", "-s", url]
    assert read(say("rename", *trip[:1], "New", *trip[1:], "--json"))["session"]["title"] == "New"
    assert say("rename", "trip", "", "-u", "ada", "-s", url)[1] == "trip: (no title)\n"
    assert say("rename", "nope", "x", "-s", url)[0] == 1
    with open_store(url) as store:
        second = list(store.conversation("trip", user_id="ada").iter_messages())[1].message_id
    assert say("fork", "trip", "copy", "--until", second, "-u", "ada", "-s", url)[1] == (
        "copy: 2 messages\n"
    )
    assert say("ttl", *trip)[1] == "none\n"
    assert read(say("ttl", "trip", "12h", *trip[1:], "--json"))["ttl"] == 43_200
    assert say("ttl", "trip", "none", *trip[1:])[1] == "none\n"
    for wrong in ("soon", "-1", "0", "inf", "h"):
        assert say("ttl", "-u", "ada", "-s", url, "--", "trip", wrong)[0] == 2


def test_export_is_private_and_follows_no_link(say: Say, url: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    file = tmp_path / "all.jsonl"
    (tmp_path / "all.jsonl.part").symlink_to(victim)
    assert say("export", str(file), "-s", url)[0] == 0
    assert victim.read_text() == "precious"
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    file.symlink_to(victim)
    assert say("export", str(file), "-s", url, "--force")[0] == 0
    assert victim.read_text() == "precious"
    assert not file.is_symlink()


def test_token_usage(say: Say, url: str) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    with open_store(url) as store:
        store.conversation("trip", user_id="ada").append(
            Message.assistant("x", extensions={"langchain": {"usage_metadata": usage}})
        )
    found = read(say("stats", "--usage", "-s", url, "--json"))
    assert found["usage"]["total_tokens"] == 15
    assert found["usage_by_session"][0]["session_id"] == "trip"
    rows = lines(say("stats", "--usage", "-s", url))
    assert ["input_tokens", "10"] in rows
    assert ["total_tokens", "15", "ada"] in rows
    (row,) = csv.DictReader(io.StringIO(say("stats", "--usage", "-s", url, "--csv")[1]))
    assert (row["user_id"], row["session_id"], row["output_tokens"]) == ("ada", "trip", "5")
