"""How each kind of fault is done. A strike is a generator: it is asked again and again, and yields until it is over."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tools.chaos.actor import ANSWER_LOST, REFUSED, TRIED_AGAIN, Order, WorkerActor
from tools.chaos.crew import Crew
from tools.chaos.operators import Operation, Operator
from tools.chaos.schedule import OPERATIONS, Kind, ScheduledFault

PATIENCE_S = 40.0  # for what a victim has to do first
_LONGEST_S = 15 * PATIENCE_S  # of a command that still writes to its log
_LATE = 0.7  # of those who stood still come back when their heirs have written segments; the others may be first
_HEIRS_S = 8.0  # they have for it
_KILLED = 0.85  # from this chance on, a command that may be interrupted is killed

Strike = Generator[None, None, None]


class Brokers(Protocol):
    """A cluster of which one broker may fall."""

    @property
    def count(self) -> int:
        """How many there are."""

    def kill(self, broker: int) -> None:
        """SIGKILL for broker 1, 2, ..."""

    def revive(self) -> Callable[[], bool]:
        """Start what was killed; what it returns is asked until it is True: all answer."""


@dataclass(frozen=True)
class Stage:
    """What a strike can reach; `away` names what does not answer at the moment."""

    crew: Crew
    outage: Path
    brokers: Brokers | None = None
    operator: Operator | None = None
    away: set[str] = field(default_factory=set)


def strike(fault: ScheduledFault, stage: Stage) -> Strike:
    """Do it; what came of it is in `stage.crew.toll`."""
    return _STRIKES[fault.kind](fault, stage)


def _kill(fault: ScheduledFault, stage: Stage) -> Strike:
    actor = yield from _someone(fault, stage)
    if actor is not None:
        yield from _pause(fault.lasts_s)
        actor.send(signal.SIGKILL)
        yield from _the_end(actor, stage, "kills")


def _exit(fault: ScheduledFault, stage: Stage) -> Strike:
    actor = yield from _someone(fault, stage)
    if actor is not None:
        actor.order(Order(fault.point, "die"))
        yield from _the_end(actor, stage, "exits at a point")


def _zombie(fault: ScheduledFault, stage: Stage) -> Strike:
    actor = yield from _someone(fault, stage)
    if actor is not None:
        yield from _stop_still(actor, fault)
        yield from _outlived(actor, fault, stage, "zombies resumed")


def _freeze(fault: ScheduledFault, stage: Stage) -> Strike:
    actor = yield from _someone(fault, stage)
    if actor is not None:
        yield from _pause(fault.lasts_s)
        actor.send(signal.SIGSTOP)
        yield from _outlived(actor, fault, stage, "freezes resumed")


def _stop_still(actor: WorkerActor, fault: ScheduledFault) -> Strike:
    """At the fault's point, if it comes to that in time."""
    actor.order(Order(fault.point, "stand still"))
    yield from _until(lambda: actor.is_stopped or actor.exit_code is not None)
    actor.order(Order("", "stand still"))  # never again, even if it has not come to that


def _outlived(actor: WorkerActor, fault: ScheduledFault, stage: Stage, name: str) -> Strike:
    """It stands still; wake it when another has what it owned, and wait for what it then writes."""
    since, owned, crew = time.monotonic(), set(actor.owned), stage.crew
    yield from _until(lambda: bool(owned & crew.done_by_others("recovered", actor, since)))
    inherited = bool(owned & crew.done_by_others("recovered", actor, since))
    if inherited and fault.chance < _LATE:
        yield from _until(lambda: owned <= crew.done_by_others("committed", actor, since), _HEIRS_S)
    else:
        yield from _pause(fault.lasts_s)
    found = len(actor.seen)
    actor.send(signal.SIGCONT)
    yield from _until(lambda: len(actor.seen) > found or actor.exit_code is not None)
    actor.engaged = False
    stage.crew.toll[name if inherited else "woken too early"] += 1


def _return(fault: ScheduledFault, stage: Stage) -> Strike:
    """A static member dies, and one of its name begins at once: nobody else may get its partitions."""
    actor = yield from _someone(fault, stage, seated=True)
    if actor is None:
        return
    yield from _pause(fault.lasts_s)
    since, owned, crew = time.monotonic(), set(actor.owned), stage.crew
    actor.send(signal.SIGKILL)
    heir = crew.hire(actor.role.seat)
    heir.engaged = True
    yield from _until(lambda: owned <= crew.done_by_others("recovered", actor, since))
    moved = owned & crew.done_by_others("recovered", heir, since)
    heir.engaged = False
    crew.toll["static members back too late" if moved else "static members back in time"] += 1


def _rival(fault: ScheduledFault, stage: Stage) -> Strike:
    """A static member stands still before a commit, one of its name begins; awake again, one of the two must go."""
    actor = yield from _someone(fault, stage, seated=True)
    if actor is None:
        return
    yield from _stop_still(actor, fault)
    since, owned, crew = time.monotonic(), set(actor.owned), stage.crew
    heir = crew.hire(actor.role.seat)
    actor.rivalled = heir.rivalled = heir.engaged = True
    yield from _until(lambda: bool(owned & heir.owned) or heir.exit_code is not None)
    if fault.chance < _LATE:
        yield from _until(lambda: owned <= crew.done_by_others("committed", actor, since), _HEIRS_S)
    actor.send(signal.SIGCONT)
    yield from _until(lambda: actor.exit_code is not None or heir.exit_code is not None, 3 * PATIENCE_S)
    actor.engaged = heir.engaged = False
    if actor.exit_code is None and heir.exit_code is None:
        actor.send(signal.SIGKILL)
        stage.crew.gave_up.append(f"two static members of one name were at work for {3 * PATIENCE_S:g} s")


