"""Reads: each is one statement, so that everything in its answer is from one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tsmemory.backends.postgres.client import fetch
from tsmemory.backends.postgres.layout import Layout
from tsmemory.backends.postgres.rows import (
    MESSAGE_COLUMNS,
    SESSION_COLUMNS,
    SessionRow,
    escape_text,
    message_of,
)
from tsmemory.engine.records import Key, MessageQuery, Position, Read, SessionQuery
from tsmemory.engine.rows import passes, session_sort_key
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Session

__all__ = ["LIVE", "Reader", "minute"]

LIVE = "(s.expires_at IS NULL OR s.expires_at > {read_now})"
_PAGE = 500  # rows per statement where a filter decides here which of them count

_OF = (
    "m.session = (SELECT s.id FROM {sessions} s WHERE s.user_id = %(user_id)s "
    f"AND s.session_id = %(session_id)s AND {LIVE})"
)


def key_values(key: Key) -> dict[str, Any]:
    """The parameters that name a session."""
    return {"user_id": escape_text(key.user_id), "session_id": escape_text(key.session_id)}


def minute(time: int) -> int:
    """As the generated columns have it."""
    return time // 60_000_000


_SESSION = (
    f"SELECT {SESSION_COLUMNS} FROM {{sessions}} s "
    f"WHERE s.user_id = %(user_id)s AND s.session_id = %(session_id)s AND {LIVE}"
)
_MESSAGES = (
    f"SELECT {MESSAGE_COLUMNS} FROM {{messages}} m "
    f"WHERE {_OF} AND m.message_id = ANY(%(ids)s::text[])"
)


class Reader:
    """The reading primitives."""

    layout: Layout

    # -- sessions ----------------------------------------------------------------------------

    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        statement = (self.layout.fill(_SESSION), key_values(key))
        (rows,) = yield fetch(statement, user_id=key.user_id)
        return SessionRow(*rows[0]).session() if rows else None

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        sessions: list[Session | CorruptRecordError] = []
        after, size = query.after, query.limit
        if query.where is not None and size is not None:
            size = max(size, _PAGE)
        while True:
            statement = self.list_statement(query, after, size)
            (rows,) = yield fetch(statement, user_id=query.user_id)
            for row in rows:
                session = SessionRow(*row).session()
                if passes(session, query.where):
                    sessions.append(session)
                    if len(sessions) == query.limit:
                        return sessions
            if size is None or len(rows) < size:
                return sessions
            after = session_sort_key(session)

    def list_statement(
        self, query: SessionQuery, after: tuple[int, str, str] | None, limit: int | None
    ) -> tuple[str, dict[str, Any]]:
        clauses = [LIVE]
        values: dict[str, Any] = {"limit": limit}
        if query.user_id is not None:
            clauses.append("s.user_id = %(user_id)s")
            values["user_id"] = escape_text(query.user_id)
        for sign, bound, name in (
            (">=", query.updated_from, "updated_from"),
            ("<=", query.updated_to, "updated_to"),
            ("<=" if query.descending else ">=", after and after[0], "after"),
        ):
            if bound is not None:
                clauses.append(f"s.update_time {sign} %({name})s")
                clauses.append(f"s.active_minute {sign} %({name}_minute)s")
                values |= {name: bound, f"{name}_minute": minute(bound)}
        if after is not None:
            sign = "<" if query.descending else ">"
            clauses.append(
                f"(s.update_time, s.user_id, s.session_id) {sign} "
                "(%(after)s, %(after_user)s, %(after_session)s)"
            )
            values["after_user"], values["after_session"] = map(escape_text, after[1:])
        way = "DESC" if query.descending else "ASC"
        order = ("active_minute", "update_time", "user_id", "session_id")
        sql = (
            f"SELECT {SESSION_COLUMNS} FROM {{sessions}} s WHERE {' AND '.join(clauses)} "
            f"ORDER BY {', '.join(f's.{column} {way}' for column in order)} LIMIT %(limit)s"
        )
        return self.layout.fill(sql), values

    # -- messages ----------------------------------------------------------------------------

    def get_messages(self, key: Key, ids: Sequence[str]) -> Steps[list[Any]]:
        values = {**key_values(key), "ids": [escape_text(mid) for mid in ids]}
        statement = (self.layout.fill(_MESSAGES), values)
        (rows,) = yield fetch(statement, user_id=key.user_id)
        return [message_of(key, *row) for row in rows]

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        size = query.limit
        if query.where is not None and size is not None:
            size = max(size, _PAGE)
        statement = self.read_statement(key, query, query.after, size)
        (rows,) = yield fetch(statement, user_id=key.user_id)
        read, last = self.parse_read(key, query, rows)
        if query.where is None:
            return read
        found: list[Any] = []
        page = read.rows
        while True:
            for row in page:
                if passes(row, query.where):
                    found.append(row)
                    if len(found) == query.limit:
                        return read._replace(rows=found)
            if size is None or len(page) < size:
                return read._replace(rows=found)
            bare = msgspec.structs.replace(query, total=False, session=False)
            statement = self.read_statement(key, bare, last, size)
            (rows,) = yield fetch(statement, user_id=key.user_id)
            following, last = self.parse_read(key, bare, rows)
            page = following.rows

    def read_statement(
        self, key: Key, query: MessageQuery, after: Position | None, limit: int | None
    ) -> tuple[str, dict[str, Any]]:
        """The statement of a read; its rows are (part, create_time, message_id, body)."""
        clauses = [_OF]
        values: dict[str, Any] = {**key_values(key), "limit": limit}
        for sign, bound, name in (
            (">=", query.created_from, "created_from"),
            ("<=", query.created_to, "created_to"),
        ):
            if bound is not None:
                clauses.append(f"m.create_time {sign} %({name})s")
                values[name] = bound
        if after is not None:
            sign = "<" if query.descending else ">"
            clauses.append(f"(m.create_time, m.message_id) {sign} (%(after)s, %(after_id)s)")
            values |= {"after": after.create_time, "after_id": escape_text(after.message_id)}
        way = "DESC" if query.descending else "ASC"
        tail = (
            f"SELECT 0 AS part, {MESSAGE_COLUMNS} FROM {{messages}} m "
            f"WHERE {' AND '.join(clauses)} "
            f"ORDER BY m.create_time {way}, m.message_id {way} LIMIT %(limit)s"
        )
        parts = []
        if query.pinned and limit is not None and query.where is None:
            parts.append(
                f"SELECT * FROM (SELECT 1, {MESSAGE_COLUMNS} FROM {{messages}} m WHERE {_OF} "
                "AND m.pinned AND m.create_time <= (SELECT min(create_time) FROM tail) "
                "ORDER BY m.create_time, m.message_id) p"
            )
        if query.total or query.session:
            # The session as one JSON array, so that it fits among the messages.
            columns = f"json_build_array({SESSION_COLUMNS})::text" if query.session else "NULL"
            parts.append(
                f"SELECT 2, s.message_count, NULL, {columns} FROM {{sessions}} s "
                f"WHERE s.user_id = %(user_id)s AND s.session_id = %(session_id)s AND {LIVE}"
            )
        if parts:
            unions = " UNION ALL ".join(["SELECT * FROM tail", *parts])
            tail = f"WITH tail AS MATERIALIZED ({tail}) {unions}"
        return self.layout.fill(tail), values

    def parse_read(
        self, key: Key, query: MessageQuery, rows: list[Any]
    ) -> tuple[Read, Position | None]:
        """What the rows of `read_statement` say, and the position of the last message in them."""
        tail: list[Any] = []
        pinned: list[Any] = []
        total, session, last = (0 if query.total else None), None, None
        shown_ids = {row[2] for row in rows if row[0] == 0} if query.pinned else ()
        for part, time, message_id, body in rows:
            if part == 0:
                tail.append(message_of(key, time, message_id, body))
                last = Position(tail[-1].create_time, tail[-1].message_id)
            elif part == 1:
                # One at the tail's own oldest time may be in both.
                if message_id not in shown_ids:
                    pinned.append(message_of(key, time, message_id, body))
            else:
                total = time if query.total else None
                if body is not None:
                    session = SessionRow(*msgspec.json.decode(body)).session()
        return Read(tail, pinned, total, session), last
