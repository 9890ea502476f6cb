"""Reading: each operation is one SELECT, so it sees one state of the file.

Metadata filters run here, on the rows as they stream out of the index: SQLite would run in this
same process, and its JSON functions know neither our types nor our rules.
"""

from __future__ import annotations

import sqlite3
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from tsmemory.backends.sqlite.changes import messages_by_id, session_row
from tsmemory.backends.sqlite.file import Connection
from tsmemory.backends.sqlite.layout import (
    LISTING_LAG_US,
    LIVE,
    MAX_TIME,
    SESSION_COLUMNS,
    SessionRow,
    decode_row,
)
from tsmemory.engine.records import Key, MessageQuery, Position, Read, SessionQuery
from tsmemory.engine.rows import passes
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session

__all__ = ["get_messages", "get_session", "list_sessions", "read"]

_OF_SESSION = f"session = (SELECT pk FROM sessions WHERE {LIVE})"
_NO_LIMIT = -1  # what SQLite takes for none
_MAX_LIMIT = 2**63 - 1


def get_session(db: Connection, key: Key, now: int) -> Session | CorruptRecordError | None:
    """The record of a live session."""
    row = session_row(db, key, now)
    return row.session() if row else None


def get_messages(
    db: Connection, key: Key, ids: Sequence[str], now: int
) -> list[Message | CorruptRecordError]:
    """Those of the ids that are there, in no particular order."""
    row = session_row(db, key, now)
    return messages_by_id(db, key, row.pk, ids) if row else []


# -- messages --------------------------------------------------------------------------------


def read(db: Connection, key: Key, query: MessageQuery, now: int) -> Read:
    """Messages of a live session, and what else the query asks for, from one state of the file."""
    live = (key.user_id, key.session_id, now)
    clauses, values = [_OF_SESSION], [*live]
    _add_range(clauses, values, "create_time", query.created_from, query.created_to)
    if query.after is not None:
        clauses.append(f"(create_time, message_id) {'<' if query.descending else '>'} (?, ?)")
        values.extend(query.after)
    way = "DESC" if query.descending else "ASC"
    select = (
        f"SELECT create_time, message_id, body FROM messages WHERE {' AND '.join(clauses)} "
        f"ORDER BY create_time {way}, message_id {way}"
    )
    with_pinned = query.pinned and query.limit is not None
    if not (with_pinned or query.total or query.session):
        return Read(_first(key, _limited(db, select, values, query), query))
    return _read_more(db, key, query, select, values, live, with_pinned)


def _read_more(
    db: Connection,
    key: Key,
    query: MessageQuery,
    select: str,
    values: list[Any],
    live: tuple[str, str, int],
    with_pinned: bool,
) -> Read:
    """One statement with up to three parts; the last column says whose part a row is."""
    parts: list[str] = []
    bound: list[Any] = []
    with_session = query.total or query.session
    padding = ", NULL" * (SESSION_COLUMNS.count(",") - 2) if with_session else ""
    if with_session:
        parts.append(f"SELECT {SESSION_COLUMNS}, 0 FROM sessions WHERE {LIVE}")
        bound += live
    limit = _NO_LIMIT
    if query.limit is not None and query.where is None:
        limit = min(query.limit, _MAX_LIMIT)
    parts.append(f"SELECT *{padding}, 1 FROM ({select} LIMIT ?)")
    bound += [*values, limit]
    if with_pinned:
        parts.append(
            f"SELECT *{padding}, 2 FROM (SELECT create_time, message_id, body FROM messages "
            f"WHERE {_OF_SESSION} AND pinned = 1 ORDER BY create_time, message_id)"
        )
        bound += live
    columns = db.execute(" UNION ALL ".join(parts), bound).fetchall()
    session = None
    if with_session and columns and columns[0][-1] == 0:
        session = SessionRow._make(columns[0][:-1]).session()
    rows = _first(key, [row for row in columns if row[-1] == 1], query)
    pinned: list[Message | CorruptRecordError] = []
    if with_pinned and rows and columns[-1][-1] == 2:
        oldest = _position(rows[-1])
        standing = (decode_row(key, row[0], row[1], row[2]) for row in columns if row[-1] == 2)
        pinned = [message for message in standing if _position(message) < oldest]
    total = None
    if query.total:
        total = session.message_count if isinstance(session, Session) else 0
    return Read(rows, pinned, total, session if query.session else None)


def _position(row: Message | CorruptRecordError) -> Position:
    return Position(row.create_time or 0, row.message_id or "")


def _first(
    key: Key, rows: Iterable[Any], query: MessageQuery
) -> list[Message | CorruptRecordError]:
    """The messages that the filter lets through, up to the limit; no more are read."""
    if not query.descending:
        messages = (_ascending(key, row) for row in rows)
    elif query.where is None:
        return [decode_row(key, row[0], row[1], row[2]) for row in rows]
    else:
        messages = (decode_row(key, row[0], row[1], row[2]) for row in rows)
    passed = (message for message in messages if passes(message, query.where))
    return list(islice(passed, None if query.limit is None else min(query.limit, _MAX_LIMIT)))


