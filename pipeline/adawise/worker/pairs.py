"""The pair of models that serves a partition, and the switch to another one. Pure.

The pair changes between two segments, so that each segment has one pair, and the chain says which (`records.Switch`).
The worker that recovers a partition goes on with the pair at the chain's end. A worker switches the pair once the
operator asks for it; a replay switches it where a chain says that it was switched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from adawise.adapt.state import StreamState
from adawise.ports import Head, SegmentDraft, ServedBy
from adawise.records import Frame, ImageBatch, PairKey, Shadow, Switch, TopicPartition
from adawise.worker.adaptation import Adaptation, Adapted
from adawise.worker.events import PairsProgress


@dataclass(frozen=True, eq=False)
class Serving:
    """A loaded pair as the loop uses it: the method over it, and what its rows say of it.

    `prepare` does work that the pair will need later, for a fraction of a second, and returns whether there is more.
    """

    adaptation: Adaptation
    by: ServedBy
    prepare: Callable[[], bool] = lambda: False

    @property
    def pair(self) -> str:
        """The pair's id; "" where the pair was not given one."""
        return self.by.pair

    @property
    def key(self) -> PairKey:
        """The pair's id and the hash of its model's config."""
        return self.by.key


@dataclass(frozen=True, slots=True)
class PairTurn:
    """A pair's turn in a partition.

    Attributes:
        serving: the pair.
        keeps: streams go on from the states that they learned with another pair.
        until: where the turn ends, if that is known.
    """

    serving: Serving
    keeps: bool
    until: Switch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ServedBatch:
    """A batch that `serving` has served, from the state `before`.

    `note` takes what a staged pair would have served. It returns False if that comes too late to be written.
    """

    batch: ImageBatch
    before: StreamState
    serving: Serving
    adapted: Adapted
    note: Callable[[Shadow], bool]


class Pairs:
    """The loop's interface to pairs, implemented for a single pair that serves for ever.

    The loop calls it from its own thread. No method of a subclass may block.

    Args:
        serving: the pair.
        keeps: see `PairTurn`.
    """

    def __init__(self, serving: Serving, *, keeps: bool) -> None:
        self._turn = PairTurn(serving, keeps)

    def at(self, tp: TopicPartition, head: Head) -> PairTurn:
        """Return the turn of the pair that serves after the end of a partition's chain.

        Raises:
            PairMissing: the pair that the chain names cannot be loaded here.
        """
        del tp, head
        return self._turn

    def wanted(self, tp: TopicPartition, serving: Serving) -> PairTurn | None:
        """Return the turn that is to follow that of `serving` as soon as possible; None if `serving` is to go on."""
        del tp, serving
        return None

    def switched(self, tp: TopicPartition, turn: PairTurn, switch: Switch) -> None:
        """Note that another pair serves the partition from a switch on, which is in no segment yet."""

    def served(self, served: ServedBatch) -> None:
        """Take a batch that was served."""

    def lost(self, tp: TopicPartition) -> None:
        """Note that this worker no longer owns the partition."""

    def turn(self) -> None:
        """Do what is due, without blocking; called once a step."""

    def progress(self) -> PairsProgress:
        """Return the worker's progress with its pairs."""
        return PairsProgress()

    @property
    def has_work(self) -> bool:
        """True if there is new work for `idle`."""
        return False

    def idle(self) -> bool:
        """Do work that will be needed later, for a fraction of a second; return False if there is no more of it.

        Called while there is nothing else to do. It changes no result.
        """
        return self._turn.serving.prepare()

    def close(self) -> None:
        """Free everything, because the worker ends."""


class Turns:
    """The pair that serves a partition, until `planned` if that is known, and the switches that the chain has.

    Attributes:
        serving: the pair whose turn it is.
        planned: where its turn ends; None if that is not known.
        switches: the switches that the chain has, and those of the turns that were begun since.
        began: the switch with which this object's first turn begins, if another pair served the newest segment.
        batches: complete batches that wait for the next pair.
        rejected: images that were not accepted and wait for the next pair, each with whether its stream was known when
            its message was read.
    """

    def __init__(self, head: Head, turn: PairTurn) -> None:
        self.switches = head.switches
        self.batches: list[ImageBatch] = []
        self.rejected: list[tuple[Frame, bool]] = []
        self.begin(turn, head)
        self.began = self.switches[-1] if head.switches and self.switches != head.switches else None

    @property
    def by(self) -> ServedBy | None:
        """The facts that rows state about the pair; None where the pair was not given an id."""
        return self.serving.by if self.serving.pair else None

    @property
    def frames(self) -> Iterator[Frame]:
        """The images that wait for the next pair."""
        yield from (frame for frame, _ in self.rejected)
        for batch in self.batches:
            yield from batch.frames

    def is_later(self, offset: int) -> bool:
        """Return True if the next pair serves the image at an offset."""
        return self.planned is not None and self.planned.serves(offset)

    def comes_to_end(self, next_offset: int, *, at_end: bool) -> bool:
        """Return True if no message of this turn is still to be read from `next_offset` on.

        `at_end`: no other message will come. Then the turn ends once something waits for the next pair.
        """
        is_read = self.planned is None or next_offset >= self.planned.first
        return is_read or (at_end and bool(self.batches or self.rejected))

    def begin(self, turn: PairTurn, end: Head | SegmentDraft) -> Switch:
        """Begin a turn, which serves everything without a row at `end`: the chain's end, or a draft that will be it."""
        switch = Switch(end.next_offset, tuple(end.pending), turn.serving.pair, turn.keeps)
        if switch.pair and (not self.switches or self.switches[-1].pair != switch.pair):
            self.switches = (*self.switches, switch)
        self.serving, self.planned = turn.serving, turn.until
        return switch

    def take_waiting(self) -> tuple[list[ImageBatch], list[tuple[Frame, bool]]]:
        """Return the batches and rejected images that have waited for this turn, and forget them."""
        waited = self.batches, self.rejected
        self.batches, self.rejected = [], []
        return waited
