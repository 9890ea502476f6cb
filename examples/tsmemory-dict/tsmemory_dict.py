"""A backend for tsmemory: a dict per name, shared by all who open ``dict://name`` in a process.

Small on purpose: it shows what a backend must do, on public names alone. Each commit is decided
under one lock by tsmemory's template (`tsmemory.engine.commit`): load, compare, plan, apply.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tsmemory import CorruptRecordError, Erased, Message, Problem, Session, Stats
from tsmemory.engine import (
    Change,
    Decide,
    Head,
    Key,
    Loaded,
    LocalBackend,
    MessageQuery,
    Outcome,
    Plan,
    Position,
    Read,
    SessionQuery,
    Steps,
    corrupt_message,
    corrupt_session,
    decode_message,
    decode_session,
    encode_bodies,
    encode_session,
    immediate,
    is_expired,
    is_pinned,
    now_us,
    passes,
    split_url,
    walk,
)
from tsmemory.engine.commit import commit
from tsmemory.engine.locks import releasing

__all__ = ["DictBackend"]


class Stored(NamedTuple):
    """A session: its head, the rest of its record encoded, and its messages encoded, by id."""

    head: Head
    record: bytes
    messages: dict[str, tuple[int, bytes]]


class Space:
    """What is kept under one name."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.sessions: dict[Key, Stored] = {}


SPACES: dict[str, Space] = {}


