"""Spans on their way to a collector: a real one that speaks OTLP over HTTP, none, and one that is away."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from structlog.testing import capture_logs

from adawise import logs
from adawise.app import telemetry
from adawise.app.telemetry import is_wanted, spans
from adawise.watch.tracing import span_observer
from adawise.worker.events import BatchServed, Stopped
from tests.deadlines import DEADLINE_S
from tests.loopback import Answering, Server, serving
from tests.sink.building import frame, served


def a_batch(images: int) -> BatchServed:
    batch, predictions, trace = served([frame(offset) for offset in range(images)])
    return BatchServed(trace, predictions, [], batch)


class Collector(Server):
    """Keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(_Export)
        self.requests: list[ExportTraceServiceRequest] = []


class _Export(Answering):
    server: Collector

    def post(self) -> None:
        body = self.body()
        if self.path == "/v1/traces":
            self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.answer(200)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with serving(Collector()) as made:
        yield made


def test_a_worker_s_batches_reach_a_collector_before_its_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    with capture_logs() as logs:
        observer = spans()
    assert observer is not None
    assert [(log["event"], log["collector"]) for log in logs] == [("tracing_started", collector.address)]
    observer.observe(a_batch(2))
    observer.observe(Stopped())
    [resource] = [each for request in collector.requests for each in request.resource_spans]
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert named["service.name"] == "adawise"
    found = [span.name for scope in resource.scope_spans for span in scope.spans]
    assert sorted(found) == ["adapt", "batch", "forward"]


def test_the_service_is_called_as_the_environment_says(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "yard")
    observer = spans()
    assert observer is not None
    observer.observe(a_batch(1))
    observer.observe(Stopped())
    [resource] = [each for request in collector.requests for each in request.resource_spans]
    assert "yard" in [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]


class Stuck(SpanExporter):
    """A collector that takes a connection and never answers."""

    def __init__(self) -> None:
        self.answered = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        self.answered.wait(DEADLINE_S)
        return SpanExportResult.SUCCESS


@pytest.mark.filterwarnings("ignore")
def test_a_collector_that_is_away_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.watch.tracing._LAST_S", 0.1)
    exporter = Stuck()
    try:
        observer = span_observer("yard", exporter)
        observer.observe(a_batch(1))
        observer.observe(Stopped())  # it would never return if it waited for the last export
        assert not exporter.answered.is_set()
    finally:
        exporter.answered.set()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "yard"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_traces_are_made_only_where_a_collector_is_named(environ: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environ) == wanted
    if not wanted:
        assert spans(environ) is None


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_neither_password_nor_token_of_a_collector_is_logged(
    name: str, collector: Collector, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form="json")
    monkeypatch.setenv(name, collector.address.replace("://", "://yard:Geheim@") + "/v1/none?token=heimlich")
    observer = spans()
    assert observer is not None
    observer.observe(a_batch(2))
    observer.observe(Stopped())
    output = capfd.readouterr().err
    assert "tracing_started" in output
    assert "yard:***@" in output
    assert not re.search("Geheim|heimlich", output)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://[::1:4318",
        "http://yard:Ge/heim@127.0.0.1:9/?token=heimlich",
        "http://yard:Ge?heim#lich@127.0.0.1:9",
    ],
)
def test_an_endpoint_that_is_no_url_or_has_a_password_with_any_character_stops_nothing_and_leaks_nothing(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure(form="json")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    observer = spans()
    assert observer is not None
    log = logging.getLogger(telemetry._EXPORTERS_LOG)
    log.error("Failed to export to %s", endpoint)
    log.error("%d spans were dropped", "no number")
    observer.observe(Stopped())
    output = capfd.readouterr().err
    assert "tracing_started" in output
    assert "Failed to export" in output
    assert "%d spans were dropped" in output
    assert not re.search("heim|lich", output)


def test_what_is_missing_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}
    with capture_logs() as logs:
        assert spans({**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) is None
        monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
        assert spans(endpoint) is None
    assert [log["event"] for log in logs] == ["tracing_left_out"] * 2
    assert "http/protobuf" in logs[0]["note"]
    assert "adawise[otel]" in logs[1]["note"]
