"""The connections of one store: one per operation at a time, kept between operations.

- `use` runs a call on an idle connection, or on a new one. A connection goes back only after a
  call that ended well, or whose error left no transaction open; any other is closed. So no
  operation sees what an interrupted one left.
- Nothing waits in SQLite, whose waiting no interrupt ends: `use` repeats a call that found a lock,
  ever more slowly, until the deadline.
- Fork: SQLite's table of locks is the process's, and is copied in the state it has. So a fork waits
  until the operations in flight are done, and keeps others from starting; the child closes what it
  inherited, which holds no lock then, and opens connections of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from tsmemory.backends.sqlite.file import OPENING, Connection, DatabaseFile, is_busy, translate
from tsmemory.backends.sqlite.layout import tolerant_text
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger
from tsmemory.errors import UnavailableError

__all__ = ["Connections", "back_off"]

T = TypeVar("T")
_log = get_logger("sqlite")

_FORK_SECONDS = 2.0
"""How long a fork waits for operations in flight: a listing of everything may take longer, but
holds no lock that would keep the child from writing."""
_ALL: weakref.WeakSet[Connections] = weakref.WeakSet()
_UNFINISHED: list[object] = []
"""What must not be closed, nor collected. In a child: what the parent's threads were using; closing
it could wait for a thread that is not there. On a file that was overwritten: closing the last
connection would write the old WAL into it."""


class Connections:
    """The pool of one store.

    Args:
        file: what they are opened on.
        timeout: seconds to wait for others' locks.
    """

    def __init__(self, file: DatabaseFile, timeout: float) -> None:
        self.file = file
        self.timeout = timeout
        self.closed = False
        self.idle: list[Connection] = []
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        with releasing(OPENING), OPENING:
            _ALL.add(self)

    def use(self, call: Callable[[Connection], T], *, attempts: int | None = None) -> T:
        """What ``call(connection)`` returns. The call must be safe to repeat where it found a lock.

        Args:
            attempts: how often to try; None: until `timeout` has passed.

        Raises:
            TimeoutError: somebody else held a lock all the time.
            BackendError: and its kinds; SQLite's errors translated.
        """
        deadline, tried = 0.0, 0
        while True:
            try:
                return self._use(call)
            except sqlite3.OperationalError as error:
                tried += 1
                now = time.monotonic()
                deadline = deadline or now + self.timeout
                if not is_busy(error) or tried == attempts or now >= deadline:
                    raise translate(error, self.file.path) from error
            except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
                raise translate(error, self.file.path) from error
            back_off(tried, deadline - now)

    def _use(self, call: Callable[[Connection], T]) -> T:
        db = self._take()
        reusable = False
        try:
            result = call(db)
            reusable = True
            return result
        except sqlite3.OperationalError as error:
            if "decode to UTF-8" not in str(error) or db.in_transaction:
                reusable = not db.in_transaction
                raise
            db.text_factory = tolerant_text  # a damaged row; the others stay readable
            result = call(db)
            reusable = True
            return result
        except Exception:
            reusable = not db.in_transaction
            raise
        finally:
            # Nothing that an interrupt could come between stands before these calls.
            if reusable and not self.closed:
                self.idle.append(db)
                if self.closed:
                    self.close()
            else:
                self._discard(db)

    def _take(self) -> Connection:
        if self.closed:
            raise UnavailableError(f"the store on {self.file.path} is closed")
        self.file.check(bool(self._open))
        while True:
            try:
                db = self.idle.pop()  # atomic, so two threads never share one
            except IndexError:
                with releasing(OPENING), OPENING:
                    if self.idle:  # a fork has just put them back
                        continue
                    db = self.file.connect(first=not self._open)
                    self._open.add(db)
                    return db
            # Compared with the file as it is now: another thread may have opened it since.
            if db.identity is self.file.identity:
                if self.file.shrunk:
                    self._check_shrunk(db)
                return db
            self._discard(db)  # it was opened on the file that had this name before

    def _check_shrunk(self, db: Connection) -> None:
        sound = False
        try:
            self.file.check_shrunk(db)
            sound = True
        finally:
            if not sound:
                self.idle.append(db)  # not closed: that would write what is in its -wal

    def _discard(self, db: Connection) -> None:
        """Close a connection whatever state it is in. Closing alone would keep a transaction open
        as long as a statement of it is referred to, by a traceback for instance."""
        with contextlib.suppress(sqlite3.Error):
            if db.in_transaction:
                db.rollback()
        # First, for closing the last one removes the -wal: that of nobody's file.
        self._open.discard(db)
        db.close()

    def close(self) -> None:
        """Close what is idle now, and the others when their calls end. Idempotent."""
        self.closed = True
        if self.file.failed:
            _UNFINISHED.extend(self._open)
            self.idle.clear()
        while True:
            try:
                self.idle.pop().close()
            except IndexError:
                return

    # -- fork --------------------------------------------------------------------------------

    def wait_until_idle(self, deadline: float) -> list[Connection]:
        """All connections, out of the reach of other threads; those still busy at `deadline`
        (monotonic) stay where they are."""
        taken: list[Connection] = []
        while True:
            while self.idle:
                with contextlib.suppress(IndexError):
                    taken.append(self.idle.pop())
            if len(taken) >= len(self._open):
                return taken
            if time.monotonic() > deadline:
                _log.warning("a fork did not wait for an operation that took too long")
                return taken
            time.sleep(0.0002)

    def begin_in_child(self, inherited: list[Connection]) -> None:
        """Close what the parent had idle; never touch what it was using."""
        _UNFINISHED.extend(set(self._open) - set(inherited))
        for db in inherited:
            db.close()
        self._open = weakref.WeakSet()


def back_off(tried: int, most: float) -> None:
    """Sleep before attempt `tried` + 1: 1 ms at first, 8 ms at last, never beyond `most` s."""
    time.sleep(max(0.0, min(0.0005 * 2 ** min(tried, 4), most) * random.uniform(0.5, 1.0)))


_forking: list[tuple[Connections, list[Connection]]] = []


def _before_fork() -> None:
    OPENING.acquire()
    deadline = time.monotonic() + _FORK_SECONDS
    _forking[:] = [(pool, pool.wait_until_idle(deadline)) for pool in list(_ALL)]


def _after_fork_in_parent() -> None:
    for pool, connections in _forking:
        pool.idle.extend(connections)
    _forking.clear()
    OPENING.release()


def _after_fork_in_child() -> None:
    for pool, connections in _forking:
        pool.begin_in_child(connections)
    _forking.clear()
    OPENING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
