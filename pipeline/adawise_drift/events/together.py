"""Events that belong together: of one camera and moment (an incident), of two cameras that changed places, of a group.

Where cameras move together a common cause (weather, light, a model) is likelier than a fault of one. What counts are
moves in one direction at one time. How many of them chance brings is known from worlds in which each camera keeps its
own moves, and has them at another time: the fleet's history, with every camera shifted by a draw of its own. Of fleets
of independent cameras at most 5 % have a group at all (`python -m tools.bench together`). The worlds are a permutation
test, whose p-values count the data as one more world (Phipson and Smyth, 2010); the shifts in time and the evidence are
our own (docs/decisions/formulas.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import pdtrc

from adawise.labels.arrays import Flags, Floats, Integers
from adawise.text import percent
from adawise_drift.changes.times import HOUR_US
from adawise_drift.events.result import SEVERITIES, CameraChange, CameraGroup, Cause, DriftEvent

_NEAR_US = 3 * HOUR_US
"""By which the begins of two events of an incident may miss each other, beyond their intervals."""
_LEAD = ("model", "rate", "rejects", "accuracy", "brightness", "contrast", "sharpness", "noise", "colour", "mix")
"""Measures in the order in which an incident reports them: what was done or seen, before what the models make of it."""
_SAME = 1.0 / 3.0  # of a change: how far one camera's new level may be from the other's old one
_LASTS = 0.5  # of the longer of two ramps, spikes and the like: how long both must have lasted to be one incident
_SHARED = 2  # measures that must have been swapped
_MANY_OTHERS = 0.1  # of the other cameras
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
    ordered = {}
    for number, those in found.items():
        first = lead(those)
        rest = sorted((e for e in those if e is not first), key=lambda e: (e.earliest_us, e.since_us, e.measure))
        ordered[number] = (first, *rest)
    return ordered


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
    causes: dict[int, Cause] = {}
    for (one_number, other_number), pairs in shared.items():
        if len(pairs) >= _SHARED:
            measures = ", ".join(sorted({one.measure for one, _ in pairs}))
            for number, name in ((one_number, pairs[0][1].stream_id), (other_number, pairs[0][0].stream_id)):
                causes[number] = Cause(
                    "swap", f"this camera is now as {name} was, and {name} as this one was ({measures}): a swap"
                )
    return [
        replace(event, causes=(causes[event.incident], *event.causes)) if event.incident in causes else event
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
    events_with_causes = []
    for of_cameras in by_measure.values():
        alike = at_once(of_cameras, near_us)
        for stream_id, those in of_cameras.items():
            for event, names in zip(those, alike[stream_id], strict=True):
                events_with_causes.append(replace(event, causes=(*_others(names, cameras - 1), *event.causes)))
    return events_with_causes


def _others(alike: Sequence[str], cameras: int) -> list[Cause]:
    if not alike or len(alike) < _MANY_OTHERS * cameras:
        return []
    named = ", ".join(alike[:_NAMED]) + (f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else "")
    return [Cause("others", f"{len(alike)} of {cameras} other cameras moved the same way then: {named}")]


# -- incidents of many cameras at one moment

_FEWEST_OF_FLEET, _SHARE_OF_FLEET = 3, 0.1  # cameras
_BY_CHANCE = 0.01
_NO_IMAGES = frozenset({"silence", "ended"})


@dataclass(frozen=True, slots=True)
class FleetIncident:
    """The same on many cameras at one moment, which lies between `since_us` and `until_us` for each of them.

    `leads`: the event of each camera that is reported first, the most severe camera first.
    """

    since_us: int
    until_us: int
    leads: tuple[DriftEvent, ...]


def fleet_incidents(events: Sequence[DriftEvent], cameras: int, span_us: tuple[int, int]) -> tuple[FleetIncident, ...]:
    """Return the incidents that a tenth of the cameras have in common, and no fewer than three; the largest first.

    They have a measure, a direction and a moment in common that lies within the interval of each, and so many would
    meet by chance in fewer than one of a hundred histories: a Poisson count of what overlaps a moment (a bound over
    all moments).

    Args:
        events: of all cameras, in the order of the report.
        cameras: how many there are.
        span_us: [since, until] of the time that is judged.
    """
    alike: dict[tuple[str, str], list[DriftEvent]] = {}
    for lead, *_ in incidents(events).values():
        kind = ("rate", "none") if lead.shape in _NO_IMAGES else (lead.measure, f"{lead.shape} {lead.size > 0}")
        alike.setdefault(kind, []).append(lead)
    least = max(_FEWEST_OF_FLEET, _SHARE_OF_FLEET * cameras)
    found = [each for those in alike.values() for each in _at_one_moment(those, least, span_us)]
    return tuple(sorted(found, key=lambda each: (-len(each.leads), each.since_us)))


def _at_one_moment(those: list[DriftEvent], least: float, span_us: tuple[int, int]) -> Iterator[FleetIncident]:
    """Yield the moments that most have in common, one after the other, until too few are left."""
    expected = sum(until - since for since, until in map(_moment_of, those)) / max(1, span_us[1] - span_us[0])
    left = those
    while len(left) >= least:
        best: dict[str, DriftEvent] = {}
        for at, _ in map(_moment_of, left):
            here = {e.stream_id: e for e in reversed(left) if _moment_of(e)[0] <= at <= _moment_of(e)[1]}
            best = max(best, here, key=len)
        if len(best) < least or len(those) * float(pdtrc(len(best) - 2, expected)) > _BY_CHANCE:
            return
        members = [event for event in left if best.get(event.stream_id) is event]
        since, until = zip(*map(_moment_of, members), strict=True)
        yield FleetIncident(max(since), min(until), tuple(members))
        left = [event for event in left if event not in members]


def _moment_of(event: DriftEvent) -> tuple[int, int]:
    """Return between when an event began; silences that begin within three hours of each other are of one moment."""
    if event.shape in _NO_IMAGES:
        return event.since_us, event.since_us + _NEAR_US
    return event.earliest_us, event.latest_us


# -- groups of cameras that moved together more than by chance

_WORLDS, _FEWEST = 400, 100  # the fewest where so much coincides that each of them takes long
_PAIRS = 50_000  # of moves that coincide, from which on there are fewer worlds
_EACH = 0.02  # of the worlds have as much evidence: of many at once, or of two again and again
_SAME_GROUP = 0.5  # of the cameras of two moments (Jaccard), by which they are of one group


@dataclass(frozen=True, slots=True)
class _Moves:
    """All changes of all cameras; arrays `[moves]`: camera's number, direction, middle and half of the interval."""

    camera: Integers
    up: Flags
    middle_us: Floats
    half_us: Floats

    def alike(self, middle_us: Floats, near_us: float) -> Integers:
        """Return `[pairs, 2]`: moves of two cameras in one direction whose intervals nearly meet; each both ways."""
        order = np.argsort(middle_us, kind="stable")
        at = middle_us[order]
        reach = self.half_us[order] + near_us
        last = np.searchsorted(at, at + reach + self.half_us.max(initial=0.0), side="right")
        count = last - np.arange(len(at)) - 1
        first = np.repeat(np.arange(len(at)), count)
        second = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count) + first + 1
        meet = at[second] - at[first] <= reach[first] + self.half_us[order[second]]
        one, other = order[first[meet]], order[second[meet]]
        kept = (self.up[one] == self.up[other]) & (self.camera[one] != self.camera[other])
        pairs = np.stack([one[kept], other[kept]], axis=1)
        return np.concatenate([pairs, pairs[:, ::-1]])

    def evidence(self, pairs: Integers, chance: _Expected) -> _Evidence:
        """Return how little chance explains of what coincides."""
        cameras = chance.counts.shape[1]
        met = np.unique(pairs[:, 0] * cameras + self.camera[pairs[:, 1]])
        move, other = np.divmod(met, cameras)
        at_once = np.bincount(move, minlength=len(self.camera))
        codes, times = np.unique(self.camera[move] * cameras + other, return_counts=True)
        both = np.stack(np.divmod(codes, cameras), axis=1)
        return _Evidence(
            _by_chance(at_once, chance.of_moves),
            both,
            times,
            _by_chance(times, chance.of_pairs(both[:, 0], both[:, 1])),
        )

    def expected(self, span_us: float, near_us: float) -> _Expected:
        """Return what would coincide if every camera had its moves at times of its own."""
        cameras = int(self.camera.max()) + 1
        place = self.up * cameras + self.camera
        counts = np.bincount(place, minlength=2 * cameras).reshape(2, cameras).astype(np.float64)
        widths = np.bincount(place, self.half_us, 2 * cameras).reshape(2, cameras).astype(np.float64)
        way = self.up.astype(np.int64)
        others = counts.sum(axis=1)[way] - counts[way, self.camera]
        wide = widths.sum(axis=1)[way] - widths[way, self.camera]
        of_moves = (others * (self.half_us + near_us) + wide) * 2.0 / span_us
        return _Expected(of_moves, counts, widths, near_us, span_us)


