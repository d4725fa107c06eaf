"""`--fail-if drift>0.2`: a limit on a number of a camera, for automation."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from typing_extensions import override

from adawise.drift.result import Camera, DriftEvent, Report

NUMBERS: Mapping[str, Callable[[Camera], float]] = {
    "drift": lambda camera: camera.drift,
    "travelled": lambda camera: camera.travelled,
    "changes": lambda camera: float(len(camera.changes)),
    "alpha": lambda camera: camera.alpha,
    "fe": lambda camera: camera.forward_equivalents,
    "confidence": lambda camera: camera.confidence,
    "agreement": lambda camera: camera.endpoints_agree,
    "rejects": lambda camera: camera.rejected / max(1, camera.images + camera.rejected),
    "silences": lambda camera: float(len(camera.silences)),
}
"""What a limit may be about, each of one camera; beside them how many events it has (`noted`: of no weight),
and `accuracy` and `gain`, where labels are known."""

_OF_EVENTS: Mapping[str, Callable[[DriftEvent], bool]] = {
    "events": lambda event: event.severity != "noted",
    "failing": lambda event: event.severity == "failing",
    "noted": lambda event: event.severity == "noted",
}
_LABELLED = ("accuracy", "gain")
_COMPARED = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_KNOWN = (*_OF_EVENTS, *NUMBERS, *_LABELLED)
_FORM = re.compile(r"\s*([a-z_]+)\s*(>=|<=|>|<)\s*([+-]?[0-9]*\.?[0-9]+)\s*")

EXPECTED = f"NAME>NUMBER or NAME<NUMBER, the name one of {', '.join(_KNOWN)}"


@dataclass(frozen=True, slots=True)
class Limit:
    """`number` of a camera must not compare with `bound` as `sign` says."""

    number: str
    sign: str
    bound: float

    @override
    def __str__(self) -> str:
        return f"{self.number}{self.sign}{self.bound:g}"

    def exceeded(self, report: Report) -> tuple[tuple[str, float], ...]:
        """The cameras beyond the limit, each with its number, the farthest first.

        A number that is not known (nan) is beyond no limit; `gain` is served less the better endpoint.
        """
        found = [(camera.stream_id, self._of(camera, report)) for camera in report.cameras]
        beyond = [(name, value) for name, value in found if _COMPARED[self.sign](value, self.bound)]
        return tuple(sorted(beyond, key=lambda item: item[1], reverse=self.sign.startswith(">")))

    def _of(self, camera: Camera, report: Report) -> float:
        if self.number in _OF_EVENTS:
            counts = _OF_EVENTS[self.number]
            return float(sum(counts(event) for event in report.events if event.stream_id == camera.stream_id))
        if self.number in NUMBERS:
            return NUMBERS[self.number](camera)
        arms = report.helped.by_camera.get(camera.stream_id, ()) if report.helped else ()
        if self.number == "accuracy":
            return next((arm.accuracy.value for arm in arms if arm.gain is None), math.nan)
        endpoints = [arm.gain.value for arm in arms if arm.gain and arm.name in {"zero-shot", "fine-tuned"}]
        return min(endpoints, default=math.nan)


def parse_limit(text: str) -> Limit:
    """Raises ValueError if it is none."""
    match = _FORM.fullmatch(text)
    if match is None or (match[1] not in _KNOWN):
        raise ValueError(f"expected {EXPECTED}, got {text!r}")
    return Limit(match[1], match[2], float(match[3]))
