"""Dead letters: messages that could not be read at all, kept as they came, with the reason in headers.

Delivery is at least once: a segment may only be committed after `flush`, and a crash in between sends the same message
again, recognisable by topic, partition and offset. Rejected rows of an Arrow batch get no letter: it would hold the
whole message, which sent back would bring the batch's good rows twice. They are rows of the output, with offset, index
and reason. kafka-python 3's producer has no bound on its memory (600 MB went into it within half a second, measured),
so bytes in flight are bounded here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from kafka import KafkaProducer, errors

from adawise.dead_letters.letter import Letter, letter_of
from adawise.dead_letters.topic import HEADERS_ROOM_BYTES, create_topic, topic_configs
from adawise.errors import AdawiseError, BrokerUnavailable, FatalError
from adawise.kafka.client import TOO_LARGE, open_client, translated
from adawise.records import Frame, Message


class Producer(Protocol):
    """The part of kafka-python's KafkaProducer that dead letters need."""

    def send(self, topic: str, **record: Any) -> Any:
        """A future with `get(timeout)`, `is_done` and `failed()`."""

    def close(self, timeout: float | None = None) -> None:
        """Free everything."""


class NoDeadLetters:
    """Dead letters switched off: rejected messages are in the output alone. Implements `ports.DeadLetters`."""

    def send(self, message: Message, frame: Frame) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class KafkaDeadLetters:
    """A dead-letter topic for each topic. Implements `ports.DeadLetters`; not for several threads at once.

    Args:
        connect: opens the producer, at the first letter: most runs have none.
        prepare: called with the name of the dead-letter topic before its first letter.
        where: the brokers, for messages.
        topic: the dead-letter topic; None for `<topic>.dlq`.
        worker: which worker this is, for a header.
        max_inflight_bytes: unacknowledged bytes above which `send` blocks; one letter always fits.
        timeout_s: how long `send` and `flush` wait for the broker.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Producer],
        prepare: Callable[[str], None],
        where: str,
        topic: str | None,
        worker: str,
        max_inflight_bytes: int,
        timeout_s: float,
    ) -> None:
        self._connect = connect
        self._prepare = prepare
        self._where = where
        self._topic = topic
        self._worker = worker
        self._max_inflight_bytes = max_inflight_bytes
        self._timeout_s = timeout_s
        self._producer: Producer | None = None
        self._prepared: set[str] = set()
        self._inflight: deque[Letter] = deque()
        self._inflight_bytes = 0

    def send(self, message: Message, frame: Frame) -> None:
        """See `ports.DeadLetters`. Raises BrokerUnavailable like `flush`; then the letter was not taken."""
        letter = letter_of(message, frame, topic=self._topic, worker=self._worker)
        deadline = time.monotonic() + self._timeout_s
        while self._inflight and self._inflight_bytes + letter.size_bytes > self._max_inflight_bytes:
            self._settle_oldest(deadline)
        sent = self._sent(letter)
        self._inflight.append(sent)
        self._inflight_bytes += sent.size_bytes

    def flush(self) -> None:
        """See `ports.DeadLetters`. Letters that failed are kept, and sent again by the next call."""
        deadline = time.monotonic() + self._timeout_s
        while self._inflight:
            self._settle_oldest(deadline)

    def close(self) -> None:
        """See `ports.DeadLetters`. The producer is freed even if letters cannot be flushed, which raises."""
        if self._producer is None:
            return
        try:
            self.flush()
        finally:
            producer, self._producer = self._producer, None
            with suppress(errors.KafkaError):  # that letters are left over is what `flush` raises
                producer.close(timeout=0 if self._inflight else self._timeout_s)

    def _settle_oldest(self, deadline: float) -> None:
        """Wait until the oldest letter is acknowledged, and forget it."""
        letter = self._inflight[0]
        if letter.future is None:
            letter = self._replace_oldest(self._sent(letter))
        try:
            letter.future.get(timeout=max(0.0, deadline - time.monotonic()))
        except errors.KafkaError as error:
            if isinstance(error, TOO_LARGE) and letter.holds_original:
                self._replace_oldest(self._sent(letter.without_original()))
                return
            self._note_failed()
            raise self._translated(error, letter.topic) from error
        else:
            self._inflight.popleft()
            self._inflight_bytes -= letter.size_bytes

    def _note_failed(self) -> None:
        """Every letter that failed is to be sent again: after an outage most are, and each would raise by itself."""
        for number, letter in enumerate(self._inflight):
            if letter.future is not None and letter.future.is_done and letter.future.failed():
                self._inflight[number] = replace(letter, future=None)

    def _replace_oldest(self, letter: Letter) -> Letter:
        self._inflight_bytes += letter.size_bytes - self._inflight[0].size_bytes
        self._inflight[0] = letter
        return letter

    def _sent(self, letter: Letter) -> Letter:
        if self._producer is None:
            self._producer = self._connect()
        if letter.topic not in self._prepared:
            try:
                self._prepare(letter.topic)
            except FatalError as error:
                raise self._waits(error) from error
            self._prepared.add(letter.topic)
        record = {
            "key": letter.key,
            "value": letter.value,
            "headers": list(letter.headers),
        }
        try:
            return replace(letter, future=self._producer.send(letter.topic, **record))
        except errors.KafkaError as error:
            if isinstance(error, TOO_LARGE) and letter.holds_original:
                return self._sent(letter.without_original())
            raise self._translated(error, letter.topic) from error

    def _translated(self, error: errors.KafkaError, topic: str) -> AdawiseError:
        ours = translated(error, self._where, f"send a dead letter to topic {topic!r}")
        if not isinstance(ours, FatalError):
            return ours
        self._prepared.discard(topic)  # or each try would take as long as a producer is patient
        return self._waits(ours)

    def _waits(self, error: FatalError) -> BrokerUnavailable:
        """What is forbidden may be allowed while the worker runs, and no bad picture may end it."""
        return BrokerUnavailable(
            f"{error} Until then partitions with messages that cannot be read wait, uncommitted, and others go on; "
            "kafka.dead_letters = false does without."
        )


def open_dead_letters(
    *,
    bootstrap_servers: str,
    client_id: str,
    security: Mapping[str, object],
    topic: str | None,
    retention_s: int,
    retention_bytes: int,
    worker: str,
    max_message_bytes: int,
    max_inflight_bytes: int,
    timeout_s: float,
) -> KafkaDeadLetters:
    """Dead letters on the broker; the topic is created if it is absent. Connects at the first letter.

    `max_message_bytes` is the largest message that can arrive: the topic is made to take it, and to forget letters by
    age and size, for a flood would fill the broker.
    """
    room = max_message_bytes + HEADERS_ROOM_BYTES
    configs = topic_configs(max_message_bytes, retention_s, retention_bytes)
    connect = partial(
        open_client,
        KafkaProducer,
        bootstrap_servers,
        security,
        client_id=client_id,
        # Letters are idempotent by their headers; an idempotent producer would not survive a broker that lost its data.
        enable_idempotence=False,
        acks="all",
        max_request_size=room,
        max_block_ms=int(timeout_s * 1000),
        delivery_timeout_ms=int(timeout_s * 1000) + 1000,
        request_timeout_ms=int(timeout_s * 1000),
        bootstrap_timeout_ms=int(timeout_s * 1000),
        allow_auto_create_topics=False,
    )
    return KafkaDeadLetters(
        connect=connect,
        prepare=partial(create_topic, bootstrap_servers, client_id, security, configs),
        where=bootstrap_servers,
        topic=topic,
        worker=worker,
        max_inflight_bytes=max_inflight_bytes,
        timeout_s=timeout_s,
    )
