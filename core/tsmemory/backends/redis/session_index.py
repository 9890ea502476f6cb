"""The index of sessions: reading it in order, and repairing what a dead writer left.

An entry's score is the session's update_time, or, in a Cluster while a write is on its way (or
its writer died), the time announced for it. The session's head is the truth. An entry that
disagrees with it is left alone for `ANNOUNCEMENT_TIMEOUT_US`: its writer may be alive, and will
settle it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.calls import Call, scripted
from tsmemory.backends.redis.layout import SHARDS, SessionKeys, parse_member
from tsmemory.backends.redis.reader import heads, read_session
from tsmemory.backends.redis.server import RedisServer
from tsmemory.backends.redis.writer import place
from tsmemory.engine.records import Key, SessionQuery
from tsmemory.engine.rows import passes
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Session

__all__ = ["ANNOUNCEMENT_TIMEOUT_US", "Entry", "is_settled", "list_sessions", "scan_page", "sweep"]

ANNOUNCEMENT_TIMEOUT_US = 30_000_000
"""µs between an announcement and the moment when a reader takes its writer for dead."""
_PORTION = 500  # entries read at once, where nothing says fewer
_SWEEP = 1_000  # expired entries that one script takes off
_LOW, _HIGH = "-inf", "+inf"

Listed = Session | CorruptRecordError


class Entry(NamedTuple):
    """An entry of a list of sessions."""

    score: float
    key: Key
    member: bytes
    """Its bytes in the list it was read from."""
    source: str
    """That list."""
    text: bytes
    """The score as the server wrote it."""


def is_settled(server: RedisServer, entry: Entry, now: int) -> bool:
    """Whether what the entry says is no announcement of a writer that may be alive."""
    return not server.is_cluster or now - entry.score > ANNOUNCEMENT_TIMEOUT_US


def _entries(source: str, user_id: str | None, flat: Sequence[bytes]) -> list[Entry]:
    return [
        Entry(
            float(score),
            parse_member(member) if user_id is None else Key(user_id, member.decode()),
            member,
            source,
            score,
        )
        for member, score in zip(flat[::2], flat[1::2], strict=True)
    ]


def scan_page(
    server: RedisServer, source: str, user_id: str | None, last: Entry | None
) -> Steps[tuple[int, list[Entry]]]:
    """The server's time and the next entries of a list, the oldest first; empty at its end."""
    after: tuple[Any, ...] = ("", "")
    low: Any = _LOW
    if last is not None:
        after, low = (last.member, last.text), last.text
    now, _, flat = yield from server.call(
        scripts.LIST, [source], low, _HIGH, "asc", _PORTION, 0, 0, *after
    )
    return int(now), _entries(source, user_id, flat)


def sweep(server: RedisServer) -> Steps[int]:
    """Take what has expired off the index: how many entries."""
    total = 0
    shards = [server.names.shard(shard, "-") for shard in range(SHARDS)]
    while shards:
        counts = yield from server.calls([scripted(scripts.SWEEP, s, (_SWEEP,)) for s in shards])
        total += sum(counts)
        shards = [s for s, count in zip(shards, counts, strict=True) if count == _SWEEP]
    return total


def list_sessions(server: RedisServer, query: SessionQuery) -> Steps[list[Listed]]:
    """One round trip to the index and one, pipelined, to the sessions, where all is settled."""
    sources = server.names.lists(query.user_id)
    rows: list[Listed] = []
    edge: list[Entry] = []
    swept = False
    while True:
        size = _PORTION
        if query.limit is not None and query.where is None:
            size = min(query.limit - len(rows), _PORTION)
        now, entries, done = yield from _portion(server, sources, query, edge, size)
        listed, missing = yield from _read(server, query, entries, now)
        if missing and not swept:
            # Expired sessions, whose entries no writer has taken off yet: all of them, at once.
            swept = True
            if (yield from sweep(server)):
                continue
        rows += listed
        if done or (query.limit is not None and len(rows) >= query.limit):
            return rows[: query.limit]
        same = [entry for entry in edge if entry.score == entries[-1].score]
        edge = same + [entry for entry in entries if entry.score == entries[-1].score]


