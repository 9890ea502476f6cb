"""Reading: each operation is one SELECT, or a few in one transaction, so it sees one state of the
file.

Metadata filters run here, on the rows as they stream out of the index: SQLite would run in this
same process, and its JSON functions know neither our types nor our rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tsmemory.backends.sqlite.changes import messages_by_id, session_row
from tsmemory.backends.sqlite.file import Connection
from tsmemory.backends.sqlite.layout import (
    LISTING_LAG_US,
    LIVE,
    LIVE_SESSION,
    MAX_TIME,
    SESSION_COLUMNS,
    SessionRow,
    decode_row,
    session_of,
)
from tsmemory.engine.records import Key, MessageQuery, Read, SessionQuery
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
    with_pinned = query.pinned and query.limit is not None
    if db.in_transaction or not (with_pinned or query.total or query.session):
        return _read(db, key, query, now, with_pinned)
    db.execute("BEGIN")
    try:
        return _read(db, key, query, now, with_pinned)
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def _read(db: Connection, key: Key, query: MessageQuery, now: int, with_pinned: bool) -> Read:
    rows, oldest, more = _messages(db, key, query, now)
    pinned: list[Message | CorruptRecordError] = []
    if with_pinned and oldest is not None:
        values = (key.user_id, key.session_id, now, *oldest)
        pinned = [decode_row(key, *columns) for columns in db.execute(_PINNED, values)]
    session, total = None, None
    if query.total or query.session:
        session = get_session(db, key, now)
        total = session.message_count if isinstance(session, Session) else 0
    return Read(
        rows,
        pinned,
        total if query.total else None,
        session if query.session else None,
        more,
    )


_SELECT = f"SELECT create_time, message_id, body FROM messages WHERE {_OF_SESSION}"
_PINNED = (
    f"{_SELECT} AND pinned = 1 AND (create_time, message_id) < (?, ?) "
    "ORDER BY create_time, message_id"
)


@lru_cache
def _statement(descending: bool, after: bool, created_from: bool, created_to: bool) -> str:
    """The SELECT for a range of messages."""
    conditions = [_SELECT]
    if created_from:
        conditions.append("create_time >= ?")
    if created_to:
        conditions.append("create_time <= ?")
    if after:
        conditions.append(f"(create_time, message_id) {'<' if descending else '>'} (?, ?)")
    way = "DESC" if descending else "ASC"
    return f"{' AND '.join(conditions)} ORDER BY create_time {way}, message_id {way} LIMIT ?"


def _messages(
    db: Connection, key: Key, query: MessageQuery, now: int
) -> tuple[list[Message | CorruptRecordError], tuple[Any, Any] | None, bool]:
    """Rows as `MessageQuery` says, the position of the last one as the file has it, and whether
    they end at `MessageQuery.until`. No row behind it is decoded."""
    limit, where, until, least = query.limit, query.where, query.until, query.least
    after, created_from, created_to = query.after, query.created_from, query.created_to
    values: list[Any] = [key.user_id, key.session_id, now]
    if created_from is not None:
        values.append(created_from)
    if created_to is not None:
        values.append(created_to)
    if after is not None:
        values += after
    filtered = where is not None and limit != 0
    values.append(_NO_LIMIT if limit is None or filtered else min(limit, _MAX_LIMIT))
    statement = _statement(
        query.descending, after is not None, created_from is not None, created_to is not None
    )
    decode = decode_row if query.descending else _ascending
    rows: list[Message | CorruptRecordError] = []
    oldest = None
    for create_time, message_id, body in db.execute(statement, values):
        row = decode(key, create_time, message_id, body)
        if filtered and not passes(row, where):
            continue
        rows.append(row)
        oldest = (create_time, message_id)
        count = len(rows)
        if count == limit:
            break
        if count >= least and until is not None and type(row) is Message and until(row):
            return rows, oldest, True
    return rows, oldest, False


def _ascending(
    key: Key, create_time: int, message_id: str, body: bytes
) -> Message | CorruptRecordError:
    """The message, or an error whose position is behind the row's own: see `_listed`."""
    message = decode_row(key, create_time, message_id, body)
    regular = type(create_time) is int and type(message_id) is str
    if isinstance(message, CorruptRecordError) and not regular:
        message.create_time = min((message.create_time or 0) + 1, MAX_TIME)
    return message


# -- sessions --------------------------------------------------------------------------------


