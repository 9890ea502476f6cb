"""What instrumentation costs: a store plain and instrumented, beside the SDK used by hand.

    python -m benchmarks.telemetry

All cases take turns, and what is counted is the CPU time of the application's thread: the SDK's
spans go to a batch processor, whose exporter drops them in a thread of its own. "Plain again" shows
the noise; "the SDK by hand" is the least that a span and a measurement take.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import SpanKind

from benchmarks._measure import Case, compare, show
from tsmemory import Message, Store, open_store
from tsmemory.otel import instrument

__all__ = ["main"]


class Dropped(SpanExporter):
    """Exports nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def main(rounds: int = 3_000) -> None:
    """Print the tables."""
    every, few = TracerProvider(), TracerProvider(sampler=ParentBasedTraceIdRatio(0.01))
    for provider in (every, few):
        provider.add_span_processor(BatchSpanProcessor(Dropped()))
    meters = MeterProvider([InMemoryMetricReader()])
    with (
        tempfile.TemporaryDirectory() as directory,
        open_store(f"sqlite:///{Path(directory) / 'a.db'}") as store,
    ):
        store.conversation("c").append(*(Message.user("x" * 300) for _ in range(100)))
        stores = {
            "plain": store,
            "plain again": store,
            "no SDK": instrument(store),
            "all spans and metrics": instrument(
                store, tracer_provider=every, meter_provider=meters
            ),
            "1 % of spans, metrics": instrument(store, tracer_provider=few, meter_provider=meters),
            "all spans, no metrics": instrument(store, tracer_provider=every, metrics=False),
            "1 % of spans, no metrics": instrument(store, tracer_provider=few, metrics=False),
            "metrics, no spans": instrument(store, meter_provider=meters, traces=False),
        }
        for title, operation in (("append of 1", "append"), ("window of 20", "window")):
            cases = _cases(stores, operation)
            cases["plain, the SDK by hand"] = _by_hand(every, meters, cases["plain"])
            show(f"{title}, SQLite, CPU", compare(cases, rounds, time.thread_time_ns))
    for provider in (every, few):
        provider.shutdown()
    meters.shutdown()


def _cases(stores: dict[str, Store], operation: str) -> dict[str, Case]:
    chats = {name: store.conversation("c") for name, store in stores.items()}
    if operation == "append":
        return {n: lambda c=c: c.append(Message.user("x" * 300)) for n, c in chats.items()}
    return {n: lambda c=c: c.window(20) for n, c in chats.items()}


def _by_hand(tracers: TracerProvider, meters: MeterProvider, case: Case) -> Case:
    """A case with a span and a measurement around it, and nothing of ours."""
    tracer = tracers.get_tracer("by hand")
    durations = meters.get_meter("by hand").create_histogram("by_hand")
    short = {"db.system.name": "sqlite", "db.operation.name": "read"}
    attributes = {**short, "gen_ai.conversation.id": "0" * 12, "enduser.id": "0" * 12}

    def observed() -> None:
        span = tracer.start_span("read", kind=SpanKind.CLIENT, attributes=attributes)
        case()
        durations.record(0.001, short)
        span.end()

    return observed


if __name__ == "__main__":
    main()
