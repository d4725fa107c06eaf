"""Which of two runs is right more often: on the same labelled images, by any labels that there are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from adawise.__main__ import main
from adawise.labels.compare.compare import compare
from adawise.labels.compare.result import Accuracies, RunDifference
from adawise.records import Frame, ImageBatch
from tests.labels.compare.test_compare import IMAGES, Change, batches, relabelled, text_of, write
from tests.labels.test_given import collect
from tests.sink.building import CLASSES, Served

Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


def unlabelled(until: int) -> list[Served]:
    """The same batches without the producer's labels, each image a second after the one before."""

    def without(batch: ImageBatch) -> ImageBatch:
        def one(each: Frame) -> Frame:
            return replace(each, true_label=None, captured_at_us=each.row_id.offset * 1_000_000)

        return replace(batch, frames=tuple(map(one, batch.frames)))

    return [(without(batch), predictions, trace) for batch, predictions, trace in batches(until)]


def served_as(*classes: int) -> Change:
    """The served classes of the images of each batch."""

    def change(_: int, batch: Served) -> Served:
        index = batch[1].top_index.copy()
        index[:, 0] = [classes[n % len(classes)] for n in range(len(index))]
        return batch[0], replace(batch[1], top_index=index), batch[2]

    return change


def of(found: RunDifference) -> Accuracies:
    assert found.by_labels.whole is not None
    return found.by_labels.whole


def test_the_difference_of_accuracies_has_an_interval_over_batches_and_a_verdict(tmp_path: Path) -> None:
    a = write(tmp_path / "a", batches(160), served_as(0, 1, 2, 0))  # the truth is bus, 1: a quarter is right
    b = write(tmp_path / "b", batches(160), served_as(1, 1, 2, 0))
    found = compare(a, b)
    whole = of(found)
    assert (whole.images, whole.batches, whole.right) == (160, 40, (40, 80))
    assert [side.value for side in whole.accuracy] == [0.25, 0.5]
    assert (whole.difference.value, whole.difference.low, whole.difference.high) == (0.25, 0.25, 0.25)
    assert {name: (each.images, each.right) for name, each in found.by_labels.streams.items()} == {
        "north": (80, (20, 40)),
        "south": (80, (20, 40)),
    }
    assert [(s.labelled, s.right) for s in found.streams] == [(80, (20, 40))] * 2
    shown = text_of(found)
    assert "B is better: of 160 labelled images in 40 batches A is right on .250, B on .500, B minus A +.250" in shown
    assert "labels from the producer" in shown
    assert "accuracy by camera" in shown
    assert "A is better" in text_of(compare(b, a))


def test_a_difference_that_may_be_chance_is_called_so(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(160)), write(tmp_path / "b", batches(160), relabelled(3, 0)))
    by = of(found).difference
    assert by.low <= 0 < by.value == 1 / 160 < by.high
    assert math.copysign(1, by.low) == 1  # no -0
    assert "by the labels neither is better: " in text_of(found)
    assert found.by_labels.streams.keys() == {"north", "south"}


def test_few_labels_judge_no_camera_alone_and_one_batch_has_no_interval(tmp_path: Path) -> None:
    one = compare(write(tmp_path / "a", batches(4)), write(tmp_path / "b", batches(4), relabelled(0, 0)))
    assert not of(one).difference.is_known
    assert "interval" not in text_of(one)
    assert one.by_labels.streams == {}


def test_equal_runs_are_equally_right(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40)))
    shown = text_of(found)
    assert "of 40 labelled images in 10 batches A is right on .250, and so is B; labels from the producer" in shown
    assert "accuracy by camera" not in shown


@pytest.mark.parametrize("by_time", [False, True])
def test_a_file_of_labels_alone_counts_and_is_matched_as_by_drift(
    tmp_path: Path, capsys: Captured, by_time: bool
) -> None:
    a, b = write(tmp_path / "a", unlabelled(40)), write(tmp_path / "b", unlabelled(40), served_as(2))
    rows = [(4 * n, CLASSES[2]) for n in range(10)] + [(4 * n + 1, CLASSES[1]) for n in range(5)]
    times = [f"{'north' if at // 4 % 2 == 0 else 'south'},1970-01-01T00:00:{at:02}.5Z" for at, _ in rows]
    named = [times[n] if by_time else f"frames/3/{at}/0" for n, (at, _) in enumerate(rows)]
    head = "stream_id,captured_at" if by_time else "row_id"
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join([f"{head},label", *(f"{n},{name}" for n, (_, name) in zip(named, rows, strict=True))]))
    arguments = ["--labels", str(labels), *(["--label-within", "0.5"] if by_time else [])]
    assert main(["diff", str(a), str(b), "--json", *arguments]) == 3
    found = json.loads(capsys.readouterr().out)
    whole = found["by_labels"]["whole"]
    # a serves car bus empty car: of image 0 car, of image 1 bus; b always empty
    assert (whole["images"], whole["right"], found["totals"]["labelled"]) == (15, [5, 10], 15)
    assert found["by_labels"]["source"] == str(labels)
    assert main(["drift", str(a), "--against", str(b), "--json", *arguments]) == 0
    helped = json.loads(capsys.readouterr().out)["helped"]
    (other,) = [arm for arm in helped["arms"] if arm["source"] == str(b)]
    assert other["accuracy"] == whole["accuracy"][1]
    assert other["gain"]["low"] == -whole["difference"]["high"]


def test_labels_under_either_root_are_found_and_those_under_both_count_once(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", unlabelled(40)), write(tmp_path / "b", unlabelled(40), served_as(2))
    rows = [{"row_id": f"frames/3/{offset}/0", "label": CLASSES[2]} for offset in range(0, 40, IMAGES)]
    for roots in ([b], [a, b]):
        collect(roots[0], *rows)
        found = compare(a, b)
        assert (of(found).images, of(found).right, found.by_labels.notes) == (10, (0, 10), ())
        assert found.by_labels.source == " and ".join(f"{root}/labels" for root in roots)


def test_images_that_one_run_did_not_serve_are_not_counted(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(24), relabelled(0, 0)))
    assert of(found).images == 24


def test_without_labels_it_is_said_how_to_give_them(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", unlabelled(40)), write(tmp_path / "b", unlabelled(40), served_as(2))
    found = compare(a, b)
    assert (found.by_labels.whole, found.totals.labelled, found.totals.accuracy) == (None, 0, (None, None))
    assert "there are no labels of these images: give --labels FILE" in text_of(found)
    assert "no labels" not in text_of(compare(a, write(tmp_path / "c", unlabelled(40))))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none.csv", None, "expected a file of labels, but there is none; correct --labels"),
        ("labels.txt", "label\n", "expected a file whose name ends in one of .csv,"),
        (
            "labels.csv",
            "truth,row\nbus,1\n",
            "expected the columns label and row_id, or label, stream_id and captured_at",
        ),
        (
            "labels.csv",
            "label,row_id\nbus,frames-3\n",
            "row 1: row_id: expected topic/partition/offset/index, got 'frames-3'",
        ),
        ("labels.parquet", "not a table", "expected a parquet file of labels, but:"),
    ],
)
def test_a_file_of_labels_that_is_none_is_named_with_the_remedy(
    tmp_path: Path, capsys: Captured, name: str, text: str | None, expected: str
) -> None:
    a, b = write(tmp_path / "a", unlabelled(8)), write(tmp_path / "b", unlabelled(8))
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["diff", str(a), str(b), "--labels", str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert "Traceback" not in err
