"""The lists of sessions: reading them in order, and putting right what a dead writer left.

An entry's score is the session's update_time, or, in a Cluster while a write is on its way (or
its writer died), the time announced for it. The session's head is the truth. An entry that
disagrees with it is left alone for `GRACE`: its writer may be alive, and will settle it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.layout import Place, parse_member, read_head
from tsmemory.backends.redis.server import RedisServer
from tsmemory.backends.redis.wire import Call, scripted
from tsmemory.engine.records import Key, SessionQuery
from tsmemory.engine.rows import passes
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Session

__all__ = ["GRACE", "Entry", "list_sessions", "settled", "walk"]

GRACE = 30_000_000
"""µs between an announcement and the moment when a reader takes its writer for dead."""
_PORTION = 500  # entries read at once, where nothing says fewer
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


def settled(server: RedisServer, entry: Entry, now: int) -> bool:
    """Whether what the entry says is no announcement of a writer that may be alive."""
    return not server.is_cluster or now - entry.score > GRACE


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


def walk(
    server: RedisServer, source: str, user_id: str | None, last: Entry | None
) -> Steps[tuple[int, list[Entry]]]:
    """The server's time and the next portion of a list, the oldest first; empty at its end."""
    after: tuple[object, ...] = ("", "")
    low: object = _LOW
    if last is not None:
        after, low = (last.member, last.text), last.text
    now, flat = yield from server.call(
        scripts.LIST, [source], low, _HIGH, "asc", *after, 0, _PORTION
    )
    return int(now), _entries(source, user_id, flat)


def list_sessions(server: RedisServer, query: SessionQuery) -> Steps[list[Listed]]:
    """One round trip to the lists and one, pipelined, to the sessions, where all is settled."""
    sources = server.names.everybody()
    if query.user_id is not None:
        sources = [server.names.lists(query.user_id)[0]]
    rows: list[Listed] = []
    edge: list[Entry] = []
    while True:
        size = _PORTION
        if query.limit is not None and query.where is None:
            size = min(query.limit - len(rows), _PORTION)
        now, entries, done = yield from _portion(server, sources, query, edge, size)
        rows += yield from _read(server, query, entries, now)
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
    """The next entries in order, at least `size` if there are; and whether these are all.

    `edge` are the entries already seen that have the last one's score.
    """
    low: object = _LOW if query.updated_from is None else query.updated_from
    high: object = _HIGH if query.updated_to is None else query.updated_to
    after: tuple[object, object] = ("", "")
    after_source = ""
    place = query.after
    if edge:
        low, high = (low, edge[0].text) if query.descending else (edge[0].text, high)
    elif place is not None:
        time = place[0]
        if query.descending:
            high = time if query.updated_to is None else min(time, query.updated_to)
        else:
            low = time if query.updated_from is None else max(time, query.updated_from)
        spot = server.names.place(Key(place[1], place[2]))
        after_source = spot.lists[query.user_id is None]
        after = (spot.member if query.user_id is not None else spot.all_member, time)
        if time not in (low, high):
            after_source = ""
    way = "desc" if query.descending else "asc"
    calls = []
    for source in sources:
        passed = sum(entry.source == source for entry in edge)
        where = after if source == after_source else ("", "")
        calls.append(scripted(scripts.LIST, [source], (low, high, way, *where, passed, size)))
    replies = yield from server.calls(calls)
    found: list[Entry] = []
    bounds: list[tuple[float, Key]] = []
    for source, (_, flat) in zip(sources, replies, strict=True):
        some = _entries(source, query.user_id, flat)
        found += some
        if len(some) >= size:  # there may be more behind its last
            bounds.append((some[-1].score, some[-1].key))
    found.sort(key=lambda entry: (entry.score, entry.key), reverse=query.descending)
    if bounds:
        bound = max(bounds) if query.descending else min(bounds)
        if query.descending:
            safe = [e for e in found if (e.score, e.key) >= bound]
        else:
            safe = [e for e in found if (e.score, e.key) <= bound]
        found = safe[:size]
    return max(int(now) for now, _ in replies), found, not bounds


def _read(
    server: RedisServer, query: SessionQuery, entries: list[Entry], now: int
) -> Steps[list[Listed]]:
    """The sessions of `entries`, in order; what the lists have wrong is put right."""
    places = [server.names.place(entry.key) for entry in entries]
    heads = yield from server.calls([scripted(scripts.HEAD, [p.keys[0]]) for p in places])
    rows: list[tuple[tuple[int, str, str], Listed]] = []
    repairs: list[Call] = []
    for entry, place, reply in zip(entries, places, heads, strict=True):
        row = read_head(entry.key, *reply[1:])
        sure = settled(server, entry, now)
        if row is None:
            if sure:
                repairs.append(heal(place, entry, None))
            continue
        time = row.update_time if isinstance(row, Session) else row.create_time
        if isinstance(row, Session) and float(time) != entry.score:
            if sure or time > entry.score:
                repairs.append(heal(place, entry, time))
            if time < entry.score:
                if sure and query.descending:
                    continue  # it comes where it belongs
                time = int(entry.score)
                row = msgspec.structs.replace(row, update_time=time)
        elif not isinstance(row, Session):
            time = row.create_time = time or int(entry.score)
        spot = (time, *entry.key)
        if _within(query, spot) and passes(row, query.where):
            rows.append((spot, row))
    if repairs:
        yield from server.calls(repairs)
    rows.sort(key=lambda row: row[0], reverse=query.descending)
    return [row for _, row in rows]


def _within(query: SessionQuery, spot: tuple[int, str, str]) -> bool:
    if query.updated_from is not None and spot[0] < query.updated_from:
        return False
    if query.updated_to is not None and spot[0] > query.updated_to:
        return False
    if query.after is None:
        return True
    return spot < query.after if query.descending else spot > query.after


def heal(place: Place, entry: Entry, time: int | None) -> Call:
    """Put an entry right, if nobody has written since it was read; None: there is no session."""
    what = ("heal", time) if time is not None else ("drop", "")
    return scripted(
        scripts.INDEX,
        place.lists,
        (what[0], place.member, place.all_member, entry.text, what[1]),
    )
