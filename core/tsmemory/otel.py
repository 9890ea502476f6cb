"""OpenTelemetry: a span and a duration for each operation of a store, without content.

    from tsmemory.otel import instrument

    store = instrument(open_store("redis://…"))

needs ``pip install "tsmemory[otel]"``, and an SDK or agent of yours that exports. A store that is
not instrumented runs no line of this module.

The names follow OpenTelemetry's semantic conventions for database clients and generative AI
(``db.system.name``, ``db.operation.name``, ``gen_ai.conversation.id``, ``error.type``;
https://opentelemetry.io/docs/specs/semconv/). No message, title, metadata or secret is recorded,
and of ids a hash, unless `instrument` is told otherwise.

Nearly all of the time that this takes is the SDK's (`python -m benchmarks.telemetry`), so each
operation asks it for as little as there is: one span, one measurement (a histogram has a count),
attributes that are made once per operation's name; a span that is not recorded gets none. Messages
are counted here, and read by the SDK when it exports.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from tsmemory.engine.contract import Backend
from tsmemory.engine.fork import reset_after_fork
from tsmemory.engine.locks import releasing
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
    from opentelemetry.metrics import (
        CallbackOptions,
        MeterProvider,
        Observation,
        get_meter,
        get_meter_provider,
    )
    from opentelemetry.trace import (
        Span,
        SpanKind,
        Status,
        StatusCode,
        TracerProvider,
        get_tracer,
    )
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
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    traces: bool = True,
    metrics: bool = True,
    ids: bool = False,
) -> Store:
    """The same store, its operations traced and measured.

    Args:
        store: its backend is shared; closing either store closes both.
        tracer_provider: the global one by default.
        meter_provider: the global one by default.
        traces: make a span for each operation.
        metrics: measure each operation.
        ids: record user and session ids themselves, instead of their hash.

    Returns:
        A store to use in the place of `store`. Spans are named by operation (``tsmemory.commit``),
        with the span that is current at its start as parent. Measured are
        ``db.client.operation.duration`` (seconds) and ``tsmemory.messages`` (a counter, with
        ``tsmemory.direction`` ``written`` or ``read``).
    """
    traced = _TracedBackend if not isinstance(store.backend, Searchable) else _TracedSearch
    name = type(store.backend).__name__
    system = _SYSTEMS.get(name, name.removesuffix("Backend").lower())
    spans = _Spans(tracer_provider, system, ids) if traces else None
    meters = _Meters(meter_provider, system) if metrics else None
    return Store(traced(store.backend, spans, meters), ttl=store.ttl)


class _Spans:
    """A store's spans. None is made current: an operation may be driven in pieces by an event
    loop, between which other tasks run."""

    def __init__(self, provider: TracerProvider | None, system: str, ids: bool) -> None:
        self._start = get_tracer("tsmemory", tracer_provider=provider).start_span
        self._system = system
        self._ids = ids
        self._known: dict[str, tuple[str, dict[str, Any]]] = {}

    def start(self, operation: str) -> Span:
        """The operation's span, as a sampler sees it: without what differs from call to call."""
        known = self._known.get(operation)
        if known is None:
            attributes = {"db.system.name": self._system, "db.operation.name": operation}
            known = self._known[operation] = (f"tsmemory.{operation}", attributes)
        return self._start(known[0], kind=SpanKind.CLIENT, attributes=known[1])

    def end(
        self, span: Span, key: Key | None, messages: int | None, error: BaseException | None
    ) -> None:
        """End it; one that is recorded gets the rest of its attributes, in one call."""
        if span.is_recording():
            attributes: dict[str, Any] = {}
            if key is not None:
                attributes["gen_ai.conversation.id"] = key.session_id if self._ids else hashed(key)
                attributes["enduser.id"] = key.user_id if self._ids else hashed(key.user_id)
            if messages is not None:
                attributes["tsmemory.messages"] = messages
            if error is not None:
                attributes["error.type"] = type(error).__name__
                span.set_status(Status(StatusCode.ERROR))
            if attributes:
                span.set_attributes(attributes)
        span.end()


