"""Incidents on the page: in words, on one line of time, and the advice above them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adawise.labels.benefit.helped import Arm, Helped
from adawise.page import Key, theme
from adawise.text import LEVEL, as_long_duration, counted, listed, points, three, two
from adawise_drift.changes.times import DAY_US, HOUR_US, shift_us, utc, utc_us
from adawise_drift.events.result import SEVERITIES, Camera, CameraChange, Cause, DriftEvent, Example, Severity
from adawise_drift.events.severity import moved
from adawise_drift.events.together import FleetIncident, fleet_incidents, incidents
from adawise_drift.report import Report
from adawise_drift.words import cost, happened, when

CARDS = 12  # incidents of the first screen
ROWS = 40  # cameras of the line of time
_TICKS = 8
_STEPS_US = (
    *(h * HOUR_US for h in (1, 2, 3, 6, 12)),
    *(d * DAY_US for d in (1, 2, 3, 4, 5, 7, 10, 15, 30, 60, 90, 180)),
)
_LASTING = frozenset({"ramp", "spike", "unrest", "silence"})
_COLOURS = {"failing": theme.FINE_TUNED, "changed": theme.LEVEL, "noted": theme.MUTED}
_MARKS = {  # shape -> the outline of its mark; of steps, where they went
    "ramp": "triangle-right",
    "spike": "cross",
    "unrest": "zigzag",
    "cycle begun": "circle",
    "cycle ended": "circle",
    "cycle changed": "circle",
    "silence": "pause",
    "ended": "saltire",
    "model": "square",
}
_SHAPES = (
    Key("step up: a new level", "triangle-up", theme.INK),
    Key("step down", "triangle-down", theme.INK),
    Key("another mix of classes", "diamond", theme.INK),
    Key("ramp: slowly to a new level", "triangle-right", theme.INK),
    Key("spike: there and back within two days", "cross", theme.INK),
    Key("unrest: back and forth, no level lasts", "zigzag", theme.INK),
    Key("cycle: a swing by day and night began, ended or changed", "circle", theme.INK),
    Key("silence: no images for unusually long", "pause", theme.INK),
    Key("ended: no images since", "saltire", theme.INK),
    Key("another model", "square", theme.INK),
)


@dataclass(frozen=True)
class Mark:
    """A mark on the line of time from `at` to `until`, in hundredths of the whole; the same where it is a moment."""

    outline: str
    at: float
    until: float


@dataclass(frozen=True)
class IncidentShown:
    """An incident: what happened to a camera at one moment. `place` is its number among those of the camera, from 1."""

    anchor: str
    place: int
    events: tuple[DriftEvent, ...]  # the lead first
    when: str
    moved: tuple[str, ...]
    cost: str
    causes: tuple[Cause, ...]
    examples: tuple[Example, ...]
    mark: Mark

    @property
    def lead(self) -> DriftEvent:
        """The event that is reported first."""
        return self.events[0]

    @property
    def matters(self) -> bool:
        """True if it is more than noted."""
        return self.lead.severity != "noted"

    @property
    def summary(self) -> str:
        """The incident in one line."""
        return f"{self.lead.state}, {self.when}: {'; '.join(self.moved)}"

    @property
    def words(self) -> str:
        """The words by which a reader finds it."""
        kinds = {word for event in self.events for word in (event.measure, event.shape, event.state)}
        return " ".join([self.lead.stream_id, *sorted(kinds)])


@dataclass(frozen=True)
class FleetShown:
    """The same on many cameras at once, in words; `incidents` are those of its cameras, `mark` as of each."""

    severity: Severity
    headline: str
    when: str
    cost: str
    incidents: tuple[IncidentShown, ...]
    mark: Mark


@dataclass(frozen=True)
class Timeline:
    """Cameras with incidents, the worst first; `ticks` are places in hundredths, with their words.

    `keys` explain the shapes that are there; `grid` is where a pattern of lines begins, and its width.
    """

    rows: tuple[tuple[str, tuple[IncidentShown, ...]], ...]
    more: int
    since_us: int
    ticks: tuple[tuple[float, str], ...]
    keys: tuple[Key, ...]
    grid: tuple[float, float]


def all_incidents(report: Report) -> tuple[IncidentShown, ...]:
    """Return the incidents in the order of the report: the worst first."""
    by_incident = incidents(report.events)
    order = sorted(by_incident, key=lambda number: by_incident[number][0].since_us)
    places: dict[int, int] = {}
    count: dict[str, int] = {}
    for number in order:
        name = by_incident[number][0].stream_id
        places[number] = count[name] = count.get(name, 0) + 1
    return tuple(_shown(report, number, places[number], those) for number, those in by_incident.items())


def by_camera(shown: Sequence[IncidentShown]) -> dict[str, tuple[IncidentShown, ...]]:
    """Return the incidents of each camera by time; the cameras in the order in which they come first."""
    found: dict[str, list[IncidentShown]] = {}
    for each in shown:
        found.setdefault(each.lead.stream_id, []).append(each)
    worst = {name: min(SEVERITIES.index(each.lead.severity) for each in those) for name, those in found.items()}
    return {
        name: tuple(sorted(found[name], key=lambda each: each.place)) for name in sorted(found, key=worst.__getitem__)
    }


def at_once(report: Report, shown: Sequence[IncidentShown]) -> tuple[FleetShown, ...]:
    """Return what happened to many cameras at once and is more than noted, the worst first."""
    by_number = {each.lead.incident: each for each in shown}
    span_us = _since_us(report), report.until_us
    found = [
        _of_fleet(each, [by_number[lead.incident] for lead in each.leads], report)
        for each in fleet_incidents(report.events, len(report.cameras), span_us)
    ]
    matter = [each for each in found if each.severity != "noted"]
    return tuple(sorted(matter, key=lambda each: SEVERITIES.index(each.severity)))


def _of_fleet(each: FleetIncident, members: list[IncidentShown], report: Report) -> FleetShown:
    lead, zone = each.leads[0], report.clocks.zone
    worst = min((event.severity for event in each.leads), key=SEVERITIES.index)
    if worst == "noted" and 2 * len(members) > len(report.cameras):
        worst = "changed"  # minor for one camera, and not for most
    first_us, last_us, end_us = each.since_us, each.until_us, max(event.until_us for event in each.leads)
    if is_silent := lead.shape in {"silence", "ended"}:
        first_us, last_us = (f(event.since_us for event in each.leads) for f in (min, max))
    lasts = lead.shape in _LASTING
    over = f"; over on all by {when(end_us, end_us, zone)}" if lasts else ""
    return FleetShown(
        severity=worst,
        headline=f"{len(members)} of {counted(len(report.cameras), 'camera')} at once: {_alike(each.leads)}",
        when=f"began {when(first_us, last_us, zone)}{over}",
        cost=_silent_for(each.leads) if is_silent else _mean_cost(each.leads),
        incidents=tuple(members),
        mark=Mark(outline(lead), _share(first_us, report), _share(end_us if lasts else first_us, report)),
    )


def _silent_for(leads: Sequence[DriftEvent]) -> str:
    lasted_us = sorted(lead.until_us - lead.since_us for lead in leads)[len(leads) // 2]
    return f"no images for {as_long_duration(round(lasted_us / 60e6) * 60.0)} (median over the cameras)"


def _mean_cost(leads: Sequence[DriftEvent]) -> str:
    costs = [lead.cost.accuracy for lead in leads if lead.cost is not None and lead.cost.how == "measured"]
    if not costs:
        return "accuracy: cost unknown, since too few labels are on both sides"
    return (
        f"accuracy {points(sum(costs) / len(costs))} points on average over {counted(len(costs), 'camera')} with labels"
    )


def _alike(leads: Sequence[DriftEvent]) -> str:
    """Return what moved, in the words for one of them if it is the same for all."""
    words = {moved(lead) for lead in leads}
    first = leads[0]
    if len(words) == 1 or first.shape in {"silence", "ended"}:
        return moved(first)
    way = "" if first.measure == "mix" or not first.size else " higher" if first.size > 0 else " lower"
    return f"{first.measure}{way}, on {first.stream_id} {moved(first).removeprefix(f'{first.measure} ')}"


def timeline(report: Report, shown: Sequence[IncidentShown]) -> Timeline:
    """Return the line of the time that is judged."""
    rows = tuple(by_camera(shown).items())
    since_us = _since_us(report)
    span_us = report.until_us - since_us + 1
    zone = report.clocks.zone
    step_us = next((step for step in _STEPS_US if step * _TICKS >= span_us), _STEPS_US[-1])
    shown_us = range(-(-(since_us + shift_us(since_us, zone)) // step_us) * step_us, report.until_us + DAY_US, step_us)
    at_us = [(utc_us(shown, zone), _tick(shown, step_us)) for shown in shown_us]
    ticks = [((at - since_us) / span_us * 100, words) for at, words in at_us if since_us <= at < report.until_us]
    shapes = {each.mark.outline for _, those in rows[:ROWS] for each in those}
    width = 100 * step_us / span_us
    begin = ticks[0][0] / (100 - width) * 100 if ticks and width < 100 else 0.0  # as CSS places what repeats
    keys = tuple(key for key in _SHAPES if key.shape in shapes)
    return Timeline(rows[:ROWS], len(rows[ROWS:]), since_us, tuple(ticks), keys, (begin, width))


def marks(shown: Sequence[IncidentShown], report: Report) -> list[dict[str, Any]]:
    """Return what figures mark of each event: when in milliseconds, and a sign with the incident's number."""
    found = []
    for each in shown:
        for event in each.events:
            sign = "◆" if event.measure == "mix" or not event.size else "▲" if event.size > 0 else "▼"
            since_us, until_us = _span(event, report)
            found.append(
                {
                    "measure": event.measure,
                    "at": since_us / 1e3,
                    "until": until_us / 1e3,
                    "mark": f"{sign if math.isfinite(event.size) else '◆'}{each.place}",
                    "colour": _COLOURS[event.severity],
                }
            )
    return found


