"""The advice in three sentences: what happened to whom first and how bad it is, how far alpha moved, if it helped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adawise.labels.benefit.helped import Arm, Helped
from adawise.page.notation import LEVEL, listed, points, three, two
from adawise.text import counted
from adawise_drift.events.result import Camera, CameraChange
from adawise_drift.page.happened import IncidentShown
from adawise_drift.report import Report

_NAMED = 3
_STATES = ("failing", "changed", "silent")
_WORDS = {1: "better than", -1: "worse than", 0: "not shown to differ from"}  # by the sign of an interval


@dataclass(frozen=True)
class DriftAdvice:
    """`headline` says what happened to how many, and to whom first."""

    headline: str
    sentences: tuple[str, ...]


def advise(report: Report, shown: Sequence[IncidentShown]) -> DriftAdvice:
    """Return the advice of a report, whose incidents are `shown`."""
    sentences = (_first(report, shown), _farthest(report), _helped(report.helped))
    return DriftAdvice(_headline(report, shown), tuple(sentence for sentence in sentences if sentence))


def largest(camera: Camera) -> CameraChange | None:
    """Return the change of the greatest size, the first of equals."""
    return max(camera.changes, key=lambda change: abs(change.size), default=None)


def _headline(report: Report, shown: Sequence[IncidentShown]) -> str:
    fleet = report.fleet
    heavy = [each for each in shown if each.matters]
    if not heavy:
        noted = f"; {counted(len(shown), 'passing event', 'passing events')} noted" if shown else ""
        return f"Nothing above severity noted happened to {counted(len(report.cameras), 'camera', 'cameras')}{noted}"
    first = heavy[0]
    worse = listed(f"{fleet[name]} {name}" for name in _STATES if fleet[name])
    of = f"Of {len(report.cameras)} cameras {worse}; first " if len(report.cameras) > 1 else ""
    return f"{of}{first.lead.stream_id}: {first.moved[0]}"


def _first(report: Report, shown: Sequence[IncidentShown]) -> str:
    first = next((each for each in shown if each.matters), None)
    if first is None:
        return ""
    count = len(first.moved)
    rest = f"; {'; '.join(first.moved[1:_NAMED])}" if count > 1 else ""
    more = f" and {counted(count - _NAMED, 'measure', 'measures')} more" if count > _NAMED else ""
    name = first.lead.stream_id
    said = f"{name} ({report.states[name]}) comes first, {first.when}: {first.moved[0]}{rest}{more}"
    likely = next((cause.sentence for cause in first.causes if cause.kind == "likely"), "")
    return ". ".join([said, *(part[:1].upper() + part[1:] for part in (first.cost, likely) if part)]) + "."


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
    labels = counted(helped.labelled, "label", "labels")
    return f"By {labels}, each time on the same images, the served predictions are {_compared(rivals)}."


def _compared(rivals: Sequence[Arm]) -> str:
    groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for arm in rivals:
        assert arm.gain is not None
        gain = arm.gain
        between = f"{LEVEL} {points(gain.low)} to {points(gain.high)}" if gain.is_known else "of one batch"
        groups[gain.sign].append(f"{_the(arm.name)} ({points(gain.value)} points, {between})")
    return "; ".join(f"{_WORDS[sign]} {listed(names)}" for sign, names in groups.items() if names)


def _the(name: str) -> str:
    return f"the {name} in hindsight" if name.startswith("best ") else name
