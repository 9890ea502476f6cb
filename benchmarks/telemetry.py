"""What instrumentation costs: a store plain, instrumented without an SDK, and with the SDK.

    python -m benchmarks.telemetry

The SDK's spans go to a batch processor whose exporter drops them, so what is measured is the time
that the application's thread spends. "Plain again" shows the noise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks._measure import Case, compare, show
from tsmemory import Message, Store, open_store
from tsmemory.otel import instrument

__all__ = ["main"]


class Dropped(SpanExporter):
    """Exports nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def main(rounds: int = 1_500) -> None:
    """Print the tables."""
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Dropped()))
    meters = MeterProvider([InMemoryMetricReader()])
    with (
        tempfile.TemporaryDirectory() as directory,
        open_store(f"sqlite:///{Path(directory) / 'a.db'}") as store,
    ):
        store.conversation("c").append(*(Message.user("x" * 300) for _ in range(100)))
        stores = {
            "plain": store,
            "plain again": store,
            "instrumented, no SDK": instrument(store),
            "instrumented, SDK": instrument(store, tracer_provider=tracers, meter_provider=meters),
        }
        show("append of 1, SQLite", compare(_cases(stores, "append"), rounds))
        show("window of 20, SQLite", compare(_cases(stores, "window"), rounds))
    tracers.shutdown()
    meters.shutdown()


def _cases(stores: dict[str, Store], operation: str) -> dict[str, Case]:
    chats = {name: store.conversation("c") for name, store in stores.items()}
    if operation == "append":
        return {n: lambda c=c: c.append(Message.user("x" * 300)) for n, c in chats.items()}
    return {n: lambda c=c: c.window(20) for n, c in chats.items()}


if __name__ == "__main__":
    main()
