"""Small multiples keep the extremes, break where nothing came, and stand on the same scales."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from adawise_drift.page.series import HEIGHT, WIDTH, picture, together
from tests.drift.page.building import BEGIN_US, HOUR_US, a_camera, a_report


def heights(path: str) -> list[int]:
    """Every height that a path of M, h and v visits."""
    found = []
    y = 0
    for start, command, value in re.findall(r"M(\d+ \d+)|([hv])(-?\d+)", path):
        y = int(start.split()[1]) if start else y + (int(value) if command == "v" else 0)
        found.append(y)
    return found


def ends(path: str) -> list[tuple[int, int]]:
    """From which x to which x each part of a path goes."""
    found = []
    for part in path.split("M")[1:]:
        first = int(part.split()[0])
        found.append((first, first + sum(int(step) for step in re.findall(r"h(-?\d+)", part))))
    return found


def test_a_peak_of_one_bin_is_in_the_band() -> None:
    camera = a_camera("gate", [(0, 0.3)], hours=720)
    camera.series.alpha_high[500] = 0.97
    camera.series.alpha_low[10] = 0.01
    band = picture(camera, a_report([camera])).band
    assert min(heights(band)) == 3
    assert max(heights(band)) == 99


def test_the_mean_is_where_alpha_is() -> None:
    camera = a_camera("gate", [(0, 0.3), (360, 0.8)], hours=720)
    flat = replace(camera.series, alpha=np.where(np.arange(720) < 360, 0.3, 0.8))
    drawn = picture(replace(camera, series=flat), a_report([camera]))
    assert set(heights(drawn.mean)) == {70, 20}
    assert drawn.levels == f"M0 70H{WIDTH // 2} M{WIDTH // 2} 20H{WIDTH}"
    assert drawn.changes == ((WIDTH // 2, True),)


def test_a_silence_breaks_the_line_and_is_marked() -> None:
    camera = a_camera("gate", [(0, 0.3)], hours=720, silent=(180, 360))
    drawn = picture(camera, a_report([camera]))
    first, second = ends(drawn.mean)
    assert first == (0, WIDTH // 4)
    assert second == (WIDTH // 2, WIDTH)
    assert drawn.silences == ((WIDTH // 4, WIDTH // 4),)


def test_all_cameras_share_the_time_of_the_report() -> None:
    late = a_camera("late", [(0, 0.3)], hours=720)
    half = replace(late.series, **{name: getattr(late.series, name)[360:] for name in type(late.series).__slots__})
    drawn = picture(replace(late, series=half), a_report([late]))
    assert ends(drawn.mean) == [(WIDTH // 2, WIDTH)]


def test_a_camera_of_one_bin_is_seen() -> None:
    camera = a_camera("gate", [(0, 0.3)], hours=1)
    ((first, last),) = ends(picture(camera, a_report([camera], hours=720)).mean)
    assert first == 0
    assert last > 0


def test_a_camera_without_a_point_has_an_empty_picture() -> None:
    camera = a_camera("gate", [(0, 0.3)], hours=24)
    unknown = replace(camera.series, alpha=np.full(24, np.nan))
    assert picture(replace(camera, series=unknown), a_report([camera])).mean == ""


def test_the_mean_of_a_group_lies_between_its_members() -> None:
    cameras = [a_camera(name, [(0, level)], hours=720) for name, level in (("a", 0.2), ("b", 0.6))]
    path = together(cameras, a_report(cameras))
    assert ends(path) == [(0, WIDTH)]
    assert HEIGHT - 48 < np.mean(heights(path)) < HEIGHT - 32


def test_times_outside_the_report_are_kept_within_the_picture() -> None:
    camera = a_camera("gate", [(0, 0.3)], hours=24, silent=(4, 6))
    early = replace(camera, silences=((BEGIN_US - 5 * HOUR_US, BEGIN_US + 6 * HOUR_US),))
    assert picture(early, a_report([camera], hours=24)).silences == ((0, WIDTH // 4),)
