"""Pools of connections, sync and async, that no interrupt and no cancellation can use up.

A lease is counted by an object that lives in the frame which holds it. Whatever ends that frame,
at any instruction, ends the lease: there is no counter that could stay raised.

1. A lease waits its turn until fewer than `size` are out, then takes the connection that was used
   last, or opens one. The one that ends hands its place to the one that waited longest.
2. A connection whose use ended well goes back. One whose use ended by an interrupt or a
   cancellation is closed, and one that `usable` refuses: it may be in the middle of a reply.
3. A connection that broke takes the idle ones with it: they led to the same server.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar
from weakref import WeakSet

from tsmemory.engine.locks import releasing
from tsmemory.errors import UnavailableError

__all__ = ["AsyncPool", "Pool"]

C = TypeVar("C")


class _Lease:
    """One connection in use."""

    __slots__ = ("__weakref__",)


class _Base(Generic[C]):
    def __init__(self, usable: Callable[[C], bool], size: int, timeout: float) -> None:
        self.size, self.timeout = size, timeout
        self._usable = usable
        self._idle: list[C] = []
        self._leases: WeakSet[_Lease] = WeakSet()
        self._closed = False

    def __len__(self) -> int:
        """Connections that are open, idle or in use."""
        return len(self._idle) + len(self._leases)

    def _admit(self, lease: _Lease) -> C | None:
        """Step 1: count the lease, and take a connection where one is idle."""
        self._leases.add(lease)
        return self._idle.pop() if self._idle else None

    def _exhausted(self) -> UnavailableError:
        return UnavailableError(
            f"all {self.size} connections were in use for {self.timeout:.0f} s; "
            "raise pool_size, or send fewer operations at once"
        )


class Pool(_Base[C]):
    """Connections for threads.

    Args:
        connect: opens one.
        disconnect: closes one; must not raise.
        usable: whether one is between exchanges and can serve the next.
        size: how many are open at most.
        timeout: seconds that a lease waits for its turn.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        disconnect: Callable[[C], None],
        usable: Callable[[C], bool],
        *,
        size: int,
        timeout: float,
    ) -> None:
        super().__init__(usable, size, timeout)
        self._connect, self._disconnect = connect, disconnect
        self._lock = threading.RLock()
        self._waiters: deque[tuple[threading.Lock, _Lease]] = deque()

    @contextmanager
    def lease(self) -> Iterator[C]:
        """A connection for the length of a ``with``.

        Raises:
            UnavailableError: none became free in time.
        """
        lease, connection, finished, broken = _Lease(), None, False, False
        try:
            connection = self._acquire(lease)
            if connection is None:
                connection = self._connect()
            yield connection
            finished = True
        except Exception:  # step 2: an error of the server leaves the connection usable
            finished, broken = True, connection is None or not self._usable(connection)
            raise
        finally:
            self._release(lease, connection, finished, broken)

    def _acquire(self, lease: _Lease) -> C | None:
        deadline = time.monotonic() + self.timeout
        waiter = (threading.Lock(), lease)  # held until its turn comes
        waiter[0].acquire()
        with releasing(self._lock), self._lock:
            if not self._waiters and len(self._leases) < self.size:
                return self._admit(lease)
            self._waiters.append(waiter)
        while True:
            remaining_seconds = deadline - time.monotonic()
            # A lease that ended with its frame hands on nothing, so look again now and then.
            waiter[0].acquire(timeout=min(max(remaining_seconds, 0), 1.0))
            with releasing(self._lock), self._lock:
                if lease in self._leases or len(self._leases) < self.size:
                    self._forget(waiter)
                    return self._admit(lease)
                if remaining_seconds <= 0:
                    self._forget(waiter)
                    raise self._exhausted()

    def _forget(self, waiter: tuple[threading.Lock, _Lease]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _release(self, lease: _Lease, connection: C | None, finished: bool, broken: bool) -> None:
        drop: list[C] = []
        with releasing(self._lock), self._lock:
            if connection is not None:
                keep = finished and not self._closed and self._usable(connection)
                (self._idle if keep else drop).append(connection)
            else:  # it may have been interrupted in the queue
                self._waiters = deque(w for w in self._waiters if w[1] is not lease)
            if broken:
                drop += self._idle
                self._idle.clear()
            self._leases.discard(lease)
            if self._waiters and len(self._leases) < self.size:
                signal, following = self._waiters.popleft()
                self._leases.add(following)
                signal.release()
        for unwanted in drop:
            self._disconnect(unwanted)

    def close(self) -> None:
        """Close the idle connections now, those in use when their use ends."""
        with releasing(self._lock), self._lock:
            self._closed = True
            drop, self._idle = self._idle, []
        for connection in drop:
            self._disconnect(connection)


class AsyncPool(_Base[C]):
    """Same as `Pool`, but for the tasks of one event loop."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        disconnect: Callable[[C], Awaitable[None]],
        usable: Callable[[C], bool],
        *,
        size: int,
        timeout: float,
    ) -> None:
        super().__init__(usable, size, timeout)
        self._connect, self._disconnect = connect, disconnect
        self._waiters: deque[tuple[asyncio.Future[None], _Lease]] = deque()

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[C]:
        """Same as `Pool.lease`."""
        lease, connection, finished, broken = _Lease(), None, False, False
        try:
            connection = await self._acquire(lease)
            if connection is None:
                connection = await self._connect()
            yield connection
            finished = True
        except Exception:
            finished, broken = True, connection is None or not self._usable(connection)
            raise
        finally:
            await self._release(lease, connection, finished, broken)

    async def _acquire(self, lease: _Lease) -> C | None:
        if self._waiters or len(self._leases) >= self.size:
            waiter = (asyncio.get_running_loop().create_future(), lease)
            self._waiters.append(waiter)
            try:
                # Not wait_for: before Python 3.12 it may lose a cancellation.
                await asyncio.wait([waiter[0]], timeout=self.timeout)
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
            if not waiter[0].done():
                raise self._exhausted()
        return self._admit(lease)

    def _hand_on(self) -> None:
        while self._waiters and len(self._leases) < self.size:
            waiter, following = self._waiters.popleft()
            if not waiter.done():
                self._leases.add(following)
                waiter.set_result(None)

    async def _release(
        self, lease: _Lease, connection: C | None, finished: bool, broken: bool
    ) -> None:
        drop: list[C] = []
        if connection is not None:
            keep = finished and not self._closed and self._usable(connection)
            (self._idle if keep else drop).append(connection)
        if broken:
            drop += self._idle
            self._idle.clear()
        self._leases.discard(lease)
        self._hand_on()
        for unwanted in drop:
            await self._disconnect(unwanted)

    async def close(self) -> None:
        """Same as `Pool.close`."""
        self._closed = True
        drop, self._idle = self._idle, []
        for connection in drop:
            await self._disconnect(connection)
