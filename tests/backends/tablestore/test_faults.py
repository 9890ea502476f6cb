"""Four writer processes in one session while the service fails: none lost, doubled, misordered."""

from __future__ import annotations

from typing import Any

import pytest

from tests._soak import SOAK
from tsmemory import Store
from tsmemory.testing.servers.tablestore import Fault, TablestoreProcess

from ._open import Writer, backend

_MESSAGES = 2000 if SOAK else 1000
_TIMEOUT = 0.5  # seconds; a hang costs one
_WRITES = ("PutRow", "BatchWriteRow", "GetRow", "GetRange")
_HANGS = (3, 20, 37)  # which requests hang
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
def test_writers_under_faults(
    server: TablestoreProcess, writers: dict[str, Writer], kind: str, layout: Any
) -> None:
    with Store(backend(server, layout=layout)) as store:
        store.setup()
    size = 25
    batches = _MESSAGES // len(writers) // size
    options = {"timeout": _TIMEOUT, "retry_for": 60.0, "layout": layout}
    for writer in writers.values():
        writer.start(server, batches=batches, size=size, turns=True, options=options)
        writer.go()
    # Every writer has written and most of its work is before it when the faults begin.
    told = {name: writer.read() for name, writer in writers.items()}
    for fault in _FAULTS[kind]:
        server.inject(fault)
    for writer in writers.values():
        writer.go(batches - 1)
    for name, writer in writers.items():
        rest, errors = writer.finish()
        assert errors == []  # the engine's own retries were enough
        told[name] += rest
    for fault in server.faults():
        assert fault["struck"] > 0
    server.clear_faults()
    check(server, told, size, layout)


def test_skewed_clocks_in_turn(server: TablestoreProcess, writers: dict[str, Writer]) -> None:
    with Store(backend(server)) as store:
        store.setup()
    skews = {"a": -5_000_000, "b": 5_000_000, "c": -1_000_000, "d": 0}
    for name, writer in writers.items():
        writer.start(server, batches=15, size=2, skew_us=skews[name], turns=True)
    expected = []
    for i in range(15):
        for name, writer in writers.items():
            writer.go()
            writer.read()
            expected += [f"{name}.{i}.0", f"{name}.{i}.1"]
    for writer in writers.values():
        assert writer.finish() == ([], [])
    with Store(backend(server)) as store:
        messages = list(store.conversation("shared", user_id="user").iter_messages())
    assert [m.text for m in messages] == expected
    times = [m.create_time for m in messages]
    assert times == sorted(set(times))
