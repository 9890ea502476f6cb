"""What every networked backend shares: clients of both modes, retries, and error classification.

A backend gives small hooks: how to open and close a client in each mode, and what an error of its
driver means. The rest is here:

1. The sync client is opened at first use. In async there is one client per event loop, since a
   connection belongs to the loop that opened it; each closes when its loop shuts down
   (`asyncio.run` does that at its end), so ``asyncio.run`` twice works and leaks nothing.
2. After a fork the child opens its own: a connection is its parent's.
3. A step that fails for a passing reason is repeated, with exponential back-off and jitter
   (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), until it has failed
   for `retry_for` seconds. Commits are idempotent, so a lost reply never doubles a message.
4. Closing while other threads work: what they are doing fails with `UnavailableError`.
5. A ready client that was passed in is left open.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import random
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from warnings import warn

from tsmemory.engine import steps as runner
from tsmemory.engine.contract import Backend
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger
from tsmemory.engine.steps import Steps
from tsmemory.errors import InvalidInputError, TSMemoryError, UnavailableError

__all__ = ["ErrorClass", "NetworkBackend"]

T = TypeVar("T")
Step = Callable[[Any], Any]

_log = get_logger("network")
_THREADS = 16  # of the async mode over a sync client: as many steps at once
_FIRST_DELAY = 0.02  # seconds; doubles with each attempt
_LONGEST_DELAY = 1.0


class ErrorClass(NamedTuple):
    """What an error of the driver means."""

    error: TSMemoryError | None
    """What the caller sees; None where the operation itself answers the driver's error."""
    again: bool = False
    """Whether the same step may succeed in a moment."""
    wait: float = 0.0
    """Seconds that the service asks to wait before that (HTTP's Retry-After)."""


