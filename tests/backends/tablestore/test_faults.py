"""Four writer processes in one session while the service fails: none lost, doubled, misordered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tsmemory import Store
from tsmemory.testing.servers.tablestore import Fault, TablestoreProcess

from ._open import backend

_WRITER = Path(__file__).with_name("_writer.py")
_MESSAGES = 2000
_WRITERS = 4
_WRITES = ("PutRow", "BatchWriteRow", "GetRow", "GetRange")
_HANGS = (3, 20, 37)  # which requests hang; each writer alone sends more
_FAULTS: dict[str, list[Fault]] = {
    "none": [],
    "throttle": [Fault("throttle", _WRITES, probability=0.1, times=60, seed=1)],
    "5xx": [Fault("error", _WRITES, probability=0.1, times=60, seed=1)],
    "5xx after it took effect": [
        Fault("error", _WRITES, probability=0.1, times=60, seed=1, applied=True)
    ],
    "dropped before": [Fault("drop_before", _WRITES, probability=0.1, times=60, seed=1)],
    "dropped after": [Fault("drop_after", _WRITES, probability=0.1, times=60, seed=1)],
    "hang": [Fault("hang", _WRITES, nth=nth, seconds=30) for nth in _HANGS],
    "hang after it took effect": [
        Fault("hang", _WRITES, nth=nth, seconds=30, applied=True) for nth in _HANGS
    ],
    "partial": [Fault("partial", ("BatchWriteRow",), probability=0.2, times=60, seed=1, rows=2)],
}


def start(server: TablestoreProcess, **task: Any) -> subprocess.Popen[str]:
    task["server"] = {
        "endpoint": server.endpoint,
        "instance_name": server.instance_name,
        "access_key_id": server.access_key_id,
        "access_key_secret": server.access_key_secret,
    }
    task.setdefault("options", {"timeout": 2.0, "retry_for": 10.0})
    return subprocess.Popen(
        [sys.executable, str(_WRITER), json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def turn(writer: subprocess.Popen[str]) -> list[list[Any]]:
    """Let a writer with ``turns`` append one batch; what it was told is stored."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write("\n")
    writer.stdin.flush()
    rows: list[list[Any]] = json.loads(writer.stdout.readline())
    return rows


def check(
    server: TablestoreProcess, told: dict[str, list[list[Any]]], size: int, layout: Any
) -> None:
    """What is stored is what the writers were told, each once, each writer's in its order."""
    with Store(backend(server, layout=layout)) as store:
        chat = store.conversation("shared", user_id="user")
        messages = list(chat.iter_messages())
        session = chat.session()
        assert store.verify() == []
    by_id = {m.message_id: m.create_time for m in messages}
    assert len(by_id) == len(messages)
    assert session is not None
    assert session.message_count == len(messages) == sum(map(len, told.values()))
    for name, rows in told.items():
        assert [by_id[text] for text, _ in rows] == [time for _, time in rows], name
        mine = [m.text for m in messages if m.text.split(".")[0] == name]
        assert mine == [text for text, _ in rows]
        times = [time for _, time in rows]
        for i in range(0, len(times), size):
            assert times[i : i + size] == list(range(times[i], times[i] + size)), "split batch"


@pytest.mark.parametrize(
    ("kind", "layout"),
    [*((kind, "isolated") for kind in _FAULTS), ("dropped after", "agent-memory")],
)
def test_writers_under_faults(server: TablestoreProcess, kind: str, layout: Any) -> None:
    with Store(backend(server, layout=layout)) as store:
        store.setup()
    size = 25
    batches = _MESSAGES // _WRITERS // size
    writers = {
        name: start(
            server,
            name=name,
            session="shared",
            batches=batches,
            size=size,
            turns=True,
            options={"timeout": 2.0, "retry_for": 60.0, "layout": layout},
        )
        for name in "abcd"
    }
    # Every writer has written and most of its work is before it when the faults begin.
    told = {name: turn(writer) for name, writer in writers.items()}
    for fault in _FAULTS[kind]:
        server.inject(fault)
    for writer in writers.values():
        assert writer.stdin is not None
        writer.stdin.write("\n" * (batches - 1))
        writer.stdin.flush()
    for name, writer in writers.items():
        out, err = writer.communicate(timeout=240)
        assert writer.returncode == 0, err
        *lines, last = [json.loads(line) for line in out.splitlines()]
        told[name] += [row for line in lines for row in line]
        assert last["errors"] == 0, err  # the engine's own retries were enough
    for fault in server.faults():
        assert fault["struck"] > 0
    server.clear_faults()
    check(server, told, size, layout)


def test_skewed_clocks_in_turn(server: TablestoreProcess) -> None:
    with Store(backend(server)) as store:
        store.setup()
    skews = {"a": -5_000_000, "b": 5_000_000, "c": -1_000_000, "d": 0}
    writers = {
        name: start(
            server, name=name, session="shared", batches=15, size=2, skew_us=skew, turns=True
        )
        for name, skew in skews.items()
    }
    expected = []
    for i in range(15):
        for name, writer in writers.items():
            turn(writer)
            expected += [f"{name}.{i}.0", f"{name}.{i}.1"]
    for writer in writers.values():
        writer.communicate(timeout=30)
    with Store(backend(server)) as store:
        messages = list(store.conversation("shared", user_id="user").iter_messages())
    assert [m.text for m in messages] == expected
    times = [m.create_time for m in messages]
    assert times == sorted(set(times))
