"""Loading a session to change it, and waiting for the other writers that hold it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.layout import State, read_head, read_row, split_rows, store_id
from tsmemory.backends.redis.reader import lost
from tsmemory.backends.redis.server import RedisServer
from tsmemory.engine.commit import Head
from tsmemory.engine.contract import REWRITE_SECONDS
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import Key, Position
from tsmemory.engine.steps import Pause, Steps
from tsmemory.errors import ConflictError, CorruptRecordError
from tsmemory.model import Message

__all__ = [
    "LEASE_MS", "SLICE_BYTES", "SLICE_ROWS", "LargeError", "Snapped", "StaleError", "Waiting",
    "hold", "load", "release", "repair",
]  # fmt: skip

_log = get_logger("redis")
SLICE_ROWS = 500  # messages in one script
SLICE_BYTES = 1_000_000  # of messages, unless one alone has more
LEASE_MS = 3_000
_REPAIR_ROWS = 1_000


class StaleError(Exception):
    """The session is not as it was loaded: load it again."""


class LargeError(Exception):
    """The change is too large for one script."""


class Waiting:
    """The pauses of one operation that other writers hold up."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._deadline = time.monotonic() + REWRITE_SECONDS
        self.attempts = 0

    def pause(self, longest: float = 0.25) -> Pause:
        """
        Raises:
            ConflictError: it was long enough.
        """
        self.attempts += 1
        if time.monotonic() > self._deadline:
            raise ConflictError(
                f"session {self._key.session_id!r}: other writers held it, or changed it, "
                f"{self.attempts} times in {REWRITE_SECONDS:.0f} s; repeat this when they are done"
            )
        if self.attempts in (10, 100):
            _log.info("session %s: %d waits for other writers", hashed(self._key), self.attempts)
        return Pause(min(0.002 * 1.5 ** min(self.attempts, 20), longest) * random.uniform(0.5, 1.0))


class Snapped(NamedTuple):
    """A session as ``load`` found it."""

    now: int
    state: bytes
    """Empty where there is none."""
    fields: Sequence[bytes]
    rows: list[Message | CorruptRecordError]
    times: list[int | None]
    counted: int

    @property
    def version(self) -> int:
        return State.parse(self.state).version if self.state else 0

    def head(self, key: Key) -> Head | None:
        """
        Raises:
            CorruptRecordError: it does not decode.
        """
        if not self.state:
            return None
        session = read_head(key, self.state, self.fields)
        if isinstance(session, CorruptRecordError):
            raise session
        return Head(session, State.parse(self.state).last_time)


def load(
    server: RedisServer, key: Key, token: bytes, rows: Sequence[str], times: Sequence[str],
    through: Position | None = None,
) -> Steps[Snapped]:  # fmt: skip
    """What a change decides on: the rows of some ids, the times of others, in their order.

    Raises:
        CorruptRecordError: the session has lost a part.
    """
    session = server.names.session(key)
    bound: tuple[Any, Any] = (b"", b"")
    if through is not None:
        bound = (max(through.create_time, 0), store_id(through.message_id))
    waiting = Waiting(key)
    names = [*rows, *times]
    snapped: Snapped | None = None
    at = 0
    while snapped is None or at < len(names):
        stored_ids = [store_id(mid) for mid in names[at : at + SLICE_ROWS]]
        count = min(max(len(rows) - at, 0), len(stored_ids))
        while True:
            what, now, *reply = yield from server.call(
                scripts.LOAD, session.keys, token, b"1", *bound, count, *stored_ids
            )
            server.heard(now)
            if what == b"ok":
                break
            if what == b"lost":
                raise lost(key, reply[0])
            if what == b"repair":
                yield from repair(server, key, token, waiting)
            else:
                yield waiting.pause()
        state, fields, lengths, text, told, counted, done = reply
        at += done
        portion = Snapped(
            int(now),
            state,
            fields,
            [read_row(key, row) for row in split_rows(lengths, text)],
            [None if time == b"-" else int(time) for time in told.split()] if state
            else list[int | None]([None] * (len(stored_ids) - count)),
            counted,
        )  # fmt: skip
        if snapped is None:
            snapped = portion
        elif snapped.state != state:
            raise StaleError
        else:
            snapped.rows.extend(portion.rows)
            snapped.times.extend(portion.times)
    return snapped


def repair(server: RedisServer, key: Key, token: bytes, waiting: Waiting) -> Steps[None]:
    """Remove what no reader sees, in slices."""
    keys = server.names.session(key).keys
    while True:
        what, _, *reply = yield from server.call(scripts.REPAIR, keys, token, _REPAIR_ROWS)
        if what == b"lost":
            raise lost(key, reply[0])
        if what == b"ok":
            return
        if what == b"busy":
            yield waiting.pause()


def hold(
    server: RedisServer, key: Key, waiting: Waiting, token: bytes = b"", ms: int = LEASE_MS
) -> Steps[bytes]:
    """Take, or keep, the lease of a session: its token."""
    token = token or os.urandom(9).hex().encode()
    while True:
        what, _ = yield from server.call(scripts.LEASE, server.names.session(key).keys, token, ms)
        if what == b"ok":
            return token
        yield waiting.pause(0.05)


def release(server: RedisServer, key: Key, token: bytes) -> Steps[None]:
    """Give the lease back, where there is one."""
    if token:
        yield from server.call(scripts.LEASE, server.names.session(key).keys, token, 0)
