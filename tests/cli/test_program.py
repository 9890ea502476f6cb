"""The program as a person or a script starts it: output, exit codes, secrets, interrupts."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Say
from tsmemory import Message, open_store


def test_help_names_every_command(run: Run, say: Say) -> None:
    done = run()
    assert done.returncode == 2
    for name in (
        "demo", "sessions", "show", "stats", "verify", "export", "import", "copy", "erase-user",
        "compact", "local-tablestore", "doctor", "setup", "purge",
    ):  # fmt: skip
        assert f"  {name} " in done.stdout
    assert say("--help") == (0, done.stdout, "")
    code, out, _ = say("--version")
    assert (code, out.startswith("tsmemory ")) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "No such command 'nope'"),
        (["sessions"], "no store given: pass --store URL or set TSMEMORY_URL"),
        (["sessions", "--store", "ftp://x"], "no backend for the URL's scheme 'ftp'"),
        (["sessions", "--store", "chat.db"], "has no scheme; a file is sqlite:///chat.db"),
        (["sessions", "--store", "sqlite+aiosqlite:///x.db"], "write sqlite://"),
        (["sessions", "--store", "tablestore://x"], "write tablestore+https://"),
        (["sessions", "--store", "sqlite:///x.db?colour=red"], "no option 'colour'"),
        (["show", "--store", "memory:"], "Missing argument"),
        (["sessions", "--store", "memory:", "--limit", "0"], "--limit"),
        (["sessions", "--store", "memory:", "--order", "up"], "order"),
        (["sessions", "--store", "memory:", "--cursor", "?"], "cursor"),
        (["erase-user", "ada", "--store", "memory:"], "give --yes"),
        (["show", "x", "--store", "memory:", "--window", "-1"], "window"),
    ],
)
def test_bad_input_is_one_line(say: Say, arguments: list[str], says: str) -> None:
    code, out, err = say(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("tsmemory: ")
    assert err.count("\n") == 1


def test_bad_input_to_the_program(run: Run) -> None:
    done = run("nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tsmemory: No such command 'nope'")
    assert done.stderr.count("\n") == 1


def test_the_store_from_the_environment(run: Run, url: str) -> None:
    found = json.loads(run("sessions", "--json", TSMEMORY_URL=url).stdout)
    assert [(s["user_id"], s["session_id"]) for s in found["sessions"]] == [
        ("bob", "trip"),
        ("ada", "old"),
        ("ada", "trip"),
    ]
    assert found["next_cursor"] is None


def test_secrets_stay_off_the_screen(run: Run) -> None:
    hidden = "hunter2-hunter2"
    url = f"sqlite://user:{hidden}@host/x.db?token={hidden}"
    for done in (
        run("doctor", f"--store={url}"),
        run("sessions", TSMEMORY_URL=f"nothing:{hidden}@x"),
    ):
        assert done.returncode in (1, 2)
        assert hidden not in done.stdout + done.stderr


def test_a_terminal_in_ascii(run: Run, url: str) -> None:
    with open_store(url) as store:
        store.conversation("trip", user_id="ada").append(Message.user("日本語 😀"))
    done = run("show", "trip", "-u", "ada", "-s", url, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"\u65e5" in done.stdout


def test_a_reader_that_goes_away(url: str) -> None:
    with open_store(url) as store:
        chat = store.conversation("long")
        chat.append(*(Message.user(f"{i} " + "x" * 500) for i in range(500)))
    command = [sys.executable, "-m", "tsmemory.cli", "show", "long", "--store", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_erasing_asks_a_person(url: str) -> None:
    command = [sys.executable, "-m", "tsmemory.cli", "erase-user", "ada", "--store", url]
    for answer, code, left in (("n", 1, 2), ("y", 0, 0)):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            os.write(ours, f"{answer}\n".encode())
            out, err = process.communicate(timeout=120)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == code
        assert "ada has 2 sessions with 6 messages" in err
        assert ("erased 2 sessions, 6 messages" in out) == (code == 0)
        with open_store(url) as store:
            assert len(store.list_sessions(user_id="ada")) == left
            assert len(store.list_sessions(user_id="bob")) == 1


def test_local_tablestore(tmp_path: Path) -> None:
    pytest.importorskip("tablestore", reason="the official SDK is not installed")
    command = [sys.executable, "-m", "tsmemory.cli", "local-tablestore", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    assert told["endpoint"].startswith("http://127.0.0.1:")


def test_an_interrupt_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins\n"
        "from tsmemory.backends import memory\n"
        "def slow(self):\n"
        "    import time\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "memory.MemoryBackend.stats = slow\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "tsmemory.cli", "stats", "--store", "memory:"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.strip() == (
        "tsmemory: interrupted; what was written stays, and running it again goes on"
    )


def test_without_its_libraries(run: Run, tmp_path: Path) -> None:
    for missing in ("typer", "rich"):
        hidden = tmp_path / missing
        hidden.mkdir()
        (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
        done = run("sessions", PYTHONPATH=str(hidden))
        assert done.returncode == 1
        assert done.stderr == (
            f'tsmemory: the command needs {missing}; pip install "tsmemory[cli]"\n'
        )
