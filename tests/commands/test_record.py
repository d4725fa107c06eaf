"""How a recording's growth is told, and what the settings of the worker's own recording come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adawise.build.recording import worker_recorder
from adawise.commands.record.run import Pace
from adawise.recording.recorder import RecordingProgress
from adawise.settings import Settings
from adawise.settings.recording import RecordSettings
from tests.fakes import FakeSource


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def pace(free_bytes: int | None, clock: Clock) -> Pace:
    return Pace("anywhere", free_bytes=lambda _: free_bytes, clock=clock)


def test_the_rate_is_told_with_the_time_until_the_disk_is_full() -> None:
    clock = Clock()
    told = pace(10**12, clock)
    clock.now_s = 100.0
    recorded = RecordingProgress(messages=9, size_bytes=250_000_000, files=2, stored_bytes=250_000_000)
    assert told.of(recorded, 9, 0) == "238.4 MiB, 9 GB/h, disk full in 5 d"


@pytest.mark.parametrize(("free_bytes", "stored_bytes"), [(None, 10), (10**9, 0)])
def test_nothing_is_told_of_the_disk_where_nobody_knows(free_bytes: int | None, stored_bytes: int) -> None:
    clock = Clock()
    told = pace(free_bytes, clock)
    clock.now_s = 3600.0
    assert told.of(RecordingProgress(1, 2**20, 0, stored_bytes), 1, 0) == "1.0 MiB, 0.00105 GB/h"


def test_whoever_catches_up_is_told_how_far_behind_it_is_and_its_rate_is_not_taken_for_the_topics() -> None:
    clock = Clock()
    told = pace(10**12, clock)

    def after(seconds: float, messages: int, waiting: int) -> str:
        clock.now_s, size = seconds, 2**20 * messages
        return told.of(RecordingProgress(messages, size, 1, size), messages, waiting)

    assert after(10.0, 1_000, 9_000) == "1000.0 MiB, 9,000 messages behind"
    assert after(19.0, 9_900, 100) == "9900.0 MiB"  # one second more, and it has caught up
    assert after(20.0, 10_000, 0) == "10000.0 MiB"
    assert after(119.0, 10_100, 0) == "10100.0 MiB, 7.55 GB/h, disk full in 6 d"


def test_a_camera_of_one_image_a_minute_is_no_backlog() -> None:
    clock = Clock()
    told = pace(10**12, clock)
    for minute in range(1, 5):  # nothing is in a file yet
        clock.now_s = 60.0 * minute
        assert told.of(RecordingProgress(0, 1000 * minute, 0), minute, 1) == "0.0 MiB, 6e-05 GB/h"


def test_the_disk_is_that_of_the_first_folder_that_exists(tmp_path: Path) -> None:
    told = Pace(str(tmp_path / "not" / "there"), clock=lambda: 0.0)
    assert "disk full in" in told.of(RecordingProgress(1, 1, 1, 1), 1, 0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("24h", 86_400.0), ("7d", 604_800.0), ("0", 0.0)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert RecordSettings.model_validate({"keep": text}).keep == seconds


@pytest.mark.parametrize("value", ["7", "", "1w", "-1h", "1.5h", 7, "999999999d", None.__class__])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        RecordSettings.model_validate({"keep": value})


def test_a_worker_records_only_if_it_is_asked_to(tmp_path: Path) -> None:
    source, root = FakeSource(), tmp_path / "recording"
    for enabled in (False, True):
        settings = Settings.model_validate({"record": {"enabled": enabled, "root": str(root)}})
        recorder = worker_recorder(settings, source, failpoint=lambda _: None)
        assert (recorder is not None) == root.exists() == enabled
        if recorder is not None:
            recorder.close()
