"""Erasing, purging, counting and verifying: walks over the lists, in portions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import methodcaller
from typing import Any

from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.layout import Place, parse_row, read_head, read_row
from tsmemory.backends.redis.server import RedisServer
from tsmemory.backends.redis.session_index import Entry, settled, walk
from tsmemory.backends.redis.wire import Call, plain, scripted
from tsmemory.engine.records import Key
from tsmemory.engine.steps import Steps
from tsmemory.errors import AuthenticationError, BackendError, CorruptRecordError
from tsmemory.model import Erased, Problem, Session, Stats, is_pinned

__all__ = ["erase_all", "erase_sessions", "erase_user", "purge_expired", "stats", "verify"]

_REMEMBER = 60_000  # ms for which an erased session's count outlives it, unless removed before
_ROWS = 200  # messages that `verify` reads at once
_BYTES = 4_000_000  # of them
_KEYS = 1000  # COUNT of SCAN: what the server looks at before it lets others in


# -- erasing ---------------------------------------------------------------------------------


def erase_sessions(
    server: RedisServer, sessions: Sequence[Key], *, only: str = ""
) -> Steps[Erased]:
    """Remove sessions and their entries; `only` "expired" spares the live ones."""
    places = [server.names.place(key) for key in sessions]
    token = os.urandom(9).hex()
    replies = yield from server.calls(
        [
            scripted(
                scripts.ERASE,
                _reach(server, place),
                (token, _REMEMBER, only, place.member, place.all_member),
            )
            for place in places
        ]
    )
    rest: list[Any] = []
    for place, (state, found, _) in zip(places, replies, strict=True):
        if state == b"live":
            continue
        if server.is_cluster:
            rest.append(scripted(scripts.INDEX, place.lists, ("drop", *place[2:], "", "")))
        if found:
            rest.append(plain("UNLINK", place.keys[-1]))
    yield from server.calls(rest)
    return Erased(sum(found for _, found, _ in replies), sum(count for _, _, count in replies))


def _reach(server: RedisServer, place: Place) -> tuple[str, ...]:
    return place.keys if server.is_cluster else place.keys + place.lists


def erase_user(server: RedisServer, user_id: str) -> Steps[Erased]:
    total = Erased()
    source = server.names.lists(user_id)[0]
    while True:  # each round takes its entries off the list
        _, entries = yield from walk(server, source, user_id, None)
        if not entries:
            return total
        some = yield from erase_sessions(server, [entry.key for entry in entries])
        total = Erased(total.sessions + some.sessions, total.messages + some.messages)


def erase_all(server: RedisServer) -> Steps[Erased]:
    total = Erased()
    for source in server.names.everybody():
        while True:
            _, entries = yield from walk(server, source, None, None)
            if not entries:
                break
            some = yield from erase_sessions(server, [entry.key for entry in entries])
            total = Erased(total.sessions + some.sessions, total.messages + some.messages)
    # What no list led to: keys of sessions that were brought here by other means.
    for node in (yield from _nodes(server)):
        cursor = b"0"
        while True:
            cursor, found = yield from _scan(server, node, cursor)
            parsed = {key: server.names.parse(key) for key in found}
            stray = list({one[0] for one in parsed.values() if one is not None})
            some = yield from erase_sessions(server, stray)
            total = Erased(total.sessions + some.sessions, total.messages + some.messages)
            yield from server.calls(
                [plain("UNLINK", key) for key, one in parsed.items() if one is None]
            )
            if cursor == b"0":
                break
    return total


def purge_expired(server: RedisServer) -> Steps[Erased]:
    """Mostly entries of sessions that the server removed by itself: those are not counted."""
    total = Erased()
    for source in server.names.everybody():
        last: Entry | None = None
        while True:
            now, entries = yield from walk(server, source, None, last)
            if not entries:
                break
            last = entries[-1]
            old = [entry.key for entry in entries if settled(server, entry, now)]
            some = yield from erase_sessions(server, old, only="expired")
            total = Erased(total.sessions + some.sessions, total.messages + some.messages)
    return total


# -- walking over keys -----------------------------------------------------------------------


def _nodes(server: RedisServer) -> Steps[list[Any]]:
    """The servers that hold keys."""
    return (yield methodcaller("nodes"))  # type: ignore[no-any-return]


def _scan(server: RedisServer, node: Any, cursor: bytes) -> Steps[tuple[bytes, list[bytes]]]:
    """One step of a walk over a server's keys under our prefix. SCAN gives some keys twice."""
    reply = yield from server.call(scripts.SCAN, [], cursor, server.names.pattern, _KEYS, node=node)
    return reply[0], reply[1]


# -- counting --------------------------------------------------------------------------------