class DictBackend(LocalBackend):
    """Sessions in a dict of this process."""

    blocks = False  # nothing here waits for a disk, so async needs no thread

    def __init__(self, name: str = "", *, clock: Callable[[], int] = now_us) -> None:
        self.name = name
        self.clock = clock
        self._space = SPACES.setdefault(name, Space())

    @classmethod
    def from_url(cls, url: str, **options: Any) -> DictBackend:
        """``dict://name``: what `tsmemory.open_store` calls."""
        parts, found = split_url(url, {}, options)
        return cls(parts.netloc, **found)

    def __repr__(self) -> str:
        return f"DictBackend({self.name!r})"

    @immediate
    def setup(self) -> None:
        """Nothing to create."""

    # -- reading: a broken record stands in its place, as an error object -----------------------

    def _live(self, key: Key) -> Stored | None:
        stored = self._space.sessions.get(key)
        return None if stored is None or is_expired(stored.head.session, self.clock()) else stored

    @immediate
    def get_session(self, key: Key) -> Session | CorruptRecordError | None:
        with releasing(self._space.lock), self._space.lock:
            stored = self._live(key)
            return _session(stored) if stored else None

    @immediate
    def list_sessions(self, query: SessionQuery) -> list[Session | CorruptRecordError]:
        with releasing(self._space.lock), self._space.lock:
            stored = [s for key in list(self._space.sessions) if (s := self._live(key))]
        rows = []
        for one in sorted(stored, key=_activity, reverse=query.descending):
            place = _activity(one)
            if query.user_id not in (None, place[1]) or not _in_range(place, query):
                continue
            row = _session(one)
            if passes(row, query.where):
                rows.append(row)
        return rows[: query.limit]

    @immediate
    def read(self, key: Key, query: MessageQuery) -> Read:
        with releasing(self._space.lock), self._space.lock:
            stored = self._live(key)
        if stored is None:
            return Read([], total=0 if query.total else None)
        order = sorted(Position(time, mid) for mid, (time, _) in stored.messages.items())
        rows = []
        for position in walk(order, query):
            if query.limit is not None and len(rows) >= query.limit:
                break
            row = _message(key, stored, position.message_id)
            if passes(row, query.where):
                rows.append(row)
        pinned: list[Message | CorruptRecordError] = []
        if query.pinned and rows:
            oldest = Position(rows[-1].create_time or 0, rows[-1].message_id or "")
            for position in order[: order.index(oldest)]:
                row = _message(key, stored, position.message_id)
                if isinstance(row, CorruptRecordError) or is_pinned(row.role):
                    pinned.append(row)
        total = len(order) if query.total else None
        return Read(rows, pinned, total, _session(stored) if query.session else None)

    @immediate
    def get_messages(self, key: Key, ids: Sequence[str]) -> list[Message | CorruptRecordError]:
        with releasing(self._space.lock), self._space.lock:
            stored = self._live(key)
        return [_message(key, stored, mid) for mid in ids if stored and mid in stored.messages]

    # -- writing: everything of a commit, under the lock, by the template ------------------------

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        bodies = encode_bodies(change)  # refuses what cannot be stored, before anything else
        with releasing(self._space.lock), self._space.lock:
            return (yield from self._commit(key, change, bodies))

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        # Nobody writes between its reading and its commit, so the default's first attempt is it.
        with releasing(self._space.lock), self._space.lock:
            return (yield from super().rewrite(key, decide, ids))

    def _commit(self, key: Key, change: Change, bodies: Mapping[str, bytes]) -> Steps[Outcome]:
        stored = self._live(key)
        messages = dict(stored.messages) if stored else {}
        through = [
            mid
            for mid, (time, _) in messages.items()
            if change.delete_through is not None and (time, mid) <= change.delete_through
        ]

        @immediate
        def load() -> Loaded:
            if stored is None:
                return Loaded(None, {}, {})
            session = _session(stored)
            if isinstance(session, CorruptRecordError):
                raise session
            appended = [m.message_id for m in change.append if m.message_id in messages]
            others = [*(m.message_id for m in change.put), *change.delete]
            return Loaded(
                Head(session, stored.head.last_time),
                {mid: _message(key, stored, mid) for mid in appended},
                {mid: Position(messages[mid][0], mid) for mid in others if mid in messages},
                len(through),
            )

        @immediate
        def apply(plan: Plan, bodies: Mapping[str, bytes]) -> None:
            assert plan.head is not None  # a plan that changes anything has one
            for mid in (*plan.delete, *through):
                del messages[mid]
            for message in (*plan.insert, *plan.overwrite):
                mid = message.message_id
                messages[mid] = (message.create_time or 0, bodies[mid])
            # One assignment, so an interrupt leaves the old session or the new one.
            record = encode_session(plan.head.session)
            self._space.sessions[key] = Stored(plan.head, record, messages)

        return (
            yield from commit(key, change, clock=self.clock, load=load, apply=apply, bodies=bodies)
        )

    # -- removing and looking after --------------------------------------------------------------

    def _remove(self, keys: list[Key]) -> Erased:
        removed = [self._space.sessions.pop(key) for key in keys]
        return Erased(len(removed), sum(len(stored.messages) for stored in removed))

    @immediate
    def erase(self, user_id: str | None, session_id: str | None = None) -> Erased:
        with releasing(self._space.lock), self._space.lock:
            return self._remove(
                [
                    key
                    for key in self._space.sessions
                    if user_id in (None, key.user_id) and session_id in (None, key.session_id)
                ]
            )

    @immediate
    def purge_expired(self) -> Erased:
        with releasing(self._space.lock), self._space.lock:
            return self._remove([key for key in self._space.sessions if not self._live(key)])

    @immediate
    def stats(self) -> Stats:
        with releasing(self._space.lock), self._space.lock:
            live = {key: s for key in self._space.sessions if (s := self._live(key))}
            return Stats(
                users=len({key.user_id for key in live}),
                sessions=len(live),
                messages=sum(len(stored.messages) for stored in live.values()),
                expired_sessions=len(self._space.sessions) - len(live),
            )

    @immediate
    def verify(self) -> list[Problem]:
        with releasing(self._space.lock), self._space.lock:
            sessions = dict(self._space.sessions)
        problems = []
        for key, stored in sessions.items():
            rows = (_session(stored), *(_message(key, stored, mid) for mid in stored.messages))
            problems += [
                Problem(*key, row.message_id, row.reason)
                for row in rows
                if isinstance(row, CorruptRecordError)
            ]
        return problems

    def close(self) -> None:
        """Keeps its data: they are the process's."""


def _session(stored: Stored) -> Session | CorruptRecordError:
    session = stored.head.session
    try:
        title, summary, metadata = decode_session(stored.record)
    except ValueError as error:
        return corrupt_session(session, error)
    return msgspec.structs.replace(session, title=title, summary=summary, metadata=metadata)


def _message(key: Key, stored: Stored, message_id: str) -> Message | CorruptRecordError:
    create_time, body = stored.messages[message_id]
    try:
        return decode_message(body, message_id, create_time)
    except ValueError as error:
        return corrupt_message(key, Position(create_time, message_id), error)


def _activity(stored: Stored) -> tuple[int, str, str]:
    session = stored.head.session
    return session.update_time, session.user_id, session.session_id


def _in_range(place: tuple[int, str, str], query: SessionQuery) -> bool:
    if query.after is not None and (
        place >= query.after if query.descending else place <= query.after
    ):
        return False
    if query.updated_from is not None and place[0] < query.updated_from:
        return False
    return query.updated_to is None or place[0] <= query.updated_to
