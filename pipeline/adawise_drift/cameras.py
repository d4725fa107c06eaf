"""The arrays of all cameras -> each camera, and the events of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, tzinfo
from functools import partial

import numpy as np

from adawise.labels.arrays import selected
from adawise.watch.status.facts import lacking
from adawise_drift.changes.find import ALPHA, Change, Sensitivity, find_changes
from adawise_drift.changes.times import DAY_US, UTC_CLOCKS, Clocks, local_us
from adawise_drift.collect import Collected, DriftPath
from adawise_drift.events.accuracy import over_time
from adawise_drift.events.calendar import calendar
from adawise_drift.events.find import CameraHistory, events
from adawise_drift.events.known import KnownSpan, with_known
from adawise_drift.events.measures import MEASURES, NO_MIX
from adawise_drift.events.result import NO_STAYS, SEVERITIES, Camera, CameraChange, DriftEvent, Example, Stretch
from adawise_drift.events.severity import Surroundings, explained
from adawise_drift.events.together import incidents, numbered, shared, swapped

Examples = Callable[[str, int, int, int, int], tuple[Example, ...]]
"""(stream_id, before, after, since, until) -> frames nearest before a time and after another, within the last two."""

_CLASSES = 8  # of a mix
_LEAST_SILENCE_US = 60_000_000
_SILENCE = 8.0  # times as long as the gaps that nineteen of twenty stay below
_LATE_US = 7 * DAY_US  # before the time that is judged: so late an event is reported, if it was not known then
_NIGHTLY, _NIGHTS = 1.5, 4  # times as long as the longest of most days, once so many were seen


def analyse_cameras(
    found: Collected,
    roots: Sequence[str],
    *,
    smallest: float,
    examples: Examples = lambda *_: (),
    known: Sequence[KnownSpan] = (),
    clocks: Clocks = UTC_CLOCKS,
    done: Callable[[], object] = lambda: None,
) -> tuple[tuple[Camera, ...], tuple[DriftEvent, ...]]:
    """Return every camera, the one that drifted farthest first, and the events of all measures.

    Of the events the worst incident comes first, its events together.

    Args:
        found: the arrays of the tables.
        roots: for the commands to go on with.
        smallest: the smallest change of alpha that is looked for, in (0, 1].
        examples: asked for frames, which may be scarce, of each incident that is more than noted, in their order.
        known: what is no alarm.
        clocks: by which days and nights are.
        done: called after each camera.
    """
    sensitivity = replace(ALPHA, smallest=smallest)
    cameras, happened = [], list[DriftEvent]()
    for stream_id in found.facts:
        known_at = partial(_history, stream_id, found, sensitivity, clocks.at(stream_id))
        of = known_at(found.until_us + 1)
        cameras.append(_camera(of, found))
        happened += _happened(of, known_at, found, roots, first=1 + max((e.incident for e in happened), default=0))
        done()
    ranked = by_severity(with_known(shared(swapped(happened), len(cameras), found.bin_us), known, clocks))
    cameras.sort(key=lambda camera: (-camera.drift, -camera.travelled, camera.stream_id))
    incidents = [(_with_frames(lead, found, examples), *others) for lead, *others in ranked]
    return tuple(cameras), tuple(event for those in incidents for event in those)


def _with_frames(lead: DriftEvent, found: Collected, examples: Examples) -> DriftEvent:
    """Return the lead of an incident, with frames if it is more than noted."""
    if lead.severity == "noted":
        return lead
    after_us = lead.until_us if lead.shape in {"ramp", "silence"} else max(lead.latest_us, lead.earliest_us + 1)
    frames = examples(lead.stream_id, lead.earliest_us, after_us, found.since_us, found.until_us + 1)
    return replace(lead, examples=frames)


def _history(stream_id: str, found: Collected, sensitivity: Sensitivity, zone: tzinfo, end_us: int) -> CameraHistory:
    """Return what is known of a camera from before a time."""
    path, binned, mixed = found.paths[stream_id], found.binned[stream_id], found.mixed.get(stream_id, NO_MIX)
    if end_us <= found.until_us:
        path = selected(path, path.first_us < end_us)
        binned, mixed = selected(binned, binned.time_us < end_us), selected(mixed, mixed.time_us < end_us)
    gaps, ended_us = silences(path, min(end_us, found.until_us), zone)
    return CameraHistory(
        stream_id=stream_id,
        binned=binned,
        bin_us=found.wide_us,
        alpha=find_changes(path.first_us, path.alpha, batches=path.batches, sensitivity=sensitivity, zone=zone),
        mixed=mixed,
        models=[model for model in found.models.get(stream_id, ()) if model.first_us < end_us],
        gaps=gaps[: len(gaps) - (ended_us is not None)],
        ended_us=ended_us,
        rejected_us=found.all_rejected.get(stream_id) if end_us > found.until_us else None,
        zone=zone,
    )


def _happened(
    of: CameraHistory, known_at: Callable[[int], CameraHistory], found: Collected, roots: Sequence[str], *, first: int
) -> list[DriftEvent]:
    """Return the events of the time that is judged, and those before it that may have been chance until then.

    A mix of classes or an accuracy may take nights to be sure of. It is reported once two nights agree on it, for noise
    that is looked at each night comes and goes.
    """
    stays = found.stays.get(of.stream_id, NO_STAYS)
    known = Surroundings(of.binned, found.until_us, found.starts.get(of.stream_id, ()), stays)
    happened = explained(numbered(events(of), first), known, roots)
    now = [event for event in happened if _is_of(event, found.judged_us)]
    late = [event for event in happened if event not in now and _is_slow(event, found.judged_us - _LATE_US)]
    if late:
        night_us = found.judged_us - DAY_US
        was, before = (events(known_at(at)) if of.binned.time_us[0] < at else [] for at in (found.judged_us, night_us))
        unreported = [event for event in was if not _is_of(event, night_us)]
        late = [event for event in late if _is_among(event, unreported) and not _is_among(event, before)]
    return [*now, *late]


def _is_slow(event: DriftEvent, since_us: int) -> bool:
    """Return whether it is of counts, which say little of single hours; all else shows within a day."""
    is_of_counts = event.measure == "mix" or (event.measure in MEASURES and MEASURES[event.measure].is_of_counts)
    return is_of_counts and event.since_us >= since_us


def _is_among(event: DriftEvent, known: Sequence[DriftEvent]) -> bool:
    return any(
        event.measure == each.measure
        and each.earliest_us - DAY_US <= event.since_us <= max(each.latest_us, each.until_us) + DAY_US
        for each in known
    )


def _is_of(event: DriftEvent, since_us: int) -> bool:
    """Return whether it is of the time from then on: it was then, or it may have been, or it lasts."""
    return event.shape == "ended" or max(event.since_us, event.until_us, event.latest_us) >= since_us


def by_severity(events: Sequence[DriftEvent]) -> list[tuple[DriftEvent, ...]]:
    """Return the incidents, the worst first, and of these the one that surely cost most; the lead of each is first."""

    def rank(those: Sequence[DriftEvent]) -> tuple[int, float, float, int]:
        worst = min(SEVERITIES.index(event.severity) for event in those)
        cost = min((e.cost.accuracy for e in those if e.cost is not None and e.cost.high < 0.0), default=0.0)
        return worst, cost, -float(np.nan_to_num(max(abs(event.score) for event in those))), those[0].since_us

    return sorted(incidents(events).values(), key=rank)


def _camera(of: CameraHistory, found: Collected) -> Camera:
    """Return a camera with its changes."""
    stream_id, facts = of.stream_id, found.facts[of.stream_id]
    moves = [each for each in of.alpha if each.interval_us[1] >= found.judged_us]
    gaps = [*of.gaps, *([] if of.ended_us is None else [(of.ended_us, found.until_us)])]
    changes = tuple(_plain(change) for change in moves)
    levels = _levels(changes, facts)
    heights = [level.alpha for level in levels]
    return Camera(
        stream_id=stream_id,
        **facts,
        drift=max(heights) - min(heights),
        travelled=sum(abs(change.size) for change in changes),
        levels=levels,
        changes=changes,
        class_mix=_mix(found.classes.get(stream_id, ())),
        reasons=found.reasons.get(stream_id, {}),
        resets=found.resets.get(stream_id, {}),
        lacking=tuple(lacking(*found.off_list[stream_id])) if stream_id in found.off_list else (),
        silences=tuple(gap for gap in gaps if gap[1] >= found.judged_us),
        series=found.series[stream_id],
        accuracy=over_time([found.binned[stream_id]]),
        calendar=calendar(found.stays.get(stream_id, NO_STAYS), of.zone),
    )


def _plain(change: Change) -> CameraChange:
    """Return a change with its times: a ramp from begin to end, a step as long as its moment is not known."""
    since_us, until_us = (change.time_us, change.end_us) if change.kind == "ramp" else change.interval_us
    return CameraChange(
        time_us=change.time_us,
        earliest_us=min(since_us, change.time_us),
        latest_us=max(until_us, change.time_us),
        before=min(max(change.before, 0.0), 1.0),  # without the daily cycle it may lie beyond
        after=min(max(change.after, 0.0), 1.0),
        kind=change.kind,
    )


def _levels(changes: Sequence[CameraChange], facts: Mapping[str, float]) -> tuple[Stretch, ...]:
    """Return the levels between the changes; a level begins where a ramp has ended."""
    if not changes:
        return (Stretch(int(facts["first_us"]), int(facts["last_us"]), float(facts["alpha"])),)
    ends = [change.latest_us if change.kind == "ramp" else change.time_us for change in changes]
    begins_us, ends_us = [int(facts["first_us"]), *ends], [*(c.time_us for c in changes), int(facts["last_us"])]
    heights = [changes[0].before, *(change.after for change in changes)]
    return tuple(Stretch(a, b, height) for a, b, height in zip(begins_us, ends_us, heights, strict=True))


def _mix(counted: Sequence[tuple[str, int, int, int]]) -> tuple[tuple[str, float, float, float], ...]:
    rows = sum(entry[1] for entry in counted)
    early, late = (max(1, sum(counts)) for counts in ([e[2] for e in counted], [e[3] for e in counted]))
    return tuple((label, n / rows, a / early, b / late) for label, n, a, b in counted[:_CLASSES])


def silences(path: DriftPath, until_us: int, zone: tzinfo = UTC) -> tuple[tuple[tuple[int, int], ...], int | None]:
    """Return [from, until) of each gap, in microseconds, and since when it is silent, if it should have sent since.

    From the last batch before a gap to the first one after it; that which lasts at the end of all is the last of them.
    A gap that a camera has every night is none; nights are counted by the clocks of `zone`.
    """
    gaps = path.first_us[1:] - path.last_us[:-1]
    rest = until_us - int(path.last_us[-1])
    if not len(gaps):
        return (), None
    day = local_us(path.first_us[1:], zone) // DAY_US
    starts = np.flatnonzero(np.diff(day, prepend=day[0] - 1))
    nightly = float(np.median(np.maximum.reduceat(gaps, starts))) if len(starts) >= _NIGHTS else 0.0
    usual = max(_LEAST_SILENCE_US, _SILENCE * float(np.quantile(gaps, 0.95)), _NIGHTLY * nightly)
    found = [(int(path.last_us[i]), int(path.first_us[i + 1])) for i in np.flatnonzero(gaps > usual)]
    if rest <= usual:
        return tuple(found), None
    return (*found, (int(path.last_us[-1]), until_us)), int(path.last_us[-1])
