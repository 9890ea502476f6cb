"""ZeroDB: one table of a project, over the REST API that keeps tables.

Two dialects of that API are spoken, since public texts of the vendor disagree (`client`). It was
never run against the service.

There is one row per message and one per session (`rows`). The API has neither transactions nor
unique keys, but an update by filter that reports how many rows it changed; `writer` makes commits
of that. They are atomic, exactly-once and safe among writers **as far as the service applies such
an update to one row in one step, and a read after a reply sees what the reply reported**. The
vendor promises neither in words.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httpx

from tsmemory.backends.zerodb import maintenance as upkeep
from tsmemory.backends.zerodb import reader as reading
from tsmemory.backends.zerodb.client import DIALECTS, Api, AsyncApi, Connection, classify
from tsmemory.backends.zerodb.session_cache import SessionCache
from tsmemory.backends.zerodb.writer import commit, find
from tsmemory.engine.commit import encode_bodies
from tsmemory.engine.contract import now_us
from tsmemory.engine.network import ErrorClass, NetworkBackend
from tsmemory.engine.pool import AsyncPool, Pool
from tsmemory.engine.records import (
    Capabilities,
    Change,
    Finding,
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

__all__ = ["API_URL", "ZeroDBBackend"]

API_URL = "https://api.ainative.studio"
"""Where the service is, unless told otherwise (``ainative/client.py``, `ClientConfig`)."""

_MAX_BODY = 1_000_000  # bytes of one message; ours: the vendor names no limit of a row


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Loading them takes some 20 ms, which every client would spend again."""
    return httpx.create_ssl_context()


