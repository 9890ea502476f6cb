"""What readers are given, from an index and its file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tsmemory.backends.jsonl.catalogue import Catalogue
from tsmemory.backends.jsonl.index_cache import Loaded
from tsmemory.backends.jsonl.rows import read_message, rows_at
from tsmemory.backends.jsonl.session_index import Row
from tsmemory.backends.jsonl.tail import read_tail
from tsmemory.engine.records import Key, MessageQuery, Position, Read, SessionQuery
from tsmemory.engine.rows import may_end, passes, session_sort_key
from tsmemory.engine.session_order import Activity
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session

__all__ = ["list_sessions", "messages_by_id", "read", "read_tail", "rows_at"]

_PAGE = 256  # sessions looked up at once where the query has no limit


def read(key: Key, loaded: Loaded, query: MessageQuery, rows: Iterable[Row] | None = None) -> Read:
    """The messages of a query.

    Args:
        rows: those of `read_tail`, where the index is not asked.
    """
    file, index = loaded.file, loaded.index
    if rows is None:
        limit = None if query.where is not None else query.limit
        rows = rows_at(file, index.walk(query), limit)
    messages: list[Message | CorruptRecordError] = []
    more = False
    for row in rows:
        message = read_message(key, row)
        if passes(message, query.where):
            messages.append(message)
            more = may_end(query, messages)
        if more or (query.limit is not None and len(messages) >= query.limit):
            break
    pinned: list[Message | CorruptRecordError] = []
    if query.pinned and messages and index.pinned:
        last = messages[-1]
        oldest = Position(last.create_time or 0, last.message_id or "")
        before = sorted(e for e in index.pinned.values() if e.position < oldest)
        pinned = [read_message(key, row) for row in rows_at(file, iter(before), None)]
    return Read(messages, pinned, more=more)


def messages_by_id(
    key: Key, loaded: Loaded, ids: Sequence[str]
) -> dict[str, Message | CorruptRecordError]:
    """Those of `ids` that are stored; the index has positions."""
    file, index = loaded.file, loaded.index
    entries = sorted(index.entries[mid] for mid in set(ids) if mid in index.entries)
    rows = rows_at(file, iter(entries), None)
    return {row[0].position.message_id: read_message(key, row) for row in rows}


def list_sessions(
    catalogue: Catalogue,
    session_at: Callable[[str], Session | CorruptRecordError | None],
    query: SessionQuery,
) -> list[Session | CorruptRecordError]:
    """The sessions of a query. The catalogue gives the order; what is returned is read from each
    session's own files, and corrects the catalogue where another process was there since."""
    rows: list[Session | CorruptRecordError] = []
    after = query.after
    while query.limit is None or len(rows) < query.limit:
        count = _PAGE if query.limit is None else min(query.limit - len(rows), _PAGE)
        page = catalogue.page(query, after, count)
        for entry in page:
            key = Key(*entry[1:])
            row = session_at(catalogue.path_of(key))
            if row is None:
                continue  # expired, or removed: the next scan finds out
            activity = session_sort_key(row)
            if activity != entry:
                catalogue.correct(key, activity[0])
                if _is_beyond(activity, page[-1], query) or not _in_range(activity, query):
                    continue  # met again on the way, or outside
            if passes(row, query.where):
                rows.append(row)
        if len(page) < count:
            break
        after = page[-1]
    rows.sort(key=session_sort_key, reverse=query.descending)
    return rows[: query.limit]


def _is_beyond(activity: Activity, position: Activity, query: SessionQuery) -> bool:
    return activity < position if query.descending else activity > position


def _in_range(activity: Activity, query: SessionQuery) -> bool:
    return (
        (query.after is None or _is_beyond(activity, query.after, query))
        and (query.updated_from is None or activity[0] >= query.updated_from)
        and (query.updated_to is None or activity[0] <= query.updated_to)
    )
