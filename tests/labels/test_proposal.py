"""Which classes a shortlist is proposed of, from histograms and rows that were made by hand."""

from __future__ import annotations

import math
import re
import tracemalloc
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adawise.errors import SettingsError
from adawise.labels.proposal import (
    LEAST_CONFIDENCE,
    LEAST_IMAGES,
    LEAST_WEIGHT,
    MOST_LEFT_OUT,
    CameraEvidence,
    Proposal,
    SeenClass,
    open_evidence,
    pattern_of,
    proposed,
)
from adawise.settings.scene import ShortlistSettings
from adawise.sink import schemas
from tests.drift.answers import BEGIN_US, World, _table, labels_csv, write

BATCH = 16
BEGIN = datetime.fromtimestamp(BEGIN_US / 1e6, UTC)
CAR, BOAT = SeenClass("car", 900, 700.0), SeenClass("boat", 100, 50.0)
EVEN = tuple(SeenClass(f"class {number}", 5, 4.0) for number in range(200))
ENOUGH = CameraEvidence("gate", LEAST_IMAGES, 63, 0, LEAST_CONFIDENCE, None, None, (CAR, BOAT))


def names(classes: Sequence[SeenClass]) -> list[str]:
    return [each.name for each in classes]


def test_a_class_with_the_least_share_of_the_weight_is_listed_and_one_with_less_is_not() -> None:
    rest = replace(CAR, weight=1 - 2 * LEAST_WEIGHT)
    at = [rest, replace(BOAT, weight=LEAST_WEIGHT), SeenClass("bus", 1, LEAST_WEIGHT)]
    assert names(proposed(at)) == ["car", "boat", "bus"]
    below = [rest, replace(BOAT, weight=LEAST_WEIGHT), SeenClass("bus", 1, LEAST_WEIGHT * 0.99)]
    assert names(proposed(below)) == ["car", "boat"]


def test_many_images_of_little_probability_list_no_class_and_few_sure_ones_do() -> None:
    unsure = SeenClass("plane", 40, 40 * 0.2**2)
    sure = SeenClass("bus", 10, 10 * 0.95**2)
    assert names(proposed([CAR, unsure, sure])) == ["car", "bus"]


def test_a_class_that_a_label_names_is_listed_even_if_it_was_never_predicted() -> None:
    assert names(proposed([CAR, BOAT, SeenClass("bus", 0, 0.0, labelled=1)])) == ["car", "boat", "bus"]


