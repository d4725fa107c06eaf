"""Traces for OpenTelemetry: a span for each batch, in the trace that its messages came in (extra `otel`)."""
