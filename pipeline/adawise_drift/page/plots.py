"""The figures of the page as files for a paper: PNG and SVG, of the widths of a two-column page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from adawise.errors import SettingsError
from adawise.labels.benefit.helped import Helped
from adawise.page import Key, theme
from adawise.page.render import write_figure
from adawise_drift.events.result import Camera, Series
from adawise_drift.page import helping
from adawise_drift.page.happened import all_incidents, by_camera, marks
from adawise_drift.page.panels import DASHES, Panel, alpha, panels
from adawise_drift.page.series import longest_gap
from adawise_drift.report import Report

Spec = dict[str, Any]

_COLUMN, _PAGE = 3.45, 7.1  # inches
_COLUMN_PX, _PAGE_PX = 330, 720  # of what is drawn: text of 11 px are printed as 7 points
_OVERVIEW, _ACROSS = 24, 4  # cameras of the overview, and in a row of it
_EACH = 8  # cameras that get a figure of their own
_BELOW = ("objective", "answers")  # alpha in such a figure


def write_plots(folder: Path, report: Report) -> None:
    """Write `overview`, `camera-NN-NAME` of those that drifted farthest and `helped`, each as .png and .svg.

    Raises:
        SettingsError: they cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, spec, width_in in _figures(report):
            write_figure(folder / name, {**spec, "config": theme.CONFIG}, width_in=width_in)
    except OSError as error:
        raise SettingsError(
            f"--plots {folder}: the figures cannot be written ({error.strerror or error}). Name a folder that can be "
            "written."
        ) from error


def _figures(report: Report) -> Iterator[tuple[str, Spec, float]]:
    """Yield name, specification and width in inches."""
    yield "overview", _overview(report), _PAGE if len(report.cameras) > 1 else _COLUMN
    for number, camera in enumerate(report.cameras[:_EACH], start=1):
        yield f"camera-{number:02d}-{_safe(camera.stream_id)}", _camera(camera, report), _COLUMN
    if report.helped is not None and report.helped.arms:
        yield "helped", _helped(report.helped), _PAGE


def _safe(name: str) -> str:
    """Return a name that any file system takes; the number before it keeps those that look alike distinct."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40].strip("-") or "unnamed"


def _plain(name: str) -> str:
    """Return a name on one line."""
    shown = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _overview(report: Report) -> Spec:
    """Return small multiples on the same scales, the farthest first."""
    cameras = report.cameras[:_OVERVIEW]
    across = min(_ACROSS, len(cameras))
    width = (_PAGE_PX if across > 1 else _COLUMN_PX) // across - 60
    panel = alpha("alpha", height=64)
    spec: Spec = {
        **_whole(report),
        "columns": across,
        "spacing": {"row": 12, "column": 12},
        "concat": [
            {
                **_filled(panel, camera, report, width),
                "title": _title(f"{camera.drift:.2f} {_plain(camera.stream_id)}", width),
            }
            for camera in cameras
        ],
    }
    if len(cameras) < len(report.cameras):
        title = f"{len(cameras)} of {len(report.cameras)} cameras, those that drifted farthest"
        spec["title"] = {**_title(title, _PAGE_PX), "orient": "bottom", "frame": "bounds"}
    return spec


def _camera(camera: Camera, report: Report) -> Spec:
    """Return alpha, the objective, confidence and agreement above each other, as far as they are known."""
    points = _points(camera.series, report.bin_us)
    stack = [_filled(alpha("alpha"), camera, report, _COLUMN_PX)]
    stack[0]["title"] = _title(_plain(camera.stream_id), _COLUMN_PX)
    for panel in panels():
        if panel.name in _BELOW and (keys := [key for key in panel.legend if _is_known(points, key.of)]):
            stack += [_legend(keys, _COLUMN_PX), _filled(panel, camera, report, _COLUMN_PX)]
    return {**_whole(report), "spacing": 6, "vconcat": stack}


def _helped(helped: Helped) -> Spec:
    """Return accuracies, and beside them what is served less each arm."""
    specs = [figure.spec for figure in helping.section(helped).figures if figure.anchor != "helped-cameras"]
    return {
        "datasets": {name: rows for spec in specs for name, rows in spec["datasets"].items()},
        "hconcat": [
            {name: value for name, value in spec.items() if name not in {"config", "datasets"}}
            | {"width": _PAGE_PX // 3}
            for spec in specs
        ],
    }


def _whole(report: Report) -> Spec:
    """Return the span of the report, and nothing pointed at."""
    ends = {"since": report.since_us / 1e3, "until": (report.until_us + report.bin_us) / 1e3, "at": None}
    return {"params": [{"name": name, "value": value} for name, value in ends.items()]}


def _title(text: str, width: int) -> Spec:
    style = {"fontSize": 11, "fontWeight": "normal", "color": theme.INK, "limit": width}
    return {"text": text, "anchor": "start", "frame": "group", "offset": 4, **style}


def _filled(panel: Panel, camera: Camera, report: Report, width: int) -> Spec:
    """Return a panel with what the page's script would give it, but what is not known left out."""
    own = by_camera(all_incidents(report)).get(camera.stream_id, ())
    signs = [{**mark, "mark": mark["mark"][0]} for mark in marks(own, report)]
    sets: dict[str, list[dict[str, Any]]] = {
        "levels": [
            {"since": level.since_us / 1e3, "until": level.until_us / 1e3, "alpha": level.alpha}
            for level in camera.levels
            if np.isfinite(level.alpha)
        ],
        "events": (events := [mark for mark in signs if mark["measure"] in panel.measures]),
        "spans": [mark for mark in events if mark["until"] > mark["at"]],
        "silences": [{"since": since / 1e3, "until": until / 1e3} for since, until in camera.silences],
    }
    points, layers = _points(camera.series, report.bin_us), []
    for layer in panel.spec["layer"]:
        name = layer.get("data", {}).get("name")
        if sets[name] if name else layer.get("data") or _is_known(points, layer["encoding"]["y"]["field"]):
            layers.append({**layer, "data": {"values": sets[name]}} if name else layer)
    return {"width": width, "height": panel.spec["height"], "data": {"values": points}, "layer": layers}


