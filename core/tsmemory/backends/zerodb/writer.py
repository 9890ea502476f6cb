"""How a change reaches the table: drafts first, then one conditional update that makes them count.

The API has no transactions. It has an update by filter that reports how many rows it changed: an
update of the session's row on the condition of its version, which one of several writers wins. All
else is arranged around it so that a writer may end at any point, or its requests arrive late, or
twice.

1. Load the session and those of its messages that the change touches: one query. A session that
   this process wrote last is in the cache, with the ids of all its messages: an append of others
   needs no query, for the update of step 4 fails where another writer came between.
2. Settle what the last commits left (`rows.Pending`), before it would be lost or become long.
3. Add the new rows as drafts, under a commit id of this attempt.
4. Move the session's row to the next version, on the condition that it is at the one loaded.
   Where it is not, delete the drafts and start over.
5. Delete the rows that the commit removes.

A session begins without such a row to compete for, and inserts are not unique. So a beginner adds
its row as a draft, then looks: other drafts it deletes (on the condition that they still are
drafts), and where another's is kept it withdraws. Then it makes its own kept, on the condition that
it is still there. Of two beginners at least one sees the other, so never both succeed.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tsmemory.backends.zerodb import client as api
from tsmemory.backends.zerodb.rows import (
    SESSION_ROW,
    LoadedSession,
    Pending,
    SessionRow,
    encode_sortable,
    key_of,
    message_row,
    place_of,
    read_message,
    read_session,
    session_fields,
    visible,
)
from tsmemory.backends.zerodb.session_cache import CachedSession, SessionCache
from tsmemory.engine.commit import Loaded, Plan, touched_ids
from tsmemory.engine.commit import commit as commit_by_template
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import Change, Key, Outcome, Position
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, UnavailableError
from tsmemory.model import is_pinned

__all__ = ["commit", "delete_expired", "find", "settle"]

_log = get_logger("zerodb")
_ATTEMPTS = 200  # how often a commit begins again when others were faster
_IDS = 400  # of one filter: 1,000 rows an reply leave room for doubles
_BYTES = 4_000_000  # of the bodies of one insert; the vendor names no limit
_LONGEST_PAUSE = 0.25  # seconds between attempts
_KNOWN_IDS = 4_000  # of a session in the cache; about 100 bytes each
_PENDING = 32  # commits that a session's row may name before they are settled

Raw = dict[str, Any]


class _LostRaceError(Exception):
    """Another writer moved the session on first."""


def find(key: Key, ids: Sequence[str] = ()) -> Steps[tuple[LoadedSession | None, list[Raw]]]:
    """A session as it is, and those of its messages that are there by id: one request.

    Raises:
        CorruptRecordError: not even the backend's own fields of the session's row decode.
    """
    name = key_of(key)
    loaded: LoadedSession | None = None
    rows: list[Raw] = []
    encoded = [encode_sortable(mid) for mid in dict.fromkeys(ids)]
    for i in range(0, max(1, len(encoded)), _IDS):
        encoded_ids = ["", *encoded[i : i + _IDS]]
        condition: Any = {"$in": encoded_ids} if encoded else ""
        reply = yield api.query({"key": name, "message": condition})
        rows += [raw for raw in reply["rows"] if raw.get("message") != ""]
        if i == 0:
            loaded = kept_session(reply["rows"])
    return loaded, visible(loaded.row, rows) if loaded else []


def kept_session(raws: Sequence[Raw]) -> LoadedSession | None:
    """The session among these rows.

    Raises:
        CorruptRecordError: not even the backend's own fields of it decode.
    """
    for raw in raws:
        if raw.get("place") == SESSION_ROW and raw.get("state") == "kept":
            loaded = read_session(raw)
            if isinstance(loaded, CorruptRecordError):
                raise loaded
            return loaded
    return None


def commit(
    key: Key,
    change: Change,
    bodies: dict[str, bytes],
    clock: Callable[[], int],
    retry_for: float,
    cache: SessionCache,
) -> Steps[Outcome]:
    """Make a change, as `Backend.commit`."""
    cached = cache.pop(key)
    for attempt in range(_ATTEMPTS):
        if attempt:
            cached = None
            ceiling = min(_LONGEST_PAUSE, 0.005 * 2 ** min(attempt, 10))
            yield api.pause(random.uniform(0, ceiling))
            if attempt % 10 == 0:
                _log.info("session %s: %d attempts lost to other writers", hashed(key), attempt)
        writer = _Writer(key, change, bodies, clock, retry_for, cache, cached)
        try:
            return (
                yield from commit_by_template(
                    key, change, clock=clock, load=writer.load, apply=writer.apply, bodies=bodies
                )
            )
        except _LostRaceError:
            continue
    raise UnavailableError(
        f"others wrote to session {key.session_id!r} at every one of {_ATTEMPTS} attempts"
    )


def delete_expired(loaded: LoadedSession) -> Steps[bool]:
    """Delete an expired session, unless it has been written to since; whether it is deleted."""
    row = loaded.row
    incarnation = {"key": row.key, "token": row.token}
    reply = yield api.delete({**incarnation, "place": SESSION_ROW, "version": row.version})
    if not reply["deleted_count"]:
        reply = yield api.query({**incarnation, "place": SESSION_ROW}, limit=1)
        if reply["rows"]:
            return False
    yield api.delete(incarnation)
    return True


def settle(loaded: LoadedSession) -> Steps[None]:
    """Step 2: safe to do twice, or late."""
    row, pending = loaded.row, loaded.row.pending
    if pending.commits:
        drafts = {"key": row.key, "commit": {"$in": list(pending.commits)}, "state": "draft"}
        yield api.update(drafts, {"state": "kept"})
    yield from _remove(row.key, pending, row.version)


def _remove(key: str, pending: Pending, version: int) -> Steps[None]:
    # Only rows from before this version: a late request must not take what came back since.
    before = {"key": key, "version": {"$lt": version}}
    for i in range(0, len(pending.removed), _IDS):
        yield api.delete({**before, "message": {"$in": pending.removed[i : i + _IDS]}})
    if pending.through:
        yield api.delete({**before, "place": {"$lte": pending.through}})


class _Writer:
    """One attempt at a commit: ``load`` and ``apply`` of the template."""

    def __init__(
        self,
        key: Key,
        change: Change,
        bodies: dict[str, bytes],
        clock: Callable[[], int],
        retry_for: float,
        cache: SessionCache,
        cached: CachedSession | None,
    ) -> None:
        self._key, self._change, self._bodies = key, change, bodies
        self._clock, self._retry_for = clock, retry_for
        self._cache, self._cached = cache, cached
        self._name = key_of(key)
        self._session: LoadedSession | None = None
        self._ids: frozenset[str] | None = None
        self._settled = False

    # -- step 1 ------------------------------------------------------------------------------

    def load(self) -> Steps[Loaded]:
        """What the template decides on."""
        change = self._change
        rows: list[Raw] = []
        if not (yield from self._load_cached()):
            self._session, rows = yield from find(self._key, touched_ids(change))
        session = self._session
        if session is None:
            return Loaded(None, {}, {})
        if session.row.expired(self._clock()):
            yield from delete_expired(session)
            raise _LostRaceError
        through = 0
        if change.delete_through is not None:
            yield from self._settle(session)
            condition = {"key": self._name, "token": session.row.token, "state": "kept"}
            last = place_of(change.delete_through)
            reply = yield api.query({**condition, "place": {"$lte": last}}, limit=1)
            through = reply["total"]
        stored = {row.message_id or "": row for row in (read_message(self._key, r) for r in rows)}
        appended = {m.message_id for m in change.append}
        positions = {
            mid: Position(row.create_time or 0, mid)
            for mid, row in stored.items()
            if mid not in appended
        }
        appended_rows = {mid: row for mid, row in stored.items() if mid in appended}
        return Loaded(session.head(), appended_rows, positions, through)

    def _load_cached(self) -> Steps[bool]:
        """Whether the cache has what an append needs: the session, and that none is stored."""
        cached, change = self._cached, self._change
        if cached is None or change.put or change.delete or change.delete_through is not None:
            return False
        if change.if_version not in (None, cached.loaded.row.version):
            return False  # the caller may know better
        ids = cached.ids
        if ids is None and cached.loaded.row.count <= api.MAX_ROWS // 2:
            condition = {"key": self._name, "token": cached.loaded.row.token}
            reply = yield api.query(condition, projection={"message": 1})
            if reply["total"] <= api.MAX_ROWS:
                # Drafts of other writers among them do no harm: such an id is looked up.
                ids = frozenset(str(raw.get("message")) for raw in reply["rows"])
        if ids is None or any(encode_sortable(m.message_id) in ids for m in change.append):
            return False
        self._session, self._ids = cached.loaded, ids
        return True

    def _settle(self, session: LoadedSession) -> Steps[None]:
        if not self._settled:
            self._settled = True
            yield from settle(session)

    # -- steps 2 to 5 ------------------------------------------------------------------------

    def apply(self, plan: Plan, _: Mapping[str, bytes]) -> Steps[None]:
        """Write the plan.

        Raises:
            _LostRaceError: another writer was faster; nothing of this attempt counts.
        """
        session = self._session
        yield from (self._begin(plan) if session is None else self._advance(plan, session))

    def _advance(self, plan: Plan, session: LoadedSession) -> Steps[None]:
        """Move a session from one version to the next."""
        assert plan.head is not None  # a plan that changes something has one
        row = session.row
        messages = plan.insert + plan.overwrite
        removed = [*plan.delete, *(m.message_id for m in plan.overwrite)]
        through = self._change.delete_through
        pending = Pending(
            (), tuple(map(encode_sortable, removed)), place_of(through) if through else ""
        )
        if pending.removes or row.pending.removes or len(row.pending.commits) >= _PENDING:
            yield from self._settle(session)
        nonce = yield from self._insert(lambda commit: self._drafts(plan, commit, row.token))
        before = () if self._settled else row.pending.commits
        commits = (*before, nonce) if messages else before
        pending = msgspec.structs.replace(pending, commits=commits)
        pinned = row.pinned or any(is_pinned(m.role) for m in messages)
        fields = session_fields(plan.head, pinned, pending)
        # The record as it was read, so that one that was damaged since is not written over.
        here = {"key": row.key, "place": SESSION_ROW, "token": row.token, "version": row.version}
        changes = {name: value for name, value in fields.items() if value != getattr(row, name)}
        reply = yield api.update({**here, "body": row.body}, {**changes, "commit": nonce})
        if not reply["modified_count"]:
            # Another was faster, or this very update was sent again after a lost reply.
            mine = {"key": row.key, "place": SESSION_ROW, "commit": nonce}
            reply = yield api.query(mine)
            if not reply["rows"]:
                yield from self._withdraw(nonce)
                raise _LostRaceError
        yield from _remove(row.key, pending, plan.head.session.version)
        self._remember(plan, msgspec.to_builtins(row) | fields, pending)

    def _begin(self, plan: Plan) -> Steps[None]:
        """Begin a session."""
        head = plan.head
        assert head is not None  # a plan that changes something has one
        pinned = any(is_pinned(m.role) for m in plan.insert)
        row: Raw = {}

        def rows(nonce: str) -> list[Raw]:
            nonlocal row
            pending = Pending((nonce,)) if plan.insert else Pending()
            row = {
                "key": self._name,
                "user": encode_sortable(self._key.user_id),
                "message": "",
                "place": SESSION_ROW,
                "state": "draft",
                "commit": nonce,
                "token": nonce,
                **session_fields(head, pinned, pending),
            }
            return [row, *self._drafts(plan, nonce, nonce)]

        nonce = yield from self._insert(rows)
        here = {"key": self._name, "place": SESSION_ROW}
        reply = yield api.query(here)
        for raw in reply["rows"]:
            if raw.get("token") == nonce:
                continue
            rival = {**here, "token": raw.get("token"), "state": "draft"}
            reply = yield api.delete(rival)
            if not reply["deleted_count"]:
                yield from self._withdraw(nonce)
                raise _LostRaceError
        mine = {**here, "token": nonce}
        reply = yield api.update({**mine, "state": "draft"}, {"state": "kept"})
        if not reply["modified_count"]:
            reply = yield api.query({**mine, "state": "kept"})
            if not reply["rows"]:
                yield from self._withdraw(nonce)
                raise _LostRaceError
        self._ids = frozenset()
        self._remember(plan, {**row, "state": "kept"}, Pending())

    def _remember(self, plan: Plan, row: Raw, pending: Pending) -> None:
        """Put the session into the cache, as it is now."""
        assert plan.head is not None
        ids = self._ids
        if ids is not None:
            ids = ids.union(encode_sortable(m.message_id) for m in plan.insert)
            ids = None if len(ids) > _KNOWN_IDS else ids
        if not pending.removes:
            loaded = LoadedSession(msgspec.convert(row, SessionRow), plan.head.session)
            self._cache.put(self._key, CachedSession(loaded, ids))

    def _drafts(self, plan: Plan, nonce: str, token: str) -> list[Raw]:
        assert plan.head is not None
        version = plan.head.session.version
        return [
            message_row(self._key, message, self._bodies[message.message_id], nonce, token, version)
            for message in plan.insert + plan.overwrite
        ]

    def _withdraw(self, nonce: str) -> Steps[None]:
        yield api.delete({"key": self._name, "commit": nonce, "state": "draft"})

    def _insert(self, rows: Callable[[str], list[Raw]]) -> Steps[str]:
        """Add rows under a commit id, and give that id.

        Inserts are not idempotent. One whose reply was lost is not sent again: the rows go in under
        another id, and those that may be there under the first are drafts that no session names.
        """
        deadline = time.monotonic() + self._retry_for
        wait = 0.02
        while True:
            nonce = uuid.uuid4().hex
            try:
                for portion in _portions(rows(nonce)):
                    yield api.insert(portion)
                return nonce
            except api.UnsureError as error:
                remaining_seconds = deadline - time.monotonic()
                if remaining_seconds <= 0:
                    cause = error.__cause__
                    assert isinstance(cause, Exception)
                    classified = api.classify(cause).error
                    raise (classified or UnavailableError(str(cause))) from cause
                yield api.pause(min(remaining_seconds, random.uniform(wait / 2, wait)))
                wait = min(2 * wait, 1.0)
                yield from self._withdraw(nonce)


def _portions(rows: list[Raw]) -> Iterator[list[Raw]]:
    """The rows in requests that the service takes."""
    portion: list[Raw] = []
    size = 0
    for row in rows:
        if portion and (len(portion) == api.INSERT_ROWS or size + len(row["body"]) > _BYTES):
            yield portion
            portion, size = [], 0
        portion.append(row)
        size += len(row["body"])
    if portion:
        yield portion
