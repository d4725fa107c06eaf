"""Each condition moves the picture in its own direction, and more of it moves it further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import numpy.typing as npt
import pytest

from adawise.demo.scene import StreetCamera
from adawise.demo.weather import PRESETS, Weather, blend

Measure = Callable[[npt.NDArray[np.float64]], float]
CAMERAS = [StreetCamera("a", seed) for seed in range(200, 206)]


def brightness(picture: npt.NDArray[np.float64]) -> float:
    return float(picture.mean())


def contrast(picture: npt.NDArray[np.float64]) -> float:
    return float(picture.std())


def detail(picture: npt.NDArray[np.float64]) -> float:
    return float(np.abs(np.diff(picture, axis=1)).mean())


def redness(picture: npt.NDArray[np.float64]) -> float:
    return float(picture[..., 0].mean() / picture[..., 2].mean())


def saturation(picture: npt.NDArray[np.float64]) -> float:
    return float((picture > 250).mean())


def blockiness(picture: npt.NDArray[np.float64]) -> float:
    """Steps across the borders of JPEG's 8-pixel blocks relative to steps inside them."""
    steps = np.abs(np.diff(picture, axis=1)).mean(axis=(0, 2))
    return float(steps[7::8].mean() / np.delete(steps, np.s_[7::8]).mean())


def measured(weather: Weather, measure: Measure) -> float:
    pictures = [
        np.asarray(camera.frame(number, weather)[0], dtype=np.float64) for number in range(4) for camera in CAMERAS
    ]
    return float(np.mean([measure(picture) for picture in pictures]))


@pytest.mark.parametrize(
    ("condition", "measure", "direction"),
    [
        ("dusk", brightness, -1),
        ("dusk", redness, 1),
        ("night", brightness, -1),
        ("fog", contrast, -1),
        ("fog", brightness, 1),
        ("rain", contrast, -1),
        ("rain", brightness, -1),
        ("glare", saturation, 1),
        ("dirty_lens", contrast, -1),
        ("motion_blur", detail, -1),
        ("sensor_noise", detail, 1),
        ("low_bitrate", blockiness, 1),
    ],
)
@pytest.mark.cases("worker", every=4)
def test_a_condition_moves_the_picture_in_its_direction_step_by_step(
    condition: str, measure: Measure, direction: int
) -> None:
    steps = [blend(PRESETS["clear"], PRESETS[condition], t) for t in (0.0, 0.5, 1.0)]
    values = [direction * measured(weather, measure) for weather in steps]
    assert values[0] < values[1] < values[2]


def test_lamps_shine_at_night() -> None:
    dark = Weather(daylight=0.1, lamps=0.0, noise=0.0)
    assert measured(blend(dark, Weather(daylight=0.1, lamps=1.0, noise=0.0), 1.0), saturation) > measured(
        dark, saturation
    )


def test_blend_ends_at_both_weathers_and_moves_every_quantity_between() -> None:
    a, b = PRESETS["night"], PRESETS["rain"]
    assert blend(a, b, 0.0) == a
    assert blend(a, b, 1.0) == b
    middle = blend(a, b, 0.5)
    assert middle.daylight == pytest.approx((a.daylight + b.daylight) / 2)
    assert middle.rain == pytest.approx(0.5)


def test_a_weather_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        PRESETS["clear"].fog = 1.0  # type: ignore[misc]
