"""What else changed when alpha did: a likely cause is what happened at the same time, and is told with its numbers.

Nothing here proves a cause. Of each measure the stretch before a change is compared with the one after it, and it is
named only if the two differ by more than the measure varies within them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from adawise.drift.bins import lasting
from adawise.drift.collect import Collected
from adawise.drift.result import CameraChange, Cause, Floats, Integers

_EFFECT = 1.0  # standard deviations between the medians of the two stretches
_POINTS = 5  # at least, of each stretch
_MIX = 0.15  # total variation between two mixes of classes, beyond what chance makes of so many images
_SHARE = 0.02  # of rejects
_LOOK, _LOOK_EFFECT = 0.02, 2.0  # of full scale; few frames are compared, so they must differ by more
_ALIKE = 0.1  # of the other cameras
_NAMED = 3

Mixes = Callable[[str, int, int, int], Mapping[str, tuple[int, int]]]
"""(stream_id, at, since, until), in microseconds -> rows by class: before and after `at`."""

Looks = Mapping[str, tuple[Floats, Floats]]
"""What is measured of a picture -> its values `[frames]` before and after, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """[since, earliest) before a change and [latest, until) after it: as far as the levels surely reach.

    Where too little is left, because nobody can say when exactly the change was, or the one next to it: from its likely
    time to those of its neighbours, `bounds`.
    """

    since_us: int
    earliest_us: int
    latest_us: int
    until_us: int
    bounds: tuple[int, int, int]

    def split(self, time_us: Integers, values: Floats) -> tuple[Floats, Floats]:
        known = np.isfinite(values)
        first_us, at_us, end_us = self.bounds
        before = known & (time_us >= self.since_us) & (time_us < self.earliest_us)
        if np.count_nonzero(before) < _POINTS:
            before = known & (time_us >= first_us) & (time_us < at_us)
        after = known & (time_us >= self.latest_us) & (time_us < self.until_us)
        if np.count_nonzero(after) < _POINTS:
            after = known & (time_us >= at_us) & (time_us < end_us)
        return values[before], values[after]


def causes(
    stream_id: str, changes: Sequence[CameraChange], silences: Sequence[tuple[int, int]], found: Collected, mixes: Mixes
) -> tuple[tuple[Cause, ...], ...]:
    """Of each change, the surest first: what was done to the worker, then what the camera did, then what it saw."""
    told = []
    for number, change in enumerate(changes):
        since_us = changes[number - 1].latest_us if number else found.since_us
        until_us = changes[number + 1].earliest_us if number + 1 < len(changes) else found.until_us + 1
        stretch = _Stretch(
            since_us,
            change.earliest_us,
            max(change.latest_us, change.earliest_us + 1),
            until_us,
            bounds=(
                changes[number - 1].time_us if number else found.since_us,
                change.time_us,
                changes[number + 1].time_us if number + 1 < len(changes) else found.until_us + 1,
            ),
        )
        near = max(found.bin_us, change.latest_us - change.earliest_us)
        within = (change.earliest_us - near, change.latest_us + near)
        told.append(
            (
                *_done(stream_id, found, within),
                *_silent(silences, within),
                *_levels(stream_id, found, stretch),
                *_mix(mixes(stream_id, change.time_us, since_us, until_us)),
                *_rejects(stream_id, found, stretch),
            )
        )
    return tuple(told)


def _done(stream_id: str, found: Collected, within: tuple[int, int]) -> list[Cause]:
    """Another model, other settings."""
    told = []
    models = found.models.get(stream_id, ())
    for before, after in pairwise(models):
        if within[0] <= after.first_us <= within[1]:
            told.append(Cause("model", f"another model began to serve: {after.fingerprint} after {before.fingerprint}"))
    for at, why in found.starts.get(stream_id, ()):
        if within[0] <= at <= within[1]:
            what = "the settings of the search changed" if why == "settings_changed" else "it was silent for too long"
            told.append(Cause("reset", f"the adaptation began anew, because {what}"))
    return told


