"""A real Redis or Valkey watched by Sentinels, for tests: as `tsmemory.testing.servers.redis`.

with RedisSentinel() as sentinel: ...        # a master, a replica, three Sentinels
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from tsmemory.testing.servers.ports import ReservedPort
from tsmemory.testing.servers.redis import (
    PATIENT_MS,
    PROMPT_MS,
    RedisServer,
    in_step,
    wait_until,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RedisSentinel"]


class RedisSentinel:
    """A master and a replica, watched by three Sentinels under the name ``chat``."""

    service = "chat"

    def __init__(self, kind: str = "valkey-server") -> None:
        ports = [ReservedPort() for _ in range(5)]
        master = ports[0].number
        at_once = "repl-diskless-sync-delay 0"  # the master's wait for more replicas
        self.servers = [
            RedisServer(kind, port=ports[0], options=(at_once,)),
            RedisServer(kind, port=ports[1], options=(at_once, f"replicaof 127.0.0.1 {master}")),
        ]
        # Each is told of the others: by themselves they meet after seconds.
        ids = {port.number: secrets.token_hex(20) for port in ports[2:]}
        self.sentinels = []
        for port in ports[2:]:
            watch = (
                f"sentinel myid {ids[port.number]}",
                f"sentinel monitor {self.service} 127.0.0.1 {master} 2",
                f"sentinel down-after-milliseconds {self.service} {PATIENT_MS}",
                f"sentinel failover-timeout {self.service} 5000",
                f"sentinel known-replica {self.service} 127.0.0.1 {ports[1].number}",
                *(
                    f"sentinel known-sentinel {self.service} 127.0.0.1 {other} {ids[other]}"
                    for other in ids
                    if other != port.number
                ),
            )
            self.sentinels.append(RedisServer(kind, port=port, mode="--sentinel", options=watch))

    @property
    def url(self) -> str:
        nodes = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{nodes}/{self.service}"

    def start(self) -> Self:
        """Start them, and wait until the Sentinels see the replica; they reach each other within a
        second of that, which an election waits for."""
        for server in self.servers:
            server.start()
        with self.servers[1].client() as client:
            wait_until(partial(in_step, client), "the replica to be in step")
        for sentinel in self.sentinels:
            sentinel.start(wait=False)
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                wait_until(partial(self._complete, client), "the Sentinels to see the replica")
        return self

    def _complete(self, client: Any) -> bool:
        (replica,) = client.sentinel_slaves(self.service)
        return bool(replica["master-link-status"] == "ok")

    def kill_master(self) -> None:
        """Kill the master; only from then on do the Sentinels miss one soon."""
        self.servers[0].kill()
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                client.sentinel_set(self.service, "down-after-milliseconds", PROMPT_MS)

    def stop(self) -> None:
        """End all of them. Can be called twice."""
        for server in self.sentinels + self.servers:
            server.__exit__()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
