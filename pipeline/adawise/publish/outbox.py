"""A bounded queue of records to our own topics (dead letters, results), delivered at least once.

kafka-python 3's producer accepts any amount (600 MB within half a second, measured), so the bytes that are sent and not
yet acknowledged are bounded here. What a broker did not acknowledge in time is kept and sent again. No answer of a
broker about such a topic ends a worker: what is forbidden may be allowed while it runs.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Generic, Protocol, Self, TypeVar

from kafka import KafkaProducer, errors
from kafka.partitioner import DefaultPartitioner, murmur2
from typing_extensions import override

from adawise.errors import AdawiseError, BrokerUnavailable, FatalError, PermissionRefused, TopicUnavailable
from adawise.kafka.client import TOO_LARGE, open_client, translated

_CHECK_S = 1.0  # seconds without an answer, after which the topic may be gone
_KEYS = 16_384  # the number of keys whose partitions are cached
_BATCH_BYTES = 256 * 1024  # of a producer batch: a request costs as much as 20 records (measured)


class Producer(Protocol):
    """The part of kafka-python's KafkaProducer that an outbox needs, and what `NonBlockingProducer` adds to it."""

    def knows(self, topic: str) -> bool:
        """Return True if the topic exists, by the metadata that the producer has."""

    def block_for(self, seconds: float) -> None:
        """Limit how long `send` waits, from now on, for a topic that is not in the metadata."""

    def send(self, topic: str, **record: Any) -> Any:
        """Return a future with `get(timeout)`, `is_done` and `failed()`."""

    def close(self, timeout: float | None = None) -> None:
        """Close the producer."""


class Outgoing(Protocol):
    """A record to be sent."""

    @property
    def topic(self) -> str:
        """The topic to send to."""

    @property
    def key(self) -> bytes | None:
        """The key, from which its partition follows."""

    @property
    def value(self) -> bytes | None:
        """The value; not None where the key is None."""

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """The headers, in order."""

    @property
    def timestamp_ms(self) -> int | None:
        """The record's time in ms since the epoch; None for the time at which it is sent."""

    @property
    def size_bytes(self) -> int:
        """The memory that it takes in the producer, in bytes, without its framing."""

    def smaller(self) -> Sequence[Self] | None:
        """Return what to send in its place to a topic that refuses its size; empty if nothing smaller would do.

        None means that the record is given up then, so that it does not hold up others.
        """


Record = TypeVar("Record", bound=Outgoing)


@dataclass(slots=True)
class _InFlight(Generic[Record]):
    """A record, and the producer's future of the last attempt to send it (None: still to be sent)."""

    record: Record
    size_bytes: int
    future: Any = None

    @property
    def has_failed(self) -> bool:
        return self.future is not None and self.future.is_done and self.future.failed()


