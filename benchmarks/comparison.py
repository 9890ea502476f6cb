"""Every engine beside the floor and the packages people use on it: times, sizes, throughput.

    python -m benchmarks [--quick] [--json FILE] [--report FILE.md] [ENGINE …]

Contenders of an engine take turns, call by call and in an order that changes, so that what else the
machine does, and what a slow one leaves behind in caches, hits all of them; the garbage collector
is on. A history has `HISTORY` messages before it is measured. An
operation ends after `Effort.rounds` rounds, or `Effort.seconds` for all contenders together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks._measure import console
from benchmarks.contenders import ENGINES, TEXT, Contender, opened
from tsmemory import Message, open_store

__all__ = ["main"]

PACKAGES = (
    "tsmemory", "langchain-core", "langchain-community", "langchain-postgres", "llama-index-core",
    "llama-index-storage-chat-store-redis", "llama-index-storage-chat-store-tablestore",
    "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "openai-agents",
    "tablestore-for-agent-memory", "redis", "psycopg", "tablestore", "msgspec",
)  # fmt: skip


class Effort(NamedTuple):
    history: int
    rounds: int
    seconds: float
    """For one operation of one engine, all contenders together."""


FULL = Effort(1_000, 300, 6)
QUICK = Effort(100, 60, 1.5)
_MIN_ROUNDS = 5

_COLD = {
    "tsmemory, SQLite": "from tsmemory import open_store, Message\n"
    "s = open_store('sqlite:///' + path); c = s.conversation('c')\n"
    "c.append(Message.user('x')); c.window(20); s.close()",
    "langchain-community SQLChatMessageHistory": "import warnings\n"
    "warnings.simplefilter('ignore')\n"
    "from langchain_community.chat_message_histories import SQLChatMessageHistory as H\n"
    "h = H('c', connection='sqlite:///' + path); h.add_user_message('x'); h.messages",
    "OpenAI Agents SQLiteSession": "import asyncio\nfrom agents import SQLiteSession\n"
    "s = SQLiteSession('c', path)\n"
    "asyncio.run(s.add_items([{'role': 'user', 'content': 'x'}])); asyncio.run(s.get_items(20))",
    "sqlite3 alone": "import sqlite3, json\nd = sqlite3.connect(path)\n"
    "d.execute('CREATE TABLE m (s, body)'); d.execute('INSERT INTO m VALUES (?, ?)', ('c', 'x'))\n"
    "d.commit(); d.execute('SELECT * FROM m').fetchall()",
}


def measured(calls: dict[str, Callable[[], object]], effort: Effort) -> dict[str, Any]:
    """``{name: {"p50": µs, "p99": µs, "rounds": int}}``; one untimed call of each comes first."""
    times: dict[str, list[int]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    dice = random.Random(7)
    end = time.perf_counter() + effort.seconds
    for done in range(effort.rounds):
        if done >= _MIN_ROUNDS and time.perf_counter() > end:
            break
        for name, call in dice.sample(list(calls.items()), len(calls)):
            begin = time.perf_counter_ns()
            call()
            times[name].append(time.perf_counter_ns() - begin)
    return {
        name: {"p50": _at(found, 0.5), "p99": _at(found, 0.99), "rounds": len(found)}
        for name, found in times.items()
    }


def _at(times: list[int], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] / 1000


def compare(engine: str, effort: Effort) -> dict[str, Any]:
    """The operations of an engine, each with its contenders' figures."""
    with tempfile.TemporaryDirectory() as directory, opened(engine, Path(directory)) as contenders:
        for contender in contenders:
            for _ in range(effort.history // 50):
                contender.append(50)
        sizes = {c.name: _size(c.files) / effort.history for c in contenders if c.files}
        found: dict[str, Any] = {"bytes per message": sizes} if sizes else {}
        operations: dict[str, Callable[[Contender], Callable[[], object] | None]] = {
            "window of 20": lambda c: c.window,
            "append 1": lambda c: lambda: c.append(1),
            "append 4": lambda c: lambda: c.append(4),
            "list 20 sessions": lambda c: c.listing,
            "search": lambda c: c.search,
        }
        for operation, pick in operations.items():
            calls = {c.name: call for c in contenders if (call := pick(c)) is not None}
            if not calls:
                continue
            found[operation] = measured(calls, effort)
            console.print(
                f"{engine}: {operation}", {n: round(f["p50"]) for n, f in found[operation].items()}
            )
    return found


def _size(path: Path) -> int:
    """Bytes of a file with what belongs to it (``-wal``), or of a directory."""
    if path.suffix == ".db":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_size for file in files if file.is_file())


