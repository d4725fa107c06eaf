"""A camera on the page: one sentence for each figure, what happened to it, its mix of classes, and its rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo

import numpy as np

from adawise.page import Key, theme
from adawise.text import NOTHING, as_long_duration, counted, listed, percent, two
from adawise_drift import words
from adawise_drift.changes.times import moment
from adawise_drift.events.result import AccuracyOverTime, Calendar, Camera, Series
from adawise_drift.page.happened import IncidentShown, largest
from adawise_drift.page.panels import Panel
from adawise_drift.page.series import Picture, appearance, picture
from adawise_drift.report import Report

_NAMED = 3
_OVERALL = ("overall", "accuracy", "answers", "rate", "cost", "rejects")  # a mean of objectives would say little
_CALENDARS = ("calendar", "conditions")
_MEASURES = {
    "luminance": "brightness",
    "contrast": "contrast",
    "gradient": "sharpness",
    "laplacian": "fine texture",
    "colourfulness": "colour",
}


@dataclass(frozen=True)
class Sortable:
    """A cell: its text, and the number that it is sorted by (nan goes last)."""

    text: str
    value: float


@dataclass(frozen=True)
class Drawn:
    """A panel of one camera; `anchor` is of the element that it is drawn into, `warning` precedes the reading."""

    anchor: str
    panel: Panel
    reading: str
    warning: str = ""
    legend: tuple[Key, ...] = ()  # of this camera alone


@dataclass(frozen=True)
class CameraShown:
    """`anchor` is by number: a camera's name is only ever shown."""

    number: int
    anchor: str
    camera: Camera
    small: Picture
    reading: str
    panels: tuple[Drawn, ...]
    incidents: tuple[IncidentShown, ...]  # by time
    state: str
    zone: tzinfo  # by which its times are shown
    mix_reading: str
    facts: str
    cells: tuple[Sortable, ...]  # of the table over all cameras

    @property
    def name(self) -> str:
        """The camera's name, as the producer gave it."""
        return self.camera.stream_id

    @property
    def words(self) -> str:
        """The words by which a reader finds it: its name, and what happened to it."""
        return " ".join([self.name, *(each.words.removeprefix(self.name) for each in self.incidents)])


def shown(
    report: Report, panels: Sequence[Panel], incidents: Mapping[str, tuple[IncidentShown, ...]]
) -> tuple[CameraShown, ...]:
    """Return all cameras, those of `incidents` first and in their order, which is by severity; then the farthest."""
    states, places = report.states, {name: place for place, name in enumerate(incidents)}
    ordered = sorted(report.cameras, key=lambda camera: places.get(camera.stream_id, len(places)))
    return tuple(
        _camera(number, camera, report, panels, incidents.get(camera.stream_id, ()), states[camera.stream_id])
        for number, camera in enumerate(ordered, start=1)
    )


def overall(report: Report, panels: Sequence[Panel]) -> tuple[Drawn, ...]:
    """Return the panels of all cameras together."""
    readings = {
        **_series_readings(report.overall),
        "overall": _overall_alpha(report.overall),
        "accuracy": words.accuracies(report.accuracy, report.cameras),
    }
    shown = [panel for panel in panels if panel.name in _OVERALL]
    return _drawn("all", report.overall, shown, readings, report.accuracy)


def _drawn(
    anchor: str,
    series: Series,
    panels: Sequence[Panel],
    readings: Mapping[str, str],
    accuracy: AccuracyOverTime,
    legend: tuple[Key, ...] = (),
) -> tuple[Drawn, ...]:
    """Return the panels for which something is known; `legend` is of the calendar."""
    warning = " ".join(words.contradictions(accuracy))
    return tuple(
        Drawn(
            f"{anchor}-{panel.name}",
            panel,
            readings[panel.name],
            warning if panel.name == "accuracy" else "",
            legend if panel.name in _CALENDARS else (),
        )
        for panel in panels
        if (any(_drawable(series, name) for name in panel.needs) if panel.needs else readings.get(panel.name))
    )


def _series_readings(series: Series) -> dict[str, str]:
    """Return the sentence of each panel, as far as the series alone says it."""
    return {
        "objective": _objective(series),
        "answers": _answers(series),
        "picture": _picture(series),
        "rate": _rate(series),
        "cost": _cost(series),
        "rejects": _rejects(series, {}),
    }


