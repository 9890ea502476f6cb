"""Listing sessions in Tablestore."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from tsmemory.backends.tablestore.filter import compiled
from tsmemory.backends.tablestore.heads import BATCH_GET
from tsmemory.backends.tablestore.layout import UPDATE_TIME
from tsmemory.backends.tablestore.reader import FILTERED, RANGE, Reader
from tsmemory.backends.tablestore.records import Record, read
from tsmemory.backends.tablestore.sdk import MAX, MIN, PrimaryKey, Row, batch_get, get_range
from tsmemory.engine.records import Key, SessionQuery
from tsmemory.engine.rows import passes, session_sort_key
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Session

__all__ = ["Lister"]


class Lister:
    """`list_sessions` over one layout."""

    def __init__(self, reader: Reader) -> None:
        self.layout = reader.layout
        self.reader = reader

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        if query.user_id is None:
            return (yield from self._everyones(query))
        listed: list[Session | CorruptRecordError] = []
        start: PrimaryKey | None
        start, end = self._session_bounds(query.user_id, query)
        condition = None
        if self.layout.isolated and query.where is not None:
            condition = compiled(
                query.where, "session", visible=lambda c: c in self.layout.session_metadata
            )
        ask = query.limit
        if ask is not None:
            ask += query.after is not None
            if query.where is not None:
                ask = max(ask, FILTERED)
        while start is not None:
            rows, start = yield get_range(
                self.layout.session_index, start, end, backward=query.descending,
                limit=None if ask is None or ask > RANGE else ask, condition=condition,
            )  # fmt: skip
            for record in (yield from self._records(rows)):
                if self._listed(record, query):
                    listed.append((yield from self.reader.counted(_key(record), record)).session)
                    if query.limit is not None and len(listed) >= query.limit:
                        return listed
        return listed

    def _listed(self, record: Record, query: SessionQuery) -> bool:
        if not self.reader.visible(record) or not passes(record.session, query.where):
            return False
        position = session_sort_key(record.session)
        after = query.after
        if after is not None and (position <= after, position >= after)[query.descending]:
            return False
        low, high = query.updated_from, query.updated_to
        return (low is None or position[0] >= low) and (high is None or position[0] <= high)

    def _records(self, rows: Sequence[Row]) -> Steps[list[Record]]:
        """The records of rows of the index. Others change the table's columns, which the index
        does not hold, so in their layout the rows themselves are read."""
        layout = self.layout
        keys = [Key(row.key[0], row.key[2]) for row in rows]
        if layout.isolated:
            return [
                read(key, {**row.columns, UPDATE_TIME: row.key[1]}, layout)
                for key, row in zip(keys, rows, strict=True)
            ]
        listed: dict[Key, Record] = {}
        for i in range(0, len(keys), BATCH_GET):
            keys_page = [layout.session_key(key) for key in keys[i : i + BATCH_GET]]
            table = layout.session_table
            for row in (yield batch_get({table: (keys_page, None)}))[table]:
                key = Key(*row.key)
                listed[key] = read(key, row.columns, layout)
        return [listed[key] for key in keys if key in listed]

    def _session_bounds(self, user_id: str, query: SessionQuery) -> tuple[PrimaryKey, PrimaryKey]:
        def at(time: Any, session_id: Any) -> PrimaryKey:
            return [("user_id", user_id), (UPDATE_TIME, time), ("session_id", session_id)]

        low = at(MIN, MIN) if query.updated_from is None else at(query.updated_from, MIN)
        high = at(MAX, MAX) if query.updated_to is None else at(query.updated_to, MAX)
        if query.after is None:
            return (high, low) if query.descending else (low, high)
        position = at(query.after[0], query.after[2])
        if query.descending:
            inside = query.updated_to is None or query.after[0] <= query.updated_to
            return (position if inside else high), low
        inside = query.updated_from is None or query.after[0] >= query.updated_from
        return (position if inside else low), high

    def _everyones(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        """Every user's sessions by time: no index has them so, hence a scan that keeps as many as
        are asked for."""
        condition = compiled(query.where, "session", foreign=not self.layout.isolated)
        best: list[Any] = []
        pick = heapq.nlargest if query.descending else heapq.nsmallest
        start: PrimaryKey | None = [("user_id", MIN), ("session_id", MIN)]
        while start is not None:
            rows, start = yield get_range(
                self.layout.session_table, start, [("user_id", MAX), ("session_id", MAX)],
                condition=condition,
            )  # fmt: skip
            records = (read(Key(*row.key), row.columns, self.layout) for row in rows)
            best += [record for record in records if self._listed(record, query)]
            if query.limit is not None:
                best = pick(query.limit, best, key=lambda r: session_sort_key(r.session))
        best.sort(key=lambda r: session_sort_key(r.session), reverse=query.descending)
        listed = []
        for record in best:
            listed.append((yield from self.reader.counted(_key(record), record)).session)  # noqa: PERF401  # no yield in a comprehension
        return listed


def _key(record: Record) -> Key:
    return Key(record.session.user_id, record.session.session_id)
