"""Redis and Valkey: one server, Sentinel, or Cluster (Redis 6.2, Valkey 7.2 and newer, no modules).

The layout is public: see `_redis_keys`. Each operation is one script (`_redis_commit` writes, the
others are in `_redis_scripts`), run where the session's keys are, in one round trip.

- On one server the lists of sessions are in the script's reach too. In a Cluster they are in
  another slot: a write is announced on the lists first, which also gives the time that orders it,
  then made. So no session is there without being listed; an announcement whose writer died leads
  to nothing a reader shows, and reading the list takes it away. A session's first commit settles
  its place with a third round trip, a later one only where it ended elsewhere than announced.
- Order comes from the server's clock (``TIME``), never from this machine's. The backend's `clock`
  is the server's as last heard: it only shows how long a session has to live.
- The server expires a session's keys by itself (``PEXPIREAT``). Entries of expired sessions stay
  on the lists, seen by no reader, until somebody lists them, or `purge_expired`.
- Filters on messages: the server leaves out the rows whose text cannot match (`_redis_filter`),
  4 MB at a time, and the client decides. Filters on sessions run here, 500 sessions at a time.
- What Redis cannot promise: it acknowledges a write before replicas have it, so a failover may
  lose the last ones; without ``appendfsync always`` a crash loses up to a second. Run it with
  ``maxmemory-policy noeviction``: another policy may take parts of a session. A lost log is then
  reported as a broken record, never as an empty history.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tsmemory.backends.redis import maintenance as upkeep
from tsmemory.backends.redis import scripts
from tsmemory.backends.redis.client import Target, read_url
from tsmemory.backends.redis.filter import texts
from tsmemory.backends.redis.layout import (
    LAYOUT,
    Place,
    before,
    behind,
    changed_fields,
    digits,
    escape,
    read_head,
    read_row,
    update_time_of,
)
from tsmemory.backends.redis.server import RedisServer
from tsmemory.backends.redis.session_index import GRACE, list_sessions
from tsmemory.backends.redis.writer import COMMIT
from tsmemory.engine.codec import encode_message
from tsmemory.engine.commit import at_time
from tsmemory.engine.contract import now_us
from tsmemory.engine.records import (
    UNSET,
    Capabilities,
    Change,
    Key,
    MessageQuery,
    Outcome,
    Read,
    SessionPatch,
    SessionQuery,
)
from tsmemory.engine.rows import passes
from tsmemory.engine.steps import Steps
from tsmemory.errors import ConflictError, CorruptRecordError, InvalidInputError
from tsmemory.model import Erased, Message, Problem, Session, Stats, is_pinned

__all__ = ["RedisBackend"]

_MAX_BODY = 64 * 1024 * 1024
"""Bytes. The protocol's limit is 512 MB, but a replica is cut off at 256 MB of unsent output
(``client-output-buffer-limit``), and everybody waits while one message is copied."""
_MAX_BATCH = 100_000
"""Messages and ids in one commit: the server runs it in one go, and takes 2**20 arguments."""
_PORTION = 4_000_000  # bytes of messages the server looks at in one call, then lets others in
_FILTERED = 2_000  # messages likewise, under a filter
_LONGEST_REPLY = 60.0  # seconds beyond the retries for which a commit remembers that it was made


class RedisBackend(RedisServer):
    """Sessions in Redis or Valkey.

    Args:
        client: a ready client of redis-py (one server, Sentinel or Cluster, either colour), left
            open, whatever its ``decode_responses``. Without one, `from_url`.
        async_client: a second one, of the other colour.
        prefix: what all keys begin with.
        ttl: seconds; the time to live of sessions begun here where the store gives none.
        retry_for: seconds; see `NetworkBackend`.

    Raises:
        InvalidInputError: no client, or an option that cannot be.
    """

    capabilities = Capabilities(max_message_bytes=_MAX_BODY)

    def __init__(
        self,
        client: Any = None,
        *,
        async_client: Any = None,
        prefix: str = "tsmemory",
        ttl: float | None = None,
        retry_for: float = 10.0,
        clock: Callable[[], int] = now_us,
        target: Target | None = None,
    ) -> None:
        super().__init__(
            client, async_client=async_client, target=target, prefix=prefix, retry_for=retry_for
        )
        if ttl is not None and not ttl > 0:
            raise InvalidInputError(f"ttl is {ttl} s; give more than 0, or None")
        self.ttl = ttl
        self._own_clock = clock
        self._offset = 0

    @classmethod
    def from_url(cls, url: str, **options: Any) -> RedisBackend:
        """A backend that opens its own clients: see `_redis_clients` for URLs and options.

        Raises:
            InvalidInputError: an unknown scheme or option, or a part that does not read.
        """
        clock = options.pop("clock", now_us)
        target, own = read_url(url, options)
        return cls(target=target, clock=clock, **own)

    def clock(self) -> int:
        """The server's time as last heard, and gone on since: µs since the epoch."""
        return self._own_clock() + self._offset

    def _heard(self, now: bytes) -> None:
        self._offset = int(now) - self._own_clock()

    # -- reading -----------------------------------------------------------------------------

    def setup(self) -> Steps[None]:
        """Asks for an answer; there is nothing to create."""
        yield from self.call(scripts.HEAD, [self.names.place(Key("setup", "setup")).keys[0]])

    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        reply = yield from self.call(scripts.HEAD, [self.names.place(key).keys[0]])
        self._heard(reply[0])
        return read_head(key, *reply[1:])

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        return list_sessions(self, query)

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        head, log, _, pin, _ = self.names.place(key).keys
        low, high = _bounds(query)
        whole = "1" if (low, high) == (b"-", b"+") else ""
        parts = texts(query.where)
        wanted: list[Any] = [item for part in parts for item in (len(part), *part)]
        rows: list[Message | CorruptRecordError] = []
        while True:
            limit = _FILTERED
            if query.limit is not None and query.where is None:
                limit = query.limit - len(rows)
            reply = yield from self.call(
                scripts.READ, [head, log, pin], low, high, limit,
                "desc" if query.descending else "asc", "1" if query.pinned else "", whole,
                _PORTION, *wanted,
            )  # fmt: skip
            if reply[0] == b"none":
                return Read(rows)
            if reply[0] == b"lost":
                return Read([_lost(key, reply[1])])
            _, done, found, pinned, last = reply
            for data in found:
                row = read_row(key, data)
                if passes(row, query.where):
                    rows.append(row)
            if done or (query.limit is not None and len(rows) >= query.limit):
                return Read(rows[: query.limit], [read_row(key, one) for one in pinned])
            whole = ""
            if query.descending:
                high = b"(" + last
            else:
                low = b"(" + last[:-1] + b"\x01"

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        place = self.names.place(key)
        rows = yield from self.call(scripts.GET, place.keys[:3], *map(escape, ids))
        return [read_row(key, row) for row in rows]

    # -- writing -----------------------------------------------------------------------------

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        place = self.names.place(key)
        args = self._arguments(place, change)
        if not self.is_cluster:
            reply = yield from self.call(COMMIT, place.keys + place.lists, b"", *args)
        else:
            reply = yield from self._announced(place, change, args)
        state, now, deleted, _, told, free, times, rows = reply
        self._heard(now)
        session = read_head(key, told, free)
        if isinstance(session, CorruptRecordError):
            raise session
        if state == b"corrupt":
            raise CorruptRecordError("does not parse", user_id=key[0], session_id=key[1])
        if state == b"conflict":
            actual = session.version if session else 0
            raise ConflictError(
                f"session {key.session_id!r} is at version {actual}, not {change.if_version}; "
                "read it again and decide anew",
                expected=change.if_version,
                actual=actual,
            )
        return Outcome(session, _stored(key, change, times, rows), deleted)

    def _announced(self, place: Place, change: Change, args: list[Any]) -> Steps[Any]:
        """A commit whose lists are in another slot."""
        members = (place.member, place.all_member)
        given = sum(m.create_time is None for m in change.put) + len(change.append)
        more = max(given - 1, 0)  # µs that the last of the new messages comes after the first
        began = time.monotonic()
        floor = yield from self.call(scripts.INDEX, place.lists, "touch", *members, more)
        announced = int(floor) + more
        reply = yield from self.call(COMMIT, place.keys, floor, *args)
        late = (time.monotonic() - began) * 1e6 > GRACE / 2
        actual = update_time_of(reply[4])
        if not reply[4]:
            yield from self.call(scripts.INDEX, place.lists, "drop", *members, announced)
        elif late or reply[3] or actual != announced:
            yield from self.call(scripts.INDEX, place.lists, "settle", *members, announced, actual)
        return reply

    def _arguments(self, place: Place, change: Change) -> list[Any]:
        """What `COMMIT` takes after the time: options, then lists."""
        size = len(change.append) + len(change.put) + len(change.delete)
        if size > _MAX_BATCH:
            raise InvalidInputError(
                f"a change of {size} messages is over this engine's {_MAX_BATCH}; make several"
            )
        options: dict[str, Any] = {
            "layout": LAYOUT,
            "member": place.member.decode(),
            "all_member": place.all_member.decode(),
        }
        lists: list[Any] = []
        limit = self.capabilities.max_message_bytes
        if change.append:
            options["append"] = len(change.append)
            for m in change.append:
                lists += (_marked_id(m), encode_message(m, limit))
        if change.put:
            options["put"] = len(change.put)
            for m in change.put:
                time = b"" if m.create_time is None else m.create_time
                lists += (_marked_id(m), encode_message(m, limit), time)
        if change.delete:
            put = {m.message_id for m in change.put}
            gone = [escape(mid) for mid in change.delete if mid not in put]
            options["delete"] = len(gone)
            lists += gone
        if change.put or change.delete or change.delete_through or change.session:
            options["token"] = os.urandom(9).hex()
            options["keep"] = round((2 * self.retry_for + _LONGEST_REPLY) * 1000)
        if change.delete_through is not None:
            options["through"] = behind(change.delete_through).decode()
        if change.if_version is not None:
            options["if_version"] = str(change.if_version)
        if not change.create:
            options["spare"] = True
        ttl: Any = UNSET if change.ttl is None else change.ttl
        if change.session is not None:
            patch = change.session
            ttl = ttl if patch.ttl is UNSET else patch.ttl
            fields, removed = changed_fields(patch)
            options |= _patch(patch, len(fields), len(removed))
            for name, value in fields:
                lists += (name, value)
            lists += removed
        default = self.ttl if change.default_ttl is None else change.default_ttl
        if default is not None:
            options |= {"default_ttl": repr(float(default)), "default_ttl_us": _micros(default)}
        if ttl is None:
            options["no_ttl"] = True
        elif ttl is not UNSET:
            options |= {"ttl": repr(float(ttl)), "ttl_us": _micros(ttl)}
        return [msgspec.json.encode(options), *lists]

    # -- removing and looking after ----------------------------------------------------------

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        if user_id is None:
            return upkeep.erase_all(self)
        if session_id is None:
            return upkeep.erase_user(self, user_id)
        return upkeep.erase_sessions(self, [Key(user_id, session_id)])

    def purge_expired(self) -> Steps[Erased]:
        return upkeep.purge_expired(self)

    def stats(self) -> Steps[Stats]:
        return upkeep.stats(self)

    def verify(self) -> Steps[list[Problem]]:
        return upkeep.verify(self)


