"""What every networked engine shares: clients of two colours, retries, and errors translated.

An engine gives four small hooks: how to open and close a client in each colour, and what an error
of its driver means. Here are the rest:

- The synchronous client is opened at first use. Of asynchronous ones there is one an event loop,
  since a connection belongs to the loop that opened it; each closes when its loop shuts down
  (`asyncio.run` does that at its end), so ``asyncio.run`` twice works and leaks nothing.
- A step that fails for a passing reason is tried again, with exponential back-off and full jitter
  (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), until `retry_for`
  seconds are over. Commits are idempotent, so a reply that was lost never doubles a message.
- A ready client that was passed in is used as it is, and left open.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple, TypeVar
from warnings import warn

from tsmemory.engine import steps as runner
from tsmemory.engine.contract import Backend
from tsmemory.engine.steps import Steps
from tsmemory.errors import InvalidInputError, TSMemoryError, UnavailableError

__all__ = ["NetworkBackend", "Verdict"]

T = TypeVar("T")
Step = Callable[[Any], Any]

_FIRST_DELAY = 0.02  # seconds; doubles with each attempt
_LONGEST_DELAY = 1.0


class Verdict(NamedTuple):
    """What an error of the driver means."""

    error: TSMemoryError | None
    """What the caller sees; None where the operation itself answers the driver's error."""
    again: bool = False
    """Whether the same step may succeed in a moment."""


class NetworkBackend(Backend):
    """A backend whose engine is behind a network.

    Args:
        client: a ready synchronous client, left open. With it alone, the asynchronous colour
            runs it in a worker thread.
        async_client: a ready asynchronous client, left open; it belongs to the caller's event
            loop. With it alone, the synchronous colour is refused.
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
        self._given, self._agiven = client, async_client
        self._opened: Any = None
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[Any, None]]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()

    # -- the engine's part -------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> Any:
        """A new synchronous client."""

    @abstractmethod
    def _aconnect(self) -> Any:
        """A new asynchronous client for the running loop."""

    @abstractmethod
    def _disconnect(self, client: Any) -> None:
        """Close what `_connect` opened."""

    @abstractmethod
    async def _adisconnect(self, client: Any) -> None:
        """Close what `_aconnect` opened."""

    @abstractmethod
    def _judge(self, error: Exception) -> Verdict:
        """What an error of the driver means."""

    # -- clients -----------------------------------------------------------------------------

    def _client(self) -> Any:
        if self._closed:
            raise UnavailableError("the store is closed")
        if self._given is not None:
            return self._given
        if self._agiven is not None:
            raise InvalidInputError(
                "this store was made around an asynchronous client: await the a-prefixed methods, "
                "or pass a synchronous client too"
            )
        if self._pid != os.getpid():  # after a fork: the connections are the parent's
            self._pid, self._opened, self._lock = os.getpid(), None, threading.Lock()
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._connect()
        return self._opened

    async def _aclient(self) -> Any:
        if self._closed:
            raise UnavailableError("the store is closed")
        if self._agiven is not None:
            return self._agiven
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            for ended in [known for known in self._by_loop if known.is_closed()]:
                del self._by_loop[ended]
            keeper = self._keep(loop)
            self._by_loop[loop] = await keeper.__anext__(), keeper
        return self._by_loop[loop][0]

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Any, None]:
        """Holds the loop's client, and closes it when the loop closes its async generators."""
        client = self._aconnect()
        try:
            yield client
        finally:
            self._by_loop.pop(loop, None)
            await self._adisconnect(client)

    # -- running -----------------------------------------------------------------------------

    def run(self, steps: Steps[T]) -> T:
        return runner.run(steps, self._perform)

    async def arun(self, steps: Steps[T]) -> T:
        if self._given is not None and self._agiven is None:
            return await asyncio.to_thread(self.run, steps)
        return await runner.arun(steps, self._aperform)

    def _perform(self, step: Step) -> Any:
        attempts = _Attempts(self.retry_for, self._judge)
        while True:
            try:
                return step(self._client())
            except Exception as error:  # noqa: BLE001  # _judge knows which are the driver's
                time.sleep(attempts.delay(error))

    async def _aperform(self, step: Step) -> Any:
        attempts = _Attempts(self.retry_for, self._judge)
        while True:
            try:
                reply = step(await self._aclient())
                return await reply if inspect.isawaitable(reply) else reply
            except Exception as error:  # noqa: BLE001  # _judge knows which are the driver's
                await asyncio.sleep(attempts.delay(error))

    # -- closing -----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the synchronous client; asynchronous ones close with their loop, or `aclose`."""
        self._closed = True
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None and self._pid == os.getpid():
            self._disconnect(opened)

    async def aclose(self) -> None:
        self.close()
        here = asyncio.get_running_loop()
        for loop, (_, keeper) in list(self._by_loop.items()):
            if loop is here:
                await keeper.aclose()
            elif loop.is_running():  # another thread's
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(keeper.aclose(), loop))

    def __del__(self, _warn: Callable[..., None] = warn) -> None:
        if getattr(self, "_opened", None) is not None and self._pid == os.getpid():
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self.close()


class _Attempts:
    """The retries of one step."""

    def __init__(self, retry_for: float, judge: Callable[[Exception], Verdict]) -> None:
        self._judge = judge
        self._deadline = time.monotonic() + retry_for
        self._delay = _FIRST_DELAY

    def delay(self, error: Exception) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            TSMemoryError: there is none: the error as ours, `error` its cause.
            Exception: `error` itself, where the operation answers it.
        """
        if isinstance(error, TSMemoryError):  # ours already: no client, or a closed store
            raise error
        verdict = self._judge(error)
        if verdict.error is None:
            raise error
        left = self._deadline - time.monotonic()
        if not verdict.again or left <= 0:
            raise verdict.error from error
        ceiling, self._delay = self._delay, min(2 * self._delay, _LONGEST_DELAY)
        return min(random.uniform(ceiling / 2, ceiling), left)
