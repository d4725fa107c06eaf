"""Times, shares, costs, accuracies and calendars as text, for the terminal, the page and alerts; nan is not known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, tzinfo

import numpy as np

from adawise.labels.arrays import Floats
from adawise.text import LEVEL, as_long_duration, counted, minus, percent, points, three, two
from adawise_drift.changes.times import DAY_US, moment, shift_us, zone_name
from adawise_drift.events.accuracy import AGREEMENT_ERROR, ESTIMATE_ERROR, NORMAL
from adawise_drift.events.calendar import hours
from adawise_drift.events.result import (
    AccuracyCost,
    AccuracyOverTime,
    AccuracyPoint,
    Calendar,
    Camera,
    CameraChange,
    DriftEvent,
    How,
)  # fmt: skip
from adawise_drift.events.sampled import SampledAccuracy
from adawise_drift.report import Report

_ALARMED = 0.05  # of the batches of a camera; of AdawiseOverConfident likewise
_OF_HOURS, _FREQUENT = 3, 0.05  # conditions whose hours a sentence has, and their share


def from_to(before: float, after: float) -> str:
    """Return two levels as .31 to .78."""
    return f"{two(before)} to {two(after)}"


def signed(difference: float) -> str:
    """Return a difference of alphas as +.47."""
    return minus(f"{difference:+.2f}".replace("0.", ".", 1))


def when(since_us: int, until_us: int, zone: tzinfo = UTC) -> str:
    """Return 2026-11-25 08:00 to 14:00 UTC, or one moment if both are the same minute; by the clocks of a zone."""
    since, until, name = moment(since_us, zone), moment(until_us, zone), zone_name(until_us, zone)
    if since == until:
        return f"{since} {name}"
    before = zone_name(since_us, zone)
    return f"{since}{'' if before == name else f' {before}'} to {_shorter(since, until)} {name}"


def changed(change: CameraChange, zone: tzinfo = UTC) -> str:
    """Return when a change was: a ramp from when to when; a step at a moment, and within which span."""
    if change.kind == "ramp":
        return when(change.earliest_us, change.latest_us, zone)
    return _at(change.time_us, change.earliest_us, change.latest_us, zone)


def happened(event: DriftEvent, zone: tzinfo = UTC) -> str:
    """Return when an event was: from when to when, or at a moment, as `changed`."""
    if event.shape == "ended":
        return f"since {when(event.since_us, event.since_us, zone)}"
    if event.shape in {"ramp", "spike", "unrest", "silence"}:
        return when(event.since_us, event.until_us, zone)
    return _at(event.since_us, event.earliest_us, event.latest_us, zone)


def _at(at_us: int, earliest_us: int, latest_us: int, zone: tzinfo) -> str:
    since, at, until = (moment(us, zone) for us in (earliest_us, at_us, latest_us))
    if since == until:
        return when(earliest_us, latest_us, zone)
    return f"{at} {zone_name(at_us, zone)} (between {_shorter(at, since)} and {_shorter(at, until)})"


def axis(zone: tzinfo, us: int) -> str:
    """Return which clocks the time of a figure is by: one offset throughout, that of a moment."""
    shift = round(shift_us(us, zone) / 6e7)
    hours, minutes = divmod(abs(shift), 60)
    name = zone_name(us, zone)
    offset = "" if name.startswith("UTC") else f" (UTC{'-' if shift < 0 else '+'}{hours:02d}:{minutes:02d})"
    return f"times are {name}{minus(offset)}"


def cost(of: AccuracyCost | None) -> str:
    """Return accuracy −15.0 points (95 % −20.0 to −10.0, measured by labels), or "" if nothing is known of it.

    An estimate that may as well be none says so instead of a number.
    """
    if of is None:
        return ""
    if not _is_shown(of):
        least = points(max(abs(of.low - of.accuracy), abs(of.high - of.accuracy))).lstrip("+")
        return (
            f"accuracy: cost unknown, since confidence alone shows no change below {least} points, and labels are too "
            "few"
        )
    how = "measured by labels" if of.how == "measured" else "estimated from confidence"
    how += ", which labels contradict on this camera" if of.is_doubted else ""
    return f"accuracy {points(of.accuracy)} points ({LEVEL} {points(of.low)} to {points(of.high)}, {how})"


def _is_shown(of: AccuracyCost) -> bool:
    """Return whether a cost is a number for the reader: it is measured, or its estimate is surely not zero."""
    return of.how == "measured" or of.low > 0.0 or of.high < 0.0


def _shorter(other: str, moment_: str) -> str:
    """Return a moment without its day, if it is of the same day as the other."""
    return moment_.removeprefix(other[:11])


def known(values: Floats) -> bool:
    """Return whether there is anything to draw."""
    return bool(np.isfinite(values).any())


def mean(values: Floats) -> float:
    """Return the mean of what is known; nan if nothing is."""
    return float(np.nanmean(values)) if known(values) else math.nan


def quarters(values: Floats) -> tuple[float, float]:
    """Return the means of the first and of the last quarter of the points."""
    quarter = max(1, len(values) // 4)
    return mean(values[:quarter]), mean(values[-quarter:])


def short_cost(of: AccuracyCost | None) -> str:
    """Return a cost in words: -0.15 (-0.20 to -0.10, measured), or unknown."""
    if of is None:
        return ""
    if not _is_shown(of):
        return "unknown"
    doubt = ", labels contradict it" if of.is_doubted else ""
    return f"{of.accuracy:+.2f} ({of.low:+.2f} to {of.high:+.2f}, {of.how}{doubt})"


_ESTIMATED: Mapping[How, tuple[str, float]] = {
    "confidence": ("confidence", ESTIMATE_ERROR),
    "agreement": ("the agreement of the endpoints", AGREEMENT_ERROR),
}


def sampled(of: SampledAccuracy) -> str:
    """Return a camera's accuracy by a sample, with what is guaranteed of it, or why nothing is."""
    since, until = (moment(day * DAY_US)[:10] for day in (of.first_day, of.last_day))
    if of.why:
        return f"No guarantee by the sample: {of.why}."
    held, labels = of.accuracy, counted(of.draws, "image")
    text = (
        f"By {labels} drawn on {counted(of.days, 'day')} since {since}: {two(held.value)}, and by an interval that "
        f"holds every night of a year with {LEVEL}, {two(held.low)} to {two(held.high)}."
    )
    if math.isnan(of.bound):
        return f"{text} The accuracy that it is held against is not yet learned."
    if of.alarm_day is None:
        return f"{text} No proof until {until} that a day was below {three(of.bound)}."
    found = moment(of.alarm_day * DAY_US)[:10]
    return (
        f"{text} Accuracy fell below {three(of.bound)}: shown by the labels of {found} (e-value {of.evidence:.3g} now)."
    )


