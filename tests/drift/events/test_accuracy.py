"""Accuracy over time: bands hold what they promise, and estimates say how far such ones were off."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import adawise
from adawise.__main__ import main
from adawise.ports import ServedBy
from adawise.sink import served_by
from adawise.store.store import LocalStore
from adawise_drift.collect import collect
from adawise_drift.events.accuracy import AGREEMENT_ERROR, ESTIMATE_ERROR, LEAST, clusters, over_time, ratio
from adawise_drift.events.result import AccuracyCost, AccuracyPoint
from adawise_drift.words import accuracies
from adawise_drift.words import short_cost as cost
from tests.drift import yard
from tests.drift.labelling import BEGIN_US, DESIGNS, HOUR_US, IMAGES, binned, covered
from tests.drift.worlds import as_tables, camera

HOURS = BEGIN_US + HOUR_US * np.arange(240)
FULL = np.full(240, IMAGES)
NOTHING = np.zeros(240, np.int64)


def labelled(labels: Any, correct: Any, **columns: Any) -> tuple[AccuracyPoint, ...]:
    return over_time([binned(HOURS, labelled=labels, correct=correct, **columns)]).of("measured")


@pytest.mark.parametrize("name", DESIGNS)
def test_bands_hold_the_truth_as_often_as_they_say(name: str) -> None:
    held, independent, _ = covered(DESIGNS[name], seed=3, draws=60)
    assert 0.92 <= held <= 0.995
    assert independent < held


def test_a_point_is_as_wide_as_it_takes_labels_and_batches() -> None:
    few = np.where(np.arange(240) % 4 == 0, 2, 0)
    points = labelled(few, few)
    assert all(point.images >= LEAST for point in points)
    assert sum(point.images for point in points) == few.sum()
    dense = labelled(FULL, FULL)
    assert len(dense) > len(points)
    assert [a.until_us < b.since_us for a, b in pairwise(dense)] == [True] * (len(dense) - 1)


def test_a_time_whose_labels_did_not_come_yet_is_not_bridged() -> None:
    """Three hours of labels are left over before it, too few for a point of their own."""
    hour = np.arange(240)
    some = np.where((hour < 63) | ((hour >= 150) & (hour < 200)), 8, 0)
    points = labelled(some, some // 2)
    ends = [(int(point.since_us - BEGIN_US) // HOUR_US, int(point.until_us - BEGIN_US) // HOUR_US) for point in points]
    assert all(until < 63 or since >= 150 for since, until in ends)
    assert {62, 199} <= {until for _, until in ends}
    assert sum(point.images for point in points) == some.sum()


@pytest.mark.parametrize(("share", "bound"), [(1.0, 1.0), (0.0, 0.0)])
def test_all_right_and_all_wrong_are_not_sure_to_be_so(share: float, bound: float) -> None:
    points = labelled(FULL // 8, (share * (FULL // 8)).astype(np.int64))
    assert {point.accuracy for point in points} == {bound}
    for point in points:
        assert 0.01 < point.high - point.low < 0.25
        assert bound in (point.low, point.high)


def test_few_labels_and_labels_of_one_batch_make_no_point() -> None:
    one = NOTHING.copy()
    one[100] = 500
    few = np.where(np.arange(240) < LEAST - 1, 1, 0)
    assert labelled(one, one) == labelled(few, few) == labelled(NOTHING, NOTHING) == ()
    assert over_time([binned(HOURS[:1], labelled=FULL[:1], correct=FULL[:1])]).points == ()
    assert over_time([binned(HOURS[:0])]).points == ()


def test_bins_narrower_than_a_batch_are_one_cluster() -> None:
    ends = (np.arange(240) % 4 == 3).astype(np.int64)
    of = clusters(binned(HOURS, batches=ends, labelled=FULL, correct=FULL // 2))
    assert of.labelled.tolist() == [4 * IMAGES] * 60
    assert (of.since_us[1], of.until_us[1]) == (HOURS[4], HOURS[7])
    assert np.isnan(ratio(of.correct[:1], of.labelled[:1]).error)


def test_estimates_have_their_error_in_the_band_and_labels_say_where_they_are_wrong() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(8, 0.8, 240)
    sure = binned(
        HOURS, confidence=rng.normal(0.98, 0.01, 240), labelled=NOTHING + 8, correct=right, compared=FULL, agreed=FULL
    )
    over = over_time([sure])
    for how, error in (("confidence", ESTIMATE_ERROR), ("agreement", AGREEMENT_ERROR)):
        for point in over.of(how):  # type: ignore[arg-type]
            assert point.high == 1.0
            assert 1.9 * error < point.accuracy - point.low < 2.1 * error
    assert over.off is not None
    assert over.is_wrong
    assert over.off.low < 0.19 < over.off.high
    found = accuracies(over).replace("\u00a0", " ")
    assert "Do not rely on confidence here: by the labels its estimate is .20 too high (95 % .18 to .21)" in found
    assert "from confidence .98 first, .98 last (off by .09, 95 % within .18)" in found
    near = over_time([binned(HOURS, confidence=np.full(240, 0.83), labelled=NOTHING + 8, correct=right)])
    assert not near.is_wrong
    assert "On the labelled images the estimate from confidence is .0" in accuracies(near)


def test_an_estimate_that_is_too_low_first_and_too_high_then_is_wrong_too() -> None:
    rng, half = np.random.default_rng(0), np.arange(240) < 120
    kept, fallen = (rng.binomial(8, np.where(half, 0.95, 0.95 - fall)) for fall in (0.0, 0.35))
    sure = np.full(240, 0.78)
    for correct, confidence, is_wrong in (
        (fallen, sure, True),
        (kept, sure + 0.15, False),
        (fallen, sure - sure, True),
    ):
        over = over_time([binned(HOURS, confidence=confidence, labelled=NOTHING + 8, correct=correct)])
        assert over.is_wrong == is_wrong
    over = over_time([binned(HOURS, confidence=sure, labelled=NOTHING + 8, correct=fallen)])
    assert accuracies(over).endswith("by the labels its estimate is sometimes too high and sometimes too low.")


def test_of_several_cameras_it_says_how_many_have_labels() -> None:
    with duckdb.connect() as connection:
        worlds = [camera(7, n, days=4, labels=n == 0, searched=False) for n in range(2)]
        found = collect(connection, is_labelled=as_tables(connection, worlds))
    one, other = (over_time([found.binned[world.name]]) for world in worlds)
    both = over_time(list(found.binned.values()))
    assert (len(other.of("measured")), other.off) == (0, None)
    assert len(other.of("confidence")) > 3 < len(one.of("measured"))
    assert [point.images for point in both.of("measured")] == [point.images for point in one.of("measured")]
    answered = sum(point.images for each in (one, other) for point in each.of("confidence"))
    assert sum(point.images for point in both.of("confidence")) == answered


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The yard's day, whose traces an earlier version wrote."""
    return yard.write(tmp_path_factory.mktemp("yard"))


