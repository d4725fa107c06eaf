"""The events of a camera: changes of each measure, told by their shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from itertools import pairwise

import numpy as np

from adawise.labels.arrays import Integers
from adawise_drift.changes.find import Change, find_changes
from adawise_drift.changes.times import DAY_US
from adawise_drift.events.cycles import cycles, named
from adawise_drift.events.measures import MEASURES, Binned, Measure
from adawise_drift.events.mix import Mixed, mix_changes
from adawise_drift.events.result import DriftEvent, Model, Shape
from adawise_drift.events.unrest import Restless, restless

_SPIKE_US = 2 * DAY_US  # longer is a level of its own
_BACK = 1.0 / 3.0  # of a spike's size: how far from where it began it may end
_NEAR_US = DAY_US // 4


@dataclass(frozen=True, slots=True, eq=False)
class CameraHistory:
    """All that is known of a camera for its events.

    `alpha`: its changes, which were looked for more finely. `gaps`: its silences, [from, until). `ended_us`: its last
    image that was served, if there should be one since; else None. `rejected_us`: since when all that it sends is
    rejected. `zone`: of the clocks beside it.
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
    found += mix_events(of)
    found = [event for event in found if not _of_silence(event, of)]
    return sorted(found, key=lambda event: (event.since_us, event.measure))


def _measured(of: CameraHistory, measure: Measure) -> Iterator[DriftEvent]:
    watched = measure.series(of.binned, of.bin_us)
    swings = cycles(watched.time_us, watched.values, measure.sensitivity, of.zone)
    left = watched.values - swings.part
    if measure.name == "alpha" and not swings.is_known:
        changes = tuple(of.alpha)
    else:
        changes = find_changes(
            watched.time_us,
            left,
            batches=watched.batches,
            sensitivity=replace(measure.sensitivity, cycle=1.0) if swings.is_known else measure.sensitivity,
            zone=of.zone,
        )
    if measure.is_of_counts:
        ends_us = np.append(watched.time_us[1:], watched.end_us)
        changes = tuple(_within_its_point(change, ends_us) for change in changes)
    to_and_fro = () if measure.is_of_counts else restless(watched.time_us, left, measure.sensitivity, of.zone)
    for swing in swings.changes:
        yield _event(of, measure, named(swing), swing, swing, swing.before, swing.after)
    for unrest in to_and_fro:
        yield _unrest(of, measure, unrest)
    told = [c for c in changes if not swings.explains(c) and not any(each.explains(c) for each in to_and_fro)]
    yield from _shaped(of, measure, told)


def _within_its_point(change: Change, ends_us: Integers) -> Change:
    """Return a change with the interval of its point: the images that a point counts lie anywhere in it."""
    earliest_us, latest_us = change.interval_us
    return replace(change, interval_us=(earliest_us, max(latest_us, int(ends_us[change.index]))))


def _shaped(of: CameraHistory, measure: Measure, changes: Sequence[Change]) -> Iterator[DriftEvent]:
    """Yield changes there and back as spikes, and what is left as steps and ramps."""
    rest = list(changes)
    while rest:
        first = rest.pop(0)
        last = rest.pop(0) if rest and _is_back(first, rest[0]) else first
        shape: Shape = "spike" if last is not first else first.kind
        yield _event(of, measure, shape, first, last, measure.shown(first.before), measure.shown(first.after))


def _is_back(first: Change, second: Change) -> bool:
    return (
        second.end_us - first.time_us <= _SPIKE_US
        and first.size * second.size < 0
        and abs(second.after - first.before) <= _BACK * abs(first.size)
    )


def _event(
    of: CameraHistory, measure: Measure, shape: Shape, first: Change, last: Change, before: float, after: float
) -> DriftEvent:
    return DriftEvent(
        stream_id=of.stream_id,
        measure=measure.name,
        shape=shape,
        since_us=first.time_us,
        until_us=last.end_us,
        earliest_us=min(first.interval_us[0], first.time_us),
        latest_us=max(first.interval_us[1], first.time_us),
        before=before,
        after=after,
        unit=measure.unit,
        score=max(first.score, last.score),
    )


def _unrest(of: CameraHistory, measure: Measure, unrest: Restless) -> DriftEvent:
    since_us, until_us = unrest.since_us, unrest.until_us
    return DriftEvent(
        of.stream_id, measure.name, "unrest", since_us, until_us, since_us, since_us + DAY_US, unrest.usual,
        unrest.swing, measure.unit, np.nan,
    )  # fmt: skip


def _delivered(of: CameraHistory) -> Iterator[DriftEvent]:
    for since_us, until_us in of.gaps:
        yield _without_levels(of, "rate", "silence", since_us, until_us)
    if of.ended_us is None:
        return
    if of.rejected_us is None:
        yield _without_levels(of, "rate", "ended", of.ended_us, of.ended_us)
    else:
        event = _without_levels(of, "rejects", "step", of.rejected_us, of.rejected_us)
        usual = of.binned.rejected.sum() / max(1, (of.binned.rejected + of.binned.images).sum())
        yield replace(event, earliest_us=of.ended_us, before=float(usual), after=1.0, unit="share")


def _models(of: CameraHistory) -> Iterator[DriftEvent]:
    for before, after in pairwise(of.models):
        event = _without_levels(of, "model", "model", after.first_us, after.first_us)
        detail = f"{after.fingerprint} after {before.fingerprint}"
        yield replace(event, earliest_us=before.last_us, detail=detail)


def _without_levels(of: CameraHistory, measure: str, shape: Shape, since_us: int, until_us: int) -> DriftEvent:
    return DriftEvent(of.stream_id, measure, shape, since_us, until_us, since_us, since_us, np.nan, np.nan, "", np.nan)


def mix_events(of: CameraHistory) -> Iterator[DriftEvent]:
    """Yield changes of the mix of classes: `after` is the distance (total variation) from the mix before."""
    for change, detail in mix_changes(of.mixed, of.zone):
        yield DriftEvent(
            of.stream_id, "mix", "step", change.time_us, change.end_us, *change.interval_us, 0.0, change.size, "share",
            change.score, detail=detail,
        )  # fmt: skip


def _of_silence(event: DriftEvent, of: CameraHistory) -> bool:
    """Return whether a silence explains an event: a rate falls there, and rejects rise where nothing else comes."""
    if event.measure == "rejects" and of.rejected_us is not None and of.ended_us is not None:
        return bool(np.isfinite(event.score)) and event.until_us >= of.ended_us - _NEAR_US
    if event.measure != "rate" or event.shape in {"silence", "ended"}:
        return False
    gaps = [*of.gaps, *([(of.ended_us, of.ended_us)] if of.ended_us is not None else [])]
    return any(since - _NEAR_US <= event.since_us <= until + _NEAR_US for since, until in gaps)
