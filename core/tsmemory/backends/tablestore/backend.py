"""Tablestore (Alibaba Cloud OTS): two tables in the service, over the official SDK.

What is in the tables is public: `_tablestore_layout` has the tables, `_tablestore_records` the rows
of sessions, `_tablestore_rows` those of messages.

A batch of rows is not atomic there, and a condition covers one row only. So one row, the session's,
decides. The protocol:

1. **Reserve.** The session's row is written on the condition that its last commit is still the one
   that was read (a random token, so that no clock and no version can be mistaken for it). It moves
   the session's last time, count and version, and says what the commit is about to do to which
   rows: the *intent*. Times are reserved behind the last one, so the order of messages is the order
   of these writes, whatever the writers' clocks say.
2. **Write.** The messages go to their reserved places in one batch, each on the condition that the
   place is free.

That is an append to a warm session: two requests up to 200 messages or 4 MB; more is several such
rounds. A commit that changes or removes what is there is *held*: its first request leaves the
version as it was, and one more, when all is done, moves it. So who reads a version and then
messages never decides on older messages than the version's (`get_session` for its part waits for
what an append has reserved, where this process did not see it arrive).

**A lost reply.** The condition of a request that is repeated fails if the first one took effect;
the row that is there is read, and its token tells. Nothing is written twice.

**A crash between the two**, or a slow writer. Whoever commits next reads the intent and looks for
its rows. A retry of the same messages (same ids) writes those missing to their reserved places.
Anybody else gives them ``min(2 s, retry_for / 2)`` to arrive, then calls off the first one missing
and all behind it in its batch: tombstones take their places, rows that may be written over get
another token, and the count is set right. If their writer is alive after all, its condition fails,
and it appends what was called off again, at the end: nothing is lost or doubled, and a batch is at
worst continued later, in its own order. Deletions are carried out by whoever finds them in the
intent.

**Readers** never see a gap: of the newest batch only what stands before the first missing row is
shown (`capabilities.atomic` is False: it may be a part of the batch). The rows carry their place in
the batch; only where one is missing is the session's row read, to tell it from a deleted one. With
a limit that ends inside the newest batch, what lies before the rows read is taken to be there.

**Time to live, instructions.** Each appended row repeats when the session expires and where its
system and developer messages stand, as the newest row must tell it for a window to be one request.
A commit that makes this untrue (a new time to live, a deleted newest message) first marks the
newest row, and readers then ask the session.

**Ids** are unique in a session, but the service has no unique index. See `_tablestore_known`: a
session is *warm* in a process that has begun it or read its ids once, which is at the first append
with up to 5,000 messages and, with more, when looking up ids one by one has cost as much.

Limits: between a deletion's first request and its last a reader may still see what is going; a
message put to another time is for a moment there twice. A read with a filter does not see gaps, and
a listing tells counts as reserved. A row that a stopped process sent, and that
the network delivers after a whole session was erased and its grace was over, is left without a
session; `verify` names it. With a `time_to_live` the *tables* drop rows by their own age: counts
then exceed what is there. Listing every user's sessions reads the whole session table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tsmemory.backends.tablestore.client import TablestoreClients, endpoint_of
from tsmemory.backends.tablestore.erasing import Eraser
from tsmemory.backends.tablestore.layout import Layout, LayoutName
from tsmemory.backends.tablestore.listing import Lister
from tsmemory.backends.tablestore.maintenance import Upkeep
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.recovery import Settler
from tsmemory.backends.tablestore.rows import MAX_MESSAGE
from tsmemory.backends.tablestore.writer import Writer
from tsmemory.engine.contract import now_us
from tsmemory.engine.records import (
    Capabilities,
    Change,
    Key,
    MessageQuery,
    Outcome,
    Read,
    SessionQuery,
)
from tsmemory.engine.steps import Steps
from tsmemory.engine.urls import split_url
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = ["TablestoreBackend"]

_GRACE = 2.0
"""Seconds that another writer's batch is given to arrive: some hundred times what one takes."""
_LEAST_TABLE_TTL = 86_400  # seconds; "Data versions and TTL"
_TEXT = (
    "layout", "session_table", "session_index", "message_table", "message_index", "region",
    "sts_token",
)  # fmt: skip


