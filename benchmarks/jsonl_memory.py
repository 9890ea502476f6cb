"""JSONL and memory: ours beside the same work by hand, and listings at growing sizes.

The floor of an append is a file that stays open, one JSON line and one write (and one fdatasync):
it takes no lock, gives no times or ids, and finds no repeated message. "With the duties" takes a
lock that other processes respect, opens the file by its name, and checks a set of ids.
"""

from __future__ import annotations

import fcntl
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from benchmarks._measure import Case, compare, console, show
from tsmemory import Message, Store, open_store

__all__ = ["main"]

TEXT = "The quick brown fox jumps over the lazy dog, and says so at some length. " * 3
_ROLES = ("user", "assistant")


class ByHand:
    """A transcript in a file, as one writes it in ten minutes."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.path = path
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115  # open as long as the benchmark
        self.sync = sync
        self.lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
        self.ids: set[str] = set()

    def append(self, messages: Iterable[dict[str, object]]) -> None:
        self.file.write(b"".join(msgspec.json.encode(m) + b"\n" for m in messages))
        if self.sync:
            os.fdatasync(self.file.fileno())

    def append_dutifully(self, messages: Iterable[dict[str, object]]) -> None:
        lines = []
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            for message in messages:
                mid = os.urandom(16).hex()
                if mid not in self.ids:
                    self.ids.add(mid)
                    now = time.time_ns() // 1000
                    record = {"create_time": now, "message_id": mid, **message}
                    lines.append(msgspec.json.encode(record))
            with open(self.path, "ab", buffering=0) as file:
                file.write(b"\n".join(lines) + b"\n")
                if self.sync:
                    os.fdatasync(file.fileno())
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)


def _appends(root: Path, durability: str, rounds: int) -> None:
    hand = ByHand(root / "hand.jsonl", sync=durability == "full")
    with open_store(f"jsonl:///{root}/chats?durability={durability}") as store:
        chat = store.conversation("s")
        for batch in (1, 4):
            roles = [_ROLES[i % 2] for i in range(batch)]
            cases: dict[str, Case] = {
                "by hand": lambda r=roles: hand.append({"role": x, "content": TEXT} for x in r),
                "by hand, with the duties": lambda r=roles: hand.append_dutifully(
                    {"role": x, "content": TEXT} for x in r
                ),
                "tsmemory": lambda r=roles: chat.append(*(Message(x, TEXT) for x in r)),
            }
            show(f"JSONL: append of {batch}, durability {durability}", compare(cases, rounds))


def _windows(root: Path, rounds: int) -> None:
    with open_store(f"jsonl:///{root}/windows?durability=normal") as store:
        medians = {}
        for size in (100, 100_000):
            chat = store.conversation(str(size))
            for start in range(0, size, 10_000):
                count = min(10_000, size - start)
                chat.append(*(Message(_ROLES[i % 2], TEXT) for i in range(count)))
            case: dict[str, Case] = {"warm": lambda c=chat: c.window(20)}
            medians[f"window(20) of {size:,}"] = compare(case, rounds)["warm"]
        show("JSONL: windows", medians)


def _fill(store: Store, count: int) -> None:
    for i in range(count):
        store.conversation(f"session-{i}", user_id="u").append(Message.user(TEXT))


def _once(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e6


def _listings(url: str, count: int, rounds: int) -> None:
    store = open_store(url)
    _fill(store, count)
    medians: dict[str, float] = {}
    if not url.startswith("memory"):
        with open_store(url) as fresh:
            medians["20 sessions, first of a process"] = _once(
                lambda: fresh.list_sessions(user_id="u", limit=20)
            )
    page: dict[str, Case] = {
        "u": lambda: store.list_sessions(user_id="u", limit=20),
        "all": lambda: store.list_sessions(limit=20),
    }
    found = compare(page, rounds)
    medians["20 sessions of a user"] = found["u"]
    medians["20 sessions of all"] = found["all"]
    medians["iterate all, per session"] = _once(lambda: list(store.iter_sessions())) / count
    show(f"{url.partition(':')[0]}: {count:,} sessions", medians)
    store.close()


def main(rounds: int = 400) -> None:
    """Print the tables."""
    console.print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as directory:
        for durability in ("normal", "full"):
            root = Path(directory) / durability
            root.mkdir()
            _appends(root, durability, rounds)
        _windows(Path(directory), rounds)
        for count in (1_000, 10_000):
            _listings(f"jsonl:///{directory}/{count}?durability=normal", count, rounds // 10)
    for count in (1_000, 10_000, 100_000):
        _listings("memory:", count, rounds)


if __name__ == "__main__":
    main()