class _Meters:
    """A store's measurements."""

    def __init__(self, provider: MeterProvider | None, system: str) -> None:
        meter = get_meter("tsmemory", meter_provider=provider)
        self._record = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of an operation of the store",
            explicit_bucket_boundaries_advisory=_SECONDS,
        ).record
        self._system = system
        self._known: dict[tuple[str, str | None], dict[str, str]] = {}
        self._messages = _MessageCounts.of(get_meter_provider() if provider is None else provider)

    def record(self, operation: str, seconds: float, error: BaseException | None) -> None:
        what = (operation, None if error is None else type(error).__name__)
        attributes = self._known.get(what)
        if attributes is None:
            attributes = {"db.system.name": self._system, "db.operation.name": operation}
            attributes |= {} if what[1] is None else {"error.type": what[1]}
            self._known[what] = attributes
        self._record(seconds, attributes)

    def count(self, direction: str, messages: int) -> None:
        self._messages.add(self._system, direction, messages)


class _MessageCounts:
    """Messages by engine and direction, of all stores of a meter provider: of several observable
    counters of one name, the SDK asks the first alone."""

    _of_providers: ClassVar[WeakKeyDictionary[MeterProvider, _MessageCounts]] = WeakKeyDictionary()
    _making: ClassVar = threading.RLock()

    @classmethod
    def of(cls, provider: MeterProvider) -> _MessageCounts:
        with releasing(cls._making), cls._making:
            counts = cls._of_providers.get(provider)
            if counts is None:
                counts = cls._of_providers[provider] = cls()
                get_meter("tsmemory", meter_provider=provider).create_observable_counter(
                    "tsmemory.messages",
                    [counts._observe],
                    unit="{message}",
                    description="Messages written and read",
                )
            return counts

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: dict[tuple[str, str], int] = {}
        reset_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()

    def add(self, system: str, direction: str, messages: int) -> None:
        with releasing(self._lock), self._lock:
            what = (system, direction)
            self._counts[what] = self._counts.get(what, 0) + messages

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:
        with releasing(self._lock), self._lock:
            counts = list(self._counts.items())
        return [
            Observation(n, {"db.system.name": system, "tsmemory.direction": direction})
            for (system, direction), n in counts
        ]


class _TracedBackend(Backend):
    """A layer over any backend: the same answers, and what they took."""

    def __init__(self, inner: Backend, spans: _Spans | None, meters: _Meters | None) -> None:
        self._inner = inner
        self.capabilities = inner.capabilities
        self.at_once = inner.at_once
        self._spans = spans
        self._meters = meters

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def clock(self) -> Callable[[], int]:  # type: ignore[override]  # the inner one's
        return self._inner.clock

    def _observe(
        self,
        operation: str,
        steps: Steps[T],
        key: Key | None = None,
        size: Callable[[Any], tuple[str, int]] | None = None,
    ) -> Steps[T]:
        """`steps`, observed; `size` tells how many messages a result has, and their direction."""
        spans, meters = self._spans, self._meters
        span = None if spans is None else spans.start(operation)
        count: int | None = None
        problem: BaseException | None = None
        begin = time.perf_counter()
        try:
            result = yield from steps
            if size is not None:
                direction, count = size(result)
                if meters is not None and count:
                    meters.count(direction, count)
            return result
        except BaseException as error:
            problem = error
            raise
        finally:
            if meters is not None:
                meters.record(operation, time.perf_counter() - begin, problem)
            if spans is not None and span is not None:
                spans.end(span, key, count, problem)

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

    def read_many(self, keys: Sequence[Key], query: MessageQuery) -> Steps[list[Read]]:
        return self._observe("read_many", self._inner.read_many(keys, query), size=_all_rows_read)

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


def _all_rows_read(reads: Sequence[Read]) -> tuple[str, int]:
    return "read", sum(_rows_read(found)[1] for found in reads)


def _read(rows: Sequence[Any]) -> tuple[str, int]:
    return "read", len(rows)
