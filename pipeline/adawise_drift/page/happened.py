"""What happened, on the page: incidents in words, and all of them on one line of time, a row for each camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adawise.page import theme
from adawise.page.blocks import Key
from adawise_drift.changes.times import DAY_US, HOUR_US, utc
from adawise_drift.events.incidents import incidents
from adawise_drift.events.judge import moved
from adawise_drift.events.result import Cause, DriftEvent, Example
from adawise_drift.page.words import cost, happened
from adawise_drift.report import Report

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
    """From `at` to `until`, in hundredths of the whole time; the same where it is a moment."""

    outline: str
    at: float
    until: float


@dataclass(frozen=True)
class IncidentShown:
    """What happened to one camera at one moment. `place` is its number among those of the camera, from 1."""

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
        """What is told first."""
        return self.events[0]

    @property
    def matters(self) -> bool:
        """Whether it is more than noted."""
        return self.lead.severity != "noted"

    @property
    def summary(self) -> str:
        """The incident in one line."""
        return f"{self.lead.state}, {self.when}: {'; '.join(self.moved)}"

    @property
    def words(self) -> str:
        """By which a reader finds it."""
        kinds = {word for event in self.events for word in (event.measure, event.shape, event.state)}
        return " ".join([self.lead.stream_id, *sorted(kinds)])


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
    told = incidents(report.events)
    order = sorted(told, key=lambda number: told[number][0].since_us)
    places: dict[int, int] = {}
    count: dict[str, int] = {}
    for number in order:
        name = told[number][0].stream_id
        places[number] = count[name] = count.get(name, 0) + 1
    return tuple(_shown(report, number, places[number], those) for number, those in told.items())


def by_camera(shown: Sequence[IncidentShown]) -> dict[str, tuple[IncidentShown, ...]]:
    """Return the incidents of each camera by time; the cameras in the order in which they come first."""
    found: dict[str, list[IncidentShown]] = {}
    for each in shown:
        found.setdefault(each.lead.stream_id, []).append(each)
    return {name: tuple(sorted(those, key=lambda each: each.place)) for name, those in found.items()}


def timeline(report: Report, shown: Sequence[IncidentShown]) -> Timeline:
    """Return the line of the time that is judged."""
    rows = tuple(by_camera(shown).items())
    since_us = _since_us(report)
    span_us = report.until_us - since_us + 1
    step_us = next((step for step in _STEPS_US if step * _TICKS >= span_us), _STEPS_US[-1])
    first_us = -(-since_us // step_us) * step_us
    ticks = [((at - since_us) / span_us * 100, _tick(at, step_us)) for at in range(first_us, report.until_us, step_us)]
    seen = {each.mark.outline for _, those in rows[:ROWS] for each in those}
    width = 100 * step_us / span_us
    begin = ticks[0][0] / (100 - width) * 100 if ticks and width < 100 else 0.0  # as CSS places what repeats
    keys = tuple(key for key in _SHAPES if key.shape in seen)
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
        if cause.kind != "incident":  # its measures are told already
            causes.setdefault(cause.kind, cause)
    return IncidentShown(
        anchor=f"incident-{number}",
        place=place,
        events=those,
        when=happened(lead),
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
