"""Reading from Tablestore.

The newest row of a session tells when the session expires and where its instructions stand, so a
window is one range read (two with instructions that lie outside). Where that row says to ask, or
its time is over, the session's record is read too; a read that does not begin at the newest row
reads the record first. A batch of which a part is missing is shown up to the first gap.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tsmemory.backends.tablestore.filter import compiled
from tsmemory.backends.tablestore.layout import GONE, ROLE, Layout
from tsmemory.backends.tablestore.records import Record, read
from tsmemory.backends.tablestore.rows import decode, is_gone, word
from tsmemory.backends.tablestore.sdk import (
    MAX,
    MIN,
    PrimaryKey,
    Row,
    any_of,
    batch_get,
    compare,
    get_range,
    get_row,
    pause,
)
from tsmemory.engine.records import Key, MessageQuery, Position, Read
from tsmemory.engine.rows import passes
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session, is_pinned

__all__ = ["BATCH_GET", "FILTERED", "RANGE", "Reader", "waiting_time"]

BATCH_GET = 100
"""Rows of one BatchGetRow (Tablestore, "Limits on the Wide Column model")."""
RANGE = 5000  # rows of one GetRange (same page)
FILTERED = 1000
"""Rows asked for at once where a filter decides: whether the service counts the rows that it reads
or those that pass is not documented, so with few it might take many requests."""
_INSTRUCTIONS = ("system", "developer")


_REMEMBERED = 10_000  # sessions


def waiting_time(attempt: int) -> float:
    """Seconds before another look at what a writer does, jittered; `attempt` counts from 0."""
    return random.uniform(0.5, 1.0) * min(0.005 * 2.0 ** min(attempt, 10), 0.2)


class Reader:
    """The reading operations over one layout.

    Args:
        now: µs since the epoch.
        grace: seconds that another writer's batch is waited for.
    """

    def __init__(self, layout: Layout, now: Callable[[], int], grace: Callable[[], float]) -> None:
        self.layout = layout
        self.now = now
        self.grace = grace
        self._settled: OrderedDict[Key, tuple[str | None, int]] = OrderedDict()

    # -- the session's record ----------------------------------------------------------------

    def record(self, key: Key) -> Steps[Record | None]:
        """The session's row as it is; None where there is none."""
        row = yield get_row(self.layout.session_table, self.layout.session_key(key))
        return read(key, row.columns, self.layout) if row else None

    def visible(self, record: Record | None) -> bool:
        """Whether a session with this record has messages to show."""
        if record is None:
            return not self.layout.isolated  # others write messages of no session
        if record.deleting:
            return False
        session = record.session
        if isinstance(session, CorruptRecordError) or session.expires_at is None:
            return True
        return session.expires_at > self.now()

    def session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        """The session as it is; what its version covers is there to be read afterwards."""
        record = yield from self.record(key)
        if record is None or not self.visible(record):
            return None
        session = (yield from self.counted(key, record)).session
        intent = record.intent
        if isinstance(session, CorruptRecordError) or intent is None or intent.held:
            return session
        token, missing = self._settled.get(key, (None, 0))
        if token is None or token != record.token:
            missing = len((yield from self.awaited(key, record)))
            self.note(key, record.token, missing)
        if missing:
            session = msgspec.structs.replace(
                session, message_count=session.message_count - missing
            )
        return session

    def note(self, key: Key, token: str | None, missing: int = 0) -> None:
        """Remember how many messages of the commit `token` are missing, so as not to look again."""
        self._settled[key] = (token, missing)
        self._settled.move_to_end(key)
        while len(self._settled) > _REMEMBERED:
            self._settled.popitem(last=False)

    def awaited(self, key: Key, record: Record) -> Steps[list[Position]]:
        """What of the last commit is missing when its writer had time to bring it."""
        until = time.monotonic() + self.grace()
        for attempt in itertools.count():
            missing = yield from self.missing(key, record)
            if not missing or time.monotonic() >= until:
                break
            yield pause(waiting_time(attempt))
        return missing

    def missing(self, key: Key, record: Record) -> Steps[list[Position]]:
        """The rows that the last commit brings and that are not there (or are there for nobody),
        or are not written over yet."""
        intent = record.intent
        if intent is None:
            return []
        there = set()
        table, columns = self.layout.message_table, self.bare_columns
        appended = intent.appended()
        if appended:
            start: PrimaryKey | None = self.layout.message_key(key, *appended[0])
            end = self.layout.message_key(key, appended[-1].create_time, MAX)
            while start is not None:
                rows, start = yield get_range(table, start, end, columns=columns)
                there.update(self._places(rows, key))
        others = intent.inserted()[len(appended) :]
        for i in range(0, len(others), BATCH_GET):
            keys = [self.layout.message_key(key, *place) for place in others[i : i + BATCH_GET]]
            rows = (yield batch_get({table: (keys, columns)}))[table]
            there.update(self._places(rows, key))
        late = []
        if intent.over:
            rows = yield from self.at(key, intent.over)
            late = [Position(*row.key[1:]) for row in rows if word(row).batch != record.token]
        return [place for place in intent.inserted() if place not in there] + late

    @property
    def bare_columns(self) -> list[str] | None:
        """The columns that tell whether a row is a message of the session."""
        return [self.layout.partition, GONE] if self.layout.isolated else None

    def is_mine(self, row: Row, key: Key) -> bool:
        """Whether the row is of this session, and not of another user's of the same id."""
        if self.layout.isolated or GONE in row.columns:
            return True
        return decode(row, key, self.layout) is not None

    def _places(self, rows: Sequence[Row], key: Key) -> list[Position]:
        return [
            Position(*row.key[1:]) for row in rows
            if GONE not in row.columns and self.is_mine(row, key)
        ]  # fmt: skip

    def counted(self, key: Key, record: Record) -> Steps[Record]:
        """A record that others wrote, with what its messages tell; any other as it is."""
        if record.token is not None or isinstance(record.session, CorruptRecordError):
            return record
        count, last = 0, 0
        start, end = self.layout.through(key, None)
        columns = None if not self.layout.isolated else [self.layout.partition, GONE]
        while start is not None:
            rows, start = yield get_range(self.layout.message_table, start, end, columns=columns)
            for row in rows:
                if decode(row, key, self.layout) is not None:
                    count, last = count + 1, max(last, row.key[1])
        session = msgspec.structs.replace(record.session, message_count=count)
        return msgspec.structs.replace(record, session=session, last_time=last)

    # -- messages ----------------------------------------------------------------------------

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        tail = (
            query.descending and query.where is None
            and query.after is None and query.created_to is None
        )  # fmt: skip
        record: Record | None = None
        if not tail:
            record = yield from self.record(key)
            if not self.visible(record):
                return Read([])
        rows = yield from self._rows(key, query)
        if not rows:
            return Read([])
        said = word(rows[0])
        over = said.expires_at is not None and said.expires_at <= self.now()
        if tail and (said.ask or over):
            record = yield from self.record(key)
            if not self.visible(record):
                return Read([])
        ahead = rows if not query.descending else rows[::-1]
        whole = (
            query.after is None
            if not query.descending
            else (query.limit is None or len(rows) < query.limit)
        )
        whole = whole and query.created_from is None and query.where is None
        if query.where is None and _has_gap(ahead, whole):
            hidden = _behind_gap(ahead, (yield from self.record(key)), whole)
            rows = [row for row in rows if Position(*row.key[1:]) not in hidden]
        found: list[Message | CorruptRecordError] = []
        for row in rows:
            message = decode(row, key, self.layout)
            if message is not None and passes(message, query.where):
                found.append(message)
        if not (query.pinned and query.descending and found):
            return Read(found)
        if record is None and not tail:
            return Read(found)
        pins = said.pins if record is None else record.pins
        oldest = Position(*rows[-1].key[1:])
        return Read(found, (yield from self._pinned(key, pins, oldest)))

    def _rows(self, key: Key, query: MessageQuery) -> Steps[list[Row]]:
        """The rows of the query's range in its direction, up to its limit of those that count."""
        start, end = self._bounds(key, query)
        condition = compiled(query.where, "message", foreign=not self.layout.isolated)
        found: list[Row] = []
        skip = query.after if query.descending else None
        ask = query.limit
        if ask is not None:
            ask += skip is not None
            if query.where is not None:
                ask = max(ask, FILTERED)
        following: PrimaryKey | None = start
        while following is not None:
            rows, following = yield get_range(
                self.layout.message_table, following, end, backward=query.descending,
                limit=None if ask is None or ask > RANGE else ask, condition=condition,
            )  # fmt: skip
            for row in rows:
                if (skip is not None and Position(*row.key[1:]) == skip) or is_gone(row):
                    continue
                if query.where is not None or not self.layout.isolated:
                    message = decode(row, key, self.layout)
                    if message is None or not passes(message, query.where):
                        continue
                found.append(row)
                if query.limit is not None and len(found) >= query.limit:
                    return found
        return found

    def _bounds(self, key: Key, query: MessageQuery) -> tuple[PrimaryKey, PrimaryKey]:
        """Where the read begins, inclusive, and ends, exclusive."""
        layout = self.layout
        low = layout.message_key(key, MIN, MIN)
        high = layout.message_key(key, MAX, MAX)
        if query.created_from is not None:
            low = layout.message_key(key, query.created_from, MIN)
        if query.created_to is not None:
            high = layout.message_key(key, query.created_to, MAX)
        if query.after is None:
            return (high, low) if query.descending else (low, high)
        time, mid = query.after
        if query.descending:
            if query.created_to is not None and time > query.created_to:
                return high, low
            return layout.message_key(key, time, mid), low
        if query.created_from is None or time >= query.created_from:
            low = layout.message_key(key, time, mid + "\0")  # right behind it
        return low, high

    def _pinned(
        self, key: Key, pins: tuple[Position, ...] | None, oldest: Position
    ) -> Steps[list[Message | CorruptRecordError]]:
        """The instructions that stand before `oldest`; `pins` None: look for them."""
        rows: list[Row] = []
        table = self.layout.message_table
        if pins is None:
            start: PrimaryKey | None = self.layout.message_key(key, MIN, MIN)
            end = self.layout.message_key(key, *oldest)
            role = any_of(*(compare(ROLE, "==", name) for name in _INSTRUCTIONS))
            while start is not None:
                some, start = yield get_range(table, start, end, condition=role)
                rows += some
        else:
            before = [pin for pin in pins if pin < oldest]
            for i in range(0, len(before), BATCH_GET):
                keys = [self.layout.message_key(key, *pin) for pin in before[i : i + BATCH_GET]]
                rows += (yield batch_get({table: (keys, None)}))[table]
        rows.sort(key=lambda row: row.key)
        found = (decode(row, key, self.layout) for row in rows)
        return [
            message for message in found
            if isinstance(message, CorruptRecordError) or (message and is_pinned(message.role))
        ]  # fmt: skip

    def positions(self, key: Key, ids: Iterable[str]) -> Steps[list[Position]]:
        """Where the index has rows of these ids, one request each."""
        found = []
        for mid in ids:
            start: PrimaryKey | None
            start, end = self.layout.id_range(key, mid)
            while start is not None:
                rows, start = yield get_range(self.layout.message_index, start, end)
                found += [Position(row.key[2], row.key[1]) for row in rows]
        return found

    def at(self, key: Key, positions: Sequence[Position]) -> Steps[list[Row]]:
        """The rows at these places that are messages of this session."""
        found: list[Row] = []
        table = self.layout.message_table
        for i in range(0, len(positions), BATCH_GET):
            keys = [self.layout.message_key(key, *place) for place in positions[i : i + BATCH_GET]]
            found += (yield batch_get({table: (keys, None)}))[table]
        return [row for row in found if decode(row, key, self.layout) is not None]

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        wanted = list(dict.fromkeys(ids))
        places = yield from self.positions(key, wanted)
        if not places:
            return []
        layout = self.layout
        found: list[Message | CorruptRecordError] = []
        record: Record | None = None
        step = BATCH_GET - 1  # and the session's record, so that an expired one stays hidden
        for i in range(0, len(places), step):
            keys = [layout.message_key(key, *place) for place in places[i : i + step]]
            rows = yield batch_get(
                {
                    layout.message_table: (keys, None),
                    layout.session_table: ([layout.session_key(key)], None),
                }
            )
            if i == 0:
                records = rows[layout.session_table]
                record = read(key, records[0].columns, layout) if records else None
                if not self.visible(record):
                    return []
            for row in rows[layout.message_table]:
                message = decode(row, key, layout)
                if message is not None:
                    found.append(message)
        return found


def _has_gap(ahead: Sequence[Row], from_start: bool) -> bool:
    """Whether the newest batch of the rows, oldest first, may lack one before its last.

    Args:
        from_start: whether nothing was cut off before the first row.
    """
    said = word(ahead[-1])
    if not said.batch or said.place < 0:
        return False
    expected = said.place
    for row in reversed(ahead):
        one = word(row)
        if one.batch != said.batch:
            return expected != -1
        if one.place != expected:
            return True
        expected -= 1
    return from_start and expected != -1


def _behind_gap(ahead: Sequence[Row], record: Record | None, whole: bool) -> set[Position]:
    """What stands behind the first gap of the batch that `record` says is on its way.

    Args:
        whole: whether the rows begin where the session does.
    """
    if record is None or record.intent is None:
        return set()
    there = [Position(*row.key[1:]) for row in ahead]
    seen = set(there)
    batch = record.intent.appended()
    missing = [
        place for place in batch
        if place not in seen and place < there[-1] and (whole or place > there[0])
    ]  # fmt: skip
    return {place for place in batch if missing and place > missing[0]}
