"""Whether adapting helped, where the truth is known by construction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from adawise.labels.benefit.estimate import OtherRun, estimate_benefit
from adawise.labels.benefit.helped import Arm, Helped
from adawise.labels.join import label
from adawise.output.read.rows import read_predictions
from tests.drift.answers import CLASSES, World, connected, named, write

COLUMNS = ("topic", "partition", "offset", "index", "label", "confidence", "alpha")


@contextmanager
def labelled(world: World, served: float = 0.9, **columns: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """Rows whose truth the producer sent."""
    made = {"label": named(world.answers(served, 0)), "true_label": named(world.truth()), **columns}
    with closing(connected(world.table(**made))) as connection:
        yield connection


def helped(connection: duckdb.DuckDBPyConnection, *runs: OtherRun) -> Helped:
    return estimate_benefit(connection, label(connection, "nowhere", file=None, classes=CLASSES.tolist()), runs, None)


def run_of(root: Path, world: World, alpha: Any, accuracy: float, number: int) -> OtherRun:
    """A replay at one alpha, or at many."""
    made = {"label": named(world.answers(accuracy, number)), "alpha": np.broadcast_to(alpha, world.rows)}
    write(root, world.table(**made))
    return OtherRun(str(root), read_predictions(root, columns=COLUMNS).relation)


def arm(arms: tuple[Arm, ...], name: str) -> Arm:
    return next(arm for arm in arms if arm.name == name)


def test_accuracy_and_calibration_error_of_what_was_served_are_what_they_are() -> None:
    world = World(batches=50)
    right = np.arange(world.rows) % 10 < 7
    sure = np.where(np.arange(world.rows) % 2 == 0, 0.95, 0.55)
    answers = np.where(right, world.truth(), (world.truth() + 1) % 3)
    with labelled(world, label=named(answers), confidence=sure) as connection:
        served = arm(helped(connection).arms, "served")
    assert served.images == 400
    assert served.accuracy.value == pytest.approx(0.7)
    assert served.gain is None
    even, odd = right[::2].mean(), right[1::2].mean()
    assert served.ece == pytest.approx(0.5 * abs(even - 0.95) + 0.5 * abs(odd - 0.55), abs=1e-6)


def test_confidence_one_is_of_the_last_bin_and_none_is_of_no_bin() -> None:
    world = World(batches=2)
    right = np.arange(16) < 8
    answers = named(np.where(right, world.truth(), (world.truth() + 1) % 3))
    with labelled(world, label=answers, confidence=np.where(right, 0.95, 1.0)) as connection:
        assert arm(helped(connection).arms, "served").ece == pytest.approx(0.5 - 0.5 * 0.05)
    with labelled(world, zero_shot_label=named(world.truth())) as connection:
        assert np.isnan(arm(helped(connection).arms, "zero-shot").ece)


def test_the_confusion_counts_truth_by_answer_and_lumps_rare_classes() -> None:
    world = World(batches=4)
    with labelled(world, label=["bus"] * world.rows) as connection:
        found = helped(connection).confusion["served"]
    counts = {name: int(np.sum(CLASSES[world.truth()] == name)) for name in CLASSES}
    place = found.classes.index("bus")
    assert {name: row[place] for name, row in zip(found.classes, found.counts, strict=True)} == counts
    many = [f"class {n % 20:02d}" for n in range(world.rows)]
    with labelled(world, label=many, true_label=many) as connection:
        found = helped(connection).confusion["served"]
    assert len(found.classes) == 12
    assert found.classes[-1] == "other"
    assert sum(map(sum, found.counts)) == world.rows


def test_replays_at_fixed_alphas_are_joined_by_row_and_the_best_is_named_in_hindsight(tmp_path: Path) -> None:
    world = World(batches=100, cameras=2)
    runs = [
        run_of(tmp_path / "zero", world, 0.0, 0.5, 1),
        run_of(tmp_path / "half", world, 0.5, 0.8, 2),
        run_of(tmp_path / "one", world, 1.0, 0.6, 3),
    ]
    known = named(world.answers(0.5, 1), np.arange(world.rows) % 2 == 0)
    with labelled(world, zero_shot_label=known) as connection:  # the run knows it of all images
        found = helped(connection, *runs)
    assert [each.name for each in found.arms] == [
        *("served", "zero-shot", "alpha 0.5", "fine-tuned"),
        "best fixed alpha",
    ]
    best = found.arms[-1]
    assert (best.alpha, best.source) == (0.5, f"{tmp_path / 'half'}, the best of 3 by these labels")
    assert best.gain is not None
    assert best.gain.value == pytest.approx(found.arms[0].accuracy.value - best.accuracy.value)
    assert best.gain.low < best.gain.value < best.gain.high
    assert {each.images for each in found.arms} == {world.rows}
    assert sorted(found.by_camera) == ["camera-0", "camera-1"]
    assert set(found.confusion) == {"served", "zero-shot", "alpha 0.5", "fine-tuned"}


def test_the_rows_of_another_order_and_of_another_number_are_joined_all_the_same(tmp_path: Path) -> None:
    world = World(batches=20)
    rows = world.table(label=named(world.truth()), alpha=np.zeros(world.rows))
    write(tmp_path, rows.take(np.random.default_rng(1).permutation(world.rows)[:100]))
    run = OtherRun(str(tmp_path), read_predictions(tmp_path, columns=COLUMNS).relation)
    with labelled(world) as connection:
        found = helped(connection, run)
    zero = arm(found.arms, "zero-shot")
    assert (zero.images, zero.accuracy.value) == (100, 1.0)
    assert any("it has predictions for 100 of 160 labelled images" in note for note in found.notes)


def test_a_run_that_adapts_is_compared_and_is_no_fixed_alpha(tmp_path: Path) -> None:
    world = World(batches=20)
    run = run_of(tmp_path, world, np.linspace(0.0, 1.0, world.rows), 0.6, 1)
    with labelled(world) as connection:
        found = helped(connection, run)
    assert [each.name for each in found.arms] == ["served", f"run {tmp_path}"]
    assert np.isnan(found.arms[1].alpha)


def test_endpoints_of_the_rows_are_compared_on_the_images_on_which_they_were_asked_and_that_is_said() -> None:
    world = World(batches=40)
    requested = np.arange(world.rows) % 8 < 2
    zero = named(world.answers(0.5, 1), requested)
    sure = [0.5 if there else None for there in requested]
    alpha = np.where(np.arange(world.rows) < 80, 0.0, 0.5)
    with labelled(world, zero_shot_label=zero, zero_shot_confidence=sure, alpha=alpha) as connection:
        found = helped(connection)
    endpoint = arm(found.arms, "zero-shot")
    assert endpoint.images == 80
    right = (world.answers(0.5, 1) == world.truth())[requested].mean()
    served = (world.answers(0.9, 0) == world.truth())[requested].mean()
    assert endpoint.accuracy.value == pytest.approx(right)
    assert endpoint.gain is not None
    assert endpoint.gain.value == pytest.approx(served - right)
    assert any("compared on 80 images" in note and "20 that it served itself" in note for note in found.notes)


def test_endpoints_that_served_what_they_are_compared_with_pull_the_gain_towards_nothing() -> None:
    """The known bias of what the rows know: on the whole, served gains; on the images that were asked, less."""
    gains = []
    for seed in range(8):
        world = World(batches=100, seed=seed)
        zero, served = world.answers(0.5, 1), world.answers(0.9, 0)
        own = np.arange(world.rows) % 800 < 400  # half of the images that are known were served at alpha 0
        made: dict[str, Any] = {"zero_shot_label": named(zero), "alpha": np.where(own, 0.0, 0.5)}
        with labelled(world, label=named(np.where(own, zero, served)), **made) as connection:
            gain = arm(helped(connection).arms, "zero-shot").gain
        assert gain is not None
        gains.append(gain.value)
    assert np.mean(gains) == pytest.approx(0.2, abs=0.03)  # where alpha was free, it is .4


def test_the_best_of_equals_in_hindsight_flatters_itself(tmp_path: Path) -> None:
    """Known bias: of alphas that are as good as what was served, the best on these labels looks better."""
    gains = []
    for seed in range(6):
        world = World(batches=40, seed=seed)
        runs = [run_of(tmp_path / f"{seed}-{n}", world, n / 10, 0.7, n) for n in range(1, 6)]
        with labelled(world, served=0.7) as connection:
            gain = arm(helped(connection, *runs).arms, "best fixed alpha").gain
        assert gain is not None
        gains.append(gain.value)
    assert np.mean(gains) < -0.01


def test_a_camera_with_few_labels_is_counted_and_not_judged_alone() -> None:
    world = World(batches=10, cameras=2)
    truth = named(world.truth(), np.arange(world.rows) < 80 + 49)
    with labelled(world, true_label=truth) as connection:
        found = helped(connection)
    assert found.labelled == 129
    assert list(found.by_camera) == ["camera-0"]


def test_one_batch_has_no_interval() -> None:
    with labelled(World(batches=1)) as connection:
        accuracy = arm(helped(connection).arms, "served").accuracy
    assert np.isnan([accuracy.low, accuracy.high]).all()


def test_without_labels_there_are_no_arms() -> None:
    world = World(batches=10)
    with labelled(world, true_label=[None] * world.rows) as connection:
        found = helped(connection)
    assert (found.arms, found.labelled, found.accepted, found.labels_from) == ((), 0, world.rows, "")
    assert found.estimates == ()
    assert any("there are no labels" in note for note in found.notes)


def test_the_same_rows_give_the_same_bits() -> None:
    with labelled(World(cameras=2)) as connection:
        first = helped(connection)  # nan is no equal of nan
    with labelled(World(cameras=2)) as connection:
        assert repr(helped(connection)) == repr(first)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_label_that_the_class_prior_corrected_is_compared_and_is_no_fixed_alpha(alpha: float) -> None:
    world = World(batches=40)
    corrected = world.answers(0.97, 1)
    sure = np.full(world.rows, 0.9)
    alphas = np.full(world.rows, alpha)
    with labelled(world, 0.8, scene_label=named(corrected), scene_confidence=sure, alpha=alphas) as connection:
        found = helped(connection)
    scene = arm(found.arms, "scene_label")
    assert scene.images == world.rows
    assert scene.accuracy.value == pytest.approx((corrected == world.truth()).mean())
    assert scene.gain is not None
    assert scene.gain.sign == -1  # what was served is worse
    assert np.isnan(scene.alpha)
    assert scene.ece == pytest.approx(abs(scene.accuracy.value - 0.9), abs=1e-6)
    assert "scene_label" in found.confusion