def test_without_any_weight_nothing_but_labels_lists_a_class() -> None:
    unknown = [SeenClass("car", 9, 0.0), SeenClass("boat", 0, 0.0, labelled=2)]
    assert names(proposed(unknown)) == ["boat"]
    assert proposed([]) == ()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"images": LEAST_IMAGES - 1}, "999 images are too few"),
        ({"images": 0, "listed": 2_000}, "its 2,000 images were served under a shortlist"),
        ({"confidence": LEAST_CONFIDENCE - 0.001}, r"is \.649, and below \.650 a shortlist may lack classes"),
        ({"confidence": math.nan}, "the mean confidence of its images is –"),
        ({"images": 160, "listed": 864}, "1,000 are needed, and 864 more that a shortlist served are no evidence"),
        ({"classes": (CAR,)}, "it shows fewer than two classes"),
        ({"classes": ()}, "it shows fewer than two classes"),
        ({"classes": EVEN}, r"^its classes below 0\.75% of the weight have 100\.0% of it together, and above 10%"),
        ({"stream_id": "gate\n"}, "printable text alone"),
        ({"stream_id": ""}, "printable text alone"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_camera_without_enough_evidence_gets_the_reason_in_place_of_a_shortlist(
    changes: dict[str, Any], problem: str
) -> None:
    found = Proposal.of(replace(ENOUGH, **changes))
    assert found.classes == (() if problem else (CAR, BOAT))
    assert re.search(problem, found.problem) if problem else not found.problem


def test_classes_that_the_models_do_not_have_are_not_listed_and_all_of_theirs_need_no_shortlist() -> None:
    camera = replace(ENOUGH, classes=(CAR, BOAT, SeenClass("tram", 50, 40.0)))
    assert names(Proposal.of(camera, ["boat", "car", "bus"]).classes) == ["car", "boat"]
    assert "it shows every class" in Proposal.of(camera, ["boat", "car"]).problem
    assert not Proposal.of(camera).problem


def test_classes_that_are_each_below_the_bound_may_have_a_tenth_of_the_weight_together_and_no_more() -> None:
    rest = [SeenClass(f"class {number}", 1, MOST_LEFT_OUT / 20) for number in range(20)]
    at = [replace(CAR, weight=0.5), replace(BOAT, weight=0.5001 - MOST_LEFT_OUT), *rest]
    assert names(Proposal.of(replace(ENOUGH, classes=tuple(at))).classes) == ["car", "boat"]
    above = Proposal.of(replace(ENOUGH, classes=(*at, SeenClass("bus", 1, 0.001))))
    assert "have 10.1% of it together, and above 10% a shortlist may lack classes that it shows" in above.problem
    assert not Proposal.of(replace(ENOUGH, classes=(*at, SeenClass("bus", 1, 0.001, labelled=1)))).problem


def test_a_camera_that_was_served_as_other_classes_than_those_of_the_file_has_them_named() -> None:
    strange = SeenClass("two\nlines", 7, 6.0)
    wrong = Proposal.of(replace(ENOUGH, classes=(CAR, BOAT, strange)), ["cat", "dog"]).problem
    assert wrong == (
        "of the classes that it shows, model.classes has fewer than two; it was also served as 'car' (900), "
        "'boat' (100), 'two\\nlines' (7)"
    )
    assert Proposal.of(ENOUGH, ["car", "dog"]).problem.endswith("it was also served as 'boat' (100)")
    even = replace(ENOUGH, classes=(*EVEN, strange))
    assert "and 196 more" in Proposal.of(even, ["cat", "dog"]).problem
    assert "below 0.75% of the weight" in Proposal.of(even, [each.name for each in EVEN]).problem


def test_classes_that_the_models_lack_may_have_a_tenth_of_the_weight_and_no_more() -> None:
    known, rest = ["car", "boat", "bus"], [replace(CAR, weight=0.6), replace(BOAT, weight=0.4 - MOST_LEFT_OUT)]
    at = (*rest, SeenClass("x", 970, MOST_LEFT_OUT - 1e-9))
    assert names(Proposal.of(replace(ENOUGH, classes=at), known).classes) == ["car", "boat"]
    above = (*rest, SeenClass("x", 970, MOST_LEFT_OUT), SeenClass("y", 0, 0.01))
    found = Proposal.of(replace(ENOUGH, classes=above), known)
    assert not found.classes
    assert found.problem == (
        "classes that model.classes lacks have 10.9% of the weight, and above 10% a shortlist may lack classes that it "
        "shows; it was served as 'x' (970)"
    )
    unserved = Proposal.of(replace(ENOUGH, classes=(*rest, SeenClass("y", 0, 0.2))), known).problem
    assert unserved.endswith("a shortlist may lack classes that it shows")


def test_what_is_left_out_is_what_images_were_served_as_the_most_frequent_first() -> None:
    others = [SeenClass("plane", 2, 0.1), SeenClass("bus", 5, 0.1), SeenClass("dog", 0, 0.1)]
    assert names(Proposal.of(replace(ENOUGH, classes=(CAR, BOAT, *others))).left_out) == ["bus", "plane"]


@given(stream=st.text(max_size=12), other=st.text(max_size=12))
@example(stream="hall[2]*?", other="hall2ab")
@example(stream=" a ", other="a")
@example(stream=" ", other="")
@example(stream="[!a]", other="b")
@example(stream="a\\b", other="ab")
@example(stream="]", other="[]]")
@example(stream="*", other="a")
def test_a_pattern_matches_its_stream_alone_as_the_settings_read_it(stream: str, other: str) -> None:
    pattern = pattern_of(stream)
    assert bool(pattern) == (stream.isprintable() and stream != "")
    if pattern:
        read = ShortlistSettings.model_validate({"streams": pattern, "classes": ["car", "bus"]}).streams
        assert fnmatchcase(stream, read)
        assert fnmatchcase(other, read) == (other == stream)


# -- what the rows of a root show


def rows(partition: int, stream: str, top: Sequence[tuple[Sequence[str], Sequence[float]]], **columns: Any) -> pa.Table:
    """Accepted rows of a camera, one a second, with these labels and probabilities."""
    n = len(top)
    fields = {
        "partition": [partition] * n,
        "stream_id": [stream] * n,
        "batch_number": np.arange(n) // BATCH,
        "label": [labels[0] for labels, _ in top],
        "confidence": [values[0] for _, values in top],
        "top_labels": [[*labels] for labels, _ in top],
        "top_probabilities": [[*values] for _, values in top],
    }
    return World(batches=n, images=1).table(**fields | columns)


def traces(partition: int, stream: str, batches: int, listed: Collection[int] = ()) -> pa.Table:
    """The batches of a camera, `listed` of them with a shortlist."""
    numbers = np.arange(batches)
    fields: dict[str, Any] = {
        "topic": ["frames"] * batches,
        "partition": [partition] * batches,
        "stream_id": [stream] * batches,
        "batch_number": numbers,
        "first_offset": numbers * BATCH,
        "last_offset": numbers * BATCH + BATCH - 1,
        "captured_at": BEGIN_US + 1_000_000 * (numbers * BATCH + BATCH - 1),
        "shortlist": ["0123456789ab" if number in listed else None for number in numbers],
    }
    for name in ("images", "alpha", "objective", "posterior_mean", "posterior_sd", "forward_equivalents"):
        fields[name] = [1] * batches
    for name in ("trials", "milliseconds"):
        fields[name] = [[]] * batches
    return _table(schemas.TRACES, fields, batches)


SURE, UNSURE = (["car", "bus"], [0.75, 0.25]), (["boat", "car"], [0.5, 0.5])
OTHER = (["dog", "car"], [1.0, 0.0])


def found(root: Path, *streams: str, **options: Any) -> dict[str, CameraEvidence]:
    with open_evidence(str(root), streams or None, **options) as opened:
        return {camera.stream_id: camera for camera in opened.cameras}


def seen(camera: CameraEvidence) -> dict[str, tuple[int, float, int]]:
    return {each.name: (each.images, each.weight, each.labelled) for each in camera.classes}


def test_the_evidence_of_a_camera_is_counted_over_its_rows(tmp_path: Path) -> None:
    gate = rows(0, "gate", [SURE] * 24 + [UNSURE] * 8)
    hall = rows(1, "hall", [UNSURE] * 16)
    root = write(
        tmp_path, pa.concat_tables([gate, hall]), pa.concat_tables([traces(0, "gate", 2), traces(1, "hall", 1)])
    )
    cameras = found(root)
    assert [*cameras] == ["gate", "hall"]
    assert replace(cameras["gate"], classes=()) == CameraEvidence(
        "gate", 32, 2, 0, (24 * 0.75 + 8 * 0.5) / 32, BEGIN, BEGIN + timedelta(seconds=31)
    )
    assert seen(cameras["gate"]) == {
        "car": (24, 24 * 0.5625 + 8 * 0.25, 0),
        "boat": (8, 2.0, 0),
        "bus": (0, 1.5, 0),
    }
    assert names(cameras["gate"].classes) == ["car", "boat", "bus"]
    assert seen(cameras["hall"]) == {"boat": (16, 4.0, 0), "car": (0, 4.0, 0)}
    assert [*found(root, "hall")] == ["hall"]


def test_rows_that_a_shortlist_served_are_no_evidence_and_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path, rows(0, "gate", [SURE] * 16 + [OTHER] * 32 + [SURE] * 16), traces(0, "gate", 4, {1, 2}))
    camera = found(root)["gate"]
    assert (camera.images, camera.batches, camera.listed) == (32, 2, 32)
    assert seen(camera) == {"car": (32, 18.0, 0), "bus": (0, 2.0, 0)}
    assert (camera.first, camera.last) == (BEGIN, BEGIN + timedelta(seconds=63))


