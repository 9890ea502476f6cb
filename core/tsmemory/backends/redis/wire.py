"""Exchanges with the server: a connection is either idle, or held by the exchange that uses it.

redis-py opens, secures and parses connections, and knows the nodes of a Cluster. Who uses a
connection is decided here, for clients that were passed in as well, because its own pools hand one
out again whatever happened to the reply that was due on it:

1. An exchange takes an idle connection out of the pool, or opens one. From then on only the
   exchange refers to it.
2. It writes every command, then reads every reply.
3. Only when all were read is the connection idle again. Whatever else ends the exchange (an error,
   an interrupt, a cancellation) closes the connection; an interrupt between two of these lines
   drops the last reference to it, which closes it too.
4. Every script returns the number of the call that it answers. Another number means that something
   between us and the server mixes up replies: the connection is closed and the call repeated.

A call that the server redirects (``ASK``) is repeated where it says; after ``MOVED``, or an error
of a connection, the nodes are asked for anew before the next exchange.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakSet

import redis.exceptions as driver

from tsmemory.backends.redis.client import adisconnect, disconnect, is_cluster
from tsmemory.engine.log import get_logger

if sys.version_info >= (3, 11):
    from asyncio import timeout as _timeout
else:  # redis-py depends on it there
    from async_timeout import timeout as _timeout  # type: ignore[import-not-found]

__all__ = ["AsyncWire", "Call", "ForeignReplyError", "Script", "Wire", "plain"]

_log = get_logger("redis")
_DEFAULT_LIMIT = 50  # connections
_LARGEST_LIMIT = 10_000  # where a client sets none
_CHECK_AFTER = 1.0  # seconds idle after which the server may have closed a connection
_numbers = itertools.count()
_PROCESS = os.urandom(4).hex()


class ForeignReplyError(driver.ConnectionError):
    """The reply to another command was read."""


class Script(NamedTuple):
    """A script and the name by which the server knows it."""

    text: str
    sha: str


class Call(NamedTuple):
    """A script, or a plain command, with its keys and arguments."""

    script: Script | None
    keys: Sequence[str | bytes]
    args: Sequence[Any] = ()
    node: Any = None
    """The Cluster's node to ask; None: the one that has the keys."""
    number: bytes = b""
    """What a script's reply begins with."""

    def pack(self, *, whole: bool = False) -> bytes:
        """The command as it is sent; `whole` sends the script itself, which loads it."""
        script = self.script
        if script is None:
            return _pack(self.args)
        verb, name = ("EVAL", script.text) if whole else ("EVALSHA", script.sha)
        return _pack((verb, name, len(self.keys), *self.keys, *self.args, self.number))

    def answer(self, reply: Any) -> Any:
        """What a reply holds for this call.

        Raises:
            ForeignReplyError: it answers another.
        """
        if self.script is None or isinstance(reply, Exception):
            return reply
        if type(reply) is not list or len(reply) != 2 or reply[0] != self.number:
            raise ForeignReplyError("a reply to another command was read")
        return reply[1]


def scripted(
    script: Script, keys: Sequence[str | bytes], args: Sequence[Any] = (), node: Any = None
) -> Call:
    """A call of a script, numbered."""
    return Call(script, keys, args, node, f"{_PROCESS}.{next(_numbers):x}".encode())


def plain(*args: Any, node: Any = None) -> Call:
    """A plain command; its first argument after the name is its key, unless `node` is given."""
    return Call(None, args[1:2] if node is None else (), args, node)


