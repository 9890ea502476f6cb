"""Search: a ``tsvector`` of our own tokens beside each message, with a GIN index over it.

The column is written by the statement that writes the message. PostgreSQL's text search parses
nothing here: the lexemes are `engine.tokens`'s, each behind a letter for its kind, and one for the
user, so that other users' messages cost a search nothing. Each row that matches is checked again in
the client, which decides; so the vector may say less than the text:

- Over 16,000 tokens, or 255 times the same one, it has no positions (PostgreSQL keeps no more,
  manual 12.1.3), and the lexeme ``!long``: a phrase is then asked for as its words.
- Over 900 kB (of 1 MB that a ``tsvector`` may have) it is the lexeme ``!scan``: always a candidate.
- A row without a vector, from before the index or of a store with ``search=False``, is always a
  candidate.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tsmemory.backends.postgres.client import fetch
from tsmemory.backends.postgres.layout import Layout
from tsmemory.backends.postgres.reader import LIVE
from tsmemory.backends.postgres.rows import (
    MESSAGE_COLUMNS,
    escape_text,
    message_of,
    unescape_text,
)
from tsmemory.engine.records import Key
from tsmemory.engine.search import (
    SEPARATOR,
    Candidate,
    Candidates,
    Kind,
    SearchQuery,
    Term,
    index_texts,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Message

__all__ = ["Search", "vector"]

_LETTERS: dict[Kind, str] = {
    "text": "t",
    "instructions": "i",
    "tool_results": "o",
    "reasoning": "r",
    "tool_calls": "c",
}
_MAX_POSITION, _MAX_REPEATED = 16_000, 255
_MAX_BYTES = 900_000
_LOOKED_AT = 2_000
"""Rows that one page looks at; with rare roles or filters it may end before its limit."""
_BITMAPS = ("SELECT set_config('enable_bitmapscan', 'on', true)", None)
"""Ahead of a search, in its transaction: a GIN index is only ever read by a bitmap scan, which
`client` switches off for what has an index in its order."""
_SLICE = 200  # messages indexed per transaction, where setup() finds some without a vector


def _user(user_id: str) -> str:
    digest = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8)
    return f"u{digest.hexdigest()}"


def vector(user_id: str, message: Message) -> str:
    """The message's ``tsvector``, as PostgreSQL reads it."""
    positions: dict[str, list[int]] = {}
    position = 0
    for kind, text in index_texts(message).items():
        letter = _LETTERS[kind]
        position += 1  # so that no phrase reaches from one kind, or block, to the next
        for token in text.split():
            position += 1
            if token != SEPARATOR:
                positions.setdefault(letter + token, []).append(position)
    owner = f"'{_user(user_id)}'"
    if position > _MAX_POSITION or any(len(p) > _MAX_REPEATED for p in positions.values()):
        parts = [f"'{lexeme}'" for lexeme in positions] + ["'!long'"]
    else:
        parts = [f"'{lexeme}':{','.join(map(str, p))}" for lexeme, p in positions.items()]
    written = " ".join([owner, *parts])
    return written if len(written.encode()) <= _MAX_BYTES else f"{owner} '!scan'"


def _expression(query: SearchQuery) -> str:
    """The query in the language of ``tsquery``; exclusions are the client's to check."""
    joint = " & " if query.query.match == "all" else " | "
    terms = joint.join(
        "(" + " | ".join(_term(_LETTERS[kind], term) for kind in query.kinds) + ")"
        for term in query.query.required
    )
    expression = f"(({terms}) | '!scan')"
    return expression if query.user_id is None else f"'{_user(query.user_id)}' & {expression}"


def _term(letter: str, term: Term) -> str:
    words = [f"'{letter}{token}'" for token in term.tokens]
    if term.prefix:
        words[-1] += ":*"
    if len(words) == 1:
        return words[0]
    return f"(({' <-> '.join(words)}) | ('!long' & {' & '.join(words)}))"


