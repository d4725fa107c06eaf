"""The reading of a fleet's status: root and broker are queried side by side, and connections are kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

from adawise.errors import AdawiseError, ChainError, StoreUnavailable
from adawise.output.near import NAME_ROOT, no_output
from adawise.sink.claims import read_sink_id
from adawise.sink.owner import Owner, read_owner
from adawise.store.store import open_store
from adawise.watch.status.facts import FleetStatus
from adawise.watch.status.fleet import FleetQuestion, fleet_status, low_waters
from adawise.watch.status.root import RootReader

if TYPE_CHECKING:  # a look without the broker does without its client, which takes longer to load than the rest
    from adawise.kafka.log import KafkaLog
    from adawise.kafka.topic import KafkaTopics
    from adawise.watch.status.broker import BrokerFacts

Answered = TypeVar("Answered")
Clients: TypeAlias = "tuple[KafkaTopics, KafkaLog]"

_NO_BROKER, _OF_REPLAY = "--no-broker", "the output is a replay's, which has no group at the broker"


class FleetReader:
    """A fleet that is looked at once or repeatedly.

    Args:
        root: the folder or URL that workers write to.
        topic: the topic, if the root does not name one.
        group: the group, if the root does not name one.
        window_s: how far back to look at cameras, gaps and rejects, in seconds.
        connect: connects to the broker; None to query the root alone.
    """

    def __init__(
        self,
        root: str,
        topic: str,
        group: str,
        window_s: float,
        connect: Callable[[], AbstractContextManager[Clients]] | None,
    ) -> None:
        self._root, self._store = root, open_store(root)
        self._reader = RootReader(self._store)
        self._topic, self._group, self._window_s = topic, group, window_s
        self._connect, self._broker = connect, ExitStack()
        self._clients: Clients | None = None
        self._pool = ThreadPoolExecutor(2, "status-ask")
        self._owner: Owner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def has_begun(self) -> bool:
        """Return False if no worker ever wrote to the root. One that is damaged or does not answer counts as begun."""
        with suppress(StoreUnavailable, ChainError):
            return read_sink_id(self._store) is not None
        return True

    def read(self) -> FleetStatus:
        """Return the present status of the fleet.

        Raises:
            SettingsError: no worker ever wrote to the root.
        """
        not_asked: dict[str, str] = {}
        now_s = time.time()
        try:
            self._owner = read_owner(self._store) or self._owner
        except (StoreUnavailable, ChainError) as error:
            not_asked["root"] = str(error)
        # Known before the broker is queried, which takes seconds where it does not answer. A root that has not answered
        # is not queried again: that takes as long.
        if self._owner is None and not not_asked and not self.has_begun():
            raise no_output(self._root, NAME_ROOT)
        topic, group = (self._topic, self._group) if self._owner is None else (self._owner.topic, self._owner.group)
        connect = self._connect
        if connect is None:
            not_asked["broker"] = _NO_BROKER
        elif self._owner is not None and self._owner.purpose == "replay":
            connect, not_asked["broker"] = None, _OF_REPLAY
        since_s, is_readable = now_s - self._window_s, "root" not in not_asked
        root_future = self._pool.submit(self._reader.read, since_s, now_s) if is_readable else None
        broker_future = None if connect is None else self._pool.submit(self._query_broker, connect, topic, group, now_s)
        root, broker = _answer(root_future, "root", not_asked), _answer(broker_future, "broker", not_asked)
        if broker is not None and self._clients is not None:
            from adawise.watch.status.broker import waiting

            broker = replace(broker, waiting_ms=waiting(self._clients[1], low_waters(root, broker)))
        if root is not None and root.root_id is None:
            raise no_output(self._root, NAME_ROOT)
        question = FleetQuestion(self._root, topic, group, self._window_s, connect is not None)
        return fleet_status(question, root, broker, not_asked, now_s=now_s)

    def _query_broker(
        self, connect: Callable[[], AbstractContextManager[Clients]], topic: str, group: str, now_s: float
    ) -> BrokerFacts:
        from adawise.watch.status.broker import query

        if self._clients is None:
            self._clients = self._broker.enter_context(connect())
        try:
            return query(self._clients[0], topic, group, now_s=now_s)
        except AdawiseError:
            self._broker.close()  # the next look begins with new connections
            self._clients = None
            raise


def _answer(future: Future[Answered] | None, whom: str, not_asked: dict[str, str]) -> Answered | None:
    if future is None:
        return None
    try:
        return future.result()
    except AdawiseError as error:
        not_asked[whom] = str(error)
        return None
