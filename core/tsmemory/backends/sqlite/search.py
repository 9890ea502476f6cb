"""Search: an FTS5 index over our own tokens, changed in the transaction that changes the messages.

- The table holds `engine.search`'s index texts, one column per kind, and in ``scope`` a token for
  the user and one for the session, so that other users' messages cost a search nothing. It is
  contentless: what matched is read from ``messages`` by its ``pk``, and checked again there, so a
  stale entry is never a hit. SQLite's ``ascii`` tokenizer takes the tokens as they are.
- A file that had messages before it had an index gets it in slices, the newest message first
  (``search_state.pending``: those up to this ``pk`` are still missing). Until all are there, a
  search scans.
- FTS5 removes an entry by the texts that it was made of, which are computed from the row again.
  SQLite 3.42 and newer then erases them from the index at once (``secure-delete``). Older ones keep
  them in the index until its parts are merged: `purge` merges a bounded part after each commit that
  deleted something, and everything after a session, a user or the store was erased.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tsmemory.backends.sqlite.layout import LIVE_SESSION, decode_row
from tsmemory.engine.records import Key
from tsmemory.engine.search import (
    KINDS,
    Candidate,
    Candidates,
    SearchQuery,
    Term,
    index_texts,
)
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message

if TYPE_CHECKING:
    from tsmemory.backends.sqlite.file import Connection

__all__ = [
    "add", "backfill", "is_indexed", "make", "needs_purge", "pending", "purge", "remove", "search",
]  # fmt: skip

_COLUMNS = ("scope", *KINDS)
_TABLE = f"""
CREATE VIRTUAL TABLE search USING fts5(
    {", ".join(_COLUMNS)}, content='', columnsize=0, tokenize='ascii'
)"""
_STATE = """
CREATE TABLE search_state (
    pk INTEGER PRIMARY KEY CHECK (pk = 1),
    pending INTEGER NOT NULL
)"""
_ADD = (
    f"INSERT INTO search (rowid, {', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
)
_REMOVE = (
    f"INSERT INTO search (search, rowid, {', '.join(_COLUMNS)}) "
    f"VALUES ('delete', {', '.join('?' * (len(_COLUMNS) + 1))})"
)
_ERASES_AT_ONCE = sqlite3.sqlite_version_info >= (3, 42)
_SLICE = 500
"""Messages that are indexed in one transaction where a file gets its index."""
_MERGE_PAGES = 500  # index pages, of 4 kB at most, that one step of a purge writes
_MAX_STRUCTURE = 2_000
"""Bytes of FTS5's structure record. Each merge of everything adds an empty level of two bytes, and
before SQLite 3.42 nothing takes them away: with more than 2,000 levels, the index counts as corrupt
and every write fails. Segments alone take a few hundred bytes."""
_LOOKED_AT = 2_000
"""Rows of the index that one page of a search looks at; with rare roles or filters it may end
before `SearchQuery.limit` is reached, and goes on in the next page."""
_LOOKED_AT_FIRST = 100
"""Rows of the index, of all users, that are looked at before `_LOOKED_AT` of the user's are."""


def make(db: sqlite3.Connection) -> None:
    """Give the file an index; the messages that are there wait to be indexed."""
    db.execute(_TABLE)
    if _ERASES_AT_ONCE:
        db.execute("INSERT INTO search (search, rank) VALUES ('secure-delete', 1)")
    db.execute(_STATE)
    db.execute("INSERT INTO search_state SELECT 1, coalesce(max(pk), 0) FROM messages")


def is_indexed(db: sqlite3.Connection) -> bool:
    """Whether the file has an index."""
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'search_state'"
    return db.execute(sql).fetchone() is not None


def pending(db: sqlite3.Connection) -> int | None:
    """Messages up to this ``pk`` are not indexed yet; 0: all are. None: there is no index."""
    row = db.execute("SELECT pending FROM search_state").fetchone() if is_indexed(db) else None
    return int(row[0]) if row else None


# -- in step with the messages -----------------------------------------------------------------


@lru_cache(maxsize=1024)
def _scope(user_id: str, session: int) -> str:
    digest = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8)
    return f"u{digest.hexdigest()} s{session}"


def _entry(pk: int, user_id: str, session: int, message: Message) -> tuple[Any, ...] | None:
    texts = index_texts(message)
    if not texts:
        return None
    return (pk, _scope(user_id, session), *map(texts.get, KINDS))


def add(
    db: sqlite3.Connection, user_id: str, session: int, messages: Sequence[tuple[int, Message]]
) -> None:
    """Index messages, each with its ``pk``, of the session that has the ``pk`` `session`."""
    entries = [_entry(pk, user_id, session, message) for pk, message in messages]
    db.executemany(_ADD, [entry for entry in entries if entry is not None])


def remove(db: sqlite3.Connection, condition: str, values: Sequence[Any]) -> None:
    """Take the messages of a condition on their table out of the index, before they are deleted."""
    still_pending = pending(db) or 0
    rows = db.execute(
        "SELECT pk, (SELECT user_id FROM sessions WHERE pk = session), session, create_time, "
        f"message_id, body FROM messages WHERE {condition}",
        values,
    )
    db.executemany(_REMOVE, _entries(row for row in rows if row[0] > still_pending))


