"""From a URL to a store: which scheme is which backend's, and nothing of any engine.

Our own backends are in `SCHEMES`. Another distribution registers a scheme by an entry point of the
group ``tsmemory.backends``, whose name is the scheme and whose value is the backend's class::

    [project.entry-points."tsmemory.backends"]
    myengine = "my_package.backend:MyBackend"

The class has ``from_url(url, **options)``. A scheme of ours cannot be taken over.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

from tsmemory.engine.contract import Backend
from tsmemory.engine.urls import scheme_of
from tsmemory.errors import InvalidInputError, MissingDependencyError, TSMemoryError
from tsmemory.store import Store

__all__ = ["ENTRY_POINTS", "SCHEMES", "open_store"]

ENTRY_POINTS = "tsmemory.backends"
"""The group of entry points by which other distributions register URL schemes."""

_POSTGRES = ("tsmemory.backends.postgres", "PostgresBackend", "postgres")
_REDIS = ("tsmemory.backends.redis", "RedisBackend", "redis")
_POSTGRES = ("tsmemory.backends.postgres", "PostgresBackend", "postgres")
_ZERODB = ("tsmemory.backends.zerodb", "ZeroDBBackend", "zerodb")
_TABLESTORE = ("tsmemory.backends.tablestore", "TablestoreBackend", "tablestore")

SCHEMES: dict[str, tuple[str, str, str | None]] = {
    "memory": ("tsmemory.backends.memory", "MemoryBackend", None),
    "sqlite": ("tsmemory.backends.sqlite", "SQLiteBackend", None),
    "jsonl": ("tsmemory.backends.jsonl", "JSONLBackend", None),
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "valkey+sentinel": _REDIS,
    "valkeys+sentinel": _REDIS,
    "valkey+cluster": _REDIS,
    "valkeys+cluster": _REDIS,
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
    """Open the store at `url`. No I/O, except where a backend's page says so.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute/path.db``, ``memory:``, or one of
            another backend (`SCHEMES`); its options may follow, as ``?durability=normal``.
        ttl: seconds; the time to live of sessions that begin here. None: they stay.
        options: the backend's options by name; they take precedence over those in the URL.

    Raises:
        InvalidInputError: an unknown scheme or option, named; the URL is not repeated, for it may
            hold a password.
        MissingDependencyError: the backend's driver is not installed; names the extra.
    """
    if not isinstance(url, str):
        raise InvalidInputError(
            f"open_store takes a URL, not {type(url).__name__}; a file is sqlite:///chat.db"
        )
    scheme = scheme_of(url)
    backend_class = _built_in(scheme) if scheme in SCHEMES else _registered(scheme, url)
    try:
        backend = backend_class.from_url(url, **options)
    except (TSMemoryError, TypeError):
        raise
    except ValueError:
        # A parser's own error: it may quote the URL.
        raise InvalidInputError(f"{scheme}: the URL does not read") from None
    return Store(backend, ttl=ttl)


def _built_in(scheme: str) -> _FromURL:
    module, name, extra = SCHEMES[scheme]
    try:
        return cast("_FromURL", getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").startswith("tsmemory"):
            raise
        raise MissingDependencyError(
            f'{scheme}: needs {error.name}; pip install "tsmemory[{extra}]"'
        ) from error


def _registered(scheme: str, url: str) -> _FromURL:
    """The backend class that another distribution registered for `scheme`."""
    from importlib.metadata import entry_points  # slow, and needed only here

    points = {point.name.lower(): point for point in entry_points(group=ENTRY_POINTS)}
    if scheme in points:
        return cast("_FromURL", points[scheme].load())
    # In user:password@host what stands before the colon is no scheme.
    is_scheme = "@" not in url or url[len(scheme) :].startswith("://")
    named = f" {scheme!r}" if scheme and is_scheme else ""
    engine = scheme.partition("+")[0]
    if len(scheme) < 2:  # or the letter of a drive
        raise InvalidInputError(
            "the store's URL has no scheme; a file is sqlite:///chat.db, with three slashes "
            "before a relative path and four before an absolute one"
        )
    if engine in SCHEMES:  # as SQLAlchemy writes it, postgresql+psycopg://
        hint = f"write {engine}://, without the name of a driver"
    elif f"{scheme}+https" in SCHEMES:
        hint = f"write {scheme}+https://"
    else:
        hint = f"one of {', '.join(sorted({*SCHEMES, *points}))}, as in sqlite:///chat.db"
    raise InvalidInputError(f"no backend for the URL's scheme{named}; {hint}")
