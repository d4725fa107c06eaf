"""The census of a recording: how many messages each camera has, and which files hold them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adawise.errors import SourceError
from adawise.recording import format as layout
from adawise.recording.census import check_recording, digests, take_census
from adawise.records import Message, TopicPartition
from tests.recording.test_source import write

TP = TopicPartition("frames", 0)
WHOLE = {TP: (0, 7)}


def sent(offset: int, key: bytes | None, size: int = 1_000, headers: tuple[tuple[str, bytes], ...] = ()) -> Message:
    return Message("frames", 0, offset, key, bytes(size), headers, timestamp_ms=offset)


MESSAGES = [
    sent(0, b"north"),
    sent(1, b"north", 3_000),
    sent(2, None, headers=(("stream-id", b"gate"),)),
    sent(3, b"south", 5_000),
    sent(4, None),
    sent(5, b" no camera "),
    sent(6, b"south", 5_000),
]


def test_cameras_are_counted_by_key_or_header_within_the_part(tmp_path: Path) -> None:
    write(tmp_path, MESSAGES)
    found = take_census(str(tmp_path), WHOLE, "fail")[TP]
    assert {name: count.frames for name, count in found.cameras.items()} == {"north": 2, "gate": 1, "south": 2}
    assert found.nameless.frames == 2
    assert found.cameras["south"].size_bytes > found.cameras["north"].size_bytes > 2_000
    assert found.stored_bytes == sum(file.stat().st_size for file in tmp_path.rglob("*.parquet"))
    part = take_census(str(tmp_path), {TP: (3, 6)}, "fail")[TP]
    assert ({*part.cameras}, part.nameless.frames) == ({"south"}, 2)
    assert 0 < part.stored_bytes < found.stored_bytes


def test_no_value_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, MESSAGES)
    whole = sum(file.stat().st_size for file in tmp_path.rglob("*.parquet"))
    file = next(tmp_path.rglob("*.parquet"))
    data = file.read_bytes()
    place = data.index(bytes(1_000))
    file.write_bytes(data[:place] + b"\xff" * 1_000 + data[place + 1_000 :])  # a reader of the value would see its CRC
    assert take_census(str(tmp_path), WHOLE, "fail")[TP].stored_bytes == whole


def test_a_recording_that_grows_is_the_same_and_one_that_is_written_anew_is_another(tmp_path: Path) -> None:
    write(tmp_path / "a", MESSAGES)
    last = max((tmp_path / "a").rglob("*.parquet"))
    grown = last.rename(tmp_path / "later")
    before = digests(str(tmp_path / "a"), {TP: (0, 6)})
    grown.rename(last)
    check_recording(str(tmp_path / "a"), {TP: (0, 6)}, before)
    write(tmp_path / "b", MESSAGES)
    with pytest.raises(SourceError, match="offsets 0 to 5 of frames/0 are not in the files that the plan was made for"):
        check_recording(str(tmp_path / "b"), {TP: (0, 6)}, before)
    next(iter(sorted((tmp_path / "a").rglob("*.parquet")))).unlink()
    with pytest.raises(SourceError, match="they were removed, written anew, or are of another recording"):
        check_recording(str(tmp_path / "a"), {TP: (0, 6)}, before)


def test_images_that_were_removed_are_named_unless_they_are_to_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, MESSAGES, file_messages=10)
    (file,) = tmp_path.rglob("*.parquet")
    footer = layout.Footer("frames", 0, 0, 7, "cluster", "topic-id", 2, images=False)
    file.unlink()
    (tmp_path / layout.key_of(TP, 0, "redacted")).write_bytes(layout.encode_file(MESSAGES, footer))
    with pytest.raises(SourceError, match="the images of frames/0 from offset 0 to 6 were removed"):
        take_census(str(tmp_path), WHOLE, "fail")
    assert take_census(str(tmp_path), WHOLE, "skip")[TP].cameras == {}
