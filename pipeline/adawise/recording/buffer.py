"""The buffer for the next file of a recorded partition, and the policy that says when the file is complete."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from uuid import uuid4

from adawise.records import Gap, Message, TopicPartition


def wall_ms() -> int:
    """Return the wall-clock time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class FilePolicy:
    """The limits at which a file is complete: whichever of the three comes first."""

    max_messages: int  # read, including those of streams that are not asked for
    max_bytes: int  # of values
    max_age_s: float  # of its first message, since that was read

    def due(self, messages: int, size_bytes: int, age_s: float) -> bool:
        """Return True if a file of this size and age is complete."""
        return messages >= self.max_messages or size_bytes >= self.max_bytes or age_s >= self.max_age_s


@dataclass(slots=True)
class Buffer:
    """The messages of [first, next), read for the next file of a partition.

    Attributes:
        first: the offset at which the file begins.
        next: the offset up to which the partition has been read.
        gaps: the ranges that are missing.
        messages: the messages to be written.
        read: the number of messages read, those left out included.
        size_bytes: the bytes of the values in `messages`.
        newest_ms: the newest Kafka timestamp in `messages`, ms since the epoch; -1 if there is none.
        begun_ms: when the first of `messages` was read, ms since the epoch; -1 if there is none.
    """

    first: int
    next: int
    gaps: tuple[Gap, ...] = ()
    messages: list[Message] = field(default_factory=list)
    read: int = 0
    size_bytes: int = 0
    newest_ms: int = -1
    begun_ms: int = -1
    began_s: float | None = None  # monotonic: when the first message or gap came

    def add(self, message: Message, *, wanted: bool, now_s: float) -> None:
        """Add the next message, or note that it was read and left out, or that it is missing."""
        if message.missing is not None:
            self.gaps += (Gap(max(message.missing.first, self.next), message.next_offset, message.missing.reason),)
            self.began_s = now_s if self.began_s is None else self.began_s
        self.next = message.next_offset
        self.read += 1
        if wanted:
            if self.began_s is None:
                self.began_s, self.begun_ms = now_s, wall_ms()
            self.messages.append(message)
            self.size_bytes += len(message.value or b"")
            self.newest_ms = max(self.newest_ms, message.timestamp_ms)

    def due(self, policy: FilePolicy, now_s: float) -> bool:
        """Return True if it must be written. Messages that were only left out count, but have no age."""
        age_s = 0.0 if self.began_s is None else now_s - self.began_s
        return self.next > self.first and policy.due(self.read, self.size_bytes, age_s)


@dataclass(frozen=True, slots=True)
class Draft:
    """A complete file that is not known to be written; a retry writes the same bytes under the same attempt."""

    tp: TopicPartition
    buffer: Buffer
    closed_ms: int = field(default_factory=wall_ms)
    attempt: str = field(default_factory=lambda: uuid4().hex)


def merged(first: Buffer, second: Buffer, offset: int) -> Buffer:
    """Return two consecutive buffers as one that begins at `offset`, without what lies before it."""
    gaps = (*first.gaps, *second.gaps)
    kept = [message for message in (*first.messages, *second.messages) if message.offset >= offset]
    return Buffer(
        first=offset,
        next=max(offset, second.next),
        gaps=tuple(gap._replace(first=max(gap.first, offset)) for gap in gaps if gap.until > offset),
        messages=kept,
        read=len(kept),
        size_bytes=sum(len(message.value or b"") for message in kept),
        newest_ms=max((message.timestamp_ms for message in kept), default=-1),
        begun_ms=min((each.begun_ms for each in (first, second) if each.messages), default=-1) if kept else -1,
        began_s=min((each.began_s for each in (first, second) if each.began_s is not None), default=None)
        if kept or any(gap.until > offset for gap in gaps)
        else None,
    )
