"""Changes of any size, in slices: nobody waits for one longer than a slice takes the server.

1. The session is held by a lease, renewed with each slice; other writers wait, readers do not.
2. What the change touches is loaded in slices, and planned in the client as any other.
3. A batch that only appends to a session is staged at the end of its log, as rows that its state
   counts apart (``pending``). Any other change is staged as a copy, the old rows and the new ones
   merged in the server.
4. The last slice makes all of it visible: the pending rows are counted, or the copy is renamed.
5. A writer that dies within leaves pending rows, which the next writer removes, or a copy, which
   the server removes after ten minutes; its lease is over in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.calls import Call
from tsmemory.backends.redis.layout import changed_fields, state_of, store_id, update_time_of
from tsmemory.backends.redis.loading import (
    LEASE_MS,
    SLICE_BYTES,
    SLICE_ROWS,
    Snapped,
    StaleError,
    Waiting,
    hold,
    release,
    repair,
)
from tsmemory.backends.redis.reader import lost
from tsmemory.backends.redis.server import RedisServer
from tsmemory.backends.redis.writer import Written, in_order, load_for, loaded, settle, write
from tsmemory.engine import commit as template
from tsmemory.engine.commit import Loaded, Plan
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import Change, Key, Outcome, Position
from tsmemory.engine.steps import Steps
from tsmemory.model import Message, is_pinned

__all__ = ["commit_in_slices"]

_log = get_logger("redis")
_DELETIONS = 1_000  # sent with one slice


def commit_in_slices(
    server: RedisServer, key: Key, change: Change, bodies: Mapping[str, bytes], token: bytes,
    waiting: Waiting,
) -> Steps[Outcome]:  # fmt: skip
    """A commit of any size. See the module."""
    size = len(change.append) + len(change.put) + len(change.delete)
    ms = LEASE_MS + size // 50  # planning takes the client time too
    while True:
        token = yield from hold(server, key, waiting, token, ms)  # 1
        try:
            outcome = yield from _attempt(server, key, change, bodies, token, ms, waiting)
        except StaleError:
            _log.warning("session %s: a large change lost its lease, and begins again", hashed(key))
            yield waiting.pause()
            continue
        except Exception:
            yield from release(server, key, token)
            raise
        yield from release(server, key, token)
        return outcome


def _attempt(
    server: RedisServer, key: Key, change: Change, bodies: Mapping[str, bytes], token: bytes,
    ms: int, waiting: Waiting,
) -> Steps[Outcome]:  # fmt: skip
    yield from repair(server, key, token, waiting)
    snapped = yield from load_for(server, key, change, token)  # 2

    def load_it() -> Steps[Loaded]:
        return loaded(key, change, snapped)
        yield  # a generator, though it never yields

    def apply(plan: Plan, encoded: Mapping[str, bytes]) -> Steps[None]:
        yield from hold(server, key, waiting, token, ms)
        yield from _stage(server, key, change, snapped, plan, encoded, token, ms)

    return (
        yield from template.commit(
            key, change, clock=lambda: snapped.now, load=load_it, apply=apply, bodies=bodies
        )
    )


def _stage(
    server: RedisServer, key: Key, change: Change, snapped: Snapped, plan: Plan,
    encoded: Mapping[str, bytes], token: bytes, ms: int,
) -> Steps[None]:  # fmt: skip
    assert plan.head is not None  # a plan that changes anything leaves a session
    session = server.names.session(key)
    before = loaded(key, change, snapped)
    written = in_order(plan, before.positions)
    mode = "copy"
    if before.head is not None and written.rows and not (plan.overwrite or plan.delete):
        earliest = written.rows[0][1].create_time or 0
        if not snapped.counted and earliest > before.head.last_time:
            mode = "tail"
    if mode == "copy":
        yield from server.calls([Call(None, session.staging, ("UNLINK", *session.staging))])
    staged = yield from _stage_rows(server, key, mode, written, snapped.counted, before.positions,
                                    encoded, token, ms)  # fmt: skip
    state = state_of(plan.head).encode()
    set_to, removed = changed_fields(change.session, snapped.fields)
    args: list[Any] = [
        token, os.urandom(9).hex(), server.remember_ms(), len(plan.delete) + snapped.counted, mode,
        staged, snapped.version, state, session.member, session.all_member, len(set_to),
        len(removed),
    ]  # fmt: skip
    for pair in set_to:
        args += pair
    args += removed
    announced = plan.head.session.update_time
    what, _, *reply = yield from write(  # 4
        server, session, scripts.FINISH, args, announced, session.staging
    )
    if what == b"lost":
        raise lost(key, reply[0])
    if what not in (b"ok", b"done"):
        raise StaleError
    yield from settle(server, session, max(announced, update_time_of(snapped.state)), state)


def _stage_rows(
    server: RedisServer, key: Key, mode: str, written: Written, hidden: int,
    positions: Mapping[str, Position], encoded: Mapping[str, bytes], token: bytes, ms: int,
) -> Steps[int]:  # fmt: skip
    """Steps 3: how many rows the new log, or its new end, has."""
    session = server.names.session(key)
    gone = sorted(
        [*written.gone, *(positions[m.message_id] for old, m in written.rows if old is not None)]
    )
    rows = [m for _, m in written.rows]
    index = hidden
    staged = row_at = gone_at = 0
    while True:
        batch = _slice(rows, row_at, encoded)
        deletions = gone[gone_at : gone_at + _DELETIONS]
        more_rows = row_at + len(batch) < len(rows)
        more_gone = gone_at + len(deletions) < len(gone)
        args: list[Any] = [
            token, ms, mode, staged, index, "1" if more_rows else "", "1" if more_gone else "",
            len(deletions),
        ]  # fmt: skip
        for position in deletions:
            args += (position.create_time, store_id(position.message_id))
        for message in batch:
            pin = b"1" if is_pinned(message.role) else b"0"
            mid = message.message_id
            args += (message.create_time, store_id(mid), pin + encoded[mid])
        what, _, *reply = yield from server.call(
            scripts.STAGE, (*session.keys, *session.staging), *args
        )
        if what == b"lost":
            raise lost(key, reply[0])
        if what != b"ok":
            raise StaleError
        before = (index, staged)
        index, staged, gone_done, rows_done = reply
        row_at += rows_done
        gone_at += gone_done
        if before == (index, staged) and not (gone_done or rows_done):
            return int(staged)


def _slice(rows: list[Message], start: int, encoded: Mapping[str, bytes]) -> list[Message]:
    """The next rows for one script."""
    batch: list[Message] = []
    size = 0
    for message in rows[start : start + SLICE_ROWS]:
        size += len(encoded[message.message_id])
        if batch and size > SLICE_BYTES:
            break
        batch.append(message)
    return batch
