"""OpenTelemetry: a span and two measurements for each operation of a store, without content.

    from tsmemory.otel import instrument

    store = instrument(open_store("redis://…"))

needs ``pip install "tsmemory[otel]"``, and an SDK or agent of yours that exports. A store that is
not instrumented runs no line of this module.

The names follow OpenTelemetry's semantic conventions for database clients and generative AI
(``db.system.name``, ``db.operation.name``, ``gen_ai.conversation.id``, ``error.type``;
https://opentelemetry.io/docs/specs/semconv/). No message, title, metadata or secret is recorded,
and of ids a hash, unless `instrument` is told otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tsmemory.engine.contract import Backend
from tsmemory.engine.log import hashed
from tsmemory.engine.records import (
    Change,
    Decide,
    Finding,
    Key,
    MessageQuery,
    Outcome,
    Read,
    SessionQuery,
)
from tsmemory.engine.search import Candidates, Searchable, SearchQuery
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, MissingDependencyError
from tsmemory.model import Erased, Message, Problem, Session, Stats
from tsmemory.store import Store

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        'tsmemory.otel needs opentelemetry-api; pip install "tsmemory[otel]"'
    ) from error

__all__ = ["instrument"]

T = TypeVar("T")

_SYSTEMS = {
    "SQLiteBackend": "sqlite",
    "PostgresBackend": "postgresql",
    "RedisBackend": "redis",
    "TablestoreBackend": "alibabacloud.tablestore",
}
"""``db.system.name`` by backend; the others are given by their class's name, in lower case."""
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def instrument(
    store: Store,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    ids: bool = False,
) -> Store:
    """The same store, its operations traced and measured.

    Args:
        store: its backend is shared; closing either store closes both.
        tracer_provider: the global one by default.
        meter_provider: the global one by default.
        ids: record user and session ids themselves, instead of their hash.

    Returns:
        A store to use in the place of `store`. Spans are named by operation (``tsmemory.commit``),
        with the span that is current at its start as parent. Measured are
        ``db.client.operation.duration`` (seconds) and ``tsmemory.messages`` (a counter, with
        ``tsmemory.direction`` ``written`` or ``read``).
    """
    traced = _TracedBackend if not isinstance(store.backend, Searchable) else _TracedSearch
    backend = traced(store.backend, tracer_provider, meter_provider, ids)
    return Store(backend, ttl=store.ttl)