def _camera(
    number: int,
    camera: Camera,
    report: Report,
    panels: Sequence[Panel],
    incidents: tuple[IncidentShown, ...],
    state: str,
) -> CameraShown:
    anchor = f"camera-{number}"
    own = [panel for panel in panels if panel.name != "overall"]
    zone = report.clocks.at(camera.stream_id)
    drawn = [words.sampled(each) for each in report.sampled if each.stream_id == camera.stream_id]
    readings = {
        **_series_readings(camera.series),
        "alpha": (alpha := _alpha(camera, report, zone)),
        "calendar" if camera.calendar.is_daily else "conditions": _conditions(camera.calendar),
        "accuracy": " ".join(filter(None, (words.accuracies(camera.accuracy), *drawn))),
        "rejects": _rejects(camera.series, camera.reasons),
    }
    return CameraShown(
        number=number,
        anchor=anchor,
        camera=camera,
        small=picture(camera, report),
        reading=alpha,
        panels=_drawn(anchor, camera.series, own, readings, camera.accuracy, _legend(camera.calendar)),
        incidents=incidents,
        state=state,
        zone=zone,
        mix_reading=_mix(camera),
        facts=_facts(camera, zone),
        cells=_cells(camera, len(incidents), zone),
    )


def _drawable(series: Series, name: str) -> bool:
    values = np.asarray(getattr(series, name), dtype=np.float64)
    return words.known(values) and (name != "rejected" or bool(values.any()))


def _alpha(camera: Camera, report: Report, zone: tzinfo) -> str:
    change = largest(camera)
    if change is None:
        return (
            f"Alpha stayed at {two(camera.alpha)} on average, between {two(camera.alpha_low)} and "
            f"{two(camera.alpha_high)}: nothing changed by {two(report.smallest)} or more and stayed."
        )
    times = f"{len(camera.changes)} times, most" if len(camera.changes) > 1 else "once,"
    return (
        f"Alpha changed {times} {words.changed(change, zone)}, from {words.from_to(change.before, change.after)} "
        f"({words.signed(change.size)}); it was {two(camera.alpha)} on average."
    )


def _overall_alpha(series: Series) -> str:
    early, late = words.quarters(series.alpha)
    low, high = (two(float(f(values))) for f, values in ((np.nanmin, series.alpha_low), (np.nanmax, series.alpha_high)))
    return (
        f"Mean alpha went from {two(early)} in the first quarter of the points to {two(late)} in the last; single "
        f"batches were served at {low} to {high}."
    )


def _objective(series: Series) -> str:
    if not words.known(series.objective):
        return "The objective at the served alpha is not known."
    early, late = words.quarters(series.objective)
    sentence = f"The objective went from {two(early)} in the first quarter of the points to {two(late)} in the last"
    both = np.isfinite(series.objective) & np.isfinite(series.reference)
    if not both.any():
        return f"{sentence}; without a card there is no reference."
    over = series.objective[both] - series.reference[both]
    word = "above" if over.mean() > 0 else "below"
    return (
        f"{sentence}, and lies {two(abs(float(over.mean())))} {word} the card's reference on average, "
        f"above it in {percent(float((over > 0).mean()))} of the points."
    )


def _answers(series: Series) -> str:
    parts = []
    if words.known(series.confidence):
        early, late = words.quarters(series.confidence)
        parts.append(f"confidence went from {two(early)} to {two(late)}")
    if words.known(series.endpoints_agree):
        agree = percent(words.mean(series.endpoints_agree))
        parts.append(f"zero-shot and fine-tuned agree on {agree} of the images on which both were evaluated")
    sentence = ", ".join(parts)
    return (
        f"{sentence[:1].upper()}{sentence[1:]}."
        if sentence
        else "Confidence and agreement are not known: no predictions."
    )


def _picture(series: Series) -> str:
    went = {name: words.quarters(values) for name, values in appearance(series).items()}
    went_to = [f"{_MEASURES[name]} {two(early)} to {two(late)}" for name, (early, late) in went.items()]
    return f"From the first quarter of the points to the last, in multiples of the median: {listed(went_to)}."


