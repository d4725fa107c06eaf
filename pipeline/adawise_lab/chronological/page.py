"""The page of a protocol: accuracy by interval, each camera against zero-shot, and the tables behind them."""

from __future__ import annotations

import math
import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import altair as alt

from adawise.card.advice import AUTO
from adawise.page import Cell, Figure, Key, Line, Section, Table, theme
from adawise.page.render import render
from adawise.text import LEVEL, counted, points, three, two
from adawise_lab.chronological.pace import IMAGES
from adawise_lab.chronological.report import NAMES, between, headline, sentences, title
from adawise_lab.chronological.result import BEST_EACH, ChronologicalResult, Setting, WayRow
from adawise_lab.chronological.served import WARM
from adawise_lab.evaluate.references import BEST_FIXED, FINE_TUNED, ZERO_SHOT
from adawise_lab.evaluate.result import Difference

PAGE = "page.html"

_HEIGHT = 280
_SERIES = {
    ZERO_SHOT: (theme.ZERO_SHOT, "triangle-up"),
    FINE_TUNED: (theme.FINE_TUNED, "circle"),
    BEST_FIXED: (theme.BEST_FIXED, "diamond"),
    WARM: (theme.SERVED, "square"),
    AUTO: (theme.LEVEL, "triangle-down"),
}
_AGAINST = (FINE_TUNED, WARM, AUTO)


def page(result: ChronologicalResult, command: Sequence[str], *, created_at: str) -> str:
    """Return the page as HTML, a function of its arguments alone; names of cameras are escaped."""
    sections = (_by_interval(result), _by_camera(result), _ways(result), _trainings(result))
    return render(
        "adawise_lab.chronological",
        "chronological.html.j2",
        headline=headline(result),
        sentences=list(sentences(result)),
        contents=[(section.anchor, section.heading) for section in sections],
        command=shlex.join(["adawise", *command]),
        versions={"python": platform.python_version(), **{name: version(name) for name in ("adawise", "torch")}},
        sections=sections,
        specs={figure.anchor: figure.spec for section in sections for figure in section.figures},
        cameras=counted(result.tested, "camera"),
        intervals=len(result.setting.images),
        created_at=created_at,
        how=_how(result),
    )


def _how(result: ChronologicalResult) -> str:
    setting = result.setting
    first, last = (_date(at) for at in (setting.edges_us[0], setting.edges_us[-1]))
    kept = "kept what they learned" if setting.keeps else "started anew"
    return (
        f"Time from {first} to {last} UTC, in {len(setting.images)} intervals, the first of which is not tested. A "
        "camera's figure is the mean over its tested intervals, and every other figure the mean over cameras of equal "
        "weight. Intervals: bootstrap over cameras, 1,000 resamples, the middle 95 %; they are not widened for the "
        f"number of comparisons. {_batches(setting)} Cameras {kept} when the pair changed. "
        "Temperatures are those of each pair's card, made from held-out images of the intervals trained on."
    )


def _batches(setting: Setting) -> str:
    if setting.pace == "live":
        return (
            "Batches as live, by the images' own times: they ended after batch.max_age_s, and cameras started anew "
            "after search.forget_after_s."
        )
    return (
        f"Batches of {IMAGES} images in the order of time, whatever time is between them, as a worker serves a "
        "backlog; live, batches end after batch.max_age_s (--pace live)."
    )


