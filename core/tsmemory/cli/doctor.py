"""``tsmemory doctor``: reach, set-up, risks, limits and speed of a store, with advice."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from tsmemory.checks import MAX_ID_BYTES
from tsmemory.cli.store import existing, opened
from tsmemory.conversation import Conversation
from tsmemory.engine.urls import redact_url
from tsmemory.errors import TSMemoryError
from tsmemory.model import Message
from tsmemory.store import Store

__all__ = ["Check", "examine"]

_TIMES = 7  # measurements of each kind; the median is reported
_SLOW_MS = 100.0
"""A longer round trip is felt in every turn: another region, usually, or a busy server."""
_EXTRAS = (
    "langchain", "langgraph", "llama-index-core", "redis", "psycopg", "tablestore", "httpx",
    "opentelemetry-api", "starlette",
)  # fmt: skip
_DRIVERS = {"postgres": "psycopg", "redis": "redis", "tablestore": "tablestore", "zerodb": "httpx"}


class Check(NamedTuple):
    """One finding."""

    name: str
    ok: bool
    value: Any


def examine(url: str | None, write: bool) -> list[Check]:
    """Everything that can be found out about a store; ends at the first thing that fails.

    Args:
        write: also write a message to a session of its own, and remove it.
    """
    checks = [
        Check("tsmemory", True, _version("tsmemory")),
        Check("python", True, platform.python_version()),
        Check("installed", True, _installed()),
    ]
    # What a store would log at its first request is a check here.
    logging.getLogger("tsmemory").setLevel(logging.ERROR)
    try:
        with opened(url, create=True) as store:
            checks.append(Check("store", True, redact_url(url or "")))
            checks += _engine(store)
            _look(store, checks, write)
    except TSMemoryError as error:
        checks.append(Check(_STEPS[min(_done(checks), len(_STEPS) - 1)], False, str(error)))
    finally:
        logging.getLogger("tsmemory").setLevel(logging.NOTSET)
    return checks


_STEPS = ("store", "reach", "round_trip_ms", "write_ms")


def _done(checks: list[Check]) -> int:
    """How many of the steps that may fail have succeeded."""
    return sum(check.name in _STEPS for check in checks)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _installed() -> str:
    """What the extras bring, with versions."""
    versions = ((package, _version(package)) for package in _EXTRAS)
    return ", ".join(f"{p} {v}" for p, v in versions if v != "not installed") or "no extras"


def _engine(store: Store) -> list[Check]:
    backend = store.backend
    checks = [Check("engine", True, type(backend).__name__)]
    package = type(backend).__module__.removeprefix("tsmemory.backends.").partition(".")[0]
    if package in _DRIVERS:
        driver = _DRIVERS[package]
        checks.append(Check("driver", True, f"{driver} {_version(driver)}"))
    return checks


def _look(store: Store, checks: list[Check], write: bool) -> None:
    existing(store)
    store.list_sessions(limit=1, on_error="skip")
    checks.append(Check("reach", True, "answers, and is set up"))
    checks += [Check(*finding) for finding in store.run(store.backend.check_server())]
    capabilities = store.backend.capabilities
    checks += [
        Check("atomic_batches", True, capabilities.atomic),
        Check("max_message_bytes", True, capabilities.max_message_bytes),
        Check("max_id_bytes", True, MAX_ID_BYTES),
    ]
    # A session that is not there: the same request as for one that is, and nobody's data.
    chat = store.conversation(f"doctor-{uuid.uuid4()}", user_id="tsmemory-doctor")
    round_trip = _milliseconds(chat.session)
    checks.append(Check("round_trip_ms", True, round_trip))
    if round_trip > _SLOW_MS:
        advice = f"over {_SLOW_MS:.0f} ms: place the store near the application, or see its load"
        checks.append(Check("slow", False, advice))
    if write:
        checks.append(Check("write_ms", True, _written(chat)))


def _written(chat: Conversation) -> float:
    try:
        return _milliseconds(lambda: chat.append(Message.user("tsmemory doctor")))
    finally:
        chat.delete()


def _milliseconds(call: Callable[[], Any]) -> float:
    """The median of several calls; the first, which opens connections, does not count."""
    call()
    times = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return round(statistics.median(times) * 1000, 3)
