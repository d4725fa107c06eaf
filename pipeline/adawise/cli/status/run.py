"""The work of `adawise status`: show how the fleet is doing, once or again and again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Self, TypeVar

from adawise.app.kafka import kafka_log, kafka_topics
from adawise.cli.status.show import picture
from adawise.console import finite, paper, print_json
from adawise.errors import AdawiseError, StoreUnavailable
from adawise.kafka.log import KafkaLog
from adawise.kafka.topic import KafkaTopics
from adawise.output.near import no_output
from adawise.settings import Settings
from adawise.sink.owner import Owner, read_owner
from adawise.store.store import open_store
from adawise.watch.status.broker import BrokerFacts, ask, waiting
from adawise.watch.status.facts import FleetStatus
from adawise.watch.status.fleet import FleetQuestion, fleet_status, low_waters
from adawise.watch.status.page import FleetPage
from adawise.watch.status.root import RootReader

if TYPE_CHECKING:
    from adawise.cli.status.options import StatusCommand

Answered = TypeVar("Answered")

FOUND = 3
_EVERY_S, _WINDOW_S = 5.0, 3_600.0
_STOPS_WITHIN_S = 0.1
_CONNECT_MS = 4_000  # a broker that runs answers in a tenth of a second
_NAME_ROOT = "set --root to the folder of sink.root, or wait until a worker has committed"
_NO_BROKER, _OF_REPLAY = "--no-broker", "the output is a replay's, which has no group at the broker"


def status(asked: StatusCommand) -> int:
    """Print how the fleet is doing; with --watch, again after so many seconds, until Ctrl-C.

    With --http, show it as a page instead, until Ctrl-C.

    Returns:
        0 if all is well, else 3.

    Raises:
        SettingsError: no worker ever wrote to sink.root, whatever the broker knows of its group.
    """
    every_s, show_all, as_json = asked.every, asked.show_all, asked.as_json
    with Fleet(asked.settings, wants_broker=asked.broker, window_s=asked.window or _WINDOW_S) as fleet:
        if asked.serves:
            return _serve(fleet, asked.settings, every_s or _EVERY_S)
        if every_s is None:
            found = fleet.look()
            if as_json:
                print_json(as_document(found))
            else:
                paper().print(picture(found, show_all=show_all, height=None))
            return _code(found)
        return _watch(fleet, every_s, show_all=show_all, as_json=as_json)


def _watch(fleet: Fleet, every_s: float, *, show_all: bool, as_json: bool) -> int:
    """Print the status again and again until Ctrl-C or SIGTERM, and return the code of the last look.

    The signal sets a flag, which is polled: an interrupt that is an exception may be raised within a library, and be
    lost there.
    """
    from rich.live import Live

    from adawise.app.signals import stop_signals

    console = paper()
    with stop_signals() as should_stop, ExitStack() as stack:
        is_screen = console.is_terminal and not as_json
        live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False)) if is_screen else None
        while True:
            again_s, found = time.monotonic() + every_s, fleet.look()
            if live is not None:
                live.update(picture(found, show_all=show_all, height=console.height), refresh=True)
            elif as_json:
                print(json.dumps(finite(as_document(found)), default=str), flush=True)
            else:
                console.print(picture(found, show_all=show_all, height=None))
                sys.stdout.flush()
            _wait(again_s, should_stop)
            if should_stop():
                return _code(found)


def _serve(fleet: Fleet, settings: Settings, every_s: float) -> int:
    """Serve the page until Ctrl-C or SIGTERM, and return the code of the last look."""
    from adawise.app.http import rows_port
    from adawise.app.signals import stop_signals

    shown = FleetPage(fleet.look())
    with stop_signals() as should_stop, rows_port(settings.http, shown) as url:
        print(f"the fleet of {settings.sink.root} is shown at {url}, until Ctrl-C", file=sys.stderr, flush=True)
        while True:
            _wait(time.monotonic() + every_s, should_stop)
            if should_stop():
                return _code(shown.found)
            shown.found = fleet.look()


def _wait(until_s: float, should_stop: Callable[[], bool]) -> None:
    while not should_stop() and (left_s := until_s - time.monotonic()) > 0.0:
        time.sleep(min(_STOPS_WITHIN_S, left_s))


def as_document(found: FleetStatus) -> dict[str, object]:
    """Return the status as its JSON document has it (docs/reference/status.md)."""
    document = asdict(found)
    return {"version": document.pop("version"), "well": found.is_well, **document}


def _code(found: FleetStatus) -> int:
    return FOUND if found.troubles else 0


class Fleet:
    """A fleet, whose root and broker are queried side by side. Connections are kept for the next look.

    Args:
        settings: name the root and the broker.
        wants_broker: False to query the root alone.
        window_s: how far back to look at cameras, gaps and rejects, in seconds.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        wants_broker: bool,
        window_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._wants_broker, self._window_s, self._clock = settings, wants_broker, window_s, clock
        self._store = open_store(settings.sink.root)
        self._root = RootReader(self._store)
        self._pool = ThreadPoolExecutor(2, "status-ask")
        self._broker = ExitStack()
        self._clients: tuple[KafkaTopics, KafkaLog] | None = None
        self._owner: Owner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self) -> FleetStatus:
        """Return how the fleet is doing now.

        Raises:
            SettingsError: no worker ever wrote to the root.
        """
        not_asked: dict[str, str] = {}
        now_s = self._clock()
        try:
            self._owner = read_owner(self._store) or self._owner
        except StoreUnavailable as error:
            not_asked["root"] = str(error)
        question = self._question()
        root_asked = self._pool.submit(self._root.look, now_s - self._window_s, now_s) if not not_asked else None
        is_replay = self._owner is not None and self._owner.purpose == "replay"
        if not self._wants_broker or is_replay:
            not_asked["broker"] = _NO_BROKER if not self._wants_broker else _OF_REPLAY
        broker_asked = self._pool.submit(self._ask, question) if "broker" not in not_asked else None
        root = _answer(root_asked, "root", not_asked)
        broker = _answer(broker_asked, "broker", not_asked)
        if broker is not None and self._clients is not None:
            broker = replace(broker, waiting_ms=waiting(self._clients[1], low_waters(root, broker)))
        if root is not None and root.root_id is None:
            raise no_output(self._settings.sink.root, _NAME_ROOT)
        return fleet_status(question, root, broker, not_asked, now_s=now_s)

    def _question(self) -> FleetQuestion:
        kafka, root = self._settings.kafka, self._settings.sink.root
        topic, group = (kafka.topic, kafka.group) if self._owner is None else (self._owner.topic, self._owner.group)
        is_replay = self._owner is not None and self._owner.purpose == "replay"
        return FleetQuestion(root, topic, group, self._window_s, self._wants_broker and not is_replay)

    def _ask(self, question: FleetQuestion) -> BrokerFacts:
        if self._clients is None:
            self._clients = self._opened()
        try:
            return ask(self._clients[0], question.topic, question.group, now_s=self._clock())
        except AdawiseError:
            self._broker.close()  # the next look begins with new connections
            self._clients = None
            raise

    def _opened(self) -> tuple[KafkaTopics, KafkaLog]:
        kafka = self._settings.kafka
        topics = self._broker.enter_context(closing(kafka_topics(kafka, connect_ms=_CONNECT_MS)))
        log = self._broker.enter_context(closing(kafka_log(kafka, max_partition_fetch_bytes=1, patience_s=2.0)))
        return topics, log


def _answer(asked: Future[Answered] | None, whom: str, not_asked: dict[str, str]) -> Answered | None:
    if asked is None:
        return None
    try:
        return asked.result()
    except AdawiseError as error:
        not_asked[whom] = str(error)
        return None
