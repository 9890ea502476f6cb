"""Finishing or rolling back what a commit began: the part of the protocol that runs after a crash.

The protocol's steps are numbered in `writer`. `Recovery.recover` brings the messages to what the
head says of its last commit, or the head to what there is of the messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tsmemory.backends.tablestore.changes import BATCH_WRITE
from tsmemory.backends.tablestore.heads import Tail
from tsmemory.backends.tablestore.layout import (
    HEAD,
    INTENT,
    RESERVED,
    SEQUENCE,
    UPDATE_TIME,
    Layout,
)
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import (
    Record,
    head_columns,
    listing_columns,
    new_token,
    unchanged,
)
from tsmemory.backends.tablestore.rows import (
    Encoded,
    is_tombstone,
    token_of,
    tombstone,
    with_token,
)
from tsmemory.backends.tablestore.sdk import (
    CHECK_FAILED,
    BatchWrite,
    PrimaryKey,
    Row,
    Write,
    at_most,
    get_range,
    put,
    remove,
    sdk,
    update,
    write,
)
from tsmemory.engine.codec import encode_session
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import Key, Position
from tsmemory.engine.steps import Steps
from tsmemory.model import Session

__all__ = ["Recovery"]

_log = get_logger("tablestore")


class Recovery:
    """Writes that commits share, and recovery.

    Args:
        whole_rows: whether rows are only ever put whole, because the tables forbid UpdateRow (they
            have a time to live).
    """

    def __init__(self, layout: Layout, reader: Reader, *, whole_rows: bool = False) -> None:
        self.layout = layout
        self.reader = reader
        self.whole_rows = whole_rows

    # -- heads -------------------------------------------------------------------------------

    def write_head(
        self, key: Key, old: Record | None, new: Record, company: Sequence[Write] = ()
    ) -> Steps[Tail | None]:
        """Make `new` the session's head if `old` still is: step 3.

        Args:
            company: writes of other rows that may go with it, whichever way it ends.

        Returns:
            None where it is done; else the session as it is instead.
        """
        change = self.head_write(key, old, new)
        if company:
            if 0 not in (yield BatchWrite([change, *company])):
                return None
        else:
            try:
                yield write(change)
            except sdk.OTSServiceError as error:
                if error.code != CHECK_FAILED:
                    raise
            else:
                return None
        # Perhaps the reply to an attempt that succeeded was lost.
        tail = yield from self.reader.tail(key)
        if tail.record is not None and tail.record.token == new.token:
            return None
        return tail

    def head_write(self, key: Key, old: Record | None, new: Record) -> Write:
        """The write of a head: of the columns that differ from `old`, unless it is None."""
        layout = self.layout
        table, row_key = layout.head_table, layout.head_key(key)
        columns = head_columns(new, layout)
        if old is None:
            return put(table, row_key, columns, exists=False)
        where = unchanged(old.token, HEAD if layout.isolated else RESERVED)
        if self.whole_rows:
            return put(table, row_key, columns, exists=True, where=where)
        dropped: list[str] = []
        if old.token is None:  # a row of others: all of ours is missing
            changed = columns
        else:
            ours = (UPDATE_TIME, HEAD, RESERVED, INTENT)
            changed = {name: columns[name] for name in ours if name in columns}
            if not _same_description(old, new):
                changed = columns
                if not layout.isolated:  # touch only what differs: others change columns too
                    stored = old.raw_columns
                    dropped = [name for name in stored if name not in columns]
                    changed = {
                        name: value for name, value in columns.items()
                        if name not in stored or type(stored[name]) is not type(value)
                        or stored[name] != value
                    }  # fmt: skip
        return update(table, row_key, changed, dropped, exists=True, where=where)

    def listing_write(self, key: Key, old: Record | None, new: Record) -> Write | None:
        """The write of the listing row; None where the head is the listing row.

        A row that was written later stays. Where the description did not change, only what did is
        sent, to a row that is there.
        """
        layout = self.layout
        if not layout.isolated:
            return None
        columns = listing_columns(new, layout)
        table, row_key = layout.session_table, layout.session_key(key)
        where = at_most(SEQUENCE, new.sequence)
        if old is None or self.whole_rows or not _same_description(old, new):
            return put(table, row_key, columns, where=where)
        changed = {name: columns[name] for name in (UPDATE_TIME, RESERVED, SEQUENCE)}
        return update(table, row_key, changed, exists=True, where=where)

    # -- messages ----------------------------------------------------------------------------

    def message_write(
        self, key: Key, position: Position, encoded: Encoded, token: str, over: Row | None = None
    ) -> Write:
        """A message's row: where there is none, or in place of `over` as it was read."""
        where = None
        if over is not None:
            before = token_of(over)
            if before or RESERVED not in over.columns:  # what is broken is overwritten as it is
                where = unchanged(before or None, RESERVED)
        return put(
            self.layout.message_table,
            self.layout.message_key(key, *position),
            encoded.finish(None if self.layout.isolated else key.user_id, token),
            exists=over is not None,
            where=where,
        )

    def remove_rows(self, key: Key, positions: Sequence[Position]) -> Steps[None]:
        """Remove messages, in the order of `positions`."""
        yield from self.remove_keys([self.layout.message_key(key, *p) for p in positions])

    def remove_keys(self, keys: Sequence[PrimaryKey]) -> Steps[None]:
        for i in range(0, len(keys), BATCH_WRITE):
            batch = keys[i : i + BATCH_WRITE]
            yield BatchWrite([remove(self.layout.message_table, row_key) for row_key in batch])

    def remove_range(self, key: Key, through: Position | None) -> Steps[tuple[int, set[Position]]]:
        """Remove every message of the session up to `through`, page by page, oldest first.

        Returns:
            How many there were, and all positions found, tombstones included.
        """
        removed = 0
        seen: set[Position] = set()
        start: PrimaryKey | None
        start, end = self.layout.through(key, through)
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=self.reader.bare_columns
            )
            mine = self.reader.removable(rows, key)
            removed += sum(not is_tombstone(row) for row in mine)
            seen.update(Position(*row.key[1:]) for row in mine)
            yield from self.remove_rows(key, [Position(*row.key[1:]) for row in mine])
        return removed, seen

    # -- recovery ----------------------------------------------------------------------------

    def recover(
        self, key: Key, record: Record, encoded: Mapping[str, Encoded], *, wait: bool = True
    ) -> Steps[Record | None]:
        """Finish the last commit of the session, or roll back what is missing of it.

        Args:
            encoded: the messages of the caller's own commit: where they are what is missing, this
                is the retry of that commit, and they are written where they belong.
            wait: give another writer's messages time to arrive.

        Returns:
            The head as it is now; None where others changed it: read it again.
        """
        intent = record.intent
        if intent is None:
            return record
        missing = yield from self.reader.missing(key, record)
        overwrites = set(intent.overwrites)
        own = [p for p in missing if p.message_id in encoded and p not in overwrites]
        if own:
            _log.info("session %s: an unfinished commit is finished by its retry", hashed(key))
            yield from self._finish(key, record, own, encoded)
            missing = yield from self.reader.missing(key, record)
        if missing and wait:
            missing = yield from self.reader.awaited(key, record)
        yield from self._invalidate(key, record, [p for p in missing if p in overwrites])
        missing = [position for position in missing if position not in overwrites]
        lost: set[Position] = set()
        if missing:
            lost = set((yield from self._roll_back(key, record, missing)))
            _log.warning(
                "session %s: %d messages of an unfinished commit are rolled back",
                hashed(key), len(lost),
            )  # fmt: skip
        replaced = [
            Position(old, mid) for old, new, mid in intent.move if Position(new, mid) not in lost
        ]
        yield from self.remove_rows(key, [*replaced, *intent.delete])
        if intent.delete_through is not None:
            yield from self.remove_range(key, intent.delete_through)
        if not (lost or own or intent.defers_version):
            self.reader.note_whole(key, record.token)
            return record
        return (yield from self._record_recovery(key, record, lost))

    def _record_recovery(
        self, key: Key, record: Record, lost: set[Position]
    ) -> Steps[Record | None]:
        """Write the head that says what there is, and the listing row with it."""
        assert record.intent is not None
        moved = {Position(new, mid) for _, new, mid in record.intent.move}
        assert isinstance(record.session, Session)
        message_count = record.session.message_count - len(lost - moved)
        instructions = record.instruction_positions
        if instructions is not None:
            instructions = tuple(p for p in instructions if p not in lost)
        recovered = msgspec.structs.replace(
            record,
            # What could be read under the old version is not what there is now.
            session=msgspec.structs.replace(
                record.session,
                message_count=max(0, message_count),
                version=record.session.version + 1,
            ),
            token=new_token(),
            sequence=record.sequence + 1,
            tombstone_count=record.tombstone_count + len(lost),
            instruction_positions=None if moved & lost else instructions,
            intent=None,
        )
        listing = self.listing_write(key, None, recovered)
        tail = yield from self.write_head(
            key, record, recovered, [listing] if listing is not None else []
        )
        return recovered if tail is None else None

    def _finish(
        self,
        key: Key,
        record: Record,
        positions: Sequence[Position],
        encoded: Mapping[str, Encoded],
    ) -> Steps[None]:
        token = record.token or ""
        yield from self._write_all(
            [self.message_write(key, p, encoded[p.message_id], token) for p in positions]
        )

    def _write_all(self, changes: Sequence[Write]) -> Steps[None]:
        for i in range(0, len(changes), BATCH_WRITE):
            yield BatchWrite(changes[i : i + BATCH_WRITE])

    def _invalidate(self, key: Key, record: Record, late: Sequence[Position]) -> Steps[None]:
        """Keep a late writer from overwriting these messages: their rows are of another commit from
        now on, and its condition no longer holds."""
        changes = []
        for row in (yield from self.reader.at(key, late)):
            token = token_of(row)
            if not token or token == record.token:
                continue
            row_key = self.layout.message_key(key, *row.key[1:])
            where = unchanged(token, RESERVED)
            columns = with_token(row, new_token())
            changes.append(
                put(self.layout.message_table, row_key, columns, exists=True, where=where)
            )
        yield from self._write_all(changes)

    def _roll_back(
        self, key: Key, record: Record, missing: Sequence[Position]
    ) -> Steps[list[Position]]:
        """Put tombstones where messages are missing, and where those after the first one missing
        are: from now on their writer is refused there, and appends them again at the end.

        Returns:
            The positions that hold no message now.
        """
        assert record.intent is not None
        table = self.layout.message_table
        doomed = list(missing)
        appended = record.intent.appended()
        absent = set(missing)
        first = next((position for position in appended if position in absent), None)
        if first is not None:
            unfinished = appended[appended.index(first) :]
            doomed = [
                *unfinished,
                *(position for position in doomed if position not in set(appended)),
            ]
        refused = yield BatchWrite(
            [
                put(table, self.layout.message_key(key, *p), tombstone(), exists=False)
                for p in doomed
            ]
        )
        arrived = [doomed[i] for i in refused]
        if first is not None and first in arrived:
            still = yield from self.reader.missing(key, record)
            if first not in still:  # it came after all: see what of the batch is missing now
                remaining = [position for position in doomed if position in still]
                return (yield from self._roll_back(key, record, remaining)) if remaining else []
        # What came after the gap was never shown; its writer writes it again.
        yield from self._overwrite(key, [p for p in arrived if p in set(appended)])
        lost = set((yield from self.reader.missing(key, record)))
        return [position for position in doomed if position in lost]

    def _overwrite(self, key: Key, positions: Sequence[Position]) -> Steps[None]:
        if not self.layout.isolated:  # another user's row may be at the same position
            rows = yield from self.reader.at(key, positions)
            positions = [Position(*row.key[1:]) for row in rows]
        table = self.layout.message_table
        yield from self._write_all(
            [put(table, self.layout.message_key(key, *p), tombstone()) for p in positions]
        )


def _same_description(old: Record, new: Record) -> bool:
    before, after = old.session, new.session
    assert isinstance(after, Session)
    if not isinstance(before, Session):
        return False
    if (before.title, before.summary) != (after.title, after.summary):
        return False
    # By its encoded form: 1, 1.0 and True are equal.
    return before.metadata is after.metadata or encode_session(before) == encode_session(after)
