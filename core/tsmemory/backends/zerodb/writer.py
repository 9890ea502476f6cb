"""How a change reaches the table: drafts first, then one conditional update that makes them count.

The API has no transactions. It has ``PUT …/rows`` with a filter, an update, and the count of the
rows that it changed: an update of the session's row on the condition of its version, which one of
several writers wins. All else is arranged around it so that a writer may end at any point, or its
requests arrive late, or twice.

A session begins without such a row to compete for, and inserts are not unique. So a beginner adds
its row as a draft, then looks: other drafts it deletes (on the condition that they still are
drafts), and where another's is kept it withdraws. Then it makes its own kept, on the condition that
it is still there. Of two beginners at least one sees the other, so never both succeed.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tsmemory.backends.zerodb import client as api
from tsmemory.backends.zerodb.rows import (
    TOP,
    Found,
    Pending,
    key_of,
    message_row,
    place_of,
    read_message,
    read_session,
    session_fields,
    spell,
    visible,
)
from tsmemory.engine.commit import Plan, plan, touched_ids
from tsmemory.engine.records import Change, Key, Outcome, Position
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, UnavailableError
from tsmemory.model import Message, is_pinned

__all__ = ["begin_anew", "commit", "find"]

_ATTEMPTS = 200  # how often a commit begins again when others were faster
_IDS = 400  # of one filter: 1,000 rows an answer leave room for doubles
_BYTES = 4_000_000  # of the bodies of one insert; the vendor names no limit
_LONGEST_PAUSE = 0.25  # seconds between attempts

Raw = dict[str, Any]


def find(key: Key, ids: Sequence[str] = ()) -> Steps[tuple[Found | None, list[Raw]]]:
    """A session as it is, and those of its messages that are there by id: one request.

    Raises:
        CorruptRecordError: not even the engine's own fields of the session's row decode.
    """
    name = key_of(key)
    found: Found | None = None
    rows: list[Raw] = []
    spelled = [spell(mid) for mid in dict.fromkeys(ids)]
    for i in range(0, max(1, len(spelled)), _IDS):
        wanted = ["", *spelled[i : i + _IDS]]
        condition: Any = {"$in": wanted} if spelled else ""
        answer = yield api.query({"key": name, "message": condition})
        rows += [raw for raw in answer["rows"] if raw.get("message") != ""]
        if i == 0:
            found = kept_session(answer["rows"])
    return found, visible(found.row, rows) if found else []


def kept_session(raws: Sequence[Raw]) -> Found | None:
    """The session among these rows.

    Raises:
        CorruptRecordError: not even the engine's own fields of it decode.
    """
    for raw in raws:
        if raw.get("place") == TOP and raw.get("state") == "kept":
            found = read_session(raw)
            if isinstance(found, CorruptRecordError):
                raise found
            return found
    return None


def commit(
    key: Key,
    change: Change,
    encoded: dict[str, bytes],
    clock: Callable[[], int],
    retry_for: float,
) -> Steps[Outcome]:
    """Make a change, as `Backend.commit`."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            ceiling = min(_LONGEST_PAUSE, 0.005 * 2 ** min(attempt, 10))
            yield api.pause(random.uniform(0, ceiling))
        found, rows = yield from find(key, touched_ids(change))
        now = clock()
        if found and found.row.expired(now):
            yield from begin_anew(found)
            continue
        through = 0
        if found and change.delete_through is not None:
            through = yield from _settle_and_count(found, change.delete_through)
        existing = {}
        for raw in rows:
            there = read_message(key, raw)
            mid = there.message_id or ""
            existing[mid] = Position(there.create_time or 0, mid)
        head = found.head() if found else None
        planned = plan(key, head, change, existing, now, through)
        if planned.changed:
            writer = _Writer(key, change, planned, encoded, retry_for)
            won = yield from (writer.advance(found) if found else writer.begin())
            if not won:
                continue
        session = planned.head.session if planned.head else None
        stored = [_stored(key, one, rows) for one in planned.stored]
        return Outcome(session, stored, len(planned.delete) + through)
    raise UnavailableError(
        f"others wrote to session {key.session_id!r} at every one of {_ATTEMPTS} attempts"
    )


def _stored(key: Key, planned: Message | str, rows: list[Raw]) -> Message:
    if isinstance(planned, Message):
        return planned
    raw = next(raw for raw in rows if raw.get("message") == spell(planned))
    message = read_message(key, raw)
    if isinstance(message, CorruptRecordError):
        raise message
    return message


def begin_anew(found: Found) -> Steps[bool]:
    """Remove an expired session, unless it has been written to since; whether it went."""
    row = found.row
    life = {"key": row.key, "token": row.token}
    answer = yield api.delete({**life, "place": TOP, "v": row.v})
    if not answer["deleted_count"]:
        answer = yield api.query({**life, "place": TOP}, limit=1)
        if answer["rows"]:
            return False
    yield api.delete(life)
    return True


def _settle(found: Found) -> Steps[None]:
    """Finish what the last commit left: safe to do twice, or late."""
    row, pending = found.row, found.row.pending
    if pending.commit:
        drafts = {"key": row.key, "commit": pending.commit, "state": "draft"}
        yield api.update(drafts, {"state": "kept"})
    yield from _remove(row.key, pending, row.v)


