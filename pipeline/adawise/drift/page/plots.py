"""The figures as files for a paper: PNG and SVG, of the widths of a two-column page."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adawise.drift.bins import DAY_US, bin_width_us
from adawise.drift.page.packed import longest_gap
from adawise.drift.page.plots_helped import PAGE, helped_figure, plain
from adawise.drift.page.small import HEIGHT, WIDTH, pieces
from adawise.drift.page.words import known
from adawise.drift.result import Camera, Floats, Integers, Report, Series
from adawise.errors import SettingsError

_COLUMN = 3.45  # inches
_OVERVIEW, _ACROSS = 24, 4  # cameras of the overview, and in a row of it
_EACH = 8  # cameras that get a figure of their own
_TICKS, _SMALL_TICKS = 6, 4  # at most, along the time
_MONTHS = 20  # days between ticks, from which on they are told by months
_MINUTE_US = 60_000_000
_INK, _MUTED, _RANGE, _TRIED, _LEVEL = "#1a1d21", "#5b636d", "#b9c3cd", "#e4e9ed", "#8a3aa8"
_REFERENCE = "#00795a"
_ANSWERS = (
    ("confidence", "confidence", _INK, "-"),
    ("served_fine_tuned", "served = fine-tuned", "#c24e00", "-."),
    ("served_zero_shot", "served = zero-shot", "#0072b2", "--"),
    ("endpoints_agree", "zero-shot = fine-tuned", "#9c4f86", ":"),
)
_STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 0.7,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 6,
    "svg.hashsalt": "adawise",  # the same report gives the same file
}


def write_plots(folder: Path, report: Report) -> None:
    """Write `overview`, `camera-NN-NAME` of those that drifted farthest and `helped`, each as .png and .svg.

    Raises:
        SettingsError: they cannot be written there.
    """
    figures: dict[str, Callable[[], Figure]] = {"overview": lambda: _overview(report)}
    for number, camera in enumerate(report.cameras[:_EACH], start=1):
        figures[f"camera-{number:02d}-{_safe(camera.stream_id)}"] = lambda camera=camera: _camera(camera, report)  # type: ignore[misc]
    if report.helped is not None and report.helped.arms:
        helped = report.helped
        figures["helped"] = lambda: helped_figure(helped)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # of a camera's name
            for name, draw in figures.items():
                figure = draw()
                figure.savefig(folder / f"{name}.png", dpi=300, metadata={"Software": None})
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    except OSError as error:
        raise SettingsError(
            f"--plots {folder}: the figures cannot be written ({error.strerror or error}). Name a folder that can be "
            "written."
        ) from error


def _safe(name: str) -> str:
    """What any file system takes; the number before it tells two that look alike apart."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40].strip("-") or "unnamed"