class Outbox(Generic[Record]):
    """A sender of records that waits for their acknowledgements. It is not safe for use by several threads at once.

    Args:
        connect: opens the producer, at the first record: many runs have none.
        prepare: asks the broker for a topic, and creates it if need be, before its first record and after a failure;
            None if topics are not checked.
        where: the brokers, for messages.
        what: the kind of record, for messages: "a dead letter".
        meanwhile: what is delayed until a topic can be written, and the remedy, for messages.
        max_inflight_bytes: unacknowledged bytes above which there is no room; one record always fits.
        timeout_s: how long `send` and `flush` wait for the broker.
        in_order: also send again the records after one that failed, so that the last copies of all are in order.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Producer],
        prepare: Callable[[str], None] | None,
        where: str,
        what: str,
        meanwhile: str,
        max_inflight_bytes: int,
        timeout_s: float,
        in_order: bool,
    ) -> None:
        self._connect, self._prepare, self._where = connect, prepare, where
        self._what, self._meanwhile, self._in_order = what, meanwhile, in_order
        self._max_inflight_bytes, self._timeout_s = max_inflight_bytes, timeout_s
        self._producer: Producer | None = None
        self._prepared: set[str] = set()  # topics that were checked, and have not failed since
        self._failed: set[str] = set()  # topics that failed, and have acknowledged nothing since
        self._inflight: deque[_InFlight[Record]] = deque()
        self._inflight_bytes = 0
        self.acknowledged = 0
        """The number of records that the broker has acknowledged so far."""
        self._some_unsent = False  # some records in flight still have to be sent (future None)
        self._left_s = math.inf  # the time for all waits to come together

    @property
    def has_room(self) -> bool:
        """True if `send` would not wait for a record of no bytes."""
        return self._inflight_bytes < self._max_inflight_bytes

    @property
    def inflight_bytes(self) -> int:
        """The bytes of records that were accepted and are not acknowledged."""
        return self._inflight_bytes

    def send(self, record: Record, *, wait: bool = True) -> None:
        """Send a record once there is room, or, without `wait`, at once whether there is room or not.

        Raises:
            BrokerUnavailable: as in `flush`; the record was not accepted.
        """
        size_bytes = record.size_bytes
        with self._patience() as deadline:
            while wait and self._inflight and self._inflight_bytes + size_bytes > self._max_inflight_bytes:
                self._settle_oldest(deadline)
            for sent in self._sent(record, size_bytes):
                self._inflight.append(sent)
                self._inflight_bytes += sent.size_bytes

    def flush(self) -> None:
        """Return when everything sent is acknowledged.

        Raises:
            BrokerUnavailable: that takes too long. What failed is kept, and sent again by the next call.
        """
        with self._patience() as deadline:
            while self._inflight:
                self._settle_oldest(deadline)

    def hurry(self, within_s: float) -> None:
        """Limit all waits to come, `close` included, to `within_s` seconds together: the sender ends soon."""
        self._left_s = within_s

    def settle(self) -> bool:
        """Forget what is acknowledged and send again what failed, without waiting; return True if nothing is in flight.

        Raises:
            BrokerUnavailable: some failed; it is raised once for all of them.
        """
        while self._inflight:
            self._send_again()
            if not self._inflight:  # the records to send again were given up
                break
            oldest = self._inflight[0].future
            if not oldest.is_done:
                return False
            if oldest.failed():
                self._settle_oldest(time.monotonic())
            else:
                self._note_acknowledged()
        return True

    def close(self) -> None:
        """Flush, and close the producer even if that raises. It may be called twice."""
        if self._producer is None:
            return
        try:
            self.flush()
        finally:
            producer, self._producer = self._producer, None
            with suppress(errors.KafkaError):  # `flush` raises for what is left over
                producer.close(timeout=0 if self._inflight else self._timeout_s)

    @contextmanager
    def _patience(self) -> Iterator[float]:
        """Yield the time until which the broker is waited for; count the time used against the time left."""
        began_s = time.monotonic()
        try:
            yield began_s + min(self._timeout_s, self._left_s)
        finally:
            self._left_s = max(0.0, self._left_s - (time.monotonic() - began_s))

    def _settle_oldest(self, deadline: float) -> None:
        """Wait until the oldest record is acknowledged, and forget it."""
        self._send_again()
        if not self._inflight:  # the records to send again were given up
            return
        oldest = self._inflight[0]
        if self._hurries:
            check_s = min(_CHECK_S, max(0.0, deadline - time.monotonic()))
            if not _is_done_within(check_s, oldest.future) and self._is_gone(oldest.record.topic):
                self._make(oldest.record.topic)  # the producer sends what it holds once the topic exists
        try:
            oldest.future.get(timeout=max(0.0, deadline - time.monotonic()))
        except errors.KafkaError as error:
            smaller = oldest.record.smaller() if isinstance(error, TOO_LARGE) else ()
            if smaller is None:
                self._forget_oldest()
                return
            if smaller:
                self._forget_oldest()
                self._inflight.extendleft(_InFlight(record, record.size_bytes) for record in reversed(smaller))
                self._inflight_bytes += sum(record.size_bytes for record in smaller)
                self._some_unsent = True
                return
            self._note_failed()
            raise self._translated(error, oldest.record.topic) from error
        else:
            self._note_acknowledged()

    def _note_acknowledged(self) -> None:
        self._failed.discard(self._inflight[0].record.topic)
        self._forget_oldest()
        self.acknowledged += 1

    def _forget_oldest(self) -> None:
        self._inflight_bytes -= self._inflight.popleft().size_bytes

    def _send_again(self) -> None:
        """Send, in order, the records that are marked for sending."""
        if not self._some_unsent:
            return
        waiting, self._inflight = self._inflight, deque()
        try:
            while waiting:
                next_ = waiting[0]
                self._inflight.extend(
                    [next_] if next_.future is not None else self._sent(next_.record, next_.size_bytes)
                )
                waiting.popleft()
            self._some_unsent = False
        finally:
            self._inflight += waiting
            self._inflight_bytes = sum(each.size_bytes for each in self._inflight)

    def _note_failed(self) -> None:
        """Mark all that failed to be sent again: after an outage that is most, and each would raise by itself."""
        failed = False
        for each in self._inflight:
            failed = each.has_failed or (failed and self._in_order)
            if failed:
                each.future, self._some_unsent = None, True

    def _sent(self, record: Record, size_bytes: int) -> list[_InFlight[Record]]:
        if self._left_s <= 0.0 and (self._producer is None or record.topic not in self._prepared):
            raise BrokerUnavailable(f"could not send {self._what} to topic {record.topic!r}: no time is left for it")
        if self._producer is None:
            self._producer = self._connect()
        if self._hurries:
            self._producer.block_for(min(self._left_s, self._timeout_s))
        if record.topic not in self._prepared or self._is_gone(record.topic):
            self._make(record.topic)
        parts: dict[str, Any] = {"key": record.key, "value": record.value, "headers": list(record.headers)}
        if record.timestamp_ms is not None:
            parts["timestamp_ms"] = record.timestamp_ms
        try:
            future = self._producer.send(record.topic, **parts)
            return [_InFlight(record, size_bytes, future)]
        except errors.KafkaError as error:
            smaller = record.smaller() if isinstance(error, TOO_LARGE) else ()
            if smaller is None:
                return []
            if smaller:
                return [sent for each in smaller for sent in self._sent(each, each.size_bytes)]
            raise self._translated(error, record.topic) from error

    @property
    def _hurries(self) -> bool:
        return self._left_s < math.inf

    def _is_gone(self, topic: str) -> bool:
        """Return True if a topic must be checked without a failure: there may be no time to wait for one."""
        return self._hurries and self._producer is not None and not self._producer.knows(topic)

    def _make(self, topic: str) -> None:
        try:
            if self._prepare is not None:
                self._prepare(topic)
        except FatalError as error:
            raise self._waits(error) from error
        self._prepared.add(topic)

    def _translated(self, error: errors.KafkaError, topic: str) -> AdawiseError:
        # The topic is checked again before the next attempt: it may be deleted or forbidden, and a producer learns of
        # neither soon.
        is_there = self._prepare is not None and topic in self._failed and topic in self._prepared
        self._prepared.discard(topic)
        self._failed.add(topic)
        doing = f"send {self._what} to topic {topic!r}"
        ours = translated(error, self._where, doing)
        if isinstance(ours, FatalError):
            ours.__cause__ = error
            return self._waits(ours)
        if is_there:  # kafka-python raises only a timeout, whatever a broker said
            return TopicUnavailable(
                f"could not {doing} at {self._where}: {error}. The broker answers, and the topic exists: check "
                "that it has a leader, and as many replicas in sync as its min.insync.replicas."
            )
        return ours

    def _waits(self, error: FatalError) -> BrokerUnavailable:
        """Return a fatal refusal as a passing error: the right may be granted later, and our records end no worker."""
        kind = PermissionRefused if _is_of_rights(error) else TopicUnavailable
        return kind(f"{error} {self._meanwhile}")


def _is_of_rights(error: BaseException | None) -> bool:
    """Return True if the error was caused by a broker's refusal for lack of a right."""
    while error is not None:
        if isinstance(error, errors.AuthorizationError | errors.SaslAuthenticationFailedError):
            return True
        error = error.__cause__
    return False


