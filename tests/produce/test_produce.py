"""Producing without a broker: dealing out, pacing by an injected clock, batching, stopping."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from adawise.errors import SettingsError
from adawise.produce.files import FileShots, Shot
from adawise.produce.produce import ROOM_BYTES, Gathering, Parcel, Produced, open_shots, produce
from adawise.produce.video import VideoShots


class Sent:
    """A sender in memory."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []
        self.flushed = False

    def send(self, parcel: Parcel) -> None:
        self.parcels.append(parcel)

    def flush(self) -> None:
        self.flushed = True

    @property
    def names(self) -> list[tuple[str, list[str]]]:
        return [(p.stream_id, [shot.frame_id for shot in p.shots]) for p in self.parcels]


class Clock(Event):
    """Time that passes only by waiting for it."""

    def __init__(self, ends_at: float = 1e9) -> None:
        super().__init__()
        self.now = 1_000.0
        self._ends_at = ends_at

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        assert timeout > 0
        self.now += timeout
        return self.now > self._ends_at


def shots(number: int | None = None, size: int = 10, **facts: Any) -> Iterator[Shot]:
    for i in count() if number is None else range(number):
        yield Shot(bytes(size), "image/jpeg", str(i), **facts)


def gathering(batch: int = 1, max_image_bytes: int = 1_000, max_held_bytes: int = 10_000) -> Gathering:
    return Gathering(batch=batch, max_message_bytes=ROOM_BYTES + max_image_bytes, max_held_bytes=max_held_bytes)


def test_single_images_are_dealt_out_in_turn() -> None:
    sent = Sent()
    produced = produce(shots(5), sent, streams=["a", "b"], gathering=gathering())
    assert sent.names == [("a", ["0"]), ("b", ["1"]), ("a", ["2"]), ("b", ["3"]), ("a", ["4"])]
    assert not any(parcel.is_batch for parcel in sent.parcels)
    assert sent.flushed
    assert (produced.images, produced.messages, produced.image_bytes) == (5, 5, 50)
    assert produced.by_stream == {"a": 3, "b": 2}


def test_batches_hold_one_stream_each_and_the_rest_is_sent_at_the_end() -> None:
    sent = Sent()
    produced = produce(shots(7), sent, streams=["a", "b"], gathering=gathering(batch=2))
    assert sent.names == [("a", ["0", "2"]), ("b", ["1", "3"]), ("a", ["4", "6"]), ("b", ["5"])]
    assert all(parcel.is_batch for parcel in sent.parcels)
    assert (produced.images, produced.messages) == (7, 4)


def test_a_shot_with_a_stream_of_its_own_keeps_it() -> None:
    sent = Sent()
    produce(shots(2, stream_id="own"), sent, streams=["a"], gathering=gathering(batch=2))
    assert sent.names == [("own", ["0", "1"])]


def test_a_batch_leaves_before_it_would_be_larger_than_a_message() -> None:
    sent = Sent()
    produce(shots(5, size=400), sent, streams=["a"], gathering=gathering(batch=9, max_image_bytes=1_000))
    assert sent.names == [("a", ["0", "1"]), ("a", ["2", "3"]), ("a", ["4"])]


def test_what_waits_for_all_streams_together_is_bounded() -> None:
    sent = Sent()
    streams = [f"cam-{i}" for i in range(1_000)]
    gather = gathering(batch=100, max_image_bytes=1_000, max_held_bytes=1_000)
    for number, shot in enumerate(shots(300, size=100)):
        for parcel in gather.add(streams[number], shot, 0):
            sent.send(parcel)
        held = number + 1 - sum(len(parcel.shots) for parcel in sent.parcels)
        assert held <= 10
    assert len(sent.parcels) == 297  # 27 times 11


def test_the_pace_is_kept_from_the_start_and_dates_the_images() -> None:
    clock, sent = Clock(), Sent()
    produced = produce(shots(6), sent, streams=["a", "b"], gathering=gathering(), rate=4.0, stop=clock, clock=clock)
    taken = [time for parcel in sent.parcels for time in parcel.captured_at_us]
    assert taken == [1_000_000_000 + 250_000 * i for i in range(6)]
    assert produced.seconds == 1.25


class Tape:
    """Frames of a video, at uneven times."""

    TIMES = (0.0, 0.5, 0.75, 4.0)

    def __iter__(self) -> Iterator[Shot]:
        for number, at_s in enumerate(self.TIMES):
            yield Shot(b"x", "image/jpeg", str(number), at_s=at_s)


