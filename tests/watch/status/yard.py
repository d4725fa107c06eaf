"""A yard whose clock the test sets: chains of several partitions, cameras that send, fall silent, are rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from adawise.adapt.conditions import Appearance, LearnedAppearance, Memory
from adawise.adapt.last_seen import LastSeen
from adawise.adapt.state import StreamState
from adawise.errors import Reason
from adawise.ports import Head, SegmentDraft, ServedBy, TopicIdentity
from adawise.records import Frame, Gap, RowId, TopicPartition
from adawise.sink.chain import SegmentChain
from adawise.sink.owner import Owner
from adawise.store.store import Store
from tests.sink.building import CLASSES, Served, served

NOW_S = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
OWNER = Owner("cluster", "frames", "adawise", "run")
IDENTITY = TopicIdentity("cluster", "topic-id", 4)


class Yard:
    """Each `write` is a segment of a partition, written `ago_s` before `NOW_S`, or before `now_s`."""

    def __init__(self, store: Store, *, owner: Owner | None = OWNER, now_s: float = NOW_S) -> None:
        self.store, self._now_s, self._at_s = store, now_s, now_s
        self._owner = owner or OWNER
        self._chain = SegmentChain(
            store=store,
            by=ServedBy(CLASSES, "model", "config"),
            writer="host-a:41",
            owner=owner,
            now=lambda: datetime.fromtimestamp(self._at_s, UTC),
        )
        self._chain.check()
        self.heads: dict[int, Head] = {}
        self._states: dict[int, dict[str, StreamState]] = {}

    def begin(self, partition: int, origin: int = 0) -> Head:
        """Recover the partition; its chain begins at `origin`."""
        if partition not in self.heads:
            tp = TopicPartition(self._owner.topic, partition)
            self.heads[partition] = self._chain.recover(tp, IDENTITY, origin)
        return self.heads[partition]

    def write(
        self,
        partition: int = 0,
        *,
        ago_s: float,
        batches: Sequence[tuple[str, int, float]] = (),
        rejected: Mapping[str | None, Sequence[Reason]] | None = None,
        pending: int = 0,
        gap: Gap | None = None,
        reset: str | None = None,
        condition: tuple[int, int] | None = None,
        shortlist: tuple[str, Mapping[int, int]] | None = None,
        shortlists: Sequence[tuple[str, Mapping[int, int]] | None] = (),
    ) -> str:
        """A segment of batches (camera, images, alpha), of rejected messages by camera and of offsets that wait.

        `condition`: number and visits of the one that the cameras are in, and know of by pixels; then it is also known
        whether there is an alarm. `shortlist`: digest of the cameras', and what it lacks in each batch, by class;
        `shortlists`: the same of each batch.
        """
        head, self._at_s = self.begin(partition), self._now_s - ago_s
        tp = TopicPartition(self._owner.topic, partition)
        states, offset = self._states.setdefault(partition, {}), head.next_offset
        waiting, accepted = list(head.pending), list[Served]()

        def frame(stream: str | None, reason: Reason | None = None) -> Frame:
            nonlocal offset
            at = waiting.pop(0) if waiting else offset
            offset += at == offset
            row = RowId(*tp, at, 0)
            return Frame(row, round(1e3 * self._at_s), stream, None, reason, None if reason is None else "not an image")

        for (stream, images, alpha), listed in zip(batches, shortlists or [shortlist] * len(batches), strict=True):
            before = states.get(stream)
            frames = [frame(stream) for _ in range(images)]
            batch, predictions, trace = served(frames, number=0 if before is None else before.batches, alpha=alpha)
            trace = replace(
                trace,
                topic=tp.topic,
                partition=tp.partition,
                reset=reset,
                predicted_at_us=round(1e6 * self._at_s),
            )
            if condition is not None:
                trace = replace(trace, condition=condition[0], returned=condition[1] > 1, alarm=False)
            if listed is not None:
                trace = replace(trace, shortlist=listed[0], off_list=listed[1])
            accepted.append((batch, predictions, trace))
            last_seen = LastSeen(*[round(1e3 * self._at_s)] * 3)
            state = StreamState("k", 7, batches=trace.batch_number + 1, last_seen=last_seen)
            if condition is not None:
                number, visits = condition
                learned = LearnedAppearance.of_first(Appearance(np.zeros(5), np.ones(5), 8))
                state = replace(state, looks=learned, memory=Memory(number, visits, number + 2))
            states[stream] = state
        bad = [frame(stream, reason) for stream, reasons in (rejected or {}).items() for reason in reasons]
        if gap is not None:
            offset = max(offset, gap.until)
        open_ = (*waiting, *range(offset, offset + pending))
        stored = {stream: state.to_bytes() for stream, state in states.items()}
        draft = SegmentDraft(tp, offset + pending, open_, stored, accepted, bad, () if gap is None else (gap,))
        commit = self._chain.commit(draft)
        assert commit.won
        self.heads[partition] = commit.head
        return str(commit.head.segment)