class Search:
    """The searches."""

    layout: Layout

    def search(self, query: SearchQuery) -> Steps[Candidates]:
        """A page of hits, the most recent first."""
        hits: list[Candidate] = []
        after, looked_at = _place(query.after), 0
        size = max(query.limit + 1, 64)
        while looked_at < _LOOKED_AT:
            statement = self._searching(query, after, size)
            _, rows = yield fetch(_BITMAPS, statement, user_id=query.user_id)
            for user_id, session_id, session, *columns in rows:
                if len(hits) == query.limit:
                    assert after is not None  # a hit was seen
                    return Candidates(hits, list(after))
                key = Key(unescape_text(user_id), unescape_text(session_id))
                message = message_of(key, *columns)
                if isinstance(message, CorruptRecordError) or query.matches(message):
                    hits.append(Candidate(key, message))
                after = (message.create_time, session, message.message_id or "")
            looked_at += len(rows)
            if len(rows) < size:
                return Candidates(hits)
        return Candidates(hits, None if after is None else list(after))

    def _searching(
        self, query: SearchQuery, after: tuple[int, int, str] | None, limit: int
    ) -> tuple[str, dict[str, Any]]:
        clauses = [LIVE, "(m.search @@ %(query)s::tsquery OR m.search IS NULL)"]
        values: dict[str, Any] = {}
        for clause, name, value in (
            ("m.user_id = %(user_id)s", "user_id", query.user_id),
            ("s.session_id = %(session_id)s", "session_id", query.session_id),
            ("m.create_time >= %(created_from)s", "created_from", query.created_from),
            ("m.create_time <= %(created_to)s", "created_to", query.created_to),
        ):
            if value is not None:
                clauses.append(clause)
                values[name] = escape_text(value) if isinstance(value, str) else value
        if after is not None:
            clauses.append(
                "(m.create_time, m.session, m.message_id) < (%(time)s, %(session)s, %(id)s)"
            )
            values |= {"time": after[0], "session": after[1], "id": escape_text(after[2])}
        sql = (
            f"SELECT s.user_id, s.session_id, m.session, {MESSAGE_COLUMNS} FROM {{messages}} m "
            f"JOIN {{sessions}} s ON s.id = m.session WHERE {' AND '.join(clauses)} "
            f"ORDER BY m.create_time DESC, m.session DESC, m.message_id DESC LIMIT {limit:d}"
        )
        # The query is in the statement: planned without it (`client` wants generic plans), the
        # index would not be used. Tokens hold no quote, backslash, brace or percent sign.
        literal = _expression(query).replace("'", "''")
        return self.layout.fill(sql).replace("%(query)s", f"'{literal}'"), values

    def backfill(self) -> Steps[int]:
        """Give the next slice of messages without a vector theirs: how many."""
        find = self.layout.fill(
            f"SELECT m.user_id, m.session, {MESSAGE_COLUMNS} FROM {{messages}} m "
            f"WHERE m.search IS NULL LIMIT {_SLICE}"
        )
        (rows,) = yield fetch((find, None))
        vectors = []
        for user_id, session, time, message_id, body in rows:
            key = Key(unescape_text(user_id), "")
            message = message_of(key, time, message_id, body)
            broken = isinstance(message, CorruptRecordError)
            written = f"'{_user(key.user_id)}' '!scan'" if broken else vector(key.user_id, message)
            vectors.append((session, message_id, body, written))
        if not vectors:
            return 0
        sessions, ids, bodies, written_all = map(list, zip(*vectors, strict=True))
        update = self.layout.fill(
            "UPDATE {messages} m SET search = v.search::tsvector FROM "
            "unnest(%(sessions)s::bigint[], %(ids)s::text[], %(bodies)s::text[], "
            "%(vectors)s::text[]) AS v (session, id, body, search) "
            "WHERE m.session = v.session AND m.message_id = v.id AND m.search IS NULL "
            "AND coalesce(m.exact::text, m.body::text) = v.body"
        )
        values = {"sessions": sessions, "ids": ids, "bodies": bodies, "vectors": written_all}
        yield lambda client: client.transaction(lambda: _write(update, values))
        return len(vectors)


def _write(sql: str, values: dict[str, Any]) -> Steps[None]:
    yield lambda transaction: transaction.write((sql, values))


def _place(after: Any) -> tuple[int, int, str] | None:
    if after is None:
        return None
    if type(after) is not list or list(map(type, after)) != [int, int, str]:
        raise InvalidInputError("cursor is not from this search")
    return after[0], after[1], after[2]