def test_a_batch_of_the_same_number_from_before_the_camera_started_anew_is_another_one(tmp_path: Path) -> None:
    first, second = traces(0, "gate", 1), traces(0, "gate", 2, {1}).slice(1)
    place = second.schema.get_field_index("batch_number")
    second = second.set_column(place, second.schema.field(place), pa.array([0], pa.int64()))
    made = rows(0, "gate", [SURE] * 16 + [OTHER] * 16, batch_number=[0] * 32)
    camera = found(write(tmp_path, made, pa.concat_tables([first, second])))["gate"]
    assert (camera.images, camera.listed) == (16, 16)
    assert "dog" not in seen(camera)


def test_the_time_and_the_streams_choose_the_rows_also_within_a_batch_with_a_shortlist(tmp_path: Path) -> None:
    root = write(tmp_path, rows(0, "gate", [SURE] * 16 + [OTHER] * 16), traces(0, "gate", 2, {1}))
    until = BEGIN + timedelta(seconds=20)
    camera = found(root, since=BEGIN + timedelta(seconds=8), until=until)["gate"]
    assert (camera.images, camera.listed, camera.batches) == (8, 4, 1)
    assert (camera.first, camera.last) == (BEGIN + timedelta(seconds=8), BEGIN + timedelta(seconds=15))


