"""What OpenTelemetry's spans cost a worker: processor time of a batch of 16, of which all are sampled.

They are given to a processor that exports to memory in its thread; what a collector's protocol costs is not in it.
"""

from __future__ import annotations

import time
from statistics import median

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adawise.ports import Commit, Head
from adawise.watch.tracing import SpanObserver
from adawise.worker.events import BatchServed, Observer, Observers, SegmentCommitted
from tests.sink.building import TP, frame, served

BATCHES, A_SEGMENT, PAIRS = 2_000, 256, 10


def main() -> None:
    """Print microseconds, median of ten pairs."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    without, with_spans = Observers(Observers()), Observers(Observers(), SpanObserver(provider, provider.shutdown))
    pairs = [(microseconds(without), microseconds(with_spans)) for _ in range(PAIRS)]
    spans = median(after - before for before, after in pairs)
    print(f"spans: {spans:.0f} us a batch of 16, {spans / 16:.1f} us an image (median of {PAIRS} pairs)")


def microseconds(observer: Observer) -> float:
    """Of the processor, for a batch with its share of a commit."""
    images, predictions, trace = served([frame(offset) for offset in range(16)])
    batch = BatchServed(trace, predictions, [], images)
    commit = Commit(Head(16, segment="predictions/topic-frames/partition-00003/0.parquet"), True, 16, 1)
    began = time.process_time()
    for number in range(BATCHES):
        observer.observe(batch)
        if number % A_SEGMENT == A_SEGMENT - 1:
            observer.observe(SegmentCommitted(TP, commit, None))
    return 1e6 * (time.process_time() - began) / BATCHES
