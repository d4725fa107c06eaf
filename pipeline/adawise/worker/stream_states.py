"""The adaptation states of a partition's streams: which one a batch goes on from, and which are kept in a segment."""

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
    """The states, from the head that the partition was recovered at; `table` has the streams that keep one.

    Args:
        head: has the states as of the chain's end.
        initial: makes the state of a stream that was never seen.
        forget_after_s: the silence after which a stream starts anew.
        max_streams: places for streams.
        keeps_states: go on from states of another pair, as if they were of this one.
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
        self._fitting: set[str] = set()  # whose states are of the pair that serves
        self._changed: set[str] = set()  # whose states are not in the head or the sealed draft
        self._resets: dict[str, str] = {}  # why the state of the stream in flight is a new one
        self._anew: set[str] = set()  # streams in flight that begin anew, whatever was known of them
        self._clock = PartitionClock(head.states, forget_after_s)
        self.table = StreamTable(max_streams, head.stream_table, head.states)

    def last_seen(self) -> dict[str, tuple[int, int]]:
        """Return of each stream the Kafka timestamp, in milliseconds, and the offset of its last message that is known.

        Without streams whose messages have no timestamps, and those of earlier versions that noted no offset.
        """
        times, offsets = self._clock.last_ms(), self.table.last_offsets()
        return {name: (at_ms, offsets[name]) for name, at_ms in times.items() if offsets.get(name, -1) >= 0}

    def go_on_with(self, initial: Callable[[], StreamState], *, keeps_states: bool) -> None:
        """Another pair serves from now on: each stream begins anew, or goes on from its state if it `keeps_states`.

        As if the states were read again from the chain's end, of which those that have changed since are in no head.
        """
        self._initial, self._keeps_states = initial, keeps_states
        self._fitting.clear()

    def begins_anew(self, stream_id: str) -> bool:
        """True if the batch in flight of the stream begins anew although it may have been here before."""
        return stream_id in self._anew

    def before(self, batch: ImageBatch, stored: Mapping[str, bytes]) -> StreamState:
        """The state that the batch's stream goes on from; `stored` are the head's.

        A new one if the stream is new, was silent for too long, may have left its place to another, or if the settings
        that it depends on have changed.
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
        """The batch is done, and its stream goes on from `state`.

        Returns why it had begun anew, if it had, and how many images were rejected (`StreamTable.served`).
        """
        heard = self._clock.hear(batch.stream_id, batch.frames[-1].kafka_timestamp_ms)
        self._states[batch.stream_id] = replace(state, heard=heard)
        self._changed.add(batch.stream_id)
        self._anew.discard(batch.stream_id)
        return self._resets.pop(batch.stream_id, None), self.table.served(batch)

    def kept(self, stored: Mapping[str, bytes], waiting: set[str] | None) -> tuple[dict[str, bytes], bytes]:
        """For a draft: `stored`, the newer ones in their place, without streams that are forgotten or left; the table.

        `waiting` are streams of which images were read and are not served; None while nobody knows them. One that has
        left keeps its state until its last images are served.
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
