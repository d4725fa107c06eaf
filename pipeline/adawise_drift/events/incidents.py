"""What belongs together: events of one camera and moment are one incident, two cameras that changed places a swap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from adawise_drift.changes.times import HOUR_US
from adawise_drift.events.result import SEVERITIES, Cause, DriftEvent
from adawise_drift.events.together import at_once

_NEAR_US = 3 * HOUR_US
"""By which the begins of two events of an incident may miss each other, beyond their intervals."""
_LEAD = ("model", "rate", "rejects", "accuracy", "brightness", "contrast", "sharpness", "noise", "colour", "mix")
"""What is told first of an incident: what was done or seen, before what the models make of it."""
_SAME = 1.0 / 3.0  # of a change: how far one camera's new level may be from the other's old one
_LASTS = 0.5  # of the longer of two ramps, spikes and the like: how long both must have lasted to be one incident
_SHARED = 2  # measures that must have been swapped
_ALIKE = 0.1  # of the other cameras
_NAMED = 3


def numbered(events: Sequence[DriftEvent], first: int) -> list[DriftEvent]:
    """Return a camera's events by time, each with the number of its incident, the first of which is given."""
    found: list[list[DriftEvent]] = []
    for event in sorted(events, key=lambda each: (each.earliest_us, each.since_us)):
        same = next((those for those in reversed(found) if _is_one(those[0], event)), None)
        if same is None:
            found.append([event])
        else:
            same.append(event)
    return [replace(event, incident=first + number) for number, those in enumerate(found) for event in those]


def _is_one(begun: DriftEvent, event: DriftEvent) -> bool:
    """Return whether both began at one moment, or last for mostly the same time."""
    if event.earliest_us <= max(begun.latest_us, begun.since_us) + _NEAR_US:
        return True
    both = min(event.until_us, begun.until_us) - max(event.since_us, begun.since_us)
    longer = max(event.until_us - event.since_us, begun.until_us - begun.since_us)
    return longer > 0 and both >= _LASTS * longer


def lead(events: Sequence[DriftEvent]) -> DriftEvent:
    """Return the event of an incident that is reported first."""
    places = {name: place for place, name in enumerate(_LEAD)}
    return min(events, key=lambda e: (SEVERITIES.index(e.severity), places.get(e.measure, len(_LEAD)), -abs(e.score)))


def incidents(events: Sequence[DriftEvent]) -> Mapping[int, tuple[DriftEvent, ...]]:
    """Return the events of each incident by its number, the lead before the others."""
    found: dict[int, list[DriftEvent]] = {}
    for event in events:
        found.setdefault(event.incident, []).append(event)
    told = {}
    for number, those in found.items():
        first = lead(those)
        rest = sorted((e for e in those if e is not first), key=lambda e: (e.earliest_us, e.since_us, e.measure))
        told[number] = (first, *rest)
    return told


def swapped(events: Sequence[DriftEvent]) -> list[DriftEvent]:
    """Return the events; of two cameras that took each other's place, that is the first cause."""
    steps = sorted((e for e in events if e.shape == "step" and e.unit != ""), key=lambda e: e.earliest_us)
    shared: dict[tuple[int, int], list[tuple[DriftEvent, DriftEvent]]] = {}
    for place, one in enumerate(steps):
        for other in steps[place + 1 :]:
            if other.earliest_us > max(one.latest_us, one.since_us) + _NEAR_US:
                break
            if one.measure == other.measure and one.stream_id != other.stream_id and _is_exchanged(one, other):
                shared.setdefault((one.incident, other.incident), []).append((one, other))
    told: dict[int, Cause] = {}
    for (one_number, other_number), pairs in shared.items():
        if len(pairs) >= _SHARED:
            measures = ", ".join(sorted({one.measure for one, _ in pairs}))
            for number, name in ((one_number, pairs[0][1].stream_id), (other_number, pairs[0][0].stream_id)):
                told[number] = Cause(
                    "swap", f"this camera is now as {name} was, and {name} as this one was ({measures}): a swap"
                )
    return [
        replace(event, causes=(told[event.incident], *event.causes)) if event.incident in told else event
        for event in events
    ]


def _is_exchanged(one: DriftEvent, other: DriftEvent) -> bool:
    near = _SAME * min(abs(one.size), abs(other.size))
    return one.size * other.size < 0 and abs(one.after - other.before) <= near and abs(other.after - one.before) <= near


def shared(events: Sequence[DriftEvent], cameras: int, near_us: int) -> list[DriftEvent]:
    """Return the events; where more than a chance few other cameras did the same then, that is a cause."""
    by_measure: dict[str, dict[str, list[DriftEvent]]] = {}
    for event in events:
        by_measure.setdefault(event.measure, {}).setdefault(event.stream_id, []).append(event)
    told = []
    for of_cameras in by_measure.values():
        alike = at_once(of_cameras, near_us)
        for stream_id, those in of_cameras.items():
            for event, names in zip(those, alike[stream_id], strict=True):
                told.append(replace(event, causes=(*_others(names, cameras - 1), *event.causes)))
    return told


def _others(alike: Sequence[str], cameras: int) -> list[Cause]:
    if not alike or len(alike) < _ALIKE * cameras:
        return []
    named = ", ".join(alike[:_NAMED]) + (f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else "")
    return [Cause("others", f"{len(alike)} of {cameras} other cameras moved the same way then: {named}")]
