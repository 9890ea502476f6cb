"""Where things are in Tablestore: tables, indexes, keys and column names. Public, as any format.

Both layouts have the same two tables, each with a local index; the names are configurable:

    session                  user_id STRING, session_id STRING
    session_secondary_index  user_id, update_time INTEGER, session_id
    message                  <partition> STRING, create_time INTEGER, message_id STRING
    message_secondary_index  <partition>, message_id, create_time

``isolated`` (the default): the messages' partition column is ``user_session_id``, with values
``"<4 hex digits>:<bytes of the user id>:<user id>/<session id>"``. The digits are a hash of the
rest: no two sessions share a value, and neighbours in time (ids made of the date, say) are spread
over the whole table. A session's *head*, the row that decides about its commits, is the last row of
its partition (`HEAD_TIME`), so one backward range read gives the head and the newest messages, and
the commits of one user's sessions never meet on one partition value. The session table holds a copy
of each head, its *listing row*, by which a user's sessions are listed.

``agent-memory``: the partition column is ``session_id``, as in tablestore-for-agent-memory for
Python, Java and Go; the session's row in the session table is the head.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tsmemory.backends.tablestore.sdk import MAX, MIN, PrimaryKey
from tsmemory.engine.records import Key, Position
from tsmemory.errors import InvalidInputError

__all__ = [
    "CONTENT", "DESCRIPTION", "HEAD", "HEAD_ID", "HEAD_TIME", "INTENT", "MAX_COLUMN", "MAX_ROW",
    "RESERVED", "ROLE", "SEQUENCE", "TEXT", "TOMBSTONE", "UPDATE_TIME", "Layout", "LayoutName",
    "is_column", "native_value",
]  # fmt: skip

LayoutName = Literal["isolated", "agent-memory"]

RESERVED = "tsmemory"
"""On a message: what no other column holds; what does not fit continues in ``tsmemory_1``,
``tsmemory_2`` … On a row of the session table: the session's state."""
HEAD = "tsmemory_head"
"""On a head in the message table: the session's state."""
DESCRIPTION = "tsmemory_session"
"""On a head and on a row of the session table: title, summary and metadata."""
INTENT = "tsmemory_intent"
"""On a head: what its last commit does to the messages."""
SEQUENCE = "tsmemory_sequence"
"""On a listing row: the number of the head that it copies."""
TOMBSTONE = "tsmemory_tombstone"
"""On a row that only occupies a position, so that a late writer cannot take it."""
TEXT = "tsmemory_text"
"""On a message, with ``search=True``: its tokens, for the search index."""
CONTENT, ROLE, UPDATE_TIME = "content", "role", "update_time"

HEAD_TIME = 2**63 - 1
"""The create_time of heads in the message table; messages have at most one less."""
HEAD_ID = "tsmemory"

