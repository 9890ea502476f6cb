"""Starting writers together, and checking what they left."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tsmemory import Message

ROOT = Path(__file__).parents[2]


def start_writer(url: str, session: str, name: str, count: int) -> subprocess.Popen[str]:
    """A process of `_writer`, not yet writing."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.backends._writer", url, session, name, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def write_together(url: str, session: str, writers: int, count: int) -> None:
    """`writers` processes that begin at the same moment and append `count` messages each."""
    processes = [start_writer(url, session, str(i), count) for i in range(writers)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert len(out.split()) == count


def check_writers(messages: Sequence[Message], writers: int, count: int) -> None:
    """None lost, doubled, or out of its writer's order; times strictly increase."""
    assert len(messages) == writers * count
    times = [m.create_time for m in messages]
    assert all(a < b for a, b in itertools.pairwise(times))
    for i in range(writers):
        mine = [m.text for m in messages if m.text.split(".")[0] == str(i)]
        assert mine == [f"{i}.{j}" for j in range(count)]