@dataclass(frozen=True, slots=True)
class _Expected:
    """Coincidences by chance: `[moves]` other moves that meet each, and what `of_pairs` needs.

    `counts`, `widths_us`: moves and sums of their half widths, by direction: `[2, cameras]`.
    """

    of_moves: Floats
    counts: Floats
    widths_us: Floats
    near_us: float
    span_us: float

    def of_pairs(self, one: Integers, other: Integers) -> Floats:
        """Return `[pairs]`: moves that two cameras have together by chance."""
        a, b = self.counts[:, one], self.counts[:, other]
        meeting = a * self.widths_us[:, other] + b * self.widths_us[:, one] + self.near_us * a * b
        found: Floats = meeting.sum(axis=0) * 2.0 / self.span_us
        return found


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Logarithms of chances: `[moves]` that so many move with it, `[pairs]` that the two of `both` do so often."""

    of_moves: Floats
    both: Integers
    times: Integers
    of_pairs: Floats

    @property
    def best(self) -> tuple[float, float]:
        """The least of each; 0 where nothing coincides."""
        return float(self.of_moves.min(initial=0.0)), float(self.of_pairs.min(initial=0.0))


def _by_chance(came: Integers, expected: Floats) -> Floats:
    """Return the logarithm of the chance that so many or more come, as `scipy.stats.poisson.logsf(came - 1, expected)`.

    To the bit, without what that costs for a dozen numbers.
    """
    with np.errstate(divide="ignore"):
        return np.where(came > 0, np.log(pdtrc(np.maximum(came - 1, 0), expected)), 0.0)


def groups(
    changes: Mapping[str, Sequence[CameraChange]], span_us: tuple[int, int], near_us: int
) -> tuple[CameraGroup, ...]:
    """Return groups of cameras that moved together more than chance makes them, the largest first.

    Args:
        changes: of each camera, by time.
        span_us: [since, until] of the analysis, in microseconds.
        near_us: by which the moments of two changes may miss each other.
    """
    names = [name for name in changes if changes[name]]
    moves = _moves([changes[name] for name in names])
    if len(names) < 2:
        return ()
    pairs = moves.alike(moves.middle_us, near_us)
    if not len(pairs):
        return ()
    span = float(max(1, span_us[1] - span_us[0]))
    chance = moves.expected(span, near_us)
    found = moves.evidence(pairs, chance)
    count = max(_FEWEST, min(_WORLDS, _WORLDS * _PAIRS // len(pairs)))
    worlds = _worlds(moves, chance, span_us[0], span, near_us, count)
    of_move, of_pair = (float(np.quantile(worlds[:, k], _EACH, method="lower")) for k in (0, 1))
    members = _moments(moves, pairs, found.of_moves < of_move)
    members += _companions(found.both[found.of_pairs < of_pair], members)
    together = []
    for group in members:
        inside = np.isin(found.both, list(group)).all(axis=1)
        times = int(found.times[inside].max())
        best = float(found.of_moves[np.isin(moves.camera, list(group))].min()), float(found.of_pairs[inside].min())
        share = min(float((1 + np.count_nonzero(worlds[:, k] <= best[k])) / (1 + len(worlds))) for k in (0, 1))
        ids = tuple(names[member] for member in sorted(group))
        together.append(CameraGroup(ids, times, share, _sentence(len(ids), times, share)))
    return tuple(sorted(together, key=lambda group: (-len(group.stream_ids), group.stream_ids)))


def at_once(
    changes: Mapping[str, Sequence[CameraChange | DriftEvent]], near_us: int
) -> dict[str, list[tuple[str, ...]]]:
    """Return by camera, for each of its changes, the others that moved the same way: intervals within `near_us`."""
    names = list(changes)
    moves = _moves([changes[name] for name in names])
    alike: list[set[int]] = [set() for _ in moves.camera]
    for one, other in moves.alike(moves.middle_us, near_us).tolist():
        alike[one].add(int(moves.camera[other]))
    found: dict[str, list[tuple[str, ...]]] = {name: [] for name in names}
    for camera, others in zip(moves.camera.tolist(), alike, strict=True):
        found[names[camera]].append(tuple(names[other] for other in sorted(others)))
    return found


def _moves(changes: Sequence[Sequence[CameraChange | DriftEvent]]) -> _Moves:
    every = [(camera, change) for camera, those in enumerate(changes) for change in those]
    since = np.array([change.earliest_us for _, change in every], dtype=np.float64)
    until = np.array([change.latest_us for _, change in every], dtype=np.float64)
    return _Moves(
        np.array([camera for camera, _ in every], dtype=np.int64),
        np.array([change.size > 0 for _, change in every], dtype=bool),
        (since + until) / 2.0,
        (until - since) / 2.0,
    )


def _worlds(moves: _Moves, chance: _Expected, since_us: int, span: float, near_us: int, count: int) -> Floats:
    """Return `[count, 2]`: the best evidence of each fleet in which every camera is shifted in time by itself."""
    rng = np.random.default_rng(0)
    cameras = chance.counts.shape[1]
    found = np.zeros((count, 2))
    for world in range(count):
        shifted = (moves.middle_us - since_us + rng.uniform(0.0, span, (cameras,))[moves.camera]) % span
        found[world] = moves.evidence(moves.alike(shifted, near_us), chance).best
    return found


def _moments(moves: _Moves, pairs: Integers, is_unlikely: Flags) -> list[set[int]]:
    """Return the cameras of each moment at which more moved than by chance.

    Moments of mostly the same cameras are one group.
    """
    found: list[set[int]] = []
    for move in np.flatnonzero(is_unlikely).tolist():
        others = moves.camera[pairs[pairs[:, 0] == move, 1]]
        members = {int(moves.camera[move]), *others.tolist()}
        same = next((group for group in found if len(group & members) >= _SAME_GROUP * len(group | members)), None)
        if same is None:
            found.append(members)
        else:
            same |= members
    return found


def _companions(pairs: Integers, known: Sequence[set[int]]) -> list[set[int]]:
    """Return cameras joined by pairs that moved together again and again, where no group has them yet."""
    left = np.array([pair for pair in pairs.tolist() if not any(group.issuperset(pair) for group in known)])
    if not len(left):
        return []
    size = int(left.max()) + 1
    _, mark = connected_components(coo_array((np.ones(len(left)), (left[:, 0], left[:, 1])), shape=(size, size)))
    members = np.unique(left)
    return [{int(member) for member in members if mark[member] == each} for each in np.unique(mark[members])]


def _sentence(count: int, times: int, chance: float) -> str:
    often = "at one moment" if times == 1 else f"at {times} moments"
    return (
        f"{count} cameras moved the same way {often}. Chance alone would show as much in "
        f"{percent(chance)} of cases or fewer."
    )
