"""Commits.

An append of new messages to a live session is one statement, whatever the batch:

1. It inserts the session's row, or updates the one that is there. That locks the row until the
   commit, so appenders take turns, and each finds what the one before it left: strictly
   increasing times, a version that counts.
2. It does nothing unless the session is live, at the version that is asked for, and holds none of
   the ids; nor where the metadata has tagged values, which only the client can check.
3. It inserts the messages behind the last time. Another transaction that has just inserted one of
   the ids makes it fail as a whole, on the primary key.

Where that statement did nothing, and for every other change, a transaction follows the commit
template (`tsmemory.engine.commit`) in two round trips:

4. It locks the session's row, then reads what the change touches, in a later statement: that one
   sees what the previous holder of the lock committed.
5. It writes the plan. Two that begin a session together collide on its key; one of them starts
   over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tsmemory.backends.postgres.reader import Reader, key_values
from tsmemory.backends.postgres.rows import (
    MAX_BODY,
    MESSAGE_COLUMNS,
    SESSION_COLUMNS,
    SessionRow,
    escape_text,
    message_of,
    pack,
    session_values,
    unescape_text,
)
from tsmemory.backends.postgres.search import vector
from tsmemory.engine.commit import (
    CLOCK_SKEW_US,
    Loaded,
    Plan,
    at_time,
    commit,
    encode_bodies,
    is_expired,
)
from tsmemory.engine.records import (
    Change,
    Decide,
    Key,
    MessageQuery,
    Outcome,
    Position,
    Read,
    Snapshot,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, is_pinned

__all__ = ["Writer"]

# Steps 1 to 3. The clock is read in a subquery, once, with the row locked.
_APPEND = f"""
WITH written AS (
    INSERT INTO {{sessions}} AS s (user_id, session_id, create_time, update_time, version,
        message_count, last_time, ttl, expires_at)
    SELECT %(user_id)s, %(session_id)s, t.now, t.now + %(count)s - 1, 1, %(count)s,
        t.now + %(count)s - 1, t.ttl, t.now + round(t.ttl * 1000000)::bigint
    FROM (SELECT {{now}} AS now, coalesce(%(ttl)s, %(default_ttl)s)::double precision AS ttl) t
    ON CONFLICT (user_id, session_id) {{on_conflict}}
    RETURNING s.*
), inserted AS (
    INSERT INTO {{messages}}
        (session, create_time, message_id, user_id, pinned, body, exact, search)
    SELECT s.id, s.last_time - %(count)s + m.number, m.id, s.user_id, m.pinned, m.body::jsonb,
        (CASE m.exact WHEN '' THEN m.body ELSE m.exact END)::json, m.search::tsvector
    FROM written s, unnest(%(ids)s::text[], %(pinned)s::boolean[], %(bodies)s::text[],
        %(exacts)s::text[], %(vectors)s::text[])
        WITH ORDINALITY AS m (id, pinned, body, exact, search, number)
)
SELECT {SESSION_COLUMNS} FROM written s
"""
_UPDATE = f"""
SET (update_time, version, message_count, last_time, ttl, expires_at) = (
    SELECT greatest(t.now,
            CASE WHEN t.last_time <= t.now + {CLOCK_SKEW_US} THEN t.last_time END,
            CASE WHEN s.update_time <= t.now + {CLOCK_SKEW_US} THEN s.update_time END),
        s.version + 1, s.message_count + %(count)s, t.last_time, t.ttl,
        t.now + round(t.ttl * 1000000)::bigint
    FROM (SELECT c.now, greatest(c.now, s.last_time + 1) + %(count)s - 1 AS last_time,
            coalesce(%(ttl)s::double precision, s.ttl) AS ttl
        FROM (SELECT {{now}} AS now) c) t)
WHERE (s.expires_at IS NULL OR s.expires_at > {{now}})
    AND position('"$' IN coalesce(s.metadata_exact::text, s.metadata::text)) = 0
    AND (SELECT m.session FROM {{messages}} m
        WHERE m.session = s.id AND m.message_id = ANY(%(ids)s::text[]) LIMIT 1) IS NULL
