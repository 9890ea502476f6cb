"""The layout in the server, which is public: keys, rows and the session's head, and back.

For a session of user ``ada`` called ``trip 1``, with the default prefix:

===================================  =======  ====================================================
``tsmemory:{ada/trip 1}:head``       hash     the session's record, see below
``tsmemory:{ada/trip 1}:log``        list     the messages in order, see below
``tsmemory:{ada/trip 1}:ids``        hash     stored message id → its time
``tsmemory:{ada/trip 1}:pins``       zset     score 0; ``<time, 19 digits><stored message id>`` of
                                              system and developer messages; absent without them
``tsmemory:{ada/trip 1}:done``       list     mark, messages deleted: of the last minute's commits
                                              that are not plain appends, so that a repetition
                                              after a lost reply answers the same
``tsmemory:{ada/trip 1}:lease``      string   who holds the session against other writers, for
                                              seconds: a large change, or one that met contention
``tsmemory:{ada/trip 1}:newlog``     list     with ``newids`` and ``newpins``: what a large change
                                              has staged; removed by the server if its writer died
``tsmemory:{i07}:user:ada``          zset     session id; score: its update_time
``tsmemory:{i07}:all``               zset     ``<user id>NUL<session id>``; score: its update_time
``tsmemory:{i07}:expiry``            zset     the same; score: when it expires
===================================  =======  ====================================================

What is in braces decides the Cluster's slot. In a session's, ``% { } /`` of the two ids are
percent-encoded; ``i07`` is the CRC-32 of both, modulo 16, so that no slot takes every write of a
user. In ``all`` a NUL of an id is ``\\x01\\x01`` and a ``\\x01`` is ``\\x01\\x02``.

A row of the log is ``<time> ``, one byte with the length of the stored id, the stored id, and the
body (`tsmemory.engine.codec`). A stored id is the id in UTF-8; a UUID in lower case is ``\\xff``
and its 16 bytes.

The head has the field ``state``: numbers (``-`` for none), separated by spaces: layout (2),
create_time, update_time, version, message_count, last_time (the highest ever given), ttl in
seconds, ttl in µs, expires_at; then what belongs to it: rows of the log, ids, pins, and how many
rows at the end of the log are of an unfinished batch. Rows at the front beyond message_count are
deleted and not yet removed. A key that holds another number was lost in part (an eviction, a
restore): readers and writers then raise `CorruptRecordError`. Other fields: ``title``, ``summary``
(each a JSON list of one), and ``meta:<key>``, the same, for each metadata key (``meta!<JSON>``
where the key has lone surrogates). What has no value has no field.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tsmemory.engine.codec import decode_message, decode_value, encode_value
from tsmemory.engine.commit import Head
from tsmemory.engine.records import UNSET, Key, Position, SessionPatch
from tsmemory.engine.rows import corrupt_message, corrupt_record
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Message, Session

__all__ = ["LAYOUT", "SHARDS", "KeyNames", "SessionKeys", "escape", "read_head", "read_row"]

LAYOUT = "2"
"""The version of all this, in each session's state."""
SHARDS = 16
"""Over so many slots the index of sessions is spread."""
_TAG = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", "/": "%2F"})
_TAG_BACK = {code: chr(plain) for plain, code in _TAG.items()}
_PARTS = ("head", "log", "ids", "pins", "lease", "done", "newlog", "newids", "newpins")
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


# -- ids -------------------------------------------------------------------------------------


def escape(text: str) -> bytes:
    """An id as it stands before a NUL, in the order of its code points."""
    escaped = text.encode()
    if b"\x00" in escaped or b"\x01" in escaped:
        escaped = escaped.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")
    return escaped


def unescape(escaped: bytes) -> str:
    """What `escape` was given.

    Raises:
        UnicodeDecodeError: `data` is not of its making.
    """
    if b"\x01" in escaped:
        escaped = escaped.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
    return escaped.decode()


def store_id(message_id: str) -> bytes:
    """A message id as the rows have it."""
    if len(message_id) == 36 and _UUID.fullmatch(message_id):
        return b"\xff" + bytes.fromhex(message_id.replace("-", ""))
    return message_id.encode()


def load_id(stored: bytes) -> str:
    """What `store_id` was given.

    Raises:
        ValueError: `data` is not of its making.
    """
    if len(stored) == 17 and stored[0] == 0xFF:
        digits = stored[1:].hex()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return "-".join(parts)
    return stored.decode()


# -- keys ------------------------------------------------------------------------------------


