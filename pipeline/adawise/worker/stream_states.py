"""The adaptation states of a partition's streams: which state a batch goes on from, and which a segment keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from adawise.adapt.state import StreamState
from adawise.adapt.state_key import is_of_another_pair
from adawise.ports import Head
from adawise.records import ImageBatch
from adawise.worker.expiry import Expiry, PartitionClock
from adawise.worker.stream_table import CROWDED, StreamTable


class StreamStates:
    """The states of the streams, beginning with those of the head that the partition was recovered at.

    Args:
        head: has the states at the chain's end.
        initial: makes the state of a stream that was never seen.
        forget_after_s: seconds of silence after which a stream starts anew.
        max_streams: the number of places for streams.
        keeps_states: go on from states of another pair, as if they were of this one.

    Attributes:
        table: the streams that keep a state.
    """

    def __init__(
        self,
        head: Head,
        initial: Callable[[], StreamState],
        *,
        forget_after_s: float,
        max_streams: int,
        keeps_states: bool,
    ) -> None:
        self._initial, self._keeps_states = initial, keeps_states
        self._states: dict[str, StreamState] = {}
        self._fitting: set[str] = set()  # streams whose states are of the pair that serves
        self._changed: set[str] = set()  # streams whose states are not in the head or the sealed draft
        self._resets: dict[str, str] = {}  # why the state of the stream in flight is a new one
        self._anew: set[str] = set()  # streams in flight that begin anew, whatever was known of them
        self._clock = PartitionClock(head.states, forget_after_s)
        self.table = StreamTable(max_streams, head.stream_table, head.states)

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
        heard = self._clock.hear(batch.stream_id, batch.frames[-1].kafka_timestamp_ms)
        self._states[batch.stream_id] = replace(state, heard=heard)
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
        for stream_id in gone:
            self._states.pop(stream_id, None)
            self._fitting.discard(stream_id)
            self._changed.discard(stream_id)
        states = {name: data for name, data in stored.items() if name not in gone}
        states.update({name: self._states[name].to_bytes() for name in self._changed})
        self._changed.clear()
        return states, self.table.stored(waiting)