def outline(event: DriftEvent) -> str:
    """Return the name of the outline of an event's mark."""
    upwards = "triangle-up" if event.size > 0 else "triangle-down"
    return _MARKS.get(event.shape, "diamond" if event.measure == "mix" else upwards)


def _shown(report: Report, number: int, place: int, those: tuple[DriftEvent, ...]) -> IncidentShown:
    lead = those[0]
    causes: dict[str, Cause] = {}
    for cause in (cause for event in those for cause in event.causes):
        if cause.kind != "incident":  # its measures are listed already
            causes.setdefault(cause.kind, cause)
    return IncidentShown(
        anchor=f"incident-{number}",
        place=place,
        events=those,
        when=happened(lead, report.clocks.at(lead.stream_id)),
        moved=tuple(moved(event) for event in those),
        cost=cost(lead.cost),
        causes=tuple(causes.values()),
        examples=lead.examples,
        mark=_mark(lead, report),
    )


def _mark(event: DriftEvent, report: Report) -> Mark:
    at, until = (_share(us, report) for us in _span(event, report))
    return Mark(outline(event), at, until)


def _span(event: DriftEvent, report: Report) -> tuple[int, int]:
    """Return from when until when, or twice its moment."""
    if event.shape == "ended":
        return event.since_us, report.until_us
    return event.since_us, event.until_us if event.shape in _LASTING else event.since_us


