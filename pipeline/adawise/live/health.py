"""Is the worker started, ready, alive: the three answers of the probes, with reasons. Pure: time is an argument.

Alive means that its loop turns, whatever broker and store do: a restart would mend neither. Ready is said once the
model is loaded, the store checked, the group joined and the first step made. It stays said while partitions move, or
broker or store are away: a rollout must not wait for somebody else's outage. It is taken back when the worker stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adawise.errors import AdawiseError, BrokerUnavailable, StoreFull, StoreUnavailable
from adawise.live.row import spoken
from adawise.worker.observer import Phase, WorkerProgress

_DOING = {
    Phase.STARTING: "reads its settings and looks up the topic",
    Phase.LOADING_MODEL: "loads the two models",
    Phase.CHECKING_STORE: "checks the output folder, and waits for it if it does not answer",
    Phase.ENCODING_TEXT: "encodes the prompts of the classes",
    Phase.WORKING: "works",
    Phase.STOPPING: "writes what is complete and leaves the group",
}
_MARGIN_S = 15.0  # after the time of the next try: what it takes to fail again


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
    """Tries that failed, one after the other, since then."""

    since_s: float
    until_s: float
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
    outages: dict[str, Outage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.phase_s = self.beat_s = self.began_s

    def enter(self, phase: Phase, now_s: float) -> None:
        """The worker does this from now on."""
        if phase != self.phase:
            self.phase, self.phase_s = phase, now_s

    def progressed(self, progress: WorkerProgress, now_s: float, *, is_member: bool) -> None:
        """The loop turned; `is_member`: it is in its group, with the partitions that it is to have."""
        self.progress, self.has_stepped = progress, True
        self.has_joined = self.has_joined or is_member or bool(progress.partitions)
        self._forget_outages(now_s)

    def turned(self, now_s: float) -> None:
        """The loop of a process that is in no group turned."""
        self.beat_s, self.has_stepped, self.has_joined = now_s, True, True
        self._forget_outages(now_s)

    def _forget_outages(self, now_s: float) -> None:
        self.outages = {who: outage for who, outage in self.outages.items() if outage.until_s >= now_s}

    def retried(self, error: AdawiseError, wait_s: float, now_s: float) -> None:
        """Somebody did not answer; again in `wait_s`."""
        who, until_s = who_failed(error), now_s + wait_s + _MARGIN_S
        outage = self.outages.get(who)
        if outage is None or outage.until_s < now_s:
            outage = self.outages[who] = Outage(now_s, until_s, str(error))
        outage.until_s, outage.error, outage.is_full = until_s, str(error), isinstance(error, StoreFull)

    def answered(self, who: str) -> None:
        """It does again."""
        self.outages.pop(who, None)

    def outage(self, who: str, now_s: float) -> Outage | None:
        """Of whom `who_failed` names, if it lasts."""
        outage = self.outages.get(who)
        return outage if outage is not None and outage.until_s >= now_s else None

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
            why = f"the loop has not turned for {spoken(quiet_s)}; see the log, and restart it: nothing is lost"
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
        for who in self.outages:
            if outage := self.outage(who, now_s):
                error = f": {outage.error}" if in_full else ""
                state = "is full, and nothing is written," if outage.is_full else "has not answered"
                found.append(f"{who} {state} for {spoken(now_s - outage.since_s)}{error}")
        progress = self.progress
        if progress is None:
            return found
        if standing := [str(tp) for tp, partition in progress.partitions.items() if partition.stands]:
            found.append(f"cannot be read on, see the log: {_some(standing)}")
        if progress.recovering:
            found.append(f"its chain is being read: {_some([str(tp) for tp in progress.recovering])}")
        if progress.paused:
            found.append("reading pauses: rows or the recording cannot be written as quickly as images come")
        for number, (state, why) in progress.pairs.states.items():
            if state == "failed":
                found.append(f"pair {number} could not be loaded" + (f": {why}" if in_full else "; see the log"))
        if not progress.partitions and not progress.recovering and self.has_joined:
            found.append("in reserve: others of the group have all partitions")
        return found

    def _doing(self, now_s: float) -> str:
        return f"it {self.doing[self.phase]}, for {spoken(now_s - self.phase_s)}"

    def _answer(self, ok: bool, status: str, now_s: float, reasons: Sequence[str] = ()) -> ProbeAnswer:
        return ProbeAnswer(ok, status, self.phase, now_s - self.phase_s, tuple(reasons))


PARTIES = ("the broker", "the store", "the log")
"""Who may not answer."""


def who_failed(error: AdawiseError) -> str:
    """Of a try that is made again."""
    if isinstance(error, StoreUnavailable):
        return "the store"
    return "the broker" if isinstance(error, BrokerUnavailable) else "the log"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
