"""`adawise run` in a process that takes orders: to die or to stand still at a named point; and what it tells of itself.
Any other command is a process of the same kind, which takes none.

The process is forked from the server of `tests.processes`, which imports this module where this module starts it, so
that a process costs half a second. Where a test has started the server before, each process imports this module itself.
Then it is the command line's `run`, with settings from the environment. Orders come through a pipe and are
looked at at each point. While `Role.outage` exists, a store that is a folder answers nobody; a bucket is cut off by its
proxy (`tools.chaos.place`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial, wraps
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any, Literal, NoReturn

import psutil

from adawise.__main__ import main
from adawise.app import worker
from adawise.cli import command_of
from adawise.errors import BrokerUnavailable, StoreUnavailable, TopicUnavailable
from adawise.records import TopicPartition
from adawise.settings import Settings
from adawise.sink import claims
from adawise.store.object_store import ObjectStore
from adawise.store.store import LocalStore
from tests.processes import start_server
from tests.worker.process import Event, LoggingObserver

REFUSED, ANSWER_LOST, TRIED_AGAIN = "refused", "answer lost", "tried again"
"""What the file `Role.outage` may say: nothing is done; it is done, and the answer is lost; or it is done, and what is
created is created once more by a client that missed the answer, which then finds that it exists."""

# Imported with this module, by the server and not in each process that is forked: a process starts sooner, and nobody
# can change the program meanwhile. (In tests whose server runs already, each process does this.)
for _name in ("record", "replay", "compact", "retain", "repair", "dlq list", "verify", "pair list"):
    command_of(_name)
for _name in (
    *("app.dead_letters", "app.pairs", "app.recording", "app.worker", "output.compaction.compact"),
    *("output.compaction.retain", "output.verify.repair", "output.verify.show", "pairs.operate", "pairs.show"),
    "replay.replay",
):
    import_module(f"adawise.{_name}")

_AWAY = frozenset(kind.__name__ for kind in (BrokerUnavailable, TopicUnavailable, StoreUnavailable))
GRACE_S = 120.0  # for a process to end after a signal
_END = 6_000  # characters of a log, within which its last lines are


@dataclass(frozen=True)
class Role:
    """What a process is: its settings, its log, the file that takes its store away, what else its environment has.

    With `overwrites` its store replaces segments that exist, as a plain upload would. `prepare` is called first in the
    process of a command: a test plants a fault by it.
    """

    settings: Settings
    log: Path
    outage: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    overwrites: bool = False
    prepare: Callable[[], None] | None = None

    @property
    def seat(self) -> str | None:
        """The name that the group knows it by, if it is a static member."""
        return self.settings.kafka.static_member


@dataclass(frozen=True)
class Order:
    """When you next come to `point`."""

    point: str
    then: Literal["die", "stand still"]


def play(role: Role, link: Connection) -> NoReturn:
    """A worker process from its beginning to its end."""
    _write_to(role.log)
    os.environ.update(environment(role.settings) | dict(role.environment))
    if role.overwrites:
        for store in (LocalStore, ObjectStore):
            store.create = store.put  # type: ignore[method-assign]
        claims.prove_create_if_absent = lambda store: None
    _have_outages(role.outage)
    orders: list[Order] = []

    def failpoint(point: str) -> None:
        while link.poll():
            orders[:] = [link.recv()]
        if orders and orders[0].point == point:
            order = orders.pop()
            link.send(Event("at", point))
            os.kill(os.getpid(), signal.SIGKILL if order.then == "die" else signal.SIGSTOP)

    worker.run_worker = partial(worker.run_worker, failpoint=failpoint, observer=LoggingObserver(link))
    sys.exit(main(["run"]))


@dataclass(frozen=True)
class Call:
    """A command that is under way. For one thread alone: an exit code that two threads ask for comes once.

    `meet` is kept: without its parent's the process would find none.
    """

    process: ForkServerProcess
    log: Path
    meet: Barrier | None

    @property
    def exit_code(self) -> int | None:
        """None while it lives."""
        return self.process.exitcode

    def __call__(self) -> int:
        """Wait for its exit code."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


def begin(role: Role, *arguments: str, meet: Barrier | None = None) -> Call:
    """Start any other command in a process of the same kind; `meet` is where it waits for another one first."""
    start_server(__name__)
    process = multiprocessing.get_context("forkserver").Process(target=_call, args=(role, arguments, meet))
    process.start()
    return Call(process, role.log, meet)


