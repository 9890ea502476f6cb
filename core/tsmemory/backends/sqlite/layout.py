"""What is in the file: tables, migrations, and the records that its rows are.

The file is public. `SCHEMA` is what ``sqlite3 FILE .schema`` prints, ``PRAGMA user_version`` is the
number of the last migration, ``PRAGMA application_id`` says that the file is ours; bodies are JSON
(`tsmemory.engine.codec`), times µs since the epoch.

Sessions are listed by `update_time`, but indexed by `listed_time`, which follows it only when it
has fallen more than `LISTING_LAG_US` behind: an append in a running conversation then rewrites no
index of sessions. A reader takes the candidates from the index and sorts them (`reader`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tsmemory.engine.codec import decode_message, decode_session
from tsmemory.engine.commit import Head
from tsmemory.engine.records import Key, Position
from tsmemory.engine.rows import corrupt_message, corrupt_record
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session

__all__ = [
    "APPLICATION_ID", "LISTING_LAG_US", "LIVE", "LIVE_SESSION", "MAX_BODY", "MIGRATIONS", "SCHEMA",
    "SESSION_COLUMNS", "SessionRow", "decode_row", "session_of", "tolerant_text",
]  # fmt: skip

APPLICATION_ID = 0x74736D6D
"""``tsmm`` in ASCII, in the file's header (https://sqlite.org/pragma.html#pragma_application_id)"""

LISTING_LAG_US = 60_000_000
"""How far `listed_time` may be behind `update_time`, µs: about one turn of an agent."""

MAX_TIME = 2**63 - 2
MAX_BODY = 1_000_000_000  # SQLITE_MAX_LENGTH's default, https://sqlite.org/limits.html

_TABLES = """\
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
    body BLOB NOT NULL,
    listed_time INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX sessions_by_id ON sessions (user_id, session_id);
CREATE INDEX sessions_by_user ON sessions (user_id, listed_time);
CREATE INDEX sessions_by_time ON sessions (listed_time);
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
_VIEW = """\
CREATE VIEW messages_view AS
SELECT user_id, session_id, json_extract(record, '$.role') AS role,
    CASE json_type(record, '$.content')
        WHEN 'array' THEN (
            SELECT group_concat(json_extract(block.value, '$.text'), '')
            FROM json_each(record, '$.content') AS block
            WHERE block.type = 'object')
        ELSE coalesce(json_extract(record, '$.content'), '')
    END AS text,
    strftime('%Y-%m-%d %H:%M:%f', create_time / 1000000.0, 'unixepoch') AS created_at,
    message_id, body
FROM (
    SELECT user_id, session_id, messages.create_time, message_id, messages.pk,
        CAST(messages.body AS TEXT) AS body,
        CASE WHEN json_valid(CAST(messages.body AS TEXT)) THEN coalesce(
            json_extract(CAST(messages.body AS TEXT), '$.escaped'), CAST(messages.body AS TEXT))
        END AS record
    FROM messages JOIN sessions ON sessions.pk = messages.session
    WHERE expires_at IS NULL OR expires_at > strftime('%s', 'now') * 1000000
);
"""
"""For people and their tools (Datasette, pandas, DBeaver): live messages, texts in the clear. It
reads with SQLite's JSON functions, which are part of every SQLite since 3.38."""

SCHEMA = _TABLES + _VIEW
"""The tables of a new file. ``pinned`` is 1 for system and developer messages."""

_FIRST = """\
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

_LAZY_LISTING = """\
DROP INDEX sessions_by_user;
DROP INDEX sessions_by_time;
ALTER TABLE sessions ADD COLUMN listed_time INTEGER NOT NULL DEFAULT 0;
UPDATE sessions SET listed_time = update_time;
CREATE INDEX sessions_by_user ON sessions (user_id, listed_time);
CREATE INDEX sessions_by_time ON sessions (listed_time);
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _LAZY_LISTING, "", _VIEW)
"""Each takes the file from version i to i + 1, all that are missing in one transaction. The third
adds the search index, which `search` makes; the fourth a view."""

