"""Commits to Tablestore, and the protocol that keeps them in order.

A batch of rows is not atomic in Tablestore, and a condition covers one row only. So one row, the
session's *head*, decides. A commit is these steps:

1. **Load.** Read the head, unless this process wrote it last and remembers it. A last commit that
   is not finished is recovered first (`recovery`). Find out which of the ids are stored
   (`session_cache`), and read what is appended again, to compare it.
2. **Plan.** Pure: the new head, rows, overwrites, deletions (`tsmemory.engine.commit`).
3. **Reserve.** Write the head on the condition that its last commit is still the one that was read
   (a random token: no clock and no version can be mistaken for it). This moves the session's last
   time, count and version, and records what the commit is about to do to which rows: the *intent*.
   Times are reserved after the last one, so messages are in the order of these writes, whatever the
   writers' clocks say. Where the condition fails, another writer was first: back to step 1.
4. **Write.** The messages go to their reserved positions in one request, each on the condition that
   the position is free; the listing row of the session goes with them.
5. **Remove** what is deleted, and the old rows of what is moved.
6. **Conclude.** A commit that changes or removes messages defers the session's version: step 3
   leaves it as it was, and this step raises it. So whoever reads a version and then messages never
   decides on older messages than the version's. A commit of more than 8 messages confirms here that
   they arrived, so that the next writer need not count them.

An append to a warm session is steps 3 and 4: two requests. To a session that the process did not
write before, it is one read of the head with the newest positions (1), one lookup per id (1), and
steps 3 and 4.

**A lost reply.** The condition of a repeated request fails if the first one took effect; the row
that is there is read, and its token tells whose it is. Nothing is written twice.

**A crash between steps**, or a slow writer. Whoever loads the session next finds the intent and
looks for its rows. A retry of the same messages writes those missing to their reserved positions.
Any other writer gives them ``min(2 s, retry_for / 2)`` to arrive, then rolls back the first one
missing and all after it in its batch: tombstones take their positions, rows that may be overwritten
get another token, and the count is corrected. If their writer is alive after all, its condition
fails, and it appends what was rolled back again, at the end: nothing is lost or doubled, and a
batch is at worst continued later, in its own order. Deletions are carried out by whoever finds them
in the intent.

**Other writers of the session.** Those of this process take turns (`turns`), and appends that wait
are committed together. Between processes, a loser retries at once with what it just read, then
after pauses that grow with its losses; and a winner, who needs no reads, pauses after a few commits
in a row, so that none waits long. A rewrite (`Writer.rewrite`) that lost takes a *lease*: the
head asks other writers to wait, for `leases.LEASE_SECONDS` at most.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from tsmemory.backends.tablestore.attempt import Attempt, Knowledge, SupersededError, Tools
from tsmemory.backends.tablestore.changes import check_patch, parts
from tsmemory.backends.tablestore.erasing import Eraser
from tsmemory.backends.tablestore.heads import Tail
from tsmemory.backends.tablestore.leases import Leases
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import Record
from tsmemory.backends.tablestore.recovery import Recovery
from tsmemory.backends.tablestore.rows import Encoded, encode
from tsmemory.backends.tablestore.search import add_texts
from tsmemory.backends.tablestore.session_cache import CachedSession, SessionCache, moved_past
from tsmemory.backends.tablestore.turns import Turn
from tsmemory.engine.commit import commit
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import Change, Decide, Key, MessageQuery, Outcome, Position, Snapshot
from tsmemory.engine.steps import Pause, Steps
from tsmemory.errors import ConflictError, CorruptRecordError, TSMemoryError, UnavailableError

__all__ = ["Writer"]

_log = get_logger("tablestore")

CONTENTION_SECONDS = 60.0
"""How long a commit tries while others write to the session."""
_LONGEST_PAUSE = 0.25
"""Seconds. A loser pauses for as long as its attempt took, doubled per loss, up to 16 times that:
so what is patient enough follows the service's speed."""
_STREAK = 8
"""Commits after which a process lets others have a turn, if it met others lately."""
_CONTENDED_SECONDS = 1.0


