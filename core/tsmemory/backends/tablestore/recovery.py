"""Finishing what a commit began: the part of the protocol that outlives a crash.

See `tablestore` for the protocol. Here, `settle` brings the messages to what the session's record
says of its last commit, or the record to what there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tsmemory.backends.tablestore.layout import GONE, RESERVED, Layout
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import Record, columns_of, new_token, unchanged
from tsmemory.backends.tablestore.rows import Encoded, Word, stamped, tombstone, word
from tsmemory.backends.tablestore.sdk import (
    CHECK_FAILED,
    BatchWrite,
    PrimaryKey,
    Row,
    Write,
    get_range,
    put,
    remove,
    sdk,
    update,
    write,
)
from tsmemory.engine.records import Key, Position
from tsmemory.engine.steps import Steps
from tsmemory.model import Session

__all__ = ["BATCH_WRITE", "NO_RECORD", "Settler"]

BATCH_WRITE = 200
"""Rows of one BatchWriteRow (Tablestore, "Limits on the Wide Column model")."""
_MAX_WORD_PINS = 512
"""Characters of the places of instructions that a message's row repeats: some nine of them."""


class Settler:
    """Writes of sessions and messages that every commit shares.

    Args:
        ask: whether no row's word about its session may be trusted, because rows cannot be
            updated (tables with a time to live).
    """

    def __init__(self, layout: Layout, reader: Reader, *, ask: bool = False) -> None:
        self.layout = layout
        self.reader = reader
        self.ask = ask

    # -- writing -----------------------------------------------------------------------------

    def write_record(self, key: Key, old: Record | None, new: Record) -> Steps[Record | None]:
        """Make `new` the session's record if `old` still is.

        Returns:
            None where it is done; else the record that is there instead, `NO_RECORD` for none.
        """
        layout = self.layout
        columns = columns_of(new)
        table, place = layout.session_table, layout.session_key(key)
        where = None if old is None else unchanged(old.token)
        if layout.isolated:
            change = put(table, place, columns, exists=old is not None, where=where)
        else:  # others may have changed columns that we do not: touch only what differs
            native = old.native if old is not None else {}
            assert isinstance(new.session, Session)
            drop = [name for name in native if name not in new.session.metadata]
            columns = {
                name: value for name, value in columns.items()
                if name not in native or type(native[name]) is not type(value)
                or native[name] != value
            }  # fmt: skip
            change = update(table, place, columns, drop, exists=old is not None, where=where)
        try:
            yield write(change)
        except sdk.OTSServiceError as error:
            if error.code != CHECK_FAILED:
                raise
            # Perhaps the reply to an attempt that succeeded was lost.
            there = yield from self.reader.record(key)
            if there is not None and there.token == new.token:
                return None
            return there or NO_RECORD
        return None

    def word(self, record: Record, index: int) -> Word:
        """What a message's row says of a session with this record."""
        session = record.session
        assert isinstance(session, Session)
        pins, token = record.pins, record.token or ""
        many = pins is None or sum(len(pin.message_id) + 20 for pin in pins) > _MAX_WORD_PINS
        if self.ask or index < 0 or pins is None or many:
            something = session.expires_at is not None or pins != ()
            return Word(ask=something, batch=token, place=index)
        return Word(session.expires_at, pins, False, token, index)

    def message(
        self, key: Key, place: Position, encoded: Encoded, said: Word, over: Row | None = None
    ) -> Write:
        """A message's row: where there is none, or in the place of `over` as it was read."""
        user = None if self.layout.isolated else key.user_id
        where = None
        if over is not None:
            token = word(over).batch
            if token or RESERVED not in over.columns:  # what is broken is written over as it is
                where = unchanged(token or None, "b")
        return put(
            self.layout.message_table,
            self.layout.message_key(key, *place),
            encoded.finish(user, said),
            exists=over is not None,
            where=where,
        )

    def remove_rows(self, key: Key, places: Sequence[Position]) -> Steps[None]:
        """Remove messages, in the order of `places`."""
        for i in range(0, len(places), BATCH_WRITE):
            yield from self.remove_keys(
                [self.layout.message_key(key, *place) for place in places[i : i + BATCH_WRITE]]
            )

    def remove_keys(self, keys: Sequence[PrimaryKey]) -> Steps[None]:
        for i in range(0, len(keys), BATCH_WRITE):
            some = keys[i : i + BATCH_WRITE]
            yield BatchWrite([remove(self.layout.message_table, one) for one in some])

    # -- settling ----------------------------------------------------------------------------

    def settle(
        self, key: Key, record: Record, bodies: Mapping[str, Encoded], *, wait: bool = True
    ) -> Steps[Record | None]:
        """Finish the last commit of the session, or call off what is missing of it.

        Args:
            bodies: the messages of the caller's own commit: where they are what is missing, this
                is the retry of that commit, and they are written where they belong.
            wait: give another writer's batch time to arrive.

        Returns:
            The record as it is now; None where others changed it: read it again.
        """
        intent = record.intent
        if intent is None:
            return record
        missing = yield from self.reader.missing(key, record)
        over = set(intent.over)
        own = [place for place in missing if place.message_id in bodies and place not in over]
        if own:
            yield from self._finish(key, record, own, bodies)
            missing = yield from self.reader.missing(key, record)
        if missing and wait:
            missing = yield from self.reader.awaited(key, record)
        yield from self._fence(key, record, [place for place in missing if place in over])
        missing = [place for place in missing if place not in over]
        called_off: list[Position] = []
        if missing:
            called_off = yield from self._call_off(key, record, missing)
        lost = set(called_off)
        yield from self.remove_rows(
            key,
            [
                *(
                    Position(old, mid) for old, new, mid in intent.move
                    if Position(new, mid) not in lost
                ),
                *intent.delete,
            ],
        )  # fmt: skip
        if intent.through is not None:
            yield from self.remove_range(key, intent.through)
        if not (called_off or own or intent.held):
            self.reader.note(key, record.token)
            return record
        moved = {Position(new, mid) for _, new, mid in intent.move}
        assert isinstance(record.session, Session)
        left = record.session.message_count - len(lost - moved)
        settled = msgspec.structs.replace(
            record,
            # What could be read under the old version is not what there is now.
            session=msgspec.structs.replace(
                record.session, message_count=max(0, left), version=record.session.version + 1
            ),
            token=new_token(),
            gone=record.gone + len(lost),
            pins=None if moved & lost else _without(record.pins, lost),
            intent=None,
        )
        there = yield from self.write_record(key, record, settled)
        return settled if there is None else None

    def remove_range(self, key: Key, through: Position | None) -> Steps[tuple[int, set[Position]]]:
        """Remove every message of the session up to `through`, page by page, oldest first.

        Returns:
            How many there were, and all places found, those kept for nobody included.
        """
        removed = 0
        seen: set[Position] = set()
        start: PrimaryKey | None
        start, end = self.layout.through(key, through)
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=self.reader.bare_columns
            )
            mine = [row for row in rows if self.reader.is_mine(row, key)]
            removed += sum(GONE not in row.columns for row in mine)
            seen.update(Position(*row.key[1:]) for row in mine)
            yield from self.remove_rows(key, [Position(*row.key[1:]) for row in mine])
        return removed, seen

    def _finish(
        self, key: Key, record: Record, places: Sequence[Position], bodies: Mapping[str, Encoded]
    ) -> Steps[None]:
        assert record.intent is not None
        index = {place: i for i, place in enumerate(record.intent.appended())}
        changes = [
            self.message(
                key, place, bodies[place.message_id], self.word(record, index.get(place, -1))
            )
            for place in places
        ]  # fmt: skip
        for i in range(0, len(changes), BATCH_WRITE):
            yield BatchWrite(changes[i : i + BATCH_WRITE])

    def _fence(self, key: Key, record: Record, late: Sequence[Position]) -> Steps[None]:
        """Keep a late writer from writing over these messages: their rows are of another commit
        from now on, and its condition no longer holds."""
        changes = []
        for row in (yield from self.reader.at(key, late)):
            token = word(row).batch
            if not token or token == record.token:
                continue
            place = self.layout.message_key(key, *row.key[1:])
            columns = stamped(row, new_token())
            where = unchanged(token, "b")
            changes.append(put(self.layout.message_table, place, columns, exists=True, where=where))
        for i in range(0, len(changes), BATCH_WRITE):
            yield BatchWrite(changes[i : i + BATCH_WRITE])

    def _call_off(
        self, key: Key, record: Record, missing: Sequence[Position]
    ) -> Steps[list[Position]]:
        """Take the places of what is missing, and of what stands behind it in its batch: from now
        on its writer is refused there, and begins anew at the end."""
        assert record.intent is not None
        table = self.layout.message_table
        doomed = list(missing)
        appended = record.intent.appended()
        first = next((place for place in appended if place in set(missing)), None)
        if first is not None:
            behind = appended[appended.index(first) :]
            doomed = [*behind, *(place for place in doomed if place not in set(appended))]
        changes = [
            put(table, self.layout.message_key(key, *place), tombstone(), exists=False)
            for place in doomed
        ]
        refused = yield BatchWrite(changes)
        arrived = [doomed[i] for i in refused]
        if first is not None and first in arrived:
            still = yield from self.reader.missing(key, record)
            if first not in still:  # it came after all: see what of the batch is missing now
                kept = [place for place in doomed if place in still]
                return (yield from self._call_off(key, record, kept)) if kept else []
        # What came behind the gap was never shown; its writer writes it again.
        again = [place for place in arrived if place in appended]
        yield from self._overwrite(key, again)
        lost = set((yield from self.reader.missing(key, record)))
        return [place for place in doomed if place in lost]

    def _overwrite(self, key: Key, places: Sequence[Position]) -> Steps[None]:
        if not self.layout.isolated:  # another user's row may stand at the same place
            rows = yield from self.reader.at(key, places)
            places = [Position(*row.key[1:]) for row in rows]
        table = self.layout.message_table
        changes = [
            put(table, self.layout.message_key(key, *place), tombstone()) for place in places
        ]
        for i in range(0, len(changes), BATCH_WRITE):
            yield BatchWrite(changes[i : i + BATCH_WRITE])


def _without(pins: tuple[Position, ...] | None, lost: set[Position]) -> tuple[Position, ...] | None:
    return None if pins is None else tuple(pin for pin in pins if pin not in lost)


NO_RECORD = Record(session=Session(
    user_id="", session_id="", create_time=0, update_time=0, version=0, message_count=0
))  # fmt: skip
