"""The records that a `Store` and its backend exchange: keys, queries, changes and their outcomes.

Times are integers: microseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from tsmemory.errors import CorruptRecordError
from tsmemory.filters import Filter
from tsmemory.model import Message, Session

__all__ = [
    "UNSET", "Capabilities", "Change", "Decide", "Finding", "Key", "MessageQuery", "Outcome",
    "Position", "Read", "SessionPatch", "SessionQuery", "Snapshot", "Unset",
]  # fmt: skip

UNSET = msgspec.UNSET
Unset: TypeAlias = msgspec.UnsetType


class Key(NamedTuple):
    user_id: str
    session_id: str


class Position(NamedTuple):
    """Where a message stands in its session."""

    create_time: int
    message_id: str


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    atomic: bool = True
    """A commit is seen whole or not at all, and a crash cannot leave a part of it."""
    max_message_bytes: int | None = None
    """The largest encoded message; None where only memory bounds it."""


class MessageQuery(msgspec.Struct, frozen=True, kw_only=True):
    limit: int | None
    descending: bool = False
    after: Position | None = None
    """Exclusive, in reading direction: only what comes after this position."""
    created_from: int | None = None
    created_to: int | None = None
    """Both inclusive, µs."""
    where: Filter | None = None
    pinned: bool = False
    """Also give the system and developer messages that stand before the rows (descending only)."""
    total: bool = False
    """Also give how many messages the session holds, from the same snapshot."""
    session: bool = False
    """Also give the session's record, from the same snapshot where the backend has one."""
    until: Callable[[Message], bool] | None = None
    """Descending only: the read may end with the first message that this accepts, from the
    `least`-th row on, and says so (`Read.more`). For backends that take rows one by one: the others
    give up to `limit`."""
    least: int = 0


class Read(NamedTuple):
    rows: list[Message | CorruptRecordError]
    """In the direction of the query."""
    pinned: Sequence[Message | CorruptRecordError] = ()
    """In order, oldest first, all before the oldest of `rows`."""
    total: int | None = None
    """Where the query asks for it: messages in the session, whatever the query lets through."""
    session: Session | CorruptRecordError | None = None
    """Where the query asks for it; None where there is no session."""
    more: bool = False
    """The rows end before `MessageQuery.limit`, where `MessageQuery.until` accepted one."""


class SessionQuery(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str | None
    """None for every user's."""
    limit: int | None
    descending: bool = True
    after: tuple[int, str, str] | None = None
    """Exclusive, in reading direction: (update_time, user_id, session_id)."""
    updated_from: int | None = None
    updated_to: int | None = None
    where: Filter | None = None


class SessionPatch(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in a session's record; UNSET leaves a field as it is."""

    title: str | Unset | None = UNSET
    summary: str | Unset | None = UNSET
    metadata: dict[str, Any] | Unset = UNSET
    """Merged key by key into what is there."""
    remove: tuple[str, ...] = ()
    """Metadata keys to remove, before the merge."""
    replace_metadata: bool = False
    ttl: float | Unset | None = UNSET
    """Seconds; None removes the time to live."""
    create_time: int | Unset = UNSET
    update_time: int | Unset = UNSET
    expires_at: int | Unset | None = UNSET
    """Only for records brought from elsewhere; a time to live sets it by itself."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A set of changes to one session, committed together."""

    append: tuple[Message, ...] = ()
    """Each gets ``max(clock, last time + 1)``; one whose id is there already is left alone."""
    put: tuple[Message, ...] = ()
    """Inserted or overwritten by id, at their own create_time; without one, where they stand, or
    as appended."""
    delete: tuple[str, ...] = ()
    """Ids; those that are not there are ignored."""
    delete_through: Position | None = None
    """Everything up to this position, inclusive. Not together with `delete`."""
    session: SessionPatch | None = None
    if_version: int | None = None
    """0: there is no such session. `ConflictError` otherwise, except where the change only
    appends, and every id is there already: that is the retry of a success."""
    create: bool = True
    """False: do nothing where there is no session."""
    ttl: float | None = None
    """Seconds: the session's time to live from now on, if anything changes at all."""
    default_ttl: float | None = None
    """Seconds, for a session that this change begins."""


class Finding(NamedTuple):
    """Something about a server's set-up."""

    name: str
    ok: bool
    """False: it puts data at risk."""
    value: str
    """What was found, and what it means where it is not ok."""


class Outcome(NamedTuple):
    session: Session | None
    """As it is now; None where there is none."""
    stored: list[Message]
    """For each of `append`, then of `put`: the message as stored."""
    deleted: int


class Snapshot(NamedTuple):
    """What a `rewrite` decides on."""

    session: Session | None
    messages: Sequence[Message | CorruptRecordError]
    """In order: those with the ids asked for, or all."""


Decide: TypeAlias = Callable[[Snapshot], "Change | None"]
"""From what is stored to what changes; None or an empty change leaves everything as it is. Called
once per attempt, so it must not have effects of its own."""