def _call(role: Role, arguments: tuple[str, ...], meet: Barrier | None) -> NoReturn:
    _write_to(role.log)
    os.environ.update(environment(role.settings) | dict(role.environment))
    _have_outages(role.outage)
    if role.prepare is not None:
        role.prepare()
    if meet is not None:
        with suppress(BrokenBarrierError):  # the other one never came
            meet.wait(GRACE_S)
    sys.exit(main(arguments))


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which the command line has these settings."""
    changed: dict[str, dict[str, Any]] = settings.model_dump(mode="json", exclude_unset=True)
    changed["log"] = {"level": "info", "format": "json"}
    return {
        f"ADAWISE_{group}__{name}".upper(): str(value)
        for group, values in changed.items()
        for name, value in values.items()
        if value is not None
    }


def _write_to(log: Path) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)


def _have_outages(outage: Path) -> None:
    for name in ("create", "put", "get", "open", "list", "page", "delete", "modified"):  # `sizes` lists
        setattr(LocalStore, name, _failing(getattr(LocalStore, name), outage))


def _failing(method: Callable[..., Any], outage: Path) -> Callable[..., Any]:
    @wraps(method)
    def tried(self: LocalStore, *arguments: Any) -> Any:
        output = outage.read_text() if outage.exists() else ""
        if output != REFUSED:
            answer = method(self, *arguments)
        if output == TRIED_AGAIN and method.__name__ == "create":
            method(self, *arguments)
        if output in (REFUSED, ANSWER_LOST):
            raise StoreUnavailable(f"{self}: expected an answer, but the chaos suite has taken the store away; wait")
        return answer

    return tried


def names_outage(line: str) -> bool:
    """True if the last line of a log says that the program ended because a broker or the store did not answer."""
    try:
        document = json.loads(line)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("event") == "program_failed" and document.get("kind") in _AWAY


@dataclass(eq=False)
class WorkerActor:
    """A worker process as its parent sees it."""

    role: Role
    owned: set[TopicPartition] = field(default_factory=set)
    seen: list[Event] = field(default_factory=list)
    deeds: list[tuple[float, str, TopicPartition]] = field(default_factory=list)  # when, "recovered" or "committed"
    engaged: bool = False  # somebody waits for what it does; nobody else may pick it
    doomed: bool = False  # it is to end
    rivalled: bool = False  # another has its seat: one of the two will be told to go

    def __post_init__(self) -> None:
        start_server(__name__)
        context = multiprocessing.get_context("forkserver")
        self.link, theirs = context.Pipe()
        self._process = context.Process(target=play, args=(self.role, theirs), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Id of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it lives; -9 after SIGKILL."""
        return self._process.exitcode

    @property
    def is_fenced(self) -> bool:
        """True if it ended because another has its seat."""
        return self.exit_code not in (None, 0) and "FencedInstanceId" in self.role.log.read_text()[-_END:]

    @property
    def met_an_outage(self) -> bool:
        """True if it ended because a broker or the store did not answer."""
        return self.exit_code == 1 and names_outage(self.last_words)

    @property
    def has_begun(self) -> bool:
        """True once it has a line in its log."""
        return self.role.log.exists() and self.role.log.stat().st_size > 0

    @property
    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.role.log.read_text().splitlines() if self.role.log.exists() else []
        return lines[-1] if lines else "nothing"

    @property
    def is_stopped(self) -> bool:
        """As the kernel sees it."""
        try:
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if self._process.pid is not None and self.exit_code is None:
            os.kill(self._process.pid, number)

    def order(self, order: Order) -> None:
        """Give an order; it replaces the one before it."""
        with suppress(OSError):  # it has just ended
            self.link.send(order)

    def receive(self) -> list[Event]:
        """What it has told since the last time."""
        news: list[Event] = []
        try:
            while self.link.poll():
                news.append(self.link.recv())
        except (EOFError, OSError):  # it ended, perhaps in the middle of a word
            pass
        for event in news:
            if event.tp is not None and event.what == "lost":
                self.owned.discard(event.tp)
            elif event.tp is not None and event.won:
                self.owned.add(event.tp)
                self.deeds.append((time.monotonic(), event.what, event.tp))
        self.seen += [event for event in news if event.what != "served"]
        return news

    def wait(self) -> None:
        """Until it has ended, or `GRACE_S` have passed."""
        self._process.join(GRACE_S)

    def bury(self) -> None:
        """Kill it if it lives, and free what it held."""
        self._process.kill()
        self._process.join(GRACE_S)
        self.link.close()
