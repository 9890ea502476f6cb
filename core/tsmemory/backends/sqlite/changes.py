"""What a commit does to the rows, inside a transaction that the caller began.

`append` is the short way of the plain append: a live session, new ids, no condition. It computes
in SQL what `engine.commit.plan` computes, in one UPDATE and one INSERT per message, and gives up
(`NotPlain`) where anything is out of the ordinary: `commit`, which is the template of
`engine.commit`, then decides.

Every row of messages is written by `insert_messages` and removed by `delete_messages` or
`delete_sessions`: whatever must follow the messages in the same transaction is called there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tsmemory.backends.sqlite import search
from tsmemory.backends.sqlite.file import Connection
from tsmemory.backends.sqlite.layout import (
    LISTING_LAG_US,
    LIVE,
    MAX_BODY,
    SESSION_COLUMNS,
    SessionRow,
    decode_row,
    session_of,
)
from tsmemory.engine import commit as template
from tsmemory.engine.codec import encode_session
from tsmemory.engine.commit import CLOCK_SKEW_US, Head, Loaded, Plan, encode_bodies
from tsmemory.engine.records import Change, Decide, Key, Outcome, Position, Snapshot
from tsmemory.engine.steps import immediate, run
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Erased, Message, is_pinned

__all__ = [
    "NotPlain", "append", "commit", "delete_sessions", "is_plain_append", "messages_by_id",
    "rewrite", "session_row",
]  # fmt: skip

_MAX_VARIABLES = 500  # under SQLITE_MAX_VARIABLE_NUMBER's oldest default, 999
_INSERT = (
    "INSERT INTO messages (session, create_time, message_id, pinned, body) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
_LAST = "max(:now, last_time + 1) + :count - 1"  # the time of the last message of the batch
_APPEND = f"""
UPDATE sessions SET
    version = version + 1,
    message_count = message_count + :count,
    last_time = {_LAST},
    update_time = max(
        :now,
        CASE WHEN {_LAST} <= :now + {CLOCK_SKEW_US} THEN {_LAST} ELSE 0 END,
        CASE WHEN update_time <= :now + {CLOCK_SKEW_US} THEN update_time ELSE 0 END
    )
    %s
WHERE user_id = :user_id AND session_id = :session_id AND %s
    AND typeof(version) = 'integer' AND typeof(message_count) = 'integer'
    AND typeof(last_time) = 'integer' AND typeof(update_time) = 'integer'
    AND last_time < {2**62} AND update_time < {2**62}