def _points(series: Series, bin_us: int) -> list[dict[str, float | None]]:
    """Return a row for each bin; before a gap one that ends the step, and one that lifts the pen."""
    names = [field.name for field in fields(series) if field.name != "time_us"]
    columns = {name: np.asarray(getattr(series, name), dtype=np.float64) for name in names}
    columns["objective_low"] = columns["objective"] - columns["posterior_sd"]
    columns["objective_high"] = columns["objective"] + columns["posterior_sd"]
    bins = series.time_us // bin_us
    ends = np.append(np.diff(bins) > longest_gap(bins), True)[: len(bins)]
    rows: list[dict[str, float | None]] = []
    for i, (at, end) in enumerate(zip(bins.tolist(), ends, strict=True)):
        row = {name: float(column[i]) if np.isfinite(column[i]) else None for name, column in columns.items()}
        rows.append({"t": at * bin_us / 1e3, **row})
        if end:
            until = (at + 1) * bin_us / 1e3
            rows += [{"t": until, **row}, {"t": until}]
    return rows


def _is_known(points: Sequence[Mapping[str, float | None]], name: str) -> bool:
    return any(point.get(name) is not None for point in points)


def _legend(keys: Sequence[Key], width: int) -> Spec:
    """Return lines and names, two in a row."""
    layers: list[Spec] = []
    for number, key in enumerate(keys):
        x, y = width // 2 * (number % 2), {"y": {"value": 7 + 14 * (number // 2)}}
        line = {"strokeWidth": 8 if key.shape == "band" else 1.2, "strokeDash": DASHES.get(key.shape, [])}
        layers += [
            {
                "mark": {"type": "rule", "color": key.colour, **line},
                "encoding": {"x": {"value": x}, "x2": {"value": x + 18}, **y},
            },
            {
                "mark": {"type": "text", "text": key.name, "align": "left", "baseline": "middle"},
                "encoding": {"x": {"value": x + 23}, **y},
            },
        ]
    return {"width": width, "height": 14 * -(-len(keys) // 2), "data": {"values": [{}]}, "layer": layers}