def _portion(
    server: RedisServer,
    sources: list[str],
    query: SessionQuery,
    edge: list[Entry],
    size: int,
) -> Steps[tuple[int, list[Entry], bool]]:
    """The next entries in order, at least one if there is any; and whether these are all.

    `edge` are the entries already seen that have the last one's score.
    """
    low: Any = _LOW if query.updated_from is None else query.updated_from
    high: Any = _HIGH if query.updated_to is None else query.updated_to
    after: tuple[Any, Any] = ("", "")
    after_source = ""
    if edge:
        low, high = (low, edge[0].text) if query.descending else (edge[0].text, high)
    elif query.after is not None:
        time = query.after[0]
        if query.descending:
            high = time if query.updated_to is None else min(time, query.updated_to)
        else:
            low = time if query.updated_from is None else max(time, query.updated_from)
        keys = server.names.session(Key(*query.after[1:]))
        after_source = keys.lists[query.user_id is None]
        after = (keys.member if query.user_id is not None else keys.all_member, time)
        if time not in (low, high):
            after_source = ""
    # Sessions are spread evenly: few lists have more than a quarter of a page.
    each = min(size, max(8, size // 4))
    fixed = (low, high, "desc" if query.descending else "asc", each, size + 1)
    questions = {
        source: (
            sum(entry.source == source for entry in edge),
            *(after if source == after_source else ("", "")),
        )
        for source in sources
    }
    now, lists = yield from _ask(server, fixed, questions)
    listed: list[Entry] = []
    bounds: list[tuple[float, Key]] = []
    done = True
    for source, (count, flat) in lists.items():
        page = _entries(source, query.user_id, flat)
        listed += page
        done = done and count < each
        if count >= each and count == len(page):  # there may be more behind its last
            bounds.append((page[-1].score, page[-1].key))
    listed.sort(key=lambda entry: (entry.score, entry.key), reverse=query.descending)
    if bounds:
        bound = max(bounds) if query.descending else min(bounds)
        if query.descending:
            listed = [e for e in listed if (e.score, e.key) >= bound]
        else:
            listed = [e for e in listed if (e.score, e.key) <= bound]
    return now, listed[:size], done and len(listed) <= size


def _ask(
    server: RedisServer, fixed: tuple[Any, ...], calls: dict[str, tuple[Any, ...]]
) -> Steps[tuple[int, dict[str, tuple[int, Sequence[bytes]]]]]:
    """How many entries lists have, up to a limit, and those among the first of all: from one script
    where the lists are all in its reach."""
    groups = [[source] for source in calls] if server.is_cluster else [list(calls)]
    replies = yield from server.calls(
        [
            scripted(scripts.LIST, group, (*fixed, *(x for source in group for x in calls[source])))
            for group in groups
        ]
    )
    lists = {
        source: (count, flat)
        for group, (_, counts, *found) in zip(groups, replies, strict=True)
        for source, count, flat in zip(group, counts, found, strict=True)
    }
    return max(int(reply[0]) for reply in replies), lists


def _read(
    server: RedisServer, query: SessionQuery, entries: list[Entry], now: int
) -> Steps[tuple[list[Listed], int]]:
    """The sessions of `entries`, in order, and how many there are none of; wrong entries are
    repaired."""
    keys = [server.names.session(entry.key) for entry in entries]
    records = yield from heads(server, keys)
    rows: list[tuple[tuple[int, str, str], Listed]] = []
    repairs: list[Call] = []
    missing = 0
    for entry, session, (what, *reply) in zip(entries, keys, records, strict=True):
        row = read_session(entry.key, what, reply)
        sure = is_settled(server, entry, now)
        if row is None:
            missing += 1
            if sure:
                repairs.append(repair(session, entry, None))
            continue
        time = row.update_time if isinstance(row, Session) else row.create_time
        if isinstance(row, Session) and float(time or 0) != entry.score:
            if sure or (time or 0) > entry.score:
                repairs.append(repair(session, entry, time))
            if (time or 0) < entry.score:
                if sure and query.descending:
                    continue  # it comes where it belongs
                time = int(entry.score)
                row = msgspec.structs.replace(row, update_time=time)
        elif not isinstance(row, Session):
            time = row.create_time = time or int(entry.score)
        spot = (time or 0, entry.key.user_id, entry.key.session_id)
        if _within(query, spot) and passes(row, query.where):
            rows.append((spot, row))
    if repairs:
        yield from server.calls(repairs)
    rows.sort(key=lambda row: row[0], reverse=query.descending)
    return [row for _, row in rows], missing


def _within(query: SessionQuery, spot: tuple[int, str, str]) -> bool:
    if query.updated_from is not None and spot[0] < query.updated_from:
        return False
    if query.updated_to is not None and spot[0] > query.updated_to:
        return False
    if query.after is None:
        return True
    return spot < query.after if query.descending else spot > query.after


def repair(session: SessionKeys, entry: Entry, time: int | None) -> Call:
    """Correct an entry, if nobody has written since it was read; None: there is no session."""
    if time is None:
        return place(session, "drop", entry.text)
    return place(session, "repair", entry.text, time)
