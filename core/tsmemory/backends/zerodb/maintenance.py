"""What an operator asks of the table: to make it, to count, to check, to remove for good."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from tsmemory.backends.zerodb import client as api
from tsmemory.backends.zerodb.reader import all_pages
from tsmemory.backends.zerodb.rows import (
    FOREVER,
    SCHEMA,
    SESSION_ROW,
    encode_sortable,
    key_of,
    read_message,
    read_session,
    time_text,
    visible,
)
from tsmemory.backends.zerodb.writer import delete_expired, find, settle
from tsmemory.engine.findings import expired_sessions
from tsmemory.engine.records import Finding, Key
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Erased, Problem, Stats

__all__ = ["compact", "count_expired", "erase", "purge_expired", "setup", "stats", "verify"]

Raw = dict[str, Any]


def setup(table: str) -> Steps[None]:
    """Create the table; one that is there stays as it is."""
    try:
        yield api.create(table, SCHEMA, "Conversations, kept by tsmemory.")
    except api.RefusedError as error:
        if not error.table_exists:
            raise


def erase(user_id: str | None, session_id: str | None) -> Steps[Erased]:
    """As `Backend.erase`. The sessions' rows go first: what writes meanwhile finds none to move."""
    condition: Raw = {}
    if user_id is not None and session_id is not None:
        condition = {"key": key_of(Key(user_id, session_id))}
    elif user_id is not None:
        condition = {"user": encode_sortable(user_id)}
    heads = yield from all_pages(
        {**condition, "place": SESSION_ROW, "state": "kept"}, {"activity": 1}
    )
    if heads:
        yield api.delete({**condition, "place": SESSION_ROW})
    # Drafts of writers that ended half-way are there also without a session.
    yield api.delete(condition or {"key": {"$gte": ""}})
    counts = [raw.get("count") for raw in heads]
    return Erased(len(heads), sum(count for count in counts if isinstance(count, int)))


def purge_expired(now: int) -> Steps[Erased]:
    """As `Backend.purge_expired`."""
    erased = Erased()
    for raw in (yield from all_pages(_expired(now), {"activity": 1})):
        loaded = read_session(raw)
        if isinstance(loaded, CorruptRecordError):
            went, count = True, 0
            yield api.delete({"key": str(raw.get("key"))})
        else:
            went = yield from delete_expired(loaded)
            count = loaded.row.count
        if went:
            erased = Erased(erased.sessions + 1, erased.messages + count)
    return erased


def _expired(now: int) -> Raw:
    """The rows of sessions that have expired."""
    return {"place": SESSION_ROW, "state": "kept", "expires": {"$lte": time_text(now)}}


def count_expired(now: int) -> Steps[Finding]:
    """How many sessions have expired: one request, so only up to a page."""
    reply = yield api.query(_expired(now), sort={"activity": 1}, projection={"key": 1})
    count = len(reply["rows"])
    return expired_sessions(count, at_least=count == api.MAX_ROWS)


def stats(now: int) -> Steps[Stats]:
    """As `Backend.stats`."""
    users: set[str] = set()
    sessions = messages = expired = 0

    def count(page: list[Raw]) -> None:
        nonlocal sessions, messages, expired
        for raw in page:
            expires = str(raw.get("expires"))
            if expires != FOREVER and expires <= time_text(now):
                expired += 1
                continue
            users.add(str(raw.get("user")))
            sessions += 1
            messages += raw["count"] if isinstance(raw.get("count"), int) else 0

    yield from all_pages({"place": SESSION_ROW, "state": "kept"}, {"activity": 1}, count)
    return Stats(users=len(users), sessions=sessions, messages=messages, expired_sessions=expired)


def verify() -> Steps[list[Problem]]:
    """As `Backend.verify`: reads the whole table, a session at a time."""
    problems: list[Problem] = []
    later_rows: list[Raw] = []

    def check(page: list[Raw]) -> None:
        later_rows.extend(page)
        last = later_rows[-1].get("key") if later_rows else None
        whole = [raw for raw in later_rows if raw.get("key") != last]
        for _, rows in groupby(whole, lambda raw: raw.get("key")):
            problems.extend(_findings(list(rows)))
        del later_rows[: len(whole)]

    yield from all_pages({"key": {"$gte": ""}}, {"key": 1, "place": -1}, check)
    if later_rows:
        problems += _findings(later_rows)
    return problems


def _findings(rows: list[Raw]) -> Iterator[Problem]:
    """What is wrong with the rows of one session."""
    heads = [raw for raw in rows if raw.get("place") == SESSION_ROW and raw.get("state") == "kept"]
    messages = [raw for raw in rows if raw.get("place") != SESSION_ROW]
    if not heads:
        for raw in messages:
            if raw.get("state") == "kept":
                row = read_message(Key("?", "?"), raw)
                yield Problem(None, None, row.message_id, "belongs to no session")
        return
    loaded = read_session(heads[0])
    if isinstance(loaded, CorruptRecordError):
        yield Problem(loaded.user_id, loaded.session_id, None, loaded.reason)
        return
    session = loaded.session
    key = Key(session.user_id, session.session_id)
    if isinstance(session, CorruptRecordError):
        yield Problem(*key, None, session.reason)
    if len(heads) > 1:
        yield Problem(*key, None, f"there are {len(heads)} records of this session")
    counted = visible(loaded.row, messages)
    if len(counted) != loaded.row.count:
        what = f"message_count is {loaded.row.count}, but there are {len(counted)} messages"
        yield Problem(*key, None, what)
    for raw in counted:
        row = read_message(key, raw)
        if isinstance(row, CorruptRecordError):
            yield Problem(*key, row.message_id, row.reason)


def compact(key: Key) -> Steps[int]:
    """Delete what can never count: drafts of writers that ended half-way, and rows of an earlier
    incarnation of the session."""
    loaded, _ = yield from find(key)
    if loaded is None:
        return 0
    yield from settle(loaded)
    row = loaded.row
    message: Raw = {"key": row.key, "message": {"$ne": ""}}
    # The version of a writer at work is higher.
    drafts: Raw = {**message, "state": "draft", "version": {"$lte": row.version}}
    freed = 0
    for dead in (drafts, {**message, "token": {"$ne": row.token}}):
        rows = yield from all_pages(dead, {"place": 1})
        if rows:
            yield api.delete(dead)
        freed += sum(len(str(raw.get("body"))) for raw in rows)
    return freed
