"""The publisher of results to a Kafka topic: at least once, in order for each camera, within bounded memory.

For the order, one request is in flight at a time, and messages after one that failed are sent again. An idempotent
producer would prevent duplicates by retries, but it would not survive a broker that lost its data. A consumer has to
recognise duplicates by their row anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adawise.kafka.client import Reach
from adawise.kafka.own_topic import HEADERS_ROOM_BYTES, OwnTopics
from adawise.ports import Publication, Served, ServedBy, When
from adawise.publish.outbox import Outbox, Producer, producer_of
from adawise.publish.results.alert import message_of_alert
from adawise.publish.results.message import (
    Envelope,
    EventMessage,
    Form,
    Per,
    messages_of,
    result_of_frame,
    results_of_batch,
)
from adawise.records import Alert, Frame, LabelColumn, RowResult

MESSAGE_BYTES = 2**20 - HEADERS_ROOM_BYTES
"""The most bytes of a value: what a broker takes by default, less room for headers."""

_INFLIGHT_BYTES = 8 * 2**20
_LINGER_MS = 5
_MEANWHILE = "Until then rows wait, uncommitted, and soon reading pauses; results.enabled = false turns results off."


class KafkaResults:
    """Implements `ports.Results`; not for several threads at once.

    Args:
        connect: opens the producer, at the first message.
        prepare: called with the name of the topic before its first message.
        where: the brokers, for messages.
        topic: of the results.
        source: returns the events' origin, a URI reference; called at each `send`.
        classes: the class list that predictions index, unless a result names its own.
        model_fingerprint: of the model that served them, unless a result names its own.
        column: the column of the rows that is the label of results, unless a result names its own.
        when: see `ports.When`.
        per: whether a message has one image or a batch.
        form: of its value.
        max_inflight_bytes: unacknowledged bytes above which there is no room; what is sent in one call always fits.
        timeout_s: how long to wait for the broker.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Producer],
        prepare: Callable[[str], None],
        where: str,
        topic: str,
        source: Callable[[], str],
        classes: Sequence[str],
        model_fingerprint: str,
        column: LabelColumn | None = None,
        when: When,
        per: Per,
        form: Form,
        max_inflight_bytes: int = _INFLIGHT_BYTES,
        timeout_s: float,
    ) -> None:
        self._topic, self._source = topic, source
        self._by, self._column = ServedBy(tuple(classes), model_fingerprint, ""), column
        self._when, self._per, self._form = when, per, form
        self._outbox: Outbox[EventMessage] = Outbox(
            connect=connect,
            prepare=prepare,
            where=where,
            what="results",
            meanwhile=_MEANWHILE,
            max_inflight_bytes=max_inflight_bytes,
            timeout_s=timeout_s,
            in_order=True,
        )

    @property
    def when(self) -> When:
        """See `ports.Results`."""
        return self._when

    @property
    def in_flight_bytes(self) -> int:
        """See `ports.Results`."""
        return self._outbox.inflight_bytes

    def send(self, publication: Publication, *, wait: bool) -> bool:
        """See `ports.Results`."""
        if not wait and not self._outbox.has_room:
            self._outbox.settle()
            if not self._outbox.has_room:
                return False
        for message in self._messages(publication):
            self._outbox.send(message, wait=wait)
        return True

    def settled(self, *, wait: bool) -> bool:
        """See `ports.Results`."""
        if not wait:
            return self._outbox.settle()
        self._outbox.flush()
        return True

    def hurry(self, within_s: float) -> None:
        """See `ports.Results`."""
        self._outbox.hurry(within_s)

    def close(self) -> None:
        """See `ports.Results`."""
        self._outbox.close()

    def _messages(self, publication: Publication) -> list[EventMessage]:
        envelope = Envelope(self._topic, self._source())
        if isinstance(publication.what, Alert):
            return [message_of_alert(publication.what, publication.attempt, envelope)]
        by, column = publication.by or self._by, publication.by.label_column if publication.by else self._column
        results = _results(publication.what, by, column)
        return messages_of(results, publication.attempt, envelope, per=self._per, form=self._form)


def _results(what: Served | Frame | list[RowResult], by: ServedBy, column: LabelColumn | None) -> list[RowResult]:
    if isinstance(what, Frame):
        return [result_of_frame(what, by.model_fingerprint)]
    return what if isinstance(what, list) else results_of_batch(what, by.classes, by.model_fingerprint, column)


def open_results(
    topics: OwnTopics,
    *,
    topic: str,
    source: Callable[[], str],
    classes: Sequence[str],
    model_fingerprint: str,
    column: LabelColumn | None = None,
    when: When,
    per: Per,
    form: Form,
    timeout_s: float,
) -> KafkaResults:
    """Return the publisher of results. It connects at the first message, and creates the topic if it is absent."""
    return KafkaResults(
        connect=producer_of(
            topics.bootstrap_servers,
            topics.security,
            client_id=topics.client_id,
            max_request_bytes=MESSAGE_BYTES + HEADERS_ROOM_BYTES,
            timeout_s=timeout_s,
            linger_ms=_LINGER_MS,
            max_in_flight_requests_per_connection=1,
        ),
        prepare=topics.create,
        where=topics.bootstrap_servers,
        topic=topic,
        source=source,
        classes=classes,
        model_fingerprint=model_fingerprint,
        column=column,
        when=when,
        per=per,
        form=form,
        timeout_s=timeout_s,
    )


def result_topics(reach: Reach, *, partitions: int, retention_s: int) -> OwnTopics:
    """Return the topic of results, to be created with this number of partitions, and with retention by age."""
    configs = {"cleanup.policy": "delete", "retention.ms": str(retention_s * 1000)}
    otherwise = "set results.enabled = false"
    return OwnTopics(**reach, what="results topic", otherwise=otherwise, partitions=partitions, configs=configs)
