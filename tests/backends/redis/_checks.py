"""What must hold of a session that several writers appended to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tsmemory import Store

ROOT = Path(__file__).resolve().parents[3]


def start_writer(url: str, prefix: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.backends.redis._writer", url, prefix, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finish(writers: Iterable[subprocess.Popen[str]]) -> list[str]:
    """What the writers had acknowledged; they must have ended well."""
    acknowledged: list[str] = []
    for writer in writers:
        output, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        acknowledged += output.split()
    return acknowledged


def check_session(store: Store, acknowledged: Iterable[str]) -> list[str]:
    """Nothing doubled, nothing out of order; returns what was acknowledged and is not there."""
    messages = list(store.conversation("s", user_id="u").iter_messages())
    times = [m.create_time for m in messages]
    assert times == sorted(set(times))
    texts = [m.text for m in messages]
    assert len(texts) == len(set(texts))
    for name in {text.split(".")[0] for text in texts}:
        numbers = [int(t.split(".")[1]) for t in texts if t.split(".")[0] == name]
        assert numbers == sorted(numbers)
    assert store.verify() == []
    return sorted(set(acknowledged) - set(texts))
