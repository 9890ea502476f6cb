"""How messages and sessions are read: pages that do not mix two versions of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tsmemory.backends.zerodb import client as api
from tsmemory.backends.zerodb.rows import (
    SESSION_ROW,
    LoadedSession,
    activity,
    encode_sortable,
    key_of,
    place_of,
    read_message,
    read_session,
    time_text,
    visible,
)
from tsmemory.backends.zerodb.writer import find, kept_session
from tsmemory.engine.records import Key, MessageQuery, Position, Read, SessionQuery
from tsmemory.engine.rows import passes
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session

__all__ = ["all_pages", "get_messages", "list_sessions", "read"]

_TRIES = 6
"""How often a reading begins again when a writer moved the session on in between. The last one
counts as it is: rows of later versions left out, rows that a later commit removed missing."""

Raw = dict[str, Any]
Rows = list[Message | CorruptRecordError]


class _MovedError(Exception):
    """A writer moved the session on between two requests of one reading."""


def read(key: Key, query: MessageQuery, now: int) -> Steps[Read]:
    """As `Backend.read`.

    The session's row sorts behind its messages, so it comes with the newest ones, and with a page
    that holds all: then one request is the whole reading. Otherwise it is read before and after.
    """
    for attempt in range(_TRIES):
        try:
            return (yield from _read(key, query, now, last=attempt == _TRIES - 1))
        except _MovedError:
            continue
    raise AssertionError("the last attempt does not raise _MovedError")


def _read(key: Key, query: MessageQuery, now: int, *, last: bool) -> Steps[Read]:
    together = query.after is None and query.created_to is None
    loaded: LoadedSession | None = None
    first: list[Raw] = []
    size = _page_size(query)
    if together:
        way = -1 if query.descending else 1
        reply = yield api.query(_conditions(key, query), sort={"place": way}, limit=size)
        first = reply["rows"]
        loaded = kept_session(first)
        together = loaded is not None or len(first) < size
    if not together:  # also where drafts of sessions that never began fill the first page
        loaded, _ = yield from find(key)
    if loaded is None or loaded.row.expired(now):
        return Read([], total=0 if query.total else None)
    rows = yield from _collect(key, query, loaded, last, (first, size) if together else None)
    # One request is one view of the table; several may have a commit between them.
    one_request = together and (len(first) < size or len(rows) == query.limit)
    pinned: Rows = []
    if query.pinned and rows and loaded.row.pinned:
        oldest = place_of(Position(rows[-1].create_time or 0, rows[-1].message_id or ""))
        pinned = yield from _pinned(key, loaded, oldest)
        one_request = False
    if not one_request and not last:
        again, _ = yield from find(key)
        if again is None or (again.row.token, again.row.version) != (
            loaded.row.token,
            loaded.row.version,
        ):
            raise _MovedError
    total = loaded.row.count if query.total else None
    return Read(rows, pinned, total, loaded.session if query.session else None)


def _page_size(query: MessageQuery) -> int:
    if query.limit is None or query.where is not None:
        return api.MAX_ROWS
    return min(api.MAX_ROWS, query.limit + 1)  # one more for the session's own row


def _conditions(key: Key, query: MessageQuery) -> dict[str, Any]:
    bounds: dict[str, str] = {}
    low: list[str] = []
    high: list[str] = []
    if query.created_from is not None:
        low.append(time_text(query.created_from))
    if query.created_to is not None:
        high.append(time_text(query.created_to + 1))
    if query.after is not None:
        (high if query.descending else low).append(place_of(query.after))
    if low:
        bounds["$gt"] = max(low)  # places are longer than times, so none equals a bound of time
    if high:
        bounds["$lt"] = min(high)
    return {"key": key_of(key), **({"place": bounds} if bounds else {})}


def _collect(
    key: Key,
    query: MessageQuery,
    loaded: LoadedSession,
    last: bool,
    first: tuple[list[Raw], int] | None,
) -> Steps[Rows]:
    """The rows of a reading, page after page, the first of which may be there already."""
    rows: Rows = []
    way = -1 if query.descending else 1
    conditions = _conditions(key, query)
    size = _page_size(query)
    seen: set[tuple[str, str]] = set()
    while True:
        if first is not None:
            page, size = first
            first = None
        else:
            reply = yield api.query(conditions, sort={"place": way}, limit=size)
            page = reply["rows"]
        messages = [raw for raw in page if raw.get("place") != SESSION_ROW]
        if not last and any(_later(raw, loaded) and raw.get("state") == "kept" for raw in messages):
            raise _MovedError
        for raw in visible(loaded.row, messages):
            mark = (str(raw.get("message")), str(raw.get("commit")))
            if mark in seen or _later(raw, loaded):
                continue
            seen.add(mark)
            row = read_message(key, raw)
            if passes(row, query.where):
                rows.append(row)
                if query.limit is not None and len(rows) >= query.limit:
                    return rows
        if len(page) < size:
            return rows
        size = api.MAX_ROWS
        if messages:
            # Inclusive: two rows of one place (a draft and what it replaces) may be parted.
            edge = dict(conditions.get("place", {}))
            edge.pop("$lt" if query.descending else "$gt", None)
            edge["$lte" if query.descending else "$gte"] = str(messages[-1].get("place"))
            if not query.descending:
                edge.setdefault("$lt", SESSION_ROW)
            conditions = {**conditions, "place": edge}


def _later(raw: Raw, loaded: LoadedSession) -> bool:
    version = raw.get("version")
    return isinstance(version, int) and version > loaded.row.version


def _pinned(key: Key, loaded: LoadedSession, oldest: str) -> Steps[Rows]:
    """The instructions before a place, oldest first."""
    raws = yield from all_pages(
        {"key": key_of(key), "pinned": True, "place": {"$lt": oldest}}, {"place": 1}
    )
    return [read_message(key, raw) for raw in visible(loaded.row, raws)]


def all_pages(
    conditions: dict[str, Any],
    sort: dict[str, int],
    use: Callable[[list[Raw]], None] | None = None,
) -> Steps[list[Raw]]:
    """All rows that pass a filter, by offset; given to `use` page by page where there is one."""
    rows: list[Raw] = []
    offset = 0
    while True:
        reply = yield api.query(conditions, sort=sort, offset=offset)
        page = reply["rows"]
        offset += len(page)
        if use is None:
            rows += page
        else:
            use(page)
        if len(page) < api.MAX_ROWS:
            return rows


def get_messages(key: Key, ids: Sequence[str], now: int) -> Steps[Rows]:
    """As `Backend.get_messages`."""
    loaded, raws = yield from find(key, ids)
    if loaded is None or loaded.row.expired(now):
        return []
    return [read_message(key, raw) for raw in raws]


def list_sessions(query: SessionQuery, now: int) -> Steps[list[Session | CorruptRecordError]]:
    """As `Backend.list_sessions`."""
    low: list[str] = []
    high: list[str] = []
    if query.updated_from is not None:
        low.append(time_text(query.updated_from))
    if query.updated_to is not None:
        high.append(time_text(query.updated_to + 1))
    if query.after is not None:
        (high if query.descending else low).append(activity(query.after))
    conditions: dict[str, Any] = {
        "place": SESSION_ROW,
        "state": "kept",
        "expires": {"$gt": time_text(now)},
    }
    if query.user_id is not None:
        conditions["user"] = encode_sortable(query.user_id)
    rows: list[Session | CorruptRecordError] = []
    size = api.MAX_ROWS
    if query.limit is not None and query.where is None:
        size = min(size, query.limit)
    while True:
        bounds = {**({"$gt": max(low)} if low else {}), **({"$lt": min(high)} if high else {})}
        if bounds:
            conditions["activity"] = bounds
        sort = {"activity": -1 if query.descending else 1}
        reply = yield api.query(conditions, sort=sort, limit=size)
        for raw in reply["rows"]:
            loaded = read_session(raw)
            row = loaded if isinstance(loaded, CorruptRecordError) else loaded.session
            if passes(row, query.where):
                rows.append(row)
                if query.limit is not None and len(rows) >= query.limit:
                    return rows
        if len(reply["rows"]) < size:
            return rows
        (high if query.descending else low).append(str(reply["rows"][-1].get("activity")))
