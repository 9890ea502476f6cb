"""A store to look at, and ways to run the command on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsmemory import Message, ToolCall, open_store
from tsmemory.cli.run import run as run_command

Run = Callable[..., subprocess.CompletedProcess[str]]
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A SQLite store with three sessions of two users."""
    found = f"sqlite:///{tmp_path / 'chat.db'}"
    with open_store(found) as store:
        chat = store.conversation("trip", user_id="ada")
        call = ToolCall("c1", "search", {"to": "Bergen"})
        chat.append(
            Message.system("Be kind."),
            Message.user("Where do I go?"),
            Message.assistant("", tool_calls=[call]),
            Message.tool("Bergen, in June", tool_call_id="c1"),
            Message.assistant("To Bergen.", metadata={"raw": b"\x00\xff"}),
        )
        chat.update_session(title="A trip", summary="Ada travels.")
        store.conversation("old", user_id="ada").append(Message.user("hello"))
        store.conversation("trip", user_id="bob").append(Message.user("a", message_id="m1"))
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the program in an empty directory, with nobody at its terminal."""

    def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TSMEMORY_")}
        options: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True}
        return subprocess.run(
            [sys.executable, "-m", "tsmemory.cli", *arguments],
            env={**kept, "COLUMNS": "100", **environment},
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
            **options,
        )

    return started


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("TSMEMORY_URL", raising=False)

    def said(*arguments: str) -> tuple[int, str, str]:
        code = run_command(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return said


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output in the form that a person's terminal gets, without its colours."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")


def read(found: tuple[int, str, str], code: int = 0) -> Any:
    """The JSON that a command wrote."""
    assert found[0] == code, found
    return json.loads(found[1])
