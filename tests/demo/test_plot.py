"""The picture of the alpha paths: a file that opens, a panel for each camera, names that can be read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from adawise.demo.plot import TINTS, draw, picture
from adawise.demo.report import CameraPath
from adawise.demo.script import scripts
from adawise.demo.weather import PRESETS

CAMERAS = scripts(400)
PATHS = [CameraPath([15, 31, 47, 99], [0.5, 0.5, 1.0, 0.0], ["start", None, "clock", "level"]) for _ in CAMERAS]
PANELS = picture(CAMERAS, PATHS)["vconcat"]


def drawn(panel: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a layer of a panel draws: tints, names, line and points, from below."""
    values: list[dict[str, Any]] = panel["layer"][number]["data"]["values"]
    return values


def test_a_picture_is_written_for_paths_and_for_cameras_without_a_batch(tmp_path: Path) -> None:
    for name, paths in (("some", PATHS), ("none", [CameraPath() for _ in CAMERAS])):
        draw(tmp_path / f"{name}.png", CAMERAS, paths)
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.width > 1000


def test_every_condition_has_a_tint_of_its_own() -> None:
    assert set(TINTS) == set(PRESETS)
    assert len(set(TINTS.values())) == len(TINTS)


def test_no_two_names_of_a_panel_overlap_and_all_lie_within_it() -> None:
    assert len(PANELS) == len(CAMERAS)
    for panel, camera in zip(PANELS, CAMERAS, strict=True):
        seconds = panel["encoding"]["x"]["scale"]["domain"][1]
        widest = 0.7 * panel["layer"][1]["mark"]["fontSize"]  # pixels of a letter of most fonts
        names = [(each["s"] / seconds * panel["width"], len(each["name"]) * widest) for each in drawn(panel, 1)]
        ends = [(at - wide / 2, at + wide / 2) for at, wide in names]
        assert len(ends) == len(camera.passages)
        assert all(a[1] < b[0] for a, b in pairwise([(0.0, 0.0), *ends, (panel["width"], 0.0)]))


def test_a_point_marks_the_batches_on_which_other_alphas_were_tried() -> None:
    assert [each["alpha"] for each in drawn(PANELS[0], 2)] == [0.5, 0.5, 0.5, 1.0, 0.0]
    assert [each["s"] for each in drawn(PANELS[0], 3)] == [1.6, 4.8, 10.0]


def test_the_tints_fade_into_each_other() -> None:
    tints = [each["tint"] for each in drawn(PANELS[0], 0)]
    assert tints[0] == TINTS["clear"]
    assert TINTS["night"] in tints
    assert len(set(tints)) > len({"clear", "dusk", "night"})