@pytest.fixture(scope="module")
def labels(root: Path) -> Path:
    """Of yard alone, from 04:00 to 20:00: all right until noon, three of four from then on."""
    since_us, until_us = yard.BEGIN_US + 4 * HOUR_US, yard.BEGIN_US + 20 * HOUR_US
    lines = ["row_id,label"]
    for row in yard.predictions().filter(pc.field("stream_id") == "yard").to_pylist():
        at_us = round(row["captured_at"].timestamp() * 1e6)
        if since_us <= at_us < until_us:
            is_right = at_us < yard.NOON_US or row["offset"] % 4
            lines.append(f"{row['row_id']},{row['label'] if is_right else 'dog'}")
    file = root.parent / "labels.csv"
    file.write_text("\n".join(lines))
    return file


def test_the_library_has_it_as_a_table_of_cameras_and_of_all_as_one(root: Path, labels: Path) -> None:
    table = adawise.analyse(str(root), labels=str(labels)).accuracy
    names = ["stream_id", "since", "until", "how", "accuracy", "low", "high", "images"]
    assert table.arrow.column_names == names
    rows = table.arrow.to_pylist()
    measured = [row for row in rows if row["how"] == "measured"]
    assert {row["stream_id"] for row in measured} == {None, "yard"}
    own = [row for row in measured if row["stream_id"] == "yard"]
    assert (own[0]["accuracy"], own[-1]["accuracy"]) == (1.0, pytest.approx(0.75, abs=0.02))
    assert own[-1]["until"] < datetime(2026, 6, 1, 20, tzinfo=UTC)
    assert {row["stream_id"] for row in rows if row["how"] == "confidence"} == {None, *yard.PLACES}
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)


def test_json_and_terminal_tell_it_and_at_which_temperature_confidence_is(
    root: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drift", str(root), "--labels", str(labels), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_camera = {each["stream_id"]: each["accuracy"] for each in found["cameras"]}
    assert by_camera["dock"]["off"] is None
    assert by_camera["yard"]["off"]["value"] == pytest.approx(-0.12, abs=0.03)
    assert by_camera["yard"]["is_wrong"]
    assert "label = truth" in found["queries"]["measures"].split("FROM labelled")[0]
    assert found["calibration"] == "whether confidence is at a card's temperature was not recorded"
    for print_, card in ((yard.OLD, "abc"), (yard.NEW, "")):
        by = ServedBy((), print_, "0" * 16, "", {"model.card": card}, {})
        served_by.note_settings(LocalStore(root), by, now=datetime(2026, 6, 1, tzinfo=UTC))
    assert main(["drift", str(root), "--labels", str(labels), "--json"]) == 0
    assert "which alone may have moved confidence" in json.loads(capsys.readouterr().out)["calibration"]
    assert main(["drift", str(root), "--labels", str(labels), "--streams", "yard"]) == 0
    output = capsys.readouterr().out.replace("\u00a0", " ")
    assert "accuracy: measured by 3,840 labels of 1 of 1 cameras: 1.00 (95 % " in output
    assert "Do not rely on confidence here: by the labels its estimate is .13 too low (95 % .11 to .14)" in output


def test_a_cost_that_is_estimated_where_labels_contradict_confidence_says_so(
    root: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, *lines = labels.read_text().splitlines()
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("\n".join([head, *(f"{line.split(',')[0]},dog" for line in lines[:1000])]))  # before noon alone
    assert main(["drift", str(root), "--labels", str(wrong), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    fields = {event["stream_id"]: event["cost"] for event in found["events"] if event["measure"] == "confidence"}
    assert {name: (of["how"], of["is_doubted"]) for name, of in fields.items()} == {
        "yard": ("estimated", True),
        "ramp": ("estimated", False),
    }
    assert "labels contradict it" in cost(AccuracyCost(**fields["yard"]))
    points = next(each for each in found["cameras"] if each["stream_id"] == "yard")["accuracy"]["points"]
    assert {point["accuracy"] for point in points if point["how"] == "measured"} == {0.0}


def test_of_traces_alone_that_an_earlier_version_wrote_nothing_is_known(tmp_path: Path) -> None:
    place = yard.write(tmp_path / "old")
    shutil.rmtree(place / "predictions")
    found = adawise.analyse(str(place))
    assert len(found.accuracy) == 0
    assert found.accuracy.arrow.schema.field("since").type == pa.timestamp("us", tz="UTC")