RETURNING {SESSION_COLUMNS}
"""
"""`engine.commit.plan` for a plain append of `count` messages at `now` (µs). The parameters have
names: Python 3.14 takes no sequence for numbered ones (`?1`), which it counts as named."""
_APPEND_LASTING = _APPEND % ("", "ttl IS NULL AND expires_at IS NULL AND :ttl IS NULL")
_APPEND_EXPIRING = _APPEND % (
    ", ttl = coalesce(:ttl, ttl), "
    "expires_at = :now + CAST(round(coalesce(:ttl, ttl) * 1000000) AS INTEGER)",
    "(expires_at IS NULL OR expires_at > :now)",
)
"""Names the column of one more index, which costs even where nothing expires."""
_LIST_ANEW = "UPDATE sessions SET listed_time = update_time WHERE pk = ?"
_STATE = (
    "create_time", "update_time", "version", "message_count", "last_time", "ttl", "expires_at",
    "body", "listed_time",
)  # fmt: skip
_INSERT_SESSION = (
    f"INSERT INTO sessions ({', '.join(_STATE)}, user_id, session_id) "
    f"VALUES ({', '.join('?' * (len(_STATE) + 2))})"
)
_UPDATE_SESSION = f"UPDATE sessions SET {', '.join(f'{c} = ?' for c in _STATE)} WHERE pk = ?"


class NotPlain(Exception):  # noqa: N818  # no error: `commit` decides instead
    """This append is not for the short way. Rows may have been written: roll them back."""


def is_plain_append(change: Change) -> bool:
    """Whether `append` may be tried."""
    return bool(change.append) and not (
        change.put
        or change.delete
        or change.delete_through is not None
        or change.session is not None
        or change.if_version is not None
    )


def append(
    db: Connection, key: Key, change: Change, bodies: Mapping[str, bytes], now: int
) -> Outcome:
    """Append to a live session.

    Raises:
        NotPlain: there is no such session, it is damaged, or an id is there already.
    """
    messages = change.append
    values = {
        "now": now,
        "count": len(messages),
        "user_id": key.user_id,
        "session_id": key.session_id,
        "ttl": change.ttl,
    }
    rows = db.execute(_APPEND_LASTING, values).fetchall()
    if not rows:
        rows = db.execute(_APPEND_EXPIRING, values).fetchall()
    if not rows:
        raise NotPlain
    (row,) = rows
    session = session_of(row)
    if isinstance(session, CorruptRecordError):
        raise NotPlain
    pk, last_time, listed_time = row[0], row[7], row[11]
    if type(listed_time) is not int or not (
        0 <= session.update_time - listed_time <= LISTING_LAG_US
    ):
        db.execute(_LIST_ANEW, (pk,))
    first = last_time - len(messages) + 1
    stored = [template.at_time(message, first + i) for i, message in enumerate(messages)]
    if insert_messages(db, key, pk, stored, bodies) < len(stored):
        raise NotPlain
    return Outcome(session, stored, 0)


def commit(
    db: Connection,
    key: Key,
    change: Change,
    bodies: Mapping[str, bytes],
    clock: Callable[[], int],
) -> Outcome:
    """Make any change, by the template of `engine.commit`.

    Raises:
        ConflictError, CorruptRecordError: as the contract says. Nothing was written.
    """
    row = _any_session_row(db, key)
    expired: SessionRow | None = None
    if row and row.expires_at is not None and _is_past(row.expires_at, clock()):
        row, expired = None, row
    head = row.head() if row else None

    @immediate
    def load() -> Loaded:
        if row is None:
            return Loaded(None, {}, {})
        ids = [message.message_id for message in change.append]
        appended = {
            message.message_id or "": message for message in messages_by_id(db, key, row.pk, ids)
        }
        others = [*(message.message_id for message in change.put), *change.delete]
        through = 0
        if change.delete_through is not None:
            (through,) = db.execute(
                f"SELECT count(*) FROM messages WHERE {_THROUGH}", (row.pk, *change.delete_through)
            ).fetchone()
        return Loaded(head, appended, _positions(db, row.pk, others), through)

    @immediate
    def apply(plan: Plan, bodies: Mapping[str, bytes]) -> None:
        assert plan.head is not None  # a plan that changes anything has one
        if expired is not None:
            delete_sessions(db, "pk = ?", (expired.pk,))
        pk = _write_session(db, row, plan.head)
        if change.delete_through is not None:
            delete_messages(db, _THROUGH, (pk, *change.delete_through))
        for ids, marks in _chunks(plan.delete + [m.message_id for m in plan.overwrite]):
            delete_messages(db, f"session = ? AND message_id IN ({marks})", (pk, *ids))
        insert_messages(db, key, pk, plan.insert + plan.overwrite, bodies)

    steps = template.commit(key, change, clock=clock, load=load, apply=apply, bodies=bodies)
    return run(steps, _no_steps)


def rewrite(
    db: Connection,
    key: Key,
    decide: Decide,
    ids: Sequence[str] | None,
    clock: Callable[[], int],
) -> Outcome:
    """Commit what `decide` makes of the session, read in the same transaction."""
    row = session_row(db, key, clock())
    head = row.head() if row else None
    messages: list[Message | CorruptRecordError] = []
    if row and ids is None:
        messages = [
            decode_row(key, *columns)
            for columns in db.execute(
                "SELECT create_time, message_id, body FROM messages WHERE session = ? "
                "ORDER BY create_time, message_id",
                (row.pk,),
            )
        ]
    elif row and ids is not None:
        messages = messages_by_id(db, key, row.pk, ids)
    session = head.session if head else None
    change = decide(Snapshot(session, messages))
    if change is None:
        return Outcome(session, [], 0)
    return commit(db, key, change, encode_bodies(change, MAX_BODY), clock)


def _no_steps(_step: Any) -> Any:
    raise AssertionError("the template asks for nothing but what load and apply do themselves")


# -- sessions --------------------------------------------------------------------------------


def session_row(db: Connection, key: Key, now: int) -> SessionRow | None:
    """The row of a live session."""
    columns = db.execute(
        f"SELECT {SESSION_COLUMNS} FROM sessions WHERE {LIVE}", (*key, now)
    ).fetchone()
    return SessionRow._make(columns) if columns else None


def _any_session_row(db: Connection, key: Key) -> SessionRow | None:
    columns = db.execute(
        f"SELECT {SESSION_COLUMNS} FROM sessions WHERE user_id = ? AND session_id = ?", key
    ).fetchone()
    return SessionRow._make(columns) if columns else None


def _is_past(expires_at: Any, now: int) -> bool:
    return type(expires_at) in (int, float) and bool(expires_at <= now)


def _write_session(db: Connection, row: SessionRow | None, head: Head) -> int:
    """Write the session's record; its primary key."""
    session = head.session
    listed = row.listed_time if row else session.update_time
    if type(listed) is not int or not 0 <= session.update_time - listed <= LISTING_LAG_US:
        listed = session.update_time
    state = (
        session.create_time, session.update_time, session.version, session.message_count,
        head.last_time, session.ttl, session.expires_at, encode_session(session), listed,
    )  # fmt: skip
    if row is None:
        cursor = db.execute(_INSERT_SESSION, (*state, session.user_id, session.session_id))
        return int(cursor.lastrowid or 0)
    db.execute(_UPDATE_SESSION, (*state, row.pk))
    return row.pk


