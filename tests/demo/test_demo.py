"""The demo, run as a new user runs it: in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests._chat_api import conversations
from tsmemory import Message, open_store
from tsmemory.demo._model import Said, answer


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tsmemory.demo", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_the_second_process_knows_what_the_first_was_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'demo.db'}"
    with open_store(url) as store:
        store.conversation("other", user_id="ada").append(Message.user("not the demo's"))
    done = demo("--store", url)
    assert done.returncode == 0, done.stderr
    second = done.stdout.split("That process has ended")[1]
    assert "allergic to peanuts" in second
    assert "in June" in second
    assert "nothing that I was shown says so" in second
    assert "left out" in second
    with open_store(url) as store:
        roles = [m.role for m in store.conversation("trip-to-bergen", user_id="ada").window(None)]
        assert roles == ["system", *["user", "assistant"] * 7]
        assert store.conversation("other", user_id="ada").count() == 1


def test_without_the_first_half_it_does_not_know(tmp_path: Path) -> None:
    """The answers come out of the memory: without it the demo fails."""
    url = f"sqlite:///{tmp_path / 'demo.db'}"
    done = subprocess.run(
        [sys.executable, "-m", "tsmemory.demo._second", url, "ada", "trip"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "the memory was lost" in done.stderr


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
