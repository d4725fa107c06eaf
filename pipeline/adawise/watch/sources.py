"""The live state of a process that reads cameras: each camera's connection, counts and state, and the process's health.

Pure: the time is an argument, in seconds since the epoch. States are those of a worker's cameras (`watch.row`).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adawise.errors import AdawiseError
from adawise.text import as_duration
from adawise.watch.camera import RECENT_STEPS
from adawise.watch.health import Health, party_of
from adawise.watch.row import STEP_S, CameraRow, CameraState, LiveView
from adawise.watch.state import CameraFacts, StatePolicy, counted, state
from adawise.worker.events import Phase

DOING = {
    Phase.STARTING: "reads its cameras and looks up the topic",
    Phase.WORKING: "works",
    Phase.STOPPING: "sends its remaining frames",
}
STATES = tuple(each for each in CameraState if each not in {CameraState.CHANGED, CameraState.GONE})
"""The states that a camera read by this process can have."""

DROP_REASONS = ("behind", "damaged", "too_large")
"""The reasons why a frame is not sent: the broker is behind, it is damaged, or it is too large for a message."""

FAILURES = ("failed", "refused")
"""The ways a connection ends: `failed` may succeed at the next try, `refused` only once an operator fixes the cause."""

_RATE_STEPS = 12  # that images per second are computed over: one minute


@dataclass(slots=True)
class SourceCamera:
    """One camera that this process reads.

    Args:
        stream_id: name of the camera.
        shown: address of its stream, without secrets.
        frozen_after_s: seconds of the same picture after which the camera counts as frozen.
        began_s: time since which the camera is to be read.
    """

    stream_id: str
    shown: str
    frozen_after_s: float
    began_s: float
    sent: int = 0  # frames that were handed to the broker
    sent_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # frames, by reason
    connects: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by kind, see `FAILURES`
    is_open: bool = False
    is_over: bool = False  # its video has reached its end
    what: str = ""  # codec and size
    failure: str = ""  # why it is not connected
    last_seen_s: float | None = None  # time of the last frame
    delay_s: float = 0.0  # from when the last frame was taken until it came
    same_s: float | None = None  # time since which it has sent one picture
    gap_s: float | None = None  # moving average of the time between frames; None before the second frame
    clock_off_s: float = 0.0  # by which its clock is ahead of this machine's, if its times are not used
    picture: int = 0
    jpeg: bytes | None = None
    _steps: deque[list[int]] = field(default_factory=deque)  # step, frames, dropped

    def come(self, now_s: float, taken_s: float, *, is_same: bool) -> None:
        """Record a frame that came; `taken_s` is when the camera took it."""
        if self.last_seen_s is not None and not self.failure:
            gap_s = now_s - self.last_seen_s
            self.gap_s = gap_s if not self.gap_s else 0.8 * self.gap_s + 0.2 * gap_s
        self.failure, self.last_seen_s, self.delay_s = "", now_s, max(0.0, now_s - taken_s)
        if not is_same:
            self.same_s = None
        elif self.same_s is None:
            self.same_s = now_s
        self._step(now_s)[1] += 1

    def drop(self, now_s: float, reason: str, count: int = 1) -> None:
        """Count frames that are not sent."""
        self.dropped[reason] += count
        self._step(now_s)[2] += count

    def facts(self, now_s: float) -> CameraFacts:
        """Return the facts that determine its state: frames count as images, dropped frames as rejected images."""
        frames, dropped = self._recent(now_s)
        same_s = now_s - self.same_s if self.same_s is not None else 0.0
        return CameraFacts(
            now_s=now_s,
            last_seen_s=self.last_seen_s,
            pause_s=self.gap_s,
            images=frames,
            rejected=dropped,
            reason=self.dropped.most_common(1)[0][0] if dropped else "",
            failure=self.failure,
            is_over=self.is_over,
            frozen_s=same_s if same_s >= self.frozen_after_s and not (self.failure or self.is_over) else 0.0,
            note=self._of_clock(),
        )

    def frozen_s(self, now_s: float, policy: StatePolicy) -> float:
        """Return for how many seconds it has sent one picture; 0 below `frozen_after_s`, or if it is silent."""
        facts = self.facts(now_s)
        return 0.0 if facts.silence_s > policy.silence_until_s(facts.pause_s) else facts.frozen_s

    def _of_clock(self) -> str:
        """Return a note about a clock that is wrong; "" if its times are used."""
        off_s = self.clock_off_s
        ahead = "ahead" if off_s > 0 else "behind"
        return f"its clock is {as_duration(abs(off_s))} {ahead}, and is not used" if off_s else ""

    def row(self, now_s: float, policy: StatePolicy) -> CameraRow:
        """Return the camera's row of the page."""
        found, why = state(self.facts(now_s), policy)
        first = int(now_s // STEP_S) - _RATE_STEPS
        over_s = min(_RATE_STEPS * STEP_S, max(STEP_S, now_s - self.began_s))
        return CameraRow(
            stream_id=self.stream_id,
            partition=self.shown,
            state=found,
            why=why,
            images_per_s=sum(frames for step, frames, _ in self._steps if step > first) / over_s,
            images=self.sent,
            rejected=self.dropped.total(),
            last_seen_s=self.last_seen_s,
            picture=self.picture,
        )

    def _step(self, now_s: float) -> list[int]:
        """Return the counts of this step, after dropping those older than five minutes."""
        step = int(now_s // STEP_S)
        if not self._steps or self._steps[-1][0] < step:
            self._steps.append([step, 0, 0])
            while self._steps[0][0] <= step - RECENT_STEPS:
                self._steps.popleft()
        return self._steps[-1]

    def _recent(self, now_s: float) -> tuple[int, int]:
        """Return how many frames came and how many were dropped in five minutes; a frame may count in both."""
        first = int(now_s // STEP_S) - RECENT_STEPS
        recent = [entry for entry in self._steps if entry[0] > first]
        return sum(frames for _, frames, _ in recent), sum(dropped for _, _, dropped in recent)


@dataclass(slots=True)
class LiveSources:
    """The cameras of one process. Each event comes with its time.

    Args:
        title: title of the page.
        began_s: time at which the process began.
        silent_after_s: seconds without a frame before which no camera counts as silent.
        stuck_after_s: seconds without a turn of the loop after which the process counts as stuck.
        keeps_pictures: True to keep the last frame of each camera for the page.
    """

    title: str
    began_s: float
    silent_after_s: float
    stuck_after_s: float
    keeps_pictures: bool = False
    now_s: float = 0.0
    cameras: dict[str, SourceCamera] = field(default_factory=dict)
    retries: Counter[str] = field(default_factory=Counter)  # by the party that failed, see `party_of`
    waiting: int = 0  # frames that wait for the broker
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.now_s = self.began_s
        self.health = Health(self.began_s, self.stuck_after_s, doing=DOING)

    # -- events

    def enter(self, now_s: float, phase: Phase) -> None:
        """Record that the process is in this phase from now on."""
        self.health.enter(phase, now_s)

    def turn(self, now_s: float, waiting: int) -> None:
        """Record a turn of the loop, and how many frames wait for the broker."""
        self.waiting = waiting
        self.health.turned(now_s)

    def retry(self, now_s: float, error: AdawiseError, what: str) -> None:
        """Record that `what` failed with this error of the broker and is retried."""
        self.retries[party_of(error)] += 1
        self.health.failed(what, error, now_s)

    def retries_ended(self, _now_s: float, what: str) -> None:
        """Record that `what`, which failed before, succeeded."""
        self.health.ended(what)

    def add(self, now_s: float, stream_id: str, shown: str, frozen_after_s: float) -> None:
        """Add a camera that is to be read; if it was there before, its counts continue."""
        known = self.cameras.get(stream_id)
        made = SourceCamera(stream_id, shown, frozen_after_s, now_s)
        if known is not None:
            made.sent, made.sent_bytes, made.connects = known.sent, known.sent_bytes, known.connects
            made.dropped, made.failures, made.picture = known.dropped, known.failures, known.picture
        self.cameras[stream_id] = made

    def remove(self, _now_s: float, stream_id: str) -> None:
        """Remove a camera that is not to be read any more."""
        self.cameras.pop(stream_id, None)

    def connect(self, _now_s: float, stream_id: str) -> None:
        """Count an attempt to connect to the camera."""
        self.cameras[stream_id].connects += 1

    def open(self, _now_s: float, stream_id: str, what: str) -> None:
        """Record that the camera's stream is open; `what` is its codec and size."""
        camera = self.cameras[stream_id]
        camera.is_open, camera.what, camera.same_s = True, what, None

    def come(self, now_s: float, stream_id: str, taken_s: float, jpeg: bytes, is_same: bool) -> None:
        """See `SourceCamera.come`."""
        camera = self.cameras[stream_id]
        camera.come(now_s, taken_s, is_same=is_same)
        if self.keeps_pictures:
            camera.jpeg, camera.picture = jpeg, camera.picture + (not is_same)

    def misdate(self, _now_s: float, stream_id: str, off_s: float) -> None:
        """Record by how many seconds the camera's clock is ahead (negative: behind); 0 if its times are used."""
        self.cameras[stream_id].clock_off_s = off_s

    def send(self, _now_s: float, stream_id: str, size_bytes: int) -> None:
        """Count a frame that was handed to the broker; its camera may have been removed by then."""
        if (camera := self.cameras.get(stream_id)) is not None:
            camera.sent += 1
            camera.sent_bytes += size_bytes

    def drop(self, now_s: float, stream_id: str, reason: str, count: int = 1) -> None:
        """Count dropped frames, see `SourceCamera.drop`; their camera may have been removed by then."""
        if (camera := self.cameras.get(stream_id)) is not None:
            camera.drop(now_s, reason, count)

    def fail(self, _now_s: float, stream_id: str, why: str, refused: bool) -> None:
        """Record that the connection ended, and why; `refused` if only an operator can fix the cause."""
        camera = self.cameras[stream_id]
        camera.is_open, camera.failure = False, why
        camera.failures["refused" if refused else "failed"] += 1

    def end(self, _now_s: float, stream_id: str) -> None:
        """Record that the camera's video has reached its end."""
        self.cameras[stream_id].is_over = True

    # -- what is shown

    def view(self) -> LiveView:
        """See `Provider`."""
        now_s = self.now_s
        rows = [camera.row(now_s, self.policy) for camera in self.cameras.values()]
        ready = self.health.ready(now_s)
        rate = sum(row.images_per_s for row in rows)
        facts = [("state", ready.status), ("frames/s", f"{rate:.1f}"), ("waiting", str(self.waiting))]
        notices = list(ready.reasons) if not ready.ok else self.health.amiss(now_s, in_full=True)
        return LiveView(self.title, now_s, rows, facts, notices)

    def states(self) -> Mapping[CameraState, int]:
        """Return the number of cameras in each state."""
        return counted((state(camera.facts(self.now_s), self.policy)[0] for camera in self.cameras.values()), STATES)

    @property
    def policy(self) -> StatePolicy:
        """The limits of states. A camera that is to be read is never gone; its pause is known after two frames."""
        return StatePolicy(self.silent_after_s, unknown_pause_s=0.0, gone_after_s=math.inf)

    def picture(self, key: str) -> bytes | None:
        """See `Provider`."""
        named: Sequence[SourceCamera] = [c for c in self.cameras.values() if key == f"{c.shown}/{c.stream_id}"]
        return named[0].jpeg if named else None
