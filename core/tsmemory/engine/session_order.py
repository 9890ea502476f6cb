"""Sessions in the order of their last activity, in memory: so that a page costs a page."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import Any

from tsmemory.engine.records import Key, SessionQuery

__all__ = ["Activity", "SessionOrder"]

Activity = tuple[int, str, str]
"""(update_time, user_id, session_id): the position of a session in listings."""

_MAX_MOVES = 1024  # changes that wait for somebody to ask for the order
_CHUNK = 512  # entries after which a chunk is split at twice its size: inserting moves that many


class SessionOrder:
    """Which session was active when. Not thread-safe: the owner holds a lock.

    A change is one assignment (`_moves`) until somebody asks for the order, so a write costs next
    to nothing, and an interrupt cannot leave half of one. `changing` is True after an interrupt in
    the middle of asking; the owner then fills a new one.
    """

    def __init__(self) -> None:
        self.changing = False
        self._moves: dict[Key, int | None] = {}
        self._times: dict[Key, int] = {}
        self._all = _SortedEntries()
        self._users: dict[str, _SortedEntries] = {}

    def set(self, key: Key, update_time: int) -> None:
        """Put a session at its position, wherever it was."""
        self._move(key, update_time)

    def discard(self, key: Key) -> None:
        """Remove a session that may not be in here."""
        self._move(key, None)

    def _move(self, key: Key, time: int | None) -> None:
        self._moves[key] = time
        if len(self._moves) > _MAX_MOVES:
            self._settle()

    def _settle(self) -> None:
        """Apply what changed since the last time."""
        if not self._moves:
            return
        self.changing = True
        for key, time in self._moves.items():
            before = self._times.get(key)
            if before == time:
                continue
            if before is not None:
                del self._times[key]
                self._remove((before, key.user_id, key.session_id))
            if time is not None:
                self._times[key] = time
                self._add((time, key.user_id, key.session_id))
        self._moves = {}
        self.changing = False

    def _add(self, entry: Activity) -> None:
        self._all.add(entry)
        entries = self._users.get(entry[1])
        if entries is None:
            entries = self._users[entry[1]] = _SortedEntries()
        entries.add(entry)

    def _remove(self, entry: Activity) -> None:
        self._all.remove(entry)
        entries = self._users[entry[1]]
        entries.remove(entry)
        if not entries.chunks:
            del self._users[entry[1]]

    def page(self, query: SessionQuery, after: Activity | None, count: int) -> list[Activity]:
        """The next `count` positions after `after` in the query's range and direction. Filters and
        the query's own `after` and `limit` are the caller's."""
        self._settle()
        entries = self._all if query.user_id is None else self._users.get(query.user_id)
        if entries is None:
            return []
        low: Any = () if query.updated_from is None else (query.updated_from,)
        high: Any = None if query.updated_to is None else (query.updated_to + 1,)
        if after is not None and query.descending:
            high = after if high is None else min(high, after)
        elif after is not None:
            low = max(low, (after[0], after[1], after[2] + "\0"))  # the first id after this one
        return entries.between(low, high, query.descending, count)

    def entries(self) -> Iterable[Activity]:
        """All positions, oldest first."""
        self._settle()
        return (entry for chunk in self._all.chunks for entry in chunk)


class _SortedEntries:
    """A sorted list in chunks, so that inserting and removing move a few hundred entries only."""

    __slots__ = ("chunks", "firsts")

    def __init__(self) -> None:
        self.chunks: list[list[Activity]] = []
        self.firsts: list[Activity] = []

    def add(self, entry: Activity) -> None:
        if not self.chunks:
            self.chunks.append([entry])
            self.firsts.append(entry)
            return
        i = self._chunk_of(entry)
        chunk = self.chunks[i]
        insort(chunk, entry)
        self.firsts[i] = chunk[0]
        if len(chunk) >= 2 * _CHUNK:
            self.chunks[i : i + 1] = [chunk[:_CHUNK], chunk[_CHUNK:]]
            self.firsts[i : i + 1] = [chunk[0], chunk[_CHUNK]]

    def remove(self, entry: Activity) -> None:
        i = self._chunk_of(entry)
        chunk = self.chunks[i]
        del chunk[bisect_left(chunk, entry)]
        if chunk:
            self.firsts[i] = chunk[0]
        else:
            del self.chunks[i], self.firsts[i]

    def between(self, low: Any, high: Any, descending: bool, count: int) -> list[Activity]:
        """At most `count` entries that are not under `low` and are under `high` (None: no bound),
        from the high end if `descending`."""
        sessions: list[Activity] = []
        if not self.chunks:
            return sessions
        first = self._chunk_of(low)
        last = len(self.chunks) - 1 if high is None else self._chunk_of(high)
        order = range(last, first - 1, -1) if descending else range(first, last + 1)
        for i in order:
            chunk = self.chunks[i]
            begin = bisect_left(chunk, low) if i == first else 0
            end = bisect_left(chunk, high) if i == last and high is not None else len(chunk)
            missing = count - len(sessions)
            if descending:
                sessions += chunk[max(begin, end - missing) : end][::-1]
            else:
                sessions += chunk[begin : min(end, begin + missing)]
            if len(sessions) >= count:
                break
        return sessions

    def _chunk_of(self, entry: Any) -> int:
        return max(bisect_right(self.firsts, entry) - 1, 0)
