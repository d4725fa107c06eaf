"""`adawise produce --coco` to a real broker, and what `adawise record` makes of it: labelled images of cameras."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from adawise.__main__ import main
from adawise.produce.camera_traps import time_of
from tests.brokers import Broker, fresh_name
from tests.labels.folders.reading import read
from tests.produce.test_sender import DECODE
from tests.produce.traps import document, image, with_pictures, written
from tests.worker.recordings import recorded


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A document of two cameras and six images, one of them without a file, and the images."""
    images = [
        image(4, location=12),
        image(0, file_name="wood/0.jpg", location="wood"),
        image(1, location=12),
        image(2, location="wood"),
        image(3, location="wood"),
        image(5, location=12, datetime="2011-05-13T14:05:00.5+02:00"),
        image(6, location="wood", datetime="0000-00-00 00:00:00"),
    ]
    path = written(tmp_path, document(images, {"i0": [1], "i1": [0], "i2": [1, 2], "i4": [2], "i5": [2, 2]}))
    with_pictures(path, "wood/0.jpg", "1.jpg", "2.jpg", "4.jpg", "5.jpg")
    return path


@pytest.mark.parametrize("batch", ["1", "3"])
def test_a_data_set_becomes_a_recording_of_its_cameras_with_labels_and_times(
    batch: str, embedded_broker: Broker, traps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka = ["--kafka.bootstrap-servers", embedded_broker.bootstrap_servers, "--kafka.topic", fresh_name("traps")]
    before_ms = time.time_ns() // 1_000_000
    words = ["produce", str(traps.parent / "images"), "--coco", str(traps), "--create-topic", "--batch", batch]
    assert main([*words, *kafka]) == 0
    said = capsys.readouterr()
    assert "6 images of 2 cameras, 3 categories, from 2011-05-13 12:00 to 2011-05-13 12:05 UTC; " in said.out
    assert "1 without a label, of several categories; 1 without a label, of no category; 1 left out" in said.out
    assert "skipped 6.jpg: its datetime is '0000-00-00 00:00:00'" in said.err
    assert "skipped 3.jpg: No such file" in said.err
    recording = tmp_path / "recording"
    assert main(["record", "-o", str(recording), *kafka]) == 0
    samples = read(recording)
    assert samples.taken is not None
    found = sorted((taken.camera, label) for taken, label in zip(samples.taken, samples.labels, strict=True))
    assert found == [("12", "empty"), ("12", "fox"), ("12", "fox"), ("wood", "deer")]
    assert samples.unlabelled == 1
    messages = recorded(recording)
    # By the camera's time the retention of most topics would delete them at once.
    assert min(message.timestamp_ms for message in messages) >= before_ms
    frames = [frame for message in messages for frame in DECODE(message).frames]
    assert {frame.reason for frame in frames} == {None}
    by_camera: dict[str, list[tuple[str, str | None, str]]] = {
        "12": [("1.jpg", "empty", "12:01"), ("4.jpg", "fox", "12:04"), ("5.jpg", "fox", "12:05:00.5")],
        "wood": [("wood/0.jpg", "deer", "12:00"), ("2.jpg", None, "12:02")],
    }
    for camera, expected in by_camera.items():
        sent = [(f.frame_id, f.true_label, f.captured_at_us) for f in frames if f.stream_id == camera]
        assert sent == [(name, label, time_of(f"2011-05-13 {at}")) for name, label, at in expected]


def test_a_data_set_that_cannot_be_sent_ends_with_a_sentence(
    embedded_broker: Broker, traps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The document is read before a broker is asked, and no topic is created for it."""
    name = fresh_name("traps")
    kafka = ["--kafka.bootstrap-servers", embedded_broker.bootstrap_servers, "--kafka.topic", name]
    traps.write_text(traps.read_text().replace("wood/0.jpg", "../0.jpg"))
    words = ["produce", str(traps.parent / "images"), "--coco", str(traps), "--create-topic", *kafka]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "entry 2 of images: the file_name '../0.jpg' leaves the folder" in said
    assert "correct them" in said
    with closing(KafkaConsumer(bootstrap_servers=embedded_broker.bootstrap_servers)) as reader:
        assert name not in reader.topics()