def _rate(series: Series) -> str:
    early, late = words.quarters(series.images.astype(np.float64))
    return f"There were {early:,.0f} images a point in the first quarter of the points, and {late:,.0f} in the last."


def _cost(series: Series) -> str:
    if not words.known(series.forward_equivalents):
        return "The cost is not known."
    at = float(np.nanmax(series.forward_equivalents))
    return (
        f"An image cost {two(words.mean(series.forward_equivalents))} forwards on average over the points, and "
        f"{two(at)} at most; plain CLIP costs 1."
    )


def _rejects(series: Series, reasons: Mapping[str, int]) -> str:
    rejected, images = int(series.rejected.sum()), int(series.images.sum())
    share = percent(rejected / max(1, rejected + images))
    why = listed(f"{reason} {count:,}" for reason, count in list(reasons.items())[:_NAMED])
    return f"{counted(rejected, 'image was', 'images were')} rejected, {share} of all{f': {why}' if why else ''}."


def _conditions(of: Calendar) -> str:
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in (words.conditions(of), words.alarms(of)) if text)


def _legend(of: Calendar) -> tuple[Key, ...]:
    return tuple(Key(each.name, "square", colour(place, of)) for place, each in enumerate(of.conditions))


def colour(place: int, of: Calendar) -> str:
    """Return the colour of the condition at a place in the calendar; the rest has one."""
    return f"var(--condition-{place + 1})" if place < of.shown else theme.RANGE


def _mix(camera: Camera) -> str:
    if not camera.class_mix:
        return "The classes are not known: no predictions."
    label, share, *_ = camera.class_mix[0]
    moved = max(camera.class_mix, key=lambda entry: abs(entry[3] - entry[2]))
    return (
        f"Most often {label} was served, on {percent(share)} of the images; {moved[0]} changed most, from "
        f"{percent(moved[2])} in the first quarter of the time to {percent(moved[3])} in the last."
    )


def _facts(camera: Camera, zone: tzinfo) -> str:
    parts = [
        f"{counted(camera.images, 'image', 'images')} in {counted(camera.batches, 'batch', 'batches')}",
        f"{words.when(camera.first_us, camera.last_us, zone)}",
        f"last alpha {two(camera.alpha_last)}",
        f"{two(camera.forward_equivalents)} forwards per image",
    ]
    if camera.silences:
        longest = as_long_duration(max(until - since for since, until in camera.silences) / 1e6)
        parts.append(f"{counted(len(camera.silences), 'silence', 'silences')}, the longest of {longest}")
    if camera.resets:
        parts.append("started anew: " + ", ".join(f"{why} {count}" for why, count in camera.resets.items()))
    parts += camera.lacking
    return " · ".join(parts)


HEADERS = (
    ("drift", "distance between the highest and the lowest level of alpha"),
    ("incidents", ""),
    ("largest change", "when alpha moved farthest, by the camera's clocks"),
    ("alpha", "mean over images"),
    ("levels", "of alpha, lowest to highest"),
    ("last", "alpha of the newest batch"),
    ("forwards", "per image (FE, forward equivalents); plain CLIP has 1"),
    ("confidence", "mean probability of the served class"),
    ("agreement", "share of images on which zero-shot and fine-tuned give the same class"),
    ("images", ""),
    ("rejected", ""),
    ("silences", ""),
)


def _cells(camera: Camera, incidents: int, zone: tzinfo) -> tuple[Sortable, ...]:
    change = largest(camera)
    heights = [level.alpha for level in camera.levels]
    return (
        _two(camera.drift),
        _whole(incidents),
        Sortable(NOTHING, math.nan) if change is None else Sortable(moment(change.time_us, zone), change.time_us / 1e6),
        _two(camera.alpha),
        Sortable(words.from_to(min(heights), max(heights)), max(heights)),
        _two(camera.alpha_last),
        _two(camera.forward_equivalents),
        _two(camera.confidence),
        Sortable(percent(camera.endpoints_agree), camera.endpoints_agree),
        _whole(camera.images),
        _whole(camera.rejected),
        _whole(len(camera.silences)),
    )


def _two(value: float) -> Sortable:
    return Sortable(two(value), value)


def _whole(value: int) -> Sortable:
    return Sortable(f"{value:,}", value)
