"""The environment -> traces for OpenTelemetry, or none. Its packages are loaded only if it is asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec

import structlog
from typing_extensions import override

from adawise.produce.address import Address, address_of
from adawise.worker.events import Observer

SERVICE = "adawise"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_EXPORTERS_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def spans(environ: Mapping[str, str] = os.environ) -> Observer | None:
    """Return the exporter of a worker's traces, if a collector is named; None, with a log line, if it cannot export.

    A platform may set these variables for all that runs on it, so none of them stops a worker.
    """
    if not is_wanted(environ):
        return None
    log = structlog.get_logger("telemetry")
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        note = f"OTLP is supported as {_PROTOCOL}, not as {protocol}: set OTEL_EXPORTER_OTLP_PROTOCOL to that"
        log.warning("tracing_left_out", note=note)
        return None
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        log.warning("tracing_left_out", note="install the exporter: pip install 'adawise[otel]'")
        return None
    from adawise.watch.tracing import span_observer

    endpoint = next(environ[name] for name in reversed(_ENDPOINTS) if environ.get(name))
    collector = address_of(endpoint)  # it may hold a password or a token
    log.info("tracing_started", collector=collector.shown)
    logging.getLogger(_EXPORTERS_LOG).addFilter(_Masking(collector))
    return span_observer(SERVICE)


class _Masking(logging.Filter):
    """A filter that removes the password and the query of an address from each log line about it."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Keep each line, without the secrets. A line that cannot be formatted is kept by its template alone."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            message = str(record.msg)
        record.msg, record.args = self._address.hide(message), ()
        return True


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Return True if the environment names a collector for traces, and does not disable them."""
    named = any(environ.get(name) for name in _ENDPOINTS)
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    return named and exporter == "otlp" and environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