def _is_done_within(seconds: float, future: Any) -> bool:
    with suppress(errors.KafkaError):
        future.get(timeout=seconds)
    return bool(future.is_done)


class NonBlockingProducer(KafkaProducer):  # type: ignore[misc]
    """A producer that answers without waiting, and can be closed with records left in it. It implements `Producer`."""

    def knows(self, topic: str) -> bool:
        """See `Producer`."""
        return self._metadata.partitions_for_topic(topic) is not None

    def block_for(self, seconds: float) -> None:
        """See `Producer`; kafka-python reads this setting anew for each record."""
        self.config["max_block_ms"] = int(seconds * 1000)

    def close(self, timeout: float | None = None, null_logger: bool = False) -> None:
        """See `Producer`. kafka-python flushes first, and leaves open what it cannot flush."""
        try:
            super().close(timeout, null_logger)
        except errors.KafkaTimeoutError:
            self._sender.force_close()
            self._closed = True  # else it is closed again when it is collected, with a traceback
            raise


class RememberingPartitioner(DefaultPartitioner):  # type: ignore[misc]
    """Kafka's own choice of partition: by the key's hash, cached as kafka-python is slow at it, or at random."""

    @override
    def partition(
        self, topic: str, key: Any, serialized_key: bytes | None, value: Any, serialized_value: Any, cluster: Any
    ) -> int:
        """Return a record's partition; see `kafka.partitioner.Partitioner`."""
        if serialized_key is None:
            chosen: int = super().partition(topic, key, serialized_key, value, serialized_value, cluster)
            return chosen
        return _place(serialized_key, len(cluster.partitions_for_topic(topic)))


@lru_cache(maxsize=_KEYS)
def _place(key: bytes, partitions: int) -> int:
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def producer_of(
    bootstrap_servers: str,
    security: Mapping[str, object],
    *,
    client_id: str,
    max_request_bytes: int,
    timeout_s: float,
    **config: Any,
) -> Callable[[], Producer]:
    """Return a function that opens a producer for an outbox.

    The producer is not idempotent: records carry their own identity, and an idempotent producer would not survive a
    broker that lost its data.
    """
    patience_ms = int(timeout_s * 1000)
    return partial(
        open_client,
        NonBlockingProducer,
        bootstrap_servers,
        security,
        client_id=client_id,
        enable_idempotence=False,
        acks="all",
        max_request_size=max_request_bytes,
        max_block_ms=patience_ms,
        delivery_timeout_ms=patience_ms + 1000,
        request_timeout_ms=patience_ms,
        bootstrap_timeout_ms=patience_ms,
        allow_auto_create_topics=False,
        batch_size=_BATCH_BYTES,
        partitioner=RememberingPartitioner(),
        metrics_enabled=False,  # no one reads them here
        **config,
    )
