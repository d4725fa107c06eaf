"""The picture of the alpha paths: a file that opens, a panel for each camera, names that can be read."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from adawise.demo.plot import TINTS, draw, picture
from adawise.demo.script import scripts
from adawise.demo.summary import CameraPath
from adawise.demo.weather import PRESETS

CAMERAS = scripts(400)
PATHS = [CameraPath([15, 31, 47, 99], [0.5, 0.5, 1.0, 0.0], ["start", None, "clock", "level"]) for _ in CAMERAS]


def test_a_picture_is_written_for_paths_and_for_cameras_without_a_batch(tmp_path: Path) -> None:
    for name, paths in (("some", PATHS), ("none", [CameraPath() for _ in CAMERAS])):
        draw(tmp_path / f"{name}.png", CAMERAS, paths)
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.width > 1000


def test_every_condition_has_a_tint_of_its_own() -> None:
    assert set(TINTS) == set(PRESETS)
    assert len(set(TINTS.values())) == len(TINTS)


def test_no_two_texts_of_a_panel_overlap_and_all_lie_within_the_picture() -> None:
    figure = picture(CAMERAS, PATHS)
    figure.canvas.draw()
    assert len(figure.axes) == len(CAMERAS)
    for panel, camera in zip(figure.axes, CAMERAS, strict=True):
        boxes = [text.get_window_extent() for text in panel.texts]
        assert len(boxes) == len(camera.passages)
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert all(panel.bbox.x0 <= box.x0 and box.x1 <= panel.bbox.x1 for box in boxes)


def test_a_point_marks_the_batches_on_which_other_alphas_were_tried() -> None:
    line, points = picture(CAMERAS, PATHS).axes[0].lines[:2]
    assert np.asarray(line.get_ydata()).tolist() == [0.5, 0.5, 0.5, 1.0, 0.0]
    assert np.asarray(points.get_xdata()).tolist() == [1.6, 4.8, 10.0]
