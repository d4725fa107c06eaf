"""The adaptation states of a partition's streams: which state a batch goes on from, and which a segment keeps. Pure.

Two rules say when a silent stream expires. A *stream starts anew* when its next batch begins more than `forget_after_s`
after its last one ended, by its own Kafka timestamps. This alone decides about alphas, so they depend neither on the
streams that share the partition nor on where segments were cut. Its *state is dropped* from the footers later, when the
partition's clock has moved on by twice that since the stream was last seen: a batch that comes then would start anew
anyway.

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
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from heapq import heappop, heappush

from adawise.adapt.last_seen import LastSeen, last_seen_in
from adawise.adapt.state import StreamState
from adawise.adapt.state_key import is_of_another_pair
from adawise.ports import Head
from adawise.records import ImageBatch, Message
from adawise.worker.stream_table import CROWDED, StreamTable


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
        self._last_seen = {stream: last_seen_in(data) or LastSeen(-1, 0, 0) for stream, data in states.items()}
        self._forget_after_ms = 1000.0 * forget_after_s
        self._clocks = sorted(last_seen.clock_ms for last_seen in self._last_seen.values())
        self._now_ms = max((last_seen.at_ms for last_seen in self._last_seen.values()), default=0)
        self._move()

    def last_ms(self) -> dict[str, int]:
        """Return the Kafka timestamp in milliseconds of each stream's last image, where it has one."""
        return {stream: last_seen.last_ms for stream, last_seen in self._last_seen.items() if last_seen.last_ms >= 0}

    def streams(self) -> Collection[str]:
        """Return the streams that are known."""
        return self._last_seen.keys()

    def at_ms(self, stream_id: str) -> int | None:
        """Return the partition's time at which a stream was last seen; None if it is not known."""
        last_seen = self._last_seen.get(stream_id)
        return None if last_seen is None else last_seen.at_ms

    def expiry(self, stream_id: str, first_ms: int) -> Expiry | None:
        """Return why a stream starts anew with a batch that begins at `first_ms`; None if it goes on.

        `first_ms` is a Kafka timestamp, -1 if there is none.
        """
        last_seen = self._last_seen.get(stream_id)
        if last_seen is None or last_seen.last_ms < 0 or first_ms - last_seen.last_ms <= self._forget_after_ms:
            return None
        return Expiry.FORGOTTEN if first_ms - last_seen.last_ms > 2.0 * self._forget_after_ms else Expiry.SILENT

    def receive(self, stream_id: str, last_ms: int) -> LastSeen:
        """Note that a batch of the stream ended at `last_ms`, and return what its state keeps of that.

        `last_ms` is a Kafka timestamp, -1 if there is none.
        """
        before = self._last_seen.get(stream_id)
        clock_ms = self._now_ms
        if before is not None and before.last_ms >= 0 and last_ms >= 0:
            step_ms = last_ms - before.last_ms
            if abs(step_ms) <= self._forget_after_ms:
                clock_ms = before.clock_ms + step_ms
        if before is not None:
            del self._clocks[bisect_left(self._clocks, before.clock_ms)]
        insort(self._clocks, clock_ms)
        self._move()
        last_seen = self._last_seen[stream_id] = LastSeen(last_ms, clock_ms, self._now_ms)
        return last_seen

    def forget(self, in_hand: Container[str] = ()) -> set[str]:
        """Forget the streams whose states may be dropped, and return them; they count as never seen from now on.

        A stream whose messages have no timestamps is never among them: nothing would show that it was silent when it
        comes back. Neither is a stream that is `in_hand`, with images that were read and are not served yet. Its
        neighbours, which moved the clock, may have come after these images in the log, and what is forgotten would
        depend on the order of decoding.
        """
        forgotten = {name for name in self._last_seen if name not in in_hand and self.is_past(name)}
        self.drop(forgotten)
        return forgotten

    def is_past(self, stream_id: str) -> bool:
        """Return True if a stream may be forgotten now."""
        last_seen = self._last_seen.get(stream_id)
        limit_ms = self._now_ms - 2.0 * self._forget_after_ms
        return last_seen is not None and last_seen.last_ms >= 0 and last_seen.at_ms < limit_ms

    def drop(self, streams: Iterable[str]) -> None:
        """Remove these streams, as if they had never been seen."""
        for last_seen in (self._last_seen.pop(stream) for stream in streams if stream in self._last_seen):
            del self._clocks[bisect_left(self._clocks, last_seen.clock_ms)]

    def _move(self) -> None:
        """Move the partition's clock to the time that more than half of the streams have reached; never back."""
        if self._clocks:
            self._now_ms = max(self._now_ms, self._clocks[(len(self._clocks) - 1) // 2])


class Arrivals:
    """The clock that a partition would have if all streams whose messages come were served here.

    It forgets a stream as soon as it may, where `PartitionClock` waits for the next segment: other workers cut segments
    elsewhere. So a state that one of them could drop counts as dropped. For the arguments see `PartitionClock`.
    """

    def __init__(self, states: Mapping[str, bytes], forget_after_s: float) -> None:
        self._clock = PartitionClock(states, forget_after_s)
        self._forget_after_ms = 1000.0 * forget_after_s
        self._served_ms = self._clock.last_ms()  # of the streams that are served here, also once they are forgotten
        self._forgotten = self._clock.forget()
        # When to see whether a stream is past, by the partition's time: a stream has one entry.
        self._queue = [(0, name) for name in states]
        self._queued = set(states)

    def receive(self, stream_id: str, at_ms: int, *, is_served: bool) -> bool:
        """Note a message that was produced at `at_ms`, a Kafka timestamp, -1 if there is none.

        Returns:
            True if its stream is served here and goes on with it, although its state may have been dropped. That is
            the case of a backlog that arrives later than what its neighbours sent at the same time.
        """
        was_forgotten = stream_id in self._forgotten
        is_late = is_served and was_forgotten and at_ms - self._served_ms[stream_id] <= 2.0 * self._forget_after_ms
        now_ms = self._clock.receive(stream_id, at_ms).at_ms
        self._forgotten.discard(stream_id)
        if is_served and at_ms >= 0:
            self._served_ms[stream_id] = at_ms
        self._enqueue(stream_id, now_ms)
        self._forget(now_ms)
        return is_late

    def keep(self, keeps: Callable[[str], bool]) -> None:
        """Remove the streams that `keeps` refuses, as they have lost their place: they start anew in any case."""
        self._clock.drop([name for name in self._clock.streams() if not keeps(name)])
        self._forgotten = {name for name in self._forgotten if keeps(name)}

    def _forget(self, now_ms: int) -> None:
        limit_ms = now_ms - 2.0 * self._forget_after_ms
        while self._queue and self._queue[0][0] < limit_ms:
            name = heappop(self._queue)[1]
            self._queued.discard(name)
            if self._clock.is_past(name):
                self._clock.drop([name])
                if name in self._served_ms:
                    self._forgotten.add(name)
            elif (at_ms := self._clock.at_ms(name)) is not None:
                self._enqueue(name, at_ms if at_ms >= limit_ms else now_ms)  # older ones have no timestamps

    def _enqueue(self, name: str, at_ms: int) -> None:
        if name not in self._queued:
            self._queued.add(name)
            heappush(self._queue, (at_ms, name))


class StreamStates:
    """The states of the streams, beginning with those of the head that the partition was recovered at.

    Args:
        head: has the states at the chain's end.
        initial: makes the state of a stream that was never seen.
        forget_after_s: seconds of silence after which a stream starts anew.
        max_streams: the number of places for streams.
        keeps_states: go on from states of another pair, as if they were of this one.
        is_shared: other workers serve streams of the partition, so that `late` is noted.

    Attributes:
        table: the streams that keep a state.
        late: the streams whose state the neighbours that others serve might have had dropped: their backlog came late.
            It begins empty at each start.
    """

    def __init__(
        self,
        head: Head,
        initial: Callable[[], StreamState],
        *,
        forget_after_s: float,
        max_streams: int,
        keeps_states: bool,
        is_shared: bool = False,
    ) -> None:
        self._initial, self._keeps_states = initial, keeps_states
        self._states: dict[str, StreamState] = {}
        self._fitting: set[str] = set()  # streams whose states are of the pair that serves
        self._changed: set[str] = set()  # streams whose states are not in the head or the sealed draft
        self._resets: dict[str, str] = {}  # why the state of the stream in flight is a new one
        self._anew: set[str] = set()  # streams in flight that begin anew, whatever was known of them
        self._clock = PartitionClock(head.states, forget_after_s)
        self.table = StreamTable(max_streams, head.stream_table, head.states)
        self._arrivals = Arrivals(head.states, forget_after_s) if is_shared else None
        self.late: set[str] = set()

    def receive(self, stream_id: str, message: Message, *, is_served: bool) -> None:
        """Note a message that may have images of the stream; to be called as `StreamTable.receive`."""
        self.table.receive(stream_id, message.offset, is_served=is_served)
        if self._arrivals is not None and self._arrivals.receive(stream_id, message.timestamp_ms, is_served=is_served):
            self.late.add(stream_id)

    def last_seen(self, until_ms: int) -> dict[str, tuple[int, int]]:
        """Return the Kafka timestamp, in milliseconds, and the offset of each stream's last known message.

        Timestamps are `until_ms` at most, since a producer's clock may be ahead. Streams whose messages have no
        timestamps are left out, as are those of earlier versions that noted no offset.
        """
        times, offsets = self._clock.last_ms(), self.table.last_offsets()
        known = ((name, at_ms, offsets.get(name, -1)) for name, at_ms in times.items())
        return {name: (min(at_ms, until_ms), offset) for name, at_ms, offset in known if offset >= 0}

    def go_on_with(self, initial: Callable[[], StreamState], *, keeps_states: bool) -> None:
        """Note that another pair serves from now on: each stream begins anew, or goes on if the pair `keeps_states`.

        Each stream's state is then fitted to the pair as after a recovery, including the states that have changed since
        the head.
        """
        self._initial, self._keeps_states = initial, keeps_states
        self._fitting.clear()

    def begins_anew(self, stream_id: str) -> bool:
        """Return True if the stream begins anew with its batch in flight, whatever was known of it before."""
        return stream_id in self._anew

    def before(self, batch: ImageBatch, stored: Mapping[str, bytes]) -> StreamState:
        """Return the state that the batch's stream goes on from; `stored` are the head's states.

        It is a new state if the stream is new, was silent for too long, may have lost its place to another, or if the
        settings that the state depends on have changed.
        """
        stream_id = batch.stream_id
        self._anew.discard(stream_id)
        if self.table.begins_anew(batch):
            self._anew.add(stream_id)
            self._states[stream_id], self._resets[stream_id] = self._initial(), CROWDED
            return self._states[stream_id]
        expiry = self._clock.expiry(stream_id, batch.frames[0].kafka_timestamp_ms)
        if expiry is not None:
            self._anew.add(stream_id)
            self._states[stream_id] = self._initial()
            if expiry is Expiry.SILENT:
                self._resets[stream_id] = expiry
        elif stream_id not in self._fitting:
            self._states[stream_id] = self._fitted(stream_id, stored.get(stream_id))
        self._fitting.add(stream_id)
        return self._states[stream_id]

    def _fitted(self, stream_id: str, data: bytes | None) -> StreamState:
        initial = self._initial()
        state = self._states.get(stream_id) or (StreamState.from_bytes(data) if data is not None else initial)
        if self._keeps_states and is_of_another_pair(state.key, initial.key):
            state = replace(state, key=initial.key)
        if state.key != initial.key:
            state, self._resets[stream_id] = initial, "settings_changed"
        return state

    def served(self, batch: ImageBatch, state: StreamState) -> tuple[str | None, int | None]:
        """Note that the batch is done, and that its stream goes on from `state`.

        Returns:
            Why the stream had begun anew (None if it had not), and how many of its images were rejected
            (`StreamTable.served`).
        """
        last_seen = self._clock.receive(batch.stream_id, batch.frames[-1].kafka_timestamp_ms)
        self._states[batch.stream_id] = replace(state, last_seen=last_seen)
        self._changed.add(batch.stream_id)
        self._anew.discard(batch.stream_id)
        return self._resets.pop(batch.stream_id, None), self.table.served(batch)

    def kept(self, stored: Mapping[str, bytes], waiting: set[str] | None) -> tuple[dict[str, bytes], bytes]:
        """Return the states for a draft, and the stream table.

        These are the `stored` states of the head, updated by newer ones, without streams that were forgotten or that
        lost their place. A stream that lost its place keeps its state until its last images are served.

        Args:
            stored: the head's states.
            waiting: the streams of which images were read and are not served; None while they are not known.
        """
        gone: set[str] = set()
        if waiting is not None:
            gone = self._clock.forget(waiting)
            left = {name for name in stored.keys() | self._changed if name not in self.table} - waiting
            self._clock.drop(left)
            gone |= left
            if self._arrivals is not None:
                self._arrivals.keep(lambda name: name in self.table or name in waiting)
        for stream_id in gone:
            self._states.pop(stream_id, None)
            self._fitting.discard(stream_id)
            self._changed.discard(stream_id)
        states = {name: data for name, data in stored.items() if name not in gone}
        states.update({name: self._states[name].to_bytes() for name in self._changed})
        self._changed.clear()
        return states, self.table.stored(waiting)
