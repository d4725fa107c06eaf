"""The rule for a camera's state, shared by the worker's page, its metrics, `adawise status` and `adawise cameras`.

Each of them fills in `CameraFacts` and calls `state`, a pure function. They differ in how many of the facts they know,
and in the limits that their users have set (`StatePolicy`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from adawise.text import as_duration
from adawise.watch.row import CameraState

REJECTED_SHARE = 0.1
"""The share of rejected images from which on a camera is in the state `rejected`."""

SILENT_PAUSES = 10.0
"""A camera is silent after this many times its usual pause without an image."""

GONE_S = 86_400.0
"""Seconds without an image after which a camera counts as taken down."""

CHANGE = 0.1
"""The difference of alpha that counts as a change, as in the drift report."""

NOW_S, BEFORE_S = 60.0, 300.0
"""Alpha over the last minute is compared with alpha over the four minutes before it."""

CHANGED_FOR_S = 600.0
"""Seconds for which a camera that began to learn anew counts as changed."""

RESETS = {
    "jump": "its images changed suddenly, and adaptation started anew",
    "regret": "an audit found a better alpha, and adaptation started anew",
    "disagreement": "fine-tuned and zero-shot disagree on too many images, so alpha is limited",
    "alarm": "the fine-tuned model may be confident and wrong, so alpha is limited",
}
"""The reasons of a reset that mean that a camera's conditions have changed, each in words."""


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """The known facts of one camera at a moment. Times are Unix seconds; the defaults mean that nothing is wrong.

    Attributes:
        now_s: the moment.
        last_seen_s: time of its last image; None if none is known.
        served_until_s: time up to which arrived images have been served; later images may wait.
        pause_s: usual seconds between its batches; None if not known.
        images: images accepted over the last `over_s` seconds.
        rejected: images rejected over the same time.
        over_s: length of the time in which `images` and `rejected` are counted, in seconds.
        reason: why images were rejected.
        failure: why it is not served; empty if it is.
        is_over: True if its video has reached its end.
        frozen_s: seconds for which it has sent one picture.
        alpha_now: mean alpha of its images over the last `NOW_S`; None without images.
        alpha_before: mean alpha of its images from `BEFORE_S` until `NOW_S` ago; None without images.
        condition: the condition that it entered lately, such as "condition 2 returned"; empty if none.
        reset: why it began to learn anew the last time.
        reset_s: time of that reset.
        note: a remark that is shown while the camera is ok.
    """

    now_s: float
    last_seen_s: float | None
    served_until_s: float = math.inf
    pause_s: float | None = None
    images: int = 0
    rejected: int = 0
    over_s: float = BEFORE_S
    reason: str = ""
    failure: str = ""
    is_over: bool = False
    frozen_s: float = 0.0
    alpha_now: float | None = None
    alpha_before: float | None = None
    condition: str = ""
    reset: str = ""
    reset_s: float = -math.inf
    note: str = ""

    @property
    def silence_s(self) -> float:
        """Seconds without an image, not counting time whose images still wait; infinite if no image is known."""
        return math.inf if self.last_seen_s is None else min(self.now_s, self.served_until_s) - self.last_seen_s


@dataclass(frozen=True, slots=True)
class StatePolicy:
    """The limits that determine a state.

    Attributes:
        silent_after_s: seconds without an image before which no camera counts as silent.
        unknown_pause_s: usual pause that is assumed for a camera whose pause is not known, in seconds.
        gone_after_s: seconds without an image after which a camera counts as taken down.
    """

    silent_after_s: float = 60.0
    unknown_pause_s: float = 360.0
    gone_after_s: float = GONE_S

    def silence_until_s(self, pause_s: float | None) -> float:
        """Return the seconds after which a camera with this usual pause is silent."""
        return max(self.silent_after_s, SILENT_PAUSES * (self.unknown_pause_s if pause_s is None else pause_s))


def state(facts: CameraFacts, policy: StatePolicy) -> tuple[CameraState, str]:
    """Return the state of a camera and the reason in a sentence; "" if there is nothing to say.

    The first state that applies is returned: gone, silent (its video is over), failing, silent, rejected, frozen,
    changed, ok. While images of a camera wait to be served, it is not silent. A camera that is silent now is silent
    even if its images were rejected before.
    """
    silence_s, change = facts.silence_s, _change(facts)
    if facts.last_seen_s is not None and silence_s > policy.gone_after_s:
        return CameraState.GONE, f"no image for {as_duration(facts.now_s - facts.last_seen_s)}"
    if facts.is_over:
        return CameraState.SILENT, "its video is over"
    if facts.failure:
        return CameraState.FAILING, facts.failure
    if silence_s > policy.silence_until_s(facts.pause_s):
        nothing = (
            "no image yet"
            if facts.last_seen_s is None
            else f"no image for {as_duration(facts.now_s - facts.last_seen_s)}"
        )
        return CameraState.SILENT, nothing
    if facts.rejected and facts.rejected >= REJECTED_SHARE * (facts.images + facts.rejected):
        of = f"{facts.rejected} of {facts.images + facts.rejected} images rejected in {as_duration(facts.over_s)}"
        return CameraState.REJECTED, f"{of}: {facts.reason}"
    if facts.frozen_s > 0.0:
        return CameraState.FROZEN, f"the same picture for {as_duration(facts.frozen_s)}"
    return (CameraState.CHANGED, change) if change else (CameraState.OK, facts.note)


def _change(facts: CameraFacts) -> str:
    """Return in words how the camera's alpha or condition has changed; "" if it has not."""
    before, now = facts.alpha_before, facts.alpha_now
    if before is not None and now is not None and abs(now - before) >= CHANGE:
        return f"alpha went from {before:.2f} to {now:.2f}" + (f", {facts.condition}" if facts.condition else "")
    return RESETS.get(facts.reset, "") if facts.now_s - facts.reset_s < CHANGED_FOR_S else ""


def counted(states: Iterable[CameraState], which: Iterable[CameraState] = tuple(CameraState)) -> dict[CameraState, int]:
    """Return how many cameras are in each state, 0 included, the worst state first."""
    found = dict.fromkeys(which, 0)
    for each in states:
        found[each] = found.get(each, 0) + 1
    return found
