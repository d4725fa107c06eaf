"""The advice in four sentences: who drifted farthest and when, why perhaps, whether it helped, what to look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from adawise.drift.judge.helped import Arm, Helped
from adawise.drift.page.words import changed, from_to, percent, signed, when
from adawise.drift.result import Camera, CameraChange, Report
from adawise.page.notation import LEVEL, counted, listed, points, three, two

_MANY_REJECTS = 0.02
_NAMED = 3
_SPOKEN = {
    "silence": "a silence of the camera",
    "model": "another model",
    "objective": "the level of the objective",
    "confidence": "confidence or agreement",
    "classes": "the mix of classes",
    "rejects": "the share of rejects",
    "picture": "the picture",
    "reset": "a new start of the adaptation",
    "others": "the alpha of other cameras",
}


@dataclass(frozen=True)
class DriftAdvice:
    """`headline` is the shortest form of the first sentence; `look` are cameras that the others speak of."""

    headline: str
    sentences: tuple[str, ...]
    look: tuple[str, ...]


def advise(report: Report) -> DriftAdvice:
    """Of the whole report."""
    look, names = _look(report)
    sentences = (_farthest(report), _likely(report), _helped(report.helped), look)
    return DriftAdvice(_headline(report), tuple(sentence for sentence in sentences if sentence), names)


def largest(camera: Camera) -> CameraChange | None:
    """The change of the greatest size, the first of equals."""
    return max(camera.changes, key=lambda change: abs(change.size), default=None)


def _headline(report: Report) -> str:
    moved = [camera for camera in report.cameras if camera.changes]
    if not moved:
        return f"No camera's alpha changed by {two(report.smallest)} or more and stayed"
    first = moved[0]
    if len(report.cameras) == 1:
        return f"{first.stream_id} drifted by {two(first.drift)}"
    of = f"{len(moved)} of {len(report.cameras)} cameras drifted"
    return f"{of}; {first.stream_id} the farthest, by {two(first.drift)}"


def _farthest(report: Report) -> str:
    moved = [camera for camera in report.cameras if camera.changes]
    between = when(report.since_us, report.until_us)
    if not moved:
        cameras = counted(len(report.cameras), "camera", "cameras")
        return (
            f"From {between}, the alpha of none of {cameras} changed by {two(report.smallest)} or more and stayed: "
            f"the mean was {two(_mean_alpha(report.cameras))}."
        )
    first, change = moved[0], largest(moved[0])
    assert change is not None
    heights = [level.alpha for level in first.levels]
    changes = sum(len(camera.changes) for camera in moved)
    several = len(report.cameras) > 1
    others = f"; {len(moved)} of {len(report.cameras)} cameras changed, {counted(changes, 'time', 'times')} in all"
    return (
        f"{first.stream_id} {'drifted farthest' if several else 'drifted'}: its level of alpha lay between "
        f"{two(min(heights))} and {two(max(heights))}, and moved most {changed(change)}, from "
        f"{from_to(change.before, change.after)} ({signed(change.size)}){others if several else ''}."
    )


def _mean_alpha(cameras: Sequence[Camera]) -> float:
    images = sum(camera.images for camera in cameras)
    return sum(camera.alpha * camera.images for camera in cameras) / images if images else math.nan


def _likely(report: Report) -> str:
    changes = [change for camera in report.cameras for change in camera.changes]
    if not changes:
        return ""
    kinds = Counter(kind for change in changes for kind in {cause.kind for cause in change.causes})
    farthest = largest(report.cameras[0])
    own = farthest.causes[0].sentence if farthest is not None and farthest.causes else ""
    if not kinds:
        return "Nothing else that was looked at changed at the same time, so no cause is likely."
    if len(changes) == 1:
        return f"A likely cause: {own}."
    kind, count = min(kinds.items(), key=lambda item: (-item[1], list(_SPOKEN).index(item[0])))
    often = f"what most often changed with alpha is {_SPOKEN[kind]} ({count} of {len(changes)} changes)"
    if own:
        return f"For that largest change a likely cause is that {own}; over all, {often}."
    return f"For that largest change nothing else that was looked at changed; over all, {often}."


def _helped(helped: Helped | None) -> str:
    if helped is None or (not helped.arms and not helped.estimates):
        return "Whether adapting helped is not known: there are no labels and no estimate."
    if not helped.arms:
        best = listed(f"{estimate.name} {three(estimate.value)}" for estimate in helped.estimates[:_NAMED])
        return f"Whether adapting helped is only estimated, without labels: {best}."
    rivals = [arm for arm in helped.arms if arm.gain is not None]
    if not rivals:
        return (
            f"Adapting cannot be compared: of {counted(helped.labelled, 'label', 'labels')} no other answer is known."
        )
    labels = counted(helped.labelled, "label", "labels")
    return f"By {labels}, each time on the same images, what was served is {_compared(rivals)}."


def _compared(rivals: Sequence[Arm]) -> str:
    groups: dict[str, list[str]] = {"better than": [], "worse than": [], "not shown to differ from": []}
    for arm in rivals:
        assert arm.gain is not None
        gain = arm.gain
        word = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "not shown to differ from"
        between = f"{LEVEL} {points(gain.low)} to {points(gain.high)}" if gain.is_known else "of one batch"
        groups[word].append(f"{_the(arm.name)} ({points(gain.value)} points, {between})")
    return "; ".join(f"{word} {listed(names)}" for word, names in groups.items() if names)


def _the(name: str) -> str:
    return f"the {name} in hindsight" if name.startswith("best ") else name


def _look(report: Report) -> tuple[str, tuple[str, ...]]:
    """Where a person should look first, and the cameras of that sentence, each once."""
    parts, names = [], []
    farthest = [c.stream_id for c in report.cameras[:1] if c.changes]
    unexplained = [c.stream_id for c in report.cameras if any(not change.causes for change in c.changes)]
    if unexplained:
        parts.append(f"{_some(unexplained)}, where alpha moved and nothing else did")
        names += unexplained[:_NAMED]
    silent = [c.stream_id for c in report.cameras if c.silences]
    if silent:
        parts.append(f"{_some(silent)}, which said nothing for a time")
        names += silent[:_NAMED]
    rejected = [c for c in report.cameras if c.rejected > _MANY_REJECTS * (c.images + c.rejected)]
    if rejected:
        worst = max(rejected, key=lambda c: c.rejected / (c.images + c.rejected))
        share = percent(worst.rejected / (worst.images + worst.rejected))
        parts.append(f"{worst.stream_id}, of which {share} of the images were rejected")
        names.append(worst.stream_id)
    if not parts and farthest:
        frames = any(change.examples for change in report.cameras[0].changes)
        beside = "the frames before and after its changes" if frames else "what changed together with its alpha"
        parts.append(f"{farthest[0]} first, and {beside}")
    unseen = "; the notes say what could not be seen" if report.notes else ""
    said = f"Look at {'; at '.join(parts)}" if parts else f"Nothing stands out that a person should look at{unseen}"
    return f"{said}.", tuple(dict.fromkeys([*farthest, *names]))


def _some(names: Sequence[str]) -> str:
    if len(names) <= _NAMED:
        return listed(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
