"""Expiry of silent streams: when a stream starts anew, and when its state is dropped. Pure, no wall clock.

There are two rules. A *stream starts anew* when its next batch begins more than `forget_after_s` after its last one
ended, by its own Kafka timestamps. This alone decides about alphas, so they depend neither on the streams that share
the partition nor on where segments were cut. Its *state is dropped* from the footers later, when the partition's clock
has moved on by twice that since the stream was last seen: a batch that comes then would start anew anyway.

The partition's clock cannot be the newest timestamp: a camera whose clock shows 1970, or runs ten years ahead, would
make others look silent. So a stream's timestamps only measure how much time passes between its own batches, counted
from the partition's clock at the time when the stream was first seen. The partition's clock is at the time that more
than half of its streams have reached. A step of more than `forget_after_s`, either way, is a pause or a clock that was
set, and moves nothing. So a producer whose timestamps race ahead takes no state from its neighbours. Where more than
half of the streams are gone for good, their states stay.

One case remains. A stream whose messages arrive more than `forget_after_s` later than its neighbours' of the same time
(a camera that was cut off for a week and then sends what it kept) may have been dropped although its own timestamps
have no gap.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Mapping
from enum import StrEnum

from adawise.adapt.heard import Heard, heard_in


class Expiry(StrEnum):
    """The reason why a silent stream starts anew.

    A stream is `SILENT` if it paused for more than `forget_after_s`, and its trace says so. It is `FORGOTTEN` if it
    paused for so long that its state may have been dropped already. Its trace then says nothing, as for a stream that
    was never seen, since the trace must not depend on whether the state was dropped.
    """

    SILENT = "silent"
    FORGOTTEN = "forgotten"


class PartitionClock:
    """The clock of a partition, and when each of its streams was last seen by it.

    Args:
        states: the serialised states of the partition's head. A state that does not say when its stream was last seen
            is kept until the stream is seen again.
        forget_after_s: the silence after which a stream starts anew.

    Raises:
        ChainError: a state cannot be read.
    """

    def __init__(self, states: Mapping[str, bytes], forget_after_s: float) -> None:
        self._heard = {stream: heard_in(data) or Heard(-1, 0, 0) for stream, data in states.items()}
        self._forget_after_ms = 1000.0 * forget_after_s
        self._clocks = sorted(heard.clock_ms for heard in self._heard.values())
        self._now_ms = max((heard.at_ms for heard in self._heard.values()), default=0)
        self._move()

    def last_ms(self) -> dict[str, int]:
        """Return the Kafka timestamp in milliseconds of each stream's last image, where it has one."""
        return {stream: heard.last_ms for stream, heard in self._heard.items() if heard.last_ms >= 0}

    def expiry(self, stream_id: str, first_ms: int) -> Expiry | None:
        """Return why a stream starts anew with a batch that begins at `first_ms`; None if it goes on.

        `first_ms` is a Kafka timestamp, -1 if there is none.
        """
        heard = self._heard.get(stream_id)
        if heard is None or heard.last_ms < 0 or first_ms - heard.last_ms <= self._forget_after_ms:
            return None
        return Expiry.FORGOTTEN if first_ms - heard.last_ms > 2.0 * self._forget_after_ms else Expiry.SILENT

    def hear(self, stream_id: str, last_ms: int) -> Heard:
        """Note that a batch of the stream ended at `last_ms`, and return what its state keeps of that.

        `last_ms` is a Kafka timestamp, -1 if there is none.
        """
        before = self._heard.get(stream_id)
        clock_ms = self._now_ms
        if before is not None and before.last_ms >= 0 and last_ms >= 0:
            step_ms = last_ms - before.last_ms
            if abs(step_ms) <= self._forget_after_ms:
                clock_ms = before.clock_ms + step_ms
        if before is not None:
            del self._clocks[bisect_left(self._clocks, before.clock_ms)]
        insort(self._clocks, clock_ms)
        self._move()
        heard = self._heard[stream_id] = Heard(last_ms, clock_ms, self._now_ms)
        return heard

    def forget(self, in_hand: Container[str] = ()) -> set[str]:
        """Forget the streams whose states may be dropped, and return them; they count as never seen from now on.

        A stream whose messages have no timestamps is never among them: nothing would show that it was silent when it
        comes back. Neither is a stream that is `in_hand`, with images that were read and are not served yet. Its
        neighbours, which moved the clock, may have come after these images in the log, and what is forgotten would
        depend on the order of decoding.
        """
        limit_ms = self._now_ms - 2.0 * self._forget_after_ms
        forgotten = {
            name
            for name, heard in self._heard.items()
            if heard.last_ms >= 0 and heard.at_ms < limit_ms and name not in in_hand
        }
        self.drop(forgotten)
        return forgotten

    def drop(self, streams: Iterable[str]) -> None:
        """Remove these streams, as if they had never been seen."""
        for heard in (self._heard.pop(stream) for stream in streams if stream in self._heard):
            del self._clocks[bisect_left(self._clocks, heard.clock_ms)]

    def _move(self) -> None:
        """Move the partition's clock to the time that more than half of the streams have reached; never back."""
        if self._clocks:
            self._now_ms = max(self._now_ms, self._clocks[(len(self._clocks) - 1) // 2])
