"""The severity of an event, its cost in accuracy, its likely causes, and the command to go on with."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from adawise.labels.arrays import selected
from adawise.text import PER_CENT, as_long_duration, minus, percent, two
from adawise_drift.changes.times import HOUR_US, utc
from adawise_drift.events.accuracy import ESTIMATE_ERROR, LEAST, NORMAL, Ratio, clusters, measured, over_time, ratio
from adawise_drift.events.calendar import name_of, visits_before
from adawise_drift.events.measures import Binned
from adawise_drift.events.result import NO_STAYS, AccuracyCost, Cause, DriftEvent, Severity, Stays
from adawise_drift.events.together import incidents

_MANY_REJECTS = 0.1
_COSTLY = -0.1  # accuracy
_CLUSTERS = 5  # on each side
_NEAR_US, _AROUND_US = HOUR_US, 6 * HOUR_US
_OVER = frozenset({"spike", "silence"})
_PASSING = frozenset({"spike", "silence", "unrest"})
_LESS = frozenset({"forwards", "noise", "colour", "model"})
_MOVES = frozenset({"step", "ramp", "spike"})
_NOT_OF_IMAGES = frozenset({"rate", "rejects", "model"})
_GRAIN = ("sharpness", "noise")
_PICTURE = ("brightness", "contrast", "sharpness", "noise", "colour")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The facts that explain events: a camera's bins, its resets and conditions, and the end of the time."""

    binned: Binned
    until_us: int
    starts: Sequence[tuple[int, str]]
    stays: Stays = NO_STAYS


def explained(events: Sequence[DriftEvent], known: Surroundings, roots: Sequence[str]) -> list[DriftEvent]:
    """Return a camera's events with severity, causes, the command to go on with, and the cost of the incident."""
    ordered = sorted(incidents(events).values(), key=_begin)
    found, is_wrong = [], bool(ordered) and over_time([known.binned]).is_wrong
    for number, those in enumerate(ordered):
        since_us = max((_end(each) for each in ordered[:number]), default=0)
        until_us = _begin(ordered[number + 1]) if number + 1 < len(ordered) else known.until_us + 1
        cost = _cost(those, known.binned, since_us, until_us)
        if cost is not None and cost.how == "estimated":
            cost = replace(cost, is_doubted=is_wrong)
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
    """Return the accuracy after an incident less that before it, by labels or else by confidence.

    Both sides go as far as nothing else happened.
    """
    passing = [event for event in those if event.shape in _PASSING]
    begin, end = max(max(event.latest_us, event.until_us) for event in those), until_us
    if len(passing) == len(those):  # afterwards all is as before
        begin, end = min(event.since_us for event in passing), max(event.until_us for event in passing)
    of = clusters(binned)
    before = selected(of, (of.since_us >= since_us) & (of.since_us < _begin(those)))
    after = selected(of, (of.since_us >= begin) & (of.since_us < end))
    if min(side.labelled.sum() for side in (before, after)) >= LEAST:
        found = _change(measured(before), measured(after), "measured")
        if found is not None:
            return found
    # by the difference of mean confidences (Guillory et al., 2021)
    sides = [ratio(side.confidence, side.answered) for side in (before, after)]
    return _change(sides[0], sides[1], "estimated", ESTIMATE_ERROR)


def _change(
    before: Ratio, after: Ratio, how: Literal["measured", "estimated"], off: float = 0.0
) -> AccuracyCost | None:
    """Return a change of accuracy with its interval; `off` is how far such a change is off by itself."""
    fewest = min((before, after), key=lambda side: side.clusters)
    if fewest.clusters < _CLUSTERS:
        return None
    change, noise = after.value - before.value, fewest.quantile * math.hypot(before.error, after.error)
    half = math.hypot(noise, NORMAL * off)
    return AccuracyCost(change, max(-1.0, change - half), min(1.0, change + half), how)


_STARTS = {
    "settings_changed": "the settings of the search changed",
    "silent": "it was silent for too long",
    "shortlist": "its shortlist changed",
}


