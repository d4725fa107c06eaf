"""The short forms: faults, and operations among faults; and what is planted must be found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adawise.output.compaction import retain
from adawise.pairs import operate
from adawise.pairs.orders import Orders
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.files import segment_names
from adawise.store.store import Store
from tests.brokers import ApacheKafka, Broker, broker_of
from tests.models import PairFolder
from tests.store.faults import DONE, NOT_DONE
from tools.chaos.place import StoreName
from tools.chaos.run import Play, run
from tools.chaos.schedule import OPERATIONS, Kind, ScheduledFault, schedule

RATE = 100.0  # messages a second: slow enough that faults, and not images, take the time
RACES = [Kind.ZOMBIE]
ON_A_BUCKET = [Kind.OUTAGE, Kind.ZOMBIE, Kind.EXIT, Kind.KILL]
QUICK_OPERATIONS = OPERATIONS - {Kind.SETTINGS, Kind.LETTERS}
BESIDE_OPERATORS = [Kind.KILL, Kind.OUTAGE, Kind.EXIT]
SEED = 454  # of a schedule in which a staged pair is switched to and then taken back
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


def operated(seed: int, faults: Sequence[ScheduledFault], messages: int, **changes: Any) -> Play:
    """Two workers on two partitions, and operators."""
    few: dict[str, Any] = {
        "cameras": 8,
        "partitions": 2,
        "workers": 2,
        "operators": True,
        "rate": RATE / 4,
        "lead": 100,
    }
    return Play(seed=seed, messages=messages, faults=faults, **(few | changes))


def test_nothing_is_lost_doubled_or_wrong_while_operators_change_pairs_and_files_and_workers_die(
    broker: Broker, pair: PairFolder, root: Path
) -> None:
    root.mkdir()
    faults = schedule(SEED, 12, [*QUICK_OPERATIONS, *BESIDE_OPERATORS])
    report = run(operated(SEED, faults, 300), broker, pair, root)
    assert report.is_clean, str(report)
    done = {what.split()[1] for what in report.toll if what.startswith("operations: ")}
    assert done == {fault.kind for fault in faults} & OPERATIONS == QUICK_OPERATIONS - {Kind.ROLLBACK}, str(report)
    carried_out = {kind for kind in done if report.toll[f"operations: {kind} done"]}
    assert carried_out >= {Kind.STAGE, Kind.SWITCH, Kind.COMPACT, Kind.RETAIN}, str(report)
    assert report.toll["orders"] > 0, str(report)  # a rollback may come before any partition has switched
    assert report.toll["kills"] + report.toll["exits at a point"] > 0, str(report)
    outages = sum(fault.kind == Kind.OUTAGE for fault in faults)
    assert report.toll["store outages"] + report.toll["creations tried again"] == outages > 0, str(report)


@pytest.mark.soak
@pytest.mark.timeout(5_400)
def test_nothing_is_lost_doubled_or_wrong_in_an_hour_of_operators_and_faults(
    three_brokers: ApacheKafka, pair: PairFolder, root: Path
) -> None:
    root.mkdir()
    many = {"cameras": 24, "partitions": 8, "workers": 3, "replication": 3, "lead": 3_000}
    play = operated(9, schedule(9, 160, tuple(Kind)), 90_000, **many)
    report = run(play, broker_of(three_brokers), pair, root, three_brokers)
    assert report.is_clean, str(report)
    assert report.toll["switches of partitions"] > 8, str(report)


def serve_what_was_taken_back() -> None:
    """Let a second rollback serve what the first took back, as in 0.2."""
    opened = operate.open_orders

    def forgetful(root: str) -> tuple[Store, Orders]:
        store, orders = opened(root)
        return store, replace(orders, undone=None)

    vars(operate)["open_orders"] = forgetful


def remove_without_a_claim() -> None:
    """Let `retain` remove whatever is not at the end of a chain, however new."""

    def sweep(store: Store, tp: TopicPartition, **_: object) -> Iterator[str]:
        for name in segment_names(store, tp)[:-2]:
            store.delete(layout.segment_key(tp, name))
            yield layout.segment_key(tp, name)

    vars(retain)["sweep"] = sweep


@pytest.mark.parametrize(
    ("plant", "kinds", "found"),
    [
        pytest.param(
            serve_what_was_taken_back,
            [Kind.STAGE, Kind.SWITCH, Kind.ROLLBACK, Kind.ROLLBACK],
            "as the order before it has done",
            marks=pytest.mark.soak,  # the rule alone is tested in test_operators.py
        ),
        (remove_without_a_claim, [Kind.RETAIN], "expected a segment of this name"),
    ],
)
def test_the_same_judge_finds_a_rollback_that_serves_the_wrong_pair_and_a_retention_that_ignores_the_chain(
    plant: Callable[[], None], kinds: Sequence[Kind], found: str, broker: Broker, pair: PairFolder, root: Path
) -> None:
    root.mkdir()
    faults = [ScheduledFault(0.7 + 0.01 * n, kind, 0.1, 0.0, "") for n, kind in enumerate(kinds)]
    report = run(operated(2, faults, 200, workers=1, quiet_s=6.0, prepare=plant), broker, pair, root)
    assert any(found in fault for fault in report.verdict.faults), str(report)