def _ascending(key: Key, row: Sequence[Any]) -> Message | CorruptRecordError:
    """The message, or an error whose position is behind the row's own: see `_listed`."""
    message = decode_row(key, row[0], row[1], row[2])
    regular = type(row[0]) is int and type(row[1]) is str
    if isinstance(message, CorruptRecordError) and not regular:
        message.create_time = min((message.create_time or 0) + 1, MAX_TIME)
    return message


# -- sessions --------------------------------------------------------------------------------


def list_sessions(
    db: Connection, query: SessionQuery, now: int
) -> list[Session | CorruptRecordError]:
    """Live sessions in the order of `update_time`, from the index of `listed_time`."""
    clauses = ["(expires_at IS NULL OR expires_at > ?)"]
    values: list[Any] = [now]
    if query.user_id is not None:
        clauses.append("user_id = ?")
        values.append(query.user_id)
    low, high = query.updated_from, query.updated_to
    _add_range(clauses, values, "update_time", low, high)
    if query.after is not None:
        sign = "<" if query.descending else ">"
        clauses.append(f"(update_time, user_id, session_id) {sign} (?, ?, ?)")
        values.extend(query.after)
        if query.descending:
            high = query.after[0] if high is None else min(high, query.after[0])
        else:
            low = query.after[0] if low is None else max(low, query.after[0])
    _add_range(clauses, values, "listed_time", None if low is None else low - LISTING_LAG_US, high)
    rows = db.execute(
        f"SELECT {SESSION_COLUMNS} FROM sessions WHERE {' AND '.join(clauses)} "
        f"ORDER BY listed_time {'DESC' if query.descending else 'ASC'}",
        values,
    )
    in_order = _by_activity(map(SessionRow._make, rows), query)
    limit = None if query.limit is None else min(query.limit, _MAX_LIMIT)
    if query.descending and query.where is None:
        return [row.session() for row in islice(in_order, limit)]
    sessions = (_listed(row, query.descending) for row in in_order)
    return list(islice((session for session in sessions if passes(session, query.where)), limit))


def _listed(row: SessionRow, descending: bool) -> Session | CorruptRecordError:
    """The record, or an error whose place, as a cursor, is behind the row's own: a damaged time or
    id may be behind every place that a cursor can say."""
    session = row.session()
    if isinstance(session, CorruptRecordError) and not descending:
        regular = type(row.update_time) is int and type(row.user_id) is type(row.session_id) is str
        session.create_time = min(session.create_time + (not regular), MAX_TIME)
    return session


def _by_activity(rows: Iterator[SessionRow], query: SessionQuery) -> Iterator[SessionRow]:
    """Rows that come in the order of `listed_time`, in the order of `update_time`.

    A row is given out once no later one can be before it: later ones were listed no later (or no
    earlier) than the one just read, and active at most `LISTING_LAG_US` after they were listed.
    """
    descending = query.descending
    waiting: list[tuple[Any, ...]] = []  # in order of activity; each with its row at the end
    for number, row in enumerate(rows):
        while waiting and _precedes(waiting[-1 if descending else 0], row.listed_time, descending):
            yield waiting.pop(-1 if descending else 0)[-1]
        time = row.update_time
        # SQLite sorts numbers before text before blobs.
        rank = 0 if isinstance(time, (int, float)) else 1 if isinstance(time, str) else 2
        insort(waiting, (rank, time, str(row.user_id), str(row.session_id), number, row))
    if descending:
        waiting.reverse()
    yield from (place[-1] for place in waiting)


def _precedes(place: tuple[Any, ...], listed_time: Any, descending: bool) -> bool:
    """Whether every row that is listed at `listed_time`, or further on, comes after `place`."""
    if not isinstance(listed_time, (int, float)) or place[0]:
        return descending
    if descending:
        return bool(place[1] > listed_time + LISTING_LAG_US)
    return bool(place[1] < listed_time)


# -- what both share -------------------------------------------------------------------------


def _add_range(
    clauses: list[str], values: list[Any], column: str, first: int | None, last: int | None
) -> None:
    for sign, bound in ((">=", first), ("<=", last)):
        if bound is not None:
            clauses.append(f"{column} {sign} ?")
            values.append(bound)


def _limited(
    db: Connection, select: str, values: Sequence[Any], query: MessageQuery
) -> sqlite3.Cursor:
    if query.limit is None or query.where is not None:
        return db.execute(select, values)
    return db.execute(f"{select} LIMIT ?", (*values, min(query.limit, _MAX_LIMIT)))
