"""Streams that fell silent: when one starts anew, and when its state may leave the footers. Pure, no wall clock.

Two rules. A *stream starts anew* when its next batch begins more than `forget_after_s` after its last one ended, by its
own Kafka timestamps: this alone decides about alphas, so they depend neither on who shares the partition nor on where
segments were cut. Its *state is dropped* later, when the partition's clock has moved on by twice that since the stream
was last heard: whatever comes of it then would have started anew anyway.

The partition's clock cannot be the newest timestamp: a camera whose clock stands in 1970, or runs ten years ahead,
would make others look silent. So a stream's timestamps only measure how much time passes between its own batches,
counted from where the partition's clock stood when the stream was first heard; the partition's clock is as far as more
than half of its streams have come. A step of more than `forget_after_s`, either way, is a pause or a clock that was
set, and moves nothing. So one producer whose timestamps race takes no state from its neighbours; and where more than
half of the streams are gone for good, their states stay.

What remains: a stream whose messages arrive more than `forget_after_s` later than its neighbours' of the same time (a
camera that was cut off for a week and then sends what it kept) may have been dropped although its own timestamps have
no gap.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Mapping
from enum import StrEnum

from adawise.adapt.heard import Heard, heard_in


class Expiry(StrEnum):
    """Why a stream starts anew: `SILENT` as the trace says it, or so long that it may have been dropped already.

    The trace of a forgotten stream says nothing, as that of one that was never heard: it must not depend on the drop.
    """

    SILENT = "silent"
    FORGOTTEN = "forgotten"


class PartitionClock:
    """When each stream of a partition was last heard.

    Args:
        states: of the partition's head, serialised; one that does not say when it was heard is kept until it is again.
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
        """Return the Kafka timestamp of each stream's last image, of those that have one."""
        return {stream: heard.last_ms for stream, heard in self._heard.items() if heard.last_ms >= 0}

    def expiry(self, stream_id: str, first_ms: int) -> Expiry | None:
        """Before a stream's batch that begins at `first_ms` (Kafka timestamp, -1 if none); None if it goes on."""
        heard = self._heard.get(stream_id)
        if heard is None or heard.last_ms < 0 or first_ms - heard.last_ms <= self._forget_after_ms:
            return None
        return Expiry.FORGOTTEN if first_ms - heard.last_ms > 2.0 * self._forget_after_ms else Expiry.SILENT

    def hear(self, stream_id: str, last_ms: int) -> Heard:
        """Note that a batch of the stream ended at `last_ms` (Kafka timestamp, -1 if none); what to keep of that."""
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
        """The streams whose states may be dropped; they are as good as never heard from now on.

        Never one whose messages have no timestamps: nothing will tell that it was silent when it comes back. Nor one
        that is `in_hand`, with images that were read and are not heard yet: its neighbours, which moved the clock, may
        have come after them in the log, and what is forgotten would depend on the order of decoding.
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
        """Take these for never heard."""
        for heard in (self._heard.pop(stream) for stream in streams if stream in self._heard):
            del self._clocks[bisect_left(self._clocks, heard.clock_ms)]

    def _move(self) -> None:
        """To where more than half of the streams have come; never back."""
        if self._clocks:
            self._now_ms = max(self._now_ms, self._clocks[(len(self._clocks) - 1) // 2])
