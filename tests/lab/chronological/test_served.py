"""Service of cameras on looked-up logits: the candidates, the order of batches, and states at a switch of pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adawise.adapt.shortlist import Shortlist, Shortlists
from adawise.adapt.strategies.warm import Exploration
from adawise.card.advice import AUTO
from adawise.card.card import Card, PairVerdict
from adawise.errors import SettingsError
from adawise.worker.batching import BatchPolicy, Gatherer
from adawise_lab.chronological.pace import IMAGES, BatchPace
from adawise_lab.chronological.served import (
    NAMES,
    WARM,
    Ids,
    Scene,
    ServedCameras,
    ServedCell,
    ServedWay,
    candidates,
    unpaired,
)
from adawise_lab.evaluate.references import FINE_TUNED, MIDDLE, ZERO_SHOT
from adawise_lab.evaluate.tables import LogitTable
from tests.frames import single
from tests.lab.evaluate.building import GRID, a_card, a_table

N = 3 * IMAGES + 5
ALL: Ids = np.arange(N)
AT_US: Ids = 10_000_000 * np.arange(1000)  # one image in ten seconds


@pytest.fixture
def table() -> LogitTable:
    return a_table("yard", 0.2, images=N)


@pytest.fixture
def card() -> Card:
    return replace(a_card(temperature=2.0), images=100)


def cameras(*, keeps: bool = False, scene: Scene | None = None) -> ServedCameras:
    return ServedCameras(candidates("tsallis", 0.5, Exploration()), scene or Scene(), keeps)


def serve(served: ServedCameras, pair: str, table: LogitTable, card: Card, rows: Ids = ALL) -> ServedCell:
    (cell,) = served.serve(pair, table, card, 1, [(0, "yard", rows)], AT_US)
    return cell


def hits(table: LogitTable, j: int, rows: Ids) -> list[bool]:
    found: list[bool] = (table.logits[j, rows].argmax(1) == table.labels[rows]).tolist()
    return found


@pytest.mark.parametrize(("name", "j"), [(ZERO_SHOT, 0), (MIDDLE, 10), (FINE_TUNED, 20)])
def test_a_fixed_alpha_serves_its_own_predictions(table: LogitTable, card: Card, name: str, j: int) -> None:
    rows = ALL[::-1].copy()
    cell = serve(cameras(), "pair 1", table, card, rows)
    assert cell.answers[ServedWay(name)].correct.tolist() == hits(table, j, rows)
    assert cell.by_alpha[j].tolist() == hits(table, j, rows)
    assert cell.labels.tolist() == table.labels[rows].tolist()
    assert cell.forwards[name] == 1.0


def test_temperatures_are_those_of_the_card(table: LogitTable, card: Card) -> None:
    plain = serve(cameras(), "pair 1", table, a_card(temperature=1.0))
    cooled = serve(cameras(), "pair 1", table, card)
    way = ServedWay(FINE_TUNED)
    assert (cooled.answers[way].confidence < plain.answers[way].confidence).all()
    assert (cooled.answers[way].correct == plain.answers[way].correct).all()


def test_auto_is_what_the_card_of_the_pair_advises(table: LogitTable, card: Card) -> None:
    adapting = serve(cameras(), "pair 1", table, card)
    assert adapting.forwards[AUTO] == adapting.forwards[WARM] > 1.0
    verdict = PairVerdict("tsallis", 0.8, 0.2, 0.1, 0.8, 0.3, (-0.5, -0.6, -0.4), ())
    advised = serve(cameras(), "pair 1", table, replace(card, verdict=verdict))
    assert advised.forwards[AUTO] == 1.0
    assert advised.answers[ServedWay(AUTO)].correct.tolist() == hits(table, 2, ALL)


def test_a_camera_goes_on_with_the_same_pair_and_starts_anew_with_another(table: LogitTable, card: Card) -> None:
    half = ALL[: N // 2], ALL[N // 2 :]
    going, anew, kept = cameras(), cameras(), cameras(keeps=True)
    for served, second in ((going, "pair 1"), (anew, "pair 2"), (kept, "pair 2")):
        serve(served, "pair 1", table, card, half[0])
        serve(served, second, table, card, half[1])
    batches = {name: served._states[WARM, "yard"][1].batches for name, served in (("on", going), ("kept", kept))}
    assert batches == {"on": 4, "kept": 4}
    assert anew._states[WARM, "yard"][1].batches == 2


def test_a_camera_does_not_depend_on_others(table: LogitTable, card: Card) -> None:
    rows = ALL[::2].copy(), ALL[1::2].copy()
    both = cameras(scene=Scene(prior=True, smooths=True)).serve(
        "pair 1", table, card, 1, [(0, "yard", rows[0]), (1, "gate", rows[1])], AT_US
    )
    (alone,) = cameras(scene=Scene(prior=True, smooths=True)).serve(
        "pair 1", table, card, 1, [(1, "gate", rows[1])], AT_US
    )
    for way, answer in alone.answers.items():
        assert both[1].answers[way].correct.tolist() == answer.correct.tolist()
        assert both[1].answers[way].confidence.tolist() == answer.confidence.tolist()


def test_a_scene_is_beside_every_way_and_changes_no_label(table: LogitTable, card: Card) -> None:
    plain = serve(cameras(), "pair 1", table, card)
    beside = serve(cameras(scene=Scene(prior=True)), "pair 1", table, card)
    assert beside.answers.keys() == {ServedWay(name, scene) for name in NAMES for scene in (False, True)}
    for name in NAMES:
        way = ServedWay(name)
        assert beside.answers[way].correct.tolist() == plain.answers[way].correct.tolist()
        assert np.isfinite(beside.answers[ServedWay(name, scene=True)].nll).all()


def test_a_scene_corrects_a_camera_that_shows_few_of_the_names(card: Card) -> None:
    few = a_table("yard", 0.5, images=600, classes=40, depth=0.0)
    rows = np.flatnonzero(few.labels < 3)
    rows = np.concatenate([rows] * 6)  # some 270 images of 3 of 40 names
    served = serve(cameras(scene=Scene(prior=True)), "pair 1", few, replace(card, temperature=(0.6,) * len(GRID)), rows)
    way = ServedWay(ZERO_SHOT), ServedWay(ZERO_SHOT, scene=True)
    label, scene = (served.answers[one].correct.mean() for one in way)
    assert scene > label + 0.05
    plain, corrected = (served.answers[one].nll.mean() for one in way)
    assert corrected < plain - 0.1


def test_without_a_pair_theta_0_serves_every_way(table: LogitTable) -> None:
    (cell,) = unpaired(table, 2, [(4, ALL, None)], Scene(prior=True))
    assert (cell.camera, cell.interval, cell.has_pair) == (4, 2, False)
    for answer in cell.answers.values():
        assert answer.correct.tolist() == hits(table, 0, ALL)
    assert len(cell.answers) == 2 * len(NAMES)


LIVE = BatchPace("live", BatchPolicy(4, 25.0), 60.0)


def batches_of(pace: BatchPace, *seconds: float) -> list[list[float]]:
    return [list(seconds[part]) for part in pace.batches([round(1e6 * s) for s in seconds])]


def test_a_backlog_fills_its_batches_whatever_time_is_between_images() -> None:
    seconds = [100_000.0 * i for i in range(IMAGES + 3)]
    assert [len(batch) for batch in batches_of(BatchPace(), *seconds)] == [IMAGES, 3]
    assert batches_of(BatchPace()) == []
    assert not BatchPace().starts_anew(0, 10**18)


def test_live_a_batch_ends_by_its_images_or_by_the_age_of_its_first_one() -> None:
    assert batches_of(LIVE, 0, 10, 20, 30, 31, 32, 33) == [[0, 10, 20], [30, 31, 32, 33]]
    assert batches_of(LIVE, 0, 25, 25.001, 100) == [[0, 25], [25.001], [100]]
    assert not LIVE.starts_anew(0, 60_000_000)
    assert LIVE.starts_anew(0, 60_001_000)


def test_live_batches_are_those_of_a_worker() -> None:
    """The same images, message by message, with their own times as those of the broker."""
    rng = np.random.default_rng(0)
    at_ms = np.cumsum(rng.integers(1, 40_000, size=200)).tolist()
    gatherer = Gatherer(LIVE.policy)
    ended = []
    for i, ms in enumerate(at_ms):
        ended += gatherer.add(single(i, timestamp_ms=ms), 0.0)
    ended += gatherer.close_all()
    found = [[*range(200)[part]] for part in LIVE.batches([1000 * ms for ms in at_ms])]
    assert found == [[frame.row_id.offset for frame in batch.frames] for batch in ended]
    assert {len(batch) for batch in found} == {1, 2, 3, 4}


def test_live_a_camera_adapts_only_on_batches_that_are_large_enough_and_starts_anew_after_silence(
    table: LogitTable, card: Card
) -> None:
    slow = replace(cameras(), pace=replace(LIVE, policy=BatchPolicy(16, 25.0)))  # three images a batch
    cell = serve(slow, "pair 1", table, card)
    assert cell.batches == -(-N // 3)
    assert cell.forwards[WARM] == 1.0
    assert cell.answers[ServedWay(WARM)].correct.tolist() == hits(table, 10, ALL)
    assert slow._states[WARM, "yard"][1].batches == cell.batches
    late = AT_US + 1_000_000_000
    slow.serve("pair 1", table, card, 2, [(0, "yard", ALL[:3])], late)
    assert slow._states[WARM, "yard"][1].batches == 1
    slow.serve("pair 1", table, card, 2, [(0, "yard", ALL[3:6])], late)
    assert slow._states[WARM, "yard"][1].batches == 2


def test_a_camera_with_a_shortlist_is_served_among_its_classes_and_others_are_not(
    table: LogitTable, card: Card
) -> None:
    own = [1, 4, 7]
    listed = Shortlist.of(own, table.class_names)
    some = replace(cameras(scene=Scene(prior=True)), shortlists=Shortlists((("ya*", listed),)))
    yard, gate = some.serve("pair 1", table, card, 1, [(0, "yard", ALL), (1, "gate", ALL)], AT_US)
    plain = serve(cameras(scene=Scene(prior=True)), "pair 1", table, card)
    for way, answer in yard.answers.items():
        assert {*answer.predicted.tolist()} <= {*own}
        assert not answer.correct[~np.isin(table.labels, own)].any()
        assert np.isinf(answer.nll).tolist() == (~np.isin(table.labels, own)).tolist()
        assert gate.answers[way].predicted.tolist() == plain.answers[way].predicted.tolist()
    first = table.logits[0][:, own].argmax(axis=1)
    assert yard.answers[ServedWay(ZERO_SHOT)].predicted.tolist() == np.array(own)[first].tolist()
    assert yard.by_alpha[0].tolist() == yard.answers[ServedWay(ZERO_SHOT)].correct.tolist()
    assert gate.by_alpha.tolist() == plain.by_alpha.tolist()
    (alone,) = unpaired(table, 2, [(0, ALL, listed)], Scene())
    assert alone.answers[ServedWay(WARM)].predicted.tolist() == np.array(own)[first].tolist()


def test_an_objective_of_all_classes_is_refused_for_a_camera_with_a_shortlist(table: LogitTable, card: Card) -> None:
    rules = (("yard", Shortlist.of([0, 1], table.class_names)),)
    relative = ServedCameras(candidates("relative", 0.5, Exploration()), Scene(), False, shortlists=Shortlists(rules))
    with pytest.raises(SettingsError, match=r"do not hold within scene\.shortlists"):
        serve(relative, "pair 1", table, card)
    (cell,) = relative.serve("pair 1", table, card, 1, [(1, "gate", ALL)], AT_US)
    assert len(cell.answers) == len(NAMES)
