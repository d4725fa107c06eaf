"""The live statistics of one camera: exponentially decaying sums, and the last ten minutes in steps of five seconds.

Nothing here reads a clock: the time is an argument.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adawise.adapt.last_seen import StateOutline
from adawise.records import TopicPartition
from adawise.watch.row import STEP_S, STEPS, CameraRow, ConditionRow
from adawise.watch.state import BEFORE_S, NOW_S, CameraFacts, Entered, StatePolicy, compared_from_s, state
from adawise.worker.events import PartitionProgress

HALF_LIFE_S = 60.0
"""The half-life of the decaying sums behind class shares, FE (forward equivalents) and agreement, in seconds."""

RECENT_STEPS = round(BEFORE_S / STEP_S)
"""The number of steps in five minutes, the time over which rejections and changes are counted."""

NEW, RETURNED = "new", "returned"
"""The two kinds of a condition that a camera enters. The values are stable: they are labels of a metric."""

_CONDITIONS = 64  # that are known of a camera at most; more than a state remembers by default
_RATE_STEPS = 12  # that images per second are computed over: one minute
_NOW_STEPS = round(NOW_S / STEP_S)
_SHOWN = 4  # classes in a row of the page
_FORGOTTEN = 0.002  # share of the decayed image count below which a class is dropped


class _LiveCondition(NamedTuple):
    """A condition of a camera.

    `alpha` and `last_seen_s`, a Unix time, are those of its last batch, and None if not known.
    """

    alpha: float | None
    last_seen_s: float | None
    visits: int


class LiveCamera:
    """The live statistics of one camera of one partition.

    Args:
        stream_id: name of the camera.
        tp: partition of the camera.
        now_s: Unix time, in seconds, at which its first image or rejection came, or at which the chain last saw it.
    """

    __slots__ = (
        *("stream_id", "tp", "began_s", "last_seen_s", "images", "rejected", "off_list", "forwards"),
        *("reason", "reset", "reset_s"),
        *("reasons", "dead_letters", "served_s", "last_images"),
        *("alpha", "condition", "conditions_seen", "_known", "_entered"),
        *("pixels", "picture", "gap_s", "_step", "_alphas", "_images", "_rejected", "_faded_s"),
        *("_trail", "_trail_step"),
        *("_weight", "_passed", "_compared", "_agreed", "_finite", "_confidence", "_entropy", "_classes"),
    )

    def __init__(self, stream_id: str, tp: TopicPartition, now_s: float) -> None:
        self.stream_id, self.tp = stream_id, tp
        self.began_s = self.last_seen_s = now_s
        self.images = self.rejected = 0
        self.off_list = 0  # images of which a sure first class is not on the shortlist
        self.forwards = 0.0
        self.alpha: float | None = None
        self.condition: int | None = None
        self.conditions_seen = 0  # numbered so far, those before this worker watched included
        self._known: dict[int, _LiveCondition] = {}  # by number; the condition entered last is at the end
        self._entered: Entered | None = None
        self.reason = ""  # of its last rejection
        self.reasons: dict[str, int] = {}  # images rejected, by reason
        self.dead_letters = 0
        self.reset, self.reset_s = "", -math.inf
        self.gap_s: float | None = None  # moving average of the time between batches; None before the second batch
        self.pixels: npt.NDArray[np.uint8] | None = None
        self.picture = 0
        self.served_s: float | None = None  # time of its last batch
        self.last_images = 0  # of that batch
        self._step = int(now_s // STEP_S)
        self._alphas, self._images, self._rejected = (
            array("d", [0.0] * STEPS),
            array("L", [0] * STEPS),
            array("L", [0] * STEPS),
        )
        self._trail: deque[float | None] = deque(maxlen=STEPS)  # mean alphas, up to the last step that had a batch
        self._trail_step = self._step
        self._faded_s = now_s
        self._weight = self._passed = self._compared = self._agreed = 0.0
        self._finite = self._confidence = self._entropy = 0.0
        self._classes: dict[int, float] = {}

    def forget_classes(self) -> None:
        """Clear the class counts, since another pair serves and numbers its classes differently."""
        self._classes.clear()

    def served(
        self,
        now_s: float,
        *,
        alpha: float,
        forward_equivalents: float,
        labels: Sequence[int],
        confidence: float,
        entropy: float,
        compared: int,
        agreed: int,
        reset: str | None,
        off_list: int = 0,
    ) -> None:
        """Add a served batch.

        Args:
            now_s: Unix time of the batch.
            alpha: interpolation weight that served it, in [0, 1].
            forward_equivalents: forwards through the image tower per image.
            labels: class index of the label of each image.
            confidence: mean probability of these labels; nan after logits that are not finite.
            entropy: mean entropy of the served probabilities, nats; nan likewise.
            compared: images that both endpoints labelled.
            agreed: those of them to which both endpoints gave the same label.
            reset: why the stream began to learn anew in this batch; None or "" if it did not.
            off_list: images whose sure first class among all classes is not on the camera's shortlist.
        """
        count = len(labels)
        at = self._at(now_s)
        self._fade(now_s)
        self._images[at] += count
        self._alphas[at] += alpha * count
        self._trace(at)
        self.images += count
        self.off_list += off_list
        self.forwards += forward_equivalents * count
        self.alpha = alpha
        self._weight += count
        self._passed += forward_equivalents * count
        if math.isfinite(confidence) and math.isfinite(entropy):  # else their sums would never be numbers again
            self._finite += count
            self._confidence += confidence * count
            self._entropy += entropy * count
        self._compared += compared
        self._agreed += agreed
        for label in labels:
            self._classes[label] = self._classes.get(label, 0.0) + 1.0
        if reset:
            self.reset, self.reset_s = reset, now_s
        if self.served_s is not None:
            gap_s = now_s - self.served_s
            self.gap_s = gap_s if not self.gap_s else 0.8 * self.gap_s + 0.2 * gap_s
        self.served_s = self.last_seen_s = now_s
        self.last_images = count

    def adopt(self, outline: StateOutline) -> None:
        """Take over the conditions that the camera's state knows, of which no batch was served here yet."""
        if outline.condition is None:
            return
        for each in (*outline.left[1 - _CONDITIONS :], outline.condition):
            self._known[each.number] = _LiveCondition(each.alpha, None, each.visits)
        self.condition, self.conditions_seen = outline.condition.number, outline.conditions

    def enter(self, now_s: float, condition: int, is_back: bool) -> str:
        """Record the condition of a batch, before the batch itself is added by `served`.

        Returns:
            `NEW` or `RETURNED` if the camera was in another condition before, else "".
        """
        before, self.condition = self.condition, condition
        if before == condition:
            return ""
        known = self._known
        if before in known:
            known[before] = self._kept(known[before])
        visited = known.pop(condition, _LiveCondition(None, None, 1))
        known[condition] = visited._replace(visits=visited.visits + 1 if is_back else 1)
        if len(known) > _CONDITIONS:
            del known[next(iter(known))]
        self.conditions_seen = max(self.conditions_seen, condition + 1)
        if before is None:
            return ""
        self._entered = Entered(condition, is_back, now_s)
        return RETURNED if is_back else NEW

    def forget_conditions(self) -> None:
        """Forget the conditions, since the camera's state was dropped and numbers them anew."""
        self.condition, self.conditions_seen, self._entered = None, 0, None
        self._known.clear()

    @property
    def conditions(self) -> list[ConditionRow]:
        """The conditions that are known, the one it is in first, then those left last."""
        current = self.condition
        found = ((number, self._kept(known) if number == current else known) for number, known in self._known.items())
        rows = [ConditionRow(n, known.alpha, known.last_seen_s, known.visits - 1, n == current) for n, known in found]
        return rows[::-1]

    def _kept(self, current: _LiveCondition) -> _LiveCondition:
        """Return the current condition with alpha and time of its last batch, as far as one was served here."""
        return current if self.served_s is None else current._replace(alpha=self.alpha, last_seen_s=self.served_s)

    def reject(self, now_s: float, reason: str) -> None:
        """Count an image that was rejected."""
        self._rejected[self._at(now_s)] += 1
        self.rejected += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.reason, self.last_seen_s = reason, now_s

    @property
    def forward_equivalents(self) -> float | None:
        """Forwards through the image tower per image over the last minutes; None without images."""
        return self._passed / self._weight if self._weight > 0.0 else None

    @property
    def entropy(self) -> float | None:
        """Mean entropy of the served probabilities over the last minutes, in nats; None without images."""
        return self._entropy / self._finite if self._finite > 0.0 else None

    def facts(self, now_s: float, *, failure: str = "", served_until_s: float = math.inf) -> CameraFacts:
        """Return the facts that determine the camera's state.

        Args:
            now_s: Unix time.
            failure: why its partition is not served or not written; empty if it is.
            served_until_s: Unix time up to which the messages of the topic have been served.
        """
        self._at(now_s)
        # The step of a return is left out: alpha may be that of the former condition in its first batch.
        compared = min(RECENT_STEPS, self._step - int(compared_from_s(now_s, self._entered) // STEP_S))
        return CameraFacts(
            now_s=now_s,
            last_seen_s=self.last_seen_s,
            served_until_s=served_until_s,
            pause_s=self.gap_s,
            images=int(self._sum(self._images, 0, RECENT_STEPS)),
            rejected=int(self._sum(self._rejected, 0, RECENT_STEPS)) if self.rejected else 0,
            reason=self.reason,
            failure=failure,
            alpha_now=self._level(0, _NOW_STEPS),
            alpha_before=self._level(_NOW_STEPS, compared) if compared > _NOW_STEPS else None,
            entered=self._entered,
            reset=self.reset,
            reset_s=self.reset_s,
        )

    def row(
        self, facts: CameraFacts, policy: StatePolicy, classes: Sequence[str], partition: PartitionProgress | None
    ) -> CameraRow:
        """Return the camera's row of the page at the time of `facts`, which come from its own `facts` method."""
        now_s = facts.now_s
        self._at(now_s)
        found, why = state(facts, policy)
        total = sum(self._classes.values())
        best = sorted(self._classes.items(), key=lambda item: -item[1])[:_SHOWN] if total else ()
        over_s = min(_RATE_STEPS * STEP_S, max(STEP_S, now_s - self.began_s))
        return CameraRow(
            stream_id=self.stream_id,
            partition=str(self.tp),
            state=found,
            why=why,
            alpha=self.alpha,
            condition=self.condition,
            returns=self._known[self.condition].visits - 1 if self.condition in self._known else 0,
            first_step=self._trail_step - len(self._trail) + 1,
            alphas=tuple(self._trail),
            classes=tuple((_name(classes, index), weight / total) for index, weight in best),
            images_per_s=self._sum(self._images, 0, _RATE_STEPS) / over_s,
            images=self.images,
            rejected=self.rejected,
            forward_equivalents=self.forward_equivalents,
            agreement=self._agreed / self._compared if self._compared > 0.0 else None,
            confidence=self._confidence / self._finite if self._finite > 0.0 else None,
            lag=partition.lag if partition else None,
            last_seen_s=self.last_seen_s,
            picture=self.picture,
        )

    def _level(self, first: int, until: int) -> float | None:
        """Return the mean alpha over the images of steps `first` to `until` (exclusive), counted back from now."""
        images = self._sum(self._images, first, until)
        return self._sum(self._alphas, first, until) / images if images else None

    def _sum(self, ring: array[int] | array[float], first: int, until: int) -> float:
        """Return the sum of a ring buffer over steps `first` to `until` (exclusive), counted back from now."""
        end = (self._step - first) % STEPS + 1
        begin = end - (until - first)
        return sum(ring[begin:end]) if begin >= 0 else sum(ring[begin:]) + sum(ring[:end])

    def _at(self, now_s: float) -> int:
        """Return the index of this step in the ring buffers, after clearing the steps since the last one."""
        step = max(self._step, int(now_s // STEP_S))
        for passed in range(max(self._step, step - STEPS) + 1, step + 1):
            at = passed % STEPS
            self._images[at] = self._rejected[at] = 0
            self._alphas[at] = 0.0
        self._step = step
        return step % STEPS

    def _trace(self, at: int) -> None:
        """Store the mean alpha of this step, which had a batch; `at` is its index in the ring buffers."""
        trail, missing = self._trail, self._step - self._trail_step
        # Steps without a batch become None; the last place is then overwritten by this step.
        if missing >= STEPS or not trail:
            trail.clear()
            missing = 1
        trail.extend([None] * missing)
        trail[-1] = round(self._alphas[at] / self._images[at], 3)
        self._trail_step = self._step

    def _fade(self, now_s: float) -> None:
        """Decay the sums to this time, and drop classes that hardly occur any more."""
        kept = 0.5 ** (max(0.0, now_s - self._faded_s) / HALF_LIFE_S)
        self._faded_s = now_s
        self._weight *= kept
        self._passed *= kept
        self._finite *= kept
        self._confidence *= kept
        self._entropy *= kept
        self._compared *= kept
        self._agreed *= kept
        least = _FORGOTTEN * self._weight
        self._classes = {label: kept * weight for label, weight in self._classes.items() if kept * weight > least}


def _name(classes: Sequence[str], index: int) -> str:
    return classes[index] if 0 <= index < len(classes) else str(index)
