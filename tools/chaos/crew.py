"""The workers of a run: hired, watched, replaced; and the count of all that happened to them."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing import connection
from types import TracebackType
from typing import Self

from adawise.records import TopicPartition
from tests.worker.process import Event
from tools.chaos.actor import Role, WorkerActor

SIZE = 3
SEATS = ("first", "second")  # names of static members
_BACK_OFF_S = 1.0  # after a start that failed, as whoever runs workers has it


class Crew:
    """At least `size` workers at any time: whoever ends by itself is replaced; that is a fault if it was at work.

    Whoever is hired takes a seat that is free, as a static member of that name; the others have none.
    """

    def __init__(
        self, role: Callable[[int, str | None], Role], seats: Sequence[str] = SEATS, *, size: int = SIZE
    ) -> None:
        self.size, self.most = size, size + 2
        self._role, self._seats, self._hired, self._hire_at = role, seats, 0, 0.0
        self.members: list[WorkerActor] = []
        self.toll: Counter[str] = Counter()
        self.gave_up: list[str] = []  # last words of those that ended otherwise than they should
        self.recovered: Counter[tuple[int, int]] = Counter()  # how often a process took a partition over

    def __enter__(self) -> Self:
        for _ in range(self.size):
            self.hire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self.members:
            actor.bury()
        self.members = []

    def hire(self, seat: str | None = None) -> WorkerActor:
        """One more; on this seat, whoever has it, or on a free one."""
        taken = {actor.role.seat for actor in self.members if actor.exit_code is None}
        free = [name for name in self._seats if name not in taken]
        self.members.append(WorkerActor(self._role(self._hired, seat or next(iter(free), None))))
        self._hired += 1
        return self.members[-1]

    def listen(self, timeout_s: float) -> None:
        """Take in what they tell, waiting at most that long, and see who has ended."""
        connection.wait([actor.link for actor in self.members], timeout=timeout_s)
        for actor in list(self.members):
            ended = actor.exit_code is not None  # asked first: nothing is told after it
            for event in actor.receive():
                self._count(event, actor)
            if ended:
                self._retire(actor)
        while len(self.members) < self.size and time.monotonic() >= self._hire_at:
            self.hire()

    def dismiss(self) -> None:
        """SIGTERM for all; returns when they have ended."""
        for actor in self.members:
            actor.doomed = True
            actor.send(signal.SIGTERM)
        for actor in self.members:
            actor.wait()
            self.toll["dismissed"] += 1
            if actor.exit_code != 0 and not (actor.rivalled and actor.is_fenced):
                self._note_end(actor, "dismissed, ended with ")

    def pick(self, chance: float, *, seated: bool = False) -> WorkerActor | None:
        """One that has partitions (and a seat) and is in nobody's hands; None if there is none now."""
        free = [actor for actor in self.members if actor.owned and not actor.engaged and actor.exit_code is None]
        free = [actor for actor in free if actor.role.seat or not seated]
        return free[int(chance * len(free))] if free else None

    def done_by_others(self, what: str, than: WorkerActor, since: float) -> set[TopicPartition]:
        """Partitions that others than this one have "recovered" or "committed" to after that moment."""
        others = [actor for actor in self.members if actor is not than]
        return {tp for actor in others for when, deed, tp in actor.deeds if when > since and deed == what}

    def _count(self, event: Event, actor: WorkerActor) -> None:
        if event.what == "recovered" and event.tp is not None:
            self.toll["partitions taken over"] += 1
            self.recovered[actor.pid, event.tp.partition] += 1
        if event.what == "committed":
            self.toll["segments" if event.won else "lost races"] += 1

    def _retire(self, actor: WorkerActor) -> None:
        self.members.remove(actor)
        if actor.rivalled and actor.is_fenced:
            self.toll["static members fenced"] += 1
        elif actor.doomed:
            if actor.exit_code not in (0, -signal.SIGKILL) and not actor.met_an_outage:
                self._note_end(actor, "asked to leave, ended with ")
        elif actor.exit_code != -signal.SIGKILL:
            self._hire_at = time.monotonic() + _BACK_OFF_S
            # a worker does not begin without a broker and a store that answer; whoever runs it starts it again
            if actor.seen or not actor.met_an_outage:
                self._note_end(actor)
            else:
                self.toll["starts that failed"] += 1
        actor.bury()

    def _note_end(self, actor: WorkerActor, how: str = "") -> None:
        # On a busy machine a new worker is still being loaded, and handles no signal yet, when all are dismissed.
        if actor.exit_code == -signal.SIGTERM and not actor.has_begun:
            self.toll["ended before they began"] += 1
            return
        self.gave_up.append(f"{how}exit code {actor.exit_code}: {actor.last_words}")
