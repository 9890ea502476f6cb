"""Removing sessions from Tablestore, to the last row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tsmemory.backends.tablestore.changes import BATCH_WRITE
from tsmemory.backends.tablestore.heads import BATCH_GET, waiting_time
from tsmemory.backends.tablestore.layout import HEAD, HEAD_TIME, RESERVED, TOMBSTONE, Layout
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import Record, new_token, read, unchanged
from tsmemory.backends.tablestore.recovery import Recovery
from tsmemory.backends.tablestore.sdk import (
    CHECK_FAILED,
    MAX,
    MIN,
    BatchWrite,
    PrimaryKey,
    Row,
    Write,
    batch_get,
    gather,
    get_range,
    remove,
    sdk,
    write,
)
from tsmemory.engine.records import Key, Position
from tsmemory.engine.steps import Pause, Steps
from tsmemory.model import Erased, Session

__all__ = ["Eraser", "session_range"]

_TOGETHER = 100
"""Sessions erased at a time."""
_WHOLE_READ = 1_000
"""Messages up to which a session is erased together with others."""


class Eraser:
    """The removing operations over one layout."""

    def __init__(self, layout: Layout, reader: Reader, recovery: Recovery) -> None:
        self.layout = layout
        self.reader = reader
        self.recovery = recovery

    # -- one session -------------------------------------------------------------------------

    def clean(self, key: Key, record: Record | None) -> Steps[Erased]:
        """Remove a session as found: it is marked first, so that no writer goes on; then its
        messages are removed, oldest first, then its rows, unless others wrote to it meanwhile.

        Args:
            record: its head; None where there is none.
        """
        messages = 0
        deadline = time.monotonic() + self.reader.patience()
        while True:
            if record is not None and record.token is not None and not record.deleting:
                marked = self._marked(record)
                listing = self.recovery.listing_write(key, None, marked)
                company = [listing] if listing is not None else []
                if (yield from self.recovery.write_head(key, record, marked, company)) is not None:
                    record = yield from self.reader.record(key)
                    if record is not None:
                        continue
                else:
                    record = marked
            count, seen = yield from self.recovery.remove_range(key, None)
            messages += count
            expected = record.intent.inserted() if record is not None and record.intent else ()
            if set(expected) - seen and time.monotonic() < deadline:
                yield Pause(waiting_time(3))  # their writer may be about to write them
                continue
            rows = self._rows_of(key, record)
            if record is None:
                yield BatchWrite(rows) if rows else Pause(0)
                return Erased(0, messages)
            try:
                if len(rows) > 1:
                    yield write(rows[0])
                yield write(rows[-1])
                return Erased(1, messages)
            except sdk.OTSServiceError as error:
                if error.code != CHECK_FAILED:
                    raise
            head_now = yield from self.reader.record(key)
            if (
                head_now is None
            ):  # the reply to our own request was lost, or another eraser was here
                return Erased(1, messages)
            record = head_now

    def _marked(self, record: Record) -> Record:
        return msgspec.structs.replace(
            record, deleting=True, token=new_token(), sequence=record.sequence + 1
        )

    def _rows_of(self, key: Key, record: Record | None) -> list[Write]:
        """The removal of the listing row, where there is one, and of the head as it was read."""
        layout, rows = self.layout, []
        if layout.isolated:
            rows.append(remove(layout.session_table, layout.session_key(key)))
        if record is not None:
            column = HEAD if layout.isolated else RESERVED
            where = None if record.token is None else unchanged(record.token, column)
            rows.append(remove(layout.head_table, layout.head_key(key), where=where))
        return rows

    # -- many --------------------------------------------------------------------------------

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        if user_id is not None and session_id is not None:
            key = Key(user_id, session_id)
            record = yield from self.reader.record(key)
            return (yield from self.clean(key, record))
        erased = yield from self._erase_listed(user_id, lambda _: True)
        swept = (yield from self._sweep()) if user_id is None else 0
        return Erased(erased.sessions, erased.messages + swept)

    def purge_expired(self) -> Steps[Erased]:
        return (yield from self._erase_listed(None, lambda record: not self.reader.visible(record)))

    def _erase_listed(
        self, user_id: str | None, selects: Callable[[Record], bool]
    ) -> Steps[Erased]:
        """Erase the sessions of the session table, or a user's, many at a time."""
        sessions = messages = 0
        start: PrimaryKey | None
        start, end = session_range(user_id)
        while start is not None:
            rows, start = yield get_range(self.layout.session_table, start, end)
            listed = [
                (Key(*row.key), read(Key(*row.key), row.columns, self.layout)) for row in rows
            ]
            chosen = [(key, record) for key, record in listed if selects(record)]
            for i in range(0, len(chosen), _TOGETHER):
                erased = yield from self._erase_together(chosen[i : i + _TOGETHER], selects)
                sessions += erased.sessions
                messages += erased.messages
        return Erased(sessions, messages)

    def _erase_together(
        self, listed: Sequence[tuple[Key, Record]], selects: Callable[[Record], bool]
    ) -> Steps[Erased]:
        """The steps of `clean`, for up to 100 sessions at a time. A session with which anything is
        unusual is left to `clean`."""
        heads = yield from self._heads(listed)
        marked: dict[Key, Record] = {}
        alone: list[tuple[Key, Record | None]] = []
        for key, _ in listed:
            head = heads.get(key)
            if head is not None and not selects(head):
                continue  # begun again since it was listed
            session = head.session if head is not None else None
            if (
                head is None or head.token is None or head.deleting
                or not isinstance(session, Session) or session.message_count > _WHOLE_READ
            ):  # fmt: skip
                alone.append((key, head))
            else:
                marked[key] = self._marked(head)
        keys = list(marked)
        refused: list[int] = []
        if keys:
            marks = [self.recovery.head_write(key, heads[key], marked[key]) for key in keys]
            listings = [self.recovery.listing_write(key, None, marked[key]) for key in keys]
            marks += [listing for listing in listings if listing is not None]
            refused = [i for i in (yield BatchWrite(marks)) if i < len(keys)]
        alone += [(keys[i], None) for i in refused]
        keys = [key for i, key in enumerate(keys) if i not in refused]
        messages, unfinished = yield from self._remove_messages({key: marked[key] for key in keys})
        alone += [(key, marked[key]) for key in unfinished]
        keys = [key for key in keys if key not in unfinished]
        removals = [row for key in keys for row in self._rows_of(key, marked[key])]
        for i in range(0, len(removals), BATCH_WRITE):
            yield BatchWrite(removals[i : i + BATCH_WRITE])
        sessions = len(keys)
        for key, head in alone:
            head_now = head if head is not None else (yield from self.reader.record(key))
            erased = yield from self.clean(key, head_now)
            sessions += max(erased.sessions, 1 if head is None and head_now is None else 0)
            messages += erased.messages
        return Erased(sessions, messages)

    def _heads(self, listed: Sequence[tuple[Key, Record]]) -> Steps[dict[Key, Record]]:
        if not self.layout.isolated:
            return dict(listed)
        layout = self.layout
        by_partition = {layout.partition_of(key): key for key, _ in listed}
        keys = [key for key, _ in listed]
        heads: dict[Key, Record] = {}
        for i in range(0, len(keys), BATCH_GET):
            head_keys = [layout.head_key(key) for key in keys[i : i + BATCH_GET]]
            table = layout.head_table
            for row in (yield batch_get({table: (head_keys, None)}))[table]:
                key = by_partition[row.key[0]]
                heads[key] = self.reader.head_of(key, row)
        return heads

    def _remove_messages(self, marked: Mapping[Key, Record]) -> Steps[tuple[int, set[Key]]]:
        """The messages of marked sessions: read in parallel, removed in common batches.

        Returns:
            How many there were, and the sessions of which something is still to come.
        """
        layout, keys = self.layout, list(marked)
        ranges = [layout.through(key, None) for key in keys]
        pages: list[Any] = []
        if keys:
            pages = yield gather(
                [
                    get_range(layout.message_table, start, end, columns=self.reader.bare_columns)
                    for start, end in ranges
                ]
            )
        count = 0
        doomed: list[PrimaryKey] = []
        unfinished = set()
        for key, (rows, start) in zip(keys, pages, strict=True):
            mine = self.reader.removable(rows, key)
            count += sum(TOMBSTONE not in row.columns for row in mine)
            doomed += [layout.message_key(key, *row.key[1:]) for row in mine]
            intent = marked[key].intent
            expected = set(intent.inserted()) if intent is not None else set()
            if start is not None or expected - {Position(*row.key[1:]) for row in mine}:
                unfinished.add(key)
        yield from self.recovery.remove_keys(doomed)
        return count, unfinished

    def _sweep(self) -> Steps[int]:
        """Remove messages and heads that no listing row leads to."""
        count = 0
        start: PrimaryKey | None
        start, end = self.layout.all_messages(MIN, MAX)
        names = [name for name, _ in start]
        while start is not None:
            rows: list[Row]
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=[names[0], TOMBSTONE]
            )
            count += sum(TOMBSTONE not in row.columns and row.key[1] != HEAD_TIME for row in rows)
            yield from self.recovery.remove_keys(
                [list(zip(names, row.key, strict=True)) for row in rows]
            )
        return count


def session_range(user_id: str | None) -> tuple[PrimaryKey, PrimaryKey]:
    """A user's rows of the session table, or every user's."""
    low, high = (MIN, MAX) if user_id is None else (user_id, user_id)
    return [("user_id", low), ("session_id", MIN)], [("user_id", high), ("session_id", MAX)]