class _TracedBackend(Backend):
    """A layer over any backend: the same answers, and what they took."""

    def __init__(
        self,
        inner: Backend,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        ids: bool,
    ) -> None:
        self._inner = inner
        self.capabilities = inner.capabilities
        self._ids = ids
        self._tracer = trace.get_tracer("tsmemory", tracer_provider=tracer_provider)
        meter = metrics.get_meter("tsmemory", meter_provider=meter_provider)
        self._durations = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of an operation of the store",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._messages = meter.create_counter(
            "tsmemory.messages", unit="{message}", description="Messages written and read"
        )
        name = type(inner).__name__
        self._system = _SYSTEMS.get(name, name.removesuffix("Backend").lower())

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def clock(self) -> Callable[[], int]:  # type: ignore[override]  # the inner one's
        return self._inner.clock

    # -- measuring ---------------------------------------------------------------------------

    def _observe(
        self, operation: str, steps: Steps[T], key: Key | None = None, size: Any = None
    ) -> Steps[T]:
        """`steps`, in a span. The span is not made current: an operation may be driven in pieces
        by an event loop, between which other tasks run."""
        attributes: dict[str, Any] = {
            "db.system.name": self._system,
            "db.operation.name": operation,
        }
        about = dict(attributes)
        if key is not None:
            about["gen_ai.conversation.id"] = key.session_id if self._ids else hashed(key)
            about["enduser.id"] = key.user_id if self._ids else hashed(key.user_id)
        span = self._tracer.start_span(
            f"tsmemory.{operation}", kind=SpanKind.CLIENT, attributes=about
        )
        begin = time.perf_counter()
        try:
            result = yield from steps
        except BaseException as error:
            attributes["error.type"] = type(error).__name__
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise
        else:
            if size is not None:
                self._count(span, size, result)
            return result
        finally:
            self._durations.record(time.perf_counter() - begin, attributes)
            span.end()

    def _count(self, span: Span, size: Callable[[Any], tuple[str, int]], result: Any) -> None:
        direction, count = size(result)
        span.set_attribute("tsmemory.messages", count)
        if count:
            labels = {"db.system.name": self._system, "tsmemory.direction": direction}
            self._messages.add(count, labels)

    # -- the contract ------------------------------------------------------------------------

    def run(self, steps: Steps[T]) -> T:
        return self._inner.run(steps)

    async def arun(self, steps: Steps[T]) -> T:
        return await self._inner.arun(steps)

    def setup(self) -> Steps[None]:
        return self._observe("setup", self._inner.setup())

    def get_session(self, key: Key) -> Steps[Session | CorruptRecordError | None]:
        return self._observe("get_session", self._inner.get_session(key), key)

    def list_sessions(self, query: SessionQuery) -> Steps[list[Session | CorruptRecordError]]:
        return self._observe("list_sessions", self._inner.list_sessions(query))

    def read(self, key: Key, query: MessageQuery) -> Steps[Read]:
        return self._observe("read", self._inner.read(key, query), key, _rows_read)

    def get_messages(
        self, key: Key, ids: Sequence[str]
    ) -> Steps[list[Message | CorruptRecordError]]:
        return self._observe("get_messages", self._inner.get_messages(key, ids), key, _read)

    def commit(self, key: Key, change: Change) -> Steps[Outcome]:
        return self._observe("commit", self._inner.commit(key, change), key, _written)

    def commit_and_read(
        self, key: Key, change: Change, query: MessageQuery
    ) -> Steps[tuple[Outcome, Read]]:
        steps = self._inner.commit_and_read(key, change, query)
        return self._observe("commit_and_read", steps, key, lambda both: _written(both[0]))

    def rewrite(self, key: Key, decide: Decide, ids: Sequence[str] | None = None) -> Steps[Outcome]:
        return self._observe("rewrite", self._inner.rewrite(key, decide, ids), key, _written)

    def erase(self, user_id: str | None, session_id: str | None = None) -> Steps[Erased]:
        return self._observe("erase", self._inner.erase(user_id, session_id))

    def purge_expired(self) -> Steps[Erased]:
        return self._observe("purge_expired", self._inner.purge_expired())

    def stats(self) -> Steps[Stats]:
        return self._observe("stats", self._inner.stats())

    def verify(self) -> Steps[list[Problem]]:
        return self._observe("verify", self._inner.verify())

    def check_server(self) -> Steps[list[Finding]]:
        return self._observe("check_server", self._inner.check_server())

    def compact(self, key: Key) -> Steps[int]:
        return self._observe("compact", self._inner.compact(key), key)

    def close(self) -> None:
        self._inner.close()

    async def aclose(self) -> None:
        await self._inner.aclose()


class _TracedSearch(_TracedBackend):
    """Same as `_TracedBackend`, over a backend that keeps an index."""

    def search(self, query: SearchQuery) -> Steps[Candidates]:
        inner = self._inner
        assert isinstance(inner, Searchable)  # chosen by `instrument`
        steps = inner.search(query)
        return self._observe("search", steps, None, lambda found: ("read", len(found.rows)))


def _written(outcome: Outcome) -> tuple[str, int]:
    return "written", len(outcome.stored)


def _rows_read(found: Read) -> tuple[str, int]:
    return "read", len(found.rows) + len(found.pinned)


def _read(rows: Sequence[Any]) -> tuple[str, int]:
    return "read", len(rows)
