"""The layout in the server, which is public: keys, rows and the session's head, and back.

For a session of user ``ada`` called ``trip 1``, with the default prefix:

===================================  =======  ====================================================
``tsmemory:{ada/trip 1}:head``       hash     the session's record, see below
``tsmemory:{ada/trip 1}:log``        zset     score 0; ``<time><message id>NUL<body>``
``tsmemory:{ada/trip 1}:ids``        hash     message id → its time
``tsmemory:{ada/trip 1}:pin``        zset     score 0; ``<time><message id>NUL`` of system and
                                              developer messages; absent where there are none
``tsmemory:{ada/trip 1}:done``       list     token, messages deleted: of the last minute's commits
                                              that are not plain appends, so that a repetition
                                              after a lost reply answers the same
``tsmemory:{i07}:user:ada``          zset     session id; score: its update_time
``tsmemory:{i07}:all``               zset     ``<user id>NUL<session id>``; score: its update_time
===================================  =======  ====================================================

What stands in braces decides the Cluster's slot. In a session's, ``% { } /`` of the two ids are
percent-encoded; ``i07`` is the CRC-32 of the user id, modulo 16. A time in a row is 19 decimal
digits; inside rows and in ``all`` a NUL of an id is ``\\x01\\x01`` and a ``\\x01`` is
``\\x01\\x02``. Bodies are those of `tsmemory.engine.codec`.

The head: ``layout`` (1), ``create_time``, ``update_time``, ``version``, ``message_count``,
``last_time``, ``ttl`` (seconds), ``ttl_us``, ``expires_at``, ``title``, ``summary`` (each a JSON
list of one), and ``meta:<key>``, the same, for each metadata key (``meta!<JSON>`` where the key
has lone surrogates). What has no value has no field.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tsmemory.engine.codec import decode_message, decode_value, encode_value
from tsmemory.engine.records import UNSET, Key, Position, SessionPatch
from tsmemory.engine.rows import corrupt_message
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Message, Session

__all__ = ["LAYOUT", "SHARDS", "Keys", "Place", "escape", "read_head", "read_row"]

LAYOUT = "1"
"""The version of all this, in each session's head."""
SHARDS = 16
"""The lists of sessions are spread over so many slots, by user: no slot takes every write."""
_DIGITS = 19  # of a time: 2**63 has as many
_LATEST = 10**_DIGITS - 1
_TAG = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", "/": "%2F"})
_TAG_BACK = {code: chr(plain) for plain, code in _TAG.items()}
_PARTS = ("head", "log", "ids", "pin", "done")


def escape(text: str) -> bytes:
    """An id as it stands before a NUL, in the order of its code points."""
    data = text.encode()
    if b"\x00" in data or b"\x01" in data:
        data = data.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")
    return data


def unescape(data: bytes) -> str:
    """What `escape` was given.

    Raises:
        UnicodeDecodeError: `data` is not of its making.
    """
    if b"\x01" in data:
        data = data.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
    return data.decode()


def digits(time: int) -> bytes:
    """A time as the rows have it."""
    return b"%019d" % min(max(time, 0), _LATEST)


class Place(NamedTuple):
    """Where a session is kept, and where it is listed."""

    keys: tuple[str, ...]
    lists: tuple[str, str]
    member: bytes
    all_member: bytes


class Keys:
    """The names of keys under one prefix.

    Raises:
        InvalidInputError: the prefix is empty or has a brace, which would be the hash tag.
    """

    def __init__(self, prefix: str) -> None:
        if not isinstance(prefix, str) or not prefix or "{" in prefix or "}" in prefix:
            raise InvalidInputError(f"a prefix is a text without braces, not {prefix!r}")
        try:
            prefix.encode()
        except UnicodeEncodeError:
            raise InvalidInputError("a prefix has no lone surrogates") from None
        self.prefix = prefix
        glob = re.sub(r"([\[\]*?\\^-])", r"\\\1", prefix)
        self.pattern = f"{glob}:{{*"
        self._key = re.compile(
            re.escape(prefix.encode()) + rb":\{([^/{}]*)/([^/{}]*)\}:([a-z]+)", re.DOTALL
        )

    def place(self, key: Key) -> Place:
        user_id, session_id = key
        tag = f"{self.prefix}:{{{user_id.translate(_TAG)}/{session_id.translate(_TAG)}}}:"
        return Place(
            tuple(tag + part for part in _PARTS),
            self.lists(user_id),
            session_id.encode(),
            escape(user_id) + b"\x00" + escape(session_id),
        )

    def lists(self, user_id: str) -> tuple[str, str]:
        """The user's list of sessions, and everybody's, in one slot."""
        tag = f"{self.prefix}:{{i{zlib.crc32(user_id.encode()) % SHARDS:02d}}}:"
        return f"{tag}user:{user_id}", f"{tag}all"

    def everybody(self) -> list[str]:
        """The lists of every user's sessions."""
        return [f"{self.prefix}:{{i{shard:02d}}}:all" for shard in range(SHARDS)]

    def parse(self, key: bytes) -> tuple[Key, str] | None:
        """The session that a key belongs to, and which of its keys; None for another key."""
        found = self._key.fullmatch(key)
        if found is None:
            return None
        user_id, session_id = (_untag(part) for part in found.groups()[:2])
        return Key(user_id, session_id), found[3].decode()