def stats(server: RedisServer) -> Steps[Stats]:
    """`bytes` is what MEMORY USAGE says of the sessions' keys (five samples each), the lists not
    included; None where the user may not ask."""
    users: set[str] = set()
    sessions = messages = expired = 0
    size: int | None = 0
    for source in server.names.everybody():
        last: Entry | None = None
        while True:
            now, entries = yield from walk(server, source, None, last)
            if not entries:
                break
            last = entries[-1]
            places = [server.names.place(entry.key) for entry in entries]
            heads = yield from server.calls([scripted(scripts.HEAD, p.keys[:1]) for p in places])
            for entry, reply in zip(entries, heads, strict=True):
                head = read_head(entry.key, *reply[1:])
                if isinstance(head, Session):
                    users.add(entry.key.user_id)
                    messages += head.message_count
                sessions += head is not None
                # In a Cluster a young entry without a session may be one about to begin.
                expired += head is None and settled(server, entry, now)
            if size is not None:
                size = yield from _memory(server, places, size)
    return Stats(
        users=len(users), sessions=sessions, messages=messages, expired_sessions=expired, bytes=size
    )


def _memory(server: RedisServer, places: Sequence[Place], size: int) -> Steps[int | None]:
    try:
        found = yield from server.calls(
            [Call(None, [key], ("MEMORY", "USAGE", key)) for place in places for key in place.keys]
        )
    except (AuthenticationError, BackendError):
        return None
    return size + sum(one or 0 for one in found)


# -- verifying -------------------------------------------------------------------------------


def verify(server: RedisServer) -> Steps[list[Problem]]:
    """Lists against sessions, sessions against their messages, and keys that nothing leads to."""
    problems: list[Problem] = []
    listed: dict[Key, float] = {}
    users: set[str] = set()
    for source in server.names.everybody():
        last: Entry | None = None
        while True:
            now, entries = yield from walk(server, source, None, last)
            if not entries:
                break
            last = entries[-1]
            users |= {entry.key.user_id for entry in entries}
            for entry in entries:
                listed[entry.key] = entry.score
                problems += yield from _verify_session(server, entry, settled(server, entry, now))
    for user_id in sorted(users):
        problems += yield from _verify_list(server, user_id, listed)
    for node in (yield from _nodes(server)):
        problems += yield from _strays(server, node, listed)
    return problems


def _verify_session(server: RedisServer, entry: Entry, sure: bool) -> Steps[list[Problem]]:
    key = entry.key
    place = server.names.place(key)
    problems: list[Problem] = []

    def report(what: str, message_id: str | None = None) -> None:
        problems.append(Problem(key.user_id, key.session_id, message_id, what))

    reply = yield from server.call(scripts.HEAD, place.keys[:1])
    head = read_head(key, *reply[1:])
    if isinstance(head, CorruptRecordError):
        report(head.reason)
    elif head is not None and sure and float(head.update_time) != entry.score:
        report(f"is listed at {entry.score:.0f}, but was updated at {head.update_time}")
    rank = 0
    while True:
        counts, rows, filed = yield from server.call(
            scripts.LOOK, place.keys[1:4], rank, _ROWS, _BYTES
        )
        if rank == 0:
            if head is None and counts[0]:
                report(f"its record is gone, but there are {counts[0]} messages")
            if isinstance(head, Session) and head.message_count != counts[0]:
                report(f"message_count is {head.message_count}, but there are {counts[0]} messages")
            if counts[1] != counts[0]:
                report(f"there are {counts[0]} messages, but {counts[1]} ids")
        if not rows:
            return problems
        rank += len(rows)
        for data, time, pin in zip(rows, filed[::2], filed[1::2], strict=True):
            position, _ = parse_row(data)
            message = read_row(key, data)
            if isinstance(message, CorruptRecordError):
                report(message.reason, position.message_id)
            elif is_pinned(message.role) != bool(pin):
                report("is pinned and should not be, or the reverse", position.message_id)
            if time != b"%d" % position.create_time:
                report("is not filed under its id", position.message_id)


def _verify_list(
    server: RedisServer, user_id: str, listed: dict[Key, float]
) -> Steps[list[Problem]]:
    """The user's list against everybody's."""
    problems: list[Problem] = []
    found: dict[Key, float] = {}
    last: Entry | None = None
    while True:
        _, entries = yield from walk(server, server.names.lists(user_id)[0], user_id, last)
        if not entries:
            break
        last = entries[-1]
        found |= {entry.key: entry.score for entry in entries}
    of_all = {key: score for key, score in listed.items() if key.user_id == user_id}
    for key in sorted(found.keys() ^ of_all.keys()):
        where = "everybody's" if key in found else "the user's"
        problems.append(Problem(*key, None, f"is not on {where} list of sessions"))
    return problems


def _strays(server: RedisServer, node: Any, listed: dict[Key, float]) -> Steps[list[Problem]]:
    """Sessions of this server that are on no list."""
    strays: set[Key] = set()
    cursor = b"0"
    while True:
        cursor, keys = yield from _scan(server, node, cursor)
        for name in keys:
            parsed = server.names.parse(name)
            if parsed is not None and parsed[1] in ("head", "log") and parsed[0] not in listed:
                strays.add(parsed[0])
        if cursor == b"0":
            return [Problem(*key, None, "is on no list of sessions") for key in sorted(strays)]
