"""The alpha paths as a picture: a panel for each camera, its weather behind the line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adawise.demo.script import FPS, CameraScript
from adawise.demo.summary import CameraPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TINTS = {
    "clear": "#fdf6d8",
    "dusk": "#f3c9a0",
    "night": "#8f9bb8",
    "fog": "#dfe3e6",
    "rain": "#a9cfe6",
    "glare": "#fbe58a",
    "dirty_lens": "#cdb79b",
    "motion_blur": "#d5cfe8",
    "sensor_noise": "#dcb8cf",
    "low_bitrate": "#b5dccb",
}
"""Light behind black words and a dark line: the names are written on them, colour only helps."""

_LINE, _BLENDED_STEPS = "#0b3c6f", 400


def draw(file: Path, cameras: Sequence[CameraScript], paths: Sequence[CameraPath]) -> None:
    """Write a PNG with a panel for each camera."""
    picture(cameras, paths).savefig(file)


def picture(cameras: Sequence[CameraScript], paths: Sequence[CameraPath]) -> Figure:
    """A panel for each camera: alpha as a line, the conditions as named tints behind it."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10}):
        figure = Figure(figsize=(11, 0.9 + 1.75 * len(cameras)), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(cameras), 1, squeeze=False, sharex=True)[:, 0]
        for panel, camera, path in zip(panels, cameras, paths, strict=True):
            _draw_camera(panel, camera, path)
        panels[-1].set_xlabel("seconds on the camera's clock")
        figure.suptitle("alpha of each camera: 0 zero-shot, 1 fine-tuned; a point where other alphas were tried")
    return figure


def _draw_camera(panel: Axes, camera: CameraScript, path: CameraPath) -> None:
    length_s = camera.frames / FPS
    moments = [camera.moment(n) for n in np.linspace(0, camera.frames - 1, _BLENDED_STEPS).round().astype(int).tolist()]
    shade = [(1 - m.t) * _rgb(m.before) + m.t * _rgb(m.after) for m in moments]
    panel.imshow(np.asarray(shade)[None], extent=(0, length_s, -0.08, 1.38), aspect="auto", interpolation="bilinear")
    start = 0
    for condition, run in groupby(moments, key=lambda moment: moment.condition):
        width = sum(1 for _ in run)
        middle_s = (start + width / 2) / _BLENDED_STEPS * length_s
        panel.text(middle_s, 1.2, condition.replace("_", " "), ha="center", va="center", fontsize=9)
        start += width
    if path.alphas:  # a batch's alpha holds from the end of the batch before it
        times_s = [(number + 1) / FPS for number in path.numbers]
        panel.step([0, *times_s], [path.alphas[0], *path.alphas], where="pre", color=_LINE, linewidth=1.6)
        tried = [i for i, trigger in enumerate(path.triggers) if trigger is not None]
        panel.plot([times_s[i] for i in tried], [path.alphas[i] for i in tried], "o", color=_LINE, markersize=3.5)
    panel.axhline(1.06, color="#888888", linewidth=0.5)
    panel.set(xlim=(0, length_s), ylim=(-0.08, 1.38), yticks=(0, 0.5, 1), ylabel="alpha")
    panel.set_title(camera.camera_id, loc="left", fontsize=10, fontweight="bold")


def _rgb(condition: str) -> np.ndarray:
    from matplotlib.colors import to_rgb

    return np.asarray(to_rgb(TINTS[condition]))