def list_sessions(
    db: Connection, query: SessionQuery, now: int
) -> list[Session | CorruptRecordError]:
    """Live sessions in the order of `update_time`, from one state of the file."""
    limit = None if query.limit is None else min(query.limit, _MAX_LIMIT)
    if db.in_transaction or query.where is None:
        return _list_sessions(db, query, now, limit)
    db.execute("BEGIN")
    try:
        return _list_sessions(db, query, now, limit)
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def _list_sessions(
    db: Connection, query: SessionQuery, now: int, limit: int | None
) -> list[Session | CorruptRecordError]:
    where = query.where
    if where is None:
        return [_listed(row, query.descending) for row in _session_rows(db, query, now, limit)]
    sessions: list[Session | CorruptRecordError] = []
    size, last = _FIRST_PAGE, None
    while limit is None or len(sessions) < limit:
        rows = _session_rows(db, query, now, size, last)
        page = (_listed(row, query.descending) for row in rows)
        sessions += (session for session in page if passes(session, where))
        if len(rows) < size:
            break
        # Twice as many each time: the sessions that were active at once with the last one are
        # looked at again.
        size, last = size * 2, rows[-1]
    return sessions[:limit]


def _session_rows(
    db: Connection,
    query: SessionQuery,
    now: int,
    limit: int | None,
    last: tuple[Any, ...] | None = None,
) -> list[tuple[Any, ...]]:
    """The next rows in the order of `update_time`, by the index of `listed_time`.

    As many rows that are listed at or before their activity end at a `listed_time`, the *edge*:
    what is further than `LISTING_LAG_US` behind it cannot be among them. SQLite sorts the rest.

    Args:
        last: the row to go on after, instead of `SessionQuery.after`.
    """
    clauses = [LIVE_SESSION]
    values: list[Any] = [now]
    if query.user_id is not None:
        clauses.append("user_id = ?")
        values.append(query.user_id)
    low, high = query.updated_from, query.updated_to
    _add_range(clauses, values, "update_time", low, high)
    after = query.after
    if after is not None or last is not None:
        sign = "<" if query.descending else ">"
        start = "(?, ?, ?)" if last is None else f"(SELECT {_PLACE} FROM sessions WHERE pk = ?)"
        clauses.append(f"({_PLACE}) {sign} {start}")
        values += (after or ()) if last is None else last[:1]
        time = after[0] if last is None and after else last[_UPDATE_TIME] if last else None
        if isinstance(time, int) and query.descending:
            high = time if high is None else min(high, time)
        elif isinstance(time, int):
            low = time if low is None else max(low, time)
    _add_range(clauses, values, "listed_time", None if low is None else low - LISTING_LAG_US, high)
    condition = " AND ".join(clauses)
    if limit is not None:
        edge = _EDGES[query.descending].format(condition=condition)
        condition = f"{condition} AND {edge}"
        values += (*values, limit - 1)
    way = "DESC" if query.descending else "ASC"
    order = ", ".join(f"{column} {way}" for column in _PLACE.split(", "))
    values.append(_NO_LIMIT if limit is None else limit)
    sql = f"SELECT {SESSION_COLUMNS} FROM sessions WHERE {condition} ORDER BY {order} LIMIT ?"
    return db.execute(sql, values).fetchall()


_PLACE = "update_time, user_id, session_id"
_FIRST_PAGE = 256  # sessions that a filter is tried on at first
_EDGE = (
    "coalesce((SELECT listed_time {lag} FROM (SELECT listed_time FROM sessions "
    "WHERE {{condition}} AND update_time >= listed_time ORDER BY listed_time {way} "
    "LIMIT 1 OFFSET ?) WHERE typeof(listed_time) = 'integer'), {end})"
)
_EDGES = {
    True: "listed_time >= "
    + _EDGE.format(lag=f"- {LISTING_LAG_US}", way="DESC", end=f"{-(2**63)}"),
    False: "listed_time <= "
    + _EDGE.format(
        lag=f"+ {LISTING_LAG_US}", way="ASC", end="(SELECT max(listed_time) FROM sessions)"
    ),
}
"""By whether the listing is descending. A damaged edge is none: all are sorted then."""


def _listed(row: tuple[Any, ...], descending: bool) -> Session | CorruptRecordError:
    """The record, or an error whose place, as a cursor, is behind the row's own: a damaged time or
    id may be behind every place that a cursor can say."""
    session = session_of(row)
    if isinstance(session, CorruptRecordError) and not descending:
        regular = type(row[_UPDATE_TIME]) is int and type(row[_USER]) is type(row[_SESSION]) is str
        session.create_time = min(session.create_time + (not regular), MAX_TIME)
    return session


_USER, _SESSION, _UPDATE_TIME = map(
    SessionRow._fields.index, ("user_id", "session_id", "update_time")
)
"""Columns of rows that are not made a `SessionRow`: of a listing there are many."""


# -- what both share -------------------------------------------------------------------------


def _add_range(
    clauses: list[str], values: list[Any], column: str, first: int | None, last: int | None
) -> None:
    for sign, bound in ((">=", first), ("<=", last)):
        if bound is not None:
            clauses.append(f"{column} {sign} ?")
            values.append(bound)
