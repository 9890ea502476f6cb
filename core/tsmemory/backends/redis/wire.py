"""Exchanges with the server: a connection is either idle, or held by the exchange that uses it.

redis-py opens, secures and parses connections, and knows the nodes of a Cluster. Who uses a
connection is decided here, for clients that were passed in as well, because its own pools hand one
out again whatever happened to the reply that was due on it:

1. An exchange takes an idle connection out of the pool, or opens one. From then on only the
   exchange refers to it.
2. Once all its connections are open, it writes every command, in the order of the calls' nodes,
   then reads every reply. A node is sent a script itself until it has answered it once: a call
   that is repeated because its script is missing comes too late for the order.
3. Only when all were read is the connection idle again. Whatever else ends the exchange (an error,
   an interrupt, a cancellation) closes the connection; an interrupt between two of these lines
   drops the last reference to it, which closes it too.
4. Every script returns the number of the call that it answers. Another number means that something
   between us and the server mixes up replies: the connection is closed and the call repeated.

A call that the server redirects (``ASK``) is repeated where it says; after ``MOVED``, or an error
of a connection, the nodes are asked for anew before the next exchange.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import WeakSet

import redis.exceptions as driver

from tsmemory.backends.redis.calls import Aside, Call, ForeignReplyError, plain
from tsmemory.backends.redis.client import disconnect, is_cluster
from tsmemory.engine.locks import releasing
from tsmemory.engine.log import get_logger

__all__ = ["Wire", "Wires", "redirects"]

_log = get_logger("redis")
_DEFAULT_LIMIT = 50  # connections
_LARGEST_LIMIT = 10_000  # where a client sets none
CHECK_AFTER = 1.0  # seconds idle after which the server may have closed a connection


class Group(NamedTuple):
    """The calls of an exchange that go to one node."""

    node: str
    open: Callable[[], Any]
    calls: list[tuple[int, Call]]


class Wires(ABC):
    """What both modes share: idle connections by node, and which calls go where."""

    def __init__(self, client: Any, *, owns: bool, ask_aside: Aside | None = None) -> None:
        self.client = client
        self._owns = owns
        self._is_cluster = is_cluster(client)
        self._idle: dict[str, deque[tuple[Any, float]]] = defaultdict(deque)
        self._stale = False
        self._loaded: set[tuple[str, str]] = set()  # nodes, and scripts that they have
        self._aside = ask_aside
        limit = _connection_limit(client) or _DEFAULT_LIMIT
        self._limit = min(limit, _LARGEST_LIMIT)  # of each node

    def _route(self, calls: Sequence[Call]) -> list[Group]:
        if not self._is_cluster:
            pool = self.client.connection_pool
            opener = self._open_by(pool.connection_class, pool.connection_kwargs)
            return [Group("", opener, list(enumerate(calls)))]
        groups: dict[str, Group] = {}
        for i, call in enumerate(calls):
            node = call.node or self.client.get_node_from_key(_text(call.keys[0]))
            if node is None:
                raise driver.ClusterDownError("no node has the slot")
            if node.name not in groups:
                groups[node.name] = Group(node.name, self._opener(node), [])
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

    def _pack(self, group: Group) -> bytes:
        """The commands of a group (2); a script is in the first of those that need it."""
        packed = []
        sent = set()
        for _, call in group.calls:
            sha = None if call.script is None else call.script.sha
            has_it = sha is None or sha in sent or (group.node, sha) in self._loaded
            packed.append(call.pack(whole=not has_it))
            sent.add(sha)
        return b"".join(packed)

    def _answer(self, node: str, call: Call, reply: Any) -> Any:
        """What a reply holds for a call; remembers which scripts the node has."""
        if call.script is not None:
            if not isinstance(reply, Exception):
                self._loaded.add((node, call.script.sha))
            elif isinstance(reply, driver.NoScriptError):
                self._loaded.discard((node, call.script.sha))
        return call.answer(reply)

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
            elif isinstance(reply, Exception) and not redirects(reply):
                raise reply
        return missing

    def _note(self, error: BaseException) -> None:
        """Forget what an error puts in doubt: the nodes, and every idle connection."""
        if isinstance(error, (driver.ConnectionError, driver.ReadOnlyError, driver.MovedError)):
            self._stale = True
            self._loaded.clear()  # a server that started again has none
            if isinstance(error, ForeignReplyError):
                _log.warning("a foreign reply was read: its connection is closed")


def _connection_limit(client: Any) -> int | None:
    """``max_connections``, which in a Cluster is of each node, as in redis-py."""
    if is_cluster(client):
        options = getattr(client, "connection_kwargs", None)  # of the async one
        options = client.nodes_manager.connection_kwargs if options is None else options
        limit = options.get("max_connections")
    else:
        limit = getattr(client.connection_pool, "max_connections", None)
    return None if limit is None else int(limit)


def redirects(reply: Any) -> bool:
    return isinstance(reply, driver.AskError) and not isinstance(reply, driver.MovedError)


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode()


class Wire(Wires):
    """Exchanges of the sync mode, for any number of threads."""

    def __init__(self, client: Any, *, owns: bool, ask_aside: Aside | None = None) -> None:
        super().__init__(client, owns=owns, ask_aside=ask_aside)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._open: dict[str, WeakSet[Any]] = defaultdict(WeakSet)  # by node

    def ask(self, calls: Sequence[Call]) -> list[Any]:
        """A reply for each call.

        Raises:
            redis.exceptions.RedisError: a reply was an error, or there was none.
        """
        if self._pid != os.getpid():  # a fork's connections are its parent's
            self._pid, self._lock = os.getpid(), threading.RLock()
            self._idle, self._open = defaultdict(deque), defaultdict(WeakSet)
        try:
            if self._stale:
                self._refresh()
            every = self._beside(calls)
            replies = self._exchange(self._route(every), len(every))
            replies = self._hear(len(calls), replies)
            missing = self._finish(calls, replies)
            if missing:
                again = [calls[i] for i in missing]
                repeated = self._exchange(self._route(again), len(again))
                self._finish(again, repeated)
                for i, reply in zip(missing, repeated, strict=True):
                    replies[i] = reply
            for i, reply in enumerate(replies):
                if redirects(reply):
                    replies[i] = self._ask_elsewhere(calls[i], reply)
            return replies
        except Exception as error:
            self._note(error)
            raise

    def _exchange(self, groups: list[Group], count: int) -> list[Any]:
        replies: list[Any] = [None] * count
        connections: dict[str, Any] = {}
        try:
            # In one order for all: no two exchanges wait for a connection that the other has.
            for group in sorted(groups, key=attrgetter("node")):  # 1
                connections[group.node] = self._take(group)
                # Where it is not connected yet: a Sentinel is asked only here.
                connections[group.node].connect()
            for group in groups:  # 2
                connections[group.node].send_packed_command([self._pack(group)])
            for group in groups:
                for i, call in group.calls:
                    reply = _read(connections[group.node])
                    replies[i] = self._answer(group.node, call, reply)  # 4
        except BaseException:  # 3
            for node, connection in connections.items():
                self._open[node].discard(connection)
                connection.disconnect()
            raise
        now = time.monotonic()
        for node, connection in connections.items():
            self._idle[node].append((connection, now))
        return replies

    def _take(self, group: Group) -> Any:
        deadline = None
        while True:
            spare = self._spare(group.node)
            if spare is not None:
                connection, since = spare
                if time.monotonic() - since > CHECK_AFTER and not _is_quiet(connection):
                    connection.disconnect()
                return connection
            with releasing(self._lock), self._lock:
                if len(self._open[group.node]) < self._limit:
                    connection = group.open()
                    self._open[group.node].add(connection)
                    return connection
            # Every connection is in use: wait for one, as long as for the server itself.
            deadline = deadline or time.monotonic() + 5.0
            if time.monotonic() > deadline:
                raise driver.MaxConnectionsError(f"all {self._limit} connections are in use")
            time.sleep(0.001)

    def _ask_elsewhere(self, call: Call, error: Any) -> Any:
        opener = self._opener(self._node_at(error.host, error.port))
        group = Group("", opener, [(0, plain("ASKING")), (1, call)])
        connection = None
        try:
            connection = opener()
            packed = b"".join([member.pack(whole=True) for _, member in group.calls])
            connection.send_packed_command([packed])
            reply = [member.answer(_read(connection)) for _, member in group.calls][1]
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
