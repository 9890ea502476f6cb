"""The rows of the table: what is in them, how ids are encoded, and which of them count.

One table holds two kinds of rows. A session's row has ``place`` "z" and ``message`` ""; the rows
of its messages sort below it. Text that is compared is encoded so that every collation sorts it by
code point: times as 19 digits, ids as the hexadecimal digits of their UTF-8, in the letters b to q.

A row is ``kept`` or a ``draft``. A writer first adds its messages as drafts under a ``commit`` id
of its own, then moves the session's row from one version to the next with one conditional update,
which adds that commit to the ``pending`` ones: from then on, and not before, those drafts count. A
later writer makes them ``kept``. A draft that no session names does not count. Likewise `pending`
names the rows that the last commit removes: they do not count, whether or not they are deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from tsmemory.engine.codec import decode_message, decode_session, encode_session
from tsmemory.engine.commit import Head
from tsmemory.engine.records import Key, Position
from tsmemory.engine.rows import corrupt_message, corrupt_record
from tsmemory.errors import CorruptRecordError
from tsmemory.model import Message, Session, is_pinned

__all__ = [
    "FOREVER", "SCHEMA", "SESSION_ROW", "LoadedSession", "MessageRow", "Pending", "SessionRow",
    "activity", "encode_sortable", "key_of", "message_row", "place_of", "read_message",
    "read_session", "session_fields", "time_text", "visible",
]  # fmt: skip

SESSION_ROW = "z"
"""The place of a session's row: above every message's."""
FOREVER = "z"
"""``expires`` of a session without a time to live: after every time."""

SCHEMA: dict[str, Any] = {
    "fields": {
        "key": "string",
        "user": "string",
        "message": "string",
        "place": "string",
        "state": "string",
        "commit": "string",
        "token": "string",
        "version": "number",
        "pinned": "boolean",
        "body": "string",
        "count": "number",
        "created": "string",
        "last": "string",
        "activity": "string",
        "expires": "string",
        "ttl": "number",
        "pending": "object",
    },
    "indexes": ["key", "user", "message", "place", "activity", "expires", "commit"],
}
"""What `setup` sends."""

_LETTERS = str.maketrans("0123456789abcdef", "bcdefghijklmnopq")
_DIGITS = str.maketrans("bcdefghijklmnopq", "0123456789abcdef")


def encode_sortable(text: str) -> str:
    """An id as letters that sort as its code points do."""
    return text.encode().hex().translate(_LETTERS)


def _decode_sortable(letters: str) -> str:
    return bytes.fromhex(letters.translate(_DIGITS)).decode()


def key_of(key: Key) -> str:
    """A session's key: two encoded ids with an "a" between, which sorts before every letter."""
    return f"{encode_sortable(key.user_id)}a{encode_sortable(key.session_id)}"


def time_text(micros: int) -> str:
    """A time as text that sorts as times do."""
    return f"{micros:019d}"


def place_of(position: Position) -> str:
    """Where a message stands, as text that sorts as positions do."""
    return f"{time_text(position.create_time)}{encode_sortable(position.message_id)}"


def activity(position: tuple[int, str, str]) -> str:
    """(update_time, user_id, session_id) as text that sorts as they do."""
    return f"{time_text(position[0])}{key_of(Key(*position[1:]))}"


class Pending(msgspec.Struct, frozen=True):
    """What a session's last commits left to do."""

    commits: tuple[str, ...] = ()
    """Their drafts count."""
    removed: tuple[str, ...] = ()
    """Encoded ids whose rows from before the last commit do not count."""
    through: str = ""
    """Rows from before the last commit, up to this place, do not count."""

    @property
    def removes(self) -> bool:
        return bool(self.removed or self.through)


class SessionRow(msgspec.Struct, frozen=True):
    """A session's row."""

    key: str
    token: str
    """Of this life of the session: one that ends and begins again has another."""
    state: str
    version: int
    """The session's version."""
    pinned: bool
    """Whether it ever had a system or developer message."""
    body: str
    count: int
    created: str
    last: str
    """The highest create_time that it ever gave or took."""
    activity: str
    expires: str
    ttl: float | None
    pending: Pending

    def expired(self, now: int) -> bool:
        return self.expires != FOREVER and int(self.expires) <= now


