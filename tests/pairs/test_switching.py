"""A pair is switched between two segments; a restart and a replay come to the same result, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from adawise.adapt.objective import raw_entropy
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.errors import SettingsError
from adawise.pairs.planned import PlannedPairs, check_at_hand, needed, read_plan, served_config, within
from adawise.ports import Head, ServedBy, When
from adawise.records import Switch, TopicPartition
from adawise.sink import layout
from adawise.store.store import Store
from adawise.worker.adaptation import Adaptation
from adawise.worker.pairs import Pairs, PairTurn, Serving
from adawise.worker.partition import FlushPolicy
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.sink.footers import read_segment_footers
from tests.worker.loop import ALPHAS, CLASSES, TP, Bench, FakeClassifier, FakeResults, images

OTHERS = ("lorry", "tram", "cyclist", "nobody")
MESSAGES = images(90, "north", "south", "east")


class Died(Exception):
    """Of a worker, at a point."""


class OtherClassifier(FakeClassifier):
    """Another pair, of other classes."""

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        pixel = torch.cat([part[:, 0, 0, 0] for part in images])
        x = pixel.double() / 255.0  # [N]
        best = (pixel.long() * 3 + alpha_index) % len(OTHERS)
        sharpness = 1.0 + 3.0 * (1.0 - (ALPHAS[alpha_index] - 1.0 + x).abs())
        return (torch.nn.functional.one_hot(best, len(OTHERS)) * sharpness[:, None]).float()


def serving(name: str, classifier: FakeClassifier, classes: Sequence[str]) -> Serving:
    search = WarmSearch(ALPHAS, raw_entropy, f"fake@{name}", 2, Exploration(budget=3, images=2, every=3, min_images=2))
    method = Adaptation(search, classifier, (1.0,) * len(ALPHAS), top_k=2)
    return Serving(method, ServedBy(tuple(classes), f"model {name}", f"config {name}", name))


OLD, NEW = serving("old", FakeClassifier(), CLASSES), serving("new", OtherClassifier(), OTHERS)


class TargetPairs(Pairs):
    """`target` is asked for."""

    def __init__(self, target: Serving, *, keeps: bool = False) -> None:
        super().__init__(target, keeps=keeps)
        self.target, self.keeps = target, keeps
        self.switches: list[tuple[TopicPartition, Switch]] = []

    @override
    def at(self, tp: TopicPartition, head: Head) -> PairTurn:
        return PairTurn(self.target, self.keeps)

    @override
    def wanted(self, tp: TopicPartition, serving: Serving) -> PairTurn | None:
        return None if serving is self.target else PairTurn(self.target, self.keeps)

    @override
    def switched(self, tp: TopicPartition, turn: PairTurn, switch: Switch) -> None:
        self.switches.append((tp, switch))


def run(
    pairs: Pairs, store: Store | None = None, *, until: Callable[[Bench], bool] = lambda _: False, **changes: Any
) -> Bench:
    """A worker on the messages, to their end or to a condition."""
    polls = changes.pop("polls", 7)
    bench = Bench(FakeSource(MESSAGES, finite=True, max_poll_records=polls), store, pairs=pairs, **changes)
    return bench.run(lambda: until(bench))


def switched(after: int, *, keeps: bool = False, store: Store | None = None, **changes: Any) -> Bench:
    """A worker of which another pair is asked once it has served so many batches."""
    pairs = TargetPairs(OLD, keeps=keeps)

    def order(bench: Bench) -> bool:
        if len(bench.seen.served) >= after:
            pairs.target = NEW
        return False

    bench = run(pairs, store, until=order, **changes)
    assert [place for place, _ in pairs.switches] == [TP]
    return bench


def replayed(store: Store, **changes: Any) -> Bench:
    return run(PlannedPairs(read_plan(store), {"old": OLD, "new": NEW}, OLD, keeps=False), **changes)


def names(bench: Bench) -> list[str]:
    """Of the pairs, row by row."""
    return [name.removeprefix("model ") for name in bench.table["model_fingerprint"].to_pylist()]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_pair_is_switched_between_two_segments_and_rows_say_which_served(keeps: bool) -> None:
    bench = switched(6, keeps=keeps)
    bench.check_against(MESSAGES)
    assert set(names(bench)) == {"old", "new"}
    footers = [footer for _, footer in read_segment_footers(bench.store)]
    whose = [footer.switches[-1].pair for footer in footers]
    assert whose == sorted(whose, reverse=True)  # "old" before "new", and never back
    first, second = footers[-1].switches
    assert (first.pair, second.pair, second.keeps) == ("old", "new", keeps)
    last_old = max(footer.next for footer in footers if footer.switches[-1].pair == "old")
    assert second.first == last_old
    for row in bench.table.to_pylist():
        by_new = second.serves(row["offset"])
        assert row["model_fingerprint"] == f"model {'new' if by_new else 'old'}"
        assert row["label"] in (OTHERS if by_new else CLASSES)
    assert any(row["reset"] == "settings_changed" for row in bench.traces) is not keeps


@pytest.mark.parametrize("keeps", [False, True])
def test_a_worker_that_is_started_anew_at_the_switch_comes_to_the_same(keeps: bool) -> None:
    bench = switched(6, keeps=keeps)
    before, after = DictStore(), bench.store
    assert isinstance(after, DictStore)
    for key, data in after.objects.items():
        if not key.endswith(".parquet"):
            before.objects[key] = data
    for key, footer in read_segment_footers(bench.store):
        if footer.switches[-1].pair == "old":
            for name in (key, layout.traces_key(key)):
                before.objects[name] = after.objects[name]
    run(TargetPairs(NEW, keeps=keeps), before).check_against(MESSAGES, bench)


@pytest.mark.parametrize("changes", [{}, {"polls": 1}, {"polls": 500}, {"flush": FlushPolicy(3, 1_000.0)}], ids=str)
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.cases("replay", every=3)
def test_a_replay_is_switched_where_the_chain_says(keeps: bool, changes: dict[str, Any]) -> None:
    bench = switched(6, keeps=keeps)
    replayed(bench.store, **changes).check_against(MESSAGES, bench)


def test_a_replay_that_is_stopped_at_any_moment_goes_on_with_the_pair_whose_turn_it_is() -> None:
    bench = switched(6)
    store, plan = DictStore(), read_plan(bench.store)
    for steps in range(1, 40, 6):
        pairs = PlannedPairs(plan, {"old": OLD, "new": NEW}, OLD, keeps=False)

        def stops(bench: Bench, most: int = steps) -> bool:
            return bench.steps > most

        ended = run(pairs, store, until=stops, flush=FlushPolicy(3, 1.0))
    run(PlannedPairs(plan, {"old": OLD, "new": NEW}, OLD, keeps=False), store).check_against(MESSAGES, bench)
    assert ended.rows > 0


POINTS = [
    "worker.pair_switched",
    "segment.encoded",
    "segment.created",
    "worker.segment_committed",
    "worker.rows_complete",
]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("time", [1, 3])
@pytest.mark.cases("kills", every=3)
def test_a_worker_that_dies_around_a_switch_is_continued_as_its_chain_says(point: str, time: int) -> None:
    store, pairs, seen = DictStore(), TargetPairs(OLD), [0]
    bench = Bench(FakeSource(MESSAGES, finite=True, max_poll_records=7), store, pairs=pairs)

    def die(at: str) -> None:
        if pairs.target is NEW and at == point:
            seen[0] += 1
            if seen[0] == time or (point == "worker.pair_switched"):
                raise Died

    def order() -> bool:
        if len(bench.seen.served) >= 6:
            pairs.target = NEW
        return False

    bench.at = die
    with pytest.raises(Died):
        bench.run(order)
    again = run(TargetPairs(NEW), store)  # what is asked for is in the root
    again.check_against(MESSAGES)
    assert set(names(again)) == {"old", "new"}
    replayed(store).check_against(MESSAGES, again)


def test_back_and_forth_is_replayed_too() -> None:
    pairs = TargetPairs(OLD)

    def order(bench: Bench) -> bool:
        served = len(bench.seen.served)
        pairs.target = OLD if served < 5 or served >= 16 else NEW
        return False

    bench = run(pairs, until=order)
    bench.check_against(MESSAGES)
    assert [switch.pair for _, switch in pairs.switches] == ["new", "old"]
    replayed(bench.store, polls=50).check_against(MESSAGES, bench)


def test_a_replay_says_which_pair_is_not_at_hand_and_from_which_offset() -> None:
    recorded = {TP: (Switch(0, (), "old"), Switch(40, (37, 38), "new"))}

    def check(until: int, pair: str, *, ends_streams: bool = False) -> None:
        ranges = {TP: (0, until)}
        check_at_hand(within(recorded, ranges, ends_streams=ends_streams), ranges, {pair}, "runs/yard")

    check(40, "old")
    check(37, "old", ends_streams=True)
    for until, ends_streams in ((41, False), (40, True)):
        with pytest.raises(SettingsError, match=r"pair new, which served frames/0 from offset 40 on"):
            check(until, "old", ends_streams=ends_streams)
    with pytest.raises(SettingsError, match=r"pair old, which served frames/0 from offset 0 on"):
        check(100, "new")


@pytest.mark.parametrize("first", [len(MESSAGES), 10**6])
def test_a_switch_behind_the_part_needs_no_pair_at_first_and_when_the_replay_goes_on(first: int) -> None:
    recorded = {TP: (Switch(0, (), "old"), Switch(first, (), "new"))}
    ranges, store = {TP: (0, len(MESSAGES))}, DictStore()
    plan = within(recorded, ranges, ends_streams=True)
    for _ in range(2):
        run(PlannedPairs(plan, {"old": OLD}, OLD, keeps=False), store)
    again = Bench(FakeSource([], finite=True), store)
    assert (again.rows, set(names(again))) == (len(MESSAGES), {"old"})


def test_images_that_were_pending_at_a_switch_at_the_end_are_served_by_the_next_pair() -> None:
    n = len(MESSAGES)
    recorded, ranges = {TP: (Switch(0, (), "old"), Switch(n, tuple(range(n - 12, n)), "new"))}, {TP: (0, n)}
    plan = within(recorded, ranges, ends_streams=True)
    assert set(needed(plan, ranges)) == {"old", "new"}
    bench = run(PlannedPairs(plan, {"old": OLD, "new": NEW}, OLD, keeps=False))
    assert (bench.rows, set(names(bench))) == (n, {"old", "new"})


def test_what_is_told_early_and_once_committed_names_the_classes_of_the_pair_that_served() -> None:
    whens: list[When] = ["early", "committed"]
    for when in whens:
        results = FakeResults(when)
        switched(6, results=results)
        by = [received.by for received in results.published if received.by is not None]
        assert len(by) == len(results.published)
        assert by == [OLD.by] * by.count(OLD.by) + [NEW.by] * by.count(NEW.by)


def test_the_config_with_which_a_pair_served_is_read_off_the_segments() -> None:
    first, second = (
        Serving(
            OLD.adaptation,
            replace(OLD.by, model_fingerprint=f"model {name}", config=name, settings={"model.config": name}),
        )
        for name in "ef"
    )
    pairs = TargetPairs(first)

    def order(bench: Bench) -> bool:
        pairs.target = second if len(bench.seen.served) >= 6 else first
        return False

    bench = run(pairs, until=order)
    bench.check_against(MESSAGES)
    plan, ((_, switch),) = read_plan(bench.store), pairs.switches
    assert [each.pair for each in plan[TP]] == ["old"], "a chain names no config"
    assert served_config(bench.store, plan, {TP: (0, switch.first)}, "old") == "e"
    assert served_config(bench.store, plan, {TP: (switch.first, 10**9)}, "old") == "f"
    fields = rf"several configs, by their hashes: e served {TP} from offset 0; f served {TP} from offset {switch.first}"
    with pytest.raises(SettingsError, match=fields):
        served_config(bench.store, plan, {TP: (0, 10**9)}, "old")
    keys = [key for key, _ in read_segment_footers(bench.store)]
    assert isinstance(bench.store, DictStore)
    del bench.store.objects[keys[0]]
    with pytest.raises(SettingsError, match=rf"the root does not say which one served {TP} from offset 0"):
        served_config(bench.store, plan, {TP: (0, switch.first)}, "old")
