"""Looking after the file: figures, damage, and text that must not linger."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from tsmemory.backends.sqlite.layout import SESSION_COLUMNS, SessionRow, decode_row
from tsmemory.engine.findings import expired_sessions, free_space, is_open_to_others
from tsmemory.engine.records import Finding, Key
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Problem, Stats

__all__ = ["WalCleaner", "findings", "stats", "verify"]

_WAL_BYTES = 64 << 20
"""A WAL of this size says that checkpoints do not get through: SQLite's own come at 4 MB."""

_AGAIN_SECONDS = 1.0


class WalCleaner:
    """Empties the ``-wal`` of deleted text.

    ``secure_delete`` overwrites what is deleted in the file's pages, but the WAL keeps the pages as
    they were. It is emptied where nobody reads at that moment; else after a later commit, tried at
    most once a second. It never waits for readers.
    """

    def __init__(self) -> None:
        self._due = False
        self._not_before = 0.0

    def clean(self, db: sqlite3.Connection) -> None:
        """Empty it now, or later."""
        self._due = True
        with contextlib.suppress(sqlite3.Error):  # a lock: later
            (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._due = bool(busy)
        self._not_before = time.monotonic() + _AGAIN_SECONDS

    def after_commit(self, db: sqlite3.Connection) -> None:
        """Empty it if that is still due."""
        if self._due and time.monotonic() >= self._not_before:
            self.clean(db)


def stats(db: sqlite3.Connection, now: int) -> Stats:
    """What the file holds."""
    users, sessions, messages = db.execute(
        "SELECT count(DISTINCT user_id), count(*), coalesce(sum(message_count), 0) FROM sessions "
        "WHERE expires_at IS NULL OR expires_at > ?",
        (now,),
    ).fetchone()
    (everything,) = db.execute("SELECT count(*) FROM sessions").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (page_size,) = db.execute("PRAGMA page_size").fetchone()
    return Stats(
        users=users,
        sessions=sessions,
        messages=int(messages),
        expired_sessions=everything - sessions,
        bytes=pages * page_size,
    )


def findings(db: sqlite3.Connection, path: Path, now: int) -> list[Finding]:
    """Version and schema, whether the WAL is emptied, free space, and expired sessions."""
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    (journal,) = db.execute("PRAGMA journal_mode").fetchone()
    (expired,) = db.execute(
        "SELECT count(*) FROM sessions WHERE expires_at <= ?", (now,)
    ).fetchone()
    try:
        wal = path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        wal = 0
    advice = ": a reader that stays open keeps it from being emptied" if wal > _WAL_BYTES else ""
    return [
        Finding("sqlite", True, sqlite3.sqlite_version),
        Finding("schema", True, f"version {schema}, journal_mode {journal}"),
        Finding("wal", wal <= _WAL_BYTES, f"{wal:,} bytes{advice}"),
        _permissions(path),
        free_space(path.parent),
        expired_sessions(expired),
    ]


def _permissions(path: Path) -> Finding:
    """A backup that was put into place may be open to others: SQLite's shell makes it so."""
    exposed = is_open_to_others(path.stat())
    advice = f"open to every user of this machine; chmod o= {path}" if exposed else "not open"
    return Finding("permissions", not exposed, advice)


def verify(db: sqlite3.Connection) -> list[Problem]:
    """Read everything, and name what is broken; what cannot be read ends it, named too."""
    problems: list[Problem] = []
    try:
        for problem in _problems(db):
            problems.append(problem)  # noqa: PERF402  # keep those before an error
    except sqlite3.OperationalError:
        raise  # a lock, not damage
    except sqlite3.DatabaseError as error:
        problems.append(Problem(None, None, None, f"the file cannot be read on: {error}"))
    return problems


def _problems(db: sqlite3.Connection) -> Iterator[Problem]:
    for (line,) in db.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield Problem(None, None, None, f"integrity_check: {line}")
    for columns in db.execute(f"SELECT {SESSION_COLUMNS} FROM sessions"):
        session = SessionRow._make(columns).session()
        if isinstance(session, CorruptRecordError):
            yield Problem(session.user_id, session.session_id, None, session.reason)
    for user_id, session_id, recorded, counted in db.execute(
        "SELECT user_id, session_id, message_count, "
        "(SELECT count(*) FROM messages WHERE session = sessions.pk) AS counted "
        "FROM sessions WHERE message_count != counted"
    ):
        what = f"message_count is {recorded}, but there are {counted} messages"
        yield Problem(user_id, session_id, None, what)
    for user_id, session_id, *row in db.execute(
        "SELECT user_id, session_id, messages.create_time, message_id, messages.body "
        "FROM messages LEFT JOIN sessions ON sessions.pk = messages.session"
    ):
        if user_id is None:
            yield Problem(None, None, row[1], "belongs to no session")
            continue
        message = decode_row(Key(user_id, session_id), *row)
        if isinstance(message, CorruptRecordError):
            yield Problem(user_id, session_id, message.message_id, message.reason)