def test_probabilities_that_are_not_finite_and_rejected_rows_say_nothing(tmp_path: Path) -> None:
    nan = (["dog", "car"], [math.nan, math.nan])
    status = ["accepted"] * 24 + ["rejected"] * 8
    made = rows(0, "gate", [SURE] * 16 + [nan] * 8 + [OTHER] * 8, status=status)
    camera = found(write(tmp_path, made, traces(0, "gate", 2)))["gate"]
    assert (camera.images, camera.confidence) == (24, 0.75)
    assert seen(camera) == {"car": (16, 9.0, 0), "bus": (0, 1.0, 0), "dog": (8, 0.0, 0)}
    assert names(proposed(camera.classes)) == ["car", "bus"]


def test_labels_of_the_producer_and_of_a_file_are_counted_also_where_a_shortlist_served(tmp_path: Path) -> None:
    truth = ["boat"] + [None] * 31
    root = write(tmp_path, rows(0, "gate", [SURE] * 16 + [UNSURE] * 16, true_label=truth), traces(0, "gate", 2, {0}))
    assert seen(found(root)["gate"])["boat"] == (16, 4.0, 1)
    labels = labels_csv(tmp_path / "labels.csv", [{"row_id": f"frames/0/{n}/0", "label": "bus"} for n in (3, 20)])
    assert {name: counts[2] for name, counts in seen(found(root, labels=str(labels))["gate"]).items()} == {
        "boat": 0,
        "car": 0,
        "bus": 2,
    }


def test_rows_of_earlier_versions_without_the_later_columns_are_evidence(tmp_path: Path) -> None:
    old = traces(0, "gate", 2).drop_columns([name for name in schemas.TRACES.names if name in schemas.LATER])
    made = rows(0, "gate", [SURE] * 32).drop_columns([schemas.PREDICTED_AT])
    camera = found(write(tmp_path, made, old))["gate"]
    assert (camera.images, camera.batches, camera.listed) == (32, 2, 0)


def test_rows_without_a_time_are_counted_without_a_period(tmp_path: Path) -> None:
    never = pa.nulls(16, pa.int64()).to_pylist()
    made = rows(0, "gate", [SURE] * 16, captured_at=never, kafka_timestamp=never)
    camera = found(write(tmp_path, made, traces(0, "gate", 1)))["gate"]
    assert (camera.images, camera.first, camera.last) == (16, None, None)


def test_a_camera_that_is_not_there_is_a_mistake_that_names_the_nearest(tmp_path: Path) -> None:
    root = write(tmp_path, rows(0, "gate", [SURE] * 16), traces(0, "gate", 1))
    with pytest.raises(SettingsError, match=r"camera 'gaet' under .* there are none of this time.*did you mean 'gate'"):
        found(root, "gate", "gaet")
    with pytest.raises(SettingsError, match=r"camera 'gate' under .* none of this time; correct --streams, --since"):
        found(root, "gate", since=BEGIN + timedelta(days=1))


def test_an_output_without_rows_has_no_cameras(tmp_path: Path) -> None:
    root = write(tmp_path, rows(0, "gate", [SURE]).slice(0, 0))
    assert found(root) == {}


def test_the_counts_of_many_cameras_are_not_held_at_once(tmp_path: Path) -> None:
    """Those of all of them are some 30 MiB of Python's, and as much of DuckDB's."""
    cameras, classes = 2_000, 100
    every = [f"class {number:03d}" for number in range(classes)]
    named = [f"{number:05d}" for number in range(cameras)]
    root = write(tmp_path, rows(0, "", [(every, [1 / classes] * classes)] * cameras, stream_id=named))
    with open_evidence(str(root), memory_bytes=128 << 20) as opened:
        tracemalloc.start()
        counted = [(camera.stream_id, len(camera.classes)) for camera in opened.cameras]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert counted == [(name, classes) for name in named]
    assert peak < 12 << 20
