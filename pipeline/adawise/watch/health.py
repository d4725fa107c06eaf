"""The answers to the startup, liveness and readiness probes, with reasons. Pure: the time is an argument.

A worker is alive while its loop turns, even if the broker or the store is down, since a restart would fix neither. It
is ready once it has loaded the model, checked the store, joined the group and made its first step. It stays ready while
partitions are reassigned or the broker or the store is down, so that a rollout does not wait for their outage. It is no
longer ready once its loop is stuck or it stops.

A worker with a problem writes a health report to its root (`_workers`), where `adawise status` reads it. It has the
answer of `/readyz` and what the worker waits for. No document is written for a worker without problems. If
the store has no room even for this file, the report is missing; `adawise status` then goes by the root's free space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from adawise.errors import (
    AdawiseError,
    BrokerUnavailable,
    PermissionRefused,
    StoreFull,
    StoreUnavailable,
    TopicUnavailable,
)
from adawise.records import TopicPartition
from adawise.text import as_duration, some
from adawise.watch.backlog import PartitionLag
from adawise.worker.events import (
    Event,
    PartitionProgress,
    Phase,
    PhaseEntered,
    RetriesEnded,
    RetryScheduled,
    Stepped,
    WorkerProgress,
)

_DOING = {
    Phase.STARTING: "reads its settings and looks up the topic",
    Phase.LOADING_MODEL: "loads the two models",
    Phase.CHECKING_STORE: "checks the output folder, or waits until it answers",
    Phase.ENCODING_TEXT: "encodes the prompts of the classes",
    Phase.WORKING: "works",
    Phase.STOPPING: "writes what is complete and leaves the group",
}


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """The answer to a probe. `reasons` say why it is negative or, if it is `ok`, which problems there are anyway."""

    ok: bool
    status: str  # one word, which is stable
    phase: Phase
    phase_s: float  # seconds since the phase began
    reasons: Sequence[str] = ()


@dataclass(slots=True)
class Outage:
    """An uninterrupted series of failed tries of one operation; `party` is what caused the last failure."""

    since_s: float
    party: str
    error: str
    is_full: bool = False  # the store answers, but has no room


@dataclass(slots=True)
class Health:
    """The state of the process from which the probes are answered.

    Args:
        began_s: Unix time at which the process began.
        stuck_after_s: seconds without a step or an event after which the loop counts as stuck.
        doing: description of each phase, as the end of a sentence that begins with "it".
    """

    began_s: float
    stuck_after_s: float
    doing: Mapping[Phase, str] = field(default_factory=lambda: _DOING)
    phase: Phase = Phase.STARTING
    phase_s: float = 0.0
    beat_s: float = 0.0  # the last sign of life of the loop
    has_stepped: bool = False
    has_joined: bool = False
    progress: WorkerProgress | None = None
    outages: dict[str, Outage] = field(default_factory=dict)  # by what was tried

    def __post_init__(self) -> None:
        self.phase_s = self.beat_s = self.began_s

    def enter(self, phase: Phase, now_s: float) -> None:
        """Record that the worker is in this phase from now on."""
        if phase != self.phase:
            self.phase, self.phase_s = phase, now_s

    def progressed(self, progress: WorkerProgress, *, is_member: bool) -> None:
        """Record a turn of the loop; `is_member` is True if the worker is in its group, with its assignment."""
        self.progress, self.has_stepped = progress, True
        self.has_joined = self.has_joined or is_member or bool(progress.partitions)

    def turned(self, now_s: float) -> None:
        """Record a turn of the loop of a process that belongs to no consumer group."""
        self.beat_s, self.has_stepped, self.has_joined = now_s, True, True

    def failed(self, what: str, error: AdawiseError, now_s: float) -> None:
        """Record a failed try of `what`. Its outage lasts until `ended` is called, however long the next try takes."""
        outage = self.outages.setdefault(what, Outage(now_s, "", ""))
        outage.party, outage.error, outage.is_full = party_of(error), str(error), isinstance(error, StoreFull)

    def ended(self, what: str) -> None:
        """Record that a try of `what` succeeded, or that it is not tried any more."""
        self.outages.pop(what, None)

    def outage(self, party: str) -> Outage | None:
        """Return the longest present outage that this party causes; None if there is none."""
        found = [outage for outage in self.outages.values() if outage.party == party]
        return min(found, key=lambda outage: outage.since_s, default=None)

    # -- the probes

    def started(self, now_s: float) -> ProbeAnswer:
        """Answer `/startupz`."""
        if self.has_stepped:
            return self._answer(True, "started", now_s)
        return self._answer(False, "starting", now_s, [self._doing(now_s)])

    def alive(self, now_s: float) -> ProbeAnswer:
        """Answer `/livez`."""
        quiet_s = now_s - max(self.beat_s, self.phase_s)
        if self.phase in {Phase.WORKING, Phase.STOPPING} and quiet_s > self.stuck_after_s:
            why = (
                f"the loop has made no step for {as_duration(quiet_s)}; see the log, and restart the worker: "
                "nothing is lost"
            )
            return self._answer(False, "stuck", now_s, [why])
        return self._answer(True, "alive", now_s)

    def ready(self, now_s: float) -> ProbeAnswer:
        """Answer `/readyz`."""
        if self.phase == Phase.STOPPING:
            return self._answer(False, "stopping", now_s, [self._doing(now_s)])
        if not self.has_stepped:
            return self._answer(False, "starting", now_s, [self._doing(now_s), *self.amiss(now_s)])
        if not self.has_joined:
            return self._answer(False, "joining", now_s, ["the group has not been joined yet", *self.amiss(now_s)])
        if not (alive := self.alive(now_s)).ok:
            return alive
        return self._answer(True, "ready", now_s, self.amiss(now_s))

    def amiss(self, now_s: float, *, in_full: bool = False) -> list[str]:
        """Return the present problems, one sentence each; with `in_full`, errors name hosts and folders."""
        found = []
        for party, (failing, full) in PARTIES.items():
            if outage := self.outage(party):
                error = f": {outage.error}" if in_full else ""
                found.append(f"{full if outage.is_full else failing} for {as_duration(now_s - outage.since_s)}{error}")
        progress = self.progress
        if progress is None:
            return found
        if standing := [str(tp) for tp, partition in progress.partitions.items() if partition.blocked]:
            found.append(f"blocked, see the log: {some(standing)}")
        if progress.recovering:
            found.append(f"the worker reads the chain of {some([str(tp) for tp in progress.recovering])}")
        behind = {tp: now for tp, now in self.backlogs(now_s).items() if now.is_behind}
        if behind:
            lag, age_s = sum(now.lag or 0 for now in behind.values()), max(now.age_s or 0.0 for now in behind.values())
            waits = f"{lag} messages wait, the oldest for {as_duration(age_s)}"
            found.append(f"{waits}: {some([str(tp) for tp in behind])}")
        if progress.paused:
            found.append("reading pauses: rows or the recording are written more slowly than images arrive")
        for number, (state, why) in progress.pairs.states.items():
            if state == "failed":
                found.append(f"pair {number} could not be loaded" + (f": {why}" if in_full else "; see the log"))
        if not progress.partitions and not progress.recovering and self.has_joined:
            found.append("in reserve: other workers have all partitions")
        return found

    def backlogs(self, now_s: float) -> dict[TopicPartition, PartitionLag]:
        """Return the lag of each partition, without rates."""
        return {tp: waits(each, now_s) for tp, each in self.progress.partitions.items()} if self.progress else {}

    def _doing(self, now_s: float) -> str:
        return f"it {self.doing[self.phase]}, for {as_duration(now_s - self.phase_s)}"

    def _answer(self, ok: bool, status: str, now_s: float, reasons: Sequence[str] = ()) -> ProbeAnswer:
        return ProbeAnswer(ok, status, self.phase, now_s - self.phase_s, tuple(reasons))


PARTIES: Mapping[str, tuple[str, str]] = {
    "broker": ("the broker has not answered", ""),
    "topic": ("a topic has accepted nothing", ""),
    "permission": ("the broker has denied permission", ""),
    "store": ("the store has not answered", "the store has been full, and nothing was written,"),
    "log": ("the log has not answered", ""),
}
"""The parties that may cause an outage. Each has the beginning of a sentence about it, and of one about a full store.

