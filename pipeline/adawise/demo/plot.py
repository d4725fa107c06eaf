"""The alpha paths as a picture: a panel for each camera, with its weather behind the line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from adawise.demo.report import CameraPath
from adawise.demo.script import CameraScript, Moment

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
"""Background colours, light enough for black words and a dark line.

The names are written on them, so colour only helps.
"""

_WIDTH, _HEIGHT = 860, 110  # pixels of a panel
_Y = [-0.08, 1.38]  # the names of the conditions are above 1
_LINE, _INK, _STEPS = "#0b3c6f", "#1a1d21", 400
_TITLE = "alpha of each camera: 0 zero-shot, 1 fine-tuned; a point where other alphas were tried"
_CONFIG = {
    "font": "DejaVu Sans, sans-serif",
    "background": "white",
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "grid": False},
}


def draw(file: Path, cameras: Sequence[CameraScript], paths: Sequence[CameraPath]) -> None:
    """Write a PNG with a panel for each camera."""
    from adawise.page.render import write_png

    write_png(file, picture(cameras, paths), scale=1.3)


def picture(cameras: Sequence[CameraScript], paths: Sequence[CameraPath]) -> dict[str, Any]:
    """Build the Vega-Lite spec: a panel for each camera, alpha as a line, the conditions as named tints behind it."""
    panels = [_panel(camera, path) for camera, path in zip(cameras, paths, strict=True)]
    unit = "hours" if cameras[-1].days else "seconds"
    panels[-1]["encoding"]["x"]["axis"] = {"title": f"{unit} on the camera's clock"}
    title = {"text": _TITLE, "fontSize": 14, "fontWeight": "normal", "anchor": "middle"}
    return {"title": title, "config": _CONFIG, "spacing": 8, "vconcat": panels}


def _panel(camera: CameraScript, path: CameraPath) -> dict[str, Any]:
    rate = camera.frames_a_second * (3600 if camera.days else 1)
    end_s = camera.frames / rate
    step_s = end_s / _STEPS
    moments = [camera.moment(n) for n in np.linspace(0, camera.frames - 1, _STEPS).round().astype(int).tolist()]
    # Each tint reaches to the end of the panel and the next ones cover it, so that there are no seams.
    tints = [{"s": i * step_s, "end": end_s, "tint": _blended(moment)} for i, moment in enumerate(moments)]
    names, start = [], 0
    for condition, run in groupby(moments, key=lambda moment: moment.condition):
        steps = len(list(run))
        names.append({"s": (start + steps / 2) * step_s, "name": condition.replace("_", " ")})
        start += steps
    # A batch's alpha holds from the end of the batch before it.
    batches = [
        {"s": (number + 1) / rate, "alpha": alpha, "tried": trigger is not None}
        for number, alpha, trigger in zip(path.numbers, path.alphas, path.triggers, strict=True)
    ]
    y = {"field": "alpha", "type": "quantitative"}
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "title": {"text": camera.camera_id, "anchor": "start", "frame": "group", "fontSize": 12, "offset": 4},
        "encoding": {
            "x": {
                "field": "s",
                "type": "quantitative",
                "axis": {"title": None, "labels": False},
                "scale": {"domain": [0, end_s], "nice": False},
            },
        },
        "layer": [
            {
                "data": {"values": tints},
                "mark": "rect",
                "encoding": {"x2": {"field": "end"}, "color": {"field": "tint", "type": "nominal", "scale": None}},
            },
            {
                "data": {"values": names},
                "mark": {"type": "text", "color": _INK, "fontSize": 11},
                "encoding": {"y": {"datum": 1.2}, "text": {"field": "name"}},
            },
            {
                "data": {"values": [{"s": 0.0, "alpha": path.alphas[0]}, *batches] if batches else []},
                "mark": {"type": "line", "interpolate": "step-before", "color": _LINE, "strokeWidth": 2},
                "encoding": {"y": {**y, "title": "alpha", "axis": {"values": [0, 0.5, 1]}, "scale": {"domain": _Y}}},
            },
            {
                "data": {"values": [batch for batch in batches if batch["tried"]]},
                "mark": {"type": "point", "filled": True, "color": _LINE, "opacity": 1, "size": 28},
                "encoding": {"y": y},
            },
        ],
    }


def _blended(moment: Moment) -> str:
    mixed = zip(_rgb(moment.before), _rgb(moment.after), strict=True)
    return "#" + "".join(f"{round((1 - moment.t) * a + moment.t * b):02x}" for a, b in mixed)


def _rgb(condition: str) -> bytes:
    return bytes.fromhex(TINTS[condition][1:])