def _pack(parts: Iterable[Any]) -> bytes:
    """A command in the protocol's form: https://valkey.io/topics/protocol/."""
    packed = [b""]
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        packed += (b"$%d\r\n" % len(data), data, b"\r\n")
    packed[0] = b"*%d\r\n" % (len(packed) // 3)
    return b"".join(packed)


class Aside(NamedTuple):
    """Questions that go along with a client's first exchange, and what hears the replies."""

    questions: Callable[[Any], Sequence[Call]]
    hear: Callable[[list[Any]], None]


class _Group(NamedTuple):
    """The calls of an exchange that go to one node."""

    node: str
    open: Callable[[], Any]
    calls: list[tuple[int, Call]]


class _Wires(ABC):
    """What both modes share: idle connections by node, and which calls go where."""

    def __init__(self, client: Any, *, owns: bool, ask_aside: Aside | None = None) -> None:
        self.client = client
        self._owns = owns
        self._is_cluster = is_cluster(client)
        self._idle: dict[str, deque[tuple[Any, float]]] = defaultdict(deque)
        self._stale = False
        self._aside = ask_aside
        pool = getattr(client, "connection_pool", None)
        limit = getattr(pool, "max_connections", None) or _DEFAULT_LIMIT
        self._limit = min(limit, _LARGEST_LIMIT)

    def _route(self, calls: Sequence[Call]) -> list[_Group]:
        if not self._is_cluster:
            pool = self.client.connection_pool
            opener = self._open_by(pool.connection_class, pool.connection_kwargs)
            return [_Group("", opener, list(enumerate(calls)))]
        groups: dict[str, _Group] = {}
        for i, call in enumerate(calls):
            node = call.node or self.client.get_node_from_key(_text(call.keys[0]))
            if node is None:
                raise driver.ClusterDownError("no node has the slot")
            if node.name not in groups:
                groups[node.name] = _Group(node.name, self._opener(node), [])
            groups[node.name].calls.append((i, call))
        return list(groups.values())

    def _open_by(self, kind: Any, options: dict[str, Any]) -> Callable[[], Any]:
        """What opens connections of redis-py's class `kind`."""
        return lambda: kind(**options)

    @abstractmethod
    def _opener(self, node: Any) -> Callable[[], Any]:
        """What opens connections to a node of the Cluster."""

    def _spare(self, node: str) -> tuple[Any, float] | None:
        try:
            return self._idle[node].pop()
        except IndexError:
            return None

    def _beside(self, calls: Sequence[Call]) -> Sequence[Call]:
        """The calls of an exchange: the first one of all asks something aside."""
        if self._aside is None or not calls[0].keys:
            return calls
        return [*calls, *self._aside.questions(calls[0].keys[0])]

    def _hear(self, count: int, replies: list[Any]) -> list[Any]:
        """The replies to the calls of an exchange, less what was asked aside."""
        aside = self._aside
        if aside is not None and len(replies) > count:
            self._aside = None
            aside.hear(replies[count:])
        return replies[:count]

    def _finish(self, calls: Sequence[Call], replies: list[Any]) -> list[int]:
        """The calls to repeat with their scripts.

        Raises:
            redis.exceptions.RedisError: what the server answered instead.
        """
        missing = []
        for i, reply in enumerate(replies):
            if isinstance(reply, driver.NoScriptError):
                missing.append(i)
            elif isinstance(reply, Exception) and not _redirects(reply):
                raise reply
        return missing

    def _note(self, error: BaseException) -> None:
        """Forget what an error puts in doubt: the nodes, and every idle connection."""
        if isinstance(error, (driver.ConnectionError, driver.ReadOnlyError, driver.MovedError)):
            self._stale = True
            if isinstance(error, ForeignReplyError):
                _log.warning("a foreign reply was read: its connection is closed")


def _redirects(reply: Any) -> bool:
    return isinstance(reply, driver.AskError) and not isinstance(reply, driver.MovedError)


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode()


class Wire(_Wires):
    """Exchanges of the sync mode, for any number of threads."""

    def __init__(self, client: Any, *, owns: bool, ask_aside: Aside | None = None) -> None:
        super().__init__(client, owns=owns, ask_aside=ask_aside)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: WeakSet[Any] = WeakSet()

    def ask(self, calls: Sequence[Call]) -> list[Any]:
        """A reply for each call.

        Raises:
            redis.exceptions.RedisError: a reply was an error, or there was none.
        """
        if self._pid != os.getpid():  # a fork's connections are its parent's
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._idle, self._open = defaultdict(deque), WeakSet()
        try:
            if self._stale:
                self._refresh()
            every = self._beside(calls)
            replies = self._exchange(self._route(every), len(every), whole=False)
            replies = self._hear(len(calls), replies)
            missing = self._finish(calls, replies)
            if missing:
                again = [calls[i] for i in missing]
                found = self._exchange(self._route(again), len(again), whole=True)
                self._finish(again, found)
                for i, reply in zip(missing, found, strict=True):
                    replies[i] = reply
            for i, reply in enumerate(replies):
                if _redirects(reply):
                    replies[i] = self._ask_elsewhere(calls[i], reply)
            return replies
        except Exception as error:
            self._note(error)
            raise

    def _exchange(self, groups: list[_Group], count: int, *, whole: bool) -> list[Any]:
        replies: list[Any] = [None] * count
        held: list[tuple[str, Any]] = []
        try:
            for group in groups:  # 1, 2
                held.append((group.node, self._take(group)))
                held[-1][1].connect()  # where it is not yet: a Sentinel is asked only here
                data = b"".join([call.pack(whole=whole) for _, call in group.calls])
                held[-1][1].send_packed_command([data])
            for group, (_, connection) in zip(groups, held, strict=True):
                for i, call in group.calls:
                    replies[i] = call.answer(_read(connection))  # 4
        except BaseException:  # 3
            for _, connection in held:
                self._open.discard(connection)
                connection.disconnect()
            raise
        now = time.monotonic()
        for node, connection in held:
            self._idle[node].append((connection, now))
        return replies

    def _take(self, group: _Group) -> Any:
        deadline = None
        while True:
            spare = self._spare(group.node)
            if spare is not None:
                connection, since = spare
                if time.monotonic() - since > _CHECK_AFTER and not _is_quiet(connection):
                    connection.disconnect()
                return connection
            with self._lock:
                if len(self._open) < self._limit:
                    connection = group.open()
                    self._open.add(connection)
                    return connection
            # Every connection is in use: wait for one, as long as for the server itself.
            deadline = deadline or time.monotonic() + 5.0
            if time.monotonic() > deadline:
                raise driver.MaxConnectionsError(f"all {self._limit} connections are in use")
            time.sleep(0.001)

    def _ask_elsewhere(self, call: Call, error: Any) -> Any:
        opener = self._opener(self._node_at(error.host, error.port))
        group = _Group("", opener, [(0, plain("ASKING")), (1, call)])
        connection = None
        try:
            connection = opener()
            data = b"".join([one.pack(whole=True) for _, one in group.calls])
            connection.send_packed_command([data])
            reply = [one.answer(_read(connection)) for _, one in group.calls][1]
        finally:
            if connection is not None:
                connection.disconnect()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _node_at(self, host: str, port: int) -> Any:
        node = self.client.nodes_manager.get_node(host=host, port=port)
        if node is None:
            raise driver.ClusterDownError(f"a redirection to an unknown node, {host}:{port}")
        return node

    def _opener(self, node: Any) -> Callable[[], Any]:
        pool = self.client.get_redis_connection(node).connection_pool
        return self._open_by(pool.connection_class, pool.connection_kwargs)

    def _refresh(self) -> None:
        self._stale = False
        self.drop_idle()
        if self._is_cluster:
            try:
                self.client.nodes_manager.initialize()
            except BaseException:
                self._stale = True
                raise

    def nodes(self) -> list[Any]:
        """The nodes that hold keys; None stands for the only one."""
        return list(self.client.get_primaries()) if self._is_cluster else [None]

    def drop_idle(self) -> None:
        """Close the connections that no exchange uses."""
        for spares in list(self._idle.values()):
            while spares:
                try:
                    spares.pop()[0].disconnect()
                except IndexError:  # another thread took the last one
                    break

    def close(self) -> None:
        """Close the idle connections, and the client unless it was passed in."""
        self.drop_idle()
        if self._owns:
            disconnect(self.client)


def _read(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except driver.ResponseError as error:
        return error


def _is_quiet(connection: Any) -> bool:
    """Whether a connection is as it was left: open, with nothing to read."""
    try:
        return not connection.can_read()
    except (driver.RedisError, OSError):
        return False


class AsyncWire(_Wires):
    """Exchanges of the async mode, on one event loop."""

    def __init__(self, client: Any, *, owns: bool, ask_aside: Aside | None = None) -> None:
        super().__init__(client, owns=owns, ask_aside=ask_aside)
        self._timeout: float | None = None
        self._permits = asyncio.Semaphore(self._limit)
        self._starting = asyncio.Lock()
        self._stale = self._is_cluster  # its nodes are not known yet

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        """Same as `Wire.ask`."""
        try:
            async with self._permits:
                if self._stale:
                    await self._refresh()
                every = self._beside(calls)
                replies = await self._exchange(self._route(every), len(every), whole=False)
                replies = self._hear(len(calls), replies)
                missing = self._finish(calls, replies)
                if missing:
                    again = [calls[i] for i in missing]
                    found = await self._exchange(self._route(again), len(again), whole=True)
                    self._finish(again, found)
                    for i, reply in zip(missing, found, strict=True):
                        replies[i] = reply
                for i, reply in enumerate(replies):
                    if _redirects(reply):
                        replies[i] = await self._ask_elsewhere(calls[i], reply)
                return replies
        except Exception as error:
            self._note(error)
            raise

    async def _exchange(self, groups: list[_Group], count: int, *, whole: bool) -> list[Any]:
        replies: list[Any] = [None] * count
        held: list[tuple[str, Any]] = []
        try:
            async with _timeout(self._timeout):
                for group in groups:  # 1, 2
                    held.append((group.node, await self._take(group)))
                    await held[-1][1].connect()
                    data = b"".join([call.pack(whole=whole) for _, call in group.calls])
                    await held[-1][1].send_packed_command([data])
                for group, (_, connection) in zip(groups, held, strict=True):
                    for i, call in group.calls:
                        replies[i] = call.answer(await _aread(connection))  # 4
        except BaseException:  # 3
            for _, connection in held:
                await connection.disconnect(nowait=True)
            raise
        now = time.monotonic()
        for node, connection in held:
            self._idle[node].append((connection, now))
        return replies

    async def _take(self, group: _Group) -> Any:
        spare = self._spare(group.node)
        if spare is None:
            return group.open()
        connection, since = spare
        if time.monotonic() - since > _CHECK_AFTER and not await _ais_quiet(connection):
            await connection.disconnect(nowait=True)
        return connection

    async def _ask_elsewhere(self, call: Call, error: Any) -> Any:
        node = self.client.nodes_manager.get_node(host=error.host, port=error.port)
        if node is None:
            raise driver.ClusterDownError("a redirection to an unknown node")
        connection = self._opener(node)()
        try:
            data = plain("ASKING").pack() + call.pack(whole=True)
            async with _timeout(self._timeout):
                await connection.send_packed_command([data])
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
                await self.client.initialize()
                await self.client.nodes_manager.initialize()
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