class Writer:
    """Commits over one layout.

    Args:
        scope: names the tables, across every store of this process.
        owner: what commits are made with, compared by equality (`Turn`).
    """

    def __init__(
        self,
        scope: object,
        owner: Callable[[], object],
        reader: Reader,
        recovery: Recovery,
        eraser: Eraser,
    ) -> None:
        self.scope = scope
        self.owner = owner
        self.layout = reader.layout
        self.reader = reader
        self.recovery = recovery
        self.leases = Leases(reader, recovery)
        self.cache = SessionCache(reader)
        self.tools = Tools(reader, recovery, eraser, self.cache)

    # -- turns -------------------------------------------------------------------------------

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        encoded = self._encode(key, change)
        turn = Turn((self.scope, key), self.owner(), change, encoded)
        try:
            turn.join()
            yield turn.wait
            if turn.outcome is not None:
                return turn.outcome
            turn.gather_company()
            if turn.company:
                outcome = yield from self._commit_company(key, turn)
                if outcome is not None:
                    return outcome
            return (yield from self._commit_parts(key, change, encoded))
        finally:
            turn.leave()

    def _commit_company(self, key: Key, turn: Turn) -> Steps[Outcome | None]:
        """Commit the appends of several turns together; None: each has to be committed alone."""
        turns = [turn, *turn.company]
        assert turn.change is not None
        together = msgspec.structs.replace(
            turn.change,
            append=tuple(m for one in turns if one.change is not None for m in one.change.append),
        )
        encoded = {mid: row for one in turns for mid, row in one.encoded.items()}
        try:
            outcome = yield from self._commit_part(
                key, together, encoded, commits=len(turns), last=True
            )
        except (ConflictError, CorruptRecordError):
            turn.company.clear()
            return None
        stored = {message.message_id: message for message in outcome.stored}

        def of(one: Turn) -> Outcome:
            assert one.change is not None
            messages = [stored[m.message_id] for m in one.change.append]
            return Outcome(outcome.session, messages, 0)

        turn.finish_company(of)
        return of(turn)

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None) -> Steps[Outcome]:
        """Read, decide, commit on the condition that the version is still the same; after a loss,
        under a lease."""
        turn = Turn((self.scope, key), self.owner(), None, {})
        try:
            turn.join()
            yield turn.wait
            lease = ""
            deadline = time.monotonic() + CONTENTION_SECONDS
            for losses in itertools.count():
                try:
                    snapshot = yield from self._snapshot(key, ids)
                    change = decide(snapshot)
                except TSMemoryError:
                    yield from self.leases.release(key, lease)
                    raise
                if change is None:
                    yield from self.leases.release(key, lease)
                    return Outcome(snapshot.session, [], 0)
                version = snapshot.session.version if snapshot.session else 0
                change = msgspec.structs.replace(change, if_version=version)
                encoded = self._encode(key, change)
                try:
                    return (yield from self._commit_parts(key, change, encoded, lease))
                except ConflictError as error:
                    if error.expected is None or time.monotonic() > deadline:
                        raise
                    _log.info("session %s: a rewrite lost %d times", hashed(key), losses + 1)
                lease = yield from self._lease(key)
        finally:
            turn.leave()
        raise AssertionError("the loop ends by returning or raising")

    def _snapshot(self, key: Key, ids: Sequence[str] | None) -> Steps[Snapshot]:
        session = yield from self.reader.session(key)
        if isinstance(session, CorruptRecordError):
            raise session
        if ids is not None:
            return Snapshot(session, (yield from self.reader.get_messages(key, ids)))
        read = yield from self.reader.read(key, MessageQuery(limit=None))
        return Snapshot(session, read.rows)

    def _lease(self, key: Key) -> Steps[str]:
        """Ask other writers to wait; empty: the session is not there, or was not to be had."""
        for _ in range(20):
            tail = yield from self.reader.tail(key)
            record = yield from self._settled(key, tail, {}, "")
            if record is None or record.token is None or not self.reader.visible(record):
                return ""
            if lease := (yield from self.leases.take(key, record)):
                return lease
        return ""

    # -- commits -----------------------------------------------------------------------------

    def _encode(self, key: Key, change: Change) -> Mapping[str, Encoded]:
        """The rows of the messages, and every check that needs no I/O."""
        encoded = {m.message_id: encode(m, self.layout) for m in reversed(change.append)}
        encoded.update((m.message_id, encode(m, self.layout)) for m in change.put)
        if self.layout.search:
            add_texts(key, (*change.append, *change.put), encoded)
        if change.session is not None:
            check_patch(key, change)
        return encoded

    def _commit_parts(
        self, key: Key, change: Change, encoded: Mapping[str, Encoded], lease: str = ""
    ) -> Steps[Outcome]:
        """The change in as many rounds as requests of messages hold it, as one version."""
        whole: Outcome | None = None
        portions = list(parts(change, encoded))
        for i, part in enumerate(portions):
            outcome = yield from self._commit_part(
                key, part, encoded, commits=1 if whole is None else 0,
                last=i == len(portions) - 1, lease=lease,
            )  # fmt: skip
            if whole is not None:
                outcome = Outcome(
                    outcome.session, whole.stored + outcome.stored, whole.deleted + outcome.deleted
                )
            whole = outcome
        assert whole is not None
        return whole

    def _commit_part(
        self,
        key: Key,
        change: Change,
        encoded: Mapping[str, Encoded],
        *,
        commits: int,
        last: bool,
        lease: str = "",
    ) -> Steps[Outcome]:
        """Steps 1 to 6, from the start again until no other writer is first."""
        cached = self.cache.pop(key)
        knowledge = None
        if cached is not None:
            if not self.layout.isolated:
                yield from self.cache.follow_peers(key, cached)
            knowledge = Knowledge(cached, fresh=False)
            if cached.wins >= _STREAK and time.monotonic() < cached.contended_until:
                yield Pause(random.uniform(0.02, 0.06))
                cached.wins, knowledge = 0, None
        before: CachedSession | None = cached
        tail: Tail | None = None
        deadline = time.monotonic() + CONTENTION_SECONDS
        losses = 0
        while time.monotonic() < deadline:
            started = time.monotonic()
            if knowledge is None:
                knowledge = yield from self._load(key, before, encoded, tail, lease)
                tail = None
                if knowledge is None:
                    continue
            attempt = Attempt(
                self.tools, key, change, encoded, knowledge, commits=commits, last=last
            )
            try:
                outcome = yield from commit(
                    key, change, clock=self._clock(knowledge), load=attempt.load,
                    apply=attempt.apply, bodies={},
                )  # fmt: skip
            except ConflictError:
                if knowledge.fresh:
                    raise
            except SupersededError as superseded:
                if superseded.begun:
                    change = msgspec.structs.replace(change, if_version=None)
                losses += 1
                knowledge.cached.contended_until = time.monotonic() + _CONTENDED_SECONDS
                knowledge.cached.wins = 0
                took = time.monotonic() - started
                tail = yield from self._after_loss(key, superseded.tail, losses, took)
            else:
                if attempt.session is not None:
                    knowledge.cached.wins += 1
                    return outcome._replace(session=attempt.session)
                if knowledge.fresh:
                    if knowledge.cached.record is not None and not attempt.dead:
                        self.cache.put(key, knowledge.cached)
                    return outcome
            before, knowledge = knowledge.cached, None
        raise UnavailableError(
            f"session {key.session_id!r}: other writers were first {losses} times in "
            f"{CONTENTION_SECONDS:.0f} s"
        )

    def _clock(self, knowledge: Knowledge) -> Callable[[], int]:
        """In the shared layout, messages of others may be there without a session's head."""
        if knowledge.cached.record is not None or not knowledge.recent:
            return self.reader.now
        newest = max(position.create_time for position in knowledge.recent)
        return lambda: max(self.reader.now(), newest + 1)

    def _after_loss(
        self, key: Key, tail: Tail | None, losses: int, took: float
    ) -> Steps[Tail | None]:
        """How to go on after a loss: with what was just read, or after a pause (None)."""
        if losses in (20, 200, 2000):
            _log.warning("session %s: other writers were first %d times", hashed(key), losses)
        if tail is not None and losses == 1:
            return tail
        ceiling = min(took * 2 ** min(losses - 1, 4), _LONGEST_PAUSE)
        yield Pause(random.uniform(0.25, 1.0) * ceiling)
        return None

    # -- step 1 ------------------------------------------------------------------------------

    def _load(
        self,
        key: Key,
        before: CachedSession | None,
        encoded: Mapping[str, Encoded],
        tail: Tail | None,
        lease: str,
    ) -> Steps[Knowledge | None]:
        """Step 1: the session as it is, its last commit recovered; None: begin again.

        Args:
            before: what was known before others wrote.
            tail: the session, where it was just read.
        """
        if tail is None:
            tail = yield from self.reader.tail(key)
        record_found = tail.record
        if record_found is None and tail.positions and self.layout.isolated:
            raise self.reader.headless(key)
        if record_found is None:
            fresh = CachedSession(None, (), complete=self.layout.isolated)
            return Knowledge(fresh, tail.positions, fresh=True)
        unusable = isinstance(record_found.session, CorruptRecordError) or not self.reader.visible(
            record_found
        )
        if unusable:
            return Knowledge(CachedSession(record_found, (), complete=False), fresh=True)
        if record_found.token is None:
            counted = yield from self.reader.counted(key, record_found)
            return Knowledge(CachedSession(counted, (), complete=False), tail.positions, fresh=True)
        record = yield from self._settled(key, tail, encoded, lease)
        if record is None:
            return None
        cached = CachedSession(record, (), complete=False)
        if before is not None:
            cached.wins, cached.contended_until = before.wins, before.contended_until
        recent: Sequence[Position] = tail.positions
        old = before.record if before is not None else None
        if (
            before is not None
            and old is not None
            and self.layout.isolated
            and (old.incarnation, old.put_count) == (record.incarnation, record.put_count)
        ):  # only appends came since, and those are at the end
            ids = yield from self.cache.ids_since(key, old.last_time, tail)
            cached.ids = before.ids | ids
            cached.complete, cached.lookups = before.complete, before.lookups
        if record_found.intent is not None:
            cached.ids.update(position.message_id for position in record_found.intent.inserted())
        if not cached.complete:
            recent = yield from self.cache.recent(key, cached, tail)
            cached.ids.update(position.message_id for position in recent)
        if not self.layout.isolated:
            cached.record = moved_past(cached.record or record, tail.positions)
        return Knowledge(cached, recent, fresh=True)

    def _settled(
        self, key: Key, tail: Tail, encoded: Mapping[str, Encoded], lease: str
    ) -> Steps[Record | None]:
        """The head, its last commit finished or rolled back; None: it has changed."""
        record = tail.record
        if record is None:
            return None
        if record.lease and record.lease != lease:
            yield from self.leases.wait_for(key, record)
            return None
        intent = record.intent
        if intent is None:
            return record
        plain = intent.only_inserts() and not (intent.insert or intent.defers_version)
        if plain and set(tail.positions).issuperset(intent.appended()):
            return record
        return (yield from self.recovery.recover(key, record, encoded))
