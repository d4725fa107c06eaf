"""Spans of a batch, made from the worker's events, so that the worker's loop does not deal with them.

    batch         from its first message's timestamp until it was predicted
      gather      until its images were together: at the broker, decoding, waiting for the others
      adapt       the search for alpha; its share, where batches are adapted together
      forward     the forwards through the model; its share
    commit        from then until its rows were durable; a child of `batch` that may end seconds later

The batch is a child of the span in the `traceparent` of the first message that has one; it has links to the traces of
the other messages. If the first message has no timestamp, or one more than an hour old, the batch begins when its
images were together, and `gather` is left out.

They are sent to a collector by OTLP over HTTP, as the standard OTEL_* variables configure it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from adawise.ports import Commit
from adawise.records import BatchTrace, Frame, ImageBatch, TopicPartition
from adawise.worker.events import BatchServed, Event, PartitionLost, SegmentCommitted, Stopped

MOST = 8_192
"""Batches of a partition that may wait for their commit; further ones have no `commit` span."""

_LINKS = 128
_LONGEST_MS = 3_600_000
_NAME = "adawise"
_W3C = TraceContextTextMapPropagator()


class _Served(NamedTuple):
    """A batch that is not durable yet."""

    context: Context
    at_ns: int
    first_offset: int
    last_offset: int


class SpanObserver:
    """Makes the spans of all sampled batches.

    Args:
        provider: passes spans to its exporters; ended with the worker.
        end: ends the provider.
        now_ns: clock, nanoseconds since the epoch.
    """

    def __init__(
        self, provider: TracerProvider, end: Callable[[], None], now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._tracer, self._end, self._now_ns = provider.get_tracer(_NAME), end, now_ns
        self._waiting: dict[TopicPartition, list[_Served]] = {}

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        match event:
            case BatchServed(trace=trace, batch=ImageBatch() as batch):
                self._served(batch, trace)
            case SegmentCommitted():
                self._committed(event.tp, event.commit)
            case PartitionLost():
                self._waiting.pop(event.tp, None)
            case Stopped():
                self._end()
            case _:
                pass

    def _served(self, batch: ImageBatch, trace: BatchTrace) -> None:
        end_ns = 1_000 * trace.predicted_at_us if trace.predicted_at_us is not None else self._now_ns()
        adapt_ns, forward_ns = (round(1e6 * trace.milliseconds.get(name, 0.0)) for name in ("search", "forward"))
        together_ns = end_ns - adapt_ns - forward_ns
        begun_ns = _begun(batch.frames, together_ns)
        parent, links = _origin(batch.frames)
        span = self._tracer.start_span(
            "batch",
            context=parent,
            kind=SpanKind.CONSUMER,
            links=links,
            attributes=_facts(trace),
            start_time=together_ns if begun_ns is None else begun_ns,
        )
        if span.is_recording():
            context = otel.set_span_in_context(span, Context())
            if begun_ns is not None:
                self._child("gather", context, begun_ns, together_ns)
            self._child("adapt", context, together_ns, together_ns + adapt_ns)
            self._child("forward", context, together_ns + adapt_ns, end_ns)
            waiting = self._waiting.setdefault(TopicPartition(trace.topic, trace.partition), [])
            if len(waiting) < MOST:
                waiting.append(_Served(context, end_ns, trace.first_offset, trace.last_offset))
        span.end(end_ns)

    def _committed(self, tp: TopicPartition, commit: Commit) -> None:
        """End the `commit` spans of a segment's batches.

        After a won commit, batches that were served while the segment waited for the store keep waiting. After a lost
        race, the spans of all batches end with an error.
        """
        now_ns, head, pending = self._now_ns(), commit.head, set(commit.head.pending)
        later: list[_Served] = []
        for served in self._waiting.pop(tp, ()):
            is_later = served.last_offset >= head.next_offset or served.first_offset in pending
            if commit.won and is_later:
                later.append(served)
                continue
            span = self._child("commit", served.context, served.at_ns, None)
            if commit.won and commit.head.segment is not None:
                span.set_attribute("adawise.segment", commit.head.segment)
            else:
                span.set_status(Status(StatusCode.ERROR, "another worker wrote this segment"))
            span.end(now_ns)
        if later:
            self._waiting[tp] = later

    def _child(self, name: str, context: Context, start_ns: int, end_ns: int | None) -> Span:
        span = self._tracer.start_span(name, context=context, start_time=start_ns)
        if end_ns is not None:
            span.end(end_ns)
        return span


def _begun(frames: tuple[Frame, ...], together_ns: int) -> int | None:
    """Return when the first message of the batch was sent, in ns; None if its timestamp is absent or implausible."""
    sent_ms = frames[0].kafka_timestamp_ms
    waited_ms = together_ns / 1e6 - sent_ms
    return 1_000_000 * sent_ms if sent_ms >= 0 and 0 <= waited_ms <= _LONGEST_MS else None


def _origin(frames: tuple[Frame, ...]) -> tuple[Context, list[Link]]:
    """Return the context that the batch is a child of, and links to the other traces of its images."""
    found: dict[str, tuple[Context, SpanContext]] = {}
    for frame in frames:
        parent = frame.meta.get("traceparent")
        if parent is not None and parent not in found and len(found) <= _LINKS:
            context = _W3C.extract(_carrier(frame.meta), Context())
            span = otel.get_current_span(context).get_span_context()
            if span.is_valid:
                found[parent] = context, span
    first = next(iter(found.values()), None)
    return Context() if first is None else first[0], [Link(span) for _, span in [*found.values()][1:]]


def _carrier(meta: Mapping[str, str]) -> dict[str, str]:
    return {name: meta[name] for name in ("traceparent", "tracestate") if name in meta}


def _facts(trace: BatchTrace) -> dict[str, str | int | float | bool]:
    """Return the span's attributes, named by the semantic conventions where these have a name."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": trace.topic,
        "messaging.destination.partition.id": str(trace.partition),
        "messaging.kafka.offset": trace.first_offset,
        "messaging.batch.message_count": trace.images,
        "adawise.stream_id": trace.stream_id,
        "adawise.batch_number": trace.batch_number,
        "adawise.alpha": trace.alpha,
        "adawise.forward_equivalents": trace.forward_equivalents,
        "adawise.trigger": trace.trigger,
    }


_LAST_S = 3.0  # for the last spans; a collector that does not answer must not hold up a worker


def span_observer(service: str, exporter: SpanExporter | None = None) -> SpanObserver:
    """Return an observer whose spans are exported in a thread; spans that no collector accepts are dropped.

    Args:
        service: name of the process, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES names it.
        exporter: in place of OTLP.
    """
    named = Resource.create({})  # reads the environment; without a name there, it begins with unknown_service
    is_named = not str(named.attributes[SERVICE_NAME]).startswith("unknown_service")
    resource = named if is_named else named.merge(Resource({SERVICE_NAME: service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))

    def end() -> None:
        last = threading.Thread(target=provider.shutdown, name="spans", daemon=True)
        last.start()
        last.join(_LAST_S)

    return SpanObserver(provider, end)
