"""The tables, their names, and the numbered migrations that make them.

What is stored is public: a person or another program may read it with SQL.

- Ids compare by byte (``COLLATE "C"``), which for UTF-8 is by code point. Text that PostgreSQL
  cannot hold is escaped as `rows.escape_text` says.
- ``body`` and ``metadata`` are JSONB. ``exact`` (``metadata_exact``) holds the same record as JSON
  text where JSONB would not give it back as it was; readers prefer it.
- ``active_minute`` and ``expiry_minute`` exist for the indexes: `update_time` itself is in none,
  so that a write to a session is a HOT update unless it is the first of its minute, and the row
  does not bloat.
- Times are µs since the Unix epoch. ``last_time`` is the highest `create_time` that the session
  ever gave or took.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from tsmemory.errors import InvalidInputError

__all__ = ["EXPIRED", "MIGRATIONS", "Layout", "policy"]

NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The server's clock (µs) when the expression is evaluated: in a write, with the lock held."""
READ_NOW = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
"""The server's clock (µs) when the statement came: the same for every row of a read."""
EXPIRED = "s.expiry_minute <= {read_now} / 60000000 AND s.expires_at <= {read_now}"
"""Whether a session has expired: the minute for the index, the time for the rest of that minute."""

_NAME = re.compile(r"[a-z_][a-z0-9_]*")

_TABLES = """
CREATE TABLE {sessions} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    create_time bigint NOT NULL,
    update_time bigint NOT NULL,
    version bigint NOT NULL,
    message_count bigint NOT NULL,
    last_time bigint NOT NULL,
    ttl double precision,
    expires_at bigint,
    title text,
    summary text,
    metadata jsonb NOT NULL DEFAULT '{{}}' CHECK (jsonb_typeof(metadata) = 'object'),
    metadata_exact json,
    active_minute bigint GENERATED ALWAYS AS (update_time / 60000000) STORED,
    expiry_minute bigint GENERATED ALWAYS AS (expires_at / 60000000) STORED,
    UNIQUE (user_id, session_id)
) WITH (fillfactor = 70);
CREATE INDEX {prefix}sessions_by_user ON {sessions} (user_id, active_minute);
CREATE INDEX {prefix}sessions_by_time ON {sessions} (active_minute);
CREATE INDEX {prefix}sessions_by_expiry ON {sessions} (expiry_minute)
    WHERE expiry_minute IS NOT NULL;
CREATE TABLE {messages} (
    session bigint NOT NULL,
    create_time bigint NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    pinned boolean NOT NULL,
    body jsonb NOT NULL,
    exact json,
    PRIMARY KEY (session, message_id)
) {partition_by};
CREATE INDEX {prefix}messages_by_time ON {messages} (session, create_time, message_id);
CREATE INDEX {prefix}messages_pinned ON {messages} (session, create_time, message_id) WHERE pinned;
{partitions}
CREATE VIEW {messages_view} {view_options} AS
SELECT s.user_id, s.session_id, r.record->>'role' AS role,
    CASE jsonb_typeof(r.record->'content')
        WHEN 'array' THEN (
            SELECT string_agg(block->>'text', '')
            FROM jsonb_array_elements(r.record->'content') AS block)
        ELSE r.record->>'content'
    END AS text,
    to_timestamp(m.create_time / 1000000.0) AS created_at,
    m.message_id, m.body
FROM {messages} m
JOIN {sessions} s ON s.id = m.session
CROSS JOIN LATERAL (SELECT coalesce(m.body->'escaped', m.body) AS record) r
WHERE s.expires_at IS NULL OR s.expires_at > extract(epoch FROM now()) * 1000000
"""

_SEARCH = """
ALTER TABLE {messages} ADD COLUMN search tsvector;
CREATE INDEX {prefix}messages_search ON {messages} USING gin (search);
CREATE INDEX {prefix}messages_unindexed ON {messages} (session) WHERE search IS NULL
"""

MIGRATIONS: tuple[str, ...] = (_TABLES, _SEARCH)
"""Each takes the schema from version i to i + 1, all of them in one transaction."""


class Layout(NamedTuple):
    """Quoted names of what the backend uses."""

    schema: str
    prefix: str

    @classmethod
    def named(cls, schema: str, prefix: str) -> Layout:
        """The layout, its names checked.

        Raises:
            InvalidInputError: a name that would have to be quoted everywhere, or a long one.
        """
        for what, name in (("schema", schema), ("prefix", prefix)):
            if not _NAME.fullmatch(name) or len(name) > 40:
                raise InvalidInputError(
                    f"{what} is {name!r}; give 1 to 40 lower-case letters, digits and underscores"
                )
        return cls(schema, prefix)

    def table(self, name: str) -> str:
        return f'"{self.schema}"."{self.prefix}{name}"'

    def fill(self, sql: str) -> str:
        """`sql` with the names of our tables, and the clocks, in place of their braces."""
        return _filled(self, sql)

    def migration(self, number: int, *, partitions: int, server_version: int) -> list[str]:
        """The statements from version `number` to the next."""
        table = self.table("messages")
        filled = MIGRATIONS[number].format(
            sessions=self.table("sessions"),
            messages=table,
            messages_view=self.table("messages_view"),
            prefix=self.prefix,
            partition_by="PARTITION BY HASH (session)" if partitions else "",
            partitions="".join(
                f"CREATE TABLE {self.table(f'messages_{i}')} PARTITION OF {table} "
                f"FOR VALUES WITH (MODULUS {partitions}, REMAINDER {i});"
                for i in range(partitions)
            ),
            # Before PostgreSQL 15 a view reads with its owner's rights, past row-level security.
            view_options="WITH (security_invoker = true)" if server_version >= 150_000 else "",
        )
        return [part for part in map(str.strip, filled.split(";")) if part]


@lru_cache(maxsize=512)
def _filled(layout: Layout, sql: str) -> str:
    names = {name: layout.table(name) for name in ("sessions", "messages", "migrations")}
    return sql.format(**names, now=NOW, read_now=READ_NOW)


def policy(layout: Layout) -> list[str]:
    """The row-level security policies: a role sees the rows of the user that the transaction
    names in ``tsmemory.user_id``, and no others. The tables' owner is exempt, as always."""
    return [
        statement
        for table in (layout.table("sessions"), layout.table("messages"))
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"DROP POLICY IF EXISTS tsmemory_user ON {table}",
            f"CREATE POLICY tsmemory_user ON {table} "
            "USING (user_id = current_setting('tsmemory.user_id', true))",
        )
    ]
