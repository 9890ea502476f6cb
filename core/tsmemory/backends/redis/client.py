"""Redis clients: what a URL means, and one client from it, sync or async.

    redis://[user:password@]host[:port][/db]
    rediss://…                              TLS
    unix://[user:password@]/path/to/socket  with ?db=
    redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]
    redis+cluster://[user:password@]host[:port][,host[:port]…]

and ``rediss+sentinel``, ``rediss+cluster``; ``valkey`` and ``valkeys`` mean the same as ``redis``
and ``rediss``, alone and before a ``+``. User, password and path are percent-encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from tsmemory.engine.urls import StoreURL, as_bool, scheme_of, split_url
from tsmemory.errors import InvalidInputError

_sync: Any = redis  # typed in part only, and differently from release to release
_async: Any = redis.asyncio

__all__ = ["Target", "is_async", "is_cluster", "read_url"]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server is and how to get there."""

    scheme: str
    nodes: list[tuple[str, int]]
    """Host and port; of Sentinels or of Cluster nodes where the scheme says so."""
    socket: str | None = None
    service: str | None = None
    """The name under which the Sentinels know the server."""
    connection: dict[str, Any] = {}
    """Arguments of the connections: db, username, password, time-outs, TLS."""
    sentinel: dict[str, Any] = {}
    """Arguments of the connections to Sentinels."""
    max_connections: int = 50

    def __repr__(self) -> str:
        """The URL without credentials and options."""
        where = self.socket or ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes
        )
        path = f"/{self.service}" if self.service else ""
        db = self.connection.get("db")
        return f"{self.scheme}://{where}{path}" + (f"/{db}" if db and not self.socket else "")

    @property
    def is_cluster(self) -> bool:
        return self.scheme.endswith("+cluster")

    @property
    def is_secure(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme.partition("+")[0] in ("rediss", "valkeys")

    def connect(self) -> Any:
        """A synchronous client. Standalone: no I/O yet; Cluster: asks for the slots."""
        # Retries are the backend's, which has one deadline for all of them.
        options = {**self.connection, "retry": Retry(NoBackoff(), 0)}
        options["max_connections"] = self.max_connections
        if self.is_cluster:
            nodes = [_sync.cluster.ClusterNode(host, port) for host, port in self.nodes]
            return _ClusterClient(startup_nodes=nodes, **options)
        if self.service is not None:
            sentinel = _sync.sentinel.Sentinel(self.nodes, sentinel_kwargs=self.sentinel)
            return sentinel.master_for(self.service, _sync.Redis, **options)
        return _sync.Redis(**self._address(), **options)

    def aconnect(self) -> Any:
        """An asynchronous client, for the running loop. No I/O yet."""
        options = {**self.connection, "retry": _async.retry.Retry(NoBackoff(), 0)}
        options["max_connections"] = self.max_connections
        if self.is_cluster:
            nodes = [_async.cluster.ClusterNode(host, port) for host, port in self.nodes]
            client = _async.RedisCluster(startup_nodes=nodes, **options)
            client.commands_parser = _NoCommands()
            return client
        if self.service is not None:
            sentinel = _async.sentinel.Sentinel(self.nodes, sentinel_kwargs=self.sentinel)
            return sentinel.master_for(self.service, _async.Redis, **options)
        return _async.Redis(**self._address(), **options)

    def _address(self) -> dict[str, Any]:
        if self.socket is not None:
            return {"unix_socket_path": self.socket}
        host, port = self.nodes[0]
        return {"host": host, "port": port, "ssl": self.is_secure}


# A client of a Cluster begins with COMMAND, to learn where the keys of each command are, and spends
# most of its start on parsing the reply. Our calls name their keys: these two do not ask.


class _ClusterClient(_sync.RedisCluster):  # type: ignore[misc]  # its base is Any
    def command(self, **_: Any) -> dict[str, Any]:
        return {}


class _NoCommands:
    """In place of the async client's ``commands_parser``."""

    async def initialize(self, node: Any) -> None:
        pass


def disconnect(client: Any) -> None:
    """Close a client of `Target.connect`."""
    for opened in (client, *_sentinels(client)):
        opened.close()


async def adisconnect(client: Any) -> None:
    """Close a client of `Target.aconnect`."""
    for opened in (client, *_sentinels(client)):
        await opened.aclose()


def _sentinels(client: Any) -> list[Any]:
    """The clients with which `client` asks the Sentinels; closing it leaves them open."""
    pool = getattr(client, "connection_pool", None)
    manager = getattr(pool, "sentinel_manager", None)
    return list(manager.sentinels) if manager is not None else []


def is_async(client: Any) -> bool:
    """Whether a client is one of `redis.asyncio`."""
    return isinstance(client, (redis.asyncio.Redis, redis.asyncio.RedisCluster))


def is_cluster(client: Any) -> bool:
    """Whether a client is one of a Cluster."""
    return isinstance(client, (redis.RedisCluster, redis.asyncio.RedisCluster))


# -- URLs ------------------------------------------------------------------------------------


def _seconds(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


_CONNECTION: dict[str, Callable[[str], Any]] = {
    "db": int,
    "username": str,
    "password": str,
    "protocol": int,
    "client_name": str,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": as_bool,
    "health_check_interval": int,
    "ssl_ca_certs": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_cert_reqs": str,
    "ssl_check_hostname": as_bool,
}
_SENTINEL: dict[str, Callable[[str], Any]] = {"sentinel_username": str, "sentinel_password": str}
_OWN: dict[str, Callable[[str], Any]] = {
    "prefix": str,
    "ttl": float,
    "retry_for": float,
    "max_connections": int,
}
_DEFAULTS: dict[str, Any] = {
    "socket_timeout": 5.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
    "health_check_interval": 30,
}
_SCHEMES = (
    *(f"{name}{kind}" for kind in ("", "+sentinel", "+cluster")
      for name in ("redis", "rediss", "valkey", "valkeys")),
    "unix",
)  # fmt: skip


def read_url(url: str, options: dict[str, Any]) -> tuple[Target, dict[str, Any]]:
    """What a URL and options by name say: the target, and the backend's own options.

    Raises:
        InvalidInputError: an unknown scheme or option, or a part that does not read. The URL is
            not repeated: it may hold a password.
    """
    scheme = scheme_of(url)
    if scheme not in _SCHEMES:
        raise InvalidInputError(f"a Redis URL begins with one of {', '.join(_SCHEMES)}")
    readers = {**_CONNECTION, **_OWN}
    if scheme.endswith("+sentinel"):
        readers |= _SENTINEL
    parts, values = split_url(url, readers, options)
    if parts.fragment:
        raise InvalidInputError(f"{scheme}: write a # as %23")
    service, db = _read_path(parts)
    connection, sentinel = _connection_options(parts, values)
    if db is not None:
        connection["db"] = db
    if scheme.endswith("+cluster") and connection.pop("db", 0) != 0:
        raise InvalidInputError(f"{scheme}: a Cluster has db 0 only")
    secure = scheme.partition("+")[0] in ("rediss", "valkeys")
    if secure and (service is not None or scheme.endswith("+cluster")):
        connection["ssl"] = sentinel["ssl"] = True
    if not secure and (wrong := [name for name in connection if name.startswith("ssl_")]):
        raise InvalidInputError(f"{scheme}: {wrong[0]} is for rediss and valkeys URLs")
    target = Target(
        scheme=scheme,
        nodes=[] if scheme == "unix" else _nodes(parts, 26379 if service else 6379),
        socket=unquote(parts.path) if scheme == "unix" else None,
        service=service,
        connection=connection,
        sentinel=sentinel,
        max_connections=values.get("max_connections", 50),
    )
    if scheme == "unix" and (parts.hostname or not target.socket):
        raise InvalidInputError("unix: three slashes and the socket's path, as unix:///run/r.sock")
    own = {name: value for name, value in values.items() if name in ("prefix", "ttl", "retry_for")}
    return target, own


def _connection_options(
    parts: StoreURL, values: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of connections to the servers, and to their sentinels."""
    connection, sentinel = dict(_DEFAULTS), dict(_DEFAULTS)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if user:
        connection["username"] = unquote(user)
    if password:
        connection["password"] = unquote(password)
    for name, value in values.items():
        if name in _CONNECTION:
            connection[name] = value
        elif name in _SENTINEL:
            sentinel[name.removeprefix("sentinel_")] = value
    return connection, sentinel


def _read_path(parts: StoreURL) -> tuple[str | None, int | None]:
    """The service of a Sentinel URL, and the number of the db where the path gives one."""
    scheme = parts.scheme
    path = [unquote(part) for part in parts.path.split("/") if part]
    service = None
    if scheme.endswith("+sentinel"):
        if not path:
            raise InvalidInputError(f"{scheme}://host:26379/service names the service in its path")
        service = path.pop(0)
    if not path or scheme == "unix":
        return service, None
    if len(path) > 1 or not path[0].isdigit() or scheme.endswith("+cluster"):
        raise InvalidInputError(f"{scheme}: the path holds no more than the number of a db")
    return service, int(path[0])


def _nodes(parts: StoreURL, port: int) -> list[tuple[str, int]]:
    nodes = [(host or "localhost", host_port or port) for host, host_port in parts.hosts]
    if len(nodes) > 1 and "+" not in parts.scheme:
        raise InvalidInputError(f"{parts.scheme}: one host; several are for {parts.scheme}+cluster")
    return nodes
