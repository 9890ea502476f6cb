"""Commits to Tablestore. The protocol is in `tablestore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tsmemory.backends.tablestore.changes import (
    check_patch,
    parts,
    pins_after,
    place_of,
    says_something,
)
from tsmemory.backends.tablestore.erasing import Eraser
from tsmemory.backends.tablestore.layout import ASK
from tsmemory.backends.tablestore.reader import BATCH_GET, Reader, waiting_time
from tsmemory.backends.tablestore.records import (
    Intent,
    Record,
    native_of,
    new_token,
)
from tsmemory.backends.tablestore.recovery import NO_RECORD, Settler
from tsmemory.backends.tablestore.rows import Encoded, decode, encode, is_gone, word
from tsmemory.backends.tablestore.sdk import (
    MAX,
    MIN,
    BatchWrite,
    PrimaryKey,
    Row,
    batch_get,
    get_range,
    pause,
    update,
    write,
)
from tsmemory.backends.tablestore.session_cache import Knowledge, Known
from tsmemory.engine.commit import Head, Plan, plan, touched_ids
from tsmemory.engine.records import Change, Key, Outcome, Position
from tsmemory.engine.steps import Steps
from tsmemory.errors import (
    BackendError,
    ConflictError,
    CorruptRecordError,
    UnavailableError,
)
from tsmemory.model import Message, Session

__all__ = ["Writer"]

_ATTEMPTS = 200
"""How often a commit begins again when others write to the session in between."""


_AGAIN = Record(session=NO_RECORD.session)


class Writer:
    """Commits over one layout."""

    def __init__(self, reader: Reader, settler: Settler, eraser: Eraser) -> None:
        self.layout = reader.layout
        self.reader = reader
        self.settler = settler
        self.eraser = eraser
        self.known = Knowledge(reader)

    # -- commit ------------------------------------------------------------------------------

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        bodies = {m.message_id: encode(m, self.layout) for m in reversed(change.append)}
        bodies.update((m.message_id, encode(m, self.layout)) for m in change.put)
        if change.session is not None:
            check_patch(key, change)
        outcome: Outcome | None = None
        for part in parts(change, bodies):
            done = yield from self._commit(key, part, bodies, first=outcome is None)
            if outcome is not None:
                done = Outcome(
                    done.session, outcome.stored + done.stored, outcome.deleted + done.deleted
                )
            outcome = done
        assert outcome is not None
        return outcome

    def _commit(
        self, key: Key, change: Change, bodies: Mapping[str, Encoded], *, first: bool
    ) -> Steps[Outcome]:
        known = self.known.recall(key)
        stale: Known | None = None
        there: Record | None = None
        fresh = False
        for attempt in range(_ATTEMPTS):
            if known is None:
                known = yield from self._load(key, stale, bodies, there)
                there = None
                if known is None:
                    continue
                stale, fresh = None, True
            record = known.record
            if record is not None and isinstance(record.session, CorruptRecordError):
                raise record.session
            if record is not None and (record.deleting or not self.reader.visible(record)):
                if not fresh:
                    known = None
                    continue
                if plan(key, None, change, {}, self.reader.now()).changed:
                    yield from self.eraser.clean(key, record)
                    known = None
                    continue
                known = Known(None, set())
                record = None
            existing = yield from self.known.existing(key, known, touched_ids(change))
            through: list[Position] = []
            if change.delete_through is not None and record is not None:
                through = yield from self._through(key, change.delete_through)
            head = None
            if record is not None:
                assert isinstance(record.session, Session)
                head = Head(record.session, record.last_time)
            try:
                planned = plan(key, head, change, existing, self.reader.now(), len(through))
            except ConflictError:
                if fresh:
                    raise
                known = None
                continue
            if not planned.changed and not fresh:  # only a write proves what is remembered
                known = None
                continue
            if planned.changed:
                assert planned.head is not None
                if not first and head is not None:  # one commit in several requests: one version
                    session = planned.head.session
                    planned = planned._replace(
                        head=planned.head._replace(
                            session=msgspec.structs.replace(session, version=head.session.version)
                        )
                    )
                done = yield from self._apply(
                    key, known, change, planned, existing, through, bodies
                )
                if done is not None:
                    stale, known = known, None
                    if done is _AGAIN:
                        change = msgspec.structs.replace(change, if_version=None)
                    else:
                        there = done
                        if attempt:  # others are at it too: let them
                            yield pause(waiting_time(min(attempt, 4)))
                            there = None
                    continue
            elif record is not None:
                self.known.remember(key, known)
            stored = yield from self._stored(key, planned)
            session_now = planned.head.session if planned.head else None
            return Outcome(session_now, stored, len(planned.delete) + len(through))
        raise UnavailableError(
            f"session {key.session_id!r}: others wrote to it at each of {_ATTEMPTS} attempts"
        )

    def _load(
        self,
        key: Key,
        stale: Known | None,
        bodies: Mapping[str, Encoded],
        there: Record | None,
    ) -> Steps[Known | None]:
        """The session as it is, its last commit settled; None: begin again.

        Args:
            stale: what was known before others wrote.
            there: the record, where it was just read.
        """
        record = there
        if record is None or record is NO_RECORD:
            record = yield from self.reader.record(key)
        if record is None:
            return Known(None, set() if self.layout.isolated else None)
        if isinstance(record.session, CorruptRecordError) or record.deleting:
            return Known(record, None)
        if record.token is None:
            return Known((yield from self.reader.counted(key, record)), None)
        if not self.reader.visible(record):
            return Known(record, None)
        ids: set[str] | None = None
        came: set[str] = set()
        before = stale.record if stale is not None else None
        if (
            stale is not None
            and stale.ids is not None
            and before is not None
            and ((before.life, before.puts) == (record.life, record.puts))
        ):  # only appends came since, and those stand at the end
            came = yield from self.known.ids_after(key, before.last_time)
            ids = stale.ids | came
        settled: Record | None = record
        intent = record.intent
        if intent is not None and not (came.issuperset(intent.ids) and intent.only_appends()):
            settled = yield from self.settler.settle(key, record, bodies)
        if settled is None:
            return None
        if ids is not None and intent is not None:  # those that came while we waited
            ids.update(place.message_id for place in intent.inserted())
        if not self.layout.isolated:
            settled = yield from self._behind_others(key, settled)
        return Known(settled, ids)

    def _behind_others(self, key: Key, record: Record) -> Steps[Record]:
        """The record, its last time that of the newest message, whoever wrote it."""
        high, low = self.layout.message_key(key, MAX, MAX), self.layout.message_key(key, MIN, MIN)
        rows, _ = yield get_range(
            self.layout.message_table, high, low, backward=True, limit=1,
            columns=[self.layout.partition],
        )  # fmt: skip
        newest = rows[0].key[1] if rows else 0
        return msgspec.structs.replace(record, last_time=max(record.last_time, newest))

    def _through(self, key: Key, last: Position) -> Steps[list[Position]]:
        found = []
        start: PrimaryKey | None
        start, end = self.layout.through(key, last)
        while start is not None:
            rows, start = yield get_range(
                self.layout.message_table, start, end, columns=self.reader.bare_columns
            )
            found += [
                Position(*row.key[1:]) for row in rows
                if not is_gone(row) and self.reader.is_mine(row, key)
            ]  # fmt: skip
        return found

    def _stored(self, key: Key, planned: Plan) -> Steps[list[Message]]:
        repeated = [mid for mid in planned.stored if isinstance(mid, str)]
        there: dict[str, Message] = {}
        if repeated:
            for message in (yield from self.reader.get_messages(key, repeated)):
                if isinstance(message, CorruptRecordError):
                    raise message
                there[message.message_id] = message
        return [there[m] if isinstance(m, str) else m for m in planned.stored]

    # -- the two requests --------------------------------------------------------------------

    def _apply(
        self,
        key: Key,
        known: Known,
        change: Change,
        planned: Plan,
        existing: Mapping[str, Position],
        through: Sequence[Position],
        bodies: Mapping[str, Encoded],
    ) -> Steps[Record | None]:
        """Write what is planned. None: done. Else others were there first: the record as it is
        now, and nothing is done; or `_AGAIN`: what is left is to be planned anew."""
        old = known.record
        assert planned.head is not None
        appended_ids = {m.message_id for m in change.append}
        appended = [m for m in planned.insert if m.message_id in appended_ids]
        put_anew = [m for m in planned.insert if m.message_id not in appended_ids]
        moved = [m for m in planned.overwrite if existing[m.message_id] != place_of(m)]
        gone = [existing[mid] for mid in planned.delete]
        intent = Intent(
            first=appended[0].create_time or 0 if appended else 0,
            ids=tuple(m.message_id for m in appended),
            insert=tuple(map(place_of, put_anew)),
            move=tuple(
                (existing[m.message_id].create_time, m.create_time or 0, m.message_id)
                for m in moved
            ),
            delete=tuple(gone),
            through=change.delete_through if through else None,
            over=tuple(place_of(m) for m in planned.overwrite if m not in moved),
        )
        new = Record(
            session=planned.head.session,
            last_time=planned.head.last_time,
            token=new_token(),
            life=(old.life if old is not None else "") or new_token(),
            puts=(old.puts if old is not None else 0) + bool(put_anew or moved),
            gone=old.gone if old is not None else 0,
            pins=pins_after(old, planned, gone, existing, change.delete_through),
            intent=None if intent == Intent() else intent,
        )
        only_appends = (
            bool(appended)
            and len(appended) == len(planned.insert)
            and not (planned.overwrite or gone or through or change.session)
        )
        if old is not None and not only_appends and (says_something(old) or says_something(new)):
            yield from self._mark(
                key, {*gone, *(existing[m.message_id] for m in planned.overwrite)},
                change.delete_through,
            )  # fmt: skip
        over: dict[str, Row] = {}
        if intent.over:
            rows = yield from self.reader.at(key, intent.over)
            over = {row.key[2]: row for row in rows}
            if len(over) < len(intent.over):
                return NO_RECORD  # others removed one since it was looked up
        if old is not None:
            yield from self._make_room(key, old, intent.inserted()[len(appended) :])
        held = None
        if old is not None and not intent.only_inserts():
            # Whoever sees the new version must see what it changed: so that comes last.
            assert isinstance(old.session, Session)
            session = msgspec.structs.replace(planned.head.session, version=old.session.version)
            held = msgspec.structs.replace(
                new, session=session, intent=msgspec.structs.replace(intent, held=True)
            )
        first = held or new
        there = yield from self.settler.write_record(key, old, first)
        if there is not None:
            return there
        index = {place: i for i, place in enumerate(intent.appended())}
        places = [*intent.inserted(), *intent.over]
        if places:
            refused = yield BatchWrite(
                [
                    self.settler.message(
                        key, place, bodies[place.message_id],
                        self.settler.word(first, index.get(place, -1)), over.get(place.message_id),
                    )
                    for place in places
                ]
            )  # fmt: skip
            refused = [places[i] for i in refused]
            if refused and not (yield from self._arrived(key, first, refused)):
                yield from self.settler.settle(key, first, {}, wait=False)
                return _AGAIN if held is None else NO_RECORD
        yield from self.settler.remove_rows(
            key, [*(existing[m.message_id] for m in moved), *gone, *through]
        )
        if held is not None:
            new = msgspec.structs.replace(new, token=new_token(), intent=None)
            # Where somebody took over, the rest is done: nothing of it was refused.
            if (yield from self.settler.write_record(key, held, new)) is not None:
                return None
        if known.ids is None and old is None and self.layout.isolated:
            known.ids = set()
        if known.ids is not None:
            known.ids.update(m.message_id for m in planned.insert)
        known.record = msgspec.structs.replace(new, native=native_of(new), intent=None)
        self.reader.note(key, new.token)
        self.known.remember(key, known)
        return None

    def _make_room(self, key: Key, old: Record, places: Sequence[Position]) -> Steps[None]:
        """Free the places where messages are put from rows that only keep them.

        Raises:
            BackendError: another user's message stands there; the layout tells them apart by
                session id, time and id only.
        """
        if not places or (self.layout.isolated and not old.gone):
            return
        table = self.layout.message_table
        rows: list[Row] = []
        for i in range(0, len(places), BATCH_GET):
            keys = [self.layout.message_key(key, *place) for place in places[i : i + BATCH_GET]]
            rows += (yield batch_get({table: (keys, None)}))[table]
        for row in rows:
            if not is_gone(row) and decode(row, key, self.layout) is None:
                raise BackendError(
                    f"message {row.key[2]!r} at {row.key[1]} of session {key.session_id!r} is "
                    "another user's, and this layout cannot hold both; put it at another time"
                )
        yield from self.settler.remove_rows(
            key, [Position(*row.key[1:]) for row in rows if is_gone(row)]
        )

    def _arrived(self, key: Key, record: Record, places: Sequence[Position]) -> Steps[bool]:
        """Whether the rows at these places are those of this very commit, its reply lost."""
        rows = yield from self.reader.at(key, places)
        mine = [row for row in rows if word(row).batch == record.token]
        return len(mine) == len(places)

    def _mark(self, key: Key, going: set[Position], through: Position | None) -> Steps[None]:
        """Let readers of the newest message that stays ask the session."""
        if self.settler.ask:
            return
        table = self.layout.message_table
        start: PrimaryKey | None = self.layout.message_key(key, MAX, MAX)
        end = self.layout.message_key(key, MIN, MIN)
        while start is not None:
            rows, start = yield get_range(
                table, start, end, backward=True, limit=min(len(going) + 2, 1000)
            )
            for row in rows:
                place = Position(*row.key[1:])
                if through is not None and place <= through:
                    return
                if place in going or decode(row, key, self.layout) is None:
                    continue
                if not word(row).ask:
                    where = self.layout.message_key(key, *place)
                    yield write(update(table, where, {ASK: 1}))
                return
