"""Erasing, purging, counting and verifying: scans of the index and of the keys, in portions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import methodcaller
from typing import Any

from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.calls import Call, plain, scripted
from tsmemory.backends.redis.layout import SessionKeys, parse_row, read_row
from tsmemory.backends.redis.reader import heads, lost, read_session
from tsmemory.backends.redis.server import RedisServer
from tsmemory.backends.redis.session_index import Entry, is_settled, scan_page, sweep
from tsmemory.backends.redis.writer import place
from tsmemory.engine.records import Key
from tsmemory.engine.steps import Steps
from tsmemory.errors import AuthenticationError, BackendError, CorruptRecordError
from tsmemory.model import Erased, Problem, Session, Stats, is_pinned

__all__ = ["erase_all", "erase_sessions", "erase_user", "purge_expired", "stats", "verify"]

_REMEMBER_MS = 60_000  # how long an erased session's count is kept, unless removed before
_ROWS = 200  # messages that `verify` reads at once
_BYTES = 2_000_000  # of them
_KEYS = 1000  # COUNT of SCAN: what the server looks at before it lets others in


# -- erasing ---------------------------------------------------------------------------------


def erase_sessions(
    server: RedisServer, sessions: Sequence[Key], *, only_expired: bool = False
) -> Steps[Erased]:
    """Remove sessions and their entries."""
    mark = os.urandom(9).hex()
    session_keys = [server.names.session(key) for key in sessions]
    replies = yield from server.calls(
        [
            scripted(
                scripts.ERASE,
                (*s.keys, *s.staging, *(() if server.is_cluster else s.lists)),
                (mark, _REMEMBER_MS, "1" if only_expired else "", s.member, s.all_member),
            )
            for s in session_keys
        ]
    )
    remaining: list[Call] = []
    count = messages = 0
    for session, (what, _, size) in zip(session_keys, replies, strict=True):
        if what == b"live":
            continue
        if server.is_cluster:
            remaining.append(place(session, "drop", ""))
        if what == b"erased":
            count += 1
            messages += size
            remaining.append(plain("UNLINK", session.keys[5]))
    yield from server.calls(remaining)
    return Erased(count, messages)


def _sum(erased: Erased, other: Erased) -> Erased:
    return Erased(erased.sessions + other.sessions, erased.messages + other.messages)


def _erase_listed(server: RedisServer, user_id: str | None) -> Steps[Erased]:
    total = Erased()
    for source in server.names.lists(user_id):
        while True:  # each round takes its entries off the list
            _, entries = yield from scan_page(server, source, user_id, None)
            if not entries:
                break
            erased = yield from erase_sessions(server, [entry.key for entry in entries])
            total = _sum(total, erased)
    return total


def _erase_found(server: RedisServer, pattern: str, user_id: str | None) -> Steps[Erased]:
    """What no list leads to: a list may be lost, or was never written."""
    total = Erased()
    for node in (yield from _nodes(server)):
        cursor = b"0"
        while True:
            cursor, names = yield from _scan(server, node, cursor, pattern)
            parsed = {match[0] for name in names if (match := server.names.parse(name)) is not None}
            keys = [key for key in parsed if user_id is None or key.user_id == user_id]
            total = _sum(total, (yield from erase_sessions(server, keys)))
            if user_id is None:
                ours = [name for name in names if server.names.is_index(name)]
                yield from server.calls([plain("UNLINK", name) for name in ours])
            if cursor == b"0":
                break
    return total


def erase_user(server: RedisServer, user_id: str) -> Steps[Erased]:
    total = yield from _erase_listed(server, user_id)
    pattern = server.names.pattern(user_id)
    return _sum(total, (yield from _erase_found(server, pattern, user_id)))


def erase_all(server: RedisServer) -> Steps[Erased]:
    total = yield from _erase_listed(server, None)
    return _sum(total, (yield from _erase_found(server, server.names.pattern(), None)))


def purge_expired(server: RedisServer) -> Steps[Erased]:
    """Mostly entries of sessions that the server removed by itself: those are not counted."""
    total = Erased()
    for source in server.names.lists(None):
        last: Entry | None = None
        while True:
            now, entries = yield from scan_page(server, source, None, last)
            if not entries:
                break
            last = entries[-1]
            old = [entry.key for entry in entries if is_settled(server, entry, now)]
            total = _sum(total, (yield from erase_sessions(server, old, only_expired=True)))
    yield from sweep(server)
    return total


# -- scanning keys ---------------------------------------------------------------------------


def _nodes(server: RedisServer) -> Steps[list[Any]]:
    """The servers that hold keys."""
    return (yield methodcaller("nodes"))  # type: ignore[no-any-return]


def _scan(
    server: RedisServer, node: Any, cursor: bytes, pattern: str
) -> Steps[tuple[bytes, list[bytes]]]:
    """One step of a scan of a server's keys. SCAN gives some keys twice."""
    reply = yield from server.call(scripts.SCAN, [], cursor, pattern, _KEYS, node=node)
    return reply[0], reply[1]


