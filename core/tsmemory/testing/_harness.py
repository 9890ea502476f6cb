"""What the conformance suite needs to run one set of test bodies sync and async."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tsmemory.conversation import Conversation
from tsmemory.engine.contract import Backend
from tsmemory.store import Store

__all__ = ["Engine", "Mode"]


@dataclass(frozen=True)
class Engine:
    """What a backend's author gives the suite: fresh, empty storage, and ways around the API."""

    open: Callable[[], Backend]
    """Opens that storage; called several times, as other processes would. An engine without
    storage outside the object (memory) returns the same one."""
    damage: Callable[[str, str, str | None], None] | None = None
    """Makes a stored record undecodable, behind the API's back: (user_id, session_id,
    message_id), message_id None for the session's own record. Without it the tests of broken
    records are skipped."""
    client_clock: bool = True
    """Whether times come from `Backend.clock`, which a test may then set."""


class Mode:
    """Calls operations by their plain names, sync or async."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = asyncio.new_event_loop() if name == "async" else None

    def store(self, store: Store) -> Any:
        """`store` with every operation a plain call; iterators come as lists."""
        return _Face(store, self)

    def run(self, target: Any, name: str, args: Any, kwargs: Any) -> Any:
        if self._loop is None:
            result = getattr(target, name)(*args, **kwargs)
            return list(result) if inspect.isgenerator(result) else result
        found = getattr(target, f"a{name}")(*args, **kwargs)
        return self._loop.run_until_complete(_finish(found))

    def close(self, *stores: Store) -> None:
        for store in stores:
            if self._loop is None:
                store.close()
            else:
                self._loop.run_until_complete(store.aclose())
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


async def _finish(result: Any) -> Any:
    if inspect.isasyncgen(result):
        return [item async for item in result]
    return await result


class _Face:
    """A store or a conversation, its operations called in the chosen mode."""

    def __init__(self, target: Store | Conversation, mode: Mode) -> None:
        self._target = target
        self._mode = mode

    def conversation(self, *args: Any, **kwargs: Any) -> _Face:
        assert isinstance(self._target, Store)
        return _Face(self._target.conversation(*args, **kwargs), self._mode)

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self._target, f"a{name}"):
            return getattr(self._target, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = self._mode.run(self._target, name, args, kwargs)
            return _Face(result, self._mode) if isinstance(result, Conversation) else result

        return call
