"""Chains of several days, with every kind of segment, and what their compaction must not change."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache

import pyarrow as pa

from adawise.errors import Lost, Reason
from adawise.output.compaction.compact import CompactedFile, FileLimits, compact
from adawise.output.compaction.merged import digest_of
from adawise.ports import Head, SegmentDraft, ServedBy
from adawise.records import Gap, TopicPartition
from adawise.sink import layout, segment
from adawise.sink.chain import SegmentChain
from adawise.sink.files import data_keys, read_bytes
from adawise.sink.layout import SegmentName
from adawise.store.store import Failpoint, Store
from tests.sink.building import CLASSES, IDENTITY, TP, DictStore, Served, frame, served

FIRST_DAY = datetime(2026, 11, 20, 22, tzinfo=UTC)
LIMITS = FileLimits(max_rows=10_000, max_bytes=1 << 30, before=date(2026, 12, 1))
STREAMS = ("north", "south", "yard", "gate, left")
REJECTIONS = (Reason.TOMBSTONE, Reason.UNDECODABLE_IMAGE)


class Days:
    """A worker whose clock the test sets: each commit is `step` later than the one before it.

    What it commits follows from the arguments. In a `DictStore` segments are made once and then copied, as long as
    there is nothing else.
    """

    def __init__(
        self, store: Store, seed: int = 0, step: timedelta = timedelta(hours=4), lost: Lost = Lost.DELETED
    ) -> None:
        self.now, self._lost = FIRST_DAY, lost
        self._step, self._seed, self._store = step, seed, store
        self._copied = 0 if isinstance(store, DictStore) and not store.objects else None
        self._random = random.Random(seed)
        self._batches = dict.fromkeys(STREAMS, 0)
        self._begin()

    def _begin(self) -> None:
        self._chain = SegmentChain(
            store=self._store,
            by=ServedBy(CLASSES, "model", "config"),
            writer="worker-0",
            now=lambda: self.now,
        )
        self._chain.check()
        self.head: Head = self._chain.recover(TP, IDENTITY, 0)

    def commit(self, segments: int) -> None:
        """So many more segments; between them are some that move no offset, some that are empty, and a gap."""
        if self._has_copied_all:
            assert self._copied is not None
            self._copy(self._copied + segments)
            return
        for _ in range(segments):
            self._commit()

    def _commit(self) -> None:
        self.now += self._step
        commit = self._chain.commit(self._draft())
        assert commit.won
        self.head = commit.head

    @property
    def _has_copied_all(self) -> bool:
        """Whether there is nothing in the store but what was copied."""
        if self._copied is None:
            return False
        made = _made(self._copied, self._seed, self._step, self._lost)
        assert isinstance(self._store, DictStore)
        assert isinstance(made._store, DictStore)
        return self.now == made.now and (not self._copied or self._store.objects == made._store.objects)

    def _copy(self, segments: int) -> None:
        """Be what another one is after so many."""
        made, store = _made(segments, self._seed, self._step, self._lost), self._store
        assert isinstance(made._store, DictStore)
        assert isinstance(store, DictStore)
        store.objects = dict(made._store.objects)
        store._written |= {key: store.now for key in store.objects if key not in store._written}
        self.now, self._batches, self._copied = made.now, dict(made._batches), segments
        self._random.setstate(made._random.getstate())
        self._begin()
        assert self.head == made.head

    def _draft(self) -> SegmentDraft:
        draw, first = self._random, self.head.next_offset
        until = first + draw.choice([0, 3, 6, 9])
        if until == first and not self.head.pending:
            until += 1
        gaps = [Gap(first, first + 2, self._lost)] if until > first + 3 and draw.random() < 0.2 else []
        due = [*self.head.pending, *(o for o in range(first, until) if not gaps or o >= first + 2)]
        pending = [offset for offset in due if draw.random() < 0.2]
        done = [offset for offset in due if offset not in pending] or [pending.pop()]
        rejected = [offset for offset in done if draw.random() < 0.1]
        return SegmentDraft(
            TP,
            until,
            tuple(pending),
            {stream: b"%d batches" % number for stream, number in self._batches.items()},
            list(self._served([offset for offset in done if offset not in rejected])),
            [frame(offset, reason=draw.choice(REJECTIONS), stream=draw.choice([None, "yard"])) for offset in rejected],
            gaps,
        )

    def _served(self, offsets: list[int]) -> Iterator[Served]:
        streams = {offset: self._random.choice(STREAMS) for offset in offsets}
        for stream in sorted(set(streams.values())):
            theirs = [offset for offset in offsets if streams[offset] == stream]
            images = [frame(offset, index, stream=stream) for offset in theirs for index in range(1 + offset % 2)]
            yield served(images, number=self._batches[stream], alpha=self._random.choice([0.0, 0.35, 1.0]))
            self._batches[stream] += 1


@cache
def _made(segments: int, seed: int, step: timedelta, lost: Lost) -> Days:
    days = Days(DictStore(), seed, step, lost)
    if segments:
        days._copy(segments - 1)
        days._commit()
    return days


def compacted(store: Store, limits: FileLimits = LIMITS, at: Failpoint = lambda _: None) -> list[CompactedFile]:
    return list(compact(store, TP, limits, now=lambda: datetime(2026, 12, 1, tzinfo=UTC), failpoint=at))


def content(store: Store) -> dict[str, str]:
    """A checksum of what a reader finds now, of each dataset."""
    return {dataset: digest_of(dataset, found(store, dataset)) for dataset in (layout.PREDICTIONS, layout.TRACES)}


def found(store: Store, dataset: str) -> pa.Table:
    """What a reader finds."""
    return pa.concat_tables(segment.read_rows(read_bytes(store, key), key) for key in data_keys(store, dataset))


def key_of(first: int, sequence: int = 0, tp: TopicPartition = TP) -> str:
    return layout.segment_key(tp, SegmentName(first, sequence))
