"""What the backends that live in this process share: no client, so steps are answered here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tsmemory.engine import steps as runner
from tsmemory.engine.contract import Backend
from tsmemory.engine.steps import Steps
from tsmemory.engine.threads import Threads

__all__ = ["LocalBackend"]

T = TypeVar("T")

_THREADS = 32
"""Of one backend: an operation that waits for a lock holds one, and the others must go on."""


class LocalBackend(Backend):
    """A backend whose operations run in this process, on a file or in memory.

    In async, a whole operation runs on a thread of the backend's own (`Threads`).
    """

    blocks = True
    """Whether operations wait for a disk or a lock, so that async needs a thread."""
    _threads: Threads | None = None

    def run(self, steps: Steps[T]) -> T:
        return runner.run(steps, self._perform)

    async def arun(self, steps: Steps[T]) -> T:
        if not self.blocks:
            return await runner.arun(steps, self._aperform)
        threads = self._threads
        if threads is None:
            threads = self._threads = Threads(type(self).__name__, _THREADS)
        return await threads.run(lambda: self.run(steps))

    def end_threads(self) -> None:
        """End the threads that `arun` started: for `close`."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.close()

    def _perform(self, step: Callable[[Any], Any]) -> Any:
        return step(self)

    async def _aperform(self, step: Callable[[Any], Any]) -> Any:
        return step(self)
