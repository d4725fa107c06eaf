"""How the page says times, shares and where a value lies; nan is said as not known."""

from __future__ import annotations

import math

import numpy as np

from adawise.labels.arrays import Floats
from adawise.page.notation import LEVEL, NOTHING, minus, points, two
from adawise_drift.changes.times import moment
from adawise_drift.events.result import AccuracyCost, CameraChange, DriftEvent


def percent(share: float) -> str:
    """Return a share as 42 %, with a digit after the point where a whole number would say none or all."""
    if math.isnan(share):
        return NOTHING
    whole = f"{100 * share:.0f}"
    exact = f"{100 * share:.1f}" if whole in {"0", "100"} and share not in {0.0, 1.0} else whole
    return f"{exact}\u00a0%"


def from_to(before: float, after: float) -> str:
    """Return two levels as .31 to .78."""
    return f"{two(before)} to {two(after)}"


def signed(difference: float) -> str:
    """Return a difference of alphas as +.47."""
    return minus(f"{difference:+.2f}".replace("0.", ".", 1))


def when(since_us: int, until_us: int) -> str:
    """Return 2026-11-25 08:00 to 14:00 UTC, or one moment if both are the same minute."""
    since, until = moment(since_us), moment(until_us)
    if since == until:
        return f"{since} UTC"
    return f"{since} to {_shorter(since, until)} UTC"


def changed(change: CameraChange) -> str:
    """Return when a change was: a ramp from when to when; a step at a moment, and within which span."""
    if change.kind == "ramp":
        return when(change.earliest_us, change.latest_us)
    return _at(change.time_us, change.earliest_us, change.latest_us)


def happened(event: DriftEvent) -> str:
    """Return when an event was: from when to when, or at a moment, as `changed`."""
    if event.shape == "ended":
        return f"since {moment(event.since_us)} UTC"
    if event.shape in {"ramp", "spike", "unrest", "silence"}:
        return when(event.since_us, event.until_us)
    return _at(event.since_us, event.earliest_us, event.latest_us)


def _at(at_us: int, earliest_us: int, latest_us: int) -> str:
    since, at, until = (moment(us) for us in (earliest_us, at_us, latest_us))
    if since == until:
        return when(earliest_us, latest_us)
    return f"{at} UTC (between {_shorter(at, since)} and {_shorter(at, until)})"


def cost(of: AccuracyCost | None) -> str:
    """Return accuracy −15.0 points (95 % −20.0 to −10.0, measured by labels), or "" where nobody knows."""
    if of is None:
        return ""
    how = "measured by labels" if of.how == "measured" else "estimated from confidence"
    how += ", which labels contradict on this camera" if of.is_doubted else ""
    return f"accuracy {points(of.accuracy)} points ({LEVEL} {points(of.low)} to {points(of.high)}, {how})"


def _shorter(other: str, told: str) -> str:
    """Return a moment without its day, if that is the other's too."""
    return told.removeprefix(other[:11])


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
