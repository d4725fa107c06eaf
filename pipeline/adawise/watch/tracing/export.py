"""The export of spans: to a collector by OTLP over HTTP, as the standard OTEL_* variables configure it."""

from __future__ import annotations

import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from adawise.watch.tracing.spans import SpanObserver

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
