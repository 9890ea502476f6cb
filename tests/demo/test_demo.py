"""The demo's parts; `tests/packaging` runs it as a new user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests._chat_api import conversations
from tsmemory.demo._model import Said, answer
from tsmemory.demo._second import main as go_on


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tsmemory.demo", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_without_the_first_half_it_does_not_know(tmp_path: Path) -> None:
    """The answers come out of the memory: without it the demo fails."""
    with pytest.raises(SystemExit, match="the memory was lost"):
        go_on(f"sqlite:///{tmp_path / 'demo.db'}", "ada", "trip")


def test_real_conversations(tmp_path: Path) -> None:
    path = tmp_path / "conversations.jsonl"
    lines = [{"id": name, "messages": raws} for name, raws in list(conversations().items())[:5]]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = demo("--conversations", str(path), "--show", "2")
    assert done.returncode == 0, done.stderr
    assert "5 conversations" in done.stdout
    assert f"5 sessions, {sum(len(line['messages']) for line in lines)} messages" in done.stdout
    assert "window(8)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--store", "nosql://me:secret@host"], "no backend for the URL's scheme 'nosql'"),
        (["--conversations", "none.jsonl"], "No such file"),
    ],
)
def test_mistakes_get_one_line(arguments: list[str], complaint: str) -> None:
    done = demo(*arguments)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_the_model_answers_from_its_context_only() -> None:
    told = [Said("user", "My dog is called Rex."), Said("assistant", "Noted.")]
    question = Said("user", "What is my dog called?")
    assert answer([*told, question]) == "Your dog is called Rex."
    assert "do not know" in answer([question])
    assert "do not know" in answer([Said("assistant", "The dog is called Max."), question])
    assert answer([]).startswith("Hello")
