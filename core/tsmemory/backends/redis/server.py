"""Asking the server: scripts and pipelines as steps, and what the driver's errors mean."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any

import redis.exceptions as driver

from tsmemory.backends.redis.async_wire import AsyncWire
from tsmemory.backends.redis.calls import Aside, Call, Script, plain, scripted
from tsmemory.backends.redis.client import Target, is_async, is_cluster
from tsmemory.backends.redis.health import findings, questions
from tsmemory.backends.redis.layout import SHARDS, KeyNames
from tsmemory.backends.redis.wire import Wire
from tsmemory.engine.contract import now_us
from tsmemory.engine.findings import expired_sessions, merge_nodes
from tsmemory.engine.log import get_logger
from tsmemory.engine.network import ErrorClass, NetworkBackend
from tsmemory.engine.records import Change, Finding, Key
from tsmemory.engine.steps import Steps
from tsmemory.errors import (
    AuthenticationError,
    BackendError,
    InvalidInputError,
    ThrottledError,
    TimeoutError,
    UnavailableError,
)

__all__ = ["RedisServer"]

_log = get_logger("redis")

_LONGEST_REPLY = 60.0  # seconds beyond the retries
_PIPELINE = 200  # commands a pipeline: enough to hide the round trip, little enough to hold


class RedisServer(NetworkBackend):
    """The part of the backend that knows the driver. See `tsmemory.backends.redis`."""

    def __init__(
        self,
        client: Any = None,
        *,
        async_client: Any = None,
        target: Target | None = None,
        prefix: str = "tsmemory",
        retry_for: float = 10.0,
    ) -> None:
        if client is not None and is_async(client):
            client, async_client = None, client
        if (client is None and async_client is None) == (target is None):
            raise InvalidInputError("give a ready client, or a URL to from_url")
        super().__init__(client=client, async_client=async_client, retry_for=retry_for)
        self.names = KeyNames(prefix)
        self.target = target
        ready_clients = [candidate for candidate in (client, async_client) if candidate is not None]
        self.is_cluster = target.is_cluster if target else any(map(is_cluster, ready_clients))
        """Whether a session and the lists are in reach of one script."""

        self.ttl: float | None = None
        self._warned = False
        self._own_clock: Callable[[], int] = now_us
        self._offset = 0

    def clock(self) -> int:
        """The server's time as last heard, and gone on since: µs since the epoch."""
        return self._own_clock() + self._offset

    def heard(self, now: bytes) -> None:
        """The server's time came with a reply."""
        self._offset = int(now) - self._own_clock()

    def default_ttl(self, change: Change) -> float | None:
        """Seconds, for a session that the change begins."""
        return self.ttl if change.default_ttl is None else change.default_ttl

    def remember_ms(self) -> int:
        """How long the server remembers a commit: longer than it is repeated."""
        return round((2 * self.retry_for + _LONGEST_REPLY) * 1000)

    def __repr__(self) -> str:
        where = repr(self.target) if self.target else "a ready client"
        return f"{type(self).__name__}({where}, prefix={self.names.prefix!r})"

    # -- clients -----------------------------------------------------------------------------

    def _target(self) -> Target:
        assert self.target is not None  # without one there is a ready client, which is used
        return self.target

    def _aside(self) -> Aside | None:
        """The look at the server's set-up, once per backend."""
        return None if self._warned else Aside(questions, self._warn)

    def _warn(self, replies: list[Any]) -> None:
        if self._warned:
            return
        self._warned = True
        for finding in findings(replies):
            if not finding.ok:
                _log.warning("%r: %s", self, finding.value)

    def check_server(self) -> Steps[list[Finding]]:
        """Eviction, memory, persistence, replication and expired sessions, as far as the user may
        ask; of a Cluster's masters, all of them."""
        key = self.names.session(Key("setup", "setup")).keys[0]
        of_nodes: dict[str, list[Finding]] = {}
        for node in (yield methodcaller("nodes")):
            replies = []
            for question in questions(key, node):
                try:
                    replies += yield from self.calls([question])
                except (AuthenticationError, BackendError):
                    replies.append(None)
            of_nodes[f"{node.host}:{node.port}" if node else ""] = findings(replies)
        return merge_nodes(of_nodes) + (yield from self._expired())

    def _expired(self) -> Steps[list[Finding]]:
        """Sessions that the server removed by itself leave an entry in the index."""
        expiries = [self.names.shard(shard, "")[2] for shard in range(SHARDS)]
        try:
            counts = yield from self.calls(
                [plain("ZCOUNT", key, "-inf", self.clock()) for key in expiries]
            )
        except (AuthenticationError, BackendError):
            return []
        return [expired_sessions(sum(counts))]

    def _connect(self) -> Wire:
        return Wire(self._target().connect(), owns=True, ask_aside=self._aside())

    def _aconnect(self) -> AsyncWire:
        return AsyncWire(self._target().aconnect(), owns=True, ask_aside=self._aside())

    def _adopt(self, ready: Any) -> Wire:
        return Wire(ready, owns=False, ask_aside=self._aside())

    def _aadopt(self, ready: Any) -> AsyncWire:
        return AsyncWire(ready, owns=False, ask_aside=self._aside())

    def _disconnect(self, client: Wire) -> None:
        client.close()

    async def _adisconnect(self, client: AsyncWire) -> None:
        await client.close()

    def _release(self, adopted: Wire) -> None:
        adopted.close()

    async def _arelease(self, adopted: AsyncWire) -> None:
        await adopted.close()

    # -- asking ------------------------------------------------------------------------------

    def call(self, script: Script, keys: Sequence[str], *args: Any, node: Any = None) -> Steps[Any]:
        """Run a script: one round trip, two where the server does not know it yet."""
        calls = [scripted(script, keys, args, node)]
        return (yield methodcaller("ask", calls))[0]

    def calls(self, calls: Sequence[Call]) -> Steps[list[Any]]:
        """Run scripts and plain commands, pipelined: one round trip for each 200."""
        replies: list[Any] = []
        for first in range(0, len(calls), _PIPELINE):
            replies += yield methodcaller("ask", calls[first : first + _PIPELINE])
        return replies

    # -- errors ------------------------------------------------------------------------------

    def _classify(self, error: Exception) -> ErrorClass:
        is_class_known = isinstance(
            error, (driver.RedisError, driver.RedisClusterException, OSError, asyncio.TimeoutError)
        )
        return _error_class(error, self) if is_class_known else ErrorClass(None)