def _entries(rows: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    for pk, user_id, session, *row in rows:
        message = decode_row(Key(user_id, ""), *row)
        entry = (
            None
            if isinstance(message, CorruptRecordError)
            else _entry(pk, user_id, session, message)
        )
        if entry is not None:
            yield entry


def backfill(db: sqlite3.Connection) -> int:
    """Index the next slice of the messages from before the index: how many are still to come, at
    most."""
    end = pending(db)
    if not end:
        return 0
    rows = db.execute(
        "SELECT messages.pk, user_id, session, messages.create_time, message_id, messages.body "
        "FROM messages JOIN sessions ON sessions.pk = messages.session "
        "WHERE messages.pk <= ? ORDER BY messages.pk DESC LIMIT ?",
        (end, _SLICE),
    ).fetchall()
    db.executemany(_ADD, _entries(iter(rows)))
    still_pending = rows[-1][0] - 1 if len(rows) == _SLICE else 0
    db.execute("UPDATE search_state SET pending = ?", (still_pending,))
    return int(still_pending)


def needs_purge(db: sqlite3.Connection) -> bool:
    """Whether what was removed stays in the index until `purge`."""
    return not _ERASES_AT_ONCE and is_indexed(db)


def purge(db: sqlite3.Connection) -> bool:
    """Merge a bounded part of the index, which erases what was removed: whether there is more.

    Where its structure has grown too long, the index is made anew, a slice with each call; until it
    is whole, searches read the messages.
    """
    ((structure,),) = db.execute("SELECT length(block) FROM search_data WHERE id = 10").fetchall()
    if structure > _MAX_STRUCTURE:
        db.execute("INSERT INTO search (search) VALUES ('delete-all')")
        db.execute("UPDATE search_state SET pending = (SELECT coalesce(max(pk), 0) FROM messages)")
    still_pending = backfill(db)
    before = db.total_changes
    db.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (-_MERGE_PAGES,))
    merged = db.total_changes - before >= 2  # https://sqlite.org/fts5.html, 6.8
    return merged or still_pending > 0


# -- searching ---------------------------------------------------------------------------------


def search(db: Connection, query: SearchQuery, now: int) -> Candidates | None:
    """A page of hits, the message that was stored last first; None without a whole index."""
    if not db.indexed or db.execute("SELECT pending FROM search_state").fetchone()[0]:
        return None
    hits: list[Candidate] = []
    words = _words(query)
    # Most pages are full after a few rows. And most words are rare enough to be asked for in
    # everybody's messages, which is several times as fast as to merge them with the list of all of
    # the user's.
    last, whole = _look(db, query, words, now, query.after, _LOOKED_AT_FIRST, hits)
    if not whole and len(hits) < query.limit:
        if scope := _scope_of(db, query):
            words = f'(scope : "{scope}" AND {words})'
        last, whole = _look(db, query, words, now, last, _LOOKED_AT, hits)
    return Candidates(hits, None if whole else last)


def _look(
    db: Connection,
    query: SearchQuery,
    words: str,
    now: int,
    after: int | None,
    most: int,
    hits: list[Candidate],
) -> tuple[int | None, bool]:
    """Add hits from the next `most` rows of the index: the last ``pk`` looked at, and whether it
    was the last one of all."""
    entries = "SELECT rowid FROM search WHERE search MATCH ?"
    values: list[Any] = [f"{words}{_excluded(query)}"]
    if after is not None:
        entries += " AND rowid < ?"
        values.append(after)
    values += (most, now)
    conditions = ["sessions.pk = messages.session", LIVE_SESSION]
    for condition, value in (
        ("messages.create_time >= ?", query.created_from),
        ("messages.create_time <= ?", query.created_to),
        ("sessions.user_id = ?", query.user_id),
        ("sessions.session_id = ?", query.session_id),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    rows = db.execute(
        "SELECT entry.rowid, user_id, session_id, messages.create_time, message_id, messages.body "
        f"FROM ({entries} ORDER BY rowid DESC LIMIT ?) AS entry "
        "LEFT JOIN messages ON messages.pk = entry.rowid "
        f"LEFT JOIN sessions ON {' AND '.join(conditions)} ORDER BY entry.rowid DESC",
        values,
    )
    last, looked_at = after, 0
    for pk, user_id, session_id, *row in rows:
        if len(hits) == query.limit:
            return last, False
        looked_at += 1
        last = pk
        if user_id is None:
            continue
        key = Key(user_id, session_id)
        message = decode_row(key, *row)
        if isinstance(message, CorruptRecordError) or query.matches(message):
            hits.append(Candidate(key, message))
    return last, looked_at < most


def _words(query: SearchQuery) -> str:
    """The query in FTS5's language. Tokens are quoted; they hold no quote."""
    joint = " AND " if query.query.match == "all" else " OR "
    return f"({{{' '.join(query.kinds)}}} : ({joint.join(map(_term, query.query.required))}))"


def _excluded(query: SearchQuery) -> str:
    kinds = " ".join(query.kinds)
    return "".join(f" NOT ({{{kinds}}} : {_term(term)})" for term in query.query.excluded)


def _scope_of(db: sqlite3.Connection, query: SearchQuery) -> str | None:
    """The token of the session or of the user that is searched."""
    if query.user_id is None:
        return None
    if query.session_id is None:
        return _scope(query.user_id, 0).split()[0]
    row = db.execute(
        "SELECT pk FROM sessions WHERE user_id = ? AND session_id = ?",
        (query.user_id, query.session_id),
    ).fetchone()
    return f"s{row[0] if row else 0}"


def _term(term: Term) -> str:
    return f'"{" ".join(term.tokens)}"{" *" if term.prefix else ""}'
