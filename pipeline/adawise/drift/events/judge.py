"""What an event means: how bad it is, what it cost, what likely caused it, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from adawise.drift.bins import lasting
from adawise.drift.events.incidents import incidents
from adawise.drift.events.measures import Binned
from adawise.drift.result import AccuracyCost, Cause, DriftEvent, Flags, Severity

_MANY_REJECTS = 0.1
_COSTLY = -0.1  # accuracy
_LABELLED = 30  # images on each side, or the cost is an estimate
ESTIMATE_ERROR = 0.08
"""Standard error of a change of accuracy that is estimated by a change of confidence, beyond its noise: measured by
`python -m tools.bench estimates`."""
_Z95 = 1.96
_LEAST_BINS = 5
_NEAR_US, _AROUND_US = 3_600_000_000, 6 * 3_600_000_000
_OVER = frozenset({"spike", "silence"})
_PASSING = frozenset({"spike", "silence", "unrest"})
_LESS = frozenset({"forwards", "noise", "colour", "model"})
_PICTURE = ("brightness", "contrast", "sharpness", "noise", "colour")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a camera's events are judged by: its bins, the fleet's end, and when its adaptation began anew."""

    binned: Binned
    until_us: int
    starts: Sequence[tuple[int, str]]


def judged(events: Sequence[DriftEvent], known: Surroundings, roots: Sequence[str]) -> list[DriftEvent]:
    """A camera's events, each with its severity, causes, the command to go on with, and the cost of its incident."""
    told = sorted(incidents(events).values(), key=_begin)
    found = []
    for number, those in enumerate(told):
        since_us = max((_end(each) for each in told[:number]), default=0)
        until_us = _begin(told[number + 1]) if number + 1 < len(told) else known.until_us + 1
        cost = _cost(those, known.binned, since_us, until_us)
        for event in those:
            severity = _severity(event, cost, known.until_us)
            why = (*_causes(event, those, known), *event.causes)
            found.append(replace(event, cost=cost, severity=severity, causes=why, next=_next(event, roots)))
    return found


def _begin(those: Sequence[DriftEvent]) -> int:
    return min(event.earliest_us for event in those)


def _end(those: Sequence[DriftEvent]) -> int:
    return max(max(event.latest_us, event.until_us) for event in those)


def _severity(event: DriftEvent, cost: AccuracyCost | None, until_us: int) -> Severity:
    lasts = event.until_us >= until_us or event.shape not in _OVER
    if event.shape == "ended" or (event.measure == "rejects" and lasts and event.after >= _MANY_REJECTS):
        return "failing"
    if cost is not None and lasts and cost.accuracy <= _COSTLY and cost.high < 0:
        return "failing"
    return "noted" if event.measure in _LESS else "changed"


def _cost(those: Sequence[DriftEvent], binned: Binned, since_us: int, until_us: int) -> AccuracyCost | None:
    """Accuracy after it less accuracy before it, as far as nothing else happened: by labels, else by confidence."""
    passing = [event for event in those if event.shape in _PASSING]
    begin, end = max(max(event.latest_us, event.until_us) for event in those), until_us
    if len(passing) == len(those):  # afterwards all is as before
        begin, end = min(event.since_us for event in passing), max(event.until_us for event in passing)
    before = (binned.time_us >= since_us) & (binned.time_us < _begin(those))
    after = (binned.time_us >= begin) & (binned.time_us < end)
    return _measured(binned, before, after) or _estimated(binned, before, after)


def _measured(binned: Binned, before: Flags, after: Flags) -> AccuracyCost | None:
    labelled = [int(binned.labelled[part].sum()) for part in (before, after)]
    if min(labelled) < _LABELLED:
        return None
    rates = [float(binned.correct[part].sum()) / count for part, count in zip((before, after), labelled, strict=True)]
    errors = [_error(binned, part, rate) for part, rate in zip((before, after), rates, strict=True)]
    change, error = rates[1] - rates[0], math.hypot(*errors)
    return AccuracyCost(change, change - _Z95 * error, change + _Z95 * error, "measured")


def _error(binned: Binned, part: Flags, rate: float) -> float:
    """Standard error of a ratio of sums over bins, whose images are not independent (Cochran 1977, 6.4)."""
    labelled, right = binned.labelled[part], binned.correct[part]
    count = np.count_nonzero(labelled)
    smoothed = (rate * labelled.sum() + 1.0) / (labelled.sum() + 2.0)  # all right is not sure to be so
    independent = smoothed * (1.0 - smoothed) / labelled.sum()
    if count < 2:
        return math.sqrt(independent)
    spread = float(((right - rate * labelled) ** 2).sum()) / labelled.sum() ** 2 * count / (count - 1)
    return math.sqrt(max(spread, independent))