LIVE = "user_id = ? AND session_id = ? AND (expires_at IS NULL OR expires_at > ?)"
"""A session that has not expired: (user_id, session_id, now)."""


LIVE_SESSION = "(expires_at IS NULL OR expires_at > ?)"
"""A session that has not expired: (now,)."""

SESSION_COLUMNS = (
    "pk, user_id, session_id, create_time, update_time, version, message_count, last_time, "
    "ttl, expires_at, body, listed_time"
)


class SessionRow(NamedTuple):
    """A session's row, as `SESSION_COLUMNS` select it."""

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
    listed_time: int

    def session(self) -> Session | CorruptRecordError:
        """The record; an error object where the row does not decode."""
        return session_of(self)

    def head(self) -> Head:
        """What a commit decides on.

        Raises:
            CorruptRecordError: the row does not decode.
        """
        session = self.session()
        if isinstance(session, CorruptRecordError):
            raise session
        return Head(session, self.last_time)


def session_of(row: tuple[Any, ...]) -> Session | CorruptRecordError:
    """The record of a `SessionRow`, or of a tuple like it; an error object where it does not
    decode."""
    (
        _, user_id, session_id, create_time, update_time, version, message_count, last_time, ttl,
        expires_at, body, _,
    ) = row  # fmt: skip
    title: str | None = None
    summary: str | None = None
    metadata: dict[str, Any] = {}
    try:
        # SQLite's types belong to the value, not to the column.
        if tuple(map(type, row)) not in _TYPES:
            raise ValueError(f"its columns are {', '.join(type(v).__name__ for v in row)}")
        if min(create_time, update_time, version, message_count, last_time) < 0:
            raise ValueError("a time or a count is negative")
        if body != b"{}":
            title, summary, metadata = decode_session(body)
    except (ValueError, TypeError, RecursionError) as error:
        return corrupt_record(_text(user_id), _text(session_id), _time(update_time), error)
    return Session(
        user_id=user_id,
        session_id=session_id,
        create_time=create_time,
        update_time=update_time,
        version=version,
        message_count=message_count,
        title=title,
        summary=summary,
        expires_at=expires_at,
        ttl=ttl,
        metadata=metadata,
    )


_TYPES = {
    (int, str, str, int, int, int, int, int, ttl, expires_at, bytes, listed_time)
    for ttl in (float, type(None))
    for expires_at in (int, type(None))
    # It is only where the index looks for the session: a wrong one is written anew.
    for listed_time in (int, float, str, bytes)
}
"""The types of a sound row."""


def decode_row(
    key: Key, create_time: int, message_id: str, body: bytes
) -> Message | CorruptRecordError:
    """The message of a row; an error object where it does not decode."""
    try:
        if type(body) is bytes and type(create_time) is int and type(message_id) is str:
            return decode_message(body, message_id, create_time)
        types = ", ".join(type(value).__name__ for value in (create_time, message_id, body))
        raise ValueError(f"its columns are {types}, not int, str, bytes")
    except (ValueError, TypeError, RecursionError) as error:
        return corrupt_message(key, Position(_time(create_time), _text(message_id)), error)


class DamagedText(str):
    """TEXT that is not UTF-8, with escapes for its bytes. Its type is not `str`, so records that
    have it are broken."""

    __slots__ = ()


def tolerant_text(encoded: bytes) -> str:
    """A `sqlite3.Connection.text_factory` that never fails: for damaged files."""
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return DamagedText(encoded.decode("utf-8", "backslashreplace"))


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str) else repr(value)[:255]


def _time(value: Any) -> int:
    """Where a value that should be a time sorts: SQLite puts numbers first, then text and blobs."""
    if isinstance(value, (int, float)):
        return int(min(max(value, 0), MAX_TIME))
    return MAX_TIME
