"""One contender in a process of its own.

    python -m benchmarks.worker FD ENGINE NAME ROOT URL

The process opens the contender (none where ENGINE is ``""``: the bare interpreter) and serves the
requests of `benchmarks.process.Process` that come over the connection FD, one reply each. What the
packages print is discarded by the parent.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["main"]

PEERS = Path(sys.prefix) / "bench"
"""Packages that are installed for the benchmarks alone (`make bench`)."""
_SAMPLES = 4_000  # times that one reply has at most


def resident() -> int:
    """Bytes of memory that this process holds; 0 where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()


class Worker:
    """A contender, and what can be asked of it. Every reply is of plain values."""

    def __init__(self, contender: Any) -> None:
        self.contender = contender

    def offers(self) -> list[str]:
        """Which of the optional parts there are."""
        names = ("listing", "search", "hold", "size", "appender")
        return [name for name in names if getattr(self.contender, name, None) is not None]

    def fill(self, messages: int) -> float | None:
        """Write the history and the other sessions: bytes stored per message of the history."""
        contender = self.contender
        if not contender.fill:
            contender.append(1)  # what is loaded at first use is no part of a message
        before = contender.size() if contender.size else 0
        if contender.fill:
            contender.fill(messages)
        else:
            for _ in range(messages // 50):
                contender.append(50)
        size = (contender.size() - before) / messages if contender.size else None
        if contender.begin:
            contender.begin()
        return size

    def call(self, operation: str, calls: int, settle: int) -> tuple[list[int], int]:
        """A block: `settle` calls that are not timed, and `calls` that are.

        Returns:
            Their times in ns, and the CPU time of this process for all of them in ns.
        """
        call = self._operation(operation)
        for _ in range(settle):
            call()
        times = []
        clock = time.perf_counter_ns
        cpu = time.process_time_ns()
        for _ in range(calls):
            begin = clock()
            call()
            times.append(clock() - begin)
        return times, time.process_time_ns() - cpu

    def _operation(self, name: str) -> Callable[[], object]:
        kind, _, count = name.partition(" ")
        found = getattr(self.contender, kind)
        return (lambda: found(int(count))) if count else found  # type: ignore[no-any-return]

    def serve(self, tasks: int, seconds: float) -> tuple[list[int], int, float]:
        """Async appends of so many tasks at once: a sample of the times in ns, how many there
        were, and the seconds that all took."""
        import asyncio

        return asyncio.run(self._serve(tasks, seconds))

    async def _serve(self, tasks: int, seconds: float) -> tuple[list[int], int, float]:
        import asyncio

        times: list[int] = []
        clock = time.perf_counter_ns
        async with self.contender.appender(tasks) as append:
            await asyncio.gather(*(append(number) for number in range(tasks)))
            end = clock() + int(seconds * 1e9)

            async def write(number: int) -> None:
                while (begin := clock()) < end:
                    await append(number)
                    times.append(clock() - begin)

            started = clock()
            await asyncio.gather(*map(write, range(tasks)))
            elapsed = (clock() - started) / 1e9
        sample = random.Random(7).sample(times, min(len(times), _SAMPLES))
        return sample, len(times), elapsed

    def hold(self, sessions: int) -> float:
        """Bytes of memory per session that is held open, with one message in it."""
        gc.collect()
        before = resident()
        held = [self.contender.hold(f"h{number}") for number in range(sessions)]
        gc.collect()
        grown = resident() - before
        held.clear()
        return grown / sessions

    def resident(self) -> int:
        return resident()


def main(arguments: list[str]) -> None:
    descriptor, engine, name, root, url = arguments
    connection = Connection(int(descriptor))
    with ExitStack() as stack:
        contender = None
        if engine:
            from benchmarks.contenders import Place, open_contender

            if PEERS.is_dir():
                sys.path.append(str(PEERS))
            contender = open_contender(engine, name, stack, Place(Path(root), url))
        worker = Worker(contender)
        connection.send((True, worker.offers()))
        while (request := connection.recv()) is not None:
            method, *values = request
            try:
                connection.send((True, getattr(worker, method)(*values)))
            except Exception as error:  # noqa: BLE001  # of any package: the report names it
                connection.send((False, f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")  # peers announce what they will remove
    main(sys.argv[1:])
