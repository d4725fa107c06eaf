"""The analysis: what was collected -> a report, camera by camera."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from adawise.drift.causes import Looks, Mixes, causes, others, picture
from adawise.drift.changes.find import ALPHA, Change, find_changes
from adawise.drift.collect import Collected, Path
from adawise.drift.result import Camera, CameraChange, Example, Stretch
from adawise.drift.together import at_once

Examples = Callable[[str, CameraChange, int, int], tuple[tuple[Example, ...], Looks]]
"""(stream_id, change, since, until) -> frames near the change, within these times, and what was measured of more."""

_CLASSES = 8  # of a mix
_LEAST_SILENCE_US = 60_000_000
_SILENCE = 8.0  # times as long as the gaps that nineteen of twenty stay below


@dataclass(frozen=True, slots=True)
class Evidence:
    """What can be asked about a change beyond the series: mixes of classes, and frames of a recording."""

    mixes: Mixes
    examples: Examples = lambda *_: ((), {})


def analyse(
    found: Collected, evidence: Evidence, *, smallest: float, done: Callable[[], object] = lambda: None
) -> tuple[Camera, ...]:
    """Every camera, the one that drifted farthest first: evidence is asked for in this order, and may be scarce.

    Args:
        found: what the tables said.
        evidence: for causes and examples.
        smallest: the smallest change of alpha that is looked for, in (0, 1].
        done: called after each camera.
    """
    moved = [_moved(stream_id, found, smallest) for stream_id in found.facts]
    cameras = []
    for camera in sorted(moved, key=lambda camera: (-camera.drift, -camera.travelled, camera.stream_id)):
        cameras.append(replace(camera, changes=_explained(camera, found, evidence)))
        done()
    return tuple(_among_others(cameras, found.bin_us))


def _among_others(cameras: Sequence[Camera], near_us: int) -> list[Camera]:
    """With the last of the causes, which takes all cameras to know: that others moved, too."""
    alike = at_once({camera.stream_id: camera.changes for camera in cameras}, near_us)
    return [
        replace(
            camera,
            changes=tuple(
                replace(change, causes=(*change.causes, *others(names, len(cameras) - 1)))
                for change, names in zip(camera.changes, alike[camera.stream_id], strict=True)
            ),
        )
        for camera in cameras
    ]


def _moved(stream_id: str, found: Collected, smallest: float) -> Camera:
    """With its changes, none of which is explained yet."""
    facts, path = found.facts[stream_id], found.paths[stream_id]
    sensitivity = replace(ALPHA, smallest=smallest)
    moves = find_changes(path.first_us, path.alpha, batches=path.batches, sensitivity=sensitivity)
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
        silences=silences(path),
        series=found.series[stream_id],
    )


def _plain(change: Change) -> CameraChange:
    """A ramp lasts from its begin to its end; a step is as long as one cannot say when it was."""
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
    """Between the changes: a level begins where a ramp has ended."""
    if not changes:
        return (Stretch(int(facts["first_us"]), int(facts["last_us"]), float(facts["alpha"])),)
    ends = [change.latest_us if change.kind == "ramp" else change.time_us for change in changes]
    begins_us, ends_us = [int(facts["first_us"]), *ends], [*(c.time_us for c in changes), int(facts["last_us"])]
    heights = [changes[0].before, *(change.after for change in changes)]
    return tuple(Stretch(a, b, height) for a, b, height in zip(begins_us, ends_us, heights, strict=True))


def _explained(camera: Camera, found: Collected, evidence: Evidence) -> tuple[CameraChange, ...]:
    stream_id, changes = camera.stream_id, camera.changes
    why = causes(stream_id, changes, camera.silences, found, evidence.mixes)
    bounds = [found.since_us, *(change.time_us for change in changes), found.until_us + 1]
    explained = []
    for i, (change, told) in enumerate(zip(changes, why, strict=True)):
        examples, looks = evidence.examples(stream_id, change, bounds[i], bounds[i + 2])
        explained.append(replace(change, causes=(*told, *picture(looks)), examples=examples))
    return tuple(explained)


def _mix(counted: Sequence[tuple[str, int, int, int]]) -> tuple[tuple[str, float, float, float], ...]:
    rows = sum(entry[1] for entry in counted)
    early, late = (max(1, sum(counts)) for counts in ([e[2] for e in counted], [e[3] for e in counted]))
    return tuple((label, n / rows, a / early, b / late) for label, n, a, b in counted[:_CLASSES])


def silences(path: Path) -> tuple[tuple[int, int], ...]:
    """[from, until) of each gap, in microseconds: from the last batch before it to the first one after it."""
    if len(path.first_us) < 2:
        return ()
    gaps = path.first_us[1:] - path.last_us[:-1]
    usual = max(_LEAST_SILENCE_US, _SILENCE * float(np.quantile(gaps, 0.95)))
    return tuple((int(path.last_us[i]), int(path.first_us[i + 1])) for i in np.flatnonzero(gaps > usual))
