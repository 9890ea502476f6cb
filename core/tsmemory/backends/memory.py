"""The engine for tests and notebooks: a dict, and nothing after the process ends.

Messages are kept encoded, as every other engine keeps them, so that nothing is shared with the
caller's objects and what could not be stored elsewhere is refused here too.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tsmemory.engine.codec import decode_message, decode_session, encode_session
from tsmemory.engine.commit import Head, Loaded, Plan, commit, encode_bodies, is_expired
from tsmemory.engine.contract import now_us
from tsmemory.engine.local import LocalBackend
from tsmemory.engine.records import (
    Change,
    Decide,
    Key,
    MessageQuery,
    Outcome,
    Position,
    Read,
    SessionQuery,
    Snapshot,
)
from tsmemory.engine.rows import corrupt_message, corrupt_session, passes, session_rows
from tsmemory.engine.steps import Steps, immediate
from tsmemory.engine.urls import split_url
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Erased, Message, Problem, Session, Stats, is_pinned

__all__ = ["MemoryBackend"]


class _Kept:
    """One session: its record, its bodies by id, and its order."""

    __slots__ = ("bodies", "free", "head", "order", "pinned")

    def __init__(self) -> None:
        self.head: Head
        self.free: bytes
        self.bodies: dict[str, tuple[int, bytes]] = {}
        self.order: list[Position] = []
        self.pinned: list[Position] = []

    def session(self) -> Session | CorruptRecordError:
        session = self.head.session
        try:
            title, summary, metadata = decode_session(self.free)
        except ValueError as error:
            return corrupt_session(session, error)
        return _with(session, title, summary, metadata)

    def message(self, key: Key, message_id: str) -> Message | CorruptRecordError:
        create_time, body = self.bodies[message_id]
        try:
            return decode_message(body, message_id, create_time)
        except ValueError as error:
            return corrupt_message(key, Position(create_time, message_id), error)

    def insert(self, message: Message, body: bytes) -> None:
        position = Position(message.create_time or 0, message.message_id)
        self.bodies[message.message_id] = (position.create_time, body)
        insort(self.order, position)
        if is_pinned(message.role):
            insort(self.pinned, position)

    def remove(self, message_id: str) -> None:
        create_time, _ = self.bodies.pop(message_id)
        position = Position(create_time, message_id)
        for positions in (self.order, self.pinned):
            i = bisect_left(positions, position)
            if i < len(positions) and positions[i] == position:
                del positions[i]


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
        self._sessions: OrderedDict[Key, _Kept] = OrderedDict()
        self._lock = threading.RLock()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> MemoryBackend:
        """``memory:``, with the option ``max_sessions``.

        Raises:
            InvalidInputError: an unknown option.
        """
        _, found = split_url(url, {"max_sessions": int}, options)
        return cls(**found)

    def __repr__(self) -> str:
        return f"MemoryBackend(sessions={len(self._sessions)}, max_sessions={self.max_sessions})"

    @immediate
    def setup(self) -> None:
        """Nothing to create."""

    def _live(self, key: Key) -> _Kept | None:
        kept = self._sessions.get(key)
        if kept is None or is_expired(kept.head.session, self.clock()):
            return None
        self._sessions.move_to_end(key)
        return kept

    @immediate
    def get_session(self, key: Key) -> Session | CorruptRecordError | None:
        with self._lock:
            kept = self._live(key)
            return kept.session() if kept else None

    @immediate
    def list_sessions(self, query: SessionQuery) -> list[Session | CorruptRecordError]:
        with self._lock:
            now = self.clock()
            live = [
                kept.session()
                for key, kept in self._sessions.items()
                if (query.user_id is None or key.user_id == query.user_id)
                and not is_expired(kept.head.session, now)
            ]
        return session_rows(live, query)

    @immediate
    def read(self, key: Key, query: MessageQuery) -> Read:
        with self._lock:
            kept = self._live(key)
            if kept is None:
                return Read([], total=0 if query.total else None)
            total = len(kept.order) if query.total else None
            session = kept.session() if query.session else None
            rows: list[Message | CorruptRecordError] = []
            for position in _walk(kept.order, query):
                if query.limit is not None and len(rows) >= query.limit:
                    break
                row = kept.message(key, position.message_id)
                if passes(row, query.where):
                    rows.append(row)
            if not (query.pinned and rows):
                return Read(rows, (), total, session)
            oldest = Position(rows[-1].create_time or 0, rows[-1].message_id or "")
            before = kept.pinned[: bisect_left(kept.pinned, oldest)]
            pinned = [kept.message(key, p.message_id) for p in before]
            return Read(rows, pinned, total, session)

    @immediate
    def get_messages(self, key: Key, ids: Sequence[str]) -> list[Message | CorruptRecordError]:
        with self._lock:
            kept = self._live(key)
            return [kept.message(key, mid) for mid in ids if mid in kept.bodies] if kept else []

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        encoded = encode_bodies(change)
        with self._lock:
            return (yield from self._commit(key, change, encoded))

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        with self._lock:
            kept = self._live(key)
            session = kept.session() if kept else None
            if isinstance(session, CorruptRecordError):
                raise session
            if kept is None:
                messages = []
            elif ids is None:
                messages = [kept.message(key, p.message_id) for p in kept.order]
            else:
                messages = [kept.message(key, mid) for mid in ids if mid in kept.bodies]
            change = decide(Snapshot(session, messages))
            if change is None:
                return Outcome(session, [], 0)
            return (yield from self._commit(key, change, encode_bodies(change)))

    def _commit(self, key: Key, change: Change, encoded: Mapping[str, bytes]) -> Steps[Outcome]:
        """The template of `engine.commit`; the lock is held."""
        kept = self._live(key)
        through: list[Position] = []
        if kept and change.delete_through is not None:
            through = kept.order[: bisect_right(kept.order, change.delete_through)]

        @immediate
        def load() -> Loaded:
            if kept is None:
                return Loaded(None, {}, {})
            session = kept.session()
            if isinstance(session, CorruptRecordError):
                raise session
            appended = {
                m.message_id: kept.message(key, m.message_id)
                for m in change.append
                if m.message_id in kept.bodies
            }
            others = (*(m.message_id for m in change.put), *change.delete)
            positions = {
                mid: Position(kept.bodies[mid][0], mid) for mid in others if mid in kept.bodies
            }
            return Loaded(Head(session, kept.head.last_time), appended, positions, len(through))

        @immediate
        def apply(planned: Plan, encoded: Mapping[str, bytes]) -> None:
            assert planned.head is not None  # a plan that changes anything has one
            free = encode_session(planned.head.session)
            target = kept
            if target is None:
                target = self._sessions[key] = _Kept()
                self._sessions.move_to_end(key)
            target.head, target.free = planned.head, free
            for mid in planned.delete + [p.message_id for p in through]:
                target.remove(mid)
            for message in planned.overwrite:
                target.remove(message.message_id)
            for message in planned.insert + planned.overwrite:
                target.insert(message, encoded[message.message_id])
            self._evict()

        return (
            yield from commit(key, change, clock=self.clock, load=load, apply=apply, bodies=encoded)
        )

    def _evict(self) -> None:
        while self.max_sessions is not None and len(self._sessions) > self.max_sessions:
            self._sessions.popitem(last=False)

    def _drop(self, keys: list[Key]) -> Erased:
        messages = sum(len(self._sessions.pop(key).bodies) for key in keys)
        return Erased(len(keys), messages)

    @immediate
    def erase(self, user_id: str | None, session_id: str | None = None) -> Erased:
        with self._lock:
            return self._drop(
                [
                    key
                    for key in self._sessions
                    if user_id in (None, key.user_id) and session_id in (None, key.session_id)
                ]
            )

    @immediate
    def purge_expired(self) -> Erased:
        with self._lock:
            now = self.clock()
            return self._drop(
                [k for k, kept in self._sessions.items() if is_expired(kept.head.session, now)]
            )

    @immediate
    def stats(self) -> Stats:
        with self._lock:
            now = self.clock()
            live = [k for k in self._sessions.values() if not is_expired(k.head.session, now)]
            return Stats(
                users=len({kept.head.session.user_id for kept in live}),
                sessions=len(live),
                messages=sum(len(kept.bodies) for kept in live),
                expired_sessions=len(self._sessions) - len(live),
                bytes=sum(len(b) for k in self._sessions.values() for _, b in k.bodies.values()),
            )

    @immediate
    def verify(self) -> list[Problem]:
        problems = []
        with self._lock:
            for key, kept in self._sessions.items():
                rows = [kept.session(), *(kept.message(key, p.message_id) for p in kept.order)]
                problems += [
                    Problem(*key, row.message_id, row.reason)
                    for row in rows
                    if isinstance(row, CorruptRecordError)
                ]
        return problems

    def size(self) -> int:
        """How many sessions are held, expired ones that nobody purged included."""
        return len(self._sessions)

    def close(self) -> None:
        """Keeps its data: a memory store lives as long as the object does."""


def _walk(order: list[Position], query: MessageQuery) -> Iterator[Position]:
    """The positions of the query's range, in its direction."""
    low, high = 0, len(order)
    if query.created_from is not None:
        low = bisect_left(order, Position(query.created_from, ""))
    if query.created_to is not None:
        high = bisect_left(order, Position(query.created_to + 1, ""))
    if query.after is not None:
        if query.descending:
            high = min(high, bisect_left(order, query.after))
        else:
            low = max(low, bisect_right(order, query.after))
    indexes = range(high - 1, low - 1, -1) if query.descending else range(low, high)
    return (order[i] for i in indexes)


def _with(session: Session, title: str | None, summary: str | None, metadata: dict) -> Session:  # type: ignore[type-arg]
    return Session(
        user_id=session.user_id,
        session_id=session.session_id,
        create_time=session.create_time,
        update_time=session.update_time,
        version=session.version,
        message_count=session.message_count,
        title=title,
        summary=summary,
        expires_at=session.expires_at,
        ttl=session.ttl,
        metadata=metadata,
    )