_PASSING_CODES = frozenset({
    "LOADING", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "BUSY",
})  # fmt: skip
_PASSING = (
    driver.ConnectionError,
    driver.ReadOnlyError,
    driver.TryAgainError,
    driver.ClusterError,  # no node, or no slot, right now
    driver.RedisClusterException,
    driver.MovedError,
    driver.AskError,
    OSError,
)
_CREDENTIALS = (
    driver.AuthenticationError,
    driver.AuthorizationError,
    driver.NoPermissionError,
)
_CREDENTIAL_CODES = frozenset({"NOPERM", "NOAUTH", "WRONGPASS"})
_OTHER_CODES = {"MISCONF", "OOM", "MOVED", "ASK", "CROSSSLOT"}
_CODE = re.compile(r"\b(" + "|".join({*_PASSING_CODES, *_CREDENTIAL_CODES, *_OTHER_CODES}) + r")\b")
"""The code of a reply. redis-py strips those for which it has a class; up to Redis 6.2 the code of
a script's command is inside the text."""
_NO_PERMISSION = re.compile(r"can't run this command or subcommand|No permissions", re.IGNORECASE)
"""What servers say of a script whose command the user may not use, with no code of their own."""


def _error_class(error: Exception, server: RedisServer) -> ErrorClass:
    text = f"{server!r}: {_short(error)}"
    match = _CODE.search(str(error)[:1000])
    code = match[1] if match else ""
    forbidden = isinstance(error, driver.ResponseError) and _NO_PERMISSION.search(str(error))
    if isinstance(error, _CREDENTIALS) or code in _CREDENTIAL_CODES or forbidden:
        return ErrorClass(AuthenticationError(text))
    if isinstance(error, (driver.TimeoutError, asyncio.TimeoutError)):
        return ErrorClass(TimeoutError(text), again=True)
    if code == "OOM" or isinstance(error, driver.OutOfMemoryError):
        return ErrorClass(ThrottledError(f"{text}; the server is at its maxmemory"))
    moved = isinstance(error, (driver.AskError, driver.MovedError)) or code in ("MOVED", "ASK")
    if moved and not server.is_cluster:
        return ErrorClass(BackendError(f"{text}; this is a Cluster: use redis+cluster://"))
    if isinstance(error, _PASSING) or code in _PASSING_CODES:
        return ErrorClass(UnavailableError(text), again=True)
    return ErrorClass(UnavailableError(text) if code == "MISCONF" else BackendError(text))


def _short(error: Exception) -> str:
    """The error in a line; a pipeline's quotes the whole command."""
    return f"{type(error).__name__}: {str(error)[:200]}"
