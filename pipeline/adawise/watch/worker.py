"""The live state of one running worker: its cameras, its counts and its health. Pure: the time is an argument.

It belongs to one thread, which passes it the worker's events in order (`observer`) and asks it for views.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from itertools import takewhile
from statistics import median

import numpy as np
import numpy.typing as npt
from PIL import Image

from adawise.adapt.last_seen import StateOutline, outline_in
from adawise.errors import ChainError
from adawise.ports import ServedBy
from adawise.records import Frame, TopicPartition
from adawise.text import as_duration, shared_layers
from adawise.watch.backlog import PartitionLag, Rates, backlog_facts
from adawise.watch.camera import LiveCamera
from adawise.watch.details import HintPlaces, worker_facts
from adawise.watch.health import Health
from adawise.watch.row import CameraRow, CameraState, CameraView, LiveView, rates
from adawise.watch.state import GONE_S, CameraFacts, StatePolicy, counted, state
from adawise.worker.events import (
    BatchServed,
    DeadLetterSent,
    Event,
    FrameRejected,
    ModelLoaded,
    PairServes,
    PartitionLost,
    PartitionRecovered,
    PhaseEntered,
    RetriesEnded,
    RetryScheduled,
    SegmentCommitted,
    WorkerProgress,
)

Pixels = npt.NDArray[np.uint8]

STATES = tuple(state for state in CameraState if state not in {CameraState.FROZEN, CameraState.GONE})
"""The states that a camera of a worker can have."""

_NAMELESS_S = 300.0  # for which a rejected message without a camera's name is mentioned
_FAILED = "failed"  # the reset of a search that raised an error
_MODEL = {"method": "method", "fingerprint": "model (fingerprint)", "card": "card", "device": "device"}
_PARTITION_DIGITS = 10  # Kafka numbers partitions by 32 bits
_HOLDS_S = 30.0  # a cached row expires even without an event: its rate falls, and changes get old


@dataclass(frozen=True, slots=True)
class LiveBounds:
    """The limits after which something counts as wrong, and the number of cameras that are kept.

    Attributes:
        max_cameras: cameras that are kept; beyond, the camera seen longest ago is forgotten.
        silent_after_s: seconds without an image before which no camera counts as silent (see `StatePolicy`).
        write_within_s: seconds for which rows may wait to be written before their cameras count as failing.
        stuck_after_s: seconds without a step or an event after which the worker counts as stuck.
    """

    max_cameras: int
    silent_after_s: float
    write_within_s: float
    stuck_after_s: float


@dataclass(slots=True)
class LiveWorker:
    """The state of a worker as its events describe it.

    Args:
        title: title of the page.
        began_s: Unix time at which the process began; all times here are Unix times in seconds.
        bounds: limits, see `LiveBounds`.
        places: the places that the commands on a camera's page name; None to show no commands.
    """

    title: str
    began_s: float
    bounds: LiveBounds
    places: HintPlaces | None = None
    now_s: float = 0.0
    conditions: Counter[str] = field(default_factory=Counter)  # entered by streams, by outcome (`NEW`, `RETURNED`)
    evicted: int = 0  # streams
    closed_early: int = 0  # batches
    health: Health = field(init=False)
    classes: Sequence[str] = ()
    serving: dict[TopicPartition, ServedBy] = field(default_factory=dict)  # the pair that serves it, once one is named
    facts: Mapping[str, str] = field(default_factory=dict)  # about the model
    committed_s: float | None = None  # time of the last segment
    is_member: bool = False  # of the consumer group
    topic_partitions: int | None = None
    forgotten: int = 0  # cameras that were dropped because of `max_cameras`
    cameras: dict[tuple[TopicPartition, str], LiveCamera] = field(default_factory=dict)  # the one last seen is last
    _loaded: Mapping[str, str] = field(default_factory=dict)  # about the model, as it was loaded at the start
    _rows: dict[str, tuple[str, float, CameraRow]] = field(default_factory=dict)  # (failure, valid until, row), cached
    _touched: set[str] = field(default_factory=set)  # keys of rows whose cache is outdated
    _evicted: dict[TopicPartition, int] = field(default_factory=dict)
    _unwritten_s: dict[TopicPartition, float] = field(default_factory=dict)  # time since which rows wait
    _hindered_s: dict[TopicPartition, float] = field(default_factory=dict)  # last time that it was held up
    _nameless: tuple[float, str] | None = None  # (time, reason) of the last rejection without a camera's name
    _rates: dict[TopicPartition, Rates] = field(default_factory=dict)
    _per_s: dict[TopicPartition, tuple[float | None, float | None]] = field(default_factory=dict)  # arriving, served

    def __post_init__(self) -> None:
        self.now_s = self.began_s
        self.health = Health(self.began_s, self.bounds.stuck_after_s)

    # -- events, each with its time

    def observe(self, now_s: float, event: Event, pixels: Pixels | None = None) -> None:
        """Take an event of that time; a batch may come with a small picture of its last image."""
        match event:
            case PhaseEntered():
                self.health.enter(event.phase, now_s)
            case ModelLoaded():
                self.classes = tuple(event.classes)
                self.facts = {name: str(value) for name, value in event.facts.items() if value is not None}
                self._loaded = self.facts
            case PairServes():
                self._pair_serves(event.tp, event.by)
            case PartitionRecovered():
                self._recovered(now_s, event.tp, event.head.states)
            case PartitionLost():
                self._lost(event.tp)
            case FrameRejected():
                self._rejected(now_s, event.frame)
            case DeadLetterSent():
                self._dead_letter(event.frame)
            case BatchServed():
                self._served(now_s, event, pixels)
            case SegmentCommitted() if event.commit.won:
                self.committed_s = now_s
                self._unwritten_s.pop(event.tp, None)
            case RetryScheduled():
                self.health.failed(event.what, event.error, now_s)
            case RetriesEnded():
                self.health.ended(event.what)
            case _:
                pass

    def _pair_serves(self, tp: TopicPartition, by: ServedBy) -> None:
        """Record that another pair serves a partition, and clear class counts of its cameras.

        The old counts are by the class numbers of the former pair.
        """
        self.serving[tp] = by
        self.facts = {**self.facts, **_facts_of(by)}
        for camera in self.cameras.values():
            if camera.tp == tp:
                camera.forget_classes()
                self._touched.add(f"{tp}/{camera.stream_id}")

    def progressed(
        self, now_s: float, progress: WorkerProgress, is_member: bool, partitions: int | None = None
    ) -> None:
        """Take the worker's progress, its membership in the group, and the number of partitions of the topic."""
        self.is_member, self.topic_partitions = is_member, partitions
        self.health.progressed(progress, is_member=is_member)
        self.closed_early = max(self.closed_early, progress.batches_closed_early)
        for tp, partition in progress.partitions.items():
            before = self._evicted.get(tp, 0)
            self.evicted += max(0, partition.streams_evicted - before)
            self._evicted[tp] = partition.streams_evicted
            self._per_s[tp] = self._rates.setdefault(tp, Rates()).add(now_s, partition.durable, partition.lag)
            if not partition.rows:
                self._unwritten_s.pop(tp, None)
            else:
                self._unwritten_s.setdefault(tp, now_s)
        for tp in progress.partitions:
            if self.failure(tp) or self.health.outage("broker") is not None:
                self._hindered_s[tp] = now_s
        # No camera is known to be gone where nothing was read, served or written within that time.
        old = takewhile(lambda item: now_s - item[1].last_seen_s >= GONE_S, self.cameras.items())
        for key in [key for key, _ in old if now_s - self._hindered_s.get(key[0], -math.inf) >= GONE_S]:
            self._forget(key)

    def _recovered(self, now_s: float, tp: TopicPartition, states: Mapping[str, bytes]) -> None:
        """Add the cameras that the partition's chain knows, so that they are shown even if they send nothing.

        Cameras last seen more than a day ago are left out. If there are too many, those seen last are added.
        """
        self._evicted.pop(tp, None)
        outlines = {name: outline for name, data in states.items() if (outline := _outline(data))}
        last_seen_s = {name: each.last_seen.last_seen_s(now_s) for name, each in outlines.items() if each.last_seen}
        known = [(at_s, name) for name, at_s in last_seen_s.items() if at_s is not None and now_s - at_s < GONE_S]
        room = max(0, self.bounds.max_cameras - len(self.cameras))
        adopted = {(tp, name): LiveCamera(name, tp, at_s) for at_s, name in nlargest(room, known)}
        for (_, name), camera in adopted.items():
            camera.adopt(outlines[name])
        together = {**adopted, **self.cameras}
        self.cameras = dict(sorted(together.items(), key=lambda item: item[1].last_seen_s))

    def _lost(self, tp: TopicPartition) -> None:
        """Forget the cameras of a partition that now belongs to another worker."""
        for known in (self._evicted, self._unwritten_s, self._rates, self._per_s, self._hindered_s):
            known.pop(tp, None)
        for key in [key for key in self.cameras if key[0] == tp]:
            self._forget(key)

    def _rejected(self, now_s: float, frame: Frame) -> None:
        reason = str(frame.reason)
        if frame.stream_id is None:
            self._nameless = now_s, reason
            return
        row = frame.row_id
        self._camera(TopicPartition(row.topic, row.partition), frame.stream_id, now_s).reject(now_s, reason)

    def _dead_letter(self, frame: Frame) -> None:
        row = frame.row_id
        camera = self.cameras.get((TopicPartition(row.topic, row.partition), frame.stream_id or ""))
        if camera is not None:
            camera.dead_letters += 1

    def _served(self, now_s: float, event: BatchServed, pixels: Pixels | None) -> None:
        trace, predictions = event.trace, event.predictions
        first, second = predictions.endpoint_index
        both = (first >= 0) & (second >= 0)
        camera = self._camera(TopicPartition(trace.topic, trace.partition), trace.stream_id, now_s)
        if trace.batch_number == 0 or trace.reset == _FAILED:  # the state is new, and numbers conditions from 0
            camera.forget_conditions()
        if trace.condition is not None and (came := camera.enter(now_s, trace.condition, bool(trace.returned))):
            self.conditions[came] += 1
        camera.served(
            now_s,
            alpha=trace.alpha,
            forward_equivalents=trace.forward_equivalents,
            labels=predictions.top_index[:, 0].tolist(),
            confidence=float(predictions.top_probability[:, 0].mean()),
            # `mean` takes four times as long for so few numbers.
            entropy=float(np.add.reduce(predictions.entropy)) / len(predictions.entropy),
            compared=int(both.sum()),
            agreed=int((both & (first == second)).sum()),
            reset=trace.reset,
            off_list=sum(trace.off_list.values()) if trace.off_list else 0,
        )
        if pixels is not None:
            camera.pixels = pixels
            camera.picture += 1

    # -- what is shown

    def view(self) -> LiveView:
        """See `Provider.view`; rows of cameras without a new event are mostly the same objects."""
        policy = self.policy
        rows = [self._row(camera, policy) for camera in self.cameras.values()]
        self._touched.clear()
        return LiveView(self.title, self.now_s, rows, self._facts(rows), self._notices())

    def states(self) -> Mapping[CameraState, int]:
        """Return the number of cameras in each state."""
        policy = self.policy
        found = (state(self._facts_of(camera), policy)[0] for camera in self.cameras.values())
        return counted((each for each in found if each in STATES), STATES)

    @property
    def policy(self) -> StatePolicy:
        """The limits of states.

        A camera whose usual pause is not known yet is assumed to have the median pause of the worker's cameras. So
        cameras that fell silent before their partition moved here are noticed once others have sent twice.
        """
        pauses = [camera.gap_s for camera in self.cameras.values() if camera.gap_s is not None]
        silent_s = self.bounds.silent_after_s
        policy = StatePolicy(silent_s, gone_after_s=math.inf)  # cameras that are gone are forgotten
        return replace(policy, unknown_pause_s=median(pauses)) if pauses else policy

    def camera(self, key: str) -> CameraView | None:
        """See `Provider.camera`."""
        camera = self._find(key)
        if camera is None:
            return None
        row = self._row(camera, self.policy)
        by = self.serving.get(camera.tp)
        model = _shown(self._loaded if by is None else {**self._loaded, **_facts_of(by)})
        return CameraView(
            self.title,
            self.now_s,
            row,
            worker_facts(camera, row, self.now_s, self.backlogs().get(camera.tp), model),
            camera.conditions,
            camera.conditions_seen,
            () if self.places is None else self.places.hints(camera.stream_id, rejected=camera.rejected),
        )

    def picture(self, key: str) -> bytes | None:
        """See `Provider.picture`."""
        camera = self._find(key)
        if camera is None or camera.pixels is None:
            return None
        out = io.BytesIO()
        Image.fromarray(camera.pixels.transpose(1, 2, 0)).save(out, "JPEG", quality=80)
        return out.getvalue()

    def backlogs(self) -> dict[TopicPartition, PartitionLag]:
        """Return the lag of each partition with its rates."""
        found = {}
        for tp, waits in self.health.backlogs(self.now_s).items():
            arriving, served = self._per_s.get(tp, (None, None))
            found[tp] = PartitionLag(waits.lag, waits.age_s, arriving, served)
        return found

    def failure(self, tp: TopicPartition) -> str:
        """Return in words why a partition is not served or not written; empty if it is."""
        progress = self.health.progress
        partition = progress.partitions.get(tp) if progress else None
        if partition is not None and partition.blocked:
            return "its partition is blocked, see the log"
        since_s = self._unwritten_s.get(tp)
        if since_s is not None and self.now_s - since_s > self.bounds.write_within_s:
            return f"its rows have waited {as_duration(self.now_s - since_s)} to be written"
        return ""

    def served_until_s(self, tp: TopicPartition) -> float:
        """Return the Unix time up to which all messages of a partition have been served, as far as is known.

        It is the Kafka timestamp of the oldest waiting message, if some at the broker are unread. A timestamp that lies
        in the future or is a day old is ignored, since the producer's clock must be wrong.
        """
        progress = self.health.progress
        partition = progress.partitions.get(tp) if progress else None
        if partition is None or 0 in (partition.lag, partition.unread) or partition.oldest_ms is None:
            return self.now_s  # messages in memory are served soon; clocks of producers may be wrong
        waits_s = self.now_s - partition.oldest_ms / 1e3
        return self.now_s - waits_s if 0.0 < waits_s < GONE_S else self.now_s

    def _facts_of(self, camera: LiveCamera) -> CameraFacts:
        failure, until_s = self.failure(camera.tp), self.served_until_s(camera.tp)
        return camera.facts(self.now_s, failure=failure, served_until_s=until_s)

    def _row(self, camera: LiveCamera, policy: StatePolicy) -> CameraRow:
        """Return the cached row of a camera, or a new one if an event, a failure or the time has outdated it."""
        failure = self.failure(camera.tp)
        known = self._rows.get(key := f"{camera.tp}/{camera.stream_id}")
        if known and key not in self._touched and known[0] == failure and self.now_s <= known[1]:
            return known[2]
        partition = self.health.progress.partitions.get(camera.tp) if self.health.progress else None
        row = camera.row(self._facts_of(camera), policy, self._classes_of(camera.tp), partition)
        silent_from_s = camera.last_seen_s + policy.silence_until_s(camera.gap_s)
        holds_s = _HOLDS_S if self.now_s > silent_from_s else min(_HOLDS_S, silent_from_s - self.now_s)
        self._rows[key] = failure, self.now_s + holds_s, row
        return row

    def _facts(self, rows: Sequence[CameraRow]) -> list[tuple[str, str]]:
        health = self.health
        found = [("state", health.ready(self.now_s).status), *rates(rows)]
        if health.progress:
            found += [*backlog_facts([*self.backlogs().values()]), ("partitions", str(len(health.progress.partitions)))]
        if self.committed_s is not None:
            found.append(("last segment", f"{as_duration(self.now_s - self.committed_s)} ago"))
        return [*found, *_shown(self.facts).items()]

    def _notices(self) -> list[str]:
        health = self.health
        found = [*health.ready(self.now_s).reasons] if not health.ready(self.now_s).ok else []
        found += [notice for notice in health.amiss(self.now_s, in_full=True) if notice not in found]
        if self._nameless and self.now_s - self._nameless[0] < _NAMELESS_S:
            found.append(f"messages that name no camera were rejected, the last: {self._nameless[1]}")
        if self.forgotten:
            found.append(f"{self.forgotten} cameras were removed from this page (http.max_cameras)")
        return found

    def _classes_of(self, tp: TopicPartition) -> Sequence[str]:
        return self.serving[tp].classes if tp in self.serving else self.classes

    # -- cameras

    def _find(self, key: str) -> LiveCamera | None:
        """Return the camera of a row's key, which comes from an HTTP request; None if there is none."""
        topic, _, rest = key.partition("/")
        number, _, stream_id = rest.partition("/")
        if not (number.isdecimal() and len(number) <= _PARTITION_DIGITS):
            return None
        return self.cameras.get((TopicPartition(topic, int(number)), stream_id))

    def _camera(self, tp: TopicPartition, stream_id: str, now_s: float) -> LiveCamera:
        """Return the camera, created if it is new, and move it to the end, as the one seen last."""
        camera = self.cameras.pop((tp, stream_id), None)
        if camera is None:
            if len(self.cameras) >= self.bounds.max_cameras:
                self._forget(next(iter(self.cameras)))
                self.forgotten += 1
            camera = LiveCamera(stream_id, tp, now_s)
        self.cameras[tp, stream_id] = camera
        self._touched.add(f"{tp}/{stream_id}")
        return camera

    def _forget(self, key: tuple[TopicPartition, str]) -> None:
        del self.cameras[key]
        self._rows.pop(f"{key[0]}/{key[1]}", None)
        self._touched.discard(f"{key[0]}/{key[1]}")


def _outline(data: bytes) -> StateOutline | None:
    """Return the outline of a state; None if it is damaged, which the worker finds out when it needs the state."""
    try:
        return outline_in(data)
    except ChainError:
        return None


def _facts_of(by: ServedBy) -> dict[str, str]:
    """Return the facts about a pair, by the names of `LiveWorker.facts`."""
    served_facts = {"fingerprint": by.model_fingerprint, "classes": str(len(by.classes)), "method": by.method}
    share = "" if by.tail_share is None else str(by.tail_share)
    served_facts |= {"label_column": by.label_column or "", "tail_share": share}
    return {**served_facts, "card": str(by.settings.get("model.card", ""))}


def _shown(facts: Mapping[str, str]) -> dict[str, str]:
    """Return the facts about the model that the pages show, by their names there."""
    shown = {label: facts[name] for name, label in _MODEL.items() if facts.get(name)}
    if column := facts.get("label_column"):
        shown["label of results"] = column
    if share := facts.get("tail_share"):
        shown["shared layers"] = shared_layers(float(share))
    return shown