The names are stable: they are labels of a metric.
"""


def party_of(error: AdawiseError) -> str:
    """Return the party that caused the error of an operation that is retried."""
    if isinstance(error, StoreUnavailable):
        return "store"
    if isinstance(error, PermissionRefused):
        return "permission"
    if isinstance(error, TopicUnavailable):
        return "topic"
    return "broker" if isinstance(error, BrokerUnavailable) else "log"


def waits(partition: PartitionProgress, now_s: float) -> PartitionLag:
    """Return the lag of a partition, without rates."""
    if partition.lag == 0:
        return PartitionLag(0, 0.0)
    age_s = None if partition.oldest_ms is None else max(0.0, now_s - partition.oldest_ms / 1e3)
    return PartitionLag(partition.lag, None if partition.lag is None else age_s)


_STARTS_S = 60.0  # a worker that is not ready for less than this is starting


class HealthReport:
    """An observer that keeps the worker's health in the worker's own thread, and describes its problems.

    Args:
        clock: seconds since the epoch that never go back.
        is_member: returns True if the worker is in its consumer group.
    """

    def __init__(self, clock: Callable[[], float], is_member: Callable[[], bool]) -> None:
        self._clock, self._is_member = clock, is_member
        self._health = Health(clock(), math.inf)
        self._progress: Callable[[], WorkerProgress] | None = None

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        match event:
            case PhaseEntered():
                self._health.enter(event.phase, self._clock())
            case Stepped():
                self._progress = event.progress
            case RetryScheduled():
                self._health.failed(event.what, event.error, self._clock())
            case RetriesEnded():
                self._health.ended(event.what)
            case _:
                pass

    def describe(self) -> dict[str, Any]:
        """Return the worker's problems as a JSON object; empty if it has none. Only the worker's thread may call it."""
        health, now_s = self._health, self._clock()
        if self._progress is not None:
            with suppress(Exception):  # nothing that cannot be found out ends the worker; the last known progress stays
                health.progressed(self._progress(), is_member=self._is_member())
        answer = health.ready(now_s)
        outages = {party: outage for party in PARTIES if (outage := health.outage(party)) is not None}
        progress = health.progress
        is_held = progress is not None and (
            progress.paused or any(partition.blocked for partition in progress.partitions.values())
        )
        is_unready = not answer.ok and answer.phase_s > _STARTS_S
        if not (outages or is_held or is_unready):
            return {}
        reasons = health.amiss(now_s, in_full=True)
        if not answer.ok:
            reasons = [*(reason for reason in answer.reasons if reason not in health.amiss(now_s)), *reasons]
        return {
            "status": answer.status,
            "reasons": reasons,
            "waits_for": {
                party: {"seconds": round(now_s - outage.since_s, 1), "full": outage.is_full}
                for party, outage in outages.items()
            },
        }