class ZeroDBBackend(NetworkBackend):
    """Sessions in one table of a ZeroDB project.

    Args:
        project: the project's id; default: ``ZERODB_PROJECT_ID``.
        api_key: default: ``ZERODB_API_KEY``.
        api_url: where the service is; default: ``ZERODB_API_URL``, or `API_URL`. The dialect adds
            the path.
        table: the table's name; `setup` creates it.
        timeout: seconds for each phase of one request: to connect, send, and wait for a reply.
        retry_for: seconds during which a request that fails for a passing reason (429, 5xx, no
            connection, no reply) is sent again, with back-off, or when the service says
            (``Retry-After``).
        dialect: ``"sdk"`` or ``"specification"``; None: found at first use.
        pool_size: connections at most; of asynchronous ones, for each event loop.
        client: a ready `httpx.Client`, left open; `async_client`: a ready `httpx.AsyncClient`.
        clock: µs since the epoch. Times are this machine's: the API has none.

    Raises:
        InvalidInputError: no project or no key, or an invalid argument.
    """

    capabilities = Capabilities(max_message_bytes=_MAX_BODY)

    def __init__(
        self,
        project: str | None = None,
        *,
        api_key: str | None = None,
        api_url: str | None = None,
        table: str = "tsmemory",
        timeout: float = 30.0,
        retry_for: float = 10.0,
        dialect: str | None = None,
        pool_size: int = 10,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        project = project or os.environ.get("ZERODB_PROJECT_ID")
        key = api_key or os.environ.get("ZERODB_API_KEY")
        if not project:
            raise InvalidInputError(
                "which ZeroDB project? give its id, as in zerodb://PROJECT, or set "
                "ZERODB_PROJECT_ID"
            )
        if not key:
            raise InvalidInputError("ZeroDB needs a key: give api_key or set ZERODB_API_KEY")
        if not key.isascii() or not key.isprintable():
            raise InvalidInputError("the ZeroDB key holds characters that no HTTP header can")
        if not table:
            raise InvalidInputError("table is empty; leave it out for 'tsmemory'")
        if not timeout > 0:
            raise InvalidInputError(f"timeout is {timeout} s; give more than 0")
        url = (api_url or os.environ.get("ZERODB_API_URL") or API_URL).rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise InvalidInputError("the ZeroDB API's address begins with https:// or http://")
        if dialect is not None and dialect not in DIALECTS:
            raise InvalidInputError(f"dialect is {dialect!r}; one of {', '.join(DIALECTS)}")
        if pool_size < 1:
            raise InvalidInputError(f"pool_size is {pool_size}; give 1 or more")
        self.project = project
        self.table = table
        self.api_url = url.removesuffix("/api/v1").rstrip("/")
        self.timeout = float(timeout)
        self.clock = clock
        self._size = pool_size
        self._connection = Connection(self.api_url, project, table, key, dialect)
        self._cache = SessionCache()
        super().__init__(client=client, async_client=async_client, retry_for=retry_for)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> ZeroDBBackend:
        """``zerodb://PROJECT``, or ``zerodb+https://host/PROJECT`` (``zerodb+http://`` for a server
        of your own) with the options ``table``, ``timeout``, ``retry_for``, ``dialect``,
        ``pool_size`` and ``api_key`` (better in ``ZERODB_API_KEY``, where no list of processes and
        no log shows it).

        Raises:
            InvalidInputError: a user name, a path or an option that is not known.
        """
        readers: dict[str, Callable[[str], Any]] = {
            "table": str,
            "timeout": float,
            "retry_for": float,
            "dialect": str,
            "pool_size": int,
            "api_key": str,
        }
        ready: dict[str, Any] = {
            name: options.pop(name)
            for name in ("client", "async_client", "project", "api_url")
            if name in options
        }
        parts, values = split_url(url, readers, options)
        if "@" in parts.netloc or parts.fragment:
            raise InvalidInputError(
                "a ZeroDB URL holds no user, password or fragment; the key belongs in "
                "ZERODB_API_KEY"
            )
        path = unquote(parts.path.strip("/"))
        if parts.scheme == "zerodb":
            if path:
                raise InvalidInputError("write zerodb://PROJECT, or zerodb+https://host/PROJECT")
            values["project"] = unquote(parts.netloc) or None
        else:
            values["project"] = path or None
            values["api_url"] = f"{parts.scheme.partition('+')[2]}://{parts.netloc}"
        values.update(ready)
        return cls(**values)

    def __repr__(self) -> str:
        return f"ZeroDBBackend({self.project!r}, table={self.table!r}, api_url={self.api_url!r})"

    # -- clients -----------------------------------------------------------------------------

    @property
    def dialect(self) -> str | None:
        """Which dialect the service speaks; None before the first answer."""
        return self._connection.dialect.name if self._connection.dialect else None

    def _connect(self) -> Api:
        # A client per connection: one that did not finish its exchange is closed with its client.
        pool: Pool[httpx.Client] = Pool(
            lambda: httpx.Client(timeout=self.timeout, verify=_certificates()),
            httpx.Client.close,
            lambda client: not client.is_closed,
            size=self._size,
            timeout=self.timeout,
        )
        api = Api(self._connection, pool.lease)
        api.close = pool.close
        return api

    def _aconnect(self) -> AsyncApi:
        async def connect() -> httpx.AsyncClient:
            return httpx.AsyncClient(timeout=self.timeout, verify=_certificates())

        pool: AsyncPool[httpx.AsyncClient] = AsyncPool(
            connect,
            httpx.AsyncClient.aclose,
            lambda client: not client.is_closed,
            size=self._size,
            timeout=self.timeout,
        )
        api = AsyncApi(self._connection, pool.lease)
        api.close = pool.close
        return api

    def _disconnect(self, client: Api) -> None:
        client.close()

    async def _adisconnect(self, client: AsyncApi) -> None:
        await client.close()

    def _adopt(self, ready: Any) -> Api:
        return Api(self._connection, lambda: nullcontext(ready))

    def _aadopt(self, ready: Any) -> AsyncApi:
        return AsyncApi(self._connection, lambda: nullcontext(ready))

    def _classify(self, error: Exception) -> ErrorClass:
        return classify(error)

    # -- operations --------------------------------------------------------------------------

    def setup(self) -> Steps[None]:
        return upkeep.setup(self.table)

    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        try:
            loaded, _ = yield from find(key)
        except CorruptRecordError as error:
            return error
        if loaded is None or loaded.row.expired(self.clock()):
            return None
        return loaded.session

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        return reading.list_sessions(query, self.clock())

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        return reading.read(key, query, self.clock())

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        return reading.get_messages(key, ids, self.clock())

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        bodies = encode_bodies(change, _MAX_BODY)
        return (yield from commit(key, change, bodies, self.clock, self.retry_for, self._cache))

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        return upkeep.erase(user_id, session_id)

    def purge_expired(self) -> Steps[Erased]:
        return upkeep.purge_expired(self.clock())

    def stats(self) -> Steps[Stats]:
        return upkeep.stats(self.clock())

    def verify(self) -> Steps[list[Problem]]:
        return upkeep.verify()

    def check_server(self) -> Steps[list[Finding]]:
        """Which dialect the service speaks, and expired sessions, a page of them at most."""
        expired = yield from upkeep.count_expired(self.clock())
        dialect = f"{self.dialect}, of the vendor's two API texts"
        return [Finding("dialect", True, dialect), expired]

    def compact(self, key: Key) -> Steps[int]:
        return upkeep.compact(key)
