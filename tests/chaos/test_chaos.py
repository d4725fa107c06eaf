"""The short form: ten faults, and the same with a store that overwrites, which must be found out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.brokers import ApacheKafka, Broker, broker_of
from tests.models import PairFolder
from tests.store.faults import DONE, NOT_DONE
from tools.chaos.place import StoreName
from tools.chaos.run import Play, run
from tools.chaos.schedule import Kind, schedule

RATE = 100.0  # messages a second: slow enough that faults, and not images, take the time
RACES = [Kind.ZOMBIE]
ON_A_BUCKET = [Kind.OUTAGE, Kind.ZOMBIE, Kind.EXIT, Kind.KILL]
# On a busy machine; a third of a minute of it is the brokers' start.
pytestmark = [pytest.mark.check("chaos"), pytest.mark.timeout(600)]


@pytest.mark.parametrize(("count", "messages"), [(10, 1_000), pytest.param(15, 1_500, marks=pytest.mark.soak)])
def test_nothing_is_lost_doubled_or_wrong_after_kills_zombies_outages_and_the_fall_of_a_broker(
    three_brokers: ApacheKafka, pair: PairFolder, root: Path, count: int, messages: int
) -> None:
    root.mkdir()
    faults = schedule(4, count)
    play = Play(seed=4, messages=messages, faults=faults, rate=RATE, replication=3)
    report = run(play, broker_of(three_brokers), pair, root, three_brokers)
    assert report.is_clean, str(report)
    survived, planned = report.toll, Counter(fault.kind for fault in faults)
    assert survived["segments"] > 2 * count, str(report)
    assert survived["zombies resumed"] + survived["freezes resumed"] >= 3, str(report)
    assert survived["lost races"] > 0, str(report)
    assert survived["kills"] + survived["exits at a point"] >= 3, str(report)
    assert survived["broker restarts"] == survived["store outages"] == 1, str(report)
    back = survived["static members back in time"] + survived["static members back too late"]
    assert back == planned[Kind.RETURN], str(report)
    assert survived["static members fenced"] == 1, str(report)


@pytest.mark.soak
@pytest.mark.parametrize("store", ["s3", "seaweedfs"])
def test_nothing_is_lost_doubled_or_wrong_in_a_bucket_whose_requests_fail_time_out_and_are_cut(
    store: StoreName, broker: Broker, pair: PairFolder, root: Path
) -> None:
    root.mkdir()
    faults = schedule(6, 6, ON_A_BUCKET, in_folder=False)
    report = run(Play(seed=6, messages=600, faults=faults, rate=RATE, store=store), broker, pair, root)
    assert report.is_clean, str(report)
    assert report.toll["store outages"] == 1, str(report)
    assert sum(report.toll[f"requests {fault}"] for fault in NOT_DONE) > 0, str(report)
    assert sum(report.toll[f"requests {fault}"] for fault in DONE) > 0, str(report)


def test_the_same_judge_finds_lost_and_doubled_rows_if_the_store_overwrites(
    broker: Broker, pair: PairFolder, root: Path
) -> None:
    root.mkdir()
    play = Play(seed=2, messages=500, faults=schedule(2, 5, RACES), rate=RATE, overwrites=True, quiet_s=6.0)
    report = run(play, broker, pair, root)
    assert report.verdict.missing + report.verdict.doubled > 0, str(report)
    assert report.verdict.faults, str(report)
