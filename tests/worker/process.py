"""Real worker processes that die, stand still or hang at a named point, and what their parent can see of them.

They are forked from the server of `tests.processes`. What they do then is `run_worker`, as `adawise run` does.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

import psutil

from adawise import logs
from adawise.app.worker import run_worker
from adawise.records import TopicPartition
from adawise.settings import Settings
from adawise.sink import claims
from adawise.store.store import LocalStore
from adawise.worker import events
from adawise.worker.observer import LogObserver
from tests.deadlines import DEADLINE_S
from tests.kafka.damage import damage
from tests.processes import ENVIRONMENT, in_environment, start_server
from tests.worker import poison

__all__ = ["DEADLINE_S"]  # for those who have it from here


@dataclass(frozen=True)
class Plan:
    """What a worker process is to do.

    The `time`-th time that it comes to `point`: "kill" itself, "stop" (until SIGCONT) or "hang" for ever. With
    `overwrites`, its store replaces segments that exist, as a plain upload would. What it fetches of the batch at
    `damaged`, a partition and an offset, is damaged. With `poisoned`, its codec crashes on the messages of `poison`.
    """

    settings: Settings
    log: Path
    point: str | None = None
    time: int = 1
    then: Literal["kill", "stop", "hang"] = "kill"
    overwrites: bool = False
    damaged: tuple[int, int] | None = None
    poisoned: bool = False


@dataclass(frozen=True)
class Event:
    """What a worker tells its parent: "at" a point, "recovered" or "lost" a partition, "served" a batch, ..."""

    what: str
    point: str = ""
    tp: TopicPartition | None = None
    won: bool = True
    rows: int = 0
    peak_bytes: int = 0


class LoggingObserver(LogObserver):
    """Logs, and tells the parent."""

    def __init__(self, parent: Connection) -> None:
        super().__init__()
        self._events = parent

    def observe(self, event: events.Event) -> None:
        super().observe(event)
        match event:
            case events.PartitionRecovered():
                self._events.send(Event("recovered", tp=event.tp))
            case events.PartitionLost():
                self._events.send(Event("lost", tp=event.tp))
            case events.BatchServed():
                self._events.send(Event("served", rows=event.trace.images))
            case events.SegmentCommitted():
                self._events.send(Event("committed", tp=event.tp, won=event.commit.won, rows=event.commit.rows))
            case _:
                pass


def work(plan: Plan, parent: Connection) -> NoReturn:
    """The worker process from its beginning to its end."""
    out = os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    logs.configure("debug", "json")
    if plan.overwrites:
        LocalStore.create = LocalStore.put  # type: ignore[method-assign]
        claims.prove_create_if_absent = lambda store: None
    if plan.poisoned:
        poison.arm()
    reached: Counter[str] = Counter()

    def at(point: str) -> None:
        reached[point] += 1
        if (point, reached[point]) == (plan.point, plan.time):
            parent.send(Event("at", point))
            _end_or_wait(plan.then)

    with damage(*plan.damaged) if plan.damaged else nullcontext():
        code = run_worker(plan.settings, failpoint=at, observer=LoggingObserver(parent))
    parent.send(Event("ended", peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    sys.exit(code)


def _end_or_wait(how: Literal["kill", "stop", "hang"]) -> None:
    if how == "hang":
        while True:
            time.sleep(60.0)
    os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)


class WorkerProcess:
    """A worker process as its parent sees it; at the end of a `with` block it is dead."""

    def __init__(self, plan: Plan) -> None:
        start_server()
        context = multiprocessing.get_context("forkserver")
        self._plan = plan
        self._events, theirs = context.Pipe(duplex=False)
        self.seen: list[Event] = []
        given = (work, dict(os.environ), plan, theirs)
        self._process = context.Process(target=in_environment, args=given, daemon=True)
        sys.audit("tests.fork")
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def stop(self) -> Event:
        """SIGTERM; its last event. Fails unless it ends with 0."""
        self.send(signal.SIGTERM)
        code = self.exit_code()
        assert code == 0, f"ended with {code}\n{self.diary}"
        return self.seen[-1]

    def exit_code(self) -> int:
        """When it has ended: -9 after SIGKILL."""
        while self._next_event(DEADLINE_S):
            pass
        self._process.join(DEADLINE_S)
        assert self._process.exitcode is not None, self.diary
        return self._process.exitcode

    def wait_for(self, what: str, point: str = "") -> Event:
        """The next event of this kind."""
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up and self._next_event(give_up - time.monotonic()):
            if (self.seen[-1].what, self.seen[-1].point) == (what, point):
                return self.seen[-1]
        raise AssertionError(f"no {what} {point} came from process {self.pid}, only {self.seen}\n{self.diary}")

    def listen(self, seconds: float) -> None:
        """Take what it tells for so long; a pipe that nobody reads would stop it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0.0 and self._next_event(left):
            pass
        assert self._process.exitcode is None, self.diary

    def take_all(self) -> None:
        """Take what it has told, without waiting."""
        while self._next_event(0.0):
            pass

    def insist(self, number: signal.Signals) -> int:
        """Send a signal again and again until it has ended; its exit code."""
        give_up = time.monotonic() + DEADLINE_S
        while self._process.exitcode is None:
            assert time.monotonic() < give_up, self.diary
            self.send(number)
            self._process.join(0.05)
        return self._process.exitcode

    def wait_stopped(self) -> None:
        """Until the kernel shows it as stopped."""
        give_up = time.monotonic() + DEADLINE_S
        while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < give_up, self.diary

    @property
    def committed(self) -> set[TopicPartition]:
        """Partitions of which it has written a segment."""
        return {event.tp for event in self.seen if event.what == "committed" and event.won and event.tp is not None}

    @property
    def recovered(self) -> list[Event]:
        """Each partition that it took over, each time."""
        return [event for event in self.seen if event.what == "recovered"]

    @property
    def diary(self) -> str:
        """The end of its log."""
        return self._plan.log.read_text()[-6_000:] if self._plan.log.exists() else "no log"

    @property
    def rss_bytes(self) -> int:
        """Resident now."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def _next_event(self, timeout_s: float) -> bool:
        """Take one event; False if none will come, or none came in time."""
        try:
            if not self._events.poll(timeout_s):
                return False
            self.seen.append(self._events.recv())
        except (EOFError, OSError):  # it ended, perhaps in the middle of a word
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join(DEADLINE_S)
        self._process.close()
        self._events.close()


def command_line(settings: Settings) -> dict[str, str]:
    """The environment in which `adawise run` has these settings."""
    changed: dict[str, dict[str, Any]] = settings.model_dump(mode="json", exclude_unset=True)
    changed["log"] = {"level": "debug", "format": "json"}
    named = {
        f"ADAWISE_{g}__{name}".upper(): str(value) for g, values in changed.items() for name, value in values.items()
    }
    return os.environ | ENVIRONMENT | named


def wait_until(done: Callable[[], bool], *workers: WorkerProcess) -> None:
    """Until `done()`, which is asked after each event of one of the workers; they must not end before."""
    give_up = time.monotonic() + DEADLINE_S
    ours: dict[Any, WorkerProcess] = {worker._events: worker for worker in workers}
    while not done():
        diaries = "\n".join(worker.diary for worker in workers)
        ready = connection.wait(list(ours), timeout=max(0.0, give_up - time.monotonic()))
        assert ready, f"it did not come to that in {DEADLINE_S} s\n{diaries}"
        for ended in ready:
            assert ours[ended]._next_event(0.0), f"a worker ended before its time\n{diaries}"
