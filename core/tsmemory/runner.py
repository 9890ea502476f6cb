"""`Runner`: what runs steps on a backend; the part of a `Store` that its conversations need."""

from __future__ import annotations

from typing import TypeVar

from tsmemory import checks
from tsmemory.engine.contract import Backend
from tsmemory.engine.steps import Steps

__all__ = ["Runner"]

T = TypeVar("T")


class Runner:
    """A backend, and the time to live of the sessions that begin there."""

    def __init__(self, backend: Backend, *, ttl: float | None = None) -> None:
        self.backend = backend
        self.ttl = checks.check_ttl(ttl)

    def run(self, steps: Steps[T]) -> T:
        """Do `steps` (of `Store.steps`, `Conversation.steps`, or composed of them), and wait.

        Steps are used up by running them: make them anew to repeat an operation.
        """
        return self.backend.run(steps)

    async def arun(self, steps: Steps[T]) -> T:
        """Same as `run`, for asyncio."""
        return await self.backend.arun(steps)
