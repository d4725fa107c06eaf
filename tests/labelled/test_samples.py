"""Labelled images of folders and tables, what is refused, and what is held out."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from adawise.errors import SettingsError
from adawise.labelled.samples import Samples, read_samples, split
from tests.finetune.shapes import CLASSES, png, write_parquet


def refusal(path: Path, classes: tuple[str, ...] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        read_samples(path, "--labelled", classes)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_folder_has_the_names_of_its_subfolders_as_labels(shapes: Path) -> None:
    samples = read_samples(shapes, "--labelled", None)
    assert samples.classes == CLASSES
    assert len(samples) == 36
    number = samples.names.index("red disc/003.png")
    assert samples.labels[number] == "red disc"
    assert samples.read(number) == (shapes / "red disc" / "003.png").read_bytes()


def test_a_table_with_text_labels_is_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"1", b"22"], "label": ["dog", "cat"]})
    samples = read_samples(path, "--labelled", None)
    assert samples.classes == ("cat", "dog")
    assert [(samples.names[i], samples.labels[i], samples.read(i)) for i in range(2)] == [
        ("row 1", "cat", b"22"),
        ("row 0", "dog", b"1"),
    ]


@pytest.mark.parametrize(
    ("metadata", "classes"),
    [
        ({"class_names": json.dumps(["dog", "cat"])}, None),
        ({"huggingface": json.dumps({"info": {"features": {"label": {"names": ["dog", "cat"]}}}})}, None),
        (None, ("dog", "cat")),
        ({"class_names": "not json"}, ("dog", "cat")),
    ],
)
def test_labels_that_are_numbers_get_names(
    tmp_path: Path, metadata: dict[str, str] | None, classes: tuple[str, ...] | None
) -> None:
    columns: dict[str, object] = {"image": [b"1", b"2", b"3"], "label": pa.array([1, 0, 1], pa.int16())}
    samples = read_samples(write_parquet(tmp_path / "a.parquet", columns, metadata), "--labelled", classes)
    assert samples.labels == ["dog", "cat", "cat"]
    assert samples.classes == ("dog", "cat")


def test_images_in_a_struct_are_found(tmp_path: Path) -> None:
    images = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    samples = read_samples(write_parquet(tmp_path / "a.parquet", {"image": images, "label": ["x", "y"]}), "-", None)
    assert [samples.read(i) for i in range(2)] == [b"1", b""]


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_files_and_streams_are_read(tmp_path: Path, kind: str) -> None:
    table = pa.table({"image": pa.array([b"1"], pa.large_binary()), "label": ["x"]})
    path = tmp_path / "a.arrow"
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table)
    assert read_samples(path, "--labelled", None).read(0) == b"1"


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"picture": [b"1"], "label": ["x"]}, "there is no column 'image' among picture, label"),
        ({"image": [b"1"]}, "there is no column 'label'"),
        ({"image": ["1"], "label": ["x"]}, "expected encoded images (binary) in the column image, got string"),
        ({"image": [b"1", b"2"], "label": ["x", None]}, "row 1 has no label"),
        ({"image": [b"1"], "label": [1.5]}, "expected text or whole numbers"),
        ({"image": [b"1"], "label": [3]}, "the labels are numbers, and nothing says what they mean"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.string())}, "found no image"),
        ({"image": [b"1"], "label": [" x"]}, "without spaces around them, got ' x'"),
        ({"image": [b"1"], "label": ["x\ny"]}, "of one line"),
        ({"image": [b"1"], "label": [""]}, "got ''"),
    ],
)
def test_a_table_that_does_not_do_is_refused(tmp_path: Path, columns: dict[str, object], told: str) -> None:
    assert told in refusal(write_parquet(tmp_path / "a.parquet", columns))


def test_a_number_beyond_the_class_names_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"1", b"2"], "label": [0, 2]})
    assert "row 1 has label 2, expected 0 to 1" in refusal(path, ("x", "y"))


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"ARROW1\0\0junk", b"\xff" * 64])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert "not a Parquet or Arrow file that can be read" in refusal(path)


def test_labels_that_are_no_class_are_named(shapes: Path) -> None:
    message = refusal(shapes, ("red disc", "cat"))
    assert "the labels 'blue bar', 'green square' are not among the 2 class names of model.classes" in message


def test_images_without_a_subfolder_have_no_label(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png("red disc"))
    assert "1 images have no label, such as a.png" in refusal(tmp_path)


def test_a_folder_without_images_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    assert "found no image" in refusal(tmp_path)
    assert "there is no such folder or file" in refusal(tmp_path / "nowhere")


def samples_of(labels: list[str]) -> Samples:
    return Samples("here", [str(i) for i in range(len(labels))], labels, lambda i: b"", "0")


def test_the_same_share_of_each_class_is_held_out() -> None:
    samples = samples_of(["a"] * 40 + ["b"] * 10 + ["c"] * 2)
    train, held_out = split(samples, 0.2, 0)
    assert sorted(train + held_out) == list(range(52))
    counts = [[samples.labels[i] for i in held_out].count(name) for name in "abc"]
    assert counts == [8, 2, 1]
    assert split(samples, 0.2, 0) == (train, held_out)
    assert split(samples, 0.2, 1) != (train, held_out)


def test_a_class_always_keeps_an_image_to_train_on() -> None:
    train, held_out = split(samples_of(["a", "a", "b", "b"]), 0.9, 0)
    assert (len(train), len(held_out)) == (2, 2)


def test_a_class_with_one_image_cannot_be_split() -> None:
    with pytest.raises(SettingsError, match=r"here: the class 'b' has one image, .* or give --validation"):
        split(samples_of(["a", "a", "b"]), 0.5, 0)


def test_the_digest_changes_with_the_images(shapes: Path, tmp_path: Path) -> None:
    first = write_parquet(tmp_path / "a.parquet", {"image": [b"1", b"2"], "label": ["x", "y"]})
    second = write_parquet(tmp_path / "b.parquet", {"image": [b"1", b"22"], "label": ["x", "y"]})
    digests = {read_samples(path, "-", None).digest for path in (shapes, first, second)}
    assert len(digests) == 3
    assert read_samples(first, "-", None).digest in digests
