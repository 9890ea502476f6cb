"""What this process knows of the sessions it writes to, so that a warm append takes two requests.

An id that is stored already must be recognised, and the service has no unique index to ask. An id
is known to be new where it is neither among the ids that this process knows nor in the index:

- *Known ids* are those that this process wrote, and those that others wrote since it first looked:
  they show at the end of the session, in the read that finds that the head has changed.
- Any other id is *looked up in the index*: one small request per id, in parallel, whatever the
  session holds. When the lookups have cost about as much as all ids of the session would, all are
  read once, and from then on no lookup is needed. A session that this process began needs none.
- An index may lag (the service's local indexes do not). What is newer than `LAG_US` is therefore
  taken from the table: the newest positions come with the head, and where those do not reach back
  far enough, the index must show the oldest of them (the head then says so to others), or the table
  is read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from tsmemory.backends.tablestore.heads import Tail
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import Record
from tsmemory.backends.tablestore.sdk import MAX, MIN, PrimaryKey, get_range
from tsmemory.engine.locks import releasing
from tsmemory.engine.records import Key, Position
from tsmemory.engine.steps import Steps
from tsmemory.model import Session

__all__ = ["CachedSession", "SessionCache", "moved_past"]

LAG_US = 3_000_000
"""µs that an index may be behind its table, a generous guess: the local ones are not."""
_MAX_IDS = 200_000
"""Message ids that are remembered, over all sessions: some 30 MB."""
_LOOKUPS_PER_ID = 0.2
"""What reading one more id costs, in lookups: about 130 bytes to 650."""


class CachedSession:
    """What this process knows of a session after it read or wrote it."""

    __slots__ = ("complete", "contended_until", "ids", "lookups", "record", "wins")

    def __init__(self, record: Record | None, ids: Iterable[str], *, complete: bool) -> None:
        self.record = record
        self.ids = set(ids)
        self.complete = complete
        """Whether `ids` are all that may be in the session."""
        self.lookups = 0
        """Ids looked up in the index so far."""
        self.wins = 0
        """Commits since another process was first."""
        self.contended_until = 0.0
        """Until when (`time.monotonic`) others are expected to write too."""


class SessionCache:
    """Cached sessions by key, the least recently used evicted."""

    def __init__(self, reader: Reader) -> None:
        self.layout = reader.layout
        self.reader = reader
        self._cached: OrderedDict[Key, CachedSession] = OrderedDict()
        self._weights: dict[Key, int] = {}
        self._total = 0
        self._lock = threading.RLock()

    def pop(self, key: Key) -> CachedSession | None:
        """What is known, until it is `put` back: an operation that fails leaves nothing stale."""
        with releasing(self._lock), self._lock:
            cached = self._cached.pop(key, None)
            self._total -= self._weights.pop(key, 0)
            return cached

    def put(self, key: Key, cached: CachedSession) -> None:
        weight = len(cached.ids) + 10
        with releasing(self._lock), self._lock:
            self._cached.pop(key, None)
            self._total += weight - self._weights.pop(key, 0)
            self._cached[key] = cached
            self._weights[key] = weight
            while self._total > _MAX_IDS and len(self._cached) > 1:
                evicted, _ = self._cached.popitem(last=False)
                self._total -= self._weights.pop(evicted)

    # -- ids ---------------------------------------------------------------------------------

    def ids_since(self, key: Key, last_time: int, tail: Tail) -> Steps[set[str]]:
        """The ids of the messages after `last_time`, where only appends came since."""
        ids = {position.message_id for position in tail.positions}
        if tail.start is None or (tail.positions and tail.positions[-1].create_time <= last_time):
            return ids
        positions = yield from self._newer(key, last_time + 1)
        return ids | {position.message_id for position in positions}

    def _newer(self, key: Key, first_time: int) -> Steps[list[Position]]:
        """The positions from `first_time` (µs) on, read from the table."""
        positions: list[Position] = []
        start: PrimaryKey | None = self.layout.message_key(key, first_time, MIN)
        end = self.layout.after_messages(key)
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=self.reader.bare_columns
            )
            positions += self.reader.positions_of(rows, key)
        return positions

    def recent(self, key: Key, cached: CachedSession, tail: Tail) -> Steps[list[Position]]:
        """Every position that the index may not show yet, and perhaps more."""
        if tail.start is None or not tail.positions or cached.record is None:
            return tail.positions
        safe_time = self.reader.now() - LAG_US
        oldest = tail.positions[-1]
        if oldest.create_time <= max(safe_time, cached.record.indexed_time):
            return tail.positions
        if (yield from self.is_indexed(key, oldest)):
            cached.record = msgspec.structs.replace(cached.record, indexed_time=oldest.create_time)
            return tail.positions
        return (yield from self._newer(key, safe_time))

    def is_indexed(self, key: Key, position: Position) -> Steps[bool]:
        """Whether the index shows a message, and so every older one."""
        return position in (yield from self.reader.positions(key, [position.message_id]))

    def locate(
        self, key: Key, cached: CachedSession, ids: Sequence[str], recent: Sequence[Position]
    ) -> Steps[dict[str, Position]]:
        """Where those of `ids` are that may be stored; a position may hold a tombstone."""
        lookup_ids = list(dict.fromkeys(ids))
        if cached.complete:
            lookup_ids = [mid for mid in lookup_ids if mid in cached.ids]
        if not lookup_ids:
            return {}
        newest = {position.message_id: position for position in recent}
        located = {mid: newest[mid] for mid in lookup_ids if mid in newest}
        unlocated = [mid for mid in lookup_ids if mid not in located]
        if not unlocated:
            return located
        count = 0
        if cached.record is not None and isinstance(cached.record.session, Session):
            count = cached.record.session.message_count
        lookups = len(unlocated) + (0 if cached.complete else cached.lookups)
        if count <= _MAX_IDS and lookups > max(count * _LOOKUPS_PER_ID, 1):
            positions = yield from self._all_positions(key)
            if self.layout.isolated:  # else others may add ids at any time
                cached.ids.update(position.message_id for position in (*positions, *recent))
                cached.complete = True
            chosen = set(unlocated)
            positions = [position for position in positions if position.message_id in chosen]
        else:
            positions = yield from self.reader.positions(key, unlocated)
            cached.lookups += len(unlocated)
        positions_by_id = {**located, **{position.message_id: position for position in positions}}
        if any(mid in cached.ids and mid not in positions_by_id for mid in unlocated):
            # Deleted since, or written so recently that the index does not show it yet.
            for position in (yield from self._newer(key, self.reader.now() - LAG_US)):
                if position.message_id in unlocated:
                    positions_by_id.setdefault(position.message_id, position)
        return positions_by_id

    def _all_positions(self, key: Key) -> Steps[list[Position]]:
        positions: list[Position] = []
        start: PrimaryKey | None
        start, end = self.layout.id_range(key, None)
        while start is not None:
            rows, start = yield get_range(self.layout.message_index, start, end)
            positions += [Position(row.key[2], row.key[1]) for row in rows]
        return positions

    def follow_peers(self, key: Key, cached: CachedSession) -> Steps[None]:
        """Let the session's last time be that of its newest message, whoever wrote it."""
        if cached.record is None:
            return
        layout = self.reader.layout
        rows, _ = yield get_range(
            layout.message_table, layout.message_key(key, MAX, MAX),
            layout.message_key(key, MIN, MIN), backward=True, limit=1,
            columns=[layout.partition],
        )  # fmt: skip
        cached.record = moved_past(cached.record, [Position(*row.key[1:]) for row in rows])


def moved_past(record: Record, positions: Sequence[Position]) -> Record:
    """`record`, its last time no earlier than these positions."""
    newest = max((position.create_time for position in positions), default=0)
    return msgspec.structs.replace(record, last_time=max(record.last_time, newest))
