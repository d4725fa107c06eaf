"""A whole drift analysis: `show` prints it, `as_json` is what programs read, `page.write` draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from adawise.console import finite
from adawise.labels.benefit.helped import Helped
from adawise_drift.changes.times import UTC_CLOCKS, Clocks, utc
from adawise_drift.events.result import (
    NOTHING_KNOWN,
    AccuracyOverTime,
    Calendar,
    Camera,
    CameraChange,
    CameraGroup,
    DriftEvent,
    GalleryFrame,
    Model,
    Series,
)
from adawise_drift.events.sampled import SampledAccuracy

if TYPE_CHECKING:  # with DuckDB, which an extra brings
    from adawise_drift.baseline import Baseline

FORMAT = 3


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """A whole analysis. `cameras` are those that drifted farthest first; `overall` is all of them as one."""

    root: str
    command: str
    made_at: str
    since_us: int
    judged_us: int  # what was before it is known as usual; `since_us` without a reference
    until_us: int
    bin_us: int  # of the series
    smallest: float  # the smallest change of alpha that was looked for
    cameras: tuple[Camera, ...]
    overall: Series
    groups: tuple[CameraGroup, ...]
    events: tuple[DriftEvent, ...]  # the worst incident first, those of an incident together
    models: tuple[Model, ...]
    objective: str  # what was minimised, if a card or the user said so; "" if it is not known
    reference: str  # where `Series.reference` is from; "" if there is none
    recording: str  # where the examples are from; ""
    helped: Helped | None = None
    sampled: tuple[SampledAccuracy, ...] = ()  # by cameras of which images were drawn
    accuracy: AccuracyOverTime = NOTHING_KNOWN  # of all cameras as one
    calibration: str = ""  # at which temperature confidence is; "" if it was not noted
    gallery: tuple[GalleryFrame, ...] = ()  # by kind
    queries: Mapping[str, str] = field(default_factory=dict)  # what a plot shows -> the SQL that made it
    notes: tuple[str, ...] = ()  # what the reader has to know: limits of what could be looked at
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT
    beyond: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # limit -> the cameras beyond it
    clocks: Clocks = UTC_CLOCKS  # by which the page shows times
    baseline: Baseline | None = None  # what `finish` writes; None where no file is to be brought up to date

    @property
    def states(self) -> dict[str, str]:
        """State of each camera: ok, changed, failing or silent, by the worst of its events and by its sample."""
        state = dict.fromkeys((camera.stream_id for camera in self.cameras), STATES[0])
        for event in self.events:
            if event.state in STATES:
                known = state.get(event.stream_id, STATES[0])
                state[event.stream_id] = max(known, event.state, key=STATES.index)
        for each in self.fallen:
            if each.stream_id in state:
                state[each.stream_id] = max(state[each.stream_id], "failing", key=STATES.index)
        return state

    @property
    def fallen(self) -> tuple[SampledAccuracy, ...]:
        """Cameras of which sampled labels show a loss of accuracy, the strongest evidence first."""
        found = (each for each in self.sampled if each.alarm_day is not None)
        return tuple(sorted(found, key=lambda each: -each.evidence))

    @property
    def fleet(self) -> dict[str, int]:
        """Number of cameras in each state; each camera is counted once."""
        states = [*self.states.values()]
        return {name: states.count(name) for name in STATES}

    @property
    def images(self) -> int:
        """Images of all cameras."""
        return sum(camera.images for camera in self.cameras)

    @property
    def batches(self) -> int:
        """Batches of all cameras."""
        return sum(camera.batches for camera in self.cameras)

    def as_json(self) -> dict[str, Any]:
        """Return the report for other programs, without pictures, series and baseline.

        `adawise.read_traces` has the series at full length.
        """
        found: Any = finite(_plain(self))
        beyond = found.pop("beyond")
        return {**found, "fleet": self.fleet, "beyond": beyond}


STATES = ("ok", "changed", "failing", "silent")
"""States of a camera, the worst last."""
_NOT_IN_JSON = {"series", "overall", "image", "baseline", "clocks"}  # fields


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, but for nan; with the size beside the levels of a change."""
    if isinstance(value, DriftEvent):
        return _event(value)
    if isinstance(value, Calendar):
        return {name: _plain(getattr(value, name)) for name in ("count", "returns", "alarms", "conditions")}
    if is_dataclass(value) and not isinstance(value, type):
        shown = [each.name for each in fields(value) if each.name not in _NOT_IN_JSON]
        more = {"size": value.size} if isinstance(value, CameraChange) else {}
        return {name: _plain(getattr(value, name)) for name in shown} | more
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _event(event: DriftEvent) -> dict[str, Any]:
    """Return an event with times as text and its levels as `from` and `to`; `cause` is the first of `causes`."""
    times = {"since": event.since_us, "until": event.until_us, "earliest": event.earliest_us, "latest": event.latest_us}
    return {
        "stream_id": event.stream_id,
        "measure": event.measure,
        "shape": event.shape,
        **{name: utc(us).isoformat() for name, us in times.items()},
        "from": event.before,
        "to": event.after,
        "unit": event.unit,
        "detail": event.detail,
        "score": event.score,
        "severity": event.severity,
        "incident": event.incident,
        "cause": event.causes[0].sentence if event.causes else None,
        "causes": _plain(event.causes),
        "cost": _plain(event.cost),
        "next": event.next,
        "examples": _plain(event.examples),
    }
