"""Tablestore (Alibaba Cloud OTS): two tables in the service, over the official SDK.

What is in the tables is public: `layout` has the tables and keys, `records` the rows of sessions,
`rows` those of messages. The protocol of commits is in `writer`, what survives a crash in
`recovery`, what is cached in `session_cache`.

Limits: between a deletion's first request and its last a reader may still see what is being
deleted; a message that is put to another time is for a moment there twice. A window that ends
inside the newest batch does not see a gap further back in that batch. A listing reports counts as
reserved. A row that a stopped process sent, and that the network delivers after its session was
erased, is left without a session; `verify` names it. With a `time_to_live` the *tables* drop rows
by their own age: counts then exceed what is there. Listing every user's sessions reads the whole
session table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tsmemory.backends.tablestore.client import TablestoreClients, endpoint_of
from tsmemory.backends.tablestore.erasing import Eraser
from tsmemory.backends.tablestore.layout import Layout, LayoutName
from tsmemory.backends.tablestore.listing import Lister
from tsmemory.backends.tablestore.maintenance import Maintenance
from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.recovery import Recovery
from tsmemory.backends.tablestore.rows import MAX_MESSAGE
from tsmemory.backends.tablestore.writer import Writer
from tsmemory.engine.contract import now_us
from tsmemory.engine.findings import not_counted
from tsmemory.engine.records import (
    Capabilities,
    Change,
    Decide,
    Finding,
    Key,
    MessageQuery,
    Outcome,
    Read,
    SessionQuery,
)
from tsmemory.engine.scan import scan
from tsmemory.engine.search import Candidates, SearchQuery
from tsmemory.engine.steps import Steps, immediate
from tsmemory.engine.urls import as_bool, split_url
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Erased, Message, Problem, Session, Stats

__all__ = ["TablestoreBackend"]

_PATIENCE = 2.0
"""Seconds that another writer's messages are given to arrive: some hundred times what they take."""
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
        search: keep a search index over the messages, which `setup` creates; the isolated layout
            only. Every writer of the tables has to say so.
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
        search: bool = False,
        time_to_live: int | None = None,
        clock: Callable[[], int] = now_us,
        **connection: Any,
    ) -> None:
        super().__init__(endpoint, **connection)
        self.layout = Layout(
            layout, session_table, session_index, message_table, message_index,
            dict(session_metadata or {}), search,
        )  # fmt: skip
        if time_to_live is not None:
            if search:
                raise InvalidInputError(
                    "search=True adds text to rows, which a table with a time to live forbids; "
                    "give sessions a ttl instead"
                )
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
            self.layout, lambda: self.clock(), lambda: min(_PATIENCE, self.retry_for / 2)
        )
        recovery = Recovery(self.layout, self._reader, whole_rows=time_to_live is not None)
        self._lister = Lister(self._reader)
        self._eraser = Eraser(self.layout, self._reader, recovery)
        scope = (self.endpoint or id(self), self.instance_name, session_table, message_table)
        self._writer = Writer(scope, self._owner, self._reader, recovery, self._eraser)
        self._maintenance = Maintenance(self.layout, self._reader, recovery, time_to_live)

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
            time_to_live=int, timeout=float, retry_for=float, search=as_bool,
        )  # fmt: skip
        passed = {
            name: options.pop(name)
            for name in ("credentials_provider", "session_metadata") if name in options
        }  # fmt: skip
        _, values = split_url(url, readers, options)
        endpoint, instance, key_id, secret = endpoint_of(url)
        named = values.pop("instance", None) or values.pop("instance_name", None) or instance
        if key_id is not None:
            values = {"access_key_id": key_id, "access_key_secret": secret, **values}
        return cls(endpoint, instance_name=named, **values, **passed)

    def _owner(self) -> object:
        """Equal for stores whose appends may be committed together: same tables and credentials,
        same clock."""
        if not self._options:
            return id(self)
        options = {k: v for k, v in self._options.items() if k != "retry_policy"}
        return options, self.layout, self.clock

    def __repr__(self) -> str:
        where = self.endpoint or "client"
        return f"TablestoreBackend({where!r}, layout={self.layout.name!r})"

    def setup(self) -> Steps[None]:
        return self._maintenance.setup()

    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        return self._reader.session(key)

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        return self._lister.list_sessions(query)

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        return self._reader.read(key, query)

    def search(self, query: SearchQuery) -> Steps[Candidates]:
        if self.layout.search:
            return (yield from self._maintenance.search_index.search(query))
        return (yield from scan(self, query))

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        return self._reader.get_messages(key, ids)

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        return self._writer.commit(key, change)

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        return self._writer.rewrite(key, decide, ids)

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        return self._eraser.erase(user_id, session_id)

    def purge_expired(self) -> Steps[Erased]:
        return self._eraser.purge_expired()

    def stats(self) -> Steps[Stats]:
        return self._maintenance.stats()

    def verify(self) -> Steps[list[Problem]]:
        return self._maintenance.verify()

    @immediate
    def check_server(self) -> list[Finding]:
        """No request tells how many sessions have expired: no index has the time."""
        return [not_counted("it would read every session; tsmemory stats does")]
