"""Traces for OpenTelemetry: a span for each batch, in the trace of its messages (extra `otel`)."""