def _settle_and_count(found: Found, last: Position) -> Steps[int]:
    """How many messages stand up to a position, once nothing is pending."""
    yield from _settle(found)
    row = found.row
    condition = {"key": row.key, "token": row.token, "state": "kept"}
    answer = yield api.query({**condition, "place": {"$lte": place_of(last)}}, limit=1)
    return int(answer["total"])


def _remove(key: str, pending: Pending, version: int) -> Steps[None]:
    # Only rows from before this version: a late request must not take what came back since.
    before = {"key": key, "v": {"$lt": version}}
    for i in range(0, len(pending.gone), _IDS):
        yield api.delete({**before, "message": {"$in": pending.gone[i : i + _IDS]}})
    if pending.through:
        yield api.delete({**before, "place": {"$lte": pending.through}})


class _Writer:
    """One attempt at a commit."""

    def __init__(
        self,
        key: Key,
        change: Change,
        planned: Plan,
        encoded: dict[str, bytes],
        retry_for: float,
    ) -> None:
        assert planned.head is not None  # a plan that changes something has one
        self._key = key
        self._name = key_of(key)
        self._head = planned.head
        self._encoded = encoded
        self._retry_for = retry_for
        self._messages = planned.insert + planned.overwrite
        self._pinned = any(is_pinned(m.role) for m in self._messages)
        self._through = place_of(change.delete_through) if change.delete_through else ""
        leaving = [*planned.delete, *(m.message_id for m in planned.overwrite)]
        self._gone = tuple(spell(mid) for mid in leaving)

    def _pending(self, nonce: str) -> Pending:
        return Pending(nonce if self._messages else "", self._gone, self._through)

    def _drafts(self, nonce: str, token: str) -> list[Raw]:
        return [
            message_row(
                self._key,
                message,
                self._encoded[message.message_id],
                nonce,
                token,
                self._head.session.version,
            )
            for message in self._messages
        ]

    def advance(self, found: Found) -> Steps[bool]:
        """Move a session from one version to the next; False where another was faster."""
        row = found.row
        yield from _settle(found)
        nonce = yield from self._insert(lambda commit: self._drafts(commit, row.token))
        pending = self._pending(nonce)
        fields = session_fields(self._head, row.pinned or self._pinned, pending)
        here = {"key": row.key, "place": TOP, "token": row.token, "v": row.v}
        answer = yield api.update(here, {**fields, "commit": nonce})
        if not answer["modified_count"]:
            # Another was faster, or this very update was sent again after a lost reply.
            answer = yield api.query({"key": row.key, "place": TOP, "commit": nonce})
            if not answer["rows"]:
                yield from self._withdraw(nonce)
                return False
        yield from _remove(row.key, pending, self._head.session.version)
        return True

    def begin(self) -> Steps[bool]:
        """Begin a session; False where another was faster."""
        nonce = yield from self._insert(
            lambda commit: [self._row(commit), *self._drafts(commit, commit)]
        )
        mine = {"key": self._name, "place": TOP, "token": nonce}
        answer = yield api.query({"key": self._name, "place": TOP})
        for raw in answer["rows"]:
            if raw.get("token") == nonce:
                continue
            rival = {"key": self._name, "place": TOP, "token": raw.get("token"), "state": "draft"}
            gone = yield api.delete(rival)
            if not gone["deleted_count"]:
                yield from self._withdraw(nonce)
                return False
        answer = yield api.update({**mine, "state": "draft"}, {"state": "kept"})
        if not answer["modified_count"]:
            answer = yield api.query({**mine, "state": "kept"})
            if not answer["rows"]:
                yield from self._withdraw(nonce)
                return False
        return True

    def _row(self, nonce: str) -> Raw:
        return {
            "key": self._name,
            "user": spell(self._key.user_id),
            "message": "",
            "place": TOP,
            "state": "draft",
            "commit": nonce,
            "token": nonce,
            **session_fields(self._head, self._pinned, self._pending(nonce)),
        }

    def _withdraw(self, nonce: str) -> Steps[None]:
        yield api.delete({"key": self._name, "commit": nonce, "state": "draft"})

    def _insert(self, rows: Callable[[str], list[Raw]]) -> Steps[str]:
        """Add rows under a commit id, and give that id.

        Inserts are not idempotent. One whose reply was lost is not sent again: the rows go in under
        another id, and those that may be there under the first are drafts that nobody names.
        """
        deadline = time.monotonic() + self._retry_for
        wait = 0.02
        while True:
            nonce = uuid.uuid4().hex
            try:
                for chunk in _chunks(rows(nonce)):
                    yield api.insert(chunk)
                return nonce
            except api.UnsureError as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    cause = error.__cause__
                    assert isinstance(cause, Exception)
                    verdict = api.classify(cause).error
                    raise (verdict or UnavailableError(str(cause))) from cause
                yield api.pause(min(left, random.uniform(wait / 2, wait)))
                wait = min(2 * wait, 1.0)
                yield from self._withdraw(nonce)


def _chunks(rows: list[Raw]) -> Iterator[list[Raw]]:
    """The rows in requests that the service takes."""
    chunk: list[Raw] = []
    size = 0
    for row in rows:
        if chunk and (len(chunk) == api.MAX_ROWS or size + len(row["body"]) > _BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += len(row["body"])
    if chunk:
        yield chunk
