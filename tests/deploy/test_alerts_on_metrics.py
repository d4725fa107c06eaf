"""The shipped rules, at their real durations, on what a worker's metrics say while it is overloaded or its broker dead.

The worker is over fakes and their clock; the rules are evaluated by Prometheus' own tool.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from adawise.errors import BrokerUnavailable, PermissionRefused
from adawise.ports import Poll
from adawise.watch.counts import Distribution
from adawise.watch.metrics import METRICS
from tests.deadlines import DEADLINE_S
from tests.deploy.watching import RULES
from tests.fakes import FakeSource
from tests.watch.watched import Watched, loaded
from tests.worker.loop import FakeResults, image

EVERY_S = 15.0
LABELS = {"job": "adawise", "instance": "a"}

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus")


class Scrapes:
    """What Prometheus would have scraped, every 15 s, of the metrics with these names."""

    def __init__(self, *names: str) -> None:
        self._specs = [spec for spec in METRICS if spec.name in names]
        self._series: dict[str, dict[int, float]] = defaultdict(dict)

    def add(self, watched: Watched) -> None:
        number = int(watched.bench.now_s / EVERY_S)
        for spec in self._specs:
            for values, value in spec.series.samples(watched.scrape()):
                assert not isinstance(value, Distribution)
                labels = LABELS | dict(zip(spec.series.labels, values, strict=True))
                selected = ", ".join(f'{key}="{fields}"' for key, fields in labels.items())
                name = f"{spec.name}{{{selected}}}"
                self._series[name].setdefault(number, value)

    @property
    def input_series(self) -> list[dict[str, str]]:
        """As promtool reads them; a scrape that a turn of the loop passed over has the value before it."""
        found = []
        for name, values in self._series.items():
            result = [values.get(0, math.nan)]
            for number in range(1, max(values) + 1):
                result.append(values.get(number, result[-1]))
            found.append({"series": name, "values": " ".join("_" if math.isnan(v) else f"{v:.6g}" for v in result)})
        return found

    def firing(self, folder: Path, alert: str, *minutes: int) -> list[int]:
        """At which of these minutes the alert fires, by promtool."""
        requested = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
        found = []
        for minute in minutes:
            check = {"expr": requested, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": 1}]}
            case: dict[str, Any] = {"interval": "15s", "input_series": self.input_series, "promql_expr_test": [check]}
            file = folder / "case.yaml"
            file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [case]}))
            done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, timeout=DEADLINE_S)
            assert done.returncode == 0 or b"got:" in done.stdout + done.stderr, done
            if done.returncode == 0:
                found.append(minute)
        return found


@pytest.mark.parametrize(("arriving_per_s", "fires"), [(2.0, [35]), (0.8, [])])
def test_a_worker_at_twice_its_capacity_falls_behind_and_one_that_keeps_up_does_not(
    tmp_path: Path, arriving_per_s: float, fires: list[int]
) -> None:
    scrapes = Scrapes("adawise_lag_seconds")
    loaded(2_160.0, arriving_per_s=arriving_per_s, served_per_s=1.0, each=scrapes.add)
    assert scrapes.firing(tmp_path, "AdawiseFallsBehind", 15, 35) == fires


class DeadBroker(FakeSource):
    """Answers for a while; then each poll fails after a minute, as kafka-python's rounds over dead brokers do."""

    def __init__(self, waits: Callable[[], None]) -> None:
        super().__init__([image(n, "north") for n in range(8)])
        self._waits = waits
        self.is_dead = False

    def poll(self, timeout_s: float) -> Poll:
        if self.is_dead:
            self._waits()
            raise BrokerUnavailable("nobody answers")
        return super().poll(timeout_s)


def test_a_broker_that_is_dead_is_an_alert_after_minutes_and_ends_when_it_answers(tmp_path: Path) -> None:
    scrapes = Scrapes("adawise_outage_seconds")

    def wait() -> None:
        for _ in range(4):
            watched.bench.now_s += EVERY_S
            scrapes.add(watched)

    source = DeadBroker(wait)
    watched = Watched(source)

    def turn() -> bool:
        source.is_dead = 60.0 < watched.bench.now_s < 1_200.0
        scrapes.add(watched)
        return watched.bench.now_s > 1_500.0

    watched.run(turn)
    assert scrapes.firing(tmp_path, "AdawiseBrokerFails", 5, 8, 12, 19, 24) == [8, 12, 19]


def test_a_right_that_was_taken_back_is_no_dead_broker(tmp_path: Path) -> None:
    scrapes, results = Scrapes("adawise_outage_seconds"), FakeResults("early")
    watched = Watched(FakeSource([image(n, "north") for n in range(8)]), results=results)

    def turn() -> bool:
        results.errors = [PermissionRefused("no WRITE on the topic of results")] if watched.bench.now_s > 60.0 else []
        if watched.bench.steps == 1_300:
            source = watched.bench._worker._source
            assert isinstance(source, FakeSource)
            source.append(*(image(n, "north") for n in range(8, 16)))
        scrapes.add(watched)
        return watched.bench.now_s > 900.0

    watched.run(turn)
    assert scrapes.firing(tmp_path, "AdawiseTopicRefuses", 3, 12) == [12]
    assert scrapes.firing(tmp_path, "AdawiseBrokerFails", 12) == []
