"""Spans of batches: their times, whose trace they continue, when they are durable."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from adawise.ports import Commit, Head
from adawise.records import ImageBatch
from adawise.watch import tracing
from adawise.watch.tracing import SpanObserver
from adawise.worker.events import BatchServed, PartitionLost, SegmentCommitted, Stopped
from tests.sink.building import TP, frame, served

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
AT_MS = 1_700_000_010_000  # ten seconds after the messages


class Observed:
    """A worker's observer and what it exported."""

    def __init__(self) -> None:
        self.exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.ended = 0
        self.now_ns = 10**6 * (AT_MS + 2_000)
        self.observer = SpanObserver(provider, self._end, lambda: self.now_ns)

    def _end(self) -> None:
        self.ended += 1

    def serve(self, *parents: str | None, images: int = 2, first: int = 0) -> None:
        """A batch whose images came with these headers."""
        frames = [
            replace(frame(n), meta={} if parent is None else {"traceparent": parent})
            for n, parent in enumerate(parents or (None,) * images, first)
        ]
        batch, predictions, trace = served(frames)
        batch = ImageBatch(batch.stream_id, tuple(frames), batch.images)
        fields = replace(trace, milliseconds={"search": 30.0, "forward": 200.0}, predicted_at_us=1_000 * AT_MS)
        self.observer.observe(BatchServed(fields, predictions, [], batch))

    def commit(self, *, won: bool = True, until: int = 4, pending: tuple[int, ...] = ()) -> None:
        head = Head(until, pending, segment="predictions/topic-frames/partition-00003/00000000000000000000.parquet")
        self.observer.observe(SegmentCommitted(TP, Commit(head, won, 2, 100), None))

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


def header(trace: str = TRACE, parent: str = PARENT, flags: str = "01") -> str:
    return f"00-{trace}-{parent}-{flags}"


def milliseconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    at_ns = 10**6 * AT_MS
    return (span.start_time - at_ns) / 1e6, (span.end_time - at_ns) / 1e6


def test_a_batch_goes_on_with_the_trace_of_its_first_message_and_has_links_to_the_others() -> None:
    seen = Observed()
    other = "0af7651916cd43dd8448eb211c80319c"
    seen.serve(header(), header(), header(other, "b7ad6b7169203331"), None)
    [batch] = seen.spans("batch")
    assert batch.context is not None
    assert batch.parent is not None
    assert (f"{batch.context.trace_id:032x}", f"{batch.parent.span_id:016x}") == (TRACE, PARENT)
    assert [f"{link.context.trace_id:032x}" for link in batch.links] == [other]
    assert batch.attributes is not None
    assert batch.attributes["adawise.stream_id"] == "north"
    assert batch.attributes["messaging.destination.name"] == "frames"
    assert batch.attributes["adawise.alpha"] == 0.35


def test_stages_follow_each_other_from_the_first_message_to_the_prediction_and_on_to_the_commit() -> None:
    seen = Observed()
    seen.serve(header())
    seen.commit()
    assert milliseconds(*seen.spans("batch")) == (-10_000.0, 0.0)
    assert milliseconds(*seen.spans("gather")) == (-10_000.0, -230.0)
    assert milliseconds(*seen.spans("adapt")) == (-230.0, -200.0)
    assert milliseconds(*seen.spans("forward")) == (-200.0, 0.0)
    [commit] = seen.spans("commit")
    assert milliseconds(commit) == (0.0, 2_000.0)
    assert commit.attributes is not None
    assert str(commit.attributes["adawise.segment"]).startswith("predictions/")
    [batch] = seen.spans("batch")
    assert batch.context is not None
    for name in ("gather", "adapt", "forward", "commit"):
        [child] = seen.spans(name)
        assert child.parent is not None
        assert child.parent.span_id == batch.context.span_id
        assert child.context is not None
        assert f"{child.context.trace_id:032x}" == TRACE


def test_a_message_without_a_trace_begins_one_and_one_that_is_not_sampled_costs_no_span() -> None:
    seen = Observed()
    seen.serve()
    seen.serve(header(flags="00"))
    [batch] = seen.spans("batch")
    assert batch.parent is None
    seen.commit()
    assert len(seen.spans("commit")) == 1


def test_a_lost_race_is_an_error_and_a_lost_partition_ends_nothing() -> None:
    seen = Observed()
    seen.serve(header())
    seen.commit(won=False)
    [commit] = seen.spans("commit")
    assert commit.status.status_code is StatusCode.ERROR
    seen.serve(header())
    seen.observer.observe(PartitionLost(TP))
    seen.commit()
    assert len(seen.spans("commit")) == 1


def test_what_was_served_while_a_segment_waited_for_its_store_is_durable_with_the_next() -> None:
    seen = Observed()
    seen.serve(images=1)
    seen.serve(images=1, first=2)
    seen.serve(images=1, first=4)
    seen.commit(until=4, pending=(2,))
    assert len(seen.spans("commit")) == 1
    seen.commit(until=5)
    assert len(seen.spans("commit")) == 3


def test_what_waits_for_its_commit_is_bounded_and_the_end_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MOST", 5)
    seen = Observed()
    for _ in range(8):
        seen.serve(images=1)
    seen.exporter.clear()
    seen.commit()
    assert len(seen.spans("commit")) == 5
    seen.observer.observe(Stopped())
    assert seen.ended == 1


def test_a_timestamp_that_cannot_be_believed_does_not_stretch_the_batch() -> None:
    seen = Observed()
    frames = [replace(frame(0), kafka_timestamp_ms=stated) for stated in (-1, AT_MS + 5_000, AT_MS - 4_000_000)]
    for each in frames:
        batch, predictions, trace = served([each])
        batch = ImageBatch("north", (each,), batch.images)
        trace = replace(trace, predicted_at_us=1_000 * AT_MS)
        seen.observer.observe(BatchServed(trace, predictions, [], batch))
    assert seen.spans("gather") == []
    assert {milliseconds(span) for span in seen.spans("batch")} == {(-20.0, 0.0)}