def _estimated(binned: Binned, before: Flags, after: Flags) -> AccuracyCost | None:
    """By the difference of mean confidences (Guillory et al. 2021, arXiv 2107.03315)."""
    known = np.isfinite(binned.confidence)
    sides = [binned.confidence[part & known] for part in (before, after)]
    if min(len(side) for side in sides) < _LEAST_BINS:
        return None
    change = float(sides[1].mean() - sides[0].mean())
    error = math.hypot(ESTIMATE_ERROR, *(float(side.std()) / math.sqrt(len(side)) for side in sides))
    return AccuracyCost(change, max(-1.0, change - _Z95 * error), min(1.0, change + _Z95 * error), "estimated")


def _causes(event: DriftEvent, those: Sequence[DriftEvent], known: Surroundings) -> list[Cause]:
    """The surest first: what was done to the worker, then what the camera did, then what it saw."""
    told = []
    near = _NEAR_US + event.latest_us - event.earliest_us
    for at, why in known.starts:
        if abs(at - event.since_us) <= near:
            what = "the settings of the search changed" if why == "settings_changed" else "it was silent for too long"
            told.append(Cause("reset", f"the adaptation began anew, because {what}"))
    others = [each for each in those if each is not event]
    if any(each.measure == "model" for each in others):
        told.append(Cause("model", "another model began to serve"))
    silence = next((each for each in others if each.shape == "silence"), None)
    if silence is not None:
        told.append(Cause("silence", f"the camera was silent for {lasting(silence.until_us - silence.since_us)}"))
    if others:
        told.append(Cause("incident", "at the same moment: " + "; ".join(moved(each) for each in others)))
    told += _likely({each.measure for each in those}, event)
    return told


def _likely(measures: set[str], event: DriftEvent) -> list[Cause]:
    """What such a set of measures mostly means; a hint and no finding."""
    seen = measures & set(_PICTURE)
    if event.shape in {"ended", "silence"}:
        hint = "the camera, its network or its producer"
    elif "rejects" in measures:
        hint = "the camera or its link sends images that cannot be read"
    elif event.shape.startswith("cycle"):
        hint = "light by day and night"
    elif seen == {"noise"}:
        hint = "the sensor, its gain or its compression"
    elif seen == {"colour"}:
        hint = "infrared, or white balance"
    elif seen == {"brightness"}:
        hint = "exposure, or a lamp"
    elif seen & {"contrast", "sharpness"}:
        hint = "weather, dirt on the lens, or focus"
    elif "mix" in measures:
        hint = "other things are before the camera"
    elif measures == {"accuracy"}:
        hint = "images that the models are sure of and wrong about, or other labels"
    elif measures & {"confidence", "objective", "agreement"}:
        hint = "images such as the models do not know, though the picture is as before"
    else:
        return []
    return [Cause("likely", f"likely: {hint}")]


def moved(event: DriftEvent) -> str:
    """confidence .85 to .60; of logarithms the change in per cent."""
    if event.shape in {"silence", "ended"}:
        return "no images" if event.shape == "ended" else "a silence"
    if event.measure == "model":
        return "another model"
    if event.shape in {"unrest", "cycle begun", "cycle ended", "cycle changed"}:
        swings = {
            "cycle ended": f"{abs(event.before):.2g}",
            "cycle changed": f"{event.before:.2g} to {event.after:.2g}",
        }
        return f"{event.measure}: {event.shape}, a swing of {swings.get(event.shape, f'{abs(event.after):.2g}')}"
    if event.measure == "mix":
        return f"mix: {event.detail}"
    if event.unit == "log":
        return f"{event.measure} {math.expm1(event.after - event.before):+.0%}"
    unit = f" {event.unit}" if event.measure == "rate" else ""
    return f"{event.measure} {_figure(event.before)} to {_figure(event.after)}{unit}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def _next(event: DriftEvent, roots: Sequence[str]) -> str:
    """The command to go on with; of several roots the last is the one that workers write to."""
    since, until = (_moment(event.earliest_us - _AROUND_US), _moment(max(event.until_us, event.latest_us) + _AROUND_US))
    words = ["drift", *roots, "--streams", event.stream_id, "--since", since, "--until", until, "-o", "event.html"]
    if event.shape in {"ended", "silence"}:
        words = ["status", "--sink.root", roots[-1]]
    elif event.measure == "model":
        words = ["pair", "list", roots[-1]]
    elif event.measure == "rejects":
        words = ["dlq", "list", "--stream", event.stream_id, "--since", since]
    return shlex.join(["adawise", *words])


def _moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%dT%H:%MZ")