"""
_APPEND_BY_VERSION: dict[int | None, str] = {
    0: _APPEND.replace("{on_conflict}", "DO NOTHING"),
    None: _APPEND.replace("{on_conflict}", "DO UPDATE" + _UPDATE),
}
"""For a session that must not be there, and for one at any version."""
_APPEND_AT_VERSION = (
    f"WITH written AS (UPDATE {{sessions}} AS s{_UPDATE}    AND s.user_id = %(user_id)s "
    "AND s.session_id = %(session_id)s AND s.version = %(version)s RETURNING s.*"
) + _APPEND[_APPEND.index("\n), inserted") :]

# Steps 4 and 5.
_KEY = "s.user_id = %(user_id)s AND s.session_id = %(session_id)s"
_OF = f"m.session = (SELECT s.id FROM {{sessions}} s WHERE {_KEY})"
_NAMED = f"{_OF} AND m.message_id = ANY(%(ids)s::text[])"
_EARLIER = f"{_OF} AND (m.create_time, m.message_id) <= (%(time)s, %(id)s)"
_CLOCK = "SELECT {now}"
_LOCK = f"SELECT {SESSION_COLUMNS} FROM {{sessions}} s WHERE {_KEY} FOR UPDATE"
_SELECT_ALL = (
    f"SELECT {MESSAGE_COLUMNS} FROM {{messages}} m WHERE {_OF} ORDER BY m.create_time, m.message_id"
)
_SELECT_NAMED = f"SELECT {MESSAGE_COLUMNS} FROM {{messages}} m WHERE {_NAMED}"
_POSITIONS = f"SELECT m.create_time, m.message_id FROM {{messages}} m WHERE {_NAMED}"
_COUNT_EARLIER = f"SELECT count(*) FROM {{messages}} m WHERE {_EARLIER}"
_DELETE_EARLIER = f"DELETE FROM {{messages}} m WHERE {_EARLIER}"
_DELETE_NAMED = f"DELETE FROM {{messages}} m WHERE {_NAMED}"
_DELETE_ALL = f"DELETE FROM {{messages}} m WHERE {_OF}"
_COLUMNS = (
    "user_id", "session_id", "create_time", "update_time", "version", "message_count", "last_time",
    "ttl", "expires_at", "title", "summary", "metadata", "metadata_exact",
)  # fmt: skip
_BEGIN = (
    f"INSERT INTO {{sessions}} ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join(f'%({name})s' for name in _COLUMNS)})"
)
_UPDATE_SESSION = (
    f"UPDATE {{sessions}} AS s SET {', '.join(f'{name} = %({name})s' for name in _COLUMNS[2:])} "
    f"WHERE {_KEY}"
)
_INSERT = f"""
INSERT INTO {{messages}} (session, create_time, message_id, user_id, pinned, body, exact, search)
SELECT s.id, m.time, m.id, s.user_id, m.pinned, m.body::jsonb,
    (CASE m.exact WHEN '' THEN m.body ELSE m.exact END)::json, m.search::tsvector
FROM {{sessions}} s, unnest(%(times)s::bigint[], %(ids)s::text[], %(pinned)s::boolean[],
    %(bodies)s::text[], %(exacts)s::text[], %(vectors)s::text[])
    AS m (time, id, pinned, body, exact, search)
