"""Locks that an interrupt (Ctrl-C) cannot leave held.

A ``with lock:`` alone is safe up to CPython 3.13. In 3.14, a signal handler that raises can run
after the lock was acquired and before the ``with`` protects anything: the lock stays held, and all
other threads wait for ever (https://github.com/python/cpython/issues/148874). So every lock of this
package is taken as

    with releasing(lock), lock:

where the outer one puts right what the inner one left. ``tests/core/test_locks.py`` finds others.
Of the standard library, `threading.Event`, `Condition` and `Semaphore` have a lock inside that is
taken without this: where an interrupted thread and another share one, use a lock or a
`queue.SimpleQueue` instead, whose methods are one instruction each.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

__all__ = ["releasing"]

if sys.version_info >= (3, 14) and not TYPE_CHECKING:

    class releasing:  # noqa: N801  # read as a function
        """Around ``with lock``: an interrupt leaves the lock as it was before.

        Args:
            lock: reentrant, because only that knows whether this thread has it, and how often.
        """

        __slots__ = ("_depth", "_lock")

        def __init__(self, lock: threading.RLock) -> None:
            self._lock = lock
            self._depth = lock._recursion_count()

        def __enter__(self) -> None:
            pass

        def __exit__(
            self, kind: type[BaseException] | None, _: object, __: TracebackType | None
        ) -> None:
            if kind is not None:
                while self._lock._recursion_count() > self._depth:
                    self._lock.release()

else:

    def releasing(lock: threading.RLock) -> threading.RLock:
        """Same as above. The lock itself: taken twice, which `threading.RLock` allows."""
        return lock
