"""The embedded engine: one SQLite file, many threads and processes.

The file is public. `SCHEMA` below is what `sqlite3 FILE .schema` prints, `PRAGMA user_version` the
number of the last migration, bodies are JSON (`tsmemory.engine.codec`), times µs since the epoch.

- WAL, so readers never wait for the writer; ``synchronous=FULL``, so a commit that returned is on
  disk (``durability="normal"`` leaves the fsync to the checkpoint: a power cut may lose the last
  commits, never the file; the end of a process, even by SIGKILL, loses nothing).
- ``secure_delete`` overwrites what is deleted, and `erase` empties the WAL afterwards where no
  reader holds it, so deleted text does not linger in the file's free pages.
- A writer of this process waits for the one before it on a lock; one of another process on
  SQLite's, up to `timeout` seconds.
- Metadata filters run here, on the rows as they stream out of the index: SQLite would run in this
  same process, and its JSON functions know neither our types nor our rules.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote
from warnings import warn

from tsmemory.engine.codec import decode_message, decode_session, encode_session
from tsmemory.engine.commit import Head, encode_bodies, plan, touched_ids
from tsmemory.engine.contract import now_us
from tsmemory.engine.local import LocalBackend
from tsmemory.engine.records import (
    Capabilities,
    Change,
    Key,
    MessageQuery,
    Outcome,
    Position,
    Read,
    SessionQuery,
)
from tsmemory.engine.rows import corrupt_message, passes
from tsmemory.engine.steps import immediate
from tsmemory.engine.urls import split_url
from tsmemory.errors import (
    BackendError,
    CorruptRecordError,
    InvalidInputError,
    TimeoutError,
    UnavailableError,
)
from tsmemory.model import Erased, Message, Problem, Session, Stats, is_pinned

__all__ = ["MIGRATIONS", "SCHEMA", "SQLiteBackend"]

SCHEMA = """\
CREATE TABLE sessions (
    pk INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL,
    version INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    ttl REAL,
    expires_at INTEGER,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX sessions_by_id ON sessions (user_id, session_id);
CREATE INDEX sessions_by_user ON sessions (user_id, update_time, session_id);
CREATE INDEX sessions_by_time ON sessions (update_time, user_id, session_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE messages (
    pk INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    pinned INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX messages_by_time ON messages (session, create_time, message_id);
CREATE UNIQUE INDEX messages_by_id ON messages (session, message_id);
CREATE INDEX messages_pinned ON messages (session, create_time, message_id) WHERE pinned = 1;
"""
"""The tables at the newest version. ``pinned`` is 1 for system and developer messages."""

MIGRATIONS: tuple[str, ...] = (SCHEMA,)
"""Each takes the file from version i to i + 1, in one transaction."""

_SESSION = (
    "pk, user_id, session_id, create_time, update_time, version, message_count, last_time, "
    "ttl, expires_at, body"
)
_LIVE = "user_id = ? AND session_id = ? AND (expires_at IS NULL OR expires_at > ?)"
_OF = f"session = (SELECT pk FROM sessions WHERE {_LIVE})"
_MAX_BODY = 1_000_000_000  # SQLITE_MAX_LENGTH's default, https://sqlite.org/limits.html
_MAX_VARIABLES = 500  # under SQLITE_MAX_VARIABLE_NUMBER's oldest default, 999
_WRITE_MESSAGE = (
    "INSERT INTO messages (session, create_time, message_id, pinned, body) VALUES (?, ?, ?, ?, ?)"
)


class _Row(NamedTuple):
    """A session's row."""

    pk: int
    user_id: str
    session_id: str
    create_time: int
    update_time: int
    version: int
    message_count: int
    last_time: int
    ttl: float | None
    expires_at: int | None
    body: bytes

    def session(self) -> Session | CorruptRecordError:
        try:
            title, summary, metadata = decode_session(self.body)
        except ValueError as error:
            broken = CorruptRecordError(
                f"does not decode: {error}",
                user_id=self.user_id,
                session_id=self.session_id,
                create_time=self.update_time,
            )
            broken.__cause__ = error
            return broken
        return Session(
            user_id=self.user_id,
            session_id=self.session_id,
            create_time=self.create_time,
            update_time=self.update_time,
            version=self.version,
            message_count=self.message_count,
            title=title,
            summary=summary,
            expires_at=self.expires_at,
            ttl=self.ttl,
            metadata=metadata,
        )


class SQLiteBackend(LocalBackend):
    """Sessions in one SQLite file, made at first use.

    Args:
        path: the file; its directory exists. A file on a network share is not safe under WAL.
        durability: ``"full"`` fsyncs every commit, ``"normal"`` only the checkpoints.
        timeout: seconds to wait for another process's write before `TimeoutError`.
        clock: µs since the epoch.

    Raises:
        InvalidInputError: no path, ``:memory:`` (use ``memory:``), or an unknown durability.
    """

    capabilities = Capabilities(max_message_bytes=_MAX_BODY)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal"] = "full",
        timeout: float = 30.0,
        clock: Callable[[], int] = now_us,
    ) -> None:
        if not os.fspath(path) or os.fspath(path) == ":memory:":
            raise InvalidInputError('a SQLite store needs a file; use "memory:" for one without')
        if durability not in ("full", "normal"):
            raise InvalidInputError(f'durability is "full" or "normal", not {durability!r}')
        if timeout < 0:
            raise InvalidInputError(f"timeout is {timeout} s; give 0 or more")
        self.path = Path(path)
        self.durability = durability
        self.timeout = float(timeout)
        self.clock = clock
        self._idle: list[sqlite3.Connection] = []
        self._inherited: list[list[sqlite3.Connection]] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    @classmethod
    def from_url(cls, url: str, **options: Any) -> SQLiteBackend:
        """``sqlite:///relative.db`` or ``sqlite:////absolute/path.db``, percent-encoded where it
        must be, with the options ``durability`` and ``timeout``.

        Raises:
            InvalidInputError: no path, a host, or an unknown option.
        """
        parts, found = split_url(url, {"durability": str, "timeout": float}, options)
        if parts.netloc or parts.fragment:
            raise InvalidInputError(
                "a SQLite URL has three slashes and a path, as sqlite:///chat.db; write a # in the "
                "path as %23"
            )
        return cls(unquote(parts.path.removeprefix("/")), **found)

    def __repr__(self) -> str:
        return f"SQLiteBackend({str(self.path)!r}, durability={self.durability!r})"

    # -- connections -------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        """A new connection to a file that has our schema."""
        deadline = time.monotonic() + self.timeout
        db = sqlite3.connect(
            self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False
        )
        try:
            while True:
                try:
                    self._prepare(db)
                    return db
                except sqlite3.OperationalError as error:
                    # The switch to WAL takes an exclusive lock without waiting for it, so the
                    # busy handler does not help processes that open one empty file together.
                    if "locked" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
        except BaseException:
            db.close()
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if self.durability == 'full' else 'NORMAL'}")
        db.execute("PRAGMA secure_delete = ON")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise UnavailableError(
                f"{self.path} has schema version {version}, made by a newer tsmemory; this one "
                f"knows {len(MIGRATIONS)}: upgrade the package"
            )
        if version < len(MIGRATIONS):
            self._migrate(db)

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            for statements in MIGRATIONS[version:]:
                for statement in filter(None, map(str.strip, statements.split(";"))):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise UnavailableError(f"the store on {self.path} is closed")
        if self._pid != os.getpid():
            # A connection must not cross a fork (https://sqlite.org/howtocorrupt.html, 2.6), and
            # closing the inherited one here would drop the parent's locks. So it is kept, unused:
            # garbage collection would close it too.
            self._inherited.append(self._idle)
            self._pid, self._idle, self._lock = os.getpid(), [], threading.Lock()
        with _translated(self.path):
            try:
                db = self._idle.pop()  # atomic, so two threads never share one
            except IndexError:
                db = self._open()
            try:
                yield db
            finally:
                if self._closed:
                    db.close()
                else:
                    self._idle.append(db)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as db, self._lock:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        self._closed = True
        if self._pid != os.getpid():
            return
        while self._idle:
            self._idle.pop().close()

    def __del__(self, _warn: Callable[..., None] = warn) -> None:
        if getattr(self, "_idle", None) and self._pid == os.getpid():
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self.close()

    # -- reading -----------------------------------------------------------------------------

    @immediate
    def setup(self) -> None:
        with self._connection():
            pass

    @immediate
    def get_session(self, key: Key) -> Session | CorruptRecordError | None:
        with self._connection() as db:
            row = self._session_row(db, key)
        return row.session() if row else None

    def _session_row(self, db: sqlite3.Connection, key: Key) -> _Row | None:
        found = db.execute(
            f"SELECT {_SESSION} FROM sessions WHERE {_LIVE}", (*key, self.clock())
        ).fetchone()
        return _Row(*found) if found else None

    @immediate
    def list_sessions(self, query: SessionQuery) -> list[Session | CorruptRecordError]:
        clauses = ["(expires_at IS NULL OR expires_at > ?)"]
        values: list[Any] = [self.clock()]
        if query.user_id is not None:
            clauses.append("user_id = ?")
            values.append(query.user_id)
        _range(clauses, values, "update_time", query.updated_from, query.updated_to)
        if query.after is not None:
            sign = "<" if query.descending else ">"
            clauses.append(f"(update_time, user_id, session_id) {sign} (?, ?, ?)")
            values.extend(query.after)
        way = "DESC" if query.descending else "ASC"
        sql = (
            f"SELECT {_SESSION} FROM sessions WHERE {' AND '.join(clauses)} "
            f"ORDER BY update_time {way}, user_id {way}, session_id {way}"
        )
        with self._connection() as db:
            rows = (_Row(*found).session() for found in _select(db, sql, values, query))
            return _first(rows, query)

    @immediate
    def read(self, key: Key, query: MessageQuery) -> Read:
        live = (*key, self.clock())
        clauses, values = [_OF], [*live]
        _range(clauses, values, "create_time", query.created_from, query.created_to)
        if query.after is not None:
            sign = "<" if query.descending else ">"
            clauses.append(f"(create_time, message_id) {sign} (?, ?)")
            values.extend(query.after)
        way = "DESC" if query.descending else "ASC"
        sql = (
            f"SELECT create_time, message_id, body, 0 FROM messages WHERE {' AND '.join(clauses)} "
            f"ORDER BY create_time {way}, message_id {way}"
        )
        if query.pinned and query.limit is not None and query.where is None:
            # One statement: the tail, then what stands before it and stays in view.
            sql = (
                f"WITH tail AS MATERIALIZED ({sql} LIMIT ?) SELECT * FROM tail UNION ALL "
                f"SELECT * FROM (SELECT create_time, message_id, body, 1 FROM messages "
                f"WHERE {_OF} AND pinned = 1 "
                f"AND create_time <= (SELECT min(create_time) FROM tail) "
                f"ORDER BY create_time, message_id)"
            )
            with self._connection() as db:
                found = db.execute(sql, [*values, query.limit, *live]).fetchall()
            rows = [_message(key, *row) for row in found if not row[3]]
            if len(rows) < len(found):  # one at the tail's own oldest time may stand in both
                ids = {row.message_id for row in rows}
                pinned = [_message(key, *row) for row in found if row[3] and row[1] not in ids]
                return Read(rows, pinned)
            return Read(rows)
        with self._connection() as db:
            messages = (_message(key, *found) for found in _select(db, sql, values, query))
            return Read(_first(messages, query))

    @immediate
    def get_messages(self, key: Key, ids: Sequence[str]) -> list[Message | CorruptRecordError]:
        with self._connection() as db:
            row = self._session_row(db, key)
            return self._messages(db, key, row.pk, ids) if row else []

    def _messages(
        self, db: sqlite3.Connection, key: Key, pk: int, ids: Sequence[str]
    ) -> list[Message | CorruptRecordError]:
        return [
            _message(key, *found)
            for some, marks in _chunks(ids)
            for found in db.execute(
                "SELECT create_time, message_id, body FROM messages "
                f"INDEXED BY messages_by_id WHERE session = ? AND message_id IN ({marks})",
                (pk, *some),
            )
        ]

    # -- writing -----------------------------------------------------------------------------

    @immediate
    def commit(self, key: Key, change: Change) -> Outcome:
        encoded = encode_bodies(change, _MAX_BODY)
        with self._transaction() as db:
            now = self.clock()
            found = db.execute(
                f"SELECT {_SESSION} FROM sessions WHERE user_id = ? AND session_id = ?", key
            ).fetchone()
            row = _Row(*found) if found else None
            if row and row.expires_at is not None and row.expires_at <= now:
                self._delete_sessions(db, "pk = ?", (row.pk,))
                row = None
            session = row.session() if row else None
            if isinstance(session, CorruptRecordError):
                raise session
            head = Head(session, row.last_time) if row and session else None
            existing: dict[str, Position] = {}
            through = 0
            if row:
                existing = {
                    mid: Position(created, mid)
                    for some, marks in _chunks(touched_ids(change))
                    for created, mid in db.execute(
                        "SELECT create_time, message_id FROM messages "
                        f"INDEXED BY messages_by_id WHERE session = ? AND message_id IN ({marks})",
                        (row.pk, *some),
                    )
                }
                if change.delete_through is not None:
                    through = db.execute(
                        "DELETE FROM messages "
                        "WHERE session = ? AND (create_time, message_id) <= (?, ?)",
                        (row.pk, *change.delete_through),
                    ).rowcount
            planned = plan(key, head, change, existing, now, through)
            if planned.changed and planned.head:
                pk = self._write_session(db, row, planned.head)
                gone = planned.delete + [m.message_id for m in planned.overwrite]
                if gone:
                    db.executemany(
                        "DELETE FROM messages WHERE session = ? AND message_id = ?",
                        [(pk, mid) for mid in gone],
                    )
                db.executemany(
                    _WRITE_MESSAGE,
                    [
                        (pk, m.create_time, m.message_id, is_pinned(m.role), encoded[m.message_id])
                        for m in planned.insert + planned.overwrite
                    ],
                )
            stored = self._stored(db, key, row, planned.stored)
        session = planned.head.session if planned.head else None
        return Outcome(session, stored, len(planned.delete) + through)

    def _write_session(self, db: sqlite3.Connection, row: _Row | None, head: Head) -> int:
        s = head.session
        body = encode_session(s)
        values = (
            s.create_time, s.update_time, s.version, s.message_count, head.last_time, s.ttl,
            s.expires_at, body,
        )  # fmt: skip
        if row is None:
            cursor = db.execute(
                "INSERT INTO sessions (create_time, update_time, version, message_count, "
                "last_time, ttl, expires_at, body, user_id, session_id) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, s.user_id, s.session_id),
            )
            return int(cursor.lastrowid or 0)
        db.execute(
            "UPDATE sessions SET create_time = ?, update_time = ?, version = ?, "
            "message_count = ?, last_time = ?, ttl = ?, expires_at = ?, body = ? WHERE pk = ?",
            (*values, row.pk),
        )
        return row.pk

    def _stored(
        self, db: sqlite3.Connection, key: Key, row: _Row | None, planned: list[Message | str]
    ) -> list[Message]:
        repeated = [mid for mid in planned if isinstance(mid, str)]
        there: dict[str, Message] = {}
        if repeated and row:
            for message in self._messages(db, key, row.pk, repeated):
                if isinstance(message, CorruptRecordError):
                    raise message
                there[message.message_id] = message
        return [there[m] if isinstance(m, str) else m for m in planned]

    # -- removing ----------------------------------------------------------------------------

    def _delete_sessions(
        self, db: sqlite3.Connection, condition: str, values: Sequence[Any]
    ) -> Erased:
        messages = db.execute(
            f"DELETE FROM messages WHERE session IN (SELECT pk FROM sessions WHERE {condition})",
            values,
        ).rowcount
        sessions = db.execute(f"DELETE FROM sessions WHERE {condition}", values).rowcount
        return Erased(sessions, messages)

    def _delete(self, condition: str, values: Sequence[Any]) -> Erased:
        with self._transaction() as db:
            erased = self._delete_sessions(db, condition, values)
        if erased:
            with self._connection() as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return erased

    @immediate
    def erase(self, user_id: str | None, session_id: str | None = None) -> Erased:
        if user_id is None:
            return self._delete("1", ())
        if session_id is None:
            return self._delete("user_id = ?", (user_id,))
        return self._delete("user_id = ? AND session_id = ?", (user_id, session_id))

    @immediate
    def purge_expired(self) -> Erased:
        return self._delete("expires_at <= ?", (self.clock(),))

    # -- looking after -----------------------------------------------------------------------

    @immediate
    def stats(self) -> Stats:
        with self._connection() as db:
            live = "expires_at IS NULL OR expires_at > ?"
            (users, sessions, messages), (everything,), (pages,), (page,) = (
                db.execute(sql, values).fetchone()
                for sql, values in (
                    (
                        "SELECT count(DISTINCT user_id), count(*), "
                        f"coalesce(sum(message_count), 0) FROM sessions WHERE {live}",
                        (self.clock(),),
                    ),
                    ("SELECT count(*) FROM sessions", ()),
                    ("PRAGMA page_count", ()),
                    ("PRAGMA page_size", ()),
                )
            )
        return Stats(
            users=users,
            sessions=sessions,
            messages=messages,
            expired_sessions=everything - sessions,
            bytes=pages * page,
        )

    @immediate
    def verify(self) -> list[Problem]:
        problems: list[Problem] = []
        with self._connection() as db:
            try:
                for problem in _findings(db):
                    problems.append(problem)  # noqa: PERF402  # keep those before an error
            except sqlite3.OperationalError:
                raise  # a lock, not damage
            except sqlite3.DatabaseError as error:
                problems.append(Problem(None, None, None, f"the file cannot be read on: {error}"))
        return problems


def _findings(db: sqlite3.Connection) -> Iterator[Problem]:
    for (finding,) in db.execute("PRAGMA integrity_check"):
        if finding != "ok":
            yield Problem(None, None, None, f"integrity_check: {finding}")
    for found in db.execute(f"SELECT {_SESSION} FROM sessions"):
        row = _Row(*found)
        session = row.session()
        if isinstance(session, CorruptRecordError):
            yield Problem(row.user_id, row.session_id, None, session.reason)
    for user_id, session_id, kept, counted in db.execute(
        "SELECT user_id, session_id, message_count, "
        "(SELECT count(*) FROM messages WHERE session = sessions.pk) AS counted "
        "FROM sessions WHERE message_count != counted"
    ):
        what = f"message_count is {kept}, but there are {counted} messages"
        yield Problem(user_id, session_id, None, what)
    for user_id, session_id, created, mid, body in db.execute(
        "SELECT user_id, session_id, messages.create_time, message_id, messages.body "
        "FROM messages LEFT JOIN sessions ON sessions.pk = messages.session"
    ):
        if user_id is None:
            yield Problem(None, None, mid, "belongs to no session")
            continue
        message = _message(Key(user_id, session_id), created, mid, body)
        if isinstance(message, CorruptRecordError):
            yield Problem(user_id, session_id, mid, message.reason)


def _message(
    key: Key, create_time: int, message_id: str, body: Any, _pinned: int = 0
) -> Message | CorruptRecordError:
    try:
        if not isinstance(body, bytes):
            raise ValueError(f"the body is {type(body).__name__}, not bytes")
        return decode_message(body, message_id, create_time)
    except ValueError as error:
        return corrupt_message(key, Position(create_time, message_id), error)


def _range(
    clauses: list[str], values: list[Any], column: str, first: int | None, last: int | None
) -> None:
    for sign, bound in ((">=", first), ("<=", last)):
        if bound is not None:
            clauses.append(f"{column} {sign} ?")
            values.append(bound)


def _select(
    db: sqlite3.Connection, sql: str, values: Sequence[Any], query: MessageQuery | SessionQuery
) -> sqlite3.Cursor:
    if query.limit is None or query.where is not None:
        return db.execute(sql, values)
    return db.execute(f"{sql} LIMIT ?", (*values, query.limit))


def _first(rows: Iterable[Any], query: MessageQuery | SessionQuery) -> list[Any]:
    """The rows that the filter lets through, up to the limit; no more are read."""
    found = []
    for row in rows:
        if passes(row, query.where):
            found.append(row)
            if query.limit is not None and len(found) >= query.limit:
                break
    return found


def _chunks(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    for i in range(0, len(ids), _MAX_VARIABLES):
        some = ids[i : i + _MAX_VARIABLES]
        yield some, ",".join("?" * len(some))


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise TimeoutError(f"{path}: another process kept the write lock: {text}") from error
        if "unable to open" in text:
            raise UnavailableError(
                f"{path}: {text}; does the directory exist, and may you write there?"
            ) from error
        raise BackendError(f"{path}: {text}") from error
