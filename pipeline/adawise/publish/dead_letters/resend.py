"""Sending dead letters back to their topic, each together with its receipt, in Kafka transactions.

The transactional id belongs to the dead-letter topic. So if two replays run at the same time, the later one fences the
earlier, and neither sends what the other has sent. The worker reads committed messages only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer, errors

from adawise.errors import AdawiseError, FatalError, SettingsError
from adawise.kafka.client import TOO_LARGE, open_client, translated
from adawise.publish.dead_letters.reading import DeadLetter

_ROOM_BYTES = 64 * 1024  # for key and headers
_CLOSE_S = 5
_FENCED = (errors.ProducerFencedError, errors.InvalidProducerEpochError)


class LetterReplay:
    """Sends dead letters in transactions of bounded size; a sent one counts once it is committed.

    A transaction begins when all its dead letters are in memory, and ends shortly after. While one is open, workers
    read nothing behind it, and after a minute the broker aborts it.

    Args:
        producer: kafka-python's, transactional and initialised; closed with this.
        where: the brokers, for messages.
        partitions: number of partitions of the topic that the originals go back to.
        max_letters: of a transaction.
        max_bytes: of a transaction; a single dead letter may have more.
        timeout_s: how long to wait for the acknowledgement of a record.
    """

    def __init__(
        self, producer: Any, *, where: str, partitions: int, max_letters: int, max_bytes: int, timeout_s: float
    ) -> None:
        self._producer, self._where, self._partitions = producer, where, partitions
        self._timeout_s = timeout_s
        self._max_letters, self._max_bytes = max_letters, max_bytes
        self._waiting: list[DeadLetter] = []
        self._waiting_bytes = 0
        self.done = 0

    def send(self, letter: DeadLetter) -> None:
        """Add a dead letter that names its original topic; commit the ones before it first if the transaction is full.

        Raises:
            BrokerUnavailable, FatalError, SettingsError: nothing of the transaction becomes visible.
        """
        full = len(self._waiting) == self._max_letters
        if full or (self._waiting and self._waiting_bytes + letter.size_bytes > self._max_bytes):
            self.commit()
        self._waiting.append(letter)
        self._waiting_bytes += letter.size_bytes

    def commit(self) -> None:
        """Send the waiting dead letters, each with its receipt, and commit: all or nothing. Raises like `send`."""
        if not self._waiting:
            return
        try:
            self._producer.begin_transaction()
            sent = [future for letter in self._waiting for future in self._send(letter)]
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

    def _send(self, letter: DeadLetter) -> tuple[Any, Any]:
        record, here = letter.record, letter.partition
        message = self._producer.send(
            letter.topic,
            key=record.key,
            value=record.value or b"",
            headers=list(letter.to_send()),
            partition=here if here is not None and here < self._partitions else None,  # None: by the key
        )
        receipt = {"value": b"", "headers": list(letter.receipt()), "partition": record.partition}
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


def open_replay(
    *,
    bootstrap_servers: str,
    client_id: str,
    security: Mapping[str, object],
    letters: str,
    partitions: int,
    max_message_bytes: int,
    timeout_s: float,
) -> LetterReplay:
    """Open a replay of the dead-letter topic `letters`, which fences any other replay that is running.

    Raises:
        BrokerUnavailable: no broker answers, or none that supports transactions.
        SettingsError: the security settings cannot work.
    """
    producer: Any = open_client(
        KafkaProducer,
        bootstrap_servers,
        security,
        client_id=client_id,
        transactional_id=f"adawise-replay-{letters}",
        acks="all",
        max_request_size=max_message_bytes + _ROOM_BYTES,
        max_block_ms=int(timeout_s * 1000),
        delivery_timeout_ms=int(timeout_s * 1000) + 1000,
        request_timeout_ms=int(timeout_s * 1000),
        allow_auto_create_topics=False,
    )
    try:
        producer.init_transactions()
    except errors.KafkaError as error:
        with suppress(errors.KafkaError):
            producer.close(timeout=0)
        raise translated(error, bootstrap_servers, "begin a transaction") from error
    return LetterReplay(
        producer,
        where=bootstrap_servers,
        partitions=partitions,
        max_letters=100,
        max_bytes=2 * max_message_bytes,
        timeout_s=timeout_s,
    )
