"""Turns: the commits of this process to one session wait for each other, in order.

Without them, commits of one process would race for the session's head, and every loser would read
and try again. A turn also carries company: plain appends that wait behind the one whose turn it is
are committed together with it, in its two requests.

Turns are a courtesy, not a lock: what is right does not depend on them (other processes write too),
so a commit that has waited `PATIENCE_SECONDS` goes ahead, whatever holds up the one before it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import Any

from tsmemory.backends.tablestore.rows import Encoded
from tsmemory.backends.tablestore.sdk import sdk
from tsmemory.engine.locks import releasing
from tsmemory.engine.records import Change, Outcome

__all__ = ["PATIENCE_SECONDS", "Turn"]

PATIENCE_SECONDS = 5.0
_MAX_ROWS = 200
"""Messages committed together: rows of one BatchWriteRow."""
_MAX_BYTES = 1_000_000

_lock = threading.RLock()
_queues: dict[Hashable, deque[Turn]] = {}


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _queues.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Turn:
    """One commit's place in the queue of its session.

    Args:
        name: the session, across every store of this process.
        owner: what the commit is made with (credentials, layout, clock): only commits of equal
            owners are committed together, whichever stores they come from.
        change: what to commit; None where it must not be known before the turn comes.
        encoded: its messages by id.
    """

    def __init__(
        self, name: Hashable, owner: object, change: Change | None, encoded: Mapping[str, Encoded]
    ) -> None:
        self.name = name
        self.owner = owner
        self.change = change
        self.encoded = encoded
        self.outcome: Outcome | None = None
        """Set where another turn committed this one's change."""
        self.company: list[Turn] = []
        self._ready = False
        self._signal = threading.Lock()
        """Held until it is ready, where a thread waits for it."""
        self._signal.acquire()
        self._future: asyncio.Future[None] | None = None
        """Where a task waits for it."""

    def join(self) -> None:
        with releasing(_lock), _lock:
            queue = _queues.setdefault(self.name, deque())
            queue.append(self)
            if queue[0] is self:
                _wake(self)

    def wait(self, client: Any) -> Any:
        """A step: waits for the turn, or for the outcome of the turn that took this one along."""
        if self._ready:
            return None
        if isinstance(client, sdk.AsyncOTSClient):
            return self._await()
        self._signal.acquire(timeout=PATIENCE_SECONDS)
        return None

    async def _await(self) -> None:
        self._future = asyncio.get_running_loop().create_future()
        if not self._ready:  # looked at after the future is there: `_wake` does it in reverse
            await asyncio.wait([self._future], timeout=PATIENCE_SECONDS)

    def gather_company(self) -> None:
        """Take along the plain appends that wait directly behind this one."""
        with releasing(_lock), _lock:
            queue = _queues.get(self.name)
            if self.outcome is not None or not queue or queue[0] is not self:
                return
            if self.change is None or not _is_plain(self.change):
                return
            ids = {message.message_id for message in self.change.append}
            size = sum(one.size for one in self.encoded.values())
            for turn in list(queue)[1:]:
                change = turn.change
                if turn.owner != self.owner or change is None or not _is_plain(change):
                    break
                more = {message.message_id for message in change.append}
                size += sum(one.size for one in turn.encoded.values())
                if (
                    ids & more or len(ids) + len(more) > _MAX_ROWS or size > _MAX_BYTES
                    or _lifetime(change) != _lifetime(self.change)
                ):  # fmt: skip
                    break
                ids |= more
                self.company.append(turn)

    def finish_company(self, outcomes: Callable[[Turn], Outcome]) -> None:
        """Give those that were taken along their outcomes."""
        with releasing(_lock), _lock:
            company, self.company = self.company, []
            for turn in company:
                turn.outcome = outcomes(turn)
                queue = _queues.get(self.name)
                if queue is not None and turn in queue:
                    queue.remove(turn)
                _wake(turn)

    def leave(self) -> None:
        """End the turn, however it ended, and let the next one begin. May be called again."""
        with releasing(_lock), _lock:
            queue = _queues.get(self.name)
            if queue is None:
                return
            first = bool(queue) and queue[0] is self
            if self in queue:
                queue.remove(self)
            if not queue:
                del _queues[self.name]
            elif first:
                _wake(queue[0])


def _wake(turn: Turn) -> None:
    """Let the turn begin, or learn its outcome; the lock is held."""
    if turn._ready:
        return
    turn._ready = True
    turn._signal.release()
    if turn._future is not None:
        with suppress(RuntimeError):  # its loop was closed: nobody waits any more
            turn._future.get_loop().call_soon_threadsafe(_resolve, turn._future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _is_plain(change: Change) -> bool:
    """Whether the change only appends, whatever the session's version."""
    return bool(change.append) and not (
        change.put or change.delete or change.delete_through or change.session is not None
        or change.if_version is not None
    )  # fmt: skip


def _lifetime(change: Change) -> tuple[object, ...]:
    return change.create, change.ttl, change.default_ttl