def accuracies(of: AccuracyOverTime, cameras: Sequence[Camera] = ()) -> str:
    """Return how accuracy went, measured and estimated, with the errors; "" if nothing is known.

    Of several cameras it says how many of them have labels.
    """
    found = []
    if labelled := of.of("measured"):
        having = sum(bool(camera.accuracy.of("measured")) for camera in cameras)
        whose = f" of {having} of {len(cameras)} cameras" if cameras else ""
        found.append(f"Measured by {sum(point.images for point in labelled):,} labels{whose}: {_went(labelled)}.")
    guessed = [
        f"from {by} {_went(known, is_banded=False)} (off by {two(error)}, {LEVEL} within {two(NORMAL * error)})"
        for how, (by, error) in _ESTIMATED.items()
        if (known := of.of(how))
    ]
    if guessed:
        found.append(f"Estimated {'; '.join(guessed)}: root mean squares, on a pair whose labels are known.")
    found += contradictions(of)
    if of.off is not None:
        off, way = of.off, "high" if of.off.value > 0 else "low"
        ends = sorted(abs(end) for end in (off.low, off.high))
        text = f"{two(abs(off.value))} too {way} ({LEVEL} {two(ends[0])} to {two(ends[1])})"
        if of.is_wrong and abs(off.value) <= ESTIMATE_ERROR:
            found.append(
                "Do not rely on confidence here: by the labels its estimate is sometimes too high and sometimes "
                "too low."
            )
        elif of.is_wrong:
            found.append(f"Do not rely on confidence here: by the labels its estimate is {text}.")
        elif off.sign:
            found.append(f"On the labelled images the estimate from confidence is {text}.")
        else:
            found.append("On the labelled images the estimate from confidence shows no error on average.")
    return " ".join(found)


