"""What the backends that live in this process share: no client, so no steps to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from tsmemory.engine import steps as runner
from tsmemory.engine.contract import Backend
from tsmemory.engine.steps import Steps

__all__ = ["LocalBackend"]

T = TypeVar("T")


class LocalBackend(Backend):
    """A backend whose operations run in this process, on a file or in memory."""

    blocks = True
    """Whether operations wait for a disk or a lock, so that async needs a thread."""

    def run(self, steps: Steps[T]) -> T:
        return runner.run(steps, self._perform)

    async def arun(self, steps: Steps[T]) -> T:
        if self.blocks:
            return await asyncio.to_thread(self.run, steps)
        return await runner.arun(steps, self._aperform)

    def _perform(self, step: Callable[[Any], Any]) -> Any:
        return step(self)

    async def _aperform(self, step: Callable[[Any], Any]) -> Any:
        return step(self)
