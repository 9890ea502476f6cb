"""Commits: the short path of plain appends, and the template for everything else.

1. A plain append of new ids is one script: it looks, and writes.
2. Any other change is `tsmemory.engine.commit`: ``load`` reads what the change touches, the client
   plans, ``apply`` writes if the session's state is still the one loaded. Where another writer came
   between, both are repeated; from the third time on under a lease, for which others wait.
3. What is too large for one script is staged in slices, out of sight: `bulk`.
4. A commit that was made is remembered by its mark, so that a repetition of ``apply`` after a lost
   reply is recognised.
5. In a Cluster the index is in other slots. The announcement is sent before the commit, in the same
   exchange; where the session's time turns out to be another, or it expires, a second one settles
   the entry. So whatever ends the exchange in between, the session is listed; see `session_index`.
   Only a list's node that is unreachable, with a client that dies before it repeats the call,
   leaves one unlisted: `verify` reports it, and its next write lists it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.calls import Call, scripted
from tsmemory.backends.redis.layout import (
    SessionKeys,
    State,
    changed_fields,
    read_head,
    state_of,
    store_id,
    update_time_of,
)
from tsmemory.backends.redis.loading import (
    SLICE_BYTES,
    SLICE_ROWS,
    LargeError,
    Snapped,
    StaleError,
    Waiting,
    hold,
    load,
    release,
    repair,
)
from tsmemory.backends.redis.reader import lost
from tsmemory.backends.redis.server import RedisServer
from tsmemory.engine import commit as template
from tsmemory.engine.codec import encode_message
from tsmemory.engine.commit import Loaded, Plan, at_time
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import (
    Change,
    Decide,
    Key,
    Outcome,
    Position,
    Snapshot,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import ConflictError, CorruptRecordError
from tsmemory.model import Message, is_pinned

__all__ = ["commit", "rewrite"]

_log = get_logger("redis")
MAX_BODY = 64 * 1024 * 1024
"""Bytes. The protocol's limit is 512 MB, but a replica is cut off at 256 MB of unsent output
(``client-output-buffer-limit``), and everybody waits while one message is copied."""


InSlices: TypeAlias = Callable[..., Steps[Outcome]]
"""`bulk.commit_in_slices`."""


def commit(
    server: RedisServer, key: Key, change: Change, in_slices: InSlices,
    read: Callable[[], Call] | None = None,
) -> Steps[tuple[Outcome, Any]]:  # fmt: skip
    """Make a change; `in_slices` where one script is too small for it (3).

    Args:
        read: makes a call that goes out with a plain append, in its exchange. Its reply is the
            second of the result; None where the change took another path.
    """
    plain = not (
        change.put or change.delete or change.delete_through or change.session
    ) and change.create  # fmt: skip
    if plain and change.append:
        done = yield from _append(server, key, change, read)
        if done is not None:
            return done
    return (yield from _decide(server, key, change, in_slices)), None


# -- 1: plain appends ------------------------------------------------------------------------


def _append(
    server: RedisServer, key: Key, change: Change, read: Callable[[], Call] | None
) -> Steps[tuple[Outcome, Any] | None]:
    """The outcome, and what `read` was answered; None where the longer path has to answer."""
    first: dict[str, Message] = {}  # an id that is in a batch twice is the first one's
    pairs: list[bytes] = []
    size = 0
    for message in change.append:
        if message.message_id in first:
            continue
        first[message.message_id] = message
        body = encode_message(message, MAX_BODY)
        size += len(body)
        pairs += (
            store_id(message.message_id),
            (b"1" if is_pinned(message.role) else b"0") + body,
        )
    if len(first) > SLICE_ROWS or (size > SLICE_BYTES and len(first) > 1):
        return None
    session = server.names.session(key)
    ttl: tuple[Any, Any] = (b"", b"")
    if change.ttl is not None:
        ttl = _ttl(change.ttl)
    waiting = None
    while True:
        hint = server.clock() if server.is_cluster else b""
        args = (
            b"", hint, b"" if change.if_version is None else change.if_version, *ttl,
            *_ttl(server.default_ttl(change)), session.member, session.all_member, *pairs,
        )  # fmt: skip
        announced = hint + len(first) - 1 if isinstance(hint, int) else 0
        along = () if read is None else (read(),)
        replies = yield from _exchange(
            server, session, scripts.APPEND, args, announced, along=along
        )
        what, now, *reply = replies[0]
        server.heard(now)
        if what == b"ok":
            break
        if what == b"lost":
            raise lost(key, reply[0])
        if what == b"other":
            return None
        waiting = waiting or Waiting(key)
        if what == b"repair":
            yield from repair(server, key, b"", waiting)
        else:
            yield waiting.pause()
    state, fields, start = reply
    found = read_head(key, state, fields)
    yield from settle(server, session, announced, state)
    if isinstance(found, CorruptRecordError):
        raise found
    placed = {mid: at_time(m, int(start) + i) for i, (mid, m) in enumerate(first.items())}
    return Outcome(found, [placed[m.message_id] for m in change.append], 0), (
        None if read is None else replies[-1]
    )


def _ttl(seconds: float | None) -> tuple[Any, Any]:
    if seconds is None:
        return b"-", b"-"
    return repr(float(seconds)), round(seconds * 1_000_000)


def write(
    server: RedisServer, session: SessionKeys, script: Any, args: Sequence[Any], announced: int,
    staging: Sequence[str] = (),
) -> Steps[Any]:  # fmt: skip
    """Run a script that writes: with the index in its reach, or announced beside it (5)."""
    return (yield from _exchange(server, session, script, args, announced, staging))[0]


def _exchange(
    server: RedisServer, session: SessionKeys, script: Any, args: Sequence[Any], announced: int,
    staging: Sequence[str] = (), along: Sequence[Call] = (),
) -> Steps[list[Any]]:  # fmt: skip
    """The replies to `write`'s script, first, and to the calls that go along with it, last."""
    keys = (*session.keys, *staging)
    if not server.is_cluster:
        return (yield from server.calls([scripted(script, (*keys, *session.lists), args), *along]))
    announcement = place(session, "announce", announced)
    _, *replies = yield from server.calls([announcement, scripted(script, keys, args), *along])
    return replies


