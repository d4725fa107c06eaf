"""The publisher of dead letters: messages that could not be read at all, unchanged, with the reason in headers.

Delivery is at least once: a segment may only be committed after `flush`, and after a crash in between the same message
is sent again, recognisable by topic, partition and offset. Rejected rows of an Arrow batch have no dead letter: it
would hold the whole message, and sending that back would repeat the batch's good rows. They are rows of the output,
with offset, index and reason.
"""

from __future__ import annotations

from adawise.kafka.client import Reach
from adawise.kafka.own_topic import HEADERS_ROOM_BYTES, OwnTopics
from adawise.publish.dead_letters.record import DeadLetterRecord, dead_letter_record
from adawise.publish.outbox import Outbox, producer_of
from adawise.records import Frame, Message

_MEANWHILE = (
    "Until then partitions with messages that cannot be read wait, uncommitted, and others go on; "
    "kafka.dead_letters = false turns dead letters off."
)


class NoDeadLetters:
    """Implements `ports.DeadLetters` when dead letters are switched off: rejected messages are only in the output."""

    def send(self, message: Message, frame: Frame) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def hurry(self, within_s: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class KafkaDeadLetters:
    """Implements `ports.DeadLetters` with a dead-letter topic for each topic; not for several threads at once.

    Args:
        outbox: sends them; it connects at the first one, as most runs have none.
        topic: the dead-letter topic; None for `<topic>.dlq`.
        worker: the name of this worker, for a header.
    """

    def __init__(self, outbox: Outbox[DeadLetterRecord], *, topic: str | None, worker: str) -> None:
        self._outbox, self._topic, self._worker = outbox, topic, worker

    def send(self, message: Message, frame: Frame) -> None:
        """See `ports.DeadLetters`. Raises BrokerUnavailable like `flush`; the dead letter was then not accepted."""
        self._outbox.send(dead_letter_record(message, frame, topic=self._topic, worker=self._worker))

    def flush(self) -> None:
        """See `ports.DeadLetters`. Dead letters that failed are kept, and sent again by the next call."""
        self._outbox.flush()

    def hurry(self, within_s: float) -> None:
        """See `ports.DeadLetters`."""
        self._outbox.hurry(within_s)

    def close(self) -> None:
        """See `ports.DeadLetters`. The producer is freed even if dead letters cannot be flushed, which raises."""
        self._outbox.close()


def open_dead_letters(
    topics: OwnTopics,
    *,
    topic: str | None,
    worker: str,
    max_message_bytes: int,
    max_inflight_bytes: int,
    timeout_s: float,
) -> KafkaDeadLetters:
    """Return the publisher of dead letters. It connects at the first one, and creates the topic if it is absent.

    `max_message_bytes` is the largest message that can arrive.
    """
    outbox = Outbox[DeadLetterRecord](
        connect=producer_of(
            topics.bootstrap_servers,
            topics.security,
            client_id=topics.client_id,
            max_request_bytes=max_message_bytes + HEADERS_ROOM_BYTES,
            timeout_s=timeout_s,
        ),
        prepare=topics.create,
        where=topics.bootstrap_servers,
        what="a dead letter",
        meanwhile=_MEANWHILE,
        max_inflight_bytes=max_inflight_bytes,
        timeout_s=timeout_s,
        in_order=False,
    )
    return KafkaDeadLetters(outbox, topic=topic, worker=worker)


def dead_letter_topics(reach: Reach, *, retention_s: int, retention_bytes: int, max_message_bytes: int) -> OwnTopics:
    """Return topics for dead letters of messages of up to `max_message_bytes`.

    Retention is by age and by size, so that a flood of dead letters does not fill a broker.
    """
    return OwnTopics(
        **reach,
        what="dead-letter topic",
        otherwise="set kafka.dead_letters = false",
        partitions=1,
        configs={
            "max.message.bytes": str(max_message_bytes + HEADERS_ROOM_BYTES),
            "cleanup.policy": "delete",  # whatever the cluster's default: dead letters are not compacted by key
            "retention.ms": str(retention_s * 1000),
            "retention.bytes": str(retention_bytes),
        },
    )