def _causes(event: DriftEvent, those: Sequence[DriftEvent], known: Surroundings) -> list[Cause]:
    """Return the causes, the surest first: what was done to the worker, what the camera did, what it saw."""
    causes = []
    near = _NEAR_US + event.latest_us - event.earliest_us
    for at, why in known.starts:
        if abs(at - event.since_us) <= near:
            causes.append(Cause("reset", f"the adaptation started anew, because {_STARTS[why]}"))
    others = [each for each in those if each is not event]
    if any(each.measure == "model" for each in others):
        causes.append(Cause("model", "another model began to serve"))
    silence = next((each for each in others if each.shape == "silence"), None)
    if silence is not None:
        lasted = as_long_duration((silence.until_us - silence.since_us) / 1e6)
        causes.append(Cause("silence", f"the camera was silent for {lasted}"))
    causes += _condition(event, known.stays)
    if others:
        causes.append(Cause("incident", "at the same moment: " + "; ".join(moved(each) for each in others)))
    causes += _likely(those, event)
    return causes


def _condition(event: DriftEvent, stays: Stays) -> Iterator[Cause]:
    """Yield of the conditions that came with an event the one that lasted longest."""
    if event.shape not in _MOVES or event.measure in _NOT_OF_IMAGES:
        return
    begin_us, end_us = event.earliest_us - _NEAR_US, event.latest_us + _NEAR_US
    came = np.flatnonzero((stays.since_us >= begin_us) & (stays.since_us <= end_us) & stays.began)
    came = came[came > 0]
    if not len(came):
        return
    at = int(came[np.argmax(stays.batches[came])])
    if visits_before(stays, at, 2 * begin_us - end_us):
        return  # it comes so often that it says nothing
    name, before = name_of(stays, at), visits_before(stays, at)
    if not stays.returned[at]:
        yield Cause("condition", f"condition {name} began, which is new to the camera")
    elif before:
        times = "once" if before == 1 else f"{before} times"
        yield Cause("condition", f"condition {name} returned, seen {times} before")
    else:
        yield Cause("condition", f"condition {name} returned, which was known before this time")


def _likely(those: Sequence[DriftEvent], event: DriftEvent) -> list[Cause]:
    """Return what such measures mostly mean, as a hint. Noise has edges and texture, a blur takes both."""
    measures = {each.measure for each in those}
    changed = measures & set(_PICTURE)
    grain = [each.size for each in those if each.measure in _GRAIN]
    if event.shape in {"ended", "silence"}:
        hint = "the camera, its network or its producer"
    elif "rejects" in measures:
        hint = "the camera or its link sends images that cannot be read"
    elif event.shape.startswith("cycle"):
        hint = "daylight or night"
    elif grain and min(grain) > 0 and changed != {"sharpness"} and changed <= {*_GRAIN, "colour"}:
        hint = "the sensor, its gain or its compression"
    elif changed == {"colour"}:
        hint = "infrared, or white balance"
    elif changed == {"brightness"}:
        hint = "exposure, or a lamp"
    elif changed & {"contrast", *_GRAIN}:
        hint = "weather, dirt on the lens, or focus"
    elif "mix" in measures:
        hint = "other things in front of the camera"
    elif measures == {"accuracy"}:
        hint = "images on which the models are confident and wrong, or other labels"
    elif measures & {"confidence", "objective", "agreement"}:
        hint = "images of a kind that the models do not know, although their appearance is as before"
    else:
        return []
    return [Cause("likely", f"likely: {hint}")]


def moved(event: DriftEvent) -> str:
    """Return what moved in words: confidence .85 to .60; of logarithms the change in per cent."""
    if event.shape in {"silence", "ended"}:
        return "no images" if event.shape == "ended" else "a silence"
    if event.measure == "model":
        return "another model"
    if event.shape in {"unrest", "cycle begun", "cycle ended", "cycle changed"}:
        swings = {
            "cycle ended": two(abs(event.before)),
            "cycle changed": f"{two(event.before)} to {two(event.after)}",
        }
        return f"{event.measure}: {event.shape}, a swing of {swings.get(event.shape, two(abs(event.after)))}"
    if event.measure == "mix":
        return f"mix: {event.detail}"
    if event.unit == "log":
        return f"{event.measure} {minus(f'{math.expm1(event.after - event.before):+.0%}'.replace('%', PER_CENT))}"
    if event.measure == "rejects":
        return f"{event.measure} {percent(event.before)} to {percent(event.after)}"
    if event.measure == "rate":
        return f"{event.measure} {_count(event.before)} to {_count(event.after)} {event.unit}"
    return f"{event.measure} {two(event.before)} to {two(event.after)}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2g}"


def _next(event: DriftEvent, roots: Sequence[str]) -> str:
    """Return the command to go on with; of several roots the last is the one that workers write to."""
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
    return utc(us).strftime("%Y-%m-%dT%H:%MZ")