def _join(fault: ScheduledFault, stage: Stage) -> Strike:
    if len(stage.crew.members) < stage.crew.most:
        stage.crew.hire()
        stage.crew.toll["joins"] += 1
        yield from _pause(fault.lasts_s)


def _leave(fault: ScheduledFault, stage: Stage) -> Strike:
    actor = yield from _someone(fault, stage)
    if actor is not None:
        actor.doomed = True
        actor.send(signal.SIGTERM)
        yield from _until(lambda: actor.exit_code is not None)
        stage.crew.toll["leaves" if actor.exit_code == 0 else f"leaves with exit code {actor.exit_code}"] += 1


def _outage(fault: ScheduledFault, stage: Stage) -> Strike:
    how = (TRIED_AGAIN, REFUSED, ANSWER_LOST)[int(3 * fault.chance)]
    stage.outage.write_text(how)
    if how != TRIED_AGAIN:
        stage.away.add("the store")
    yield from _pause(1.0 + 3.0 * fault.lasts_s)
    stage.outage.unlink()
    stage.away.discard("the store")
    stage.crew.toll["creations tried again" if how == TRIED_AGAIN else "store outages"] += 1


def _broker(fault: ScheduledFault, stage: Stage) -> Strike:
    assert stage.brokers is not None, "this schedule needs brokers that may fall"
    stage.away.add("a broker")
    stage.brokers.kill(1 + int(fault.chance * stage.brokers.count))
    yield from _pause(1.0 + 3.0 * fault.lasts_s)
    returned = stage.brokers.revive()
    yield from _until(returned, 3 * PATIENCE_S)
    stage.away.discard("a broker")
    stage.crew.toll["broker restarts"] += 1


def _operation(fault: ScheduledFault, stage: Stage) -> Strike:
    """The commands of an operation, to their end; some are killed on the way, as by whoever is impatient."""
    assert stage.operator is not None, "this schedule needs an operator"
    for operation in stage.operator.begin(fault.kind, fault.chance):
        if fault.chance >= _KILLED and fault.kind in _MAY_BE_KILLED:
            yield from _pause(fault.lasts_s / 2)
            operation.is_killed = True
            operation.call.process.kill()
        yield from _ended(operation, stage)
        stage.crew.toll[f"operations: {fault.kind} {operation.outcome}"] += 1


_MAY_BE_KILLED = {Kind.COMPACT, Kind.RETAIN, Kind.REPAIR}


def _ended(operation: Operation, stage: Stage) -> Strike:
    """Wait for the end of a command; one that writes no more to its log, or never ends, is killed, and found."""
    written, give_up, began = -1, 0.0, time.monotonic()
    while operation.call.exit_code is None:
        operation.away |= stage.away
        log = operation.call.log
        if log.exists() and log.stat().st_size != written:  # it goes on, however slow the machine is
            written, give_up = log.stat().st_size, time.monotonic() + 3 * PATIENCE_S
        give_up = give_up or time.monotonic() + 3 * PATIENCE_S
        if time.monotonic() > min(give_up, began + _LONGEST_S):
            stage.crew.gave_up.append(f"{operation} had not ended after {time.monotonic() - began:.0f} s")
            operation.is_killed = True
            operation.call.process.kill()
            operation.call()
        yield


def _settings(fault: ScheduledFault, stage: Stage) -> Strike:
    """One leaves; the one that is hired in its place has other settings."""
    actor = yield from _someone(fault, stage)
    if actor is not None:
        actor.doomed = True
        actor.send(signal.SIGTERM)
        yield from _until(lambda: actor.exit_code is not None)
        stage.crew.toll["restarts with other settings"] += 1


def _the_end(actor: WorkerActor, stage: Stage, name: str) -> Strike:
    """Wait until it has died."""
    yield from _until(lambda: actor.exit_code is not None)
    died = actor.exit_code == -signal.SIGKILL
    actor.engaged = False
    stage.crew.toll[name if died else f"no {name}"] += 1


def _someone(fault: ScheduledFault, stage: Stage, *, seated: bool = False) -> Generator[None, None, WorkerActor | None]:
    give_up = time.monotonic() + PATIENCE_S
    while (actor := stage.crew.pick(fault.chance, seated=seated)) is None:
        if time.monotonic() > give_up:
            stage.crew.toll[f"nobody for {fault.kind}"] += 1
            return None
        yield
    actor.engaged = True
    return actor


def _until(done: Callable[[], bool], patience_s: float = PATIENCE_S) -> Strike:
    give_up = time.monotonic() + patience_s
    while not done() and time.monotonic() < give_up:
        yield


def _pause(seconds: float) -> Strike:
    began = time.monotonic()
    yield from _until(lambda: time.monotonic() - began >= seconds)


_STRIKES: dict[Kind, Callable[[ScheduledFault, Stage], Strike]] = {
    Kind.KILL: _kill,
    Kind.EXIT: _exit,
    Kind.ZOMBIE: _zombie,
    Kind.FREEZE: _freeze,
    Kind.RETURN: _return,
    Kind.RIVAL: _rival,
    Kind.JOIN: _join,
    Kind.LEAVE: _leave,
    Kind.OUTAGE: _outage,
    Kind.BROKER: _broker,
    Kind.SETTINGS: _settings,
    **dict.fromkeys(OPERATIONS - {Kind.SETTINGS}, _operation),
}
