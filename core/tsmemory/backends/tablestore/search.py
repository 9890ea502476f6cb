"""Search: a search index of the service over our own tokens, in the isolated layout.

A message's row has a column ``tsmemory_text``: a token for the user, and `engine.tokens`'s tokens,
each behind a letter for its kind. The index cuts it at its spaces, so the service parses nothing.
Each row that the index names is read from the table, with its session's head, and checked here: so
nothing is found that was deleted, changed or has expired. The index follows the table by seconds
(the service promises no more), so what was written a moment ago may not be found yet.

A text too long for its column or for the row is ``!scan``: always a candidate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from tsmemory.backends.tablestore.heads import BATCH_GET
from tsmemory.backends.tablestore.layout import HEAD_TIME, MAX_COLUMN, TEXT, Layout
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import Record
from tsmemory.backends.tablestore.rows import MAX_MESSAGE, Encoded, decode, is_tombstone
from tsmemory.backends.tablestore.sdk import (
    BatchWrite,
    PrimaryKey,
    Write,
    at_most,
    batch_get,
    get_range,
    sdk,
    update,
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
from tsmemory.errors import CorruptRecordError, InvalidInputError, UnavailableError
from tsmemory.model import Message

__all__ = ["SearchIndex", "add_texts", "search_text"]

_LETTERS: dict[Kind, str] = {
    "text": "t",
    "instructions": "i",
    "tool_results": "o",
    "reasoning": "r",
    "tool_calls": "c",
}
_SCAN = "!scan"
_PAGE = BATCH_GET // 2  # candidates that are read, with as many heads, in one BatchGetRow
_LOOKED_AT = 1_000
"""Candidates that one page looks at; with rare roles or filters it may end before its limit."""
_TIE = ("create_time", "user_session_id", "message_id")


def _user(user_id: str) -> str:
    return f"u{hashlib.blake2b(user_id.encode(), digest_size=8).hexdigest()}"


def search_text(user_id: str, message: Message, room: int = MAX_COLUMN) -> str:
    """The column of `message`, of at most `room` bytes."""
    words = [_user(user_id)]
    for kind, text in index_texts(message).items():
        words.append(SEPARATOR)  # so that no phrase reaches from one kind to the next
        words += [
            token if token == SEPARATOR else _LETTERS[kind] + token.lower()
            for token in text.split()
        ]
    joined = " ".join(words)
    return joined if len(joined.encode()) <= min(room, MAX_COLUMN) else f"{words[0]} {_SCAN}"


def add_texts(key: Key, messages: Sequence[Message], rows: dict[str, Encoded]) -> None:
    """Give the rows of `messages` the column by which they are found."""
    for message in messages:
        row = rows[message.message_id]
        text = search_text(key.user_id, message, MAX_MESSAGE - row.size)
        columns = {**row.columns, TEXT: text}
        rows[message.message_id] = row._replace(columns=columns, size=row.size + len(text.encode()))


class SearchIndex:
    """The index over the messages' table, and searches by it."""

    def __init__(self, layout: Layout, reader: Reader) -> None:
        self.layout = layout
        self.reader = reader

    # -- setup -------------------------------------------------------------------------------

    def setup(self) -> Steps[None]:
        """Make the index where it is missing, and give messages from before it their text."""
        table, name = self.layout.message_table, self.layout.search_index
        if name not in (yield from self._names()):
            error: Exception | None = None
            meta = _schema()
            try:
                yield lambda client: client.create_search_index(table, name, meta)
            except sdk.OTSServiceError as refused:  # another process may have made it
                error = refused
            if name not in (yield from self._names()):
                raise UnavailableError(f"the index {name!r} cannot be created") from error
        yield from self._backfill()

    def _names(self) -> Steps[set[str]]:
        table = self.layout.message_table
        listed = yield lambda client: client.list_search_index(table)
        return {name for of, name in listed if of == table}

    def _backfill(self) -> Steps[None]:
        """Write the text of rows without it. A writer that changes a row meanwhile writes it too,
        so a row that has the column is left alone."""
        start: PrimaryKey | None
        start, end = self.layout.all_messages()
        while start is not None:
            rows, start = yield get_range(self.layout.message_table, start, end)
            changes: list[Write] = []
            size = 0
            for row in rows:
                if row.key[1] == HEAD_TIME or is_tombstone(row) or TEXT in row.columns:
                    continue
                key = self.layout.key_of(row.key[0])
                message = decode(row, key, self.layout)
                if isinstance(message, Message):
                    text = search_text(key.user_id, message, MAX_COLUMN // 2)
                else:
                    text = f"{_user(key.user_id)} {_SCAN}"
                row_key = self.layout.message_key(key, *row.key[1:])
                # At most "" where it is missing: what is there is not overwritten.
                where = at_most(TEXT, "")
                if changes and (size + len(text.encode()) > MAX_COLUMN or len(changes) == 100):
                    yield BatchWrite(changes)
                    changes, size = [], 0
                changes.append(
                    update(
                        self.layout.message_table, row_key, {TEXT: text}, exists=True, where=where
                    )
                )
                size += len(text.encode())
            if changes:
                yield BatchWrite(changes)

    # -- searching ---------------------------------------------------------------------------

    def search(self, query: SearchQuery) -> Steps[Candidates]:
        """A page of hits, the most recent first: a search and a read of what it names."""
        hits: list[Candidate] = []
        after = _place(query.after)
        looked_at = 0
        size = min(_PAGE, query.limit + 1)
        while looked_at < _LOOKED_AT:
            keys = yield from self._candidates(query, after, size)
            messages = yield from self._read(keys)
            for position in keys:
                if len(hits) == query.limit:
                    return Candidates(hits, after)
                candidate = messages.get(tuple(position))
                after = [position[1], position[0], position[2]]
                if candidate is not None and (
                    isinstance(candidate.message, CorruptRecordError)
                    or query.matches(candidate.message)
                ):
                    hits.append(candidate)
            looked_at += len(keys)
            if len(keys) < size:
                return Candidates(hits)
            size = _PAGE
        return Candidates(hits, after)

    def _candidates(
        self, query: SearchQuery, after: list[Any] | None, limit: int
    ) -> Steps[list[list[Any]]]:
        """The keys of the next rows: partition, create_time, message_id."""
        filters = [sdk.BoolQuery(should_queries=[_expression(query), _term(_SCAN)])]
        if query.user_id is not None:
            filters.append(_term(_user(query.user_id)))
        if query.user_id is not None and query.session_id is not None:
            partition = self.layout.partition_of(Key(query.user_id, query.session_id))
            filters.append(sdk.TermQuery("user_session_id", partition))
        if query.created_from is not None:
            filters.append(sdk.RangeQuery("create_time", range_from=query.created_from))
        if query.created_to is not None:
            filters.append(
                sdk.RangeQuery("create_time", range_to=query.created_to, include_upper=True)
            )
        if after is not None:
            filters.append(_before(after))
        order = [sdk.FieldSort(name, sdk.SortOrder.DESC) for name in _TIE]
        request = sdk.SearchQuery(
            sdk.BoolQuery(filter_queries=filters), sort=sdk.Sort(sorters=order), limit=limit
        )
        table, name = self.layout.message_table, self.layout.search_index
        nothing = sdk.ColumnsToGet(return_type=sdk.ColumnReturnType.NONE)
        reply = yield lambda client: client.search(table, name, request, nothing)
        return [[part[1] for part in row[0]] for row in reply.rows]

    def _read(self, keys: Sequence[list[Any]]) -> Steps[dict[tuple[Any, ...], Candidate]]:
        """The rows as they are now, of sessions that are there, by their keys."""
        if not keys:
            return {}
        layout = self.layout
        sessions = {partition: layout.key_of(partition) for partition, _, _ in keys}
        row_keys = [
            layout.message_key(sessions[partition], time, message_id)
            for partition, time, message_id in keys
        ]
        heads = [layout.head_key(key) for key in sessions.values()]
        rows = (yield batch_get({layout.message_table: ([*row_keys, *heads], None)}))[
            layout.message_table
        ]
        records: dict[str, Record] = {
            row.key[0]: self.reader.head_of(sessions[row.key[0]], row)
            for row in rows
            if row.key[1] == HEAD_TIME
        }
        candidates: dict[tuple[Any, ...], Candidate] = {}
        for row in rows:
            key, record = sessions[row.key[0]], records.get(row.key[0])
            if row.key[1] == HEAD_TIME or not self.reader.visible(record):
                continue
            message = decode(row, key, layout)
            if message is not None:
                candidates[row.key] = Candidate(key, message)
        return candidates


def _schema() -> Any:
    """The index: the text cut at its spaces, and the key to sort and page by."""
    kinds = sdk.FieldType
    fields = [
        sdk.FieldSchema("user_session_id", kinds.KEYWORD, enable_sort_and_agg=True),
        sdk.FieldSchema("create_time", kinds.LONG, enable_sort_and_agg=True),
        sdk.FieldSchema("message_id", kinds.KEYWORD, enable_sort_and_agg=True),
        sdk.FieldSchema(
            TEXT,
            kinds.TEXT,
            analyzer=sdk.AnalyzerType.SPLIT,
            analyzer_parameter=sdk.SplitAnalyzerParameter(" "),
        ),
    ]
    return sdk.SearchIndexMeta(fields)


def _term(token: str) -> Any:
    return sdk.TermQuery(TEXT, token)


def _expression(query: SearchQuery) -> Any:
    """The query for the service; exclusions are checked here."""
    terms = [
        sdk.BoolQuery(should_queries=[_of_kind(_LETTERS[kind], term) for kind in query.kinds])
        for term in query.query.required
    ]
    if query.query.match == "any":
        return sdk.BoolQuery(should_queries=terms)
    return sdk.BoolQuery(filter_queries=terms)


def _of_kind(letter: str, term: Term) -> Any:
    words = [letter + token.lower() for token in term.tokens]
    parts = []
    if term.prefix:
        parts.append(sdk.PrefixQuery(TEXT, words.pop()))
    if len(words) > 1:
        parts.append(sdk.MatchPhraseQuery(TEXT, " ".join(words)))
    elif words:
        parts.append(_term(words[0]))
    return sdk.BoolQuery(filter_queries=parts)


def _before(position: list[Any]) -> Any:
    """What comes behind `place` in the order, which is descending in every part."""
    branches = []
    for i, name in enumerate(_TIE):
        equal = [sdk.TermQuery(_TIE[j], position[j]) for j in range(i)]
        lower = sdk.RangeQuery(name, range_to=position[i], include_upper=False)
        branches.append(sdk.BoolQuery(filter_queries=[*equal, lower]))
    return sdk.BoolQuery(should_queries=branches)


def _place(after: Any) -> list[Any] | None:
    if after is None:
        return None
    if type(after) is not list or list(map(type, after)) != [int, str, str]:
        raise InvalidInputError("cursor is not from this search")
    return list(after)
