"""SQLite: ours beside the same work by hand, in the same run, at the same durability.

Two floors. **A** is what somebody writes who needs just this: one table, one index, msgspec, one
connection; it checks nothing, counts nothing and finds no repeated message. **B** keeps the duties
of the package: a session with its count and its activity, message ids that are unique, windows
that open at a user message and keep instructions; with the standard library's `json`.

Cases take turns, with the garbage collector on. Wall-clock figures of a shared machine say little:
the ratios of CPU time of the calling thread, and the counts, are what to compare.

``TSMEMORY_BENCH_LARGE=1`` adds histories and listings of 1,000,000.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from benchmarks._measure import console
from tsmemory import Message, Store, open_store

__all__ = ["main"]

TEXT = "The quick brown fox jumps over the lazy dog, and says so at some length. " * 8
"""584 bytes: an encoded message of about 0.64 kB with its keys."""
LARGE = bool(os.environ.get("TSMEMORY_BENCH_LARGE"))
Case = Callable[[], object]
_encode = msgspec.json.Encoder().encode
_PAGE = 4096 + 24  # a page in a WAL, with its frame header: https://sqlite.org/fileformat.html


def _connect(path: Path, durability: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {durability}")
    return db


class FloorA:
    """A chat history on `sqlite3`, as one writes it in an afternoon."""

    def __init__(self, path: Path, durability: str) -> None:
        self.db = _connect(path, durability)
        self.db.execute("CREATE TABLE m (pk INTEGER PRIMARY KEY, s TEXT, t INTEGER, body BLOB)")
        self.db.execute("CREATE INDEX i ON m (s, t)")

    def append(self, session: str, *bodies: dict[str, Any]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(
            "INSERT INTO m (s, t, body) VALUES (?, ?, ?)",
            [(session, time.time_ns() // 1000, _encode(body)) for body in bodies],
        )
        self.db.execute("COMMIT")

    def window(self, session: str, last: int) -> list[Any]:
        rows = self.db.execute(
            "SELECT body FROM m WHERE s = ? ORDER BY t DESC LIMIT ?", (session, last)
        ).fetchall()
        return [msgspec.json.decode(body) for (body,) in reversed(rows)]


class FloorB:
    """The same with the duties of the package."""

    def __init__(self, path: Path, durability: str) -> None:
        self.db = _connect(path, durability)
        self.db.executescript(
            "CREATE TABLE s (pk INTEGER PRIMARY KEY, id TEXT UNIQUE, t INTEGER, n INTEGER);"
            "CREATE INDEX s_t ON s (t);"
            "CREATE TABLE m (pk INTEGER PRIMARY KEY, s INTEGER, t INTEGER, id TEXT, role TEXT, "
            "body BLOB);"
            "CREATE INDEX m_t ON m (s, t, id); CREATE UNIQUE INDEX m_id ON m (s, id);"
            "CREATE INDEX m_role ON m (s, t) WHERE role = 'system';"
        )

    def append(self, session: str, *bodies: dict[str, Any]) -> None:
        now = time.time_ns() // 1000
        self.db.execute("BEGIN IMMEDIATE")
        row = self.db.execute("SELECT pk, t, n FROM s WHERE id = ?", (session,)).fetchone()
        if row is None:
            self.db.execute("INSERT INTO s (id, t, n) VALUES (?, 0, 0)", (session,))
            row = self.db.execute("SELECT pk, t, n FROM s WHERE id = ?", (session,)).fetchone()
        pk, last, count = row
        rows = []
        for body in bodies:
            last = max(now, last + 1)
            rows.append((pk, last, str(uuid.uuid4()), body["role"], json.dumps(body)))
        added = self.db.executemany(
            "INSERT INTO m (s, t, id, role, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            rows,
        ).rowcount
        self.db.execute("UPDATE s SET t = ?, n = ? WHERE pk = ?", (last, count + added, pk))
        self.db.execute("COMMIT")

    def window(self, session: str, last: int) -> list[Any]:
        rows = self.db.execute(
            "SELECT t, id, body FROM m WHERE s = (SELECT pk FROM s WHERE id = ?) "
            "ORDER BY t DESC, id DESC LIMIT ?",
            (session, last + 8),
        ).fetchall()
        shown: list[dict[str, Any]] = []
        for created, message_id, body in rows:
            message = json.loads(body)
            message.update(id=message_id, created=created)
            shown.append(message)
            if len(shown) >= last and message["role"] == "user":
                break
        rules = self.db.execute(
            "SELECT body FROM m WHERE s = (SELECT pk FROM s WHERE id = ?) AND role = 'system' "
            "AND t < ?",
            (session, shown[-1]["created"]),
        ).fetchall()
        return [json.loads(body) for (body,) in rules] + shown[::-1]


# -- measuring -------------------------------------------------------------------------------


def _measure(title: str, cases: Mapping[str, Case], rounds: int) -> None:
    """A table: wall clock p50 and p99, CPU time p50, and the ratios of p50 to both floors."""
    wall: dict[str, list[int]] = {name: [] for name in cases}
    cpu: dict[str, list[int]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    for _ in range(rounds):
        for name, case in cases.items():
            wall_begin, cpu_begin = time.perf_counter_ns(), time.thread_time_ns()
            case()
            cpu[name].append(time.thread_time_ns() - cpu_begin)
            wall[name].append(time.perf_counter_ns() - wall_begin)
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = ("p50 µs", "p99 µs", "CPU p50 µs", "× A", "× B", "CPU × A", "CPU × B", "p99 × B")
    table.add_column("case")
    for column in columns:
        table.add_column(column, justify="right")
    (floor_a, floor_b) = list(cases)[:2]
    for name in cases:
        p50, p99, used = _at(wall[name], 0.5), _at(wall[name], 0.99), _at(cpu[name], 0.5)
        ratios = (
            p50 / _at(wall[floor_a], 0.5),
            p50 / _at(wall[floor_b], 0.5),
            used / _at(cpu[floor_a], 0.5),
            used / _at(cpu[floor_b], 0.5),
            p99 / _at(wall[floor_b], 0.99),
        )
        figures = [f"{value / 1000:,.1f}" for value in (p50, p99, used)]
        table.add_row(name, *figures, *(f"{ratio:.2f}" for ratio in ratios))
    console.print(table)


def _at(times: list[int], share: float) -> float:
    ordered = sorted(times)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))])


def _roles(count: int, start: int = 0) -> list[str]:
    return [("user", "assistant")[i % 2] for i in range(start, start + count)]


def _fill(stores: tuple[Store, ...], floors: tuple[FloorA, FloorB], size: int) -> None:
    for start in range(0, size, 5000):
        roles = _roles(min(5000, size - start), start)
        for store in stores:
            store.conversation(str(size)).append(*(Message(role, TEXT) for role in roles))
        for floor in floors:
            floor.append(str(size), *({"role": role, "content": TEXT} for role in roles))


def _appends(
    stores: tuple[Store, ...], floors: tuple[FloorA, FloorB], session: str, batch: int
) -> dict[str, Case]:
    """Of `stores` the second has no index for searches, as the floors have none."""
    chat, unindexed = (store.conversation(session) for store in stores)
    bodies = [{"role": role, "content": TEXT} for role in _roles(batch)]
    return {
        "A, by hand": lambda: floors[0].append(session, *bodies),
        "B, by hand": lambda: floors[1].append(session, *bodies),
        "tsmemory": lambda: chat.append(*(Message(role, TEXT) for role in _roles(batch))),
        "tsmemory, search=false": lambda: unindexed.append(
            *(Message(role, TEXT) for role in _roles(batch))
        ),
    }


def _windows(store: Store, floors: tuple[FloorA, FloorB], session: str) -> dict[str, Case]:
    chat = store.conversation(session)
    return {
        "A, by hand": lambda: floors[0].window(session, 20),
        "B, by hand": lambda: floors[1].window(session, 20),
        "tsmemory": lambda: chat.window(20),
    }


def _pages(append: Case, path: Path) -> float:
    """Pages that an append adds to the WAL."""
    checkpointer = sqlite3.connect(path, isolation_level=None)
    checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    count = 130  # under the 1,000 pages of an automatic checkpoint
    for _ in range(count):
        append()
    size = path.with_name(path.name + "-wal").stat().st_size - 32
    checkpointer.close()
    return size / _PAGE / count


def _statements(store: Store, work: Case) -> int:
    (db,) = store.backend.connections.idle  # type: ignore[attr-defined]  # the SQLite backend's
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    work()
    db.set_trace_callback(None)
    return len(statements)


# -- asyncio ---------------------------------------------------------------------------------


async def _together(path: Path, tasks: int, durability: str) -> str:
    """Tasks that append to sessions of their own, and windows beside them."""
    async with open_store(f"sqlite:///{path}?durability={durability}") as store:
        watched = store.conversation("watched")
        await watched.aappend(*(Message(role, TEXT) for role in _roles(100)))

        async def windows(count: int) -> list[int]:
            times = []
            for _ in range(count):
                begin = time.perf_counter_ns()
                await watched.awindow(20)
                times.append(time.perf_counter_ns() - begin)
                await asyncio.sleep(0.002)
            return times

        idle = await windows(200)
        done, stopped = 0, False

        async def write(number: int) -> None:
            nonlocal done
            chat = store.conversation(f"s{number}")
            while not stopped:
                await chat.aappend(Message.user(TEXT))
                done += 1

        writers = [asyncio.create_task(write(i)) for i in range(tasks)]
        await asyncio.sleep(0.3)
        before, begin = done, time.perf_counter()
        await asyncio.sleep(2)
        rate = (done - before) / (time.perf_counter() - begin)
        busy = await windows(100)
        stopped = True
        await asyncio.gather(*writers)
    return (
        f"{tasks} tasks appending, {durability}: {rate:,.0f} appends/s; awindow(20) p50 "
        f"{_at(idle, 0.5) / 1000:,.0f} µs idle, {_at(busy, 0.5) / 1000:,.0f} µs meanwhile "
        f"(× {_at(busy, 0.5) / _at(idle, 0.5):.1f}), p99 {_at(busy, 0.99) / 1000:,.0f} µs"
    )


def _awaited(store: Store, floors: tuple[FloorA, FloorB], session: str, rounds: int) -> None:
    loop = asyncio.new_event_loop()
    chat = store.conversation(session)
    _measure(
        "window(20), awaited (CPU: of the loop's thread alone)",
        {
            "A, by hand, not awaited": lambda: floors[0].window(session, 20),
            "B, by hand, not awaited": lambda: floors[1].window(session, 20),
            "tsmemory awindow": lambda: loop.run_until_complete(chat.awindow(20)),
        },
        rounds,
    )
    loop.close()


# -- sessions --------------------------------------------------------------------------------


def _listings(path: Path, sizes: tuple[int, ...]) -> None:
    """A page of 20 sessions beside a read of 20 rows by the same index."""
    for size in sizes:
        file = path / f"sessions{size}.db"
        with open_store(f"sqlite:///{file}?durability=normal") as store:
            store.setup()
            db = sqlite3.connect(file)
            with db:
                db.executemany(
                    "INSERT INTO sessions (user_id, session_id, create_time, update_time, "
                    "listed_time, version, message_count, last_time, body) "
                    "VALUES ('u', ?, ?, ?, ?, 1, 0, 0, x'7b7d')",
                    ((f"s{i}", i * 10**7, i * 10**7, i * 10**7) for i in range(size)),
                )
            read = "SELECT * FROM sessions WHERE user_id = 'u' ORDER BY listed_time DESC LIMIT 20"
            cases: dict[str, Case] = {
                "the index, by hand": lambda db=db, read=read: db.execute(read).fetchall(),
                "the same again": lambda db=db, read=read: db.execute(read).fetchall(),
                "list_sessions(user_id=…, limit=20)": lambda s=store: s.list_sessions(
                    user_id="u", limit=20
                ),
                "list_sessions(limit=20), all users": lambda s=store: s.list_sessions(limit=20),
            }
            _measure(f"20 of {size:,} sessions", cases, 200)
            db.close()


def main(rounds: int = 400) -> None:
    """Print the tables."""
    console.print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
        f"messages of {len(TEXT)} bytes\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        for durability in ("normal", "full"):
            root = Path(directory) / durability
            root.mkdir()
            floors = (FloorA(root / "a.db", durability), FloorB(root / "b.db", durability))
            url = f"sqlite:///{root / 'ours.db'}?durability={durability}"
            plain = f"sqlite:///{root / 'plain.db'}?durability={durability}&search=false"
            with open_store(url) as store, open_store(plain) as unindexed:
                stores = (store, unindexed)
                sizes = (100, 100_000, 1_000_000) if LARGE else (100, 100_000)
                for size in sizes if durability == "normal" else sizes[:1]:
                    _fill(stores, floors, size)
                    session, chat = str(size), store.conversation(str(size))
                    for batch in (1, 4):
                        title = f"append of {batch}, history of {size:,}, durability {durability}"
                        _measure(title, _appends(stores, floors, session, batch), rounds)
                    windows = _windows(store, floors, session)
                    _measure(f"window(20), history of {size:,}", windows, rounds)
                    append = _statements(store, lambda c=chat: c.append(Message.user("x")))
                    window = _statements(store, lambda c=chat: c.window(20))
                    console.print(f"statements: append {append}, window(20) {window}")
                    pages = [
                        _pages(case, root / name)
                        for case, name in zip(
                            _appends(stores, floors, session, 1).values(),
                            ("a.db", "b.db", "ours.db", "plain.db"),
                            strict=True,
                        )
                    ]
                    console.print(
                        "WAL pages per append of 1: A {:.2f}, B {:.2f}, tsmemory {:.2f}, "
                        "without index {:.2f}\n".format(*pages)
                    )
                if durability == "normal":
                    _awaited(store, floors, "100", rounds)
            for floor in floors:
                floor.db.close()
            for tasks in (10, 100):
                line = asyncio.run(_together(root / f"tasks{tasks}.db", tasks, durability))
                console.print(line)
        _listings(Path(directory), (10_000, 1_000_000) if LARGE else (10_000,))


if __name__ == "__main__":
    main()
