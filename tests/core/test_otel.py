"""Spans and measurements, taken with the SDK's in-memory exporters."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from tsmemory import ConflictError, Message, Store, open_store
from tsmemory.engine.contract import Backend
from tsmemory.otel import _TracedBackend, instrument


class Telemetry:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def store(self, **options: Any) -> Store:
        return instrument(
            open_store("memory:"),
            tracer_provider=self.tracers,
            meter_provider=self.meters,
            **options,
        )

    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def test_a_span_and_counts_for_each_operation() -> None:
    telemetry = Telemetry()
    with telemetry.store() as store:
        chat = store.conversation("secret-session", user_id="secret-user")
        chat.append(Message.user("secret text"), Message.assistant("secret answer"))
        chat.window(5)
    commit, read = telemetry.spans()
    assert (commit.name, read.name) == ("tsmemory.commit", "tsmemory.read")
    assert commit.attributes["db.system.name"] == "memory"
    assert commit.attributes["tsmemory.messages"] == 2
    assert commit.attributes["gen_ai.conversation.id"] == read.attributes["gen_ai.conversation.id"]
    points = telemetry.points()
    counted = {p.attributes["tsmemory.direction"]: p.value for p in points["tsmemory.messages"]}
    assert counted == {"written": 2, "read": 2}
    assert sum(p.count for p in points["db.client.operation.duration"]) == 2


def test_stores_that_share_a_meter_provider() -> None:
    telemetry = Telemetry()
    for count in (1, 2):
        with telemetry.store() as store:
            chat = store.conversation("s")
            chat.append(*(Message.user("word") for _ in range(count)))
            assert len(store.search_messages("word")) == count
    points = telemetry.points()
    counted = {p.attributes["tsmemory.direction"]: p.value for p in points["tsmemory.messages"]}
    assert counted == {"written": 3, "read": 3}


def test_only_one_of_the_two() -> None:
    telemetry = Telemetry()
    with telemetry.store(traces=False) as store:
        store.conversation("s").append(Message.user("x"))
    assert telemetry.spans() == []
    assert set(telemetry.points()) == {"db.client.operation.duration", "tsmemory.messages"}
    telemetry = Telemetry()
    with telemetry.store(metrics=False) as store:
        store.conversation("s").append(Message.user("x"))
    assert len(telemetry.spans()) == 1
    assert telemetry.reader.get_metrics_data() is None


def test_what_is_not_sampled_is_measured_and_gets_no_attributes() -> None:
    seen: list[Any] = []

    class Never(Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            seen.append(kwargs.get("attributes", args[4] if len(args) > 4 else None))
            return SamplingResult(Decision.DROP)

        def get_description(self) -> str:
            return "never"

    telemetry = Telemetry()
    store = instrument(
        open_store("memory:"),
        tracer_provider=TracerProvider(sampler=Never()),
        meter_provider=telemetry.meters,
    )
    with store:
        store.conversation("s").append(Message.user("x"))
    assert seen == [{"db.system.name": "memory", "db.operation.name": "commit"}]
    (point,) = telemetry.points()["db.client.operation.duration"]
    assert point.count == 1


def test_counters_keep_what_failed_and_what_many_threads_did() -> None:
    telemetry = Telemetry()
    with telemetry.store() as store, ThreadPoolExecutor(8) as pool:
        chats = [store.conversation(f"s{i}") for i in range(8)]
        for chat in chats * 25:
            pool.submit(chat.append, Message.user("x"))
        pool.shutdown()
        chats[0].append(Message.user("x", message_id="m"))
        with pytest.raises(ConflictError):
            chats[0].append(Message.user("y", message_id="m"))
    points = telemetry.points()
    assert [point.value for point in points["tsmemory.messages"]] == [201]
    counts = {
        p.attributes.get("error.type"): p.count for p in points["db.client.operation.duration"]
    }
    assert counts == {None: 201, "ConflictError": 1}


def test_nothing_secret_is_recorded() -> None:
    telemetry = Telemetry()
    with telemetry.store() as store:
        chat = store.conversation("secret-session", user_id="secret-user")
        chat.append(Message.user("secret text", message_id="m"))
        with pytest.raises(ConflictError):
            chat.append(Message.user("another secret", message_id="m"))
        chat.update_session(title="secret title")
        store.list_sessions(user_id="secret-user")
        store.erase_user("secret-user")
    recorded = "".join(span.to_json() for span in telemetry.spans())
    assert "secret" not in recorded
    assert "ConflictError" in recorded


def test_ids_on_request() -> None:
    telemetry = Telemetry()
    with telemetry.store(ids=True) as store:
        store.conversation("s", user_id="u").append(Message.user("x"))
    (span,) = telemetry.spans()
    assert span.attributes["gen_ai.conversation.id"] == "s"
    assert span.attributes["enduser.id"] == "u"


def test_the_current_span_is_the_parent_in_async_too() -> None:
    telemetry = Telemetry()
    tracer = telemetry.tracers.get_tracer("app")

    async def turn(store: Store, name: str) -> None:
        with tracer.start_as_current_span(name):
            await store.conversation(name).aappend(Message.user("x"))

    async def main() -> None:
        async with telemetry.store() as store:
            await asyncio.gather(turn(store, "a"), turn(store, "b"))

    asyncio.run(main())
    by_id = {span.context.span_id: span.name for span in telemetry.spans()}
    parents = [by_id[s.parent.span_id] for s in telemetry.spans() if s.parent is not None]
    assert sorted(parents) == ["a", "b"]


def test_every_operation_of_the_contract_is_traced() -> None:
    mine = set(vars(_TracedBackend))
    operations = {
        name
        for name, value in vars(Backend).items()
        if callable(value) and not name.startswith("_")
    }
    assert operations <= mine
