"""The cameras' scripts: a pure function of the length, smooth but for one abrupt change."""

from __future__ import annotations

from dataclasses import astuple
from datetime import timedelta
from itertools import groupby, pairwise

import numpy as np
import pytest

from adawise.demo import script
from adawise.demo.weather import PRESETS

EVERY_CAMERA = [camera for cameras in script.CAMERAS_OF.values() for camera in cameras]


def test_a_script_is_the_same_every_time_it_is_made() -> None:
    first, second = script.scripts(101), script.scripts(101)
    assert first == second
    assert [c.moment(n) for c in first for n in range(c.frames)] == [
        c.moment(n) for c in second for n in range(c.frames)
    ]


@pytest.mark.parametrize("images", [1, 3, 4, 101, 4000])
def test_the_cameras_share_the_images_as_equally_as_can_be(images: int) -> None:
    frames = [camera.frames for camera in script.scripts(images)]
    assert sum(frames) == images
    assert max(frames) - min(frames) <= 1
    assert min(frames) >= 1


def test_the_order_has_every_frame_once_and_each_camera_in_turn() -> None:
    cameras = script.scripts(10)
    sent = list(script.order(cameras))
    assert sent[:5] == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]
    assert sorted(sent) == [(i, n) for i, camera in enumerate(cameras) for n in range(camera.frames)]


def test_the_passages_of_a_script_fill_it_and_name_conditions_that_exist() -> None:
    for camera in EVERY_CAMERA:
        assert sum(passage.share for passage in camera.passages) == pytest.approx(1)
        assert {passage.condition for passage in camera.passages} <= set(PRESETS)


def test_weather_changes_smoothly_but_for_one_abrupt_change() -> None:
    """In units of each quantity's range over the conditions, and with 1,000 frames a camera."""
    span = np.ptp(np.array([astuple(weather) for weather in PRESETS.values()]), axis=0)
    span[span == 0.0] = 1.0  # what no condition changes
    jumps = []
    for camera in script.scripts(4000):
        states = [np.array(astuple(camera.moment(n).weather)) / span for n in range(camera.frames)]
        steps = [(n, float(np.abs(b - a).max())) for n, (a, b) in enumerate(pairwise(states))]
        jumps += [(camera.camera_id, step) for _, step in steps if step > 0.05]
    assert [name for name, _ in jumps] == ["tunnel"]
    assert jumps[0][1] > 0.5


def test_a_fade_is_named_after_the_condition_that_prevails() -> None:
    (camera, *_) = script.scripts(4000)  # clear for a fifth, then dusk over 154 frames
    assert camera.moment(0).condition == "clear"
    assert camera.moment(210).condition == "clear"
    assert camera.moment(290).condition == "dusk"
    assert camera.moment(999).condition == "clear"
    assert camera.moment(210).weather != PRESETS["clear"]


@pytest.mark.parametrize(
    ("seconds", "images", "expected"), [(None, None, 3200), (2.5, None, 100), (None, 7, 7), (2.5, 7, 7)]
)
def test_the_shorter_of_seconds_and_images_decides_the_length(
    seconds: float | None, images: int | None, expected: int
) -> None:
    assert script.images_of(seconds, images) == expected


def test_a_camera_of_three_nights_is_three_times_in_the_same_condition() -> None:
    for camera in script.scripts(9600, "nights"):
        shown = [camera.moment(n).condition for n in range(camera.frames)]
        passed = [name for name, _ in groupby(shown)]
        assert passed.count("night") == 3
        assert passed[: len(passed) // 3] == passed[len(passed) // 3 : 2 * (len(passed) // 3)]
        assert len(shown) == 2400
        taken = [camera.captured_at(n) for n in (0, 800, 2399)]
        assert taken[1] - taken[0] == timedelta(days=1)
        assert taken[2] - taken[0] == timedelta(days=3) - timedelta(days=3) / 2400
        assert {camera.captured_at(n).hour for n in range(2400) if shown[n] == "night"} <= {*range(13, 24), *range(7)}


def test_a_control_changes_pictures_and_not_the_condition() -> None:
    exposure, brightness, odd, pan = script.scripts(6400, "controls")
    seen = {camera.control: [camera.moment(n) for n in range(camera.frames)] for camera in (exposure, brightness, pan)}
    assert all(len({moment.condition for moment in moments}) == 1 for moments in seen.values())
    held = [moment.exposure for moment in seen["exposure"]]
    assert set(held) == {0.6, 1.0, 1.5}
    assert [len(list(run)) for _, run in groupby(held)][:-1] == [96] * (len(held) // 96), "and each is another one"
    slow = np.array([moment.exposure for moment in seen["brightness"]])
    assert 0.59 < slow.min() < 0.61
    assert 1.39 < slow.max() < 1.41
    assert np.abs(np.diff(slow)).max() < 0.005
    assert [moment.view for moment in seen["pan"]][::96][:4] == [0, 1, 2, 0]
    strange = [moment.condition != "night" for moment in map(odd.moment, range(odd.frames))]
    assert 0.04 < np.mean(strange) < 0.09
    assert max(len(list(run)) for is_odd, run in groupby(strange) if is_odd) <= 3
    assert seen["exposure"][0].weather != exposure.moment(96).weather


def test_no_camera_was_seen_in_training_or_when_the_objective_was_chosen() -> None:
    from tools.demo_pair import table, train

    used = {seed for stage in (train.ZERO_SHOT, train.FINE_TUNED) for seed in _seeds(stage.first_seed, stage.cameras)}
    used |= {seed for first in (table.VALIDATION_SEED, table.TEST_SEED) for seed in _seeds(first, table.CAMERAS)}
    assert used.isdisjoint(camera.seed for camera in EVERY_CAMERA)


def _seeds(first: int, count: int) -> range:
    return range(first, first + count)
