"""Threads of a backend's own, for asyncio callers: never the event loop's default executor.

The default executor belongs to the application: a handful of writers that wait for a lock there
stop everything else that the application does in threads, name resolution included.

A thread is started where a call finds none idle, up to the limit, and lives until `close`. They are
daemons: a call that runs when the interpreter ends is cut off as by a kill, and a backend must
survive that anyway.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from tsmemory.engine.fork import reset_after_fork
from tsmemory.engine.locks import releasing

if TYPE_CHECKING:
    import asyncio

__all__ = ["Threads"]

T = TypeVar("T")


class Threads:
    """At most `limit` threads that take calls from one queue, in order.

    Args:
        name: of the threads, as debuggers show it.
        limit: how many at once.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._guard = threading.RLock()
        self._begin()
        reset_after_fork(self)

    def _after_fork(self) -> None:
        self._guard = threading.RLock()
        self._begin()  # what waits in the queue belongs to the parent's callers

    def _begin(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle: SimpleQueue[None] = SimpleQueue()  # one for each idle thread (see `locks`)
        self._started = 0

    @property
    def backlog(self) -> int:
        """Calls that no thread has taken yet."""
        return self._calls.qsize()

    def put(self, call: Callable[[], None]) -> None:
        """Have `call` run on a thread. It must not raise."""
        self._calls.put(call)
        try:
            self._idle.get_nowait()
        except Empty:
            self._start()

    def _start(self) -> None:
        with releasing(self._guard), self._guard:
            if self._started >= self._limit:
                return
            thread = threading.Thread(
                target=_work, args=(self._calls, self._idle), name=self._name, daemon=True
            )
            thread.start()
            self._started += 1

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """What ``call(*args)`` returns or raises. A cancellation ends the waiting, not the call."""
        import asyncio  # `import tsmemory` must not load it: a third of its time

        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = call(*args)
            except BaseException as error:  # noqa: BLE001  # it belongs to the caller
                _answer(loop, _reject, future, error)
            else:
                _answer(loop, _resolve, future, result)

        self.put(work)
        return await future

    def close(self) -> None:
        """End the threads, each when its call is done. Idempotent."""
        with releasing(self._guard), self._guard:
            calls, started = self._calls, self._started
            self._begin()
        for _ in range(started):
            calls.put(None)


def _work(calls: SimpleQueue[Callable[[], None] | None], idle: SimpleQueue[None]) -> None:
    while True:
        call = calls.get()
        if call is None:
            return
        call()
        del call  # it holds the caller's objects
        idle.put(None)


def _answer(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
        loop.call_soon_threadsafe(*call)


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
