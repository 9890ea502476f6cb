"""Asking the server: scripts and pipelines as steps, and what the driver's errors mean."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from operator import methodcaller
from typing import Any, NamedTuple

import redis.exceptions as driver

from tsmemory.backends.redis.client import (
    Target,
    adisconnect,
    disconnect,
    is_async,
    is_cluster,
)
from tsmemory.backends.redis.layout import Keys
from tsmemory.backends.redis.scripts import Script
from tsmemory.engine.network import NetworkBackend, Verdict
from tsmemory.engine.steps import Steps
from tsmemory.errors import (
    AuthenticationError,
    BackendError,
    InvalidInputError,
    ThrottledError,
    TimeoutError,
    TSMemoryError,
    UnavailableError,
)

__all__ = ["Call", "RedisServer"]

_PIPELINE = 200  # commands a pipeline: enough to hide the round trip, little enough to hold
_RELOADS = 5  # a pipeline over several servers may meet one that knows no script more than once


class Call(NamedTuple):
    """A script with its keys and arguments."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any] = ()

    def command(self, *, whole: bool = False) -> tuple[Any, ...]:
        """The command; `whole` sends the script itself, which loads it."""
        verb, name = ("EVAL", self.script.text) if whole else ("EVALSHA", self.script.sha)
        return (verb, name, len(self.keys), *self.keys, *self.args)


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
        self.names = Keys(prefix)
        self.target = target
        given = [one for one in (client, async_client) if one is not None]
        self.is_cluster = target.is_cluster if target else any(map(is_cluster, given))
        """Whether a session and the lists are in reach of one script."""

    def __repr__(self) -> str:
        where = repr(self.target) if self.target else "a ready client"
        return f"{type(self).__name__}({where}, prefix={self.names.prefix!r})"

    # -- clients -----------------------------------------------------------------------------

    def _target(self) -> Target:
        assert self.target is not None  # without one there is a ready client, which is used
        return self.target

    def _connect(self) -> Any:
        return self._target().connect()

    def _aconnect(self) -> Any:
        return self._target().aconnect()

    def _disconnect(self, client: Any) -> None:
        disconnect(client)

    async def _adisconnect(self, client: Any) -> None:
        await adisconnect(client)

    # -- asking ------------------------------------------------------------------------------

    def call(self, script: Script, keys: Sequence[str], *args: Any, **to: Any) -> Steps[Any]:
        """Run a script: one round trip, two where the server does not know it yet."""
        call = Call(script, keys, args)
        try:
            return (yield lambda c: c.execute_command(*call.command(), NEVER_DECODE=True, **to))
        except driver.NoScriptError:
            command = call.command(whole=True)
            return (yield lambda c: c.execute_command(*command, NEVER_DECODE=True, **to))

    def calls(self, calls: Sequence[Call | tuple[Any, ...]]) -> Steps[list[Any]]:
        """Run scripts and plain commands, pipelined: one round trip for each 200."""
        replies: list[Any] = []
        for first in range(0, len(calls), _PIPELINE):
            replies += yield from self._pipeline(calls[first : first + _PIPELINE])
        return replies

    def _pipeline(self, calls: Sequence[Call | tuple[Any, ...]]) -> Steps[list[Any]]:
        def send(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for call in calls:
                command = call.command() if isinstance(call, Call) else call
                pipeline.execute_command(*command, NEVER_DECODE=True)
            return pipeline.execute()

        if len(calls) == 1 and isinstance(calls[0], Call):
            return [(yield from self.call(calls[0].script, calls[0].keys, *calls[0].args))]
        for _ in range(_RELOADS):
            try:
                return (yield send)  # type: ignore[no-any-return]
            except driver.NoScriptError as error:
                missing = error
                for script in {c.script for c in calls if isinstance(c, Call)}:
                    yield methodcaller("script_load", script.text)
        raise UnavailableError(f"the server forgets scripts: {_short(missing)}") from missing

    # -- errors ------------------------------------------------------------------------------

    def _judge(self, error: Exception) -> Verdict:
        if isinstance(error, driver.NoScriptError):
            return Verdict(None)
        known = isinstance(
            error, (driver.RedisError, driver.RedisClusterException, OSError, asyncio.TimeoutError)
        )
        return _verdict(error, self) if known else Verdict(None)


_AGAIN = r"LOADING|READONLY|CLUSTERDOWN|TRYAGAIN|MASTERDOWN|NOREPLICAS|BUSY|MOVED|ASK"
_CODE = re.compile(rf"\b({_AGAIN}|MISCONF|OOM|NOPERM|NOAUTH|WRONGPASS|CROSSSLOT)\b")
"""Codes of replies; older servers give those of a script's commands inside the text."""


def _verdict(error: Exception, server: RedisServer) -> Verdict:
    text = f"{server!r}: {_short(error)}"
    found = _CODE.search(str(error)[:1000])
    code = found[1] if found else ""
    ours: TSMemoryError
    if isinstance(error, _CREDENTIALS) or code in ("NOPERM", "NOAUTH", "WRONGPASS"):
        return Verdict(AuthenticationError(text))
    if isinstance(error, (driver.TimeoutError, asyncio.TimeoutError)):
        return Verdict(TimeoutError(text), again=True)
    if code == "OOM" or isinstance(error, driver.OutOfMemoryError):
        return Verdict(ThrottledError(f"{text}; the server is at its maxmemory"))
    moved = isinstance(error, driver.AskError) or code in ("MOVED", "ASK")  # MovedError is one too
    if moved and not server.is_cluster:
        return Verdict(BackendError(f"{text}; this is a Cluster: use redis+cluster://"))
    if isinstance(error, (driver.ConnectionError, OSError)) or (code and code in _AGAIN):
        return Verdict(UnavailableError(text), again=True)
    if isinstance(error, (driver.ClusterError, driver.RedisClusterException)):
        return Verdict(UnavailableError(text), again=True)  # no node, or no slot, right now
    ours = UnavailableError(text) if code == "MISCONF" else BackendError(text)
    return Verdict(ours)


_CREDENTIALS = (
    driver.AuthenticationError,
    driver.AuthorizationError,
    driver.NoPermissionError,
)


def _short(error: Exception) -> str:
    """The error in a line; a pipeline's quotes the whole command."""
    return f"{type(error).__name__}: {str(error)[:200]}"
