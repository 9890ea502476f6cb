"""Redis and Valkey: one server, Sentinel, or Cluster (Redis 6.2, Valkey 7.2 and newer, no modules).

The layout is public: see `layout`. Each operation is one script, run where the session's keys are,
in one round trip; a change that is no plain append is two (`writer`), a large one is staged in
slices (`bulk`).

- Order comes from the server's clock (``TIME``). In a Cluster an append goes by this client's idea
  of that clock, where it is right to within a second, so that the index, in other slots, is told
  the same time in the same round trip.
- The server expires a session's keys by itself (``PEXPIREAT``). Its entries in the index are taken
  off by later writers, two at a time, and by readers.
- Filters on messages: the server leaves out the rows whose text cannot match (`filter`), 2 MB at a
  time, and the client decides. Filters on sessions run here.
- What Redis cannot promise: it acknowledges a write before replicas have it, so a failover may
  lose the last ones; without ``appendfsync always`` a crash loses up to a second. Run it with
  ``maxmemory-policy noeviction``: another policy may take parts of a session, which is then
  reported as a broken record, never as an empty history. `check_server` looks at all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tsmemory.backends.redis import maintenance as upkeep
from tsmemory.backends.redis import reader, writer
from tsmemory.backends.redis.bulk import commit_in_slices
from tsmemory.backends.redis.client import Target, read_url
from tsmemory.backends.redis.server import RedisServer
from tsmemory.backends.redis.session_index import list_sessions
from tsmemory.engine.contract import now_us
from tsmemory.engine.records import (
    Capabilities,
    Change,
    Decide,
    Key,
    MessageQuery,
    Outcome,
    Read,
    SessionQuery,
    Snapshot,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = ["RedisBackend"]


class RedisBackend(RedisServer):
    """Sessions in Redis or Valkey.

    Args:
        client: a ready client of redis-py (one server, Sentinel or Cluster; sync or async), left
            open, whatever its ``decode_responses``. Without one, `from_url`.
        async_client: a second one, of the other kind.
        prefix: what all keys begin with.
        ttl: seconds; the time to live of sessions begun here where the store gives none.
        retry_for: seconds; see `NetworkBackend`.

    Raises:
        InvalidInputError: no client, or an option that cannot be.
    """

    capabilities = Capabilities(max_message_bytes=writer.MAX_BODY)
    at_once = 16

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
        self.ttl = None if ttl is None else float(ttl)
        self._own_clock = clock

    @classmethod
    def from_url(cls, url: str, **options: Any) -> RedisBackend:
        """A backend that opens its own clients: see `client` for URLs and options.

        Raises:
            InvalidInputError: an unknown scheme or option, or a part that does not read.
        """
        clock = options.pop("clock", now_us)
        target, own = read_url(url, options)
        return cls(target=target, clock=clock, **own)

    # -- reading -----------------------------------------------------------------------------

    def setup(self) -> Steps[None]:
        """Asks for an answer; there is nothing to create."""
        yield from reader.get_session(self, Key("setup", "setup"))

    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        return reader.get_session(self, key)

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        return list_sessions(self, query)

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        return reader.read(self, key, query)

    def read_many(self, keys: Sequence[Key], query: MessageQuery) -> Steps[list[Read]]:
        """In one exchange, but for what is longer than a portion."""
        replies = yield from self.calls([reader.request(self, key, query) for key in keys])
        reads: list[Read] = []
        for key, reply in zip(keys, replies, strict=True):
            reads.append((yield from reader.read(self, key, query, reply)))
        return reads

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        return reader.get_messages(self, key, ids)

    # -- writing -----------------------------------------------------------------------------

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        change = self._with_default(change)
        return (yield from writer.commit(self, key, change, commit_in_slices))[0]

    def commit_and_read(
        self, key: Key, change: Change, query: MessageQuery
    ) -> Steps[tuple[Outcome, Read]]:
        """A plain append and the read go out together, in one round trip."""
        change = self._with_default(change)
        outcome, reply = yield from writer.commit(
            self, key, change, commit_in_slices, lambda: reader.request(self, key, query)
        )
        if reply is not None and not reader.is_as_new_as(reply, outcome.session):
            reply = None
        return outcome, (yield from reader.read(self, key, query, reply))

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        def decide_with_default(found: Snapshot) -> Change | None:
            change = decide(found)
            return None if change is None else self._with_default(change)

        def read_all() -> Steps[Sequence[Message | CorruptRecordError]]:
            return (yield from self.read(key, MessageQuery(limit=None))).rows

        return writer.rewrite(self, key, decide_with_default, ids, read_all, commit_in_slices)

    def _with_default(self, change: Change) -> Change:
        default = self.default_ttl(change)
        if default == change.default_ttl:
            return change
        return msgspec.structs.replace(change, default_ttl=default)

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