def _untag(data: bytes) -> str:
    return re.sub("%(25|7B|7D|2F)", lambda m: _TAG_BACK[m[0]], data.decode())


def parse_member(data: bytes) -> Key:
    """The session that an entry of everybody's list names."""
    user_id, _, session_id = data.partition(b"\x00")
    return Key(unescape(user_id), unescape(session_id))


# -- rows ------------------------------------------------------------------------------------


def parse_row(data: bytes) -> tuple[Position, bytes]:
    """A row of a session's log: where it stands, and its body. Never fails: see `read_row`."""
    stop = data.find(b"\x00", _DIGITS)
    if stop < 0:
        stop = len(data)
    time, name = data[:_DIGITS], data[_DIGITS:stop]
    try:
        position = Position(int(time), unescape(name))
    except ValueError:
        position = Position(0, name.decode(errors="replace"))
    return position, data[stop + 1 :]


def read_row(key: Key, data: bytes) -> Message | CorruptRecordError:
    """The message that a row of a session's log holds."""
    try:
        stop = data.index(b"\x00", _DIGITS)
        message_id = unescape(data[_DIGITS:stop])
        return decode_message(data[stop + 1 :], message_id, int(data[:_DIGITS]))
    except ValueError as error:
        return corrupt_message(key, parse_row(data)[0], error)


def before(position: Position) -> bytes:
    """The bound under the row at `position`, and above those before it."""
    return digits(position.create_time) + escape(position.message_id) + b"\x00"


def behind(position: Position) -> bytes:
    """The bound above the row at `position`, and under those after it."""
    return digits(position.create_time) + escape(position.message_id) + b"\x01"


# -- heads -----------------------------------------------------------------------------------


def read_head(key: Key, told: bytes, free: list[bytes]) -> Session | CorruptRecordError | None:
    """The session whose head travelled as this; None where there was none."""
    if not told:
        return None
    try:
        layout, create_time, update_time, version, count, ttl, expires_at = told.split(b" ")
        if layout != LAYOUT.encode():
            raise ValueError(f"written in layout {layout!r}; this release reads layout {LAYOUT}")
        fields = dict(zip(free[::2], free[1::2], strict=True)) if free else {}
        return Session(
            user_id=key.user_id,
            session_id=key.session_id,
            create_time=int(create_time),
            update_time=int(update_time),
            version=int(version),
            message_count=int(count),
            title=_text(fields.get(b"title")),
            summary=_text(fields.get(b"summary")),
            expires_at=None if expires_at == b"-" else int(expires_at),
            ttl=None if ttl == b"-" else float(ttl),
            metadata=dict(_metadata(fields)),
        )
    except ValueError as error:
        broken = CorruptRecordError(
            f"does not decode: {error}",
            user_id=key.user_id,
            session_id=key.session_id,
            create_time=update_time_of(told),
        )
        broken.__cause__ = error
        return broken


def update_time_of(told: bytes) -> int:
    """The update_time of a head that travelled as this; 0 where it has none."""
    parts = told.split(b" ")
    return int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else 0


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    value = decode_value(data)
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} where text was")
    return value


def _metadata(fields: Mapping[bytes, bytes]) -> Iterator[tuple[str, Any]]:
    for name, data in fields.items():
        if name.startswith(b"meta:"):
            yield name[5:].decode(), decode_value(data)
        elif name.startswith(b"meta!"):
            yield decode_value(name[5:]), decode_value(data)


def _field(key: str) -> bytes:
    try:
        return b"meta:" + key.encode()
    except UnicodeEncodeError:
        return b"meta!" + encode_value(key)


def changed_fields(patch: SessionPatch | None) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """The fields of the head that a patch sets, with their values, and those it removes.

    Raises:
        InvalidInputError: a metadata value that cannot be stored.
    """
    set_to: list[tuple[bytes, bytes]] = []
    if patch is None:
        return set_to, []
    removed = [_field(key) for key in patch.remove]
    for name, text in ((b"title", patch.title), (b"summary", patch.summary)):
        if text is None:
            removed.append(name)
        elif text is not UNSET:
            set_to.append((name, encode_value(text)))
    if patch.metadata is not UNSET:
        set_to += [
            (_field(key), encode_value(value, rich=False, path=f"metadata.{key}"))
            for key, value in patch.metadata.items()
        ]
    return set_to, removed
