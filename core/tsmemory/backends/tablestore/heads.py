"""Reading heads: whether a session is there, and what its last commit still lacks."""

from __future__ import annotations

import itertools
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from tsmemory.backends.tablestore.layout import (
    DESCRIPTION,
    HEAD,
    HEAD_TIME,
    INTENT,
    RESERVED,
    TOMBSTONE,
    UPDATE_TIME,
    Layout,
)
from tsmemory.backends.tablestore.records import Record, read
from tsmemory.backends.tablestore.rows import decode, is_tombstone, token_of
from tsmemory.backends.tablestore.sdk import (
    MAX,
    MIN,
    PrimaryKey,
    Row,
    batch_get,
    get_range,
    get_row,
)
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import Key, Position
from tsmemory.engine.steps import Pause, Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Session

__all__ = ["BATCH_GET", "TAIL", "HeadReader", "Tail", "less", "waiting_time"]

_log = get_logger("tablestore")

BATCH_GET = 100
"""Rows of one BatchGetRow (Tablestore, "Limits on the Wide Column model")."""
TAIL = 8
"""Newest positions that a writer reads together with the head. Most commits bring no more, so one
request shows that the last one arrived, and which ids are too new to rely on the index for."""
_REMEMBERED = 10_000  # sessions


class Tail(NamedTuple):
    """A session's head, and the positions of its newest messages."""

    record: Record | None
    positions: list[Position]
    """Newest first; tombstones and other users' messages are left out."""
    start: PrimaryKey | None
    """Where older rows begin; None: there are none."""


def waiting_time(attempt: int) -> float:
    """Seconds before another look at what a writer does, jittered; `attempt` counts from 0."""
    return random.uniform(0.5, 1.0) * min(0.005 * 2.0 ** min(attempt, 10), 0.2)


