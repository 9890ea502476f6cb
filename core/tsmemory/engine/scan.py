"""A search without an index: reads the messages themselves, a bounded part per page.

For backends that keep no index, and for those whose index is switched off. Sessions are visited the
newest first by their creation, which does not change while others write, and in each the newest
message first; the cursor is the last message looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tsmemory.engine.contract import Backend
from tsmemory.engine.records import Key, MessageQuery, Position, SessionQuery
from tsmemory.engine.search import Candidate, Candidates, SearchQuery
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session

__all__ = ["SCAN_CHARACTERS", "scan"]

SCAN_CHARACTERS = 8_000_000
"""Characters of text that one page looks at, about: ours, a quarter of a second in CPython."""
_PORTION = 256  # messages per read
_BLOCK_CHARACTERS = 100  # what a message costs beside its text


class _Place(NamedTuple):
    """Where a scan is: the session by its creation, and the last message seen in it."""

    created: int
    key: Key
    position: Position | None


def scan(backend: Backend, query: SearchQuery) -> Steps[Candidates]:
    """A page of hits, and where to go on; a page may be empty and have a `Candidates.next`."""
    position = _decode(query.after)
    rows: list[Candidate] = []
    budget = SCAN_CHARACTERS
    waiting = yield from _sessions(backend, query, position)
    after: Position | None = None
    if waiting and position is not None and position.key == waiting[0][1]:
        after = position.position
    size = 1  # the newest session alone may have enough; then twice as many each time
    while waiting:
        group, waiting = waiting[:size], waiting[size:]
        size = min(size * 2, backend.at_once)
        portion = _portion(query, after)
        reads = yield from backend.read_many([key for _, key in group], portion)
        for (created, key), read in zip(group, reads, strict=True):
            while True:
                for row in read.rows:
                    after = Position(row.create_time or 0, row.message_id or "")
                    budget -= _cost(row)
                    if isinstance(row, CorruptRecordError) or query.matches(row):
                        rows.append(Candidate(key, row))
                    if len(rows) >= query.limit or budget <= 0:
                        return Candidates(rows, [created, *key, *after])
                if len(read.rows) < _PORTION:
                    break
                read = yield from backend.read(key, _portion(query, after))
        after = None
    return Candidates(rows)


def _decode(after: Any) -> _Place | None:
    if after is None:
        return None
    created, user_id, session_id, time, message_id = after
    return _Place(created, Key(user_id, session_id), Position(time, message_id))


def _portion(query: SearchQuery, after: Position | None) -> MessageQuery:
    return MessageQuery(
        limit=_PORTION,
        descending=True,
        after=after,
        created_from=query.created_from,
        created_to=query.created_to,
        where=query.where,
    )


def _cost(row: Message | CorruptRecordError) -> int:
    if isinstance(row, CorruptRecordError):
        return _BLOCK_CHARACTERS
    content = row.content
    size = len(content) if isinstance(content, str) else sum(map(len, map(str, content)))
    return _BLOCK_CHARACTERS + size


def _sessions(
    backend: Backend, query: SearchQuery, position: _Place | None
) -> Steps[list[tuple[int, Key]]]:
    """The sessions that are still to be visited, each with its creation (µs)."""
    if query.user_id is not None and query.session_id is not None:
        return [(0, Key(query.user_id, query.session_id))]
    listed = yield from backend.list_sessions(SessionQuery(user_id=query.user_id, limit=None))
    sessions = [
        (row.create_time if isinstance(row, Session) else 0, Key(row.user_id, row.session_id))
        for row in listed
        if query.session_id in (None, row.session_id)
    ]
    sessions.sort(reverse=True)
    if position is None:
        return sessions
    return [session for session in sessions if session <= (position.created, position.key)]
