"""The pace of a recording, as its progress shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adawise.recording.recorder import RecordingProgress
from adawise.recording.run import Pace


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def pace(free_bytes: int | None, clock: Clock) -> Pace:
    return Pace("anywhere", free_bytes=lambda _: free_bytes, clock=clock)


def test_the_rate_is_told_with_the_time_until_the_disk_is_full() -> None:
    clock = Clock()
    found = pace(10**12, clock)
    clock.now_s = 100.0
    recorded = RecordingProgress(messages=9, size_bytes=250_000_000, files=2, stored_bytes=250_000_000)
    assert found.of(recorded, 9, 0) == "238.4 MiB, 9 GB/h, disk full in 5 days"


@pytest.mark.parametrize(("free_bytes", "stored_bytes"), [(None, 10), (10**9, 0)])
def test_nothing_is_told_of_the_disk_where_nobody_knows(free_bytes: int | None, stored_bytes: int) -> None:
    clock = Clock()
    found = pace(free_bytes, clock)
    clock.now_s = 3600.0
    assert found.of(RecordingProgress(1, 2**20, 0, stored_bytes), 1, 0) == "1.0 MiB, 0.00105 GB/h"


def test_whoever_catches_up_is_told_how_far_behind_it_is_and_its_rate_is_not_taken_for_the_topics() -> None:
    clock = Clock()
    found = pace(10**12, clock)

    def after(seconds: float, messages: int, waiting: int) -> str:
        clock.now_s, size = seconds, 2**20 * messages
        return found.of(RecordingProgress(messages, size, 1, size), messages, waiting)

    assert after(10.0, 1_000, 9_000) == "1000.0 MiB, 9,000 messages behind"
    assert after(19.0, 9_900, 100) == "9.7 GiB"  # one second more, and it has caught up
    assert after(20.0, 10_000, 0) == "9.8 GiB"
    assert after(119.0, 10_100, 0) == "9.9 GiB, 7.55 GB/h, disk full in 6 days"


def test_a_camera_of_one_image_a_minute_is_no_backlog() -> None:
    clock = Clock()
    found = pace(10**12, clock)
    for minute in range(1, 5):  # nothing is in a file yet
        clock.now_s = 60.0 * minute
        assert found.of(RecordingProgress(0, 1000 * minute, 0), minute, 1) == f"{minute} KiB, 6e-05 GB/h"


def test_the_disk_is_that_of_the_first_folder_that_exists(tmp_path: Path) -> None:
    output = Pace(str(tmp_path / "not" / "there"), clock=lambda: 0.0)
    assert "disk full in" in output.of(RecordingProgress(1, 1, 1, 1), 1, 0)
