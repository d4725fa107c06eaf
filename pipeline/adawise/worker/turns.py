"""Whose turn it is to serve one partition, and what waits for the pair after it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from adawise.ports import Head, SegmentDraft, ServedBy
from adawise.records import Frame, ImageBatch, Switch
from adawise.worker.pairs import PairTurn


class Turns:
    """The pair that serves a partition, until `planned` if that is known, and the switches that the chain has.

    `began` is the switch with which this begins, if another pair has served the newest segment. `batches` and
    `rejected` wait for the next pair: complete batches; and images that were not accepted, each with whether its stream
    was known when its message was read.
    """

    def __init__(self, head: Head, turn: PairTurn) -> None:
        self.switches = head.switches
        self.batches: list[ImageBatch] = []
        self.rejected: list[tuple[Frame, bool]] = []
        self.begin(turn, head)
        self.began = self.switches[-1] if head.switches and self.switches != head.switches else None

    @property
    def by(self) -> ServedBy | None:
        """What rows say of the pair; None where nobody asked for one."""
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
        """Return True if no message at `next_offset` or later is of this turn; `at_end`: none will ever come."""
        is_read = self.planned is None or next_offset >= self.planned.first
        return is_read or (at_end and bool(self.batches or self.rejected))

    def begin(self, turn: PairTurn, end: Head | SegmentDraft) -> Switch:
        """Begin a turn: it serves what has no row at the end of the chain, or of the draft that will be its end."""
        switch = Switch(end.next_offset, tuple(end.pending), turn.serving.pair, turn.keeps)
        if switch.pair and (not self.switches or self.switches[-1].pair != switch.pair):
            self.switches = (*self.switches, switch)
        self.serving, self.planned = turn.serving, turn.until
        return switch

    def take_waiting(self) -> tuple[list[ImageBatch], list[tuple[Frame, bool]]]:
        """Return what has waited for the turn that has begun."""
        waited = self.batches, self.rejected
        self.batches, self.rejected = [], []
        return waited
