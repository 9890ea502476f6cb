"""Removing sessions from Tablestore, to the last row."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from tsmemory.backends.tablestore.layout import GONE, Layout
from tsmemory.backends.tablestore.reader import Reader, waiting_time
from tsmemory.backends.tablestore.records import Record, new_token, read, unchanged
from tsmemory.backends.tablestore.recovery import Settler
from tsmemory.backends.tablestore.sdk import (
    CHECK_FAILED,
    MAX,
    MIN,
    PrimaryKey,
    get_range,
    pause,
    remove,
    sdk,
    write,
)
from tsmemory.engine.records import Key
from tsmemory.engine.steps import Steps
from tsmemory.model import Erased

__all__ = ["Eraser"]


class Eraser:
    """The removing operations over one layout."""

    def __init__(self, layout: Layout, reader: Reader, settler: Settler) -> None:
        self.layout = layout
        self.reader = reader
        self.settler = settler

    def clean(self, key: Key, record: Record | None) -> Steps[Erased]:
        """Remove a session as found: first it is marked, so that no writer goes on; then its
        messages go, oldest first, then its record, unless somebody wrote to it meanwhile."""
        messages = 0
        until = time.monotonic() + self.reader.grace()
        while True:
            if record is not None and record.token is not None and not record.deleting:
                marked = msgspec.structs.replace(record, deleting=True, token=new_token())
                there = yield from self.settler.write_record(key, record, marked)
                if there is not None:  # somebody was faster: look again
                    record = yield from self.reader.record(key)
                    if record is not None:
                        continue
                else:
                    record = marked
            count, seen = yield from self.settler.remove_range(key, None)
            messages += count
            if record is None:
                return Erased(0, messages)
            awaited = set(record.intent.inserted()) - seen if record.intent is not None else set()
            if awaited and time.monotonic() < until:  # their writer may be about to write them
                yield pause(waiting_time(3))
                continue
            where = None
            if record.token is not None:
                where = unchanged(record.token)
            table, place = self.layout.session_table, self.layout.session_key(key)
            try:
                yield write(remove(table, place, where=where))
                return Erased(1, messages)
            except sdk.OTSServiceError as error:
                if error.code != CHECK_FAILED:
                    raise
            found = yield from self.reader.record(key)
            if found is None:  # the reply to our own request was lost, or another eraser was here
                return Erased(1, messages)
            record = found

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        if user_id is not None and session_id is not None:
            key = Key(user_id, session_id)
            record = yield from self.reader.record(key)
            return (yield from self.clean(key, record))
        total = yield from self._clean_all(user_id, lambda _: True)
        swept = 0
        if self.layout.isolated and user_id is not None:
            swept = yield from self._sweep(*self.layout.users_partitions(user_id))
        elif user_id is None:
            swept = yield from self._sweep(MIN, MAX)
        return Erased(total.sessions, total.messages + swept)

    def purge_expired(self) -> Steps[Erased]:
        return (yield from self._clean_all(None, lambda record: not self.reader.visible(record)))

    def _clean_all(self, user_id: str | None, wanted: Callable[[Record], bool]) -> Steps[Erased]:
        sessions = messages = 0
        start: PrimaryKey | None
        start, end = session_range(user_id)
        while start is not None:
            rows, start = yield get_range(self.layout.session_table, start, end)
            for row in rows:
                key = Key(*row.key)
                record = read(key, row.columns, self.layout)
                if wanted(record):
                    erased = yield from self.clean(key, record)
                    sessions += erased.sessions
                    messages += erased.messages
        return Erased(sessions, messages)

    def _sweep(self, first: object, last: object) -> Steps[int]:
        """Remove messages that no session's record leads to."""
        count = 0
        start: PrimaryKey | None
        start, end = self.layout.all_messages(first, last)
        names = [name for name, _ in start]
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=[names[0], GONE]
            )
            count += sum(GONE not in row.columns for row in rows)
            yield from self.settler.remove_keys(
                [list(zip(names, row.key, strict=True)) for row in rows]
            )
        return count


def session_range(user_id: str | None) -> tuple[PrimaryKey, PrimaryKey]:
    """A user's rows of the session table, or everybody's."""
    low, high = (MIN, MAX) if user_id is None else (user_id, user_id)
    return [("user_id", low), ("session_id", MIN)], [("user_id", high), ("session_id", MAX)]