def contradictions(of: AccuracyOverTime) -> Iterator[str]:
    """Yield a sentence for each kind of estimate whose interval lies beside that of the labels of the same time."""
    for how, (by, _) in _ESTIMATED.items():
        pairs = [
            (label, guess)
            for label in of.of("measured")
            for guess in of.of(how)
            if guess.since_us < label.until_us and label.since_us < guess.until_us
        ]
        beside = [(a, b) for a, b in pairs if b.low > a.high or b.high < a.low]
        if beside:
            label, guess = max(beside, key=lambda pair: abs(pair[0].accuracy - pair[1].accuracy))
            yield (
                f"Labels contradict the estimate from {by}: at the same time it is {two(guess.accuracy)} "
                f"({LEVEL} {two(guess.low)} to {two(guess.high)}), and by {label.images:,} labels accuracy is "
                f"{two(label.accuracy)} ({LEVEL} {two(label.low)} to {two(label.high)})."
            )


def _went(of: Sequence[AccuracyPoint], *, is_banded: bool = True) -> str:
    """Return the first and the last point in words: .81 (95 % .78 to .84) first, .74 (95 % .70 to .78) last."""
    ends = [
        two(point.accuracy) + (f" ({LEVEL} {two(point.low)} to {two(point.high)})" if is_banded else "")
        for point in (of[0], of[-1])
    ]
    return f"{ends[0]} first, {ends[1]} last" if len(of) > 1 else ends[0]


def conditions(of: Calendar) -> str:
    """Return a calendar in words: 4 conditions and 2 brief or rare ones, 12 returns; condition 2 from 18 h to 6 h.

    "" of fewer than two conditions.
    """
    if of.count < 2:
        return ""
    frequent = [each for each in of.conditions if each.share >= _FREQUENT]
    when = [f"condition {each.name} {at}" for each in frequent if (at := hours(each))][:_OF_HOURS]
    returns = f"{of.returns:,} {'return' if of.returns == 1 else 'returns'}"
    count = f"{of.shown:,} condition{'s' * (of.shown > 1)}"
    if rest := of.count - of.shown:
        count += f" and {rest:,} brief or rare one{'s' * (rest > 1)}"
    return "; ".join([f"{count}, {returns}", *([", ".join(when)] if when else [])])


def alarms(of: Calendar) -> str:
    """Return where the fine-tuned model may be over-confident; "" where so few alarms may be chance."""
    if of.alarms < _ALARMED:
        return ""
    where = max(of.conditions, key=lambda each: each.share * each.alarms)
    most = f", most of them in condition {where.name}" if of.count > 1 else ""
    return (
        f"alarm in {percent(of.alarms)} of its batches{most}: the fine-tuned model may be over-confident there. Label "
        "some of those images; `adawise card correct` corrects the card"
    )


def resolution(report: Report) -> str:
    """Return what a point of a figure is: one point is 1 hour; the lowest and the highest alpha in it are kept."""
    return f"one point is {as_long_duration(report.bin_us / 1e6)}; the lowest and the highest alpha in it are kept"
