"""The events of a camera: the changes of each measure and of the mix of classes, by their shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from itertools import pairwise

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise.text import percent
from adawise_drift.changes.find import Change, Sensitivity, block_means, daily_cycle, find_changes
from adawise_drift.changes.times import DAY_US
from adawise_drift.events.measures import MEASURES, Binned, Measure, Mixed, filled
from adawise_drift.events.result import DriftEvent, Model, Shape
from adawise_drift.events.swings import cycles, named, restless

_SPIKE_US = 2 * DAY_US  # longer is a level of its own
_BACK = 1.0 / 3.0  # of a spike's size: how far from where it began it may end
_NEAR_US = DAY_US // 4


@dataclass(frozen=True, slots=True, eq=False)
class CameraHistory:
    """All that is known of a camera for its events.

    `alpha`: its changes, which were looked for more finely. `gaps`: its silences, [from, until). `ended_us`: its last
    image that was served, if there should be one since; else None. `rejected_us`: since when all that it sends is
    rejected. `zone`: time zone of the camera.
    """

    stream_id: str
    binned: Binned
    bin_us: int
    alpha: Sequence[Change]
    mixed: Mixed
    models: Sequence[Model]
    gaps: Sequence[tuple[int, int]]
    ended_us: int | None
    rejected_us: int | None = None
    zone: tzinfo = UTC


def events(of: CameraHistory) -> list[DriftEvent]:
    """Return the events of a camera by time."""
    found = [*_delivered(of), *_models(of)]
    for measure in MEASURES.values():
        found += _measured(of, measure)
    found += _mixes(of)
    found = [event for event in found if not _is_of_silence(event, of)]
    return sorted(found, key=lambda event: (event.since_us, event.measure))


def _measured(of: CameraHistory, measure: Measure) -> Iterator[DriftEvent]:
    watched = measure.series(of.binned, of.bin_us)
    swings = cycles(watched.time_us, watched.values, measure.sensitivity, of.zone)
    left = watched.values - swings.part
    changes = of.alpha
    if measure.name != "alpha" or swings.changes:
        sensitivity = replace(measure.sensitivity, cycle=1.0) if swings.changes else measure.sensitivity
        batches = watched.batches
        changes = find_changes(watched.time_us, left, batches=batches, sensitivity=sensitivity, zone=of.zone)
    if measure.is_of_counts:
        ends_us = np.append(watched.time_us[1:], watched.end_us)
        changes = [_within_its_point(change, ends_us) for change in changes]
    unrest = () if measure.is_of_counts else restless(watched.time_us, left, measure.sensitivity, of.zone)
    for swing in swings.changes:
        yield _event(of, measure, named(swing), swing, swing, swing.before, swing.after)
    for each in unrest:
        yield DriftEvent(
            of.stream_id, measure.name, "unrest", each.since_us, each.until_us, each.since_us, each.since_us + DAY_US,
            each.usual, each.swing, measure.unit,
        )  # fmt: skip
    rest = [c for c in changes if not swings.explains(c) and not any(each.explains(c) for each in unrest)]
    while rest:  # a change there and back is a spike
        first = rest.pop(0)
        last = rest.pop(0) if rest and _is_back(first, rest[0]) else first
        shape: Shape = "spike" if last is not first else first.kind
        yield _event(of, measure, shape, first, last, measure.shown(first.before), measure.shown(first.after))


def _within_its_point(change: Change, ends_us: Integers) -> Change:
    """Return a change with the interval of its point: the images that a point counts lie anywhere in it."""
    earliest_us, latest_us = change.interval_us
    return replace(change, interval_us=(earliest_us, max(latest_us, int(ends_us[change.index]))))


def _is_back(first: Change, second: Change) -> bool:
    return (
        second.end_us - first.time_us <= _SPIKE_US
        and first.size * second.size < 0
        and abs(second.after - first.before) <= _BACK * abs(first.size)
    )


def _event(
    of: CameraHistory, measure: Measure, shape: Shape, first: Change, last: Change, before: float, after: float
) -> DriftEvent:
    earliest_us, latest_us = min(first.interval_us[0], first.time_us), max(first.interval_us[1], first.time_us)
    score = max(first.score, last.score)
    return DriftEvent(
        of.stream_id, measure.name, shape, first.time_us, last.end_us, earliest_us, latest_us, before, after,
        measure.unit, score,
    )  # fmt: skip


def _delivered(of: CameraHistory) -> Iterator[DriftEvent]:
    for since_us, until_us in of.gaps:
        yield DriftEvent(of.stream_id, "rate", "silence", since_us, until_us, since_us, since_us)
    if of.ended_us is None:
        return
    if of.rejected_us is None:
        yield DriftEvent(of.stream_id, "rate", "ended", *(of.ended_us,) * 4)
    else:
        usual = of.binned.rejected.sum() / max(1, (of.binned.rejected + of.binned.images).sum())
        times = of.rejected_us, of.rejected_us, of.ended_us, of.rejected_us
        yield DriftEvent(of.stream_id, "rejects", "step", *times, float(usual), 1.0, "share")


def _models(of: CameraHistory) -> Iterator[DriftEvent]:
    for before, after in pairwise(of.models):
        detail = f"{after.fingerprint} after {before.fingerprint}"
        times = after.first_us, after.first_us, before.last_us, after.first_us
        yield DriftEvent(of.stream_id, "model", "model", *times, detail=detail)


def _is_of_silence(event: DriftEvent, of: CameraHistory) -> bool:
    """Return whether a silence explains an event: a rate falls there, and rejects rise where nothing else comes."""
    if event.measure == "rejects" and of.rejected_us is not None and of.ended_us is not None:
        return bool(np.isfinite(event.score)) and event.until_us >= of.ended_us - _NEAR_US
    if event.measure != "rate" or event.shape in {"silence", "ended"}:
        return False
    gaps = [*of.gaps, *([(of.ended_us, of.ended_us)] if of.ended_us is not None else [])]
    return any(since - _NEAR_US <= event.since_us <= until + _NEAR_US for since, until in gaps)


# -- the mix of served classes

_IMAGES = 64  # of a point
_BLOCKS = 30  # of a camera's time, of whose means the directions are
_DIRECTIONS = 2
_LEAST = 0.15  # total variation between the mixes before and after
_SENSITIVITY = Sensitivity(smallest=0.08, spread=0.15, memory=16.0, penalty=8.0, settle=32, bins=1024)
_NAMED = 2


def _mixes(of: CameraHistory) -> Iterator[DriftEvent]:
    """Yield changes of the mix: `after` is the total variation from the mix before, `detail` what came and went.

    Shares are looked at as square roots, whose distances are Hellinger's (1909), along the directions in which the mix
    moves most over long times (Eckart and Young, 1936), each as a series of its own.
    """
    mixed = of.mixed
    starts = filled(mixed.counts.sum(axis=1), _IMAGES)
    if len(starts) < 2 * _BLOCKS or mixed.counts.shape[1] < 2:
        return
    counts = np.add.reduceat(mixed.counts, starts, axis=0)
    batches, time_us = np.add.reduceat(mixed.batches, starts), mixed.time_us[starts]
    roots = np.sqrt(counts / counts.sum(axis=1, keepdims=True))
    for column in range(roots.shape[1]):
        roots[:, column] -= daily_cycle(time_us, roots[:, column], least=_SENSITIVITY.cycle, zone=of.zone)
    width = -(-len(roots) // _BLOCKS)
    slow = np.stack([block_means(column, width) for column in roots.T], axis=1)
    ways = np.linalg.svd(slow - slow.mean(axis=0), full_matrices=False)[2][:_DIRECTIONS]
    found: list[Change] = []
    for way in ways:
        series: Floats = roots @ way
        changes = find_changes(time_us, series, batches=batches, sensitivity=replace(_SENSITIVITY, cycle=1.0))
        found += [c for c in changes if not any(abs(c.time_us - known.time_us) < DAY_US for known in found)]
    found.sort(key=lambda change: change.time_us)
    bounds = [int(time_us[0]), *(change.time_us for change in found), int(time_us[-1]) + 1]
    for number, change in enumerate(found):
        end = bounds[number + 2]
        before = counts[(time_us >= bounds[number]) & (time_us < change.time_us)].sum(axis=0)
        after = counts[(time_us >= min(change.end_us, end - 1)) & (time_us < end)].sum(axis=0)
        if not before.sum() or not after.sum():
            continue
        moved = after / after.sum() - before / before.sum()
        distance = float(np.abs(moved).sum() / 2.0)
        if distance >= _LEAST:
            yield DriftEvent(
                of.stream_id, "mix", "step", change.time_us, change.end_us, *change.interval_us, 0.0, distance, "share",
                change.score, detail=_came_and_went(mixed.labels, before, after, moved),
            )  # fmt: skip


def _came_and_went(labels: Sequence[str], before: Integers, after: Integers, moved: Floats) -> str:
    """Return the classes that moved most in words: car 12 % to 55 %; bus 40 % to 5 %."""
    most = np.argsort(-np.abs(moved))[:_NAMED]
    shares = (before / before.sum(), after / after.sum())
    return "; ".join(f"{labels[k]} {percent(shares[0][k])} to {percent(shares[1][k])}" for k in most)