def place(
    session: SessionKeys, what: str, seen: Any, true_time: Any = b"", expires: Any = b"-"
) -> Call:
    """A change of the session's entry in the index."""
    args = (what, session.member, session.all_member, seen, true_time, expires)
    return scripted(scripts.PLACE, session.lists, args)


def settle(server: RedisServer, session: SessionKeys, announced: int, state: bytes) -> Steps[None]:
    """In a Cluster: the entry as the session has it, where it is not so already (5)."""
    if not server.is_cluster:
        return
    found = State.parse(state)
    if found.update_time != announced or found.expires_at is not None:
        expires = b"-" if found.expires_at is None else found.expires_at
        yield from server.calls([place(session, "settle", announced, found.update_time, expires)])


# -- 2: everything else ----------------------------------------------------------------------


def _decide(server: RedisServer, key: Key, change: Change, in_slices: InSlices) -> Steps[Outcome]:
    bodies = template.encode_bodies(change, MAX_BODY)
    waiting = Waiting(key)
    token = b""
    try:
        while True:
            try:
                return (yield from _attempt(server, key, change, bodies, token))
            except StaleError:
                token = yield from _after_conflict(server, key, waiting, token)
            except LargeError:
                return (yield from in_slices(server, key, change, bodies, token, waiting))
    except Exception:
        yield from release(server, key, token)
        raise


def _after_conflict(server: RedisServer, key: Key, waiting: Waiting, token: bytes) -> Steps[bytes]:
    """Wait, and from the third conflict on hold the session."""
    yield waiting.pause(0.02)
    if token or waiting.attempts < 3:
        return token
    _log.info("session %s: contention, held by a lease", hashed(key))
    return (yield from hold(server, key, waiting))


def _attempt(
    server: RedisServer, key: Key, change: Change, bodies: Mapping[str, bytes], token: bytes,
    snapped: Snapped | None = None,
) -> Steps[Outcome]:  # fmt: skip
    """Load, plan and apply once.

    Raises:
        StaleError: another writer came between.
        LargeError: one script is too small for it.
    """
    snapshots: list[Snapped] = [] if snapped is None else [snapped]

    def load_it() -> Steps[Loaded]:
        if not snapshots:
            snapshots.append((yield from load_for(server, key, change, token)))
        return loaded(key, change, snapshots[0])

    def apply(plan: Plan, encoded: Mapping[str, bytes]) -> Steps[None]:
        yield from _apply(server, key, change, snapshots[0], plan, encoded, token)

    outcome = yield from template.commit(
        key, change, clock=lambda: snapshots[0].now, load=load_it, apply=apply, bodies=bodies
    )
    yield from release(server, key, token)
    return outcome


def load_for(server: RedisServer, key: Key, change: Change, token: bytes) -> Steps[Snapped]:
    """What a change touches: rows of what it appends, times of the rest."""
    times = [*(m.message_id for m in change.put), *change.delete]
    appended = list(dict.fromkeys(m.message_id for m in change.append))
    if not token and len(times) + len(appended) > SLICE_ROWS:
        raise LargeError
    return (yield from load(server, key, token, appended, times, change.delete_through))


def loaded(key: Key, change: Change, snapped: Snapped) -> Loaded:
    """The template's view of what was loaded for a change."""
    ids = [*(m.message_id for m in change.put), *change.delete]
    positions = {
        mid: Position(time, mid)
        for mid, time in zip(ids, snapped.times, strict=True)
        if time is not None
    }
    appended = {row.message_id or "": row for row in snapped.rows}
    return Loaded(snapped.head(key), appended, positions, snapped.counted)


