"""Starting writers together, and checking what they left."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tsmemory import Message

ROOT = Path(__file__).parents[2]


def start_writers(url: str, session: str, count: int, *names: str) -> subprocess.Popen[str]:
    """A process of `_writer` for each name, not yet writing; ends when all of them have."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.backends._writer", url, session, str(count), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def write_together(url: str, session: str, writers: int, count: int) -> None:
    """`writers` processes that begin at the same moment and append `count` messages each."""
    names = [str(i) for i in range(writers)]
    with start_writers(url, session, count, *names) as process:
        out, err = process.communicate("go\n", timeout=240)
    assert process.returncode == 0, err
    assert sorted(out.split()) == sorted(f"{name}.{i}" for name in names for i in range(count))


def check_writers(messages: Sequence[Message], writers: int, count: int) -> None:
    """None lost, doubled, or out of its writer's order; times strictly increase."""
    assert len(messages) == writers * count
    times = [m.create_time for m in messages]
    assert all(a < b for a, b in itertools.pairwise(times))
    for i in range(writers):
        mine = [m.text for m in messages if m.text.split(".")[0] == str(i)]
        assert mine == [f"{i}.{j}" for j in range(count)]