def _by_interval(result: ChronologicalResult) -> Section:
    tested = result.tested_intervals
    values = [
        {"interval": k + 1, "accuracy": result.row(name).by_interval[k], "series": NAMES[name]}
        for name in _SERIES
        for k in tested
    ]
    x = alt.X("interval:O", title="interval that is tested").axis(grid=False, labelAngle=0)
    base = alt.Chart(theme.rows(values)).encode(
        x=x,
        y=alt.Y("accuracy:Q").scale(zero=False, padding=10),
        color=_scale(alt.Color("series:N"), [colour for colour, _ in _SERIES.values()]),
        shape=_scale(alt.Shape("series:N"), [shape for _, shape in _SERIES.values()]),
        tooltip=[alt.Tooltip("series:N"), alt.Tooltip("interval:O"), alt.Tooltip("accuracy:Q", format=".3f")],
    )
    chart = alt.layer(base.mark_line(), base.mark_point(filled=True, opacity=1, size=60))
    last = tested[-1]
    ends = ", ".join(f"{NAMES[name]} {three(result.row(name).by_interval[last])}" for name in _SERIES)
    lines = tuple(
        Line(title(row), tuple(Cell(three(row.by_interval[k])) for k in tested), _kind(row)) for row in result.rows
    )
    images = Line("images", tuple(Cell(f"{int(result.counts[:, k].sum()):,}") for k in tested), "reference")
    return Section(
        "intervals",
        "By interval",
        "Each interval is served by models that were trained on the images of all intervals before it.",
        tuple(Key(NAMES[name], shape, colour) for name, (colour, shape) in _SERIES.items()),
        (
            Figure(
                "by-interval",
                "Accuracy on the interval after a training",
                f"In the last one, {last + 1}: {ends}.",
                theme.spec(chart, height=_HEIGHT),
                wide=True,
            ),
        ),
        (Table("Accuracy by interval", "served", tuple(str(k + 1) for k in tested), (*lines, images)),),
    )


def _scale(channel: Any, values: list[str]) -> Any:
    return channel.scale(domain=[NAMES[name] for name in _SERIES], range=values)


def _by_camera(result: ChronologicalResult) -> Section:
    figures = [_camera_figure(result, name, scene=False) for name in _AGAINST]
    if any(row.scene for row in result.rows):
        figures.append(_camera_figure(result, AUTO, scene=True))
    return Section(
        "cameras",
        "By camera",
        "A dot is a camera, with its mean accuracy over the tested intervals. Below the line, what was served is worse "
        "than zero-shot there.",
        (Key("a camera", "circle", theme.SERVED), Key("as good as zero-shot", "line", theme.MUTED)),
        tuple(figures),
        (_camera_table(result),),
    )


def _camera_figure(result: ChronologicalResult, name: str, *, scene: bool) -> Figure:
    row = result.row(name, scene=scene)
    each = zip(
        result.setting.cameras,
        result.camera_accuracy(ZERO_SHOT).tolist(),
        result.camera_accuracy(row.title).tolist(),
        result.counts.sum(axis=1).tolist(),
        strict=True,
    )
    values: list[dict[str, Any]] = [
        {"camera": camera, "zero": zero, "served": served, "images": images}
        for camera, zero, served, images in each
        if images
    ]
    known = [value for one in values for value in (one["zero"], one["served"])]
    margin = 0.05 * max(max(known) - min(known), 0.02)
    low, high = max(0.0, min(known) - margin), min(1.0, max(known) + margin)
    x = alt.X("zero:Q", title="zero-shot").scale(domain=(low, high), nice=False)
    y = alt.Y("served:Q", title=title(row)).scale(domain=(low, high), nice=False)
    line = alt.Chart(theme.rows([{"zero": low, "served": low}, {"zero": high, "served": high}]))
    dots = alt.Chart(theme.rows(values)).mark_point(filled=True, opacity=0.7, color=theme.SERVED, size=50)
    tooltip = [
        alt.Tooltip("camera:N"),
        alt.Tooltip("zero:Q", title="zero-shot", format=".3f"),
        alt.Tooltip("served:Q", title=title(row), format=".3f"),
        alt.Tooltip("images:Q", title="tested images"),
    ]
    chart = alt.layer(
        line.mark_line(color=theme.MUTED, strokeWidth=1).encode(x=x, y=y), dots.encode(x=x, y=y, tooltip=tooltip)
    )
    below = round(row.below_zero_shot * len(values))
    return Figure(
        f"camera-{name}{'-scene' if scene else ''}",
        f"{title(row)} against zero-shot",
        f"{title(row).capitalize()} is below zero-shot at {below} of {counted(len(values), 'camera')}; on average "
        f"{points(row.versus[ZERO_SHOT].difference)} points.",
        theme.spec(chart, height=_HEIGHT),
    )


