"""Is the worker started, ready, alive: the three answers of the probes, with reasons. Pure: time is an argument.

Alive means that its loop turns, whatever broker and store do: a restart would mend neither. Ready is said once the
model is loaded, the store checked, the group joined and the first step made. It stays said while partitions move, or
broker or store are away: a rollout must not wait for somebody else's outage. It is taken back when the worker stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adawise.errors import (
    AdawiseError,
    BrokerUnavailable,
    PermissionRefused,
    StoreFull,
    StoreUnavailable,
    TopicUnavailable,
)
from adawise.live.backlog import PartitionLag
from adawise.records import TopicPartition
from adawise.text import as_duration
from adawise.worker.events import PartitionProgress, Phase, WorkerProgress

_DOING = {
    Phase.STARTING: "reads its settings and looks up the topic",
    Phase.LOADING_MODEL: "loads the two models",
    Phase.CHECKING_STORE: "checks the output folder, and waits for it if it does not answer",
    Phase.ENCODING_TEXT: "encodes the prompts of the classes",
    Phase.WORKING: "works",
    Phase.STOPPING: "writes what is complete and leaves the group",
}


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """Of a probe. `reasons` say why not, or, where `ok`, what is amiss all the same."""

    ok: bool
    status: str  # one word, stable
    phase: Phase
    phase_s: float  # seconds in it
    reasons: Sequence[str] = ()


@dataclass(slots=True)
class Outage:
    """Tries of one thing that failed, one after the other, since then; `party` is who failed the last of them."""

    since_s: float
    party: str
    error: str
    is_full: bool = False  # and not silent


@dataclass(slots=True)
class Health:
    """What the probes answer from.

    Args:
        began_s: when the process began.
        stuck_after_s: without a step or an event, and the loop does not turn any more.
        doing: what it does in each phase, for people.
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
        """The worker does this from now on."""
        if phase != self.phase:
            self.phase, self.phase_s = phase, now_s

    def progressed(self, progress: WorkerProgress, *, is_member: bool) -> None:
        """The loop turned; `is_member`: it is in its group, with the partitions that it is to have."""
        self.progress, self.has_stepped = progress, True
        self.has_joined = self.has_joined or is_member or bool(progress.partitions)

    def turned(self, now_s: float) -> None:
        """The loop of a process that is in no group turned."""
        self.beat_s, self.has_stepped, self.has_joined = now_s, True, True

    def failed(self, what: str, error: AdawiseError, now_s: float) -> None:
        """A try of `what` failed. Its outage lasts until `ended`, however long the next try takes."""
        outage = self.outages.setdefault(what, Outage(now_s, "", ""))
        outage.party, outage.error, outage.is_full = party_of(error), str(error), isinstance(error, StoreFull)

    def ended(self, what: str) -> None:
        """A try of `what` succeeded, or none is made any more."""
        self.outages.pop(what, None)

    def outage(self, party: str) -> Outage | None:
        """The longest that this party causes now."""
        found = [outage for outage in self.outages.values() if outage.party == party]
        return min(found, key=lambda outage: outage.since_s, default=None)

    # -- the probes

    def started(self, now_s: float) -> ProbeAnswer:
        """`/startupz`."""
        if self.has_stepped:
            return self._answer(True, "started", now_s)
        return self._answer(False, "starting", now_s, [self._doing(now_s)])

    def alive(self, now_s: float) -> ProbeAnswer:
        """`/livez`."""
        quiet_s = now_s - max(self.beat_s, self.phase_s)
        if self.phase in {Phase.WORKING, Phase.STOPPING} and quiet_s > self.stuck_after_s:
            why = f"the loop has not turned for {as_duration(quiet_s)}; see the log, and restart it: nothing is lost"
            return self._answer(False, "stuck", now_s, [why])
        return self._answer(True, "alive", now_s)

    def ready(self, now_s: float) -> ProbeAnswer:
        """`/readyz`."""
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
        """What is not as it should be, a sentence each; errors `in_full` name hosts and folders."""
        found = []
        for party, (failing, full) in PARTIES.items():
            if outage := self.outage(party):
                error = f": {outage.error}" if in_full else ""
                found.append(f"{full if outage.is_full else failing} for {as_duration(now_s - outage.since_s)}{error}")
        progress = self.progress
        if progress is None:
            return found
        if standing := [str(tp) for tp, partition in progress.partitions.items() if partition.stands]:
            found.append(f"cannot be read on, see the log: {_some(standing)}")
        if progress.recovering:
            found.append(f"its chain is being read: {_some([str(tp) for tp in progress.recovering])}")
        behind = {tp: now for tp, now in self.backlogs(now_s).items() if now.is_behind}
        if behind:
            lag, age_s = sum(now.lag or 0 for now in behind.values()), max(now.age_s or 0.0 for now in behind.values())
            waits = f"{lag} messages wait, the oldest for {as_duration(age_s)}"
            found.append(f"{waits}: {_some([str(tp) for tp in behind])}")
        if progress.paused:
            found.append("reading pauses: rows or the recording cannot be written as quickly as images come")
        for number, (state, why) in progress.pairs.states.items():
            if state == "failed":
                found.append(f"pair {number} could not be loaded" + (f": {why}" if in_full else "; see the log"))
        if not progress.partitions and not progress.recovering and self.has_joined:
            found.append("in reserve: others of the group have all partitions")
        return found

    def backlogs(self, now_s: float) -> dict[TopicPartition, PartitionLag]:
        """What waits of each partition, without rates."""
        return {tp: waits(each, now_s) for tp, each in self.progress.partitions.items()} if self.progress else {}

    def _doing(self, now_s: float) -> str:
        return f"it {self.doing[self.phase]}, for {as_duration(now_s - self.phase_s)}"

    def _answer(self, ok: bool, status: str, now_s: float, reasons: Sequence[str] = ()) -> ProbeAnswer:
        return ProbeAnswer(ok, status, self.phase, now_s - self.phase_s, tuple(reasons))


PARTIES: Mapping[str, tuple[str, str]] = {
    "broker": ("the broker has not answered", ""),
    "topic": ("a topic that is written to has taken nothing", ""),
    "permission": ("the broker has not allowed what is to be done", ""),
    "store": ("the store has not answered", "the store is full, and nothing is written,"),
    "log": ("the log has not answered", ""),
}
"""Who may cause an outage, with the beginning of a sentence about it, and of one about a store that is full.

The names are stable: a metric's label has them.
"""


def party_of(error: AdawiseError) -> str:
    """The party that failed a try that is made again."""
    if isinstance(error, StoreUnavailable):
        return "store"
    if isinstance(error, PermissionRefused):
        return "permission"
    if isinstance(error, TopicUnavailable):
        return "topic"
    return "broker" if isinstance(error, BrokerUnavailable) else "log"


def waits(partition: PartitionProgress, now_s: float) -> PartitionLag:
    """What waits of a partition, without rates."""
    if partition.lag == 0:
        return PartitionLag(0, 0.0)
    age_s = None if partition.oldest_ms is None else max(0.0, now_s - partition.oldest_ms / 1e3)
    return PartitionLag(partition.lag, None if partition.lag is None else age_s)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
