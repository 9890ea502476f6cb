"""Measuring side by side: the cases take turns, so that what else the machine does hits all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

__all__ = ["Case", "compare", "console", "show"]

console = Console(width=110, highlight=False)
Case = Callable[[], object]


def compare(
    cases: Mapping[str, Case], rounds: int, clock: Callable[[], int] = time.perf_counter_ns
) -> dict[str, float]:
    """The median time of each case, in µs, over `rounds` turns of all of them.

    Args:
        clock: in ns; `time.thread_time_ns` counts the CPU time of this thread alone.
    """
    times: dict[str, list[int]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, case in cases.items():
                begin = clock()
                case()
                times[name].append(clock() - begin)
    finally:
        gc.enable()
    return {name: statistics.median(found) / 1000 for name, found in times.items()}


def show(title: str, medians: Mapping[str, float]) -> None:
    """A table of medians; the first row is the floor that the others are ratios of."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("case")
    table.add_column("median µs", justify="right")
    table.add_column("× floor", justify="right")
    floor = next(iter(medians.values()))
    for name, median in medians.items():
        table.add_row(name, f"{median:,.1f}", f"{median / floor:.2f}")
    console.print(table)
