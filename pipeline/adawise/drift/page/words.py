"""How the page says times, shares and where a value lies; nan is said as not known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from adawise.drift.result import CameraChange, Cause, Floats
from adawise.drift.show import moment
from adawise.page.notation import NOTHING, minus, two


def percent(share: float) -> str:
    """42 %: whole below 99.5 %, and with a digit where a whole number would say none or all."""
    if math.isnan(share):
        return NOTHING
    whole = f"{100 * share:.0f}"
    exact = f"{100 * share:.1f}" if whole in {"0", "100"} and share not in {0.0, 1.0} else whole
    return f"{exact}\u00a0%"


def from_to(before: float, after: float) -> str:
    """.31 to .78."""
    return f"{two(before)} to {two(after)}"


def signed(difference: float) -> str:
    """+.47: a difference of alphas."""
    return minus(f"{difference:+.2f}".replace("0.", ".", 1))


def when(since_us: int, until_us: int) -> str:
    """2026-11-25 08:00 to 2026-11-25 14:00 UTC, or one moment if they are the same minute."""
    since, until = moment(since_us), moment(until_us)
    if since == until:
        return f"{since} UTC"
    return f"{since} to {_shorter(since, until)} UTC"


def changed(change: CameraChange) -> str:
    """A ramp from when to when; a step at a moment, and within which span if that is wider than a minute."""
    since, at, until = (moment(us) for us in (change.earliest_us, change.time_us, change.latest_us))
    if change.kind == "ramp" or since == until:
        return when(change.earliest_us, change.latest_us)
    return f"{at} UTC (between {_shorter(at, since)} and {_shorter(at, until)})"


def _shorter(other: str, told: str) -> str:
    """A moment without its day, if that is the other's too."""
    return told.removeprefix(other[:11])


def why(causes: Sequence[Cause]) -> str:
    """All sentences of what else changed, or that nothing did."""
    return "; ".join(cause.sentence for cause in causes) or "nothing else that was looked at changed"


def known(values: Floats) -> bool:
    """Whether there is anything to draw."""
    return bool(np.isfinite(values).any())


def mean(values: Floats) -> float:
    """Of what is known; nan if nothing is."""
    return float(np.nanmean(values)) if known(values) else math.nan


def quarters(values: Floats) -> tuple[float, float]:
    """The means of the first and of the last quarter of the points."""
    quarter = max(1, len(values) // 4)
    return mean(values[:quarter]), mean(values[-quarter:])