class SessionKeys(NamedTuple):
    """Where a session is kept, and where it is listed."""

    keys: tuple[str, ...]
    """Its own, as the scripts take them: head, log, ids, pins, lease, done."""
    staging: tuple[str, ...]
    """Of a large change: the new log, ids and pins."""
    lists: tuple[str, str, str]
    """The user's sessions, all sessions, expiries."""
    member: bytes
    all_member: bytes


class KeyNames:
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
        self.session = lru_cache(1024)(self._keys_of)
        name = re.escape(prefix.encode())
        parts = b"|".join(part.encode() for part in _PARTS)
        self._session = re.compile(name + rb":\{([^/{}]*)/([^/{}]*)\}:(" + parts + rb")", re.DOTALL)
        self._index = re.compile(name + rb":\{i(\d\d)\}:(?:all|expiry|user:.*)", re.DOTALL)

    def pattern(self, user_id: str | None = None) -> str:
        """What the keys match, as ``SCAN`` takes it: all, or those of a user's sessions."""
        tag = "" if user_id is None else f"{user_id.translate(_TAG)}/"
        return re.sub(r"([\[\]*?\\^-])", r"\\\1", f"{self.prefix}:{{{tag}") + "*"

    def _keys_of(self, key: Key) -> SessionKeys:
        user_id, session_id = key
        tag = f"{user_id.translate(_TAG)}/{session_id.translate(_TAG)}"
        names = tuple(f"{self.prefix}:{{{tag}}}:{part}" for part in _PARTS)
        shard = zlib.crc32(tag.encode()) % SHARDS
        return SessionKeys(
            names[:6],
            names[6:],
            self.shard(shard, user_id),
            session_id.encode(),
            escape(user_id) + b"\x00" + escape(session_id),
        )

    def shard(self, shard: int, user_id: str) -> tuple[str, str, str]:
        """The keys of a shard of the index."""
        tag = f"{self.prefix}:{{i{shard:02d}}}:"
        return f"{tag}user:{user_id}", f"{tag}all", f"{tag}expiry"

    def lists(self, user_id: str | None) -> list[str]:
        """The lists of a user's sessions, or of every user's (None)."""
        which = 1 if user_id is None else 0
        return [self.shard(shard, user_id or "")[which] for shard in range(SHARDS)]

    def parse(self, key: bytes) -> tuple[Key, str] | None:
        """The session that a key belongs to, and which of its keys; None for another key."""
        match = self._session.fullmatch(key)
        if match is None:
            return None
        try:
            user_id, session_id = (_untag(part) for part in match.groups()[:2])
        except UnicodeDecodeError:
            return None
        session_key = Key(user_id, session_id)
        name = match[3].decode()
        # Only what these names are made to: another spelling is somebody else's key.
        mine = self.session(session_key)
        return (session_key, name) if key.decode() in (*mine.keys, *mine.staging) else None

    def is_index(self, key: bytes) -> bool:
        """Whether a key is of the index of sessions."""
        match = self._index.fullmatch(key)
        return match is not None and int(match[1]) < SHARDS


def _untag(tag: bytes) -> str:
    return re.sub("%(25|7B|7D|2F)", lambda m: _TAG_BACK[m[0]], tag.decode())


def parse_member(member: bytes) -> Key:
    """The session that an entry of everybody's list names."""
    user_id, _, session_id = member.partition(b"\x00")
    return Key(unescape(user_id), unescape(session_id))


# -- rows ------------------------------------------------------------------------------------


def parse_row(row: bytes) -> tuple[Position, bytes]:
    """A row of a session's log: its position, and its body. Never fails: see `read_row`."""
    time, _, id_and_body = row.partition(b" ")
    size = id_and_body[0] if id_and_body else 0
    stored = id_and_body[1 : 1 + size]
    try:
        position = Position(int(time), load_id(stored))
    except ValueError:
        position = Position(0, stored.decode(errors="replace"))
    return position, id_and_body[1 + size :]


def read_row(key: Key, row: bytes) -> Message | CorruptRecordError:
    """The message that a row of a session's log holds."""
    try:
        space = row.index(b" ")
        stop = space + 2 + row[space + 1]
        return decode_message(row[stop:], load_id(row[space + 2 : stop]), int(row[:space]))
    except (ValueError, IndexError) as error:
        return corrupt_message(key, parse_row(row)[0], error)


def split_rows(lengths: bytes, text: bytes) -> Iterator[bytes]:
    """Rows that travelled as one text, and their lengths."""
    start = 0
    for length in map(int, lengths.split()):
        yield text[start : start + length]
        start += length


