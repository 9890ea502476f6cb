"""One attempt at a commit: steps 1 to 6 of the protocol in `writer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tsmemory.backends.tablestore.changes import instructions_after, intent_of
from tsmemory.backends.tablestore.erasing import Eraser
from tsmemory.backends.tablestore.heads import BATCH_GET, Tail
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import Intent, Record, native_columns, new_token
from tsmemory.backends.tablestore.recovery import Recovery
from tsmemory.backends.tablestore.rows import Encoded, decode, is_tombstone, token_of
from tsmemory.backends.tablestore.sdk import (
    BatchWrite,
    PrimaryKey,
    Row,
    Write,
    batch_get,
    get_range,
)
from tsmemory.backends.tablestore.session_cache import CachedSession, SessionCache
from tsmemory.engine.commit import Head, Loaded, Plan, touched_ids
from tsmemory.engine.records import Change, Key, Position
from tsmemory.engine.steps import Steps
from tsmemory.errors import BackendError, CorruptRecordError
from tsmemory.model import Message, Session

__all__ = ["Attempt", "Knowledge", "SupersededError", "Tools"]

_CONFIRMED_ROWS = 8
"""Commits of more rows are confirmed in the head, so that the next writer need not count them."""


class SupersededError(Exception):
    """Others changed the session first. Never leaves the writer.

    Args:
        tail: the session as it is now, where it was read.
        begun: whether the change was reserved before; its version has been compared then.
    """

    def __init__(self, tail: Tail | None = None, *, begun: bool = False) -> None:
        super().__init__("superseded")
        self.tail = tail
        self.begun = begun


class Tools:
    """The parts that every attempt uses."""

    def __init__(
        self, reader: Reader, recovery: Recovery, eraser: Eraser, cache: SessionCache
    ) -> None:
        self.reader, self.recovery, self.eraser, self.cache = reader, recovery, eraser, cache
        self.layout = reader.layout


class Knowledge:
    """What an attempt decides on.

    Args:
        cached: the session as this process knows it.
        recent: positions that an index may not show yet; only of a session just read.
        fresh: whether the session was just read. What is remembered proves nothing before a write
            on its condition has succeeded.
    """

    def __init__(
        self, cached: CachedSession, recent: Sequence[Position] = (), *, fresh: bool
    ) -> None:
        self.cached, self.recent, self.fresh = cached, recent, fresh


class Attempt:
    """Loads and applies one change, for `tsmemory.engine.commit.commit`.

    Args:
        commits: how many commits the change is made of; 0: it continues one.
        last: whether nothing of the commit follows.
    """

    def __init__(
        self,
        tools: Tools,
        key: Key,
        change: Change,
        encoded: Mapping[str, Encoded],
        knowledge: Knowledge,
        *,
        commits: int = 1,
        last: bool = True,
    ) -> None:
        self.tools, self.key, self.change, self.encoded = tools, key, change, encoded
        self.known, self.commits, self.last = knowledge, commits, last
        self.record = knowledge.cached.record
        self.dead = self.record is not None and not tools.reader.visible(self.record)
        self.positions: dict[str, Position] = {}
        self.through: list[Position] = []
        self.session: Session | None = None
        """As applied; None: nothing was."""

    # -- step 1 ------------------------------------------------------------------------------

    def load(self) -> Steps[Loaded]:
        """Step 1: what the change touches of the session."""
        record, reader = self.record, self.tools.reader
        if self.dead:
            return Loaded(None, {}, {})
        if record is not None and isinstance(record.session, CorruptRecordError):
            raise record.session
        positions = yield from self.tools.cache.locate(
            self.key, self.known.cached, touched_ids(self.change), self.known.recent
        )
        appended_ids = {message.message_id for message in self.change.append}
        appended: dict[str, Message | CorruptRecordError] = {}
        suspect = [
            position for mid, position in positions.items()
            if mid in appended_ids or not reader.layout.isolated
            or (record is not None and record.tombstone_count) or position in self.known.recent
        ]  # fmt: skip
        if suspect:
            present = {}
            for row in (yield from reader.at(self.key, suspect)):
                position = Position(*row.key[1:])
                message = decode(row, self.key, reader.layout)
                if message is not None:
                    present[position] = message
            positions = {
                mid: position for mid, position in positions.items()
                if position in present or position not in suspect
            }  # fmt: skip
            appended = {
                mid: present[position] for mid, position in positions.items() if mid in appended_ids
            }
        self.positions = positions
        if self.change.delete_through is not None and record is not None:
            self.through = yield from self._through(self.change.delete_through)
        head = None
        if record is not None:
            assert isinstance(record.session, Session)
            head = Head(record.session, record.last_time)
        others = {mid: p for mid, p in positions.items() if mid not in appended}
        return Loaded(head, appended, others, len(self.through))

    def _through(self, last: Position) -> Steps[list[Position]]:
        reader, positions = self.tools.reader, []
        start: PrimaryKey | None
        start, end = reader.layout.through(self.key, last)
        while start is not None:
            rows, start = yield get_range(
                reader.layout.message_table, start, end, columns=reader.bare_columns
            )
            positions += reader.positions_of(rows, self.key)
        return positions

    # -- steps 3 to 6 ------------------------------------------------------------------------

    def apply(self, planned: Plan, _: Mapping[str, bytes]) -> Steps[None]:
        """Steps 3 to 6: reserve, write, remove, conclude.

        Raises:
            SupersededError: others were first, and nothing is done; or what is left has to be
                planned again.
        """
        if self.dead:  # an expired session is removed before another one begins
            if self.known.fresh:
                yield from self.tools.eraser.clean(self.key, self.record)
            raise SupersededError
        intent = intent_of(self.change, planned, self.positions, self.through)
        new = self._new_head(planned, intent)
        overwritten = yield from self._overwritten(intent)
        yield from self._make_room(intent)
        reserved, listed = yield from self._reserve(new, intent)
        yield from self._write(reserved, new, intent, overwritten, listed=listed)
        yield from self._remove(planned, intent)
        head = yield from self._conclude(reserved, new, intent)
        self._remember(head, planned)

    def _new_head(self, planned: Plan, intent: Intent) -> Record:
        old = self.record
        assert planned.head is not None
        session = planned.head.session
        if self.commits != 1:
            before = planned.head.session.version - 1
            session = msgspec.structs.replace(session, version=max(before + self.commits, 1))
        return Record(
            session=session,
            last_time=planned.head.last_time,
            token=new_token(),
            sequence=max(old.sequence + 1 if old is not None else 0, self.tools.reader.now()),
            indexed_time=old.indexed_time if old is not None else 0,
            incarnation=(old.incarnation if old is not None else "") or new_token(),
            put_count=(old.put_count if old is not None else 0)
            + bool(intent.insert or intent.move),
            tombstone_count=old.tombstone_count if old is not None else 0,
            instruction_positions=instructions_after(old, planned, intent, self.positions),
            intent=None if intent == Intent() else intent,
        )

    def _overwritten(self, intent: Intent) -> Steps[dict[str, Row]]:
        """The rows that are overwritten where they are, as read."""
        if not intent.overwrites:
            return {}
        rows = yield from self.tools.reader.at(self.key, intent.overwrites)
        if len(rows) < len(intent.overwrites):
            raise SupersededError  # others removed one since it was looked up
        return {row.key[2]: row for row in rows}

    def _make_room(self, intent: Intent) -> Steps[None]:
        """Remove the tombstones from the positions where messages are put.

        Raises:
            BackendError: another user's message is there; the layout tells them apart by session
                id, time and message id only.
        """
        layout, key = self.tools.layout, self.key
        positions = intent.inserted()[len(intent.ids) :]
        if self.record is None or not positions:
            return
        if layout.isolated and not self.record.tombstone_count:
            return
        rows: list[Row] = []
        for i in range(0, len(positions), BATCH_GET):
            keys = [layout.message_key(key, *p) for p in positions[i : i + BATCH_GET]]
            rows += (yield batch_get({layout.message_table: (keys, None)}))[layout.message_table]
        for row in rows:
            if not is_tombstone(row) and decode(row, key, layout) is None:
                raise BackendError(
                    f"message {row.key[2]!r} at {row.key[1]} of session {key.session_id!r} belongs "
                    "to another user, and this layout cannot hold both; put it at another time"
                )
        yield from self.tools.recovery.remove_rows(
            key, [Position(*row.key[1:]) for row in rows if is_tombstone(row)]
        )

    def _reserve(self, new: Record, intent: Intent) -> Steps[tuple[Record, bool]]:
        """Step 3: the head as it is written first, and whether the listing row went with it."""
        recovery, old = self.tools.recovery, self.record
        reserved = new
        if old is not None and not intent.only_inserts():
            # Whoever sees the new version must see what it changed: so that comes last.
            assert isinstance(new.session, Session)
            assert isinstance(old.session, Session)
            reserved = msgspec.structs.replace(
                new,
                session=msgspec.structs.replace(new.session, version=old.session.version),
                intent=msgspec.structs.replace(intent, defers_version=True),
            )
        # A session that begins is listed from the same request on, and so is one that only changes
        # its description.
        listing = None
        if old is None or new.intent is None:
            listing = recovery.listing_write(self.key, old, reserved)
        company = [listing] if listing is not None else []
        tail = yield from recovery.write_head(self.key, old, reserved, company)
        if tail is not None:
            raise SupersededError(tail)
        return reserved, bool(company)

    def _write(
        self,
        reserved: Record,
        new: Record,
        intent: Intent,
        overwritten: Mapping[str, Row],
        *,
        listed: bool,
    ) -> Steps[None]:
        """Step 4: the messages, and the listing row where the commit ends with them."""
        recovery, token = self.tools.recovery, reserved.token or ""
        positions = [*intent.inserted(), *intent.overwrites]
        writes: list[Write] = [
            recovery.message_write(
                self.key, position, self.encoded[position.message_id], token,
                overwritten.get(position.message_id),
            )
            for position in positions
        ]  # fmt: skip
        if self.last and not listed and not self._concludes(reserved, new, intent):
            listing = recovery.listing_write(self.key, self.record, new)
            writes += [listing] if listing is not None else []
        if not writes:
            return
        refused_indexes = yield BatchWrite(writes)
        if len(positions) in refused_indexes:  # a newer one, or none: a whole row tells them apart
            whole = recovery.listing_write(self.key, None, new)
            yield BatchWrite([whole] if whole is not None else [])
        refused = [positions[i] for i in refused_indexes if i < len(positions)]
        if refused and not (yield from self._arrived(reserved, refused)):
            yield from recovery.recover(self.key, reserved, {}, wait=False)
            raise SupersededError(begun=reserved is new)

    def _arrived(self, record: Record, positions: Sequence[Position]) -> Steps[bool]:
        """Whether the rows at these positions are this very commit's, its reply lost."""
        rows = yield from self.tools.reader.at(self.key, positions)
        return sum(token_of(row) == record.token for row in rows) == len(positions)

    def _remove(self, planned: Plan, intent: Intent) -> Steps[None]:
        """Step 5: what is deleted, and the old rows of what is moved."""
        moved = [Position(old, mid) for old, _, mid in intent.move]
        yield from self.tools.recovery.remove_rows(
            self.key, [*moved, *intent.delete, *self.through]
        )

    def _conclude(self, reserved: Record, new: Record, intent: Intent) -> Steps[Record]:
        """Step 6: raise the version where it was deferred; confirm a commit of many rows."""
        recovery = self.tools.recovery
        if not self._concludes(reserved, new, intent):
            return new
        final = msgspec.structs.replace(
            new, token=new_token(), sequence=new.sequence + 1, intent=None
        )
        if self.commits == 0 and intent.ids:  # many messages at once: spare others the question
            newest = intent.appended()[-1]
            if (yield from self.tools.cache.is_indexed(self.key, newest)):
                final = msgspec.structs.replace(final, indexed_time=newest.create_time)
        listing = recovery.listing_write(self.key, self.record, final)
        company = [listing] if listing is not None else []
        tail = yield from recovery.write_head(self.key, reserved, final, company)
        # Where others took over, the rest is done: nothing of it was refused.
        return final if tail is None else msgspec.structs.replace(new, token="")

    def _concludes(self, reserved: Record, new: Record, intent: Intent) -> bool:
        """Whether there is a step 6."""
        return reserved is not new or (self.last and len(intent.inserted()) > _CONFIRMED_ROWS)

    def _remember(self, head: Record, planned: Plan) -> None:
        cached = self.known.cached
        if self.record is None and self.tools.layout.isolated:
            cached.complete = True
        cached.ids.update(message.message_id for message in planned.insert)
        session = head.session
        assert isinstance(session, Session)
        self.session = session
        cached.record = msgspec.structs.replace(
            head, raw_columns=native_columns(session), intent=None
        )
        self.tools.reader.note_whole(self.key, head.token)
        if head.token:  # else others have written since: the next commit reads the head
            self.tools.cache.put(self.key, cached)
