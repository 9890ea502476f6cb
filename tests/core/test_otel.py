"""Spans and measurements, taken with the SDK's in-memory exporters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

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
