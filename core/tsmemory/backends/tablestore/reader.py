"""Reading sessions and messages from Tablestore.

Every read looks at the session's head: whether the session is there and has not expired, where its
instructions are, and what its last commit brings. In the isolated layout the head is the last row
of the session's partition, so a window is one backward range read. Of a commit that is under way
(step 4 of the protocol in `writer`), messages after the first one missing are hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

from tsmemory.backends.tablestore.filter import compiled
from tsmemory.backends.tablestore.heads import BATCH_GET, HeadReader, less
from tsmemory.backends.tablestore.layout import (
    HEAD_TIME,
    ROLE,
)
from tsmemory.backends.tablestore.records import Record
from tsmemory.backends.tablestore.rows import decode, is_tombstone
from tsmemory.backends.tablestore.sdk import (
    MAX,
    MIN,
    PrimaryKey,
    Row,
    any_of,
    batch_get,
    compare,
    gather,
    get_range,
)
from tsmemory.engine.records import Key, MessageQuery, Position, Read
from tsmemory.engine.rows import passes
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session, is_pinned

__all__ = ["FILTERED", "RANGE", "Reader"]

RANGE = 5000
"""Rows of one GetRange (Tablestore, "Limits on the Wide Column model")."""
FILTERED = 1000
"""Rows asked for at once where a filter decides: whether the service counts the rows that it reads
or those that pass is not documented, so with few it might take many requests."""
_INSTRUCTIONS = ("system", "developer")


class Reader(HeadReader):
    """The reading operations over one layout."""

    # -- messages ----------------------------------------------------------------------------

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        from_head = (
            self.layout.isolated and query.descending
            and query.after is None and query.created_to is None
        )  # fmt: skip
        record: Record | None = None
        if not from_head:
            record = yield from self.record(key)
            lost = (yield from self.lost_head(key)) if record is None else None
            if lost is not None:
                return Read([lost])
            if not self.visible(record):
                return _nothing(query)
        record, rows = yield from self._rows(key, query, record)
        if record is None and rows and self.layout.isolated:
            return Read([self.headless(key)])
        if not self.visible(record):
            return _nothing(query)
        hidden = _hidden(rows, record, query, isolated=self.layout.isolated)
        rows = [row for row in rows if Position(*row.key[1:]) not in hidden]
        messages: list[Message | CorruptRecordError] = []
        for row in rows:
            message = decode(row, key, self.layout)
            if message is not None and passes(message, query.where):
                messages.append(message)
        pinned: list[Message | CorruptRecordError] = []
        if query.pinned and query.descending and messages:
            positions = record.instruction_positions if record is not None else None
            oldest = Position(*rows[-1].key[1:])
            pinned = yield from self._pinned(key, positions, oldest)
        if not (query.total or query.session):
            return Read(messages, pinned)
        session = yield from self._snapshot(key, record, hidden)
        total = session.message_count if isinstance(session, Session) else len(messages)
        return Read(
            messages, pinned, total if query.total else None,
            session if query.session and record is not None else None,
        )  # fmt: skip

    def _snapshot(
        self, key: Key, record: Record | None, hidden: set[Position]
    ) -> Steps[Session | CorruptRecordError]:
        """The session, its count less what the commit under way has not shown yet."""
        if record is None:  # messages that others wrote without a session
            record = Record(session=Session(
                user_id=key.user_id, session_id=key.session_id, create_time=0, update_time=0,
                version=0, message_count=0,
            ))  # fmt: skip
        session = (yield from self.counted(key, record)).session
        return session if isinstance(session, CorruptRecordError) else less(session, len(hidden))

    def _rows(
        self, key: Key, query: MessageQuery, record: Record | None
    ) -> Steps[tuple[Record | None, list[Row]]]:
        """The head, where it is in the range, and the rows of the query's range in its direction,
        up to its limit of those that count."""
        start, end = self._bounds(key, query)
        condition = compiled(query.where, "message", foreign=not self.layout.isolated)
        rows_found: list[Row] = []
        skip = query.after if query.descending else None
        ask = query.limit
        if ask is not None:
            ask += (skip is not None) + self.layout.isolated
            if query.where is not None:
                ask = max(ask, FILTERED)
        following: PrimaryKey | None = start
        while following is not None:
            rows, following = yield get_range(
                self.layout.message_table, following, end, backward=query.descending,
                limit=None if ask is None or ask > RANGE else ask, condition=condition,
            )  # fmt: skip
            for row in rows:
                if row.key[1] == HEAD_TIME and self.layout.isolated:
                    record = self.head_of(key, row)
                    continue
                if is_tombstone(row) or (skip is not None and Position(*row.key[1:]) == skip):
                    continue
                if query.where is not None or not self.layout.isolated:
                    message = decode(row, key, self.layout)
                    if message is None or not passes(message, query.where):
                        continue
                rows_found.append(row)
                if query.limit is not None and len(rows_found) >= query.limit:
                    return record, rows_found
            if record is None and self.layout.isolated:
                break
        return record, rows_found

    def _bounds(self, key: Key, query: MessageQuery) -> tuple[PrimaryKey, PrimaryKey]:
        """Where the read begins, inclusive, and ends, exclusive."""
        layout = self.layout
        low = layout.message_key(key, MIN, MIN)
        high = layout.message_key(key, MAX, MAX) if query.descending else layout.after_messages(key)
        if query.created_from is not None:
            low = layout.message_key(key, query.created_from, MIN)
        if query.created_to is not None:
            high = layout.message_key(key, query.created_to, MAX)
        if query.after is None:
            return (high, low) if query.descending else (low, high)
        create_time, message_id = query.after
        if query.descending:
            if query.created_to is not None and create_time > query.created_to:
                return high, low
            return layout.message_key(key, create_time, message_id), low
        if query.created_from is None or create_time >= query.created_from:
            low = layout.message_key(key, create_time, message_id + "\0")  # the next possible key
        return low, high

    def _pinned(
        self, key: Key, positions: tuple[Position, ...] | None, oldest: Position
    ) -> Steps[list[Message | CorruptRecordError]]:
        """The instructions before `oldest`; `positions` None: look for them."""
        rows: list[Row] = []
        table = self.layout.message_table
        if positions is None:
            start: PrimaryKey | None = self.layout.message_key(key, MIN, MIN)
            end = self.layout.message_key(key, *oldest)
            role = any_of(*(compare(ROLE, "==", name) for name in _INSTRUCTIONS))
            while start is not None:
                page, start = yield get_range(table, start, end, condition=role)
                rows += page
        else:
            before = [position for position in positions if position < oldest]
            for i in range(0, len(before), BATCH_GET):
                keys = [self.layout.message_key(key, *p) for p in before[i : i + BATCH_GET]]
                rows += (yield batch_get({table: (keys, None)}))[table]
        rows.sort(key=lambda row: row.key)
        decoded = (decode(row, key, self.layout) for row in rows)
        return [
            message for message in decoded
            if isinstance(message, CorruptRecordError) or (message and is_pinned(message.role))
        ]  # fmt: skip

    # -- by id -------------------------------------------------------------------------------

    def positions(self, key: Key, ids: Sequence[str]) -> Steps[list[Position]]:
        """Where the index has rows of these ids: one request each, in parallel."""
        if not ids:
            return []
        index = self.layout.message_index
        ranges = [self.layout.id_range(key, mid) for mid in ids]
        replies = yield gather([get_range(index, start, end) for start, end in ranges])
        rows_found = []
        for (rows, start), (_, end) in zip(replies, ranges, strict=True):
            while start is not None:
                more, start = yield get_range(index, start, end)
                rows = [*rows, *more]
            rows_found += [Position(r.key[2], r.key[1]) for r in rows if r.key[2] != HEAD_TIME]
        return rows_found

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        positions = yield from self.positions(key, list(dict.fromkeys(ids)))
        if not positions:
            return []
        layout = self.layout
        messages: list[Message | CorruptRecordError] = []
        step = BATCH_GET - 1  # and the head, so that an expired session stays hidden
        for i in range(0, len(positions), step):
            keys = [layout.message_key(key, *p) for p in positions[i : i + step]]
            requests: dict[str, tuple[list[PrimaryKey], None]] = {
                layout.message_table: (keys, None)
            }
            if i == 0:
                heads, _ = requests.setdefault(layout.head_table, ([], None))
                heads.append(layout.head_key(key))
            rows = yield batch_get(requests)
            if i == 0:
                record = None
                for row in rows[layout.head_table]:
                    if not layout.isolated or row.key[1] == HEAD_TIME:
                        record = self.head_of(key, row)
                if not self.visible(record):
                    return []
            for row in rows[layout.message_table]:
                if layout.isolated and row.key[1] == HEAD_TIME:
                    continue
                message = decode(row, key, layout)
                if message is not None:
                    messages.append(message)
        return messages


def _nothing(query: MessageQuery) -> Read:
    return Read([], (), 0 if query.total else None)


def _hidden(
    rows: Sequence[Row], record: Record | None, query: MessageQuery, *, isolated: bool
) -> set[Position]:
    """The positions that a reader of `record` does not see: what later commits brought, and of the
    commit under way what is missing or comes after the first one missing."""
    if record is None:
        return set()
    ascending = rows[::-1] if query.descending else rows
    present = [Position(*row.key[1:]) for row in ascending]
    later: set[Position] = set()
    if isolated and isinstance(record.session, Session):
        later = {position for position in present if position.create_time > record.last_time}
    if record.intent is None or query.where is not None:
        return later
    # Only between these bounds does a position that was not read mean a missing message.
    full = query.limit is None or len(rows) < query.limit
    whole_start = query.created_from is None and (full if query.descending else query.after is None)
    whole_end = query.created_to is None and (query.after is None if query.descending else full)
    seen = set(present)
    batch = record.intent.appended()
    missing = [
        position for position in batch
        if position not in seen and (whole_start or (bool(present) and position > present[0]))
        and (whole_end or (bool(present) and position < present[-1]))
    ]  # fmt: skip
    if not missing:
        return later
    return later | {position for position in batch if position >= missing[0]}