class Written(NamedTuple):
    """What a plan writes, in order of position."""

    rows: list[tuple[int | None, Message]]
    """The time at which it is stored now (None: nowhere), and the message."""
    gone: list[Position]
    """Of deleted messages."""


def in_order(plan: Plan, positions: Mapping[str, Position]) -> Written:
    rows: list[tuple[int | None, Message]] = [(None, m) for m in plan.insert]
    rows += [(positions[m.message_id].create_time, m) for m in plan.overwrite]
    rows.sort(key=lambda row: (row[1].create_time or 0, row[1].message_id))
    gone = sorted(positions[mid] for mid in plan.delete)
    return Written(rows, gone)


def _apply(
    server: RedisServer, key: Key, change: Change, snapped: Snapped, plan: Plan,
    encoded: Mapping[str, bytes], token: bytes,
) -> Steps[None]:  # fmt: skip
    assert plan.head is not None  # a plan that changes anything leaves a session
    written = in_order(plan, loaded(key, change, snapped).positions)
    size = sum(len(encoded[m.message_id]) for _, m in written.rows)
    many = len(written.rows) + len(written.gone) > SLICE_ROWS
    if many or (size > SLICE_BYTES and len(written.rows) > 1) or (snapped.counted and written.rows):
        raise LargeError
    session = server.names.session(key)
    set_to, removed = changed_fields(change.session, snapped.fields)
    state = state_of(plan.head).encode()
    args: list[Any] = [
        token, os.urandom(9).hex(), server.remember_ms(), snapped.state, state, session.member,
        session.all_member, snapped.counted, len(set_to), len(removed), len(written.gone),
        len(written.rows),
    ]  # fmt: skip
    for pair in set_to:
        args += pair
    args += removed
    for position in written.gone:
        args += (position.create_time, store_id(position.message_id))
    for old, message in written.rows:
        args += (
            "-" if old is None else old, message.create_time, store_id(message.message_id),
            "1" if is_pinned(message.role) else "0", encoded[message.message_id],
        )  # fmt: skip
    announced = plan.head.session.update_time
    what, now, *reply = yield from write(server, session, scripts.APPLY, args, announced)
    server.heard(now)
    if what == b"lost":
        raise lost(key, reply[0])
    if what == b"long":
        raise LargeError
    if what not in (b"ok", b"done"):
        raise StaleError
    if server.is_cluster and (change.session is not None or plan.head.session.expires_at):
        # Where it went back, the entry is still at the time before.
        seen = max(announced, update_time_of(snapped.state))
        yield from settle(server, session, seen, state)
    if snapped.counted and plan.head.session.message_count:
        yield from repair(server, key, token, Waiting(key))


# -- rewriting -------------------------------------------------------------------------------


def rewrite(
    server: RedisServer,
    key: Key,
    decide: Decide,
    ids: Sequence[str] | None,
    read_all: Any,
    in_slices: InSlices,
) -> Steps[Outcome]:
    """Read, decide, write; from the third conflict on with the session held."""
    waiting = Waiting(key)
    token = b""
    try:
        while True:
            snapped = yield from load(server, key, token, ids or (), ())
            head = snapped.head(key)
            messages: Sequence[Any] = snapped.rows
            if ids is None:
                messages = yield from read_all()
            change = decide(Snapshot(head.session if head else None, messages))
            if change is None:
                yield from release(server, key, token)
                return Outcome(head.session if head else None, [], 0)
            version = head.session.version if head else 0
            change = msgspec.structs.replace(change, if_version=version)
            try:
                return (
                    yield from _rewritten(server, key, change, snapped, token, waiting, in_slices)
                )
            except (StaleError, ConflictError) as error:
                if isinstance(error, ConflictError) and error.actual == version:
                    raise  # not of the version: other content under an id
                token = yield from _after_conflict(server, key, waiting, token)
    except Exception:
        yield from release(server, key, token)
        raise


def _rewritten(
    server: RedisServer, key: Key, change: Change, snapped: Snapped, token: bytes,
    waiting: Waiting, in_slices: InSlices,
) -> Steps[Outcome]:  # fmt: skip
    bodies = template.encode_bodies(change, MAX_BODY)
    times = {row.message_id: row.create_time for row in snapped.rows}
    reads_nothing_new = not (change.append or change.delete or change.delete_through) and all(
        m.message_id in times for m in change.put
    )
    try:
        if reads_nothing_new:  # one round trip less: what it touches was just loaded
            snapped = snapped._replace(rows=[], times=[times[m.message_id] for m in change.put])
            return (yield from _attempt(server, key, change, bodies, token, snapped))
        return (yield from _attempt(server, key, change, bodies, token))
    except LargeError:
        return (yield from in_slices(server, key, change, bodies, token, waiting))
