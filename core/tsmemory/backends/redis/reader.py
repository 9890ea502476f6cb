"""Reading a session: its record, ranges of its messages, and messages by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.calls import Call, scripted
from tsmemory.backends.redis.filter import texts
from tsmemory.backends.redis.layout import (
    SessionKeys,
    State,
    read_head,
    read_row,
    split_rows,
    store_id,
    unpack_rows,
)
from tsmemory.backends.redis.server import RedisServer
from tsmemory.engine.records import Key, MessageQuery, Read
from tsmemory.engine.rows import passes
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session

__all__ = ["get_messages", "get_session", "heads", "is_as_new_as", "lost", "read", "request"]

PORTION_BYTES = 2_000_000  # of messages the server looks at in one call, then lets others in
PORTION_ROWS = 1_000
_HEADS = 50  # sessions whose records one script reads

Row = Message | CorruptRecordError


def lost(key: Key, what: bytes) -> CorruptRecordError:
    """What a session is answered with of which the server lost a part."""
    if what.startswith(b"layout"):
        reason = f"is written in another {what.decode(errors='replace')}, not this release's"
    else:
        reason = (
            f"has lost {what.decode()}, or a part of that: does the server evict keys? What is "
            "left can be deleted"
        )
    return CorruptRecordError(reason, user_id=key.user_id, session_id=key.session_id)


def get_session(server: RedisServer, key: Key) -> Steps[Session | CorruptRecordError | None]:
    ((what, *reply),) = yield from heads(server, [server.names.session(key)])
    return read_session(key, what, reply)


def heads(server: RedisServer, sessions: Sequence[SessionKeys]) -> Steps[list[Any]]:
    """What the server has of sessions, in order: what happened, and what `read_session` takes."""
    size = 1 if server.is_cluster else _HEADS
    replies = yield from server.calls(
        [
            scripted(scripts.HEAD, [k for keys in sessions[i : i + size] for k in keys.keys[:4]])
            for i in range(0, len(sessions), size)
        ]
    )
    found: list[Any] = []
    for now, *records in replies:
        server.heard(now)
        found += records
    return found


def read_session(
    key: Key, state: bytes, reply: Sequence[Any]
) -> Session | CorruptRecordError | None:
    """The session of a script's reply: what happened, and its state and other fields."""
    if state == b"lost":
        return lost(key, reply[0])
    return None if state == b"none" else read_head(key, reply[0], reply[1])


def request(
    server: RedisServer, key: Key, query: MessageQuery, found: int = 0,
    after: tuple[Any, Any] | None = None,
) -> Call:  # fmt: skip
    """The call that reads the next portion.

    Args:
        found: rows that there are already.
        after: time and stored id of the last row looked at; None at the beginning.
    """
    if after is None and query.after is not None:
        after = (max(query.after.create_time, 0), store_id(query.after.message_id))
    limit = PORTION_ROWS
    if query.limit is not None and query.where is None:
        limit = min(query.limit - found, PORTION_ROWS)
    args = (
        limit,
        "desc" if query.descending else "asc",
        b"" if query.created_from is None else max(query.created_from, 0),
        b"" if query.created_to is None else max(query.created_to, -1),
        *(after or (b"", b"")),
        "1" if query.pinned else "",
        PORTION_BYTES,
        *(item for part in texts(query.where) for item in (len(part), *part)),
    )
    return scripted(scripts.READ, server.names.session(key).keys, args)


def is_as_new_as(reply: Any, session: Session | None) -> bool:
    """Whether a reply to `request` shows the session as a writer of it left it, or a later one. Not
    so where a redirection made it overtake the write that was sent before it."""
    what, _, *values = reply
    if what in (b"lost", b"none") or session is None:
        return False
    return State.parse(values[0]).version >= session.version


def read(server: RedisServer, key: Key, query: MessageQuery, reply: Any = None) -> Steps[Read]:
    """The rows of a query.

    Args:
        reply: what `request` was answered, where it was asked already.
    """
    rows: list[Row] = []
    session: Session | CorruptRecordError | None = None
    after: tuple[Any, Any] | None = None
    while True:
        if reply is None:
            (reply,) = yield from server.calls([request(server, key, query, len(rows), after)])
        what, now, *found = reply
        server.heard(now)
        if not rows and (query.session or query.total or what == b"lost"):
            session = read_session(key, what, found)
        if what == b"lost":
            return Read([lost(key, found[0])], session=session)
        if what == b"none":
            return _answer(query, rows, (), session)
        _, _, done, chunks, pinned_rows, *last = found
        for chunk in chunks:
            packed = unpack_rows(chunk)
            for data in reversed(packed) if query.descending else packed:
                row = read_row(key, data)
                if passes(row, query.where):
                    rows.append(row)
        if done or (query.limit is not None and len(rows) >= query.limit):
            pinned = [read_row(key, data) for data in unpack_rows(pinned_rows)]
            pinned.sort(key=lambda row: (row.create_time or 0, row.message_id or ""))
            return _answer(query, rows, pinned, session)
        after, reply = (last[0], last[1]), None


def _answer(
    query: MessageQuery,
    rows: list[Row],
    pinned: Sequence[Row],
    session: Session | CorruptRecordError | None,
) -> Read:
    total = session.message_count if isinstance(session, Session) else 0
    return Read(
        rows[: query.limit],
        pinned,
        total if query.total else None,
        session if query.session else None,
    )


def get_messages(server: RedisServer, key: Key, ids: Sequence[str]) -> Steps[list[Row]]:
    rows: list[Row] = []
    at = 0
    while at < len(ids):
        names = [store_id(mid) for mid in ids[at : at + PORTION_ROWS]]
        what, now, *reply = yield from server.call(
            scripts.LOAD,
            server.names.session(key).keys,
            b"",
            b"",
            b"",
            b"",
            len(names),
            *names,
        )
        server.heard(now)
        if what == b"lost":
            return [lost(key, reply[0])]
        rows += (read_row(key, row) for row in split_rows(reply[2], reply[3]))
        at += reply[6]
    return rows