class HeadReader:
    """Heads, and what they say of messages, over one layout.

    Args:
        now: µs since the epoch.
        patience: seconds that another writer's unfinished commit is waited for.
    """

    def __init__(
        self, layout: Layout, now: Callable[[], int], patience: Callable[[], float]
    ) -> None:
        self.layout = layout
        self.now = now
        self.patience = patience
        self._seen_whole: OrderedDict[Key, tuple[str | None, int]] = OrderedDict()

    # -- the session's head ------------------------------------------------------------------

    def record(self, key: Key) -> Steps[Record | None]:
        """The session's head; None where there is none."""
        row = yield get_row(self.layout.head_table, self.layout.head_key(key))
        return self.head_of(key, row) if row else None

    def head_of(self, key: Key, row: Row) -> Record:
        return read(key, row.columns, self.layout, HEAD if self.layout.isolated else RESERVED)

    def tail(self, key: Key) -> Steps[Tail]:
        """The head, and the newest positions, in one request (isolated layout) or two."""
        layout = self.layout
        record: Record | None = None
        columns = self._tail_columns()
        if not layout.isolated:
            record = yield from self.record(key)
        rows, start = yield get_range(
            layout.message_table, layout.message_key(key, MAX, MAX),
            layout.message_key(key, MIN, MIN), backward=True,
            limit=TAIL + layout.isolated, columns=columns,
        )  # fmt: skip
        if layout.isolated and rows and rows[0].key[1] == HEAD_TIME:
            record = self.head_of(key, rows.pop(0))
        return Tail(record, self.positions_of(rows, key), start)

    def _tail_columns(self) -> list[str]:
        if self.layout.isolated:
            return [self.layout.partition, TOMBSTONE, UPDATE_TIME, HEAD, DESCRIPTION, INTENT]
        return [self.layout.partition, *self._ownership]

    _ownership = (RESERVED, f"{RESERVED}_1", f"{RESERVED}_2", TOMBSTONE)
    """The columns that tell whose a row is, where users share a partition."""

    @property
    def bare_columns(self) -> list[str]:
        """The columns that tell whether a row is a message of the session."""
        if self.layout.isolated:
            return [self.layout.partition, TOMBSTONE]
        return [self.layout.partition, *self._ownership]

    def is_mine(self, row: Row, key: Key) -> bool:
        """Whether the row is of this session, and not of another user's of the same id."""
        if self.layout.isolated or is_tombstone(row):
            return True
        return decode(row, key, self.layout) is not None

    def removable(self, rows: Sequence[Row], key: Key) -> list[Row]:
        """Those of the rows that go with the session.

        Rows that others wrote do not say whose they are: where another user has messages under the
        same session id too, they stay.
        """
        if self.layout.isolated:
            return list(rows)
        mine = [row for row in rows if self.is_mine(row, key)]
        if len(mine) == len(rows):
            return mine
        removable_rows = [row for row in mine if is_tombstone(row) or token_of(row)]
        if len(removable_rows) < len(mine):
            _log.warning(
                "session %s: %d rows that name no user stay, because another user has messages "
                "under the same session id", hashed(key), len(mine) - len(removable_rows),
            )  # fmt: skip
        return removable_rows

    def positions_of(self, rows: Iterable[Row], key: Key) -> list[Position]:
        """Of those rows that are messages of this session."""
        return [
            Position(*row.key[1:])
            for row in rows
            if not is_tombstone(row) and self.is_mine(row, key)
        ]

    def visible(self, record: Record | None) -> bool:
        """Whether a session with this head has messages to show."""
        if record is None:
            return not self.layout.isolated  # others write messages without a session
        if record.deleting:
            return False
        session = record.session
        if isinstance(session, CorruptRecordError) or session.expires_at is None:
            return True
        return session.expires_at > self.now()

    def headless(self, key: Key) -> CorruptRecordError:
        """What is in place of a session that has messages and no head (isolated layout)."""
        reason = "its head is missing, but there are messages; erase it, or restore the row"
        return CorruptRecordError(reason, user_id=key.user_id, session_id=key.session_id)

    def lost_head(self, key: Key) -> Steps[CorruptRecordError | None]:
        """Where a head was not found: whether the session lost it."""
        if self.layout.isolated and (yield from self.tail(key)).positions:
            return self.headless(key)
        return None

    def session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        """The session as it is; what its version covers is there to be read afterwards."""
        record = yield from self.record(key)
        if record is None:
            return (yield from self.lost_head(key))
        if not self.visible(record):
            return None
        session = (yield from self.counted(key, record)).session
        intent = record.intent
        if isinstance(session, CorruptRecordError) or intent is None or intent.defers_version:
            return session
        token, missing = self._seen_whole.get(key, (None, 0))
        if token is None or token != record.token:
            missing = len((yield from self.awaited(key, record)))
            self.note_whole(key, record.token, missing)
        return less(session, missing)

    def note_whole(self, key: Key, token: str | None, missing: int = 0) -> None:
        """Remember how many messages of the commit `token` are missing, so as not to look again."""
        self._seen_whole[key] = (token, missing)
        self._seen_whole.move_to_end(key)
        while len(self._seen_whole) > _REMEMBERED:
            self._seen_whole.popitem(last=False)

    def awaited(self, key: Key, record: Record) -> Steps[list[Position]]:
        """What the last commit still lacks after its writer had time to bring it."""
        deadline = time.monotonic() + self.patience()
        for attempt in itertools.count():
            missing = yield from self.missing(key, record)
            if not missing or time.monotonic() >= deadline:
                break
            yield Pause(waiting_time(attempt))
        return missing

    def missing(self, key: Key, record: Record) -> Steps[list[Position]]:
        """What the last commit brings or overwrites and has not yet."""
        intent = record.intent
        if intent is None:
            return []
        present = set()
        table, columns = self.layout.message_table, self.bare_columns
        appended = intent.appended()
        if appended:
            start: PrimaryKey | None = self.layout.message_key(key, *appended[0])
            end = self.layout.message_key(key, appended[-1].create_time, MAX)
            while start is not None:
                rows, start = yield get_range(table, start, end, columns=columns)
                present.update(self.positions_of(rows, key))
        others = intent.inserted()[len(appended) :]
        for i in range(0, len(others), BATCH_GET):
            keys = [self.layout.message_key(key, *p) for p in others[i : i + BATCH_GET]]
            rows = (yield batch_get({table: (keys, columns)}))[table]
            present.update(self.positions_of(rows, key))
        unwritten = []
        if intent.overwrites:
            rows = yield from self.at(key, intent.overwrites)
            unwritten = [Position(*r.key[1:]) for r in rows if token_of(r) != record.token]
        return [inserted for inserted in intent.inserted() if inserted not in present] + unwritten

    def counted(self, key: Key, record: Record) -> Steps[Record]:
        """A record that others wrote, completed from its messages; any other as it is."""
        if record.token is not None or isinstance(record.session, CorruptRecordError):
            return record
        count, last = 0, 0
        start: PrimaryKey | None
        start, end = self.layout.through(key, None)
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=self.bare_columns
            )
            for position in self.positions_of(rows, key):
                count, last = count + 1, max(last, position.create_time)
        session = msgspec.structs.replace(record.session, message_count=count)
        return msgspec.structs.replace(record, session=session, last_time=last)

    def at(self, key: Key, positions: Sequence[Position]) -> Steps[list[Row]]:
        """The rows at these positions that are messages of this session."""
        rows_present: list[Row] = []
        table = self.layout.message_table
        for i in range(0, len(positions), BATCH_GET):
            keys = [self.layout.message_key(key, *p) for p in positions[i : i + BATCH_GET]]
            rows_present += (yield batch_get({table: (keys, None)}))[table]
        return [row for row in rows_present if decode(row, key, self.layout) is not None]


def less(session: Session, missing: int) -> Session:
    if not missing:
        return session
    return msgspec.structs.replace(session, message_count=session.message_count - missing)
