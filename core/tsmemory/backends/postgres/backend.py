"""PostgreSQL: two tables, one round trip for an append or a window, and no session state.

So a pooler in transaction mode (PgBouncer) may stand before the server. The server's clock gives
the times. Metadata filters run in the client, on rows as the index orders them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import psycopg
import psycopg.conninfo
from psycopg import pq

from tsmemory.backends.postgres.client import AsyncClient, Client, Settings
from tsmemory.backends.postgres.layout import Layout
from tsmemory.backends.postgres.maintenance import Maintenance
from tsmemory.backends.postgres.rows import MAX_BODY
from tsmemory.backends.postgres.search import Search
from tsmemory.backends.postgres.writer import Writer
from tsmemory.engine.contract import now_us
from tsmemory.engine.log import get_logger
from tsmemory.engine.network import ErrorClass, NetworkBackend
from tsmemory.engine.records import Capabilities
from tsmemory.engine.steps import Steps
from tsmemory.engine.urls import as_bool, split_url
from tsmemory.errors import (
    AuthenticationError,
    BackendError,
    InvalidInputError,
    TimeoutError,
    UnavailableError,
)

__all__ = ["PostgresBackend"]

_UNAVAILABLE = ("08", "57P", "25006", "25P03", "25P04", "53", "40", "55006", "0A000")
"""SQLSTATEs, and classes of them, after which the same statement may succeed: lost connections,
shutdown and start-up, a server that became read-only (failover), too many connections,
serialisation failures and deadlocks, a plan that a migration made stale."""
_TIMED_OUT = ("57014", "55P03")
_UNDEFINED = ("42P01", "3F000", "42703")

_log = get_logger("postgres")


class PostgresBackend(Writer, Search, Maintenance, NetworkBackend):
    """Sessions in a PostgreSQL database (13 or later, encoding UTF8). `setup` makes the tables.

    Args:
        conninfo: a libpq connection string or URL; TLS, password file, service and several hosts
            as libpq has them.
        client: instead of `conninfo`: your psycopg connection or pool, sync or async, left open.
            A connection that is in a transaction makes our writes part of it.
        async_client: an async one, beside a sync `client`.
        schema, prefix: where the tables are, and what their names begin with.
        pool_size: connections at most; of asynchronous ones, for each event loop.
        timeout: seconds that a statement may take, and that an operation waits for a free
            connection. None: unlimited (connections still wait 30 s).
        retry_for: seconds during which an operation that failed for a passing reason is repeated.
        prepare: whether repeated statements are prepared in the server. None: where no pooler is
            in between.
        partitions: into how many hash partitions `setup` divides a new messages table; 0: none.
        search: whether messages are indexed for searches, which costs an append about as much
            again in the server. Without it, searches read the messages.
        row_security: have `setup` install the policy of row-level security, and name the user to
            it in each transaction.

    Raises:
        InvalidInputError: an argument that cannot be served.
    """

    capabilities = Capabilities(max_message_bytes=MAX_BODY)

    def __init__(
        self,
        conninfo: str | None = None,
        *,
        client: Any = None,
        async_client: Any = None,
        schema: str = "public",
        prefix: str = "tsmemory_",
        pool_size: int = 10,
        timeout: float | None = 30.0,
        retry_for: float = 10.0,
        prepare: bool | None = None,
        partitions: int = 0,
        search: bool = True,
        row_security: bool = False,
        clock: Callable[[], int] = now_us,
    ) -> None:
        if (conninfo is None) == (client is None and async_client is None):
            raise InvalidInputError("give a connection string, or a client of yours")
        if pool_size < 1 or (timeout is not None and not timeout > 0):
            raise InvalidInputError("pool_size is 1 or more, and timeout more than 0 s, or None")
        if not 0 <= partitions <= 1024:
            raise InvalidInputError(f"partitions is {partitions}; give 0 to 1024")
        self.layout = Layout.named(schema, prefix)
        self.partitions, self.row_security, self.indexed = partitions, row_security, search
        self.clock = clock
        self._conninfo, self._size = conninfo, pool_size
        self._settings = Settings(timeout, row_security, prepare)
        self._wait = timeout or 30.0
        if client is not None and _is_async(client):
            client, async_client = None, client
        super().__init__(client=client, async_client=async_client, retry_for=retry_for)

    def setup(self) -> Steps[None]:
        """Create or migrate the tables, then index the messages that are not, in slices."""
        yield from super().setup()
        done = 0
        while self.indexed and (count := (yield from self.backfill())):
            done += count
            _log.info("indexing for search: %d messages done", done)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> PostgresBackend:
        """``postgresql://user:password@host:port/database?schema=chat&sslmode=require``: libpq's
        URL, its parameters and the options of this class.

        Raises:
            InvalidInputError: an unknown option, or a URL that libpq does not read.
        """
        keywords = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        readers: dict[str, Callable[[str], Any]] = {**dict.fromkeys(keywords, str), **_READERS}
        parts, options_read = split_url(url, readers, options)
        keyword_options = {name: options_read.pop(name) for name in keywords & options_read.keys()}
        usual = {"fallback_application_name": "tsmemory", "connect_timeout": 10}
        try:
            conninfo = psycopg.conninfo.make_conninfo(
                f"{parts.scheme}://{parts.netloc}{parts.path}", **{**usual, **keyword_options}
            )
        except psycopg.Error:
            # libpq's own words may repeat a password that was not percent-encoded.
            raise InvalidInputError(
                "libpq does not read this URL; write postgresql://user:password@host:port/database,"
                " with special characters percent-encoded"
            ) from None
        return cls(conninfo, **options_read)

    def __repr__(self) -> str:
        where = ""
        if self._conninfo is not None:
            parts = psycopg.conninfo.conninfo_to_dict(self._conninfo)
            where = f"host={parts.get('host')!r}, dbname={parts.get('dbname')!r}, "
        return f"PostgresBackend({where}schema={self.layout.schema!r})"

    # -- clients (engine.network) ------------------------------------------------------------

    def _connect(self) -> Client:
        return Client.opened(self._conninfo or "", self._settings, self._size, self._wait)

    def _aconnect(self) -> AsyncClient:
        return AsyncClient.opened(self._conninfo or "", self._settings, self._size, self._wait)

    def _disconnect(self, client: Client) -> None:
        client.close()

    async def _adisconnect(self, client: AsyncClient) -> None:
        await client.close()

    def _adopt(self, ready: Any) -> Client:
        return Client.around(ready, self._settings, self._wait)

    def _aadopt(self, ready: Any) -> AsyncClient:
        return AsyncClient.around(ready, self._settings, self._wait)

    def _classify(self, error: Exception) -> ErrorClass:
        if not isinstance(error, psycopg.Error):
            # A caller's pool has errors of its own, subclasses of psycopg's.
            return ErrorClass(None)
        state = error.sqlstate or ""
        says = error.diag.message_primary or str(error).partition("\n")[0]
        text = f"PostgreSQL: {says}" + (f" ({state})" if state else "")
        if state.startswith("28"):
            return ErrorClass(AuthenticationError(text))
        if state.startswith(_TIMED_OUT):
            return ErrorClass(TimeoutError(text), again=True)
        if state.startswith(_UNDEFINED):
            return ErrorClass(UnavailableError(f"{text}; has setup() created the tables?"))
        lost = not state and isinstance(error, psycopg.OperationalError)
        # While connecting, libpq passes on the server's words, but no SQLSTATE.
        if lost and any(word in says for word in ("authentication", "pg_hba.conf", "FATAL:  role")):
            return ErrorClass(AuthenticationError(text))
        if lost or state.startswith(_UNAVAILABLE):
            return ErrorClass(UnavailableError(text), again=True)
        if isinstance(error, psycopg.errors.UniqueViolation):
            return ErrorClass(UnavailableError(text), again=True)  # step 5 of `writer`
        return ErrorClass(BackendError(text))


_READERS: dict[str, Callable[[str], Any]] = {
    "schema": str,
    "prefix": str,
    "pool_size": int,
    "timeout": float,
    "retry_for": float,
    "prepare": as_bool,
    "partitions": int,
    "search": as_bool,
    "row_security": as_bool,
}


def _is_async(client: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(client, "getconn", client.close))
