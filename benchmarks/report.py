"""The figures of `benchmarks.comparison` as a page and a picture.

python -m benchmarks.report FIGURES.json PAGE.md
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["missed", "write"]

TARGET = 1.5
"""An append of one message and a window cost at most so many times the same work by hand."""
_TARGETED = ("append 1", "window of 20")
_TITLES = {
    "memory": "In memory",
    "sqlite": "SQLite",
    "jsonl": "Files",
    "redis": "Redis (Valkey)",
    "postgres": "PostgreSQL",
    "tablestore": "Tablestore (local server)",
}
_NO_FLOOR = ("memory", "tablestore")
"""A list is no store, and on Tablestore there is no floor but the peers."""


def missed(figures: dict[str, Any]) -> list[str]:
    """The targets that these figures miss, one line each."""
    return [line for line, met in _targets(figures) if not met]


def _targets(figures: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    for engine, operations in figures["engines"].items():
        title = _TITLES[engine]
        for operation in _TARGETED:
            cases = dict(operations[operation])
            ours, floor = cases.pop("tsmemory")["p50"], next(iter(cases))
            if engine not in _NO_FLOOR:
                ratio = ours / cases.pop(floor)["p50"]
                line = f"{title}, {operation}: {ratio:.2f} × the floor (target {TARGET})"
                yield line, ratio <= TARGET
            if engine != "memory" and cases:
                fastest = min(cases, key=lambda name: cases[name]["p50"])
                ratio = ours / cases[fastest]["p50"]
                line = f"{title}, {operation}: {ratio:.2f} × the fastest peer, {fastest} (target 1)"
                yield line, ratio <= 1


def write(figures: dict[str, Any], page: Path) -> None:
    """Write the page, and beside it ``pictures/benchmarks.svg``."""
    picture = page.parent / "pictures" / "benchmarks.svg"
    picture.write_text(_picture(figures), encoding="utf-8")
    page.write_text("\n".join(_page(figures)) + "\n", encoding="utf-8")


def _page(figures: dict[str, Any]) -> Iterator[str]:
    machine = figures["machine"]
    low, high = machine["load"]
    yield "# Benchmarks\n"
    yield (
        "What an operation costs on each engine, beside the same work by hand (the floor) and the "
        "packages people use on that engine. `make bench` measures it again and writes this "
        "page; `make bench-quick` is shorter and less exact.\n"
    )
    yield (
        f"Measured on {machine['date']}: {machine['processor']}, {machine['cpus']} CPUs, "
        f"{machine['system']}, Python {machine['python']}. The load average was {low} to {high} on "
        f"{machine['cpus']} CPUs: "
        + (
            "other work ran beside it, so compare the ratios rather than the times, and read p99 "
            "with care.\n"
            if high > machine["cpus"]
            else "the machine was idle otherwise.\n"
        )
    )
    yield (
        f"The garbage collector is on. Histories hold "
        f"{machine['history']:,} messages of 292 bytes before the measurement and grow with it; "
        f"each operation is measured up to {machine['rounds']} times per contender, for about "
        f"{machine['seconds']} seconds in all; the whole took {machine['minutes']} minutes. Times "
        "are µs. Contenders take turns in an order that changes with each round.\n"
    )
    yield "![Medians by engine, on a logarithmic scale](pictures/benchmarks.svg)\n"
    yield "## Targets\n"
    yield (
        f"An append and a window of 20 cost at most {TARGET} × the floor, and no more than the "
        "fastest peer. All figures are of one run: on a busy machine, ratios a third apart "
        "may change places in the next. A contender that reads a whole history also slows whoever "
        "comes after it; the changing order spreads that, but does not remove it. The detailed "
        "benchmarks (`python -m benchmarks.sqlite`, `.redis_costs`, `.postgres`) compare with the "
        "floor alone.\n"
    )
    for line, met in _targets(figures):
        yield f"- {'met' if met else '**missed**'}: {line}"
    for engine, operations in figures["engines"].items():
        yield f"\n## {_TITLES[engine]}\n"
        yield from _engine(operations)
    yield "\n## Async\n"
    yield "Appends with `aappend`, each task to its own session.\n"
    yield "| engine | tasks | appends per second | p50 µs | p99 µs |"
    yield "|---|---:|---:|---:|---:|"
    for engine, served in figures["async"].items():
        for tasks, found in served.items():
            rate, p50, p99 = found["per second"], found["p50"], found["p99"]
            yield f"| {_TITLES[engine]} | {tasks} | {rate:,.0f} | {p50:,.0f} | {p99:,.0f} |"
    yield "\n## Cold start\n"
    yield (
        "A new process that imports the package, creates a SQLite file, appends a message and "
        "reads it, less the time of a bare interpreter.\n"
    )
    yield "| | ms |"
    yield "|---|---:|"
    for name, value in sorted(figures["cold start ms"].items(), key=lambda pair: pair[1]):
        yield f"| {name} | {value:,.0f} |"
    yield "\n## What is compared\n"
    yield (
        "Peers do less, each in its own way: SQLChatMessageHistory, RedisChatMessageHistory and "
        "the LlamaIndex stores have no message ids, times or listings, and the former two read a "
        "whole history to show its end; a langgraph saver writes the state of an agent as a whole. "
        "*By hand, same duties* keeps sessions with their counts, unique ids and times; the other "
        "floors are one statement or one write. SQLite files of ours are durable to power loss "
        "(`synchronous=FULL`), as are those of the peers by SQLite's default. LlamaIndex's "
        "SimpleChatStore is compared in memory only.\n"
    )
    yield "| package | version |"
    yield "|---|---|"
    for name, value in machine["packages"].items():
        yield f"| {name} | {value} |"


def _engine(operations: dict[str, Any]) -> Iterator[str]:
    sizes = operations.get("bytes per message", {})
    for operation, cases in operations.items():
        if operation == "bytes per message":
            continue
        yield f"| {operation} | p50 | p99 | × first |"
        yield "|---|---:|---:|---:|"
        first = next(iter(cases.values()))["p50"]
        for name, found in cases.items():
            name = f"**{name}**" if name == "tsmemory" else name
            ratio = found["p50"] / first
            yield f"| {name} | {found['p50']:,.0f} | {found['p99']:,.0f} | {ratio:,.2f} |"
        yield ""
    if sizes:
        yield "| bytes on disk per message | |"
        yield "|---|---:|"
        for name, size in sizes.items():
            yield f"| {'**tsmemory**' if name == 'tsmemory' else name} | {size:,.0f} |"


# -- the picture -----------------------------------------------------------------------------

_WIDTH, _LEFT, _ROW, _GAP = 900, 330, 18, 34
_STYLE = (
    "text{font:12px sans-serif;fill:#24292f}.t{font-weight:bold}.o{fill:#0969da}.p{fill:#8c959f}"
    ".f{fill:#57ab5a}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.p{fill:#6e7681}}"
)


def _picture(figures: dict[str, Any]) -> str:
    """Bars of the medians of append and window, one panel per engine and operation."""
    shown = [
        (engine, operation, operations[operation])
        for engine, operations in figures["engines"].items()
        for operation in _TARGETED
    ]
    parts, y = [], 10
    for engine, operation, cases in shown:
        title = f"{_TITLES[engine]}: {operation}, median µs (logarithmic)"
        parts.append(f'<text class="t" x="8" y="{y + 14}">{title}</text>')
        y += 24
        top = max(found["p50"] for found in cases.values())
        for i, (name, found) in enumerate(cases.items()):
            scale = math.log10(max(found["p50"], 1.1)) / math.log10(max(top, 10))
            length = max(2, scale * (_WIDTH - _LEFT - 90))
            kind = "o" if name == "tsmemory" else "f" if name.startswith("by hand") else "p"
            middle = y + i * _ROW
            parts.append(
                f'<text x="{_LEFT - 8}" y="{middle + 12}" text-anchor="end">{escape(name)}</text>'
                f'<rect class="{kind}" x="{_LEFT}" y="{middle + 2}" width="{length:.0f}" '
                f'height="{_ROW - 5}"/>'
                f'<text x="{_LEFT + length + 6:.0f}" y="{middle + 12}">{found["p50"]:,.0f}</text>'
            )
        y += len(cases) * _ROW + _GAP - 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="Medians by engine"><style>{_STYLE}</style>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
