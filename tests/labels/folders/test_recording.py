"""Rows of a recording with labels that came later, whatever its messages said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.errors import SourceError
from adawise.labels.folders.recording import recorded_rows
from adawise.labels.folders.samples import Samples
from adawise.records import Message, RowId
from tests.lab.finetune.shapes import png
from tests.labels.folders.places import write_messages
from tests.labels.folders.reading import DECODING

CLASSES = ("bus", "car")


def row(offset: int, index: int = 0, partition: int = 0) -> RowId:
    return RowId("frames", partition, offset, index)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Single images at 0 and 1, which say that they are cars, a batch of three at 2, and garbage at 3."""
    found = (("label", b"car"),)
    batch = encode_batch([png("red disc", 2), b"no image", png("red disc", 4)])
    write_messages(
        tmp_path / "yard",
        [
            *(Message("frames", 0, n, b"cam", png("red disc", n), found) for n in (0, 1)),
            Message("frames", 0, 2, b"cam", batch, (("content-type", ARROW_STREAM.encode()),)),
            Message("frames", 0, 3, b"cam", b"garbage"),
        ],
    )
    return tmp_path / "yard"


def read(recording: Path, truths: dict[RowId, str]) -> Samples:
    return recorded_rows(str(recording), truths, CLASSES, DECODING)


def test_the_later_label_counts_and_only_these_rows_are_read(recording: Path) -> None:
    samples = read(recording, {row(2, 2): "bus", row(0): "bus", row(2, 0): "car"})
    assert samples.names == ["frames/0/0/0", "frames/0/2/0", "frames/0/2/2"]
    assert samples.labels == ["bus", "car", "bus"]
    assert [samples.read(i) for i in samples.usable] == [png("red disc", 0), png("red disc", 2), png("red disc", 4)]
    assert samples.read(0) == png("red disc", 0)  # and back
    assert samples.classes == CLASSES


def test_what_is_not_there_or_of_no_use_is_left_out_with_its_reason(recording: Path) -> None:
    nowhere = [row(2, 3), row(9), row(0, 1), row(0, partition=5), RowId("street", 0, 0, 0)]
    samples = read(recording, {row(0): "car", row(1): "tram", row(3): "car", **dict.fromkeys(nowhere, "car")})
    why = {samples.names[i]: reason for i, reason in samples.left_out.items()}
    assert {name for name, reason in why.items() if "does not have it" in reason} == set(map(str, nowhere))
    assert "'tram' is not among the class names" in why["frames/0/1/0"]
    assert [samples.names[i] for i in samples.usable] == ["frames/0/0/0"]
    assert "frames/0/3/0" in why


def test_a_folder_without_a_recording_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a recording in"):
        read(tmp_path, {row(0): "car"})


def test_what_comes_after_a_hole_is_found(tmp_path: Path) -> None:
    sent = [Message("frames", 0, n, b"cam", png("red disc", n)) for n in (0, 1, 4, 5)]
    write_messages(tmp_path / "yard", sent)
    samples = read(tmp_path / "yard", {row(n): "car" for n in range(7)})
    assert [samples.names[i] for i in samples.left_out] == [f"frames/0/{n}/0" for n in (2, 3, 6)]
    assert [samples.read(i) for i in samples.usable] == [one.value for one in sent]