def unpack_rows(packed: bytes) -> list[bytes]:
    """Rows that the server's ``cmsgpack`` packed into an array of texts; none where it is empty.
    The format is https://github.com/msgpack/msgpack/blob/master/spec.md."""
    rows: list[bytes] = []
    if not packed:
        return rows
    width = {0xDC: 2, 0xDD: 4}.get(packed[0], 0)
    at = 1 + width
    count = int.from_bytes(packed[1:at], "big") if width else packed[0] & 0x0F
    for _ in range(count):
        kind = packed[at]
        if kind == 0xDA:  # the most frequent: 256 bytes to 64 KB
            start = at + 3
            at = start + (packed[at + 1] << 8 | packed[at + 2])
        elif kind == 0xD9:
            start = at + 2
            at = start + packed[at + 1]
        elif kind == 0xDB:
            start = at + 5
            at = start + int.from_bytes(packed[at + 1 : start], "big")
        else:
            start = at + 1
            at = start + (kind & 0x1F)
        rows.append(packed[start:at])
    return rows


# -- heads -----------------------------------------------------------------------------------


class State(NamedTuple):
    """A session's state, as the server has it."""

    create_time: int
    update_time: int
    version: int
    message_count: int
    last_time: int
    ttl: float | None
    ttl_us: int | None
    expires_at: int | None
    rows: int
    ids: int
    pins: int
    pending: int

    @classmethod
    def parse(cls, text: bytes) -> State:
        """
        Raises:
            ValueError: it is none of this layout.
        """
        layout, *parts = text.split(b" ")
        if layout != LAYOUT.encode() or len(parts) != len(cls._fields):
            raise ValueError(f"written in layout {layout!r}; this release reads layout {LAYOUT}")
        numbers: list[Any] = [None if part == b"-" else int(part) for part in parts[:5]]
        ttl = None if parts[5] == b"-" else float(parts[5])
        numbers += [ttl, *(None if part == b"-" else int(part) for part in parts[6:])]
        return cls(*numbers)


def state_of(head: Head) -> str:
    """The state of a planned head; what is counted is left to the server."""
    session = head.session
    ttl = session.ttl
    fields = (
        LAYOUT, session.create_time, session.update_time, session.version, session.message_count,
        head.last_time, "-" if ttl is None else repr(float(ttl)),
        "-" if ttl is None else round(ttl * 1_000_000),
        "-" if session.expires_at is None else session.expires_at, 0, 0, 0, 0,
    )  # fmt: skip
    return " ".join(map(str, fields))


def read_head(key: Key, state: bytes, fields: Sequence[bytes]) -> Session | CorruptRecordError:
    """The session whose state and other fields travelled as these."""
    try:
        parsed = State.parse(state)
        named = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
        return Session(
            user_id=key.user_id,
            session_id=key.session_id,
            create_time=parsed.create_time,
            update_time=parsed.update_time,
            version=parsed.version,
            message_count=parsed.message_count,
            title=_text(named.get(b"title")),
            summary=_text(named.get(b"summary")),
            expires_at=parsed.expires_at,
            ttl=parsed.ttl,
            metadata=dict(_metadata(named)) if named else {},
        )
    except ValueError as error:
        return corrupt_record(*key, update_time_of(state), error)


def update_time_of(state: bytes) -> int:
    """The update_time in a state; 0 where it has none."""
    parts = state.split(b" ")
    return int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else 0


def _text(encoded: bytes | None) -> str | None:
    if encoded is None:
        return None
    value = decode_value(encoded)
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} where text was")
    return value


def _metadata(fields: Mapping[bytes, bytes]) -> Iterator[tuple[str, Any]]:
    for name, encoded in fields.items():
        if name.startswith(b"meta:"):
            yield name[5:].decode(), decode_value(encoded)
        elif name.startswith(b"meta!"):
            yield decode_value(name[5:]), decode_value(encoded)


def _field(key: str) -> bytes:
    try:
        return b"meta:" + key.encode()
    except UnicodeEncodeError:
        return b"meta!" + encode_value(key)


def changed_fields(
    patch: SessionPatch | None, fields: Sequence[bytes] = ()
) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """The fields of the head that a patch sets, with their values, and those it removes.

    Args:
        fields: names and values that are there.

    Raises:
        InvalidInputError: a metadata value that cannot be stored.
    """
    set_to: list[tuple[bytes, bytes]] = []
    if patch is None:
        return set_to, []
    removed = [_field(key) for key in patch.remove]
    if patch.replace_metadata:
        removed += [name for name in fields[::2] if name.startswith(b"meta")]
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