def _silent(silences: Sequence[tuple[int, int]], within: tuple[int, int]) -> list[Cause]:
    return [
        Cause("silence", f"the camera was silent for {lasting(until - since)} before it")
        for since, until in silences
        if within[0] <= until <= within[1] or (since < within[0] and until > within[1])
    ]


def _levels(stream_id: str, found: Collected, stretch: _Stretch) -> list[Cause]:
    path, series = found.paths[stream_id], found.series[stream_id]
    told = []
    objective = _moved(*stretch.split(path.first_us, path.objective))
    if objective:
        told.append(Cause("objective", f"the objective went from {objective[0]:.2f} to {objective[1]:.2f}"))
    confidence = _moved(*stretch.split(series.time_us, series.confidence))
    if confidence:
        told.append(Cause("confidence", f"the mean confidence went from {confidence[0]:.2f} to {confidence[1]:.2f}"))
    agree = _moved(*stretch.split(series.time_us, series.endpoints_agree))
    if agree:
        sentence = (
            f"zero-shot and fine-tuned agree on {agree[1]:.0%} of the images that both saw, before on {agree[0]:.0%}"
        )
        told.append(Cause("confidence", sentence))
    return told


def picture(looks: Looks) -> list[Cause]:
    """How the frames right after a change differ from those right before it."""
    told = []
    for name, (before, after) in looks.items():
        moved = _moved(before, after, effect=_LOOK_EFFECT, least=_LOOK)
        if moved:
            told.append(f"{name} {moved[0]:.2f} to {moved[1]:.2f}")
    return [Cause("picture", f"the pictures changed: {', '.join(told)}")] if told else []


def _moved(
    before: Floats, after: Floats, *, effect: float = _EFFECT, least: float = 1e-3
) -> tuple[float, float] | None:
    """The two medians, if they differ by more than the values vary around them."""
    if len(before) < _POINTS or len(after) < _POINTS:
        return None
    a, b = float(np.median(before)), float(np.median(after))
    spread = 1.4826 * float(np.median(np.abs(np.r_[before - a, after - b])))
    return (a, b) if abs(b - a) > max(effect * spread, least) else None


def _mix(rows: Mapping[str, tuple[int, int]]) -> list[Cause]:
    """Another mix of classes: half the sum of the differences of shares, beyond its mean if nothing had changed."""
    before, after = (sum(counts[side] for counts in rows.values()) for side in (0, 1))
    if not before or not after:
        return []
    shares = {label: (counts[0] / before, counts[1] / after) for label, counts in rows.items()}
    distance = sum(abs(a - b) for a, b in shares.values()) / 2.0
    pooled = [(a * before + b * after) / (before + after) for a, b in shares.values()]
    chance = sum(math.sqrt(2.0 / math.pi * p * (1.0 - p) * (1.0 / before + 1.0 / after)) for p in pooled) / 2.0
    if distance < _MIX + chance:
        return []
    label = max(shares, key=lambda name: abs(shares[name][1] - shares[name][0]))
    sentence = (
        f"the mix of classes changed by {distance:.0%}, most of all {label!r}: {shares[label][1]:.0%} of the images, "
        f"before {shares[label][0]:.0%}"
    )
    return [Cause("classes", sentence)]


def _rejects(stream_id: str, found: Collected, stretch: _Stretch) -> list[Cause]:
    series = found.series[stream_id]
    share = []
    for values in (series.rejected, series.images):
        before, after = stretch.split(series.time_us, values.astype(np.float64))
        share.append((before.sum(), after.sum()))
    rejected, images = share
    before, after = (rejected[side] / max(1.0, rejected[side] + images[side]) for side in (0, 1))
    if abs(after - before) < _SHARE:
        return []
    return [Cause("rejects", f"{after:.0%} of its images were rejected, before {before:.0%}")]


def others(alike: Sequence[str], cameras: int) -> list[Cause]:
    """Cameras that moved the same way at the same time, if they are more than a chance few of `cameras` others."""
    if not alike or len(alike) < _ALIKE * cameras:
        return []
    named = ", ".join(alike[:_NAMED]) + (f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else "")
    return [Cause("others", f"{len(alike)} of {cameras} other cameras moved the same way then: {named}")]
