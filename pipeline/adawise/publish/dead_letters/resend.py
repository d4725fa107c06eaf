"""Sending dead letters back to their topic, each together with its receipt, in Kafka transactions.

The transactional id belongs to the dead-letter topic. So if two replays run at the same time, the later one fences the
earlier, and neither sends what the other has sent. The worker reads committed messages only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer, errors

from adawise.errors import AdawiseError, FatalError, SettingsError
from adawise.kafka.client import TOO_LARGE, open_client, translated
from adawise.publish.dead_letters.reading import DeadLetter, MessageKey

_ROOM_BYTES = 64 * 1024  # for key and headers
_MAX_RECORDS = 100  # of a transaction
_CLOSE_S = 5
_FENCED = (errors.ProducerFencedError, errors.InvalidProducerEpochError)


def resend(
    dead_letters: Iterable[DeadLetter],
    topic: str,
    sent: Collection[MessageKey],
    max_replays: int,
    replay: DeadLetterReplay | None,
    advance: Callable[[], object],
) -> Counter[tuple[str | None, str]]:
    """Send messages back to their topic, each once.

    Args:
        dead_letters: the chosen dead letters.
        topic: the topic; messages of others are left out.
        sent: the messages that were sent back before, which are left out.
        max_replays: messages that were sent back that often are left out.
        replay: sends them; None to only count them.
        advance: called for each message that is sent.

    Returns:
        The number of dead letters by the reason why they were left out (None: sent), and the reason of the rejection.
    """
    counted: Counter[tuple[str | None, str]] = Counter()
    now: set[MessageKey] = set()
    for dead_letter in dead_letters:
        why_not = _why_not(dead_letter, topic, sent, now, max_replays)
        counted[why_not, dead_letter.reason] += 1
        if why_not is None:
            now.add(dead_letter.message)
            if replay is not None:
                replay.send(dead_letter)
                advance()
    if replay is not None:
        replay.commit()
    return counted


def _why_not(
    dead_letter: DeadLetter, topic: str, sent: Collection[MessageKey], now: Collection[MessageKey], max_replays: int
) -> str | None:
    if dead_letter.topic != topic:  # any client may write into the dead-letter topic, and name any topic as the origin
        return f"not from {topic}"
    if not dead_letter.is_whole:
        return "without their original"
    if dead_letter.message in now:
        return "another dead letter of a message that is sent"
    if dead_letter.message in sent:
        return "sent back before (--again)"
    return f"sent back {max_replays} times or more (--max-replays)" if dead_letter.replays >= max_replays else None


class DeadLetterReplay:
    """Sends dead letters in transactions of bounded size; a sent one counts once it is committed.

    A transaction begins when all its dead letters are in memory, and ends shortly after. While one is open, workers
    read nothing behind it, and after a minute the broker aborts it. Any other replay of the same topic is fenced.

    Args:
        bootstrap_servers: the brokers.
        client_id: the name of this client at the brokers.
        security: kafka-python's arguments for TLS and SASL.
        dead_letter_topic: the dead-letter topic.
        partitions: number of partitions of the topic that the originals go back to.
        max_message_bytes: the largest message; a transaction has twice as many bytes at most.
        timeout_s: how long to wait for the acknowledgement of a record.

    Raises:
        BrokerUnavailable: no broker answers, or none that supports transactions.
        SettingsError: the security settings cannot work.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        client_id: str,
        security: Mapping[str, object],
        dead_letter_topic: str,
        partitions: int,
        max_message_bytes: int,
        timeout_s: float,
    ) -> None:
        self._where, self._partitions, self._timeout_s = bootstrap_servers, partitions, timeout_s
        self._max_bytes = 2 * max_message_bytes
        self._waiting: list[DeadLetter] = []
        self._waiting_bytes = self.done = 0
        self._producer: Any = open_client(
            KafkaProducer,
            bootstrap_servers,
            security,
            client_id=client_id,
            transactional_id=f"adawise-replay-{dead_letter_topic}",
            acks="all",
            max_request_size=max_message_bytes + _ROOM_BYTES,
            max_block_ms=int(timeout_s * 1000),
            delivery_timeout_ms=int(timeout_s * 1000) + 1000,
            request_timeout_ms=int(timeout_s * 1000),
            allow_auto_create_topics=False,
        )
        try:
            self._producer.init_transactions()
        except errors.KafkaError as error:
            with suppress(errors.KafkaError):
                self._producer.close(timeout=0)
            raise translated(error, bootstrap_servers, "begin a transaction") from error

    def send(self, dead_letter: DeadLetter) -> None:
        """Add a dead letter that names its original topic; commit the ones before it first if the transaction is full.

        Raises:
            BrokerUnavailable, FatalError, SettingsError: nothing of the transaction becomes visible.
        """
        full = len(self._waiting) == _MAX_RECORDS
        if full or (self._waiting and self._waiting_bytes + dead_letter.size_bytes > self._max_bytes):
            self.commit()
        self._waiting.append(dead_letter)
        self._waiting_bytes += dead_letter.size_bytes

    def commit(self) -> None:
        """Send the waiting dead letters, each with its receipt, and commit: all or nothing. Raises like `send`."""
        if not self._waiting:
            return
        try:
            self._producer.begin_transaction()
            sent = [future for dead_letter in self._waiting for future in self._send(dead_letter)]
            # Without a wait for each, kafka-python would wait forever in the commit if a right to write is missing.
            for future in sent:
                future.get(timeout=self._timeout_s)
            self._producer.commit_transaction()
        except errors.KafkaError as error:
            with suppress(errors.KafkaError):
                self._producer.abort_transaction()
            raise self._given_up(error) from error
        self.done += len(self._waiting)
        self._waiting, self._waiting_bytes = [], 0

    def _send(self, dead_letter: DeadLetter) -> tuple[Any, Any]:
        record, here = dead_letter.record, dead_letter.partition
        message = self._producer.send(
            dead_letter.topic,
            key=record.key,
            value=record.value or b"",
            headers=list(dead_letter.to_send()),
            partition=here if here is not None and here < self._partitions else None,  # None: by the key
        )
        receipt = {"value": b"", "headers": list(dead_letter.receipt()), "partition": record.partition}
        return message, self._producer.send(record.topic, **receipt)

    def close(self) -> None:
        """Free the producer; what is not committed is not sent."""
        with suppress(errors.KafkaError):
            self._producer.close(timeout=_CLOSE_S)

    def _given_up(self, error: errors.KafkaError) -> AdawiseError:
        doing = f"send {len(self._waiting)} dead letters back"
        so_far = f"{self.done} dead letters were sent before, and are not sent again."
        causes = (error, *error.args)  # kafka-python wraps the answer to an earlier request
        if any(isinstance(cause, _FENCED) for cause in causes):
            return FatalError(
                f"could not {doing}: another replay of the same dead letters began. {so_far} Run one at a time."
            )
        if any(isinstance(cause, TOO_LARGE) for cause in causes):
            return SettingsError(f"could not {doing}: {error}. {so_far} Raise max.message.bytes of the topic.")
        ours = translated(error, self._where, doing)
        return type(ours)(f"{ours} {so_far}")
