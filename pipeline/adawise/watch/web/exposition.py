"""The exposition of the table of metrics to Prometheus, by prometheus-client, with a registry of its own.

Metrics that other code has put into the library's global registry are not exposed. The metrics of the process (CPU
seconds, memory, file descriptors) come from the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from adawise.watch.counts import Distribution
from adawise.watch.metrics import MetricSpec

Read = TypeVar("Read")


class TableCollector(Collector, Generic[Read]):
    """A collector that reads all samples at each scrape, within the context manager that provides their source."""

    def __init__(self, table: Sequence[MetricSpec[Read]], scrape: Callable[[], AbstractContextManager[Read]]) -> None:
        self._table, self._scrape = table, scrape

    @override
    def collect(self) -> list[Metric]:
        with self._scrape() as scrape:
            return [_family(spec, scrape) for spec in self._table]


def _family(spec: MetricSpec[Read], scrape: Read) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    if spec.kind == "histogram":
        family = HistogramMetricFamily(spec.name, spec.meaning, labels=spec.series.labels)
        for labels, value in spec.series.samples(scrape):
            assert isinstance(value, Distribution)
            family.add_metric(labels, [*value.cumulative()], value.total)
        return family
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    family = kind(spec.name, spec.meaning, labels=spec.series.labels)
    for labels, value in spec.series.samples(scrape):
        assert not isinstance(value, Distribution)
        family.add_metric(labels, value)
    return family


class Exposition:
    """The answers to scrapes.

    Args:
        table: the metrics.
        scrape: returns a context manager that yields the source of the samples, which does not change within it.
    """

    def __init__(self, table: Sequence[MetricSpec[Read]], scrape: Callable[[], AbstractContextManager[Read]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(TableCollector(table, scrape))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def answer(self, accept: str) -> tuple[bytes, str]:
        """Return (body, content type) in the format that the scraper's Accept header asks for."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # the header names a malformed version of a format
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type
