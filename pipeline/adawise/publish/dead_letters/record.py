"""One dead letter: the record that goes into the dead-letter topic. Pure; `reading` reads it back.

The header names `__connect.errors.*` are Kafka Connect's (KIP-298), so that tools for its dead letters work with ours;
`dlq.*` are our own. Headers of an earlier rejection are replaced, since otherwise a message would grow with each
replay. The number of replays and the original place are kept, if a replay can have written them: any producer can write
headers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from adawise.records import Frame, Message

SUFFIX = ".dlq"
OMITTED = "dlq.omitted"
REPLAYS = "dlq.replays"  # how often it was sent back
ORIGIN = "dlq.origin"  # its first place, topic/partition/offset
TIMESTAMP = "dlq.timestamp"  # the original's, in milliseconds; empty if it has none
OURS = ("__connect.errors.", "dlq.")


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A record for the dead-letter topic.

    Its timestamp is the moment of sending; with the original's, retention would follow the camera's clock. A header
    keeps the original's.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def timestamp_ms(self) -> int | None:
        """See `publish.outbox.Outgoing`."""
        return None

    @property
    def size_bytes(self) -> int:
        """The bytes that it takes in the producer's memory, without framing."""
        return (
            len(self.key or b"") + len(self.value or b"") + sum(len(name) + len(value) for name, value in self.headers)
        )

    @property
    def holds_original(self) -> bool:
        """False once `without_original` has been called."""
        return all(name != OMITTED for name, _ in self.headers)

    def smaller(self) -> Sequence[DeadLetterRecord]:
        """See `publish.outbox.Outgoing`."""
        return [self.without_original()] if self.holds_original else []

    def without_original(self, why: str | None = None) -> DeadLetterRecord:
        """Return the dead letter without the original's key and value; its headers say where the original is.

        It is used for a message that was not read, and for a topic that rejects the whole one. The latter is the reason
        that is given, unless `why` is. One message that is too large must not stop the stream.
        """
        kept = [(name, value) for name, value in self.headers if name.startswith(OURS)]
        note = why or (
            f"{self.size_bytes} bytes, more than this topic accepts; the original topic and offset still have them"
        )
        return replace(self, key=None, value=b"", headers=(*kept, (OMITTED, note.encode())))


def _past(message: Message) -> list[tuple[str, bytes]]:
    """Return the headers that a replay wrote into the message; none if any of them cannot be a replay's.

    A message with forged headers counts as new.
    """
    past = [(name, value or b"") for name, value in message.headers if name in (REPLAYS, ORIGIN)]
    replayed = dict(past)
    topic, _, place = replayed.get(ORIGIN, b"").decode("utf-8", "replace").partition("/")
    here = message.partition, message.offset
    is_ours = (
        len(past) == len(replayed) == 2
        and re.fullmatch(rb"[1-9]\d{0,5}", replayed[REPLAYS])
        and topic == message.topic
        and re.fullmatch(r"\d{1,10}/\d{1,19}", place, re.ASCII)
        and (first := tuple(map(int, place.split("/")))) != here
        and (first[0] != here[0] or first < here)
    )
    return past if is_ours else []


def dead_letter_record(message: Message, frame: Frame, *, topic: str | None, worker: str) -> DeadLetterRecord:
    """Return the dead letter for a message that could not be read, for the reason in `frame`.

    It goes to `topic`, or to `<topic>.dlq` if that is None.
    """
    reason, detail = str(frame.reason), frame.detail or ""
    headers = {
        "__connect.errors.topic": message.topic,
        "__connect.errors.partition": str(message.partition),
        "__connect.errors.offset": str(message.offset if message.missing is None else message.missing.first),
        "__connect.errors.connector.name": "adawise",
        "__connect.errors.task.id": worker,
        "__connect.errors.stage": "VALUE_CONVERTER",
        "__connect.errors.class.name": "adawise.decode.message",
        "__connect.errors.exception.class.name": "adawise.errors.InvalidMessage",
        "__connect.errors.exception.message": f"{reason}: {detail}",
        "dlq.reason": reason,
        "dlq.detail": detail,
        "dlq.worker": worker,
        TIMESTAMP: str(message.timestamp_ms) if message.timestamp_ms >= 0 else "",
    }
    # kafka-python cannot send a header without a value; an empty one is closest to it.
    original = [(name, value or b"") for name, value in message.headers if not name.startswith(OURS)]
    record = DeadLetterRecord(
        topic=topic or f"{message.topic}{SUFFIX}",
        key=message.key,
        # Nor can it send a record with neither key nor value.
        value=b"" if message.key is None and message.value is None else message.value,
        headers=(
            *original,
            *((name, value.encode("utf-8", "replace")) for name, value in headers.items()),
            *_past(message),
        ),
    )
    return record if message.missing is None else record.without_original("not read; the original topic has it")