def _overview(report: Report) -> Figure:
    """Small multiples on the same scales, the farthest first."""
    cameras = report.cameras[:_OVERVIEW]
    across = min(_ACROSS, len(cameras))
    down = math.ceil(len(cameras) / across)
    figure = Figure(figsize=(PAGE if across > 1 else _COLUMN, 0.45 + 0.85 * down), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, camera in zip(grid, cameras, strict=False):
        _small_bands(axes, camera, report)
        _alpha(axes, camera, report, _SMALL_TICKS)
        axes.set_title(plain(camera.stream_id), loc="left", pad=7, parse_math=False)
        axes.set_title(f"{camera.drift:.2f}", loc="right", pad=7, color=_MUTED)
    for axes in grid[len(cameras) :]:
        axes.set_axis_off()
    for axes in grid[len(cameras) - across : len(cameras)]:
        axes.tick_params(labelbottom=True)
    if len(cameras) < len(report.cameras):
        figure.supxlabel(f"{len(cameras)} of {len(report.cameras)} cameras, those that drifted farthest", fontsize=6)
    figure.supylabel("alpha", fontsize=7)
    return figure


def _camera(camera: Camera, report: Report) -> Figure:
    """Alpha, the objective, confidence and agreement above each other, as far as they are known."""
    series = camera.series
    answers = [line for line in _ANSWERS if known(getattr(series, line[0]))]
    rows = 1 + known(series.objective) + bool(answers)
    figure = Figure(figsize=(_COLUMN, 0.5 + 1.15 * rows), layout="constrained")
    stack = list(figure.subplots(rows, 1, sharex=True, squeeze=False).ravel())
    stack[0].set_title(plain(camera.stream_id), loc="left", pad=8, parse_math=False)
    _bands(stack[0], camera, report)
    _alpha(stack[0], camera, report, _TICKS)
    stack[0].set_ylabel("alpha")
    if known(series.objective):
        _objective(stack[1], series, report)
    if answers:
        for name, title, colour, dash in answers:
            _line(stack[-1], series, name, report, colour=colour, dash=dash, label=title)
        stack[-1].set_ylabel("share")
        stack[-1].legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    for axes in stack[1:]:
        for change in camera.changes:
            axes.axvline(_moment(change.time_us), color=_LEVEL, linestyle=(0, (3, 3)), linewidth=0.6)
    return figure


def _bands(axes: Axes, camera: Camera, report: Report) -> None:
    """What was tried and what was served, in full."""
    series = camera.series
    for low, high, colour in (("tried_low", "tried_high", _TRIED), ("alpha_low", "alpha_high", _RANGE)):
        _band(axes, series, getattr(series, low), getattr(series, high), report, colour)
    _line(axes, series, "alpha", report)


def _small_bands(axes: Axes, camera: Camera, report: Report) -> None:
    """What was served, in as many pieces as a small picture can show."""
    since, until = report.since_us, report.until_us + 1
    for run in pieces(camera.series, report.bin_us, (since, until)):
        at = [since + (until - since) * x // WIDTH for x in (*(p.x for p in run), run[-1].end)]
        mean, low, high = (
            [1 - y / HEIGHT for y in (*values, values[-1])]
            for values in ([p.mean for p in run], [p.low for p in run], [p.high for p in run])
        )
        times: Any = np.array(at).astype("datetime64[us]")
        axes.fill_between(times, low, high, step="post", color=_RANGE, linewidth=0)
        axes.step(times, mean, where="post", color=_INK)


def _alpha(axes: Axes, camera: Camera, report: Report, ticks: int) -> None:
    """Levels, changes and silences, on the time of the report."""
    for since, until in camera.silences:
        axes.axvspan(_moment(since), _moment(until), ymax=0.04, color=_MUTED, linewidth=0)
    for level in camera.levels:
        ends = _moment(level.since_us), _moment(level.until_us)
        axes.hlines(level.alpha, *ends, color=_LEVEL, linewidth=1.8, alpha=0.7, zorder=1.5)
    for change in camera.changes:
        at, marker = _moment(change.time_us), "^" if change.size > 0 else "v"
        axes.axvline(at, color=_LEVEL, linestyle=(0, (3, 3)), linewidth=0.6)
        axes.plot([at], [1.06], marker, color=_LEVEL, markersize=3, clip_on=False)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    _times(axes, report, ticks)


def _times(axes: Axes, report: Report, ticks: int) -> None:
    """The span of the report, with a few ticks where a clock or a calendar has them."""
    since, until = report.since_us, report.until_us + report.bin_us
    step = bin_width_us(until - since, ticks)
    at = list(range(-(-since // step) * step, until, step))
    axes.set_xlim(_moment(since), _moment(until))
    axes.set_xticks([_moment(us) for us in at], [_tick(us, step) for us in at])


def _tick(us: int, step: int) -> str:
    at = datetime.fromtimestamp(us / 1e6, UTC)
    if step >= _MONTHS * DAY_US:
        return f"{at:%b %Y}"
    return f"{at.day} {at:%b}" if us % DAY_US == 0 else f"{at:%H:%M:%S}" if step < _MINUTE_US else f"{at:%H:%M}"


def _objective(axes: Axes, series: Series, report: Report) -> None:
    if known(series.posterior_sd):
        low, high = series.objective - series.posterior_sd, series.objective + series.posterior_sd
        _band(axes, series, low, high, report, _RANGE)
    _line(axes, series, "objective", report)
    if known(series.reference):
        _line(axes, series, "reference", report, colour=_REFERENCE, dash="--", label="card's reference")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    axes.set_ylabel("nats")
    axes.yaxis.set_major_locator(MaxNLocator(3))


def _line(
    axes: Axes, series: Series, name: str, report: Report, *, colour: str = _INK, dash: str = "-", label: str = ""
) -> None:
    at, take = _steps(series.time_us, report.bin_us)
    values = np.append(getattr(series, name), np.nan)[take]
    axes.step(at, values, where="post", color=colour, linestyle=dash, label=label or None)


def _band(axes: Axes, series: Series, low: Floats, high: Floats, report: Report, colour: str) -> None:
    at, take = _steps(series.time_us, report.bin_us)
    bottom, top = (np.append(values, np.nan)[take] for values in (low, high))
    axes.fill_between(at, bottom, top, step="post", color=colour, linewidth=0)


def _steps(time_us: Integers, bin_us: int) -> tuple[Any, Integers]:
    """Times, and which point holds from each on: the last before a gap ends with its bin, and -1 lifts the pen."""
    bins = time_us // bin_us
    ends = np.append(np.diff(bins) > longest_gap(bins), True)
    take = np.concatenate([[i, i, -1] if end else [i] for i, end in enumerate(ends)])
    late = np.concatenate([[0, 1, 1] if end else [0] for end in ends])
    at = np.concatenate([[i] * (3 if end else 1) for i, end in enumerate(ends)])
    return (time_us[at] + late * bin_us).astype("datetime64[us]"), take


def _moment(us: int) -> Any:
    return np.datetime64(us, "us")