MAX_COLUMN = 2_097_152
"""Bytes of one attribute (Tablestore, "Limits on the Wide Column model")."""
MAX_ROW = 4_194_304
"""Bytes of one row change, and of a batch of them (same page)."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")  # same page
_TABLE_TYPES = {"STRING", "INTEGER", "DOUBLE", "BOOLEAN", "BINARY"}
_OURS = re.compile(r"tsmemory(_|\Z)")
_KEYS = {"user_id", "session_id", "user_session_id", "message_id", "create_time"}
_TAKEN = {"message": _KEYS | {CONTENT, ROLE}, "session": {"user_id", "session_id", UPDATE_TIME}}
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Layout:
    """One arrangement of tables.

    Raises:
        InvalidInputError: a name that the service does not allow, or an unknown layout.
    """

    name: LayoutName = "isolated"
    session_table: str = "session"
    session_index: str = "session_secondary_index"
    message_table: str = "message"
    message_index: str = "message_secondary_index"
    session_metadata: Mapping[str, str] = field(default_factory=dict)
    """Session metadata to keep in the index too, with their types (``STRING``, ``INTEGER``,
    ``DOUBLE``, ``BOOLEAN``, ``BINARY``): filters of listings on them run in the service."""

    search: bool = False
    """Whether messages are written with their tokens, and `setup` makes a search index."""

    def __post_init__(self) -> None:
        if self.name not in ("isolated", "agent-memory"):
            raise InvalidInputError(f'layout is "isolated" or "agent-memory", not {self.name!r}')
        tables = (self.session_table, self.session_index, self.message_table, self.message_index)
        for table in tables:
            if not _NAME.match(table):
                raise InvalidInputError(
                    f"invalid table name {table!r}: use ASCII letters, digits and _, no digit first"
                )
        if len(set(tables)) != len(tables):
            raise InvalidInputError("tables and indexes must have different names")
        if self.search and not self.isolated:
            raise InvalidInputError(
                "search=True is for the isolated layout; in agent-memory's tables, messages of "
                "others have no tokens to be found by, so searches read the messages themselves"
            )
        for column, kind in self.session_metadata.items():
            if not is_column(column, "session") or kind not in _TABLE_TYPES:
                raise InvalidInputError(
                    f"session_metadata {column!r}: {kind!r} cannot be kept in the index; give "
                    f"column names with one of {', '.join(sorted(_TABLE_TYPES))}"
                )

    @property
    def isolated(self) -> bool:
        return self.name == "isolated"

    @property
    def search_index(self) -> str:
        """The search index over the messages' table."""
        return f"{self.message_table}_search"

    # -- keys --------------------------------------------------------------------------------

    @property
    def partition(self) -> str:
        """The first key column of the messages."""
        return "user_session_id" if self.isolated else "session_id"

    def partition_of(self, key: Key) -> str:
        if not self.isolated:
            return key.session_id
        name = f"{len(key.user_id.encode())}:{key.user_id}/{key.session_id}"
        return f"{hashlib.blake2b(name.encode(), digest_size=2).hexdigest()}:{name}"

    def key_of(self, partition: str) -> Key:
        """The session whose messages are under `partition`; isolated only.

        Raises:
            ValueError: this layout makes no such partition value.
        """
        _, _, name = partition.partition(":")
        size, _, ids = name.partition(":")
        utf8 = ids.encode()
        user, separator, session = (
            utf8[: int(size)],
            utf8[int(size) :][:1],
            utf8[int(size) + 1 :],
        )
        key = Key(user.decode(), session.decode())
        if separator != b"/" or self.partition_of(key) != partition:
            raise ValueError(f"{partition!r} is not a partition value of this layout")
        return key

    # -- heads -------------------------------------------------------------------------------

    @property
    def head_table(self) -> str:
        return self.message_table if self.isolated else self.session_table

    def head_key(self, key: Key) -> PrimaryKey:
        if self.isolated:
            return self.message_key(key, HEAD_TIME, HEAD_ID)
        return self.session_key(key)

    def session_key(self, key: Key) -> PrimaryKey:
        return [("user_id", key.user_id), ("session_id", key.session_id)]

    def message_key(self, key: Key, create_time: Any, message_id: Any) -> PrimaryKey:
        return [
            (self.partition, self.partition_of(key)),
            ("create_time", create_time),
            ("message_id", message_id),
        ]

    def all_messages(self, first: Any = MIN, last: Any = MAX) -> tuple[PrimaryKey, PrimaryKey]:
        """The range of the partitions from `first` to `last`, the end exclusive."""
        names = (self.partition, "create_time", "message_id")
        low = [(names[0], first), *((name, MIN) for name in names[1:])]
        high = [(names[0], last), *((name, MAX if last is MAX else MIN) for name in names[1:])]
        return low, high

    def after_messages(self, key: Key) -> PrimaryKey:
        """The end of the session's messages, before its head."""
        return self.message_key(key, HEAD_TIME, MIN)

    def id_range(self, key: Key, message_id: str | None) -> tuple[PrimaryKey, PrimaryKey]:
        """In the index: the positions of one id, or of every id of the session."""
        first = (self.partition, self.partition_of(key))
        low = MIN if message_id is None else message_id
        high = MAX if message_id is None else message_id
        return (
            [first, ("message_id", low), ("create_time", MIN)],
            [first, ("message_id", high), ("create_time", MAX)],
        )

    def through(self, key: Key, position: Position | None) -> tuple[PrimaryKey, PrimaryKey]:
        """The messages up to `position`, inclusive; None: all of them."""
        low = self.message_key(key, MIN, MIN)
        if position is None:
            return low, self.after_messages(key)
        # No id lies between an id and the same id with a NUL appended.
        return low, self.message_key(key, position.create_time, position.message_id + "\0")


def is_column(name: str, kind: Literal["message", "session"]) -> bool:
    """Whether a metadata key can be a column of its own, and is not one of ours."""
    return bool(_NAME.match(name)) and not _OURS.match(name) and name not in _TAKEN[kind]


def native_value(value: Any) -> bool:
    """Whether a column can hold the value exactly, type included."""
    kind = type(value)
    if kind is bool:
        return True
    if kind is int:
        return value in _INT64
    if kind is float:
        return value == value and value not in (float("inf"), float("-inf"))
    if kind is str:
        if "\0" in value or len(value) > MAX_COLUMN:
            return False
        try:
            return len(value.encode()) <= MAX_COLUMN
        except UnicodeEncodeError:  # a lone surrogate
            return False
    return isinstance(value, (bytes, bytearray, memoryview)) and len(value) <= MAX_COLUMN
