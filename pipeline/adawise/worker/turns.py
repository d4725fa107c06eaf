"""The pair whose turn it is to serve one partition, and what waits for the next pair. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from adawise.ports import Head, SegmentDraft, ServedBy
from adawise.records import Frame, ImageBatch, Switch
from adawise.worker.pairs import PairTurn


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
