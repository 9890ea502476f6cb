"""The runners of `Steps`: one operation, written once, in either colour."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tsmemory.backends.base import Backend, Steps

__all__ = ["LocalBackend", "drive", "drive_async"]

T = TypeVar("T")
Step = Callable[[Any], Any]


def drive(steps: Steps[T], perform: Callable[[Step], Any]) -> T:
    """Run `steps`; `perform` answers each one. Its errors are raised inside the operation."""
    try:
        step = next(steps)
        while True:
            try:
                reply = perform(step)
            except Exception as error:  # noqa: BLE001  # the operation decides what it means
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # typeshed: StopIteration.value is Any


async def drive_async(steps: Steps[T], perform: Callable[[Step], Awaitable[Any]]) -> T:
    """Same as `drive`, but awaits each answer."""
    try:
        step = next(steps)
        while True:
            try:
                reply = await perform(step)
            except Exception as error:  # noqa: BLE001  # the operation decides what it means
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # typeshed: StopIteration.value is Any


class LocalBackend(Backend):
    """An engine that lives in this process: no client, so no steps to answer."""

    blocks = True
    """Whether operations wait for a disk or a lock, so that the async colour needs a thread."""

    def run(self, steps: Steps[T]) -> T:
        return drive(steps, self._perform)

    async def arun(self, steps: Steps[T]) -> T:
        if self.blocks:
            return await asyncio.to_thread(self.run, steps)
        return self.run(steps)

    def _perform(self, step: Step) -> Any:
        return step(self)