def _marked_id(message: Message) -> bytes:
    return (b"1" if is_pinned(message.role) else b"0") + escape(message.message_id)


def _micros(seconds: float) -> str:
    return str(round(seconds * 1_000_000))


def _patch(patch: SessionPatch, fields: int, removed: int) -> dict[str, Any]:
    """The options of `COMMIT` for a patch of the session's record, less the time to live."""
    options: dict[str, Any] = {"patched": True, "set": fields, "unset": removed}
    if patch.replace_metadata:
        options["replace_metadata"] = True
    for name in ("create_time", "update_time", "expires_at"):
        value = getattr(patch, name)
        if value is None:
            options["no_expiry"] = True
        elif value is not UNSET:
            options[name] = str(value)
    return options


def _bounds(query: MessageQuery) -> tuple[bytes, bytes]:
    """The range of rows, as ZRANGEBYLEX takes it."""
    lows, highs = [], []
    if query.created_from is not None:
        lows.append(b"(" + digits(query.created_from))
    if query.created_to is not None:
        highs.append(b"(" + digits(query.created_to + 1))
    if query.after is not None and query.descending:
        highs.append(b"(" + before(query.after))
    elif query.after is not None:
        lows.append(b"(" + behind(query.after))
    return max(lows, default=b"-"), min(highs, default=b"+")


def _stored(key: Key, change: Change, times: bytes, rows: list[bytes]) -> list[Message]:
    """The messages of a commit as stored: with the times told, or as the rows that were there."""
    found: list[Message] = []
    if not times:  # nothing was done
        return found
    first: dict[str, Message] = {}  # an id that stands twice in a batch is the first one's
    there = iter(rows)
    at = 0
    for message in [first.setdefault(m.message_id, m) for m in change.append] + [*change.put]:
        if times[at : at + 1] == b"-":
            row = read_row(key, next(there))
            if isinstance(row, CorruptRecordError):
                raise row
            found.append(row)
            at += 1
        else:
            found.append(at_time(message, int(times[at : at + 19])))
            at += 19
    return found


def _lost(key: Key, count: bytes) -> CorruptRecordError:
    return CorruptRecordError(
        f"the server lost either the record or its {int(count)} messages; does it evict keys?",
        user_id=key.user_id,
        session_id=key.session_id,
    )
