"""The backend for tests and notebooks: a dict, and nothing after the process ends.

Messages are kept encoded, as every other backend keeps them, so that nothing is shared with the
caller's objects and what could not be stored elsewhere is refused here too. Sessions are kept in
the order of their activity, so a page of them costs a page.

A commit is written down as a whole in its session (`_Session.pending`) before anything changes, and
is repeatable: what an interrupt left half-way is finished by whoever uses the session next. The
order may name a session that is not in the dict; the reverse never happens.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory.engine.codec import decode_message, decode_session, encode_session
from tsmemory.engine.commit import Head, Loaded, Plan, commit, encode_bodies, is_expired
from tsmemory.engine.contract import now_us
from tsmemory.engine.findings import expired_sessions
from tsmemory.engine.fork import reset_after_fork
from tsmemory.engine.local import LocalBackend
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import (
    Change,
    Decide,
    Finding,
    Key,
    MessageQuery,
    Outcome,
    Position,
    Read,
    SessionQuery,
    Snapshot,
)
from tsmemory.engine.rows import corrupt_message, corrupt_session, may_end, passes, walk
from tsmemory.engine.session_order import SessionOrder
from tsmemory.engine.steps import Steps, immediate
from tsmemory.engine.urls import split_url
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Erased, Message, Problem, Session, Stats, is_pinned

__all__ = ["MemoryBackend"]

_logger = get_logger("memory")
_SLICE = 256  # sessions looked at under the lock at once


class _Row(NamedTuple):
    position: Position
    body: bytes
    pinned: bool


class _Pending(NamedTuple):
    """A commit, as it changes one session."""

    head: Head
    free: bytes
    remove: list[Position]
    insert: list[_Row]


class _Session:
    """One session: its record, its bodies by id, and its order."""

    __slots__ = ("bodies", "free", "head", "order", "pending", "pinned")

    def __init__(self) -> None:
        self.head: Head
        self.free: bytes
        self.bodies: dict[str, tuple[int, bytes]] = {}
        self.order: list[Position] = []
        self.pinned: list[Position] = []
        self.pending: _Pending | None = None

    def record(self) -> Session | CorruptRecordError:
        session = self.head.session
        try:
            title, summary, metadata = decode_session(self.free)
        except ValueError as error:
            return corrupt_session(session, error)
        return msgspec.structs.replace(session, title=title, summary=summary, metadata=metadata)

    def message(self, key: Key, message_id: str) -> Message | CorruptRecordError:
        create_time, body = self.bodies[message_id]
        try:
            return decode_message(body, message_id, create_time)
        except (ValueError, RecursionError) as error:
            return corrupt_message(key, Position(create_time, message_id), error)

    def finish(self) -> None:
        """Make the pending commit, whether or not a part of it is made already."""
        pending = self.pending
        if pending is None:
            return
        for position in pending.remove:
            self.bodies.pop(position.message_id, None)
            _remove(self.order, position)
            _remove(self.pinned, position)
        for position, body, pinned in pending.insert:
            self.bodies[position.message_id] = (position.create_time, body)
            _insert(self.order, position)
            if pinned:
                _insert(self.pinned, position)
        self.head, self.free = pending.head, pending.free
        self.pending = None


class MemoryBackend(LocalBackend):
    """Sessions in a dict.

    Args:
        max_sessions: with more, the least recently used (read or written) session is evicted.
        clock: µs since the epoch.
    """

    blocks = False

    def __init__(
        self, *, max_sessions: int | None = None, clock: Callable[[], int] = now_us
    ) -> None:
        if max_sessions is not None and max_sessions < 1:
            raise InvalidInputError(f"max_sessions is {max_sessions}; give 1 or more, or None")
        self.max_sessions = max_sessions
        self.clock = clock
        self._sessions: OrderedDict[Key, _Session] = OrderedDict()  # least recently used first
        self._activity = SessionOrder()
        self._after_fork()
        reset_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> MemoryBackend:
        """``memory:``, with the option ``max_sessions``.

        Raises:
            InvalidInputError: an unknown option.
        """
        _, settings = split_url(url, {"max_sessions": int}, options)
        return cls(**settings)

    def __repr__(self) -> str:
        return f"MemoryBackend(sessions={len(self._sessions)}, max_sessions={self.max_sessions})"

    @immediate
    def setup(self) -> None:
        """Nothing to create."""

    def _stored(self, key: Key) -> _Session | None:
        session = self._sessions.get(key)
        if session is not None and session.pending is not None:
            session.finish()
        return session

    def _live(self, key: Key) -> _Session | None:
        session = self._stored(key)
        if session is None or is_expired(session.head.session, self.clock()):
            return None
        self._sessions.move_to_end(key)
        return session

    @immediate
    def get_session(self, key: Key) -> Session | CorruptRecordError | None:
        with releasing(self._lock), self._lock:
            session = self._live(key)
            return session.record() if session else None

    @immediate
    def list_sessions(self, query: SessionQuery) -> list[Session | CorruptRecordError]:
        rows: list[Session | CorruptRecordError] = []
        after, now = query.after, self.clock()
        while query.limit is None or len(rows) < query.limit:
            count = _SLICE if query.limit is None else min(query.limit - len(rows), _SLICE)
            with releasing(self._lock), self._lock:
                page = self._order().page(query, after, count)
                for _, user_id, session_id in page:
                    session = self._stored(Key(user_id, session_id))
                    if session is None or is_expired(session.head.session, now):
                        continue
                    row = session.record()
                    if passes(row, query.where):
                        rows.append(row)
            if len(page) < count:
                break
            after = page[-1]
        return rows

    def _order(self) -> SessionOrder:
        """The sessions by activity; filled anew if an interrupt left it half-changed."""
        if self._activity.changing:
            order = SessionOrder()
            for key in self._sessions:
                session = self._stored(key)
                assert session is not None
                order.set(key, session.head.session.update_time)
            self._activity = order
        return self._activity

    @immediate
    def read(self, key: Key, query: MessageQuery) -> Read:
        with releasing(self._lock), self._lock:
            session = self._live(key)
            if session is None:
                return Read([], total=0 if query.total else None)
            total = len(session.order) if query.total else None
            record = session.record() if query.session else None
            rows: list[Message | CorruptRecordError] = []
            more = False
            for position in walk(session.order, query):
                if more or (query.limit is not None and len(rows) >= query.limit):
                    break
                row = session.message(key, position.message_id)
                if passes(row, query.where):
                    rows.append(row)
                    more = may_end(query, rows)
            if not (query.pinned and rows):
                return Read(rows, (), total, record, more)
            oldest = Position(rows[-1].create_time or 0, rows[-1].message_id or "")
            before = session.pinned[: bisect_left(session.pinned, oldest)]
            pinned = [session.message(key, p.message_id) for p in before]
            return Read(rows, pinned, total, record, more)

    @immediate
    def get_messages(self, key: Key, ids: Sequence[str]) -> list[Message | CorruptRecordError]:
        with releasing(self._lock), self._lock:
            session = self._live(key)
            if session is None:
                return []
            return [
                session.message(key, mid) for mid in dict.fromkeys(ids) if mid in session.bodies
            ]

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        bodies = encode_bodies(change)
        with releasing(self._lock), self._lock:
            return (yield from self._commit(key, change, bodies))

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        with releasing(self._lock), self._lock:
            session = self._live(key)
            record = session.record() if session else None
            if isinstance(record, CorruptRecordError):
                raise record
            if session is None:
                messages = []
            elif ids is None:
                messages = [session.message(key, p.message_id) for p in session.order]
            else:
                messages = [session.message(key, mid) for mid in ids if mid in session.bodies]
            change = decide(Snapshot(record, messages))
            if change is None:
                return Outcome(record, [], 0)
            return (yield from self._commit(key, change, encode_bodies(change)))

    def _commit(self, key: Key, change: Change, bodies: Mapping[str, bytes]) -> Steps[Outcome]:
        """The template of `engine.commit`; the lock is held."""
        session = self._live(key)
        through: list[Position] = []
        if session and change.delete_through is not None:
            through = session.order[: bisect_right(session.order, change.delete_through)]

        @immediate
        def load() -> Loaded:
            if session is None:
                return Loaded(None, {}, {})
            record = session.record()
            if isinstance(record, CorruptRecordError):
                raise record
            appended = {
                m.message_id: session.message(key, m.message_id)
                for m in change.append
                if m.message_id in session.bodies
            }
            others = (*(m.message_id for m in change.put), *change.delete)
            positions = {
                mid: Position(session.bodies[mid][0], mid)
                for mid in others
                if mid in session.bodies
            }
            return Loaded(Head(record, session.head.last_time), appended, positions, len(through))

        @immediate
        def apply(plan: Plan, bodies: Mapping[str, bytes]) -> None:
            assert plan.head is not None  # a plan that changes anything has one
            self._order().set(key, plan.head.session.update_time)
            target = session or _Session()
            removed = (*plan.delete, *(m.message_id for m in plan.overwrite))
            target.pending = _Pending(
                plan.head,
                encode_session(plan.head.session),
                [Position(target.bodies[mid][0], mid) for mid in removed] + through,
                [
                    _Row(
                        Position(m.create_time or 0, m.message_id),
                        bodies[m.message_id],
                        is_pinned(m.role),
                    )
                    for m in plan.insert + plan.overwrite
                ],
            )
            target.finish()
            self._sessions[key] = target
            self._sessions.move_to_end(key)
            self._evict()

        return (
            yield from commit(key, change, clock=self.clock, load=load, apply=apply, bodies=bodies)
        )

    def _evict(self) -> None:
        while self.max_sessions is not None and len(self._sessions) > self.max_sessions:
            key = next(iter(self._sessions))
            _logger.info("session %s evicted: more than %d", hashed(key), self.max_sessions)
            self._drop([key])

    def _drop(self, keys: list[Key]) -> Erased:
        order = self._order()
        messages = 0
        for key in keys:
            messages += len(self._sessions.pop(key).bodies)
            order.discard(key)
        return Erased(len(keys), messages)

    @immediate
    def erase(self, user_id: str | None, session_id: str | None = None) -> Erased:
        with releasing(self._lock), self._lock:
            if user_id is not None and session_id is not None:
                key = Key(user_id, session_id)
                return self._drop([key] if key in self._sessions else [])
            return self._drop([key for key in self._sessions if user_id in (None, key.user_id)])

    @immediate
    def purge_expired(self) -> Erased:
        with releasing(self._lock), self._lock:
            now, sessions = self.clock(), self._all()
            return self._drop([key for key, s in sessions if is_expired(s.head.session, now)])

    def _all(self) -> list[tuple[Key, _Session]]:
        for session in self._sessions.values():
            session.finish()
        return list(self._sessions.items())

    @immediate
    def stats(self) -> Stats:
        with releasing(self._lock), self._lock:
            now, sessions = self.clock(), self._all()
            live = [(key, s) for key, s in sessions if not is_expired(s.head.session, now)]
            return Stats(
                users=len({key.user_id for key, _ in live}),
                sessions=len(live),
                messages=sum(len(session.bodies) for _, session in live),
                expired_sessions=len(sessions) - len(live),
                bytes=sum(len(body) for _, s in sessions for _, body in s.bodies.values()),
            )

    def check_server(self) -> Steps[list[Finding]]:
        return [expired_sessions((yield from self.stats()).expired_sessions)]

    @immediate
    def verify(self) -> list[Problem]:
        problems = []
        with releasing(self._lock), self._lock:
            for key, session in self._all():
                messages = (session.message(key, p.message_id) for p in session.order)
                problems += [
                    Problem(*key, row.message_id, row.reason)
                    for row in (session.record(), *messages)
                    if isinstance(row, CorruptRecordError)
                ]
        return problems

    def size(self) -> int:
        """How many sessions are held, expired ones that were not purged included."""
        return len(self._sessions)

    def close(self) -> None:
        """Keeps its data: a memory store lives as long as the object does."""


def _remove(positions: list[Position], position: Position) -> None:
    i = bisect_left(positions, position)
    if i < len(positions) and positions[i] == position:
        del positions[i]


def _insert(positions: list[Position], position: Position) -> None:
    if not positions or position > positions[-1]:
        positions.append(position)
        return
    i = bisect_left(positions, position)
    if positions[i] != position:
        positions.insert(i, position)