def _camera_table(result: ChronologicalResult) -> Table:
    rows = [row for row in result.rows if row.title in result.accuracy]
    columns = [result.camera_accuracy(row.title) for row in rows]
    counts = result.counts.sum(axis=1)
    lines = tuple(
        Line(camera, (Cell(f"{int(counts[c]):,}"), *(Cell(three(float(column[c]))) for column in columns)))
        for c, camera in enumerate(result.setting.cameras)
        if counts[c]
    )
    return Table("Accuracy by camera", "camera", ("images", *map(title, rows)), lines, folded=True)


def _ways(result: ChronologicalResult) -> Section:
    headers = (
        *("accuracy", "− zero-shot", "macro recall", "cameras below zero-shot"),
        *("− best fixed", "− best of each", "ECE", "NLL", "flicker", "FE", "forward cost"),
    )
    lines = tuple(Line(title(row), tuple(_cells(row)), _kind(row)) for row in result.rows)
    return Section(
        "ways",
        "All ways to serve",
        "Macro recall is the mean over the classes that a camera shows in an interval, and below it its points over "
        "zero-shot. Best fixed is one alpha for all "
        "cameras in hindsight; the best of each knows the alpha of each camera and interval. + scene is scene_label. "
        "ECE and flicker are over all images together; flicker is the share of images with the class of the camera's "
        "image before them whose label is another one. FE counts evaluations of the image tower per image, forward "
        "cost whole forwards, with layers that both models share once an image.",
        tables=(Table(f"Means over cameras, with {LEVEL} intervals", "served", headers, lines),),
    )


def _cells(row: WayRow) -> list[Cell]:
    low, high = row.below_zero_shot_ci
    is_one = math.isnan(low)
    return [
        Cell(three(row.accuracy), note="" if is_one else f"{three(row.accuracy_ci[0])} to {three(row.accuracy_ci[1])}"),
        _difference(row.versus.get(ZERO_SHOT)),
        Cell(three(row.macro_recall), note=_recall_note(row)),
        Cell(f"{row.below_zero_shot:.0%}", note="" if is_one else f"{low:.0%} to {high:.0%}"),
        _difference(row.versus.get(BEST_FIXED)),
        Cell(points(each.difference) if (each := row.versus.get(BEST_EACH)) else ""),
        Cell(three(row.ece)),
        Cell(three(row.nll)),
        Cell("" if row.flicker is None else three(row.flicker)),
        Cell(two(row.forwards)),
        Cell(two(row.forward_cost)),
    ]


def _recall_note(row: WayRow) -> str:
    over = row.recall_versus_zero_shot
    if over is None or (row.name, row.scene) == (ZERO_SHOT, False):
        return ""
    return f"{points(over.difference)}{between(over.ci)}"


def _difference(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell("")
    low, high = difference.ci
    mark = "better" if low > 0.0 else "worse" if high < 0.0 else "same"
    return Cell(points(difference.difference), mark, between(difference.ci).strip(" ()"))


def _kind(row: WayRow) -> str:
    return "reference" if row.macro_recall is None else "served" if row.name == AUTO and not row.scene else "strategy"


def _trainings(result: ChronologicalResult) -> Section:
    setting = result.setting
    lines = tuple(
        Line(
            f"{one.interval + 1}",
            (
                Cell(one.camera or "all cameras"),
                Cell(_date(setting.edges_us[one.interval + 1])),
                Cell(f"{one.images:,}"),
                Cell(one.folder if one.pair else one.why, prose=True),
            ),
        )
        for one in setting.trainings
    )
    return Section(
        "trainings",
        "Trainings",
        "Images are those to learn from with those held out. Where no pair came of a training, theta_0 alone served.",
        tables=(
            Table(
                "Trainings in the order of time",
                "up to interval",
                ("on", "until", "images", "folder"),
                lines,
                folded=len(lines) > 20,
            ),
        ),
    )


def _date(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
