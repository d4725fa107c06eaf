"""The bounded queue of one camera's frames that wait for the broker: a slow broker costs frames, or time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """A frame as a record of the topic. Implements `publish.outbox.Outgoing`."""

    topic: str
    stream_id: str
    value: bytes
    taken_us: int
    headers: tuple[tuple[str, bytes], ...]
    given_up: Callable[[], object]

    @property
    def key(self) -> bytes:
        """The camera: its frames share a partition."""
        return self.stream_id.encode()

    @property
    def timestamp_ms(self) -> int:
        """Kafka's timestamp, by which the worker closes batches."""
        return self.taken_us // 1_000

    @property
    def size_bytes(self) -> int:
        """The bytes that it takes in memory."""
        return len(self.value) + sum(len(name) + len(value) for name, value in self.headers)

    def smaller(self) -> Sequence[FrameRecord] | None:
        """Report the frame as given up and return None: the topic does not take its size, but the next may fit."""
        self.given_up()
        return None


class Backlog:
    """A queue of frames, oldest first. One thread puts in, another takes out.

    Args:
        most_bytes: of the frames; one frame always fits.
        when_full: "drop" drops the oldest frames; "wait" makes `put` wait.
        came: called when there is something to take.
        former: the backlog that this one takes over; no thread puts in there any more.
    """

    def __init__(
        self,
        most_bytes: int,
        when_full: Literal["drop", "wait"],
        came: Callable[[], object],
        former: Backlog | None = None,
    ) -> None:
        self._most_bytes, self._waits, self._came = most_bytes, when_full == "wait", came
        self._records: deque[FrameRecord] = former._records if former is not None else deque()
        self._bytes: int = former._bytes if former is not None else 0
        self._changed = threading.Condition()

    def put(self, record: FrameRecord, should_stop: Callable[[], bool]) -> int:
        """Put a frame in; return how many others were dropped for it.

        Where it waits for room, it stops waiting once `should_stop` returns True.
        """
        dropped = 0
        with self._changed:
            while self._records and self._bytes + record.size_bytes > self._most_bytes:
                if self._waits:
                    if should_stop():
                        break
                    self._changed.wait(_LOOK_S)
                    continue
                self._bytes -= self._records.popleft().size_bytes
                dropped += 1
            self._records.append(record)
            self._bytes += record.size_bytes
        self._came()
        return dropped

    def take(self) -> FrameRecord | None:
        """Return the oldest frame; None if there is none."""
        with self._changed:
            if not self._records:
                return None
            record = self._records.popleft()
            self._bytes -= record.size_bytes
            self._changed.notify()
            return record

    def put_back(self, record: FrameRecord) -> None:
        """Put a frame back at the front, as it could not be sent."""
        with self._changed:
            self._records.appendleft(record)
            self._bytes += record.size_bytes

    def __len__(self) -> int:
        """Return the number of frames that wait."""
        return len(self._records)