# -- counting --------------------------------------------------------------------------------


def stats(server: RedisServer) -> Steps[Stats]:
    """`bytes` is what MEMORY USAGE says of the sessions' keys (five samples each), the index not
    included; None where the user may not ask."""
    users: set[str] = set()
    sessions = messages = expired = 0
    size: int | None = 0
    for source in server.names.lists(None):
        last: Entry | None = None
        while True:
            now, entries = yield from scan_page(server, source, None, last)
            if not entries:
                break
            last = entries[-1]
            keys = [server.names.session(entry.key) for entry in entries]
            records = yield from heads(server, keys)
            for entry, (what, *reply) in zip(entries, records, strict=True):
                head = read_session(entry.key, what, reply)
                if isinstance(head, Session):
                    users.add(entry.key.user_id)
                    messages += head.message_count
                sessions += head is not None
                # In a Cluster a young entry without a session may be one about to begin.
                expired += head is None and is_settled(server, entry, now)
            if size is not None:
                size = yield from _memory(server, keys, size)
    return Stats(
        users=len(users), sessions=sessions, messages=messages, expired_sessions=expired, bytes=size
    )


def _memory(
    server: RedisServer, session_keys: Sequence[SessionKeys], size: int
) -> Steps[int | None]:
    try:
        sizes = yield from server.calls(
            [
                Call(None, [key], ("MEMORY", "USAGE", key))
                for session in session_keys
                for key in session.keys
            ]
        )
    except (AuthenticationError, BackendError):
        return None
    return size + sum(bytes_used or 0 for bytes_used in sizes)


# -- verifying -------------------------------------------------------------------------------


def verify(server: RedisServer) -> Steps[list[Problem]]:
    """The index against sessions, sessions against their messages, and keys that nothing lists."""
    problems: list[Problem] = []
    listed: dict[Key, float] = {}
    for source in server.names.lists(None):
        last: Entry | None = None
        while True:
            now, entries = yield from scan_page(server, source, None, last)
            if not entries:
                break
            last = entries[-1]
            for entry in entries:
                listed[entry.key] = entry.score
                sure = is_settled(server, entry, now)
                problems += yield from _verify_session(server, entry, sure)
    for user_id in sorted({key.user_id for key in listed}):
        problems += yield from _verify_list(server, user_id, listed)
    for node in (yield from _nodes(server)):
        problems += yield from _strays(server, node, listed)
    return problems


def _verify_session(server: RedisServer, entry: Entry, sure: bool) -> Steps[list[Problem]]:
    key = entry.key
    session = server.names.session(key)
    keys = session.keys
    problems: list[Problem] = []

    def report(what: str, message_id: str | None = None) -> None:
        problems.append(Problem(key.user_id, key.session_id, message_id, what))

    ((what, *reply),) = yield from heads(server, [session])
    head = read_session(key, what, reply)
    if isinstance(head, CorruptRecordError):
        report(head.reason)
    elif head is not None and sure and float(head.update_time) != entry.score:
        report(f"is listed at {entry.score:.0f}, but was updated at {head.update_time}")
    at = pins = 0
    while True:
        what, _, *reply = yield from server.call(scripts.LOOK, keys, at, _ROWS, _BYTES)
        if what == b"lost" and head is None:
            report(lost(key, reply[0]).reason)
        if what != b"ok" or not reply[0]:
            return problems
        at += len(reply[0])
        for row, time, pin in zip(reply[0], reply[1][::2], reply[1][1::2], strict=True):
            position, _ = parse_row(row)
            message = read_row(key, row)
            pins += bool(pin)
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
    on_user_lists: set[Key] = set()
    for source in server.names.lists(user_id):
        last: Entry | None = None
        while True:
            _, entries = yield from scan_page(server, source, user_id, last)
            if not entries:
                break
            last = entries[-1]
            on_user_lists |= {entry.key for entry in entries}
    of_all = {key for key in listed if key.user_id == user_id}
    for key in sorted(on_user_lists ^ of_all):
        where = "everybody's" if key in on_user_lists else "the user's"
        problems.append(Problem(*key, None, f"is not on {where} list of sessions"))
    return problems


def _strays(server: RedisServer, node: Any, listed: dict[Key, float]) -> Steps[list[Problem]]:
    """Sessions of this server that are on no list."""
    strays: set[Key] = set()
    cursor = b"0"
    while True:
        cursor, names = yield from _scan(server, node, cursor, server.names.pattern())
        for name in names:
            parsed = server.names.parse(name)
            if parsed is not None and parsed[1] in ("head", "log") and parsed[0] not in listed:
                strays.add(parsed[0])
        if cursor == b"0":
            return [Problem(*key, None, "is on no list of sessions") for key in sorted(strays)]