def _share(us: int, report: Report) -> float:
    since_us = _since_us(report)
    return 100 * min(1.0, max(0.0, (us - since_us) / (report.until_us - since_us + 1)))


def _since_us(report: Report) -> int:
    return max(report.since_us, report.judged_us)


def _tick(us: int, step_us: int) -> str:
    return utc(us).strftime("%b %d" if step_us >= DAY_US or us % DAY_US == 0 else "%H:%M")


# -- the advice in three sentences: what happened to whom first, how far alpha moved, if it helped

_NAMED = 3
_STATES = ("failing", "changed", "silent")
_WORDS = {1: "better than", -1: "worse than", 0: "not shown to differ from"}  # by the sign of an interval


@dataclass(frozen=True)
class DriftAdvice:
    """`headline` says what happened to how many, and to whom first."""

    headline: str
    sentences: tuple[str, ...]


def advise(report: Report, shown: Sequence[IncidentShown], of_fleet: Sequence[FleetShown] = ()) -> DriftAdvice:
    """Return the advice of a report, whose incidents are `shown`; those of many cameras at once lead."""
    headline, first = _headline(report, shown), ""
    if of_fleet:
        first = f"{of_fleet[0].headline}, {of_fleet[0].when}. {_capital(of_fleet[0].cost)}."
        headline = f"{of_fleet[0].headline}; in all {_states(report)}"
    sentences = (_fallen(report), first, _first(report, shown), _farthest(report), _helped(report.helped))
    return DriftAdvice(headline, tuple(sentence for sentence in sentences if sentence))


