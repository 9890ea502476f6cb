"""Exchanges of the async mode. The steps are those of `wire`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions as driver

from tsmemory.backends.redis.calls import Aside, Call, plain
from tsmemory.backends.redis.client import adisconnect
from tsmemory.backends.redis.wire import CHECK_AFTER, Group, Wires, redirects

if sys.version_info >= (3, 11):
    from asyncio import timeout as _timeout
else:  # redis-py depends on it there
    from async_timeout import timeout as _timeout  # type: ignore[import-not-found]

__all__ = ["AsyncWire"]


class AsyncWire(Wires):
    """Exchanges of the async mode, on one event loop."""

    def __init__(self, client: Any, *, owns: bool, ask_aside: Aside | None = None) -> None:
        super().__init__(client, owns=owns, ask_aside=ask_aside)
        self._timeout: float | None = None
        self._permits = asyncio.Semaphore(self._limit)
        self._starting = asyncio.Lock()
        self._stale = self._is_cluster  # its nodes are not known yet
        self._started = False

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        """Same as `Wire.ask`."""
        try:
            async with self._permits:
                if self._stale:
                    await self._refresh()
                every = self._beside(calls)
                replies = await self._exchange(self._route(every), len(every))
                replies = self._hear(len(calls), replies)
                missing = self._finish(calls, replies)
                if missing:
                    again = [calls[i] for i in missing]
                    repeated = await self._exchange(self._route(again), len(again))
                    self._finish(again, repeated)
                    for i, reply in zip(missing, repeated, strict=True):
                        replies[i] = reply
                for i, reply in enumerate(replies):
                    if redirects(reply):
                        replies[i] = await self._ask_elsewhere(calls[i], reply)
                return replies
        except Exception as error:
            self._note(error)
            raise

    async def _exchange(self, groups: list[Group], count: int) -> list[Any]:
        replies: list[Any] = [None] * count
        connections: list[tuple[str, Any]] = []
        try:
            async with _timeout(self._timeout):
                for group in groups:  # 1
                    connections.append((group.node, await self._take(group)))
                    await connections[-1][1].connect()
                for group, (_, connection) in zip(groups, connections, strict=True):  # 2
                    await connection.send_packed_command([self._pack(group)])
                for group, (_, connection) in zip(groups, connections, strict=True):
                    for i, call in group.calls:
                        replies[i] = self._answer(group.node, call, await _aread(connection))  # 4
        except BaseException:  # 3
            for _, connection in connections:
                await connection.disconnect(nowait=True)
            raise
        now = time.monotonic()
        for node, connection in connections:
            self._idle[node].append((connection, now))
        return replies

    async def _take(self, group: Group) -> Any:
        spare = self._spare(group.node)
        if spare is None:
            return group.open()
        connection, since = spare
        if time.monotonic() - since > CHECK_AFTER and not await _ais_quiet(connection):
            await connection.disconnect(nowait=True)
        return connection

    async def _ask_elsewhere(self, call: Call, error: Any) -> Any:
        node = self.client.nodes_manager.get_node(host=error.host, port=error.port)
        if node is None:
            raise driver.ClusterDownError("a redirection to an unknown node")
        connection = self._opener(node)()
        try:
            packed = plain("ASKING").pack() + call.pack(whole=True)
            async with _timeout(self._timeout):
                await connection.send_packed_command([packed])
                await _aread(connection)
                reply = call.answer(await _aread(connection))
        finally:
            await connection.disconnect(nowait=True)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _opener(self, node: Any) -> Callable[[], Any]:
        return self._open_by(node.connection_class, node.connection_kwargs)

    def _open_by(self, kind: Any, options: dict[str, Any]) -> Callable[[], Any]:
        # One time limit for the whole exchange: redis-py's own costs a task for each write.
        self._timeout = options.get("socket_timeout")
        connect = options.get("socket_connect_timeout") or self._timeout
        limits = {"socket_timeout": None, "socket_connect_timeout": connect}
        return lambda: kind(**{**options, **limits})

    async def _refresh(self) -> None:
        # One at a time: redis-py's own start lets others see half of it.
        async with self._starting:
            if not self._stale:
                return
            await self.drop_idle()
            if self._is_cluster:
                await self.client.initialize()  # asks for the nodes where it is the first to
                if self._started:
                    await self.client.nodes_manager.initialize()
                self._started = True
            self._stale = False

    async def nodes(self) -> list[Any]:
        """Same as `Wire.nodes`."""
        if not self._is_cluster:
            return [None]
        if self._stale:
            await self._refresh()
        return list(self.client.get_primaries())

    async def drop_idle(self) -> None:
        """Close the connections that no exchange uses."""
        for spares in list(self._idle.values()):
            while spares:
                await spares.pop()[0].disconnect()

    async def close(self) -> None:
        """Close the idle connections, and the client unless it was passed in."""
        await self.drop_idle()
        if self._owns:
            await adisconnect(self.client)


async def _aread(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except driver.ResponseError as error:
        return error


async def _ais_quiet(connection: Any) -> bool:
    try:
        return not await connection.can_read()
    except (driver.RedisError, OSError):
        return False
