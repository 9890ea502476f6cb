"""From a URL to a store: which scheme is which engine's, and nothing of any engine."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from tsmemory.engine.contract import Backend
from tsmemory.errors import InvalidInputError, MissingDependencyError
from tsmemory.store import Store

__all__ = ["SCHEMES", "open_store"]

_POSTGRES = ("tsmemory.backends.postgres", "PostgresBackend", "postgres")
_REDIS = ("tsmemory.backends.redis", "RedisBackend", "redis")
_ZERODB = ("tsmemory.backends.zerodb", "ZeroDBBackend", "zerodb")
_TABLESTORE = ("tsmemory.backends.tablestore", "TablestoreBackend", "tablestore")

SCHEMES: dict[str, tuple[str, str, str | None]] = {
    "memory": ("tsmemory.backends.memory", "MemoryBackend", None),
    "sqlite": ("tsmemory.backends.sqlite", "SQLiteBackend", None),
    "jsonl": ("tsmemory.backends.jsonl", "JSONLBackend", "jsonl"),
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "tablestore+http": _TABLESTORE,
    "tablestore+https": _TABLESTORE,
    "zerodb": _ZERODB,
    "zerodb+http": _ZERODB,
    "zerodb+https": _ZERODB,
}
"""URL scheme → module, class, and the extra that brings its driver (None: nothing to install)."""


class _FromURL(Protocol):
    def from_url(self, url: str, **options: Any) -> Backend: ...


def open_store(url: str, *, ttl: float | None = None, **options: Any) -> Store:
    """Open the store at `url`. No I/O, except where an engine's page says so.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute/path.db``, ``memory:``, or one of
            another engine (`SCHEMES`); its options may follow, as ``?durability=normal``.
        ttl: seconds; the time to live of sessions that begin here. None: they stay.
        options: the engine's options by name; they win over those in the URL.

    Raises:
        InvalidInputError: an unknown scheme or option, named; the URL is not repeated, for it may
            hold a password.
        MissingDependencyError: the engine's driver is not installed; names the extra.
    """
    if not isinstance(url, str):
        raise InvalidInputError(f"open_store takes a URL, not {type(url).__name__}")
    scheme = urlsplit(url).scheme if ":" in url else ""
    if scheme not in SCHEMES:
        raise InvalidInputError(
            f"no engine for the scheme {scheme!r}; one of {', '.join(sorted(SCHEMES))}, "
            "as in sqlite:///chat.db"
        )
    module, name, extra = SCHEMES[scheme]
    try:
        engine = cast("_FromURL", getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").startswith("tsmemory"):
            raise
        raise MissingDependencyError(
            f'{scheme}: needs {error.name}; pip install "tsmemory[{extra}]"'
        ) from error
    return Store(engine.from_url(url, **options), ttl=ttl)