class NetworkBackend(Backend):
    """A backend whose engine is behind a network.

    Args:
        client: a ready synchronous client, left open. With it alone, the async operations
            runs it in a worker thread.
        async_client: a ready asynchronous client, left open; it belongs to the caller's event
            loop. With it alone, the sync operations are refused.
        retry_for: seconds during which a step that fails for a passing reason is tried again;
            0: once only. One attempt may outlast it by the client's own time-outs.

    Raises:
        InvalidInputError: `retry_for` is negative.
    """

    def __init__(
        self, *, client: Any = None, async_client: Any = None, retry_for: float = 10.0
    ) -> None:
        if not retry_for >= 0:
            raise InvalidInputError(f"retry_for is {retry_for} s; give 0 or more")
        self.retry_for = float(retry_for)
        self._ready, self._async_ready = client, async_client
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """No client yet: of a new backend, or in the child of a fork (2)."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._opened: Any = None
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[Any, None]]] = {}
        self._executor: ThreadPoolExecutor | None = None

    # -- the backend's part ------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> Any:
        """A new sync client."""

    @abstractmethod
    def _aconnect(self) -> Any:
        """A new async client for the running loop."""

    @abstractmethod
    def _disconnect(self, client: Any) -> None:
        """Close what `_connect` opened."""

    @abstractmethod
    async def _adisconnect(self, client: Any) -> None:
        """Close what `_aconnect` opened."""

    @abstractmethod
    def _classify(self, error: Exception) -> ErrorClass:
        """What an error of the driver means."""

    def _adopt(self, ready: Any) -> Any:
        """What steps get in place of a ready sync client."""
        return ready

    def _aadopt(self, ready: Any) -> Any:
        """What steps get in place of a ready async client, on the running loop."""
        return ready

    def _release(self, adopted: Any) -> None:
        """Close what `_adopt` opened: never the client that was passed in."""

    async def _arelease(self, adopted: Any) -> None:
        """Close what `_aadopt` opened: never the client that was passed in."""

    # -- clients -----------------------------------------------------------------------------

    def _client(self) -> Any:
        if self._closed:
            raise UnavailableError("the store is closed")
        if self._pid != os.getpid():
            self._begin()
        if self._opened is None:
            if self._ready is None and self._async_ready is not None:
                raise InvalidInputError(
                    "this store was made around an async client: await the a-prefixed methods, "
                    "or pass a sync client too"
                )
            with releasing(self._lock), self._lock:
                if self._opened is None:
                    ready = self._ready
                    self._opened = self._connect() if ready is None else self._adopt(ready)
        return self._opened

    async def _aclient(self) -> Any:
        if self._closed:
            raise UnavailableError("the store is closed")
        if self._pid != os.getpid():
            self._begin()
        loop = asyncio.get_running_loop()
        opened = self._by_loop.get(loop)
        if opened is None:
            for ended in [other for other in self._by_loop if other.is_closed()]:
                del self._by_loop[ended]
            keeper = self._keep(loop)
            opened = self._by_loop[loop] = await keeper.__anext__(), keeper
        return opened[0]

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Any, None]:
        """Holds the loop's client, and closes it when the loop closes its async generators."""
        ready = self._async_ready
        client = self._aconnect() if ready is None else self._aadopt(ready)
        try:
            yield client
        finally:
            self._by_loop.pop(loop, None)
            await (self._adisconnect(client) if ready is None else self._arelease(client))

    # -- running -----------------------------------------------------------------------------

    def run(self, steps: Steps[T]) -> T:
        return runner.run(steps, self._perform)

    async def arun(self, steps: Steps[T]) -> T:
        if self._ready is not None and self._async_ready is None:
            return await self._in_thread(steps)
        return await runner.arun(steps, self._aperform)

    async def _in_thread(self, steps: Steps[T]) -> T:
        """Run in a thread of our own: the loop's default executor is for others."""
        if self._closed:
            raise UnavailableError("the store is closed")
        if self._pid != os.getpid():
            self._begin()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="tsmemory")
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: context.run(self.run, steps))

    def _perform(self, step: Step) -> Any:
        attempts = None
        while True:
            try:
                return step(self._client())
            except Exception as error:  # noqa: BLE001  # _classify knows which are the driver's
                attempts = attempts or _Attempts(self)
                time.sleep(attempts.delay(error))

    async def _aperform(self, step: Step) -> Any:
        attempts = None
        while True:
            try:
                reply = step(await self._aclient())
                return await reply if inspect.isawaitable(reply) else reply
            except Exception as error:  # noqa: BLE001  # _classify knows which are the driver's
                attempts = attempts or _Attempts(self)
                await asyncio.sleep(attempts.delay(error))

    # -- closing -----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the sync client; async ones close with their loop, or by `aclose`."""
        self._closed = True
        if self._pid != os.getpid():
            self._begin()
        with releasing(self._lock), self._lock:
            opened, self._opened = self._opened, None
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)
        if opened is not None:
            (self._disconnect if self._ready is None else self._release)(opened)

    async def aclose(self) -> None:
        self.close()
        here = asyncio.get_running_loop()
        for loop, (_, keeper) in list(self._by_loop.items()):
            if loop is here:
                await keeper.aclose()
            elif loop.is_running():  # another thread's
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(keeper.aclose(), loop))

    def __del__(self, _warn: Callable[..., None] = warn) -> None:
        if getattr(self, "_opened", None) is None or self._pid != os.getpid():
            return
        if self._ready is None:
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)
        self.close()


class _Attempts:
    """The retries of one step, from its first failure on."""

    def __init__(self, backend: NetworkBackend) -> None:
        self._backend = backend
        self._deadline = time.monotonic() + backend.retry_for
        self._delay = _FIRST_DELAY
        self._count = 0

    def delay(self, error: Exception) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            TSMemoryError: there is none: the error as ours, `error` its cause.
            Exception: `error` itself, where the operation answers it.
        """
        if isinstance(error, TSMemoryError):  # ours already: no client, or a closed store
            raise error
        if self._backend._closed:  # 4: whatever the driver makes of it
            raise UnavailableError("the store was closed meanwhile") from error
        error_class = self._backend._classify(error)
        if error_class.error is None:
            raise error
        remaining = self._deadline - time.monotonic()
        if not error_class.again or remaining <= 0 or error_class.wait > remaining:
            raise error_class.error from error
        self._count += 1
        ceiling, self._delay = self._delay, min(2 * self._delay, _LONGEST_DELAY)
        _log.info(
            "attempt %d of a step failed and is repeated: %s", self._count, type(error).__name__
        )
        return max(error_class.wait, min(random.uniform(ceiling / 2, ceiling), remaining))