class MessageRow(msgspec.Struct, frozen=True):
    """A message's row."""

    message: str
    place: str
    state: str
    commit: str
    version: int
    """The session's version that its commit made."""
    body: str


class LoadedSession(NamedTuple):
    """A session's row as it was found."""

    row: SessionRow
    session: Session | CorruptRecordError
    """What the row holds beside what the engine needs: that may be broken by itself, and the
    messages are readable all the same."""

    def head(self) -> Head:
        """For planning a commit.

        Raises:
            CorruptRecordError: the record is broken.
        """
        if isinstance(self.session, CorruptRecordError):
            raise self.session
        return Head(self.session, int(self.row.last))


def read_session(raw: dict[str, Any]) -> LoadedSession | CorruptRecordError:
    """A session, from its row; the error alone where not even the engine's fields read."""
    user_id, session_id, updated = _names(raw)
    try:
        row = msgspec.convert(raw, SessionRow)
        created, expires = int(row.created), row.expires
        int(row.last)  # as much a part of the order as the rest
        expires_at = None if expires == FOREVER else int(expires)
    except ValueError as error:
        return corrupt_record(user_id, session_id, updated, error)
    try:
        title, summary, metadata = decode_session(row.body.encode())
    except ValueError as error:
        return LoadedSession(row, corrupt_record(user_id, session_id, updated, error))
    session = Session(
        user_id=user_id,
        session_id=session_id,
        create_time=created,
        update_time=updated,
        version=row.version,
        message_count=row.count,
        title=title,
        summary=summary,
        expires_at=expires_at,
        ttl=row.ttl,
        metadata=metadata,
    )
    return LoadedSession(row, session)


def _names(raw: dict[str, Any]) -> tuple[str, str, int]:
    """Whose session a row is, and its last activity: what a broken row may still tell."""
    try:
        user_id, _, session_id = raw["key"].partition("a")
        return (
            _decode_sortable(user_id),
            _decode_sortable(session_id),
            int(str(raw.get("activity"))[:19]),
        )
    except (ValueError, LookupError, AttributeError):
        return "?", "?", 0


def session_fields(head: Head, pinned: bool, pending: Pending) -> dict[str, Any]:
    """What a commit writes into a session's row."""
    s = head.session
    return {
        "version": s.version,
        "pinned": pinned,
        "body": encode_session(s).decode(),
        "count": s.message_count,
        "created": time_text(s.create_time),
        "last": time_text(head.last_time),
        "activity": activity((s.update_time, s.user_id, s.session_id)),
        "expires": FOREVER if s.expires_at is None else time_text(s.expires_at),
        "ttl": s.ttl,
        "pending": msgspec.to_builtins(pending),
    }


def message_row(
    key: Key, message: Message, body: bytes, commit: str, token: str, version: int
) -> dict[str, Any]:
    """A message's row, as a draft."""
    return {
        "key": key_of(key),
        "user": encode_sortable(key.user_id),
        "message": encode_sortable(message.message_id),
        "place": place_of(Position(message.create_time or 0, message.message_id)),
        "state": "draft",
        "commit": commit,
        "token": token,
        "version": version,
        "pinned": is_pinned(message.role),
        "body": body.decode(),
    }


def visible(session: SessionRow, raws: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those message rows that count in a session that is as its row says."""
    pending = session.pending
    commits, removed = frozenset(pending.commits), frozenset(pending.removed)
    return [
        raw
        for raw in raws
        if raw.get("token") == session.token
        and (raw.get("state") == "kept" or raw.get("commit") in commits)
        and (
            raw.get("version") == session.version
            or not (raw.get("message") in removed or str(raw.get("place")) <= pending.through)
        )
    ]


def read_message(key: Key, raw: dict[str, Any]) -> Message | CorruptRecordError:
    """A message, from its row."""
    position = Position(0, "?")
    try:
        position = Position(int(raw["place"][:19]), _decode_sortable(raw["place"][19:]))
        row = msgspec.convert(raw, MessageRow)
        return decode_message(row.body.encode(), position.message_id, position.create_time)
    except (ValueError, LookupError, TypeError) as error:
        return corrupt_message(key, position, error)
