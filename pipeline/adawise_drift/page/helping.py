"""Did it help: what was served against what could have been, with labels; without them the estimates, called so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from adawise.labels.benefit.helped import BEST, SCENE, SERVED, Arm, Confusion, Helped, Interval
from adawise.page import Cell, Figure, Key, Line, Section, Table, theme
from adawise.text import LEVEL, NOTHING, counted, percent, points, three, two

_MARKS = {  # arm -> shape, colour
    SERVED: ("square", theme.SERVED),
    "zero-shot": ("triangle-left", theme.ZERO_SHOT),
    "fine-tuned": ("triangle-right", theme.FINE_TUNED),
    "alpha 0.5": ("circle", theme.MUTED),
    BEST: ("diamond", theme.BEST_FIXED),
    SCENE: ("triangle-up", theme.ORACLE),
}
_OTHER = ("cross", theme.ORACLE)
_ROW = 30  # pixels of an arm
_CAMERA_ROW = 22
_DRAWN = 40  # cameras of the figure; the table has all
_REFERENCES = (BEST, "alpha 0.5", "zero-shot", "fine-tuned")  # that cameras are compared with, if known


@dataclass(frozen=True)
class Square:
    """One count of a confusion; `share` of the images of its true class, in [0, 1]."""

    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class Heat:
    """`rows` are (true class, squares in the order of `classes`)."""

    name: str
    reading: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Square, ...]], ...]


def section(helped: Helped, states: Mapping[str, str] | None = None) -> Section:
    """Return the figures and tables of the arms and of the estimates.

    Args:
        helped: the answer.
        states: the state of each camera, the most severe first, by which its table is ordered; None: as they come.
    """
    arms = helped.arms
    figures = (
        [_accuracies(arms), *([_gains(arms)] if len(arms) > 1 else []), *_by_camera(helped.by_camera)] if arms else []
    )
    tables = [
        *([_arms(arms)] if arms else []),
        *([_cameras(helped.by_camera, states or {})] if helped.by_camera else []),
        *([_estimates(helped)] if helped.estimates else []),
    ]
    return Section(
        "helped",
        "Did it help?",
        _lead(helped),
        tuple(Key(arm.name, *_MARKS.get(arm.name, _OTHER)) for arm in arms),
        tuple(figures),
        tuple(tables),
    )


def _lead(helped: Helped) -> str:
    if not helped.arms:
        return (
            "There are no labels that fit these rows, so nothing here is a measured accuracy. Estimates "
            "without labels are in the sections over all cameras and by camera."
        )
    share = percent(helped.labelled / max(1, helped.accepted))
    return (
        f"{counted(helped.labelled, 'image has a label', 'images have labels')} of {helped.accepted:,} accepted "
        f"({share}), from {helped.labels_from}. Each way to predict (arm) is judged on the labelled images for which "
        "its prediction is known; differences are on the same images. Intervals are the middle "
        f"{LEVEL} of a bootstrap over batches."
    )


def _accuracies(arms: Sequence[Arm]) -> Figure:
    values = [{"arm": a.name, **_ends(a.accuracy), "images": a.images, "ece": _number(a.ece)} for a in arms]
    served = next((arm for arm in arms if arm.gain is None), arms[0])
    reading = (
        f"Served is right on {percent(served.accuracy.value)} of {counted(served.images, 'image', 'images')}, with an "
        f"ECE of {three(served.ece)}{_others(served, arms)}."
    )
    chart = _dots(values, [arm.name for arm in arms], "accuracy", ".3f")
    return Figure("helped-accuracy", "Accuracy", reading, theme.spec(chart, height=_ROW * len(arms)), query="accuracy")


def _others(served: Arm, arms: Sequence[Arm]) -> str:
    """Return what the others come to; accuracies of different images cannot be compared, differences can."""
    if any(arm.images != served.images for arm in arms):
        return "; each other arm on the images for which its prediction is known, so only differences compare"
    rivals = [arm for arm in arms if arm is not served]
    if not rivals:
        return ""
    best = max(rivals, key=lambda arm: arm.accuracy.value)
    return f"; the best of the others is {best.name}, with {percent(best.accuracy.value)}"


def _gains(arms: Sequence[Arm]) -> Figure:
    rivals = [(arm, arm.gain) for arm in arms if arm.gain is not None]
    values = [{"arm": arm.name, **_ends(gain, 100.0), "images": arm.images} for arm, gain in rivals]
    others = [gain for arm, gain in rivals if arm.name != BEST]  # which is one of them
    better, worse = (sum(gain.sign == way for gain in others) for way in (1, -1))
    reading = (
        f"On the same images served is better than {better} of {counted(len(others), 'other arm', 'other arms')} and "
        f"worse than {worse}; where an interval contains 0 no difference is shown."
    )
    chart = _dots(values, [arm.name for arm, _ in rivals], "advantage of served over each, points", "+.1f", zero=True)
    spec = theme.spec(chart, height=_ROW * len(rivals))
    return Figure("helped-gain", "Advantage of served over each other arm", reading, spec, query="accuracy")


def _by_camera(by_camera: Mapping[str, Sequence[Arm]]) -> list[Figure]:
    reference = next((n for n in _REFERENCES if any(a.name == n for arms in by_camera.values() for a in arms)), "")
    gains = {
        camera: arm.gain
        for camera, arms in by_camera.items()
        for arm in arms
        if arm.name == reference and arm.gain is not None
    }
    if not gains:
        return []
    ordered = sorted(gains, key=lambda camera: -gains[camera].value)
    kept = ordered if len(ordered) <= _DRAWN else [*ordered[: _DRAWN // 2], *ordered[-_DRAWN // 2 :]]
    values = [{"arm": camera, "look": reference, **_ends(gains[camera], 100.0)} for camera in kept]
    better, worse = (sum(gain.sign == way for gain in gains.values()) for way in (1, -1))
    reading = (
        f"Against {reference}, served is better on {better} of {counted(len(gains), 'camera', 'cameras')} and worse on "
        f"{worse}; most on {ordered[0]} ({points(gains[ordered[0]].value)} points), least on {ordered[-1]} "
        f"({points(gains[ordered[-1]].value)})."
    )
    title = f"advantage of served over {reference}, points"
    chart = _dots(values, kept, title, "+.1f", zero=True)
    name = "Camera by camera" if kept == ordered else f"Camera by camera: the {len(kept)} at both ends"
    spec = theme.spec(chart, height=_CAMERA_ROW * len(kept))
    return [Figure("helped-cameras", name, reading, spec, wide=True, query="accuracy")]


def _dots(
    values: list[dict[str, Any]], order: Sequence[str], title: str, digits: str, *, zero: bool = False
) -> theme.Layers:
    """Return an interval and a point for each name, one below the other; names are data and are only drawn."""
    for value in values:
        value.setdefault("look", value["arm"])
    kinds = list(dict.fromkeys(value["look"] for value in values))
    shapes, colours = zip(*(_MARKS.get(kind, _OTHER) for kind in kinds), strict=True)
    y = alt.Y("arm:N", title=None).sort(list(order)).axis(labelLimit=180)
    x = alt.X("value:Q", title=title).scale(zero=False).axis(labelExpr=theme.WITHOUT_ZERO)
    base = alt.Chart(theme.rows(values))
    colour = alt.Color("look:N").scale(domain=kinds, range=list(colours))
    layers = [
        base.mark_rule(strokeWidth=2).encode(
            y=y,
            x=alt.X("low:Q").title(title).scale(zero=False).axis(labelExpr=theme.WITHOUT_ZERO),
            x2="high:Q",
            color=colour,
        ),
        base.mark_point(filled=True, opacity=1, size=90).encode(
            y=y,
            x=x,
            shape=alt.Shape("look:N").scale(domain=kinds, range=list(shapes)),
            color=colour,
            tooltip=[
                alt.Tooltip("arm:N", title="of"),
                alt.Tooltip("value:Q", format=digits, title=title),
                alt.Tooltip("low:Q", format=digits, title="95 % from"),
                alt.Tooltip("high:Q", format=digits, title="to"),
            ],
        ),
    ]
    if zero:
        line = alt.Chart(theme.rows([{"zero": 0}])).mark_rule(color=theme.MUTED, strokeDash=[3, 3])
        layers.insert(0, line.encode(x=alt.X("zero:Q", title=title)))
    return alt.layer(*layers)


def _arms(arms: Sequence[Arm]) -> Table:
    lines = [
        Line(
            arm.name,
            (
                Cell(two(arm.alpha)),
                Cell(f"{arm.images:,}"),
                Cell(three(arm.accuracy.value), note=_between(arm.accuracy)),
                Cell(three(arm.ece)),
                _gain(arm.gain),
                Cell(arm.source, prose=True),
            ),
            "served" if arm.gain is None else "strategy",
        )
        for arm in arms
    ]
    headers = ("alpha", "images", "accuracy", "ECE", "advantage of served, points", "predictions from")
    return Table(f"Ways to predict (arms), {LEVEL} intervals below", "arm", headers, tuple(lines))


def _cameras(by_camera: Mapping[str, Sequence[Arm]], states: Mapping[str, str]) -> Table:
    names = list(dict.fromkeys(arm.name for arms in by_camera.values() for arm in arms))
    lines = []
    places = {name: place for place, name in enumerate(states)}
    for camera, arms in sorted(by_camera.items(), key=lambda item: places.get(item[0], len(places))):
        found = {arm.name: arm for arm in arms}
        images = max((arm.images for arm in arms), default=0)
        cells = [_camera_cell(found.get(name)) for name in names]
        lines.append(Line(camera, (Cell(states.get(camera, NOTHING)), Cell(f"{images:,}"), *cells)))
    caption = (
        "Accuracy by camera, the most severe first; below it, the advantage of served in points (▲ better, ▼ worse, = "
        "not shown to differ)"
    )
    return Table(caption, "camera", ("severity", "images", *names), tuple(lines), folded=True)


def _camera_cell(arm: Arm | None) -> Cell:
    if arm is None:
        return Cell(NOTHING)
    gain = _gain(arm.gain)
    return Cell(three(arm.accuracy.value), gain.mark, gain.text)


def _gain(gain: Interval | None) -> Cell:
    if gain is None:
        return Cell("")
    if not gain.is_known:
        return Cell(points(gain.value), note="one batch")
    mark = "better" if gain.sign > 0 else "worse" if gain.sign < 0 else "same"
    return Cell(points(gain.value), mark, f"{points(gain.low)} to {points(gain.high)}")


def _estimates(helped: Helped) -> Table:
    lines = [Line(e.name, (Cell(three(e.value)), Cell(e.how, prose=True))) for e in helped.estimates]
    return Table("Estimates without labels", "by", ("estimated accuracy", "how"), tuple(lines))


def _ends(interval: Interval, factor: float = 1.0) -> dict[str, float | None]:
    return {name: _number(factor * getattr(interval, name)) for name in ("value", "low", "high")}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")


def _between(interval: Interval) -> str:
    return f"{three(interval.low)} to {three(interval.high)}" if interval.is_known else "one batch"


def heats(helped: Helped) -> tuple[Heat, ...]:
    """Return the confusions as tables of counts whose shades are shares of the true class, what was served first."""
    names = sorted(helped.confusion, key=lambda name: name != SERVED)
    return tuple(_heat(name, helped.confusion[name]) for name in names)


def _heat(name: str, confusion: Confusion) -> Heat:
    rows = []
    for i, (label, counts) in enumerate(zip(confusion.classes, confusion.counts, strict=True)):
        total = max(1, sum(counts))
        rows.append((label, tuple(Square(n, n / total, i == j) for j, n in enumerate(counts))))
    return Heat(name, _confused(confusion), confusion.classes, tuple(rows))


def _confused(confusion: Confusion) -> str:
    wrong = [
        (count, true, confusion.classes[j])
        for i, (true, counts) in enumerate(zip(confusion.classes, confusion.counts, strict=True))
        for j, count in enumerate(counts)
        if i != j and count
    ]
    if not wrong:
        return "No class was confused with another."
    count, true, guess = max(wrong)
    total = sum(confusion.counts[confusion.classes.index(true)])
    return (
        f"Most often {true} was taken for {guess}: {counted(count, 'image', 'images')}, {percent(count / total)} of "
        "that class."
    )
