"""Schema, deletion in slices, statistics and verification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tsmemory.backends.postgres import health
from tsmemory.backends.postgres.client import fetch
from tsmemory.backends.postgres.layout import EXPIRED, MIGRATIONS, Layout, policy
from tsmemory.backends.postgres.rows import (
    MESSAGE_COLUMNS,
    SESSION_COLUMNS,
    SessionRow,
    escape_text,
    message_of,
    unescape_text,
)
from tsmemory.engine.records import Finding, Key
from tsmemory.engine.steps import Steps
from tsmemory.errors import BackendError, CorruptRecordError, UnavailableError
from tsmemory.model import Erased, Problem, Stats

__all__ = ["Maintenance"]

_SLICE = 200  # sessions deleted per transaction
_PAGE = 500  # rows verified per statement


class Maintenance:
    """What is done to the whole store."""

    layout: Layout
    partitions: int
    row_security: bool

    # -- schema ------------------------------------------------------------------------------

    def setup(self) -> Steps[None]:
        """Bring the schema to the newest version, one process at a time. Where it is there
        already, this only reads, so that a role without rights to create may call it."""
        (((encoding, schema, table, secured),),) = yield fetch(self._state())
        if encoding != "UTF8":
            raise BackendError(f"the database's encoding is {encoding}; tsmemory needs UTF8")
        if table is not None:
            ((((version,),),)) = yield fetch(self._version())
            if version > len(MIGRATIONS):
                raise UnavailableError(
                    f"schema version {version} was made by a newer tsmemory; this one knows "
                    f"{len(MIGRATIONS)}: upgrade the package"
                )
            if version == len(MIGRATIONS) and (secured or not self.row_security):
                return
        yield lambda client: client.transaction(lambda: self._migrate(schema is None))

    def _state(self) -> tuple[str, Any]:
        return (
            "SELECT current_setting('server_encoding'), to_regnamespace(%(schema)s)::text, "
            "to_regclass(%(table)s)::text, coalesce((SELECT relrowsecurity FROM pg_class "
            "WHERE oid = to_regclass(%(messages)s)), false)",
            {
                "schema": self.layout.schema,
                "table": self.layout.table("migrations"),
                "messages": self.layout.table("messages"),
            },
        )

    def _version(self) -> tuple[str, Any]:
        return self.layout.fill("SELECT coalesce(max(version), 0) FROM {migrations}"), None

    def _migrate(self, create_schema: bool) -> Steps[None]:
        lock = (
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"tsmemory {self.layout.table('')}"],
        )
        table = (
            "CREATE TABLE IF NOT EXISTS {migrations} (version integer PRIMARY KEY, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
        yield lambda tx: tx.read(lock)
        if create_schema:
            yield lambda tx: tx.read((f"CREATE SCHEMA IF NOT EXISTS {self.layout.schema}", None))
        yield lambda tx: tx.read((self.layout.fill(table), None))
        ((((version,),),)) = yield lambda tx: tx.read(self._version())
        (((number,),),) = yield lambda tx: tx.read(
            ("SELECT current_setting('server_version_num')::int", None)
        )
        statements: list[tuple[str, Any]] = []
        for step in range(version, len(MIGRATIONS)):
            for sql in self.layout.migration(
                step, partitions=self.partitions, server_version=number
            ):
                statements.append((sql, None))  # noqa: PERF401  # another statement follows
            insert = self.layout.fill("INSERT INTO {migrations} (version) VALUES (%s)")
            statements.append((insert, [step + 1]))
        if self.row_security:
            statements += [(sql, None) for sql in policy(self.layout)]
        yield lambda tx: tx.write(*statements)

    # -- deletion ----------------------------------------------------------------------------

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        clauses, values = ["true"], {}
        if user_id is not None:
            clauses.append("s.user_id = %(user_id)s")
            values["user_id"] = escape_text(user_id)
        if session_id is not None:
            clauses.append("s.session_id = %(session_id)s")
            values["session_id"] = escape_text(session_id)
        return (yield from self._erase(" AND ".join(clauses), values, user_id, "FOR UPDATE"))

    def purge_expired(self) -> Steps[Erased]:
        return (yield from self._erase(EXPIRED, {}, None, "FOR UPDATE SKIP LOCKED"))

    def _erase(
        self, condition: str, values: dict[str, Any], user_id: str | None, lock: str
    ) -> Steps[Erased]:
        """Slice by slice, each a transaction that locks its sessions first: what an appender
        wrote before the lock was granted is seen by the statement that deletes the messages."""
        choose = self.layout.fill(
            f"SELECT s.id FROM {{sessions}} s WHERE {condition} ORDER BY s.id LIMIT {_SLICE} {lock}"
        )
        delete = self.layout.fill("DELETE FROM {messages} m WHERE m.session = ANY(%s)")
        close = self.layout.fill("DELETE FROM {sessions} s WHERE s.id = ANY(%s)")

        def program() -> Steps[Erased]:
            (rows,) = yield lambda tx: tx.read((choose, values))
            ids = [row[0] for row in rows]
            if not ids:
                return Erased()
            messages, sessions = yield lambda tx: tx.read((delete, [ids]), (close, [ids]))
            return Erased(sessions, messages)

        total = Erased()
        while True:
            erased = yield lambda client: client.transaction(program, user_id)
            total = Erased(total.sessions + erased.sessions, total.messages + erased.messages)
            if erased.sessions < _SLICE:
                return total

    # -- looking after -----------------------------------------------------------------------

    def stats(self) -> Steps[Stats]:
        live = "(s.expires_at IS NULL OR s.expires_at > {read_now})"
        sql = self.layout.fill(
            f"SELECT count(DISTINCT s.user_id) FILTER (WHERE {live}), "
            f"count(*) FILTER (WHERE {live}), "
            f"coalesce(sum(s.message_count) FILTER (WHERE {live}), 0)::bigint, count(*), "
            "(SELECT sum(pg_total_relation_size(r.relid)) FROM ("
            "SELECT %(sessions)s::regclass AS relid UNION SELECT %(messages)s::regclass "
            "UNION SELECT relid FROM pg_partition_tree(%(messages)s::regclass)) r)::bigint "
            "FROM {sessions} s"
        )
        names = {name: self.layout.table(name) for name in ("sessions", "messages")}
        (((users, sessions, messages, everything, size),),) = yield fetch((sql, names))
        return Stats(
            users=users,
            sessions=sessions,
            messages=messages,
            expired_sessions=everything - sessions,
            bytes=size,
        )

    def check_server(self) -> Steps[list[Finding]]:
        return health.check_server(self.layout)

    def verify(self) -> Steps[list[Problem]]:
        problems: list[Problem] = []
        sql = self.layout.fill(
            f"SELECT {SESSION_COLUMNS}, (SELECT count(*) FROM {{messages}} m "
            "WHERE m.session = s.id) FROM {sessions} s WHERE s.id > %s "
            f"ORDER BY s.id LIMIT {_PAGE}"
        )
        after: Any = -1
        while True:
            (rows,) = yield fetch((sql, [after]))
            for *columns, counted in rows:
                problems += _session_problems(SessionRow(*columns), counted)
            if len(rows) < _PAGE:
                break
            after = rows[-1][0]
        sql = self.layout.fill(
            f"SELECT m.session, s.user_id, s.session_id, m.message_id, {MESSAGE_COLUMNS} "
            "FROM {messages} m LEFT JOIN {sessions} s ON s.id = m.session "
            f"WHERE (m.session, m.message_id) > (%s, %s) "
            f"ORDER BY m.session, m.message_id LIMIT {_PAGE}"
        )
        after = [-1, ""]
        while True:
            (rows,) = yield fetch((sql, after))
            for _, user_id, session_id, _, *message in rows:
                problems += _message_problems(user_id, session_id, *message)
            if len(rows) < _PAGE:
                return problems
            after = [rows[-1][0], rows[-1][3]]


def _session_problems(row: SessionRow, counted: int) -> Iterator[Problem]:
    session = row.session()
    user_id, session_id = session.user_id, session.session_id
    if isinstance(session, CorruptRecordError):
        yield Problem(user_id, session_id, None, session.reason)
    if counted != row.message_count:
        what = f"message_count is {row.message_count}, but there are {counted} messages"
        yield Problem(user_id, session_id, None, what)


def _message_problems(
    user_id: str | None, session_id: str | None, time: int, message_id: str, body: str
) -> Iterator[Problem]:
    if user_id is None or session_id is None:
        yield Problem(None, None, unescape_text(message_id), "belongs to no session")
        return
    key = Key(unescape_text(user_id), unescape_text(session_id))
    message = message_of(key, time, message_id, body)
    if isinstance(message, CorruptRecordError):
        yield Problem(*key, message.message_id, message.reason)