@pytest.mark.parametrize(
    ("speed", "rate", "sent_at"),
    [
        (1.0, None, (0.0, 0.5, 0.75, 4.0)),
        (2.0, None, (0.0, 0.25, 0.375, 2.0)),
        (None, None, (0.0, 0.0, 0.0, 0.0)),
        (1.0, 1.0, (0.0, 1.0, 2.0, 3.0)),
    ],
)
def test_a_video_is_sent_at_its_own_pace_and_has_its_own_times(
    speed: float | None, rate: float | None, sent_at: tuple[float, ...]
) -> None:
    clock, times = Clock(), []

    class Timed(Sent):
        def send(self, parcel: Parcel) -> None:
            super().send(parcel)
            times.append(clock.now - 1_000.0)

    sent = Timed()
    begins_us = 1_795_593_600_000_000
    pace: dict[str, Any] = {"rate": rate, "speed": speed, "begins_us": begins_us}
    produce(Tape(), sent, streams=["a"], gathering=gathering(), stop=clock, clock=clock, **pace)
    assert tuple(times) == sent_at
    taken = [(time - begins_us) / 1e6 for parcel in sent.parcels for time in parcel.captured_at_us]
    assert taken == [0.0, 0.5, 0.75, 4.0]


def test_a_video_of_which_nobody_says_when_it_began_begins_now() -> None:
    clock, sent = Clock(), Sent()
    produce(Tape(), sent, streams=["a"], gathering=gathering(), speed=None, stop=clock, clock=clock)
    assert [p.captured_at_us[0] for p in sent.parcels] == [1_000_000_000 + int(at * 1e6) for at in Tape.TIMES]


def test_a_slow_broker_is_caught_up_with_without_waiting() -> None:
    clock = Clock()

    class Slow(Sent):
        def send(self, parcel: Parcel) -> None:
            super().send(parcel)
            clock.now += 1.0 if len(self.parcels) == 1 else 0.0

    sent = Slow()
    produce(shots(5), sent, streams=["a"], gathering=gathering(), rate=2.0, stop=clock, clock=clock)
    assert [p.captured_at_us[0] / 1e6 - 1_000 for p in sent.parcels] == [0.0, 1.0, 1.0, 1.5, 2.0]


def test_an_endless_source_ends_by_its_limit_without_reading_more() -> None:
    sent, source = Sent(), shots()
    produced = produce(source, sent, streams=["a"], gathering=gathering(batch=4), limit=6)
    assert (produced.images, sent.names[-1]) == (6, ("a", ["4", "5"]))
    assert next(source, None) is None, "the source is closed: it may hold a process"


@pytest.mark.parametrize("during", ["pause", "send"])
def test_a_stop_ends_the_run_and_sends_what_was_taken(during: str) -> None:
    clock = Clock(ends_at=1_001.6)

    class Stopping(Sent):
        def send(self, parcel: Parcel) -> None:
            super().send(parcel)
            if during == "send":
                clock.set()

    sent = Stopping()
    produced = produce(shots(), sent, streams=["a"], gathering=gathering(batch=3), rate=2.0, stop=clock, clock=clock)
    assert sent.flushed
    assert produced.images == (4 if during == "pause" else 3)


def test_a_source_is_closed_when_sending_fails() -> None:
    class Failing(Sent):
        def send(self, parcel: Parcel) -> None:
            raise SettingsError("refused")

    source = shots()
    with pytest.raises(SettingsError, match="refused"):
        produce(source, Failing(), streams=["a"], gathering=gathering())
    assert next(source, None) is None


@pytest.mark.parametrize("name", ["", "c" * 250, "cam\n1", "cam\udcff"])
def test_a_stream_that_consumers_would_reject_is_refused_before_anything_is_sent(name: str) -> None:
    sent = Sent()
    with pytest.raises(SettingsError, match="cannot have that name"):
        produce(shots(1), sent, streams=[name], gathering=gathering())
    assert not sent.parcels


def test_nothing_to_send_is_a_run_of_nothing() -> None:
    clock = Clock()
    assert produce([], Sent(), streams=["a"], gathering=gathering(), clock=clock) == Produced(0, 0, 0, 0.0, {})


def test_the_source_is_a_folder_a_list_or_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    listing = tmp_path / "list.txt"
    listing.write_text("a.jpg\n")
    for source in (tmp_path, listing):
        opened = open_shots(str(source), max_message_bytes=ROOM_BYTES + 5)
        assert isinstance(opened, FileShots)
        assert opened.max_bytes == 5
        assert "a.jpg" in [file.name for file in opened.files]
    assert open_shots("day.mp4", max_message_bytes=10**6) == VideoShots("day.mp4")
    for stream in ("rtsp://cam/1", "/dev/video0", "https://cam/day.mp4"):
        with pytest.raises(SettingsError, match="with `adawise cameras FILE`"):
            open_shots(stream, max_message_bytes=10**6)
    folder = tmp_path / "frames.mp4"
    folder.mkdir()
    assert isinstance(open_shots(str(folder), max_message_bytes=10**6), FileShots)