WHERE {_KEY}
"""


class Writer(Reader):
    """The writing primitives."""

    indexed: bool
    """Whether messages get a vector for searches."""

    # -- the primitives ----------------------------------------------------------------------

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        return (yield from self._commit(key, change, None))[0]

    def commit_and_read(
        self, key: Key, change: Change, query: MessageQuery
    ) -> Steps[tuple[Outcome, Read]]:
        outcome, read = yield from self._commit(key, change, query)
        if read is None:
            read = yield from self.read(key, query)
        return outcome, read

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        """Lock, read, decide and write in one transaction: appenders wait meanwhile."""

        def program() -> Steps[Outcome]:
            values = key_values(key)
            if ids is None:
                reading = (self.layout.fill(_SELECT_ALL), values)
            else:
                reading = (
                    self.layout.fill(_SELECT_NAMED),
                    {**values, "ids": [escape_text(mid) for mid in ids]},
                )
            heads, ((now,),), rows = yield lambda transaction: transaction.read(
                (self.layout.fill(_LOCK), values), (self.layout.fill(_CLOCK), None), reading
            )
            head = SessionRow(*heads[0]).head() if heads else None
            if head is not None and is_expired(head.session, now):
                head, rows = None, []
            session = head.session if head else None
            messages = [message_of(key, *row) for row in rows]
            change = decide(Snapshot(session, messages))
            if change is None:
                return Outcome(session, [], 0)
            return (yield from self._template(key, change, encode_bodies(change, MAX_BODY)))

        outcome: Outcome = yield lambda client: client.transaction(program, key.user_id)
        return outcome

    # -- the one statement -------------------------------------------------------------------

    def _commit(
        self, key: Key, change: Change, query: MessageQuery | None
    ) -> Steps[tuple[Outcome, Read | None]]:
        bodies = encode_bodies(change, MAX_BODY)
        if _only_appends(change):
            messages = list({m.message_id: m for m in change.append}.values())
            statements = [self.append_statement(key, change, messages, bodies)]
            if query is not None and query.where is None:
                statements.append(self.read_statement(key, query, query.after, query.limit))
            results = yield lambda client: client.attempt(*statements, user_id=key.user_id)
            if results and results[0]:
                outcome = _outcome(change, messages, SessionRow(*results[0][0]))
                if len(statements) == 1:
                    return outcome, None
                assert query is not None
                return outcome, self.parse_read(key, query, results[1])[0]
        outcome = yield lambda client: client.transaction(
            lambda: self._template(key, change, bodies), key.user_id
        )
        return outcome, None

    def append_statement(
        self, key: Key, change: Change, messages: list[Message], bodies: Mapping[str, bytes]
    ) -> tuple[str, dict[str, Any]]:
        values = {
            **key_values(key),
            **self._columns(key, messages, bodies),
            "count": len(messages),
            "ttl": change.ttl,
            "default_ttl": change.default_ttl,
            "version": change.if_version,
        }
        sql = _APPEND_BY_VERSION.get(change.if_version, _APPEND_AT_VERSION)
        return self.layout.fill(sql), values

    def _columns(
        self, key: Key, messages: list[Message], bodies: Mapping[str, bytes]
    ) -> dict[str, list[Any]]:
        """The columns of message rows, as arrays."""
        packed = [pack(bodies[m.message_id]) for m in messages]
        return {
            "ids": [escape_text(m.message_id) for m in messages],
            "pinned": [is_pinned(m.role) for m in messages],
            "bodies": [body for body, _ in packed],
            "exacts": [exact for _, exact in packed],
            "vectors": [vector(key.user_id, m) if self.indexed else None for m in messages],
        }

    # -- the template ------------------------------------------------------------------------

    def _template(self, key: Key, change: Change, bodies: Mapping[str, bytes]) -> Steps[Outcome]:
        values = key_values(key)
        clock: list[int] = []
        row: SessionRow | None = None
        expired = False

        def load() -> Steps[Loaded]:
            nonlocal row, expired
            appended = [escape_text(m.message_id) for m in change.append]
            others = [escape_text(m.message_id) for m in change.put]
            others += map(escape_text, change.delete)
            through = change.delete_through or Position(-1, "")
            rows, ((now,),), message_rows, positions, ((count,),) = yield lambda tx: tx.read(
                (self.layout.fill(_LOCK), values),
                (self.layout.fill(_CLOCK), None),
                (self.layout.fill(_SELECT_NAMED), {**values, "ids": appended}),
                (self.layout.fill(_POSITIONS), {**values, "ids": others}),
                (self.layout.fill(_COUNT_EARLIER), {**values, **_position(through)}),
            )
            clock.append(now)
            row = SessionRow(*rows[0]) if rows else None
            if row is None:
                return Loaded(None, {}, {})
            expired = row.expires_at is not None and row.expires_at <= now
            if expired:
                return Loaded(None, {}, {})
            stored: list[Message | CorruptRecordError] = [
                message_of(key, *columns) for columns in message_rows
            ]
            at = [Position(time, unescape_text(mid)) for time, mid in positions]
            return Loaded(
                row.head(),
                {str(message.message_id): message for message in stored},
                {position.message_id: position for position in at},
                count,
            )

        def apply(plan: Plan, _: Mapping[str, bytes]) -> Steps[None]:
            assert plan.head is not None  # a plan that changes something has one
            written = session_values(plan.head)
            statements: list[tuple[str, Any]] = []
            if row is not None and expired:
                statements.append((self.layout.fill(_DELETE_ALL), values))
            statements.append((self.layout.fill(_UPDATE_SESSION if row else _BEGIN), written))
            if change.delete_through is not None and not expired:
                statements.append(
                    (
                        self.layout.fill(_DELETE_EARLIER),
                        {**values, **_position(change.delete_through)},
                    )
                )
            removed = [*plan.delete, *(m.message_id for m in plan.overwrite)]
            if removed:
                ids = [escape_text(mid) for mid in removed]
                statements.append((self.layout.fill(_DELETE_NAMED), {**values, "ids": ids}))
            if messages := plan.insert + plan.overwrite:
                times = [m.create_time for m in messages]
                statements.append(
                    (
                        self.layout.fill(_INSERT),
                        {**values, **self._columns(key, messages, bodies), "times": times},
                    )
                )
            yield lambda tx: tx.write(*statements)

        return (
            yield from commit(
                key, change, clock=lambda: clock[-1], load=load, apply=apply, bodies=bodies
            )
        )


def _only_appends(change: Change) -> bool:
    return (
        bool(change.append)
        and change.create
        and not (change.put or change.delete or change.delete_through or change.session is not None)
    )


def _position(position: Position) -> dict[str, Any]:
    return {"time": position.create_time, "id": escape_text(position.message_id)}


def _outcome(change: Change, messages: list[Message], row: SessionRow) -> Outcome:
    """What the one statement did."""
    first = row.last_time - len(messages) + 1
    stored = {m.message_id: at_time(m, first + i) for i, m in enumerate(messages)}
    return Outcome(row.head().session, [stored[m.message_id] for m in change.append], 0)