class TablestoreBackend(TablestoreClients):
    """Sessions in two tables of a Tablestore instance; `setup` creates them.

    Args:
        endpoint: and the other arguments of the connection, see `TablestoreClients`.
        layout: ``"isolated"``, or ``"agent-memory"`` for the tables of others.
        session_table, session_index, message_table, message_index: names.
        session_metadata: see `Layout`.
        time_to_live: seconds, a day or more: of the tables, which then drop each row that long
            after it was written, whatever its session does; the isolated layout only.
        clock: µs since the epoch.

    Raises:
        InvalidInputError: an argument that cannot be served; says which.
    """

    capabilities = Capabilities(atomic=False, max_message_bytes=MAX_MESSAGE)

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        layout: LayoutName = "isolated",
        session_table: str = "session",
        session_index: str = "session_secondary_index",
        message_table: str = "message",
        message_index: str = "message_secondary_index",
        session_metadata: Mapping[str, str] | None = None,
        time_to_live: int | None = None,
        clock: Callable[[], int] = now_us,
        **connection: Any,
    ) -> None:
        super().__init__(endpoint, **connection)
        self.layout = Layout(
            layout, session_table, session_index, message_table, message_index,
            dict(session_metadata or {}),
        )  # fmt: skip
        if time_to_live is not None:
            if not self.layout.isolated:
                raise InvalidInputError(
                    "a table with a time to live forbids the updates that agent-memory's layout "
                    "lives by; give its sessions a ttl instead"
                )
            if time_to_live < _LEAST_TABLE_TTL:
                raise InvalidInputError(
                    f"time_to_live is {time_to_live} s; the service takes {_LEAST_TABLE_TTL} up"
                )
        self.clock = clock
        self._reader = Reader(
            self.layout, lambda: self.clock(), lambda: min(_GRACE, self.retry_for / 2)
        )
        settler = Settler(self.layout, self._reader, ask=time_to_live is not None)
        self._lister = Lister(self._reader)
        self._eraser = Eraser(self.layout, self._reader, settler)
        self._writer = Writer(self._reader, settler, self._eraser)
        self._upkeep = Upkeep(self.layout, self._reader, settler, time_to_live)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> TablestoreBackend:
        """``tablestore+https://instance.region.ots.aliyuncs.com/?layout=agent-memory``, or
        ``tablestore+http://127.0.0.1:8087/?instance=local``. The credentials come from the
        environment, or as options.

        Raises:
            InvalidInputError: no host, an unknown option, or no credentials.
        """
        readers: dict[str, Callable[[str], Any]] = dict.fromkeys(_TEXT, str)
        readers.update(
            instance=str, instance_name=str, access_key_id=str, access_key_secret=str,
            time_to_live=int, timeout=float, retry_for=float,
        )  # fmt: skip
        passed = {
            name: options.pop(name)
            for name in ("credentials_provider", "session_metadata") if name in options
        }  # fmt: skip
        _, found = split_url(url, readers, options)
        endpoint, instance, key_id, secret = endpoint_of(url)
        named = found.pop("instance", None) or found.pop("instance_name", None) or instance
        if key_id is not None:
            found = {"access_key_id": key_id, "access_key_secret": secret, **found}
        return cls(endpoint, instance_name=named, **found, **passed)

    def __repr__(self) -> str:
        where = self.endpoint or "client"
        return f"TablestoreBackend({where!r}, layout={self.layout.name!r})"

    def setup(self) -> Steps[None]:
        return self._upkeep.setup()

    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        return self._reader.session(key)

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        return self._lister.list_sessions(query)

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        return self._reader.read(key, query)

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        return self._reader.get_messages(key, ids)

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        return self._writer.commit(key, change)

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        return self._eraser.erase(user_id, session_id)

    def purge_expired(self) -> Steps[Erased]:
        return self._eraser.purge_expired()

    def stats(self) -> Steps[Stats]:
        return self._upkeep.stats()

    def verify(self) -> Steps[list[Problem]]:
        return self._upkeep.verify()