def throughput(engine: str, effort: Effort) -> dict[str, Any]:
    """Async appends per second with 1, 10 and 100 tasks, each to its own session."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for tasks in (1, 10, 100):
            found[str(tasks)] = _served(engine, Path(directory) / str(tasks), tasks, effort)
            console.print(f"{engine}: async, {tasks} tasks", found[str(tasks)])
    return found


def _served(engine: str, root: Path, tasks: int, effort: Effort) -> dict[str, Any]:
    root.mkdir()
    if engine == "redis":
        from tsmemory.testing.servers.redis import RedisServer, find_server

        kind = "valkey-server" if find_server("valkey-server") else "redis-server"
        with RedisServer(kind) as server:
            return asyncio.run(_appending(server.url, tasks, effort))
    if engine == "postgres":
        from tsmemory.testing.servers.postgres import PostgresServer

        with PostgresServer(fsync=True) as database:
            return asyncio.run(_appending(database.url, tasks, effort))
    url = {"memory": "memory:", "sqlite": f"sqlite:///{root / 'a.db'}", "jsonl": f"jsonl:///{root}"}
    return asyncio.run(_appending(url[engine], tasks, effort))


async def _appending(url: str, tasks: int, effort: Effort) -> dict[str, Any]:
    times: list[int] = []
    seconds = min(effort.seconds, 3)
    async with open_store(url) as store:
        await store.asetup()
        end = time.perf_counter() + seconds

        async def write(number: int) -> None:
            chat = store.conversation(f"s{number}")
            while time.perf_counter() < end:
                begin = time.perf_counter_ns()
                await chat.aappend(Message.user(TEXT))
                times.append(time.perf_counter_ns() - begin)

        begin = time.perf_counter()
        await asyncio.gather(*map(write, range(tasks)))
        elapsed = time.perf_counter() - begin
    return {"per second": len(times) / elapsed, "p50": _at(times, 0.5), "p99": _at(times, 0.99)}


def cold_start(effort: Effort) -> dict[str, Any]:
    """A new process that imports, opens, appends and reads: ms, less the bare interpreter's."""
    rounds = 3 if effort is QUICK else 7
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for i in range(rounds):
            for name, code in {"": "", **_COLD}.items():
                path = os.path.join(directory, f"{i}-{len(found)}-{name.partition(' ')[0]}.db")
                begin = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-c", f"path = {path!r}\n{code}"], check=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                found.setdefault(name, []).append((time.perf_counter() - begin) * 1000)
    bare = statistics.median(found.pop(""))
    return {name: statistics.median(times) - bare for name, times in found.items()}


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=", ".join(ENGINES))
    parser.add_argument("--quick", action="store_true", help="under two minutes, and less exact")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--report", type=Path, help="write a page here, and a picture beside it")
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else FULL
    loads, begin = [os.getloadavg()[0]], time.perf_counter()
    figures: dict[str, Any] = {"engines": {}, "async": {}}
    for engine in given.engines or ENGINES:
        try:
            figures["engines"][engine] = compare(engine, effort)
            if engine != "tablestore":
                figures["async"][engine] = throughput(engine, effort)
        except (ModuleNotFoundError, FileNotFoundError) as error:
            console.print(f"{engine}: left out, {error}")
        loads.append(os.getloadavg()[0])
    figures["cold start ms"] = cold_start(effort)
    figures["machine"] = {
        **machine(),
        "load": [round(load, 1) for load in (min(loads), max(loads))],
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        **effort._asdict(),
    }
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if given.report:
        report.write(figures, given.report)
    console.print(
        f"{figures['machine']['minutes']} minutes; missed: {report.missed(figures) or 'nothing'}"
    )
