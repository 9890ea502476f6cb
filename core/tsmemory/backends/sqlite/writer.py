"""Writing: one transaction at a time per store, shared by all that wait (group commit).

1. A synchronous caller that finds nobody writing and nobody waiting runs its transaction itself, in
   its own thread. It does not wait for anything: where another process holds the lock, it goes on
   with 2.
2. Everybody else puts a job into the queue and waits for it. One thread of the store takes all jobs
   that are there, up to `GROUP`, and does them in one transaction, one fsync for all. It alone
   waits for locks, so a wait can be interrupted or cancelled anywhere.
3. In a group each job has a savepoint of its own: one that fails is rolled back and gets its error,
   its neighbours are committed. Where the COMMIT fails, all fail.
4. A job is withdrawn by whoever waits for it (time-out, interrupt, cancellation) as long as its
   transaction has not begun; from then on its outcome is waited for, or, after an interrupt or a
   cancellation, dropped. So a change happens once or not at all, and whole.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from tsmemory.backends.sqlite.connections import Connections, back_off
from tsmemory.backends.sqlite.file import Connection, translate
from tsmemory.engine.fork import reset_after_fork
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger
from tsmemory.engine.threads import Threads
from tsmemory.errors import TimeoutError

if TYPE_CHECKING:
    import asyncio

__all__ = ["GROUP", "Undo", "Write", "Writer"]

_log = get_logger("sqlite")

GROUP = 256
"""Jobs in one transaction at most, so that the first is not held up by the last."""
_SLICE = 16
"""Futures resolved in one turn of an event loop: between them it serves others."""
_SLOW_SECONDS = 1.0  # a wait for a lock that is worth a line in the log


Undo: TypeAlias = Callable[[], None]


class Write:
    """A step that writes.

    Args:
        call: with a connection on which a transaction has begun, and what takes back, there, all
            that the call has written so far. It raises what it does not want committed.
    """

    __slots__ = ("call",)

    def __init__(self, call: Callable[[Connection, Undo], Any]) -> None:
        self.call = call

    def __call__(self, backend: Any) -> Any:
        return backend.writer.write(self)


class _Job:
    """A write that waits, and what became of it."""

    __slots__ = ("call", "deadline", "error", "finished", "future", "result", "signal", "withdrawn")

    def __init__(self, write: Write, deadline: float) -> None:
        self.call = write.call
        self.deadline = deadline
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self.withdrawn = False
        self.signal: threading.Lock | None = None
        """Held until the job is finished, where a thread waits for it."""
        self.future: asyncio.Future[Any] | None = None

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class Writer:
    """The write side of a store.

    Args:
        connections: of the store.
        after_commit: called with the connection after each transaction, outside of it.
    """

    def __init__(
        self, connections: Connections, after_commit: Callable[[Connection], None]
    ) -> None:
        self._connections = connections
        self._after_commit = after_commit
        self._threads = Threads("tsmemory-sqlite-writer", 1)
        self._after_fork()
        reset_after_fork(self)

    def _after_fork(self) -> None:
        # Reentrant, because releasing it fails where this thread does not hold it: that is how an
        # interrupt right after acquiring it is survived.
        self._lock = threading.RLock()
        self._guard = threading.RLock()
        self._queue: deque[_Job] = deque()

    # -- callers -----------------------------------------------------------------------------

    def write(self, write: Write) -> Any:
        """Do it in a transaction, and give its result or raise its error."""
        try:
            if not self._queue and self._lock.acquire(blocking=False):
                return self._connections.use(partial(self._alone, write), attempts=1)
        except TimeoutError:
            pass  # another process writes: wait in the queue
        finally:
            try:  # noqa: SIM105  # an interrupt could come before `suppress` is made
                self._lock.release()
            except RuntimeError:
                pass  # it was another thread's
        return self._wait(write)

    def _wait(self, write: Write) -> Any:
        timeout = self._connections.timeout
        job = _Job(write, time.monotonic() + timeout)
        job.signal = threading.Lock()
        job.signal.acquire()
        try:
            self._queue.append(job)
            self._wake()
            # The writing thread ends a job at its deadline; so a little later it is stuck.
            while not job.signal.acquire(timeout=min(timeout + 1, threading.TIMEOUT_MAX)):
                if self._withdraw(job):
                    raise self._timed_out()
            return job.outcome()
        finally:
            if not job.finished:
                self._withdraw(job)

    async def awrite(self, write: Write) -> Any:
        """Same as `write`, but awaits it."""
        import asyncio  # `import tsmemory` must not load it: a third of its time

        loop = asyncio.get_running_loop()
        job = _Job(write, time.monotonic() + self._connections.timeout)
        job.future = loop.create_future()
        try:
            self._queue.append(job)
            loop.call_soon(self._wake)  # after what else runs in this turn, and may join the group
            return await job.future
        finally:
            if not job.finished:
                self._withdraw(job)

    def _withdraw(self, job: _Job) -> bool:
        """Whether the job was still waiting, and will not be done any more."""
        with releasing(self._guard), self._guard:
            if job.withdrawn or job not in self._queue:
                return False
            self._queue.remove(job)
            job.withdrawn = True
            return True

    def _timed_out(self) -> TimeoutError:
        return TimeoutError(
            f"{self._connections.file.path}: another process kept the write lock for "
            f"{self._connections.timeout:g} s"
        )

    def close(self) -> None:
        """End the writing thread, when it has done what waits. Idempotent."""
        self._threads.close()

    # -- the writing thread ------------------------------------------------------------------

    def _wake(self) -> None:
        if self._queue and not self._threads.backlog:
            self._threads.put(self._drain)

    def _drain(self) -> None:
        while self._queue:
            with releasing(self._lock), self._lock:
                self._do_group()

    def _take(self) -> list[_Job]:
        """Jobs to be done now; from here on they cannot be withdrawn."""
        with releasing(self._guard), self._guard:
            count = min(len(self._queue), GROUP)
            return [self._queue.popleft() for _ in range(count)]

    def _do_group(self) -> None:
        """Do what waits in one transaction."""
        tried, begin = 0, time.monotonic()
        while self._queue:
            jobs: list[_Job] = []
            try:
                self._connections.use(partial(self._group, jobs), attempts=1)
            except TimeoutError:
                tried += 1
                self._expire()
                back_off(tried, 1.0)
                continue
            except Exception as error:  # noqa: BLE001  # no transaction began: they all fail
                jobs += self._take()
                self._give_up(jobs, error)
            waited = time.monotonic() - begin
            if tried and waited > _SLOW_SECONDS:
                _log.warning("waited %.1f s for another process's write lock", waited)
            self._finish(jobs)
            return

    def _expire(self) -> None:
        """End the jobs whose time is over."""
        now = time.monotonic()
        with releasing(self._guard), self._guard:
            late = [job for job in self._queue if job.deadline <= now]
            for job in late:
                self._queue.remove(job)
        for job in late:
            job.error = self._timed_out()
        self._finish(late)

    def _finish(self, jobs: list[_Job]) -> None:
        """Wake up those that wait for the jobs."""
        loops: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in jobs:
            job.finished = True
            if job.signal is not None:
                job.signal.release()
            elif job.future is not None:
                loops.setdefault(job.future.get_loop(), []).append(job)
        for loop, finished in loops.items():
            with contextlib.suppress(RuntimeError):  # it was closed: nobody waits there any more
                loop.call_soon_threadsafe(_resolve, loop, finished)

    # -- transactions ------------------------------------------------------------------------

    def _alone(self, write: Write, db: Connection) -> Any:
        def undo() -> None:
            db.execute("ROLLBACK")
            db.execute("BEGIN IMMEDIATE")

        db.execute("BEGIN IMMEDIATE")
        try:
            result = write.call(db, undo)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._after_commit(db)
        return result

    def _group(self, jobs: list[_Job], db: Connection) -> None:
        def undo() -> None:
            db.execute("ROLLBACK TO job")

        db.execute("BEGIN IMMEDIATE")
        try:
            jobs += self._take()
            for job in jobs:
                db.execute("SAVEPOINT job")
                self._do(db, undo, job)
                db.execute("RELEASE job")
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # theirs, whose transaction it was
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._give_up(jobs, error)
            return
        self._after_commit(db)

    def _do(self, db: Connection, undo: Undo, job: _Job) -> None:
        try:
            job.result = job.call(db, undo)
        except Exception as error:
            if not db.in_transaction:
                raise  # SQLite ended the whole transaction: the disk is full, for instance
            undo()
            job.error = translate(error, self._connections.file.path)

    def _give_up(self, jobs: list[_Job], error: Exception) -> None:
        """Nothing of the group was committed."""
        for job in jobs:
            if job.error is None:
                job.error = translate(error, self._connections.file.path)


def _resolve(loop: asyncio.AbstractEventLoop, jobs: list[_Job]) -> None:
    """Give the results to those that await them, a slice per turn of the loop."""
    for job in jobs[:_SLICE]:
        future = job.future
        if future is None or future.done():
            continue
        if job.error is not None:
            future.set_exception(job.error)
        else:
            future.set_result(job.result)
    if len(jobs) > _SLICE:
        loop.call_soon(_resolve, loop, jobs[_SLICE:])