def delete_sessions(db: Connection, condition: str, values: Sequence[Any]) -> Erased:
    """Remove the sessions of a condition on their table, with everything of theirs."""
    messages = delete_messages(
        db, f"session IN (SELECT pk FROM sessions WHERE {condition})", values
    )
    sessions = db.execute(f"DELETE FROM sessions WHERE {condition}", values).rowcount
    return Erased(sessions, messages)


# -- messages --------------------------------------------------------------------------------

_THROUGH = "session = ? AND (create_time, message_id) <= (?, ?)"


def messages_by_id(
    db: Connection, key: Key, pk: int, ids: Sequence[str]
) -> list[Message | CorruptRecordError]:
    """Those of the ids that are there, in no particular order."""
    return [
        decode_row(key, *columns)
        for chunk, marks in _chunks(ids)
        for columns in db.execute(
            "SELECT create_time, message_id, body FROM messages "
            f"INDEXED BY messages_by_id WHERE session = ? AND message_id IN ({marks})",
            (pk, *chunk),
        )
    ]


def _positions(db: Connection, pk: int, ids: Sequence[str]) -> dict[str, Position]:
    return {
        message_id: Position(create_time, message_id)
        for chunk, marks in _chunks(ids)
        for create_time, message_id in db.execute(
            "SELECT create_time, message_id FROM messages "
            f"INDEXED BY messages_by_id WHERE session = ? AND message_id IN ({marks})",
            (pk, *chunk),
        )
    }


def insert_messages(
    db: Connection,
    key: Key,
    pk: int,
    messages: Sequence[Message],
    bodies: Mapping[str, bytes],
) -> int:
    """Insert those whose id is not in the session yet, and index them: how many."""
    rows = [
        (pk, message.create_time, message.message_id, is_pinned(message.role),
         bodies[message.message_id])
        for message in messages
    ]  # fmt: skip
    if not db.indexed:
        if len(rows) == 1:
            return db.execute(_INSERT, rows[0]).rowcount
        return db.executemany(_INSERT, rows).rowcount
    inserted: list[tuple[int, Message]] = []
    for row, message in zip(rows, messages, strict=True):
        cursor = db.execute(_INSERT, row)
        if cursor.rowcount:
            inserted.append((cursor.lastrowid or 0, message))
    search.add(db, key.user_id, pk, inserted)
    return len(inserted)


def delete_messages(db: Connection, condition: str, values: Sequence[Any]) -> int:
    """Remove the messages of a condition on their table, and from the index: how many."""
    if db.indexed:
        search.remove(db, condition, values)
    return db.execute(f"DELETE FROM messages WHERE {condition}", values).rowcount


def _chunks(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    for i in range(0, len(ids), _MAX_VARIABLES):
        chunk = ids[i : i + _MAX_VARIABLES]
        yield chunk, ",".join("?" * len(chunk))
