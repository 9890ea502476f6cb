"""Steps: one operation, written once, driven in sync or in async. The only runner of the package.

An operation is a generator that yields *steps* and returns its result. A step is a function of the
backend's client (``lambda client: client.get(name)``); the runner calls it, awaits its answer in
async, and sends the answer back. A `Pause` is a step that only waits. An operation composes others
with ``yield from``.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

__all__ = ["Pause", "Step", "Steps", "arun", "immediate", "run"]

T = TypeVar("T")
P = ParamSpec("P")


class Pause(NamedTuple):
    """A step that waits, in the way of the mode that runs it."""

    seconds: float


Step: TypeAlias = "Callable[[Any], Any] | Pause"
Steps: TypeAlias = Generator[Step, Any, T]


def run(steps: Steps[T], perform: Callable[[Callable[[Any], Any]], Any]) -> T:
    """Run `steps` to its end.

    `perform` answers each step. An error that it raises is raised inside the operation, at the
    step. An interrupt (`BaseException`) closes the operation, so that it releases what it holds
    now, and not when it happens to be collected.
    """
    try:
        step = next(steps)
        while True:
            try:
                reply = _sleep(step) if isinstance(step, Pause) else perform(step)
            except Exception as error:  # noqa: BLE001  # the operation decides what it means
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # typeshed: StopIteration.value is Any
    finally:
        steps.close()


async def arun(steps: Steps[T], perform: Callable[[Callable[[Any], Any]], Awaitable[Any]]) -> T:
    """Same as `run`, but awaits each answer."""
    try:
        step = next(steps)
        while True:
            try:
                reply = await (_asleep(step) if isinstance(step, Pause) else perform(step))
            except Exception as error:  # noqa: BLE001  # the operation decides what it means
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # typeshed: StopIteration.value is Any
    finally:
        steps.close()


def _sleep(pause: Pause) -> Any:
    time.sleep(pause.seconds)


async def _asleep(pause: Pause) -> Any:
    import asyncio  # `import tsmemory` must not load it: a third of its time

    await asyncio.sleep(pause.seconds)


def immediate(method: Callable[P, T]) -> Callable[P, Steps[T]]:
    """Make a plain method an operation of no steps, for backends that live in this process."""

    @wraps(method)
    def operation(*args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        return method(*args, **kwargs)
        yield  # a generator, though it never yields

    return operation