def _fallen(report: Report) -> str:
    if not report.fallen:
        return ""
    names = [each.stream_id for each in report.fallen]
    more = f" and {len(names) - CARDS} more" if len(names) > CARDS else ""
    of = counted(len(names), "camera", "cameras")
    return f"Labels show that the accuracy of {of} fell: {', '.join(names[:CARDS])}{more}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def largest(camera: Camera) -> CameraChange | None:
    """Return the change of the greatest size, the first of equals."""
    return max(camera.changes, key=lambda change: abs(change.size), default=None)


def _headline(report: Report, shown: Sequence[IncidentShown]) -> str:
    heavy = [each for each in shown if each.matters]
    if not heavy:
        noted = f"; {counted(len(shown), 'passing event', 'passing events')} noted" if shown else ""
        return f"No event above severity noted on {counted(len(report.cameras), 'camera', 'cameras')}{noted}"
    first = heavy[0]
    of = f"Of {len(report.cameras)} cameras {_states(report)}; first " if len(report.cameras) > 1 else ""
    return f"{of}{first.lead.stream_id}: {first.moved[0]}"


def _states(report: Report) -> str:
    fleet = report.fleet
    return listed(f"{fleet[name]} {name}" for name in _STATES if fleet[name]) or "no camera failing, changed or silent"


def _first(report: Report, shown: Sequence[IncidentShown]) -> str:
    first = next((each for each in shown if each.matters), None)
    if first is None:
        return ""
    count = len(first.moved)
    rest = f"; {'; '.join(first.moved[1:_NAMED])}" if count > 1 else ""
    more = f" and {counted(count - _NAMED, 'measure', 'measures')} more" if count > _NAMED else ""
    name = first.lead.stream_id
    sentence = f"{name} ({report.states[name]}) comes first, {first.when}: {first.moved[0]}{rest}{more}"
    likely = next((cause.sentence for cause in first.causes if cause.kind == "likely"), "")
    return ". ".join([sentence, *(_capital(part) for part in (first.cost, likely) if part)]) + "."


def _farthest(report: Report) -> str:
    moved = [camera for camera in report.cameras if camera.changes]
    if not moved:
        return f"No alpha changed by {two(report.smallest)} or more and stayed."
    heights = [level.alpha for level in moved[0].levels]
    several = f", of {len(moved)} that moved" if len(moved) > 1 else ""
    return (
        f"Alpha moved farthest on {moved[0].stream_id}{several}: its level lay between {two(min(heights))} and "
        f"{two(max(heights))}."
    )


def _helped(helped: Helped | None) -> str:
    if helped is None or (not helped.arms and not helped.estimates):
        return "Whether adapting helped is not known: there are no labels and no estimate."
    if not helped.arms:
        best = listed(f"{estimate.name} {three(estimate.value)}" for estimate in helped.estimates[:_NAMED])
        return f"Whether adapting helped is only estimated, without labels: {best}."
    rivals = [arm for arm in helped.arms if arm.gain is not None]
    if not rivals:
        return (
            f"Adapting cannot be compared: for {counted(helped.labelled, 'label', 'labels')} no other prediction "
            "is known."
        )
    same = {arm.images for arm in rivals}
    on = f" {counted(same.pop(), 'labelled image')}" if len(same) == 1 else ""
    return f"On the same{on or ' labelled images'}, the served predictions are {_compared(rivals, counts=not on)}."


def _compared(rivals: Sequence[Arm], *, counts: bool) -> str:
    """Return how served compares with each; with `counts` on how many images each comparison is."""
    groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for arm in rivals:
        assert arm.gain is not None
        gain = arm.gain
        between = f"{LEVEL} {points(gain.low)} to {points(gain.high)}" if gain.is_known else "of one batch"
        on = f", on {counted(arm.images, 'image')}" if counts else ""
        groups[gain.sign].append(f"{_the(arm.name)} ({points(gain.value)} points, {between}{on})")
    return "; ".join(f"{_WORDS[sign]} {listed(names)}" for sign, names in groups.items() if names)


def _the(name: str) -> str:
    return f"the {name} in hindsight" if name.startswith("best ") else name
