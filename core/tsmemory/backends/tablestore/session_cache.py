"""What this process knows of the sessions it writes to, so that a warm append takes two requests.

An id that is there already must be recognised, and the service has no unique index to ask. So the
ids of a session are read once, and after that followed: a commit of another process is noticed,
because the session's token has changed, and the ids it brought are read. As long as reading all ids
takes more requests than looking up those that were asked for, they are looked up one by one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from tsmemory.backends.tablestore.reader import RANGE, Reader
from tsmemory.backends.tablestore.records import Record
from tsmemory.backends.tablestore.rows import is_gone
from tsmemory.backends.tablestore.sdk import MAX, MIN, PrimaryKey, get_range
from tsmemory.engine.records import Key, Position
from tsmemory.engine.steps import Steps
from tsmemory.model import Session

__all__ = ["Knowledge", "Known"]

_MAX_IDS = 200_000
"""Message ids that are remembered, over all sessions: some 30 MB. In a session with more, ids are
looked up one by one."""


class Known:
    """What this process knows of a session after it wrote to it."""

    __slots__ = ("asked", "ids", "record")

    def __init__(self, record: Record | None, ids: set[str] | None) -> None:
        self.record = record
        self.ids = ids
        """Every id that may be in the session; None: not known."""
        self.asked = 0
        """Ids looked up one by one since, for want of `ids`."""


class Knowledge:
    """What is known, by session."""

    def __init__(self, reader: Reader) -> None:
        self.layout = reader.layout
        self.reader = reader
        self._known: OrderedDict[Key, Known] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, key: Key) -> Known | None:
        with self._lock:
            return self._known.pop(key, None)  # put back by `_remember`, if all goes well

    def remember(self, key: Key, known: Known) -> None:
        with self._lock:
            self._known[key] = known
            held = sum(len(one.ids or ()) + 10 for one in self._known.values())
            while held > _MAX_IDS and len(self._known) > 1:
                _, evicted = self._known.popitem(last=False)
                held -= len(evicted.ids or ()) + 10

    def ids_after(self, key: Key, last_time: int) -> Steps[set[str]]:
        found: set[str] = set()
        start: PrimaryKey | None = self.layout.message_key(key, last_time + 1, MIN)
        end = self.layout.message_key(key, MAX, MAX)
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=self.reader.bare_columns
            )
            found.update(
                row.key[2] for row in rows if not is_gone(row) and self.reader.is_mine(row, key)
            )
        return found

    def existing(self, key: Key, known: Known, ids: Sequence[str]) -> Steps[dict[str, Position]]:
        """Where those of `ids` stand that are there."""
        record = known.record
        wanted = list(dict.fromkeys(ids))
        if known.ids is not None:
            wanted = [mid for mid in wanted if mid in known.ids]
        if not wanted:
            return {}
        count = 0
        if record is not None and isinstance(record.session, Session):
            count = record.session.message_count
        pages = count // RANGE + 1
        if count <= _MAX_IDS and known.asked + len(wanted) >= pages:
            places = yield from self._all_places(key)
            if known.ids is None:
                known.ids = {place.message_id for place in places}
            chosen = set(wanted)
            places = [place for place in places if place.message_id in chosen]
        else:
            places = yield from self.reader.positions(key, wanted)
            known.asked += len(wanted)
        if places and (not self.layout.isolated or (record is not None and record.gone)):
            rows = yield from self.reader.at(key, places)
            places = [Position(*row.key[1:]) for row in rows]
        return {place.message_id: place for place in places}

    def _all_places(self, key: Key) -> Steps[list[Position]]:
        found = []
        start: PrimaryKey | None
        start, end = self.layout.id_range(key, None)
        while start is not None:
            rows, start = yield get_range(self.layout.message_index, start, end)
            found += [Position(row.key[2], row.key[1]) for row in rows]
        return found
