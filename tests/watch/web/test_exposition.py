"""What a scraper reads: both formats, whatever streams are called, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
from prometheus_client import REGISTRY, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from adawise.watch.metrics import METRICS
from adawise.watch.web.app import Exposition
from tests.fakes import FakeSource
from tests.watch.watched import Watched
from tests.watch.web.yard import HOSTILE
from tests.worker.loop import images

NAMES = ("north", HOSTILE, 'quote" back\\slash', "camera{x=1} 7", "Kamera Süd")
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture(scope="module")
def exposition() -> Exposition:
    watched = Watched(FakeSource(images(100, *NAMES), finite=True)).run()
    return Exposition(METRICS, lambda: nullcontext(watched.scrape()))


def of(families: Iterable[Metric]) -> dict[str, Metric]:
    return {family.name: family for family in families}


def test_both_formats_have_every_metric_with_its_meaning(exposition: Exposition) -> None:
    text, kind = exposition.answer("")
    assert kind.startswith("text/plain")
    opened, open_kind = exposition.answer(OPENMETRICS)
    assert open_kind.startswith("application/openmetrics-text")
    for families in (of(parse_text(text.decode())), of(parse_openmetrics(opened.decode()))):  # type: ignore[no-untyped-call]
        for spec in METRICS:
            family = families[spec.name.removesuffix("_total")]
            assert (family.type, family.documentation) == (spec.kind, spec.meaning)


@pytest.mark.parametrize("version", ["abc", "", "1.0.0; escaping=none", "1;version=2"])
def test_a_scraper_that_asks_for_no_version_that_there_is_gets_samples(exposition: Exposition, version: str) -> None:
    assert b"adawise_images_total" in exposition.answer(f"application/openmetrics-text; version={version}")[0]


def test_streams_come_back_as_they_are_called(exposition: Exposition) -> None:
    families = of(parse_text(exposition.answer("")[0].decode()))
    images_of = {s.labels["stream"]: s.value for s in families["adawise_stream_images"].samples}
    assert images_of == dict.fromkeys(NAMES, 20.0)


def test_buckets_add_up(exposition: Exposition) -> None:
    families = of(parse_text(exposition.answer("")[0].decode()))
    samples = families["adawise_prediction_latency_seconds"].samples
    counts = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert counts == sorted(counts)
    assert counts[-1] == next(s.value for s in samples if s.name.endswith("_count")) == 100


@contextmanager
def somebody_elses() -> Iterator[str]:
    """A metric in the library's global registry."""
    gauge = Gauge("somebody_elses", "Not ours.")
    try:
        yield "somebody_elses"
    finally:
        REGISTRY.unregister(gauge)


def test_what_others_have_in_the_process_is_not_told_and_theirs_is_not_touched(exposition: Exposition) -> None:
    with somebody_elses() as name:
        assert name.encode() not in exposition.answer("")[0]
    assert not {metric.name for metric in REGISTRY.collect()} & {spec.name for spec in METRICS}


def test_the_process_itself_is_told(exposition: Exposition) -> None:
    families = of(parse_text(exposition.answer("")[0].decode()))
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
