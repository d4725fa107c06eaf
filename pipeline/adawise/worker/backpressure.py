"""Bounded memory: the source is paused while too much is in hand, and resumed at half of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from adawise.ports import Source
from adawise.records import Message, TopicPartition
from adawise.worker.decode_pool import Prefetch
from adawise.worker.partition import PartitionWork
from adawise.worker.write_ahead import WriteAheadRecorder

_log = structlog.get_logger("worker")

_FULL = (
    "more streams than limits.streams: those heard least begin anew when they come back; raise it, spread streams over "
    "more partitions, or look who sends under new names"
)
_BACKLOG = 0.25  # of the bytes: messages that could be decoded and wait for their turn, in a fair order
_MESSAGES = 0.75  # all messages; the rest is for images at least
_EAGER = 0.125  # images of batches that may not be complete; above, only ripe messages are decoded
_OPEN = 0.1875  # images of open batches; above, the newest wait as messages again
_WAITING, _LEFT = 0.75, 0.5  # of the rows: above, they are written before their segments are due; below, all is well
_AGAIN = 0.875  # of a bound on what need not become less by itself: below, reading goes on


@dataclass(frozen=True)
class Limits:
    """What the worker holds at most: bytes under decode or waiting for the model, rows not yet committed.

    `round_images`: images gathered before the model runs, so that forwards are full.
    """

    inflight_bytes: int
    uncommitted_rows: int
    round_images: int


@dataclass
class Backpressure:
    """Holds the source back by the limits.

    A partition is paused for its own messages. Those that could be decoded may take a quarter, those that wait for
    their batch too three. A partition with more than half of an equal share is paused once less than that is left for
    each of the others: so one alone may have it all, and no backlog takes the room of another. All are paused for what
    is nobody's own: rows that the store does not take, and the recording. Images pause nobody: where there is no room
    for them, nothing is decoded, and messages wait.

    No batch waits for ever. Ripe messages are decoded, since open batches leave room for them: above their share they
    become messages again. If nothing is ripe in any partition that is full, the oldest batches of the fullest are
    closed early.
    """

    limits: Limits
    source: Source
    prefetch: Prefetch
    recorder: WriteAheadRecorder
    _paused: set[TopicPartition] = field(default_factory=set)
    _all: bool = False
    _evicted: dict[TopicPartition, int] = field(default_factory=dict)  # as was told last
    _message_bytes: int = 0
    closed_early: int = 0  # batches, since the start

    @property
    def is_all_paused(self) -> bool:
        """True while nothing is read because rows or the recording are not written quickly enough."""
        return self._all

    def is_paused(self, tp: TopicPartition) -> bool:
        """True while the partition is not read."""
        return tp in self._paused

    def held_bytes(self, works: Iterable[PartitionWork]) -> int:
        """Of messages, as of the last step, and of decoded images."""
        return self._message_bytes + sum(work.gathering.image_bytes for work in works)

    def begin(self, tp: TopicPartition) -> None:
        """It is read from now on, as soon as there is room; the source has paused it."""
        self._paused.add(tp)

    def apply(self, owned: Mapping[TopicPartition, PartitionWork]) -> None:
        """Pause or resume by what is in hand now; to be called once a step."""
        for tp, work in owned.items():
            if work.evicted > 2 * self._evicted.get(tp, 0):  # a flood is told in a few lines
                self._evicted[tp] = work.evicted
                _log.warning(
                    "streams_evicted", topic=tp.topic, partition=tp.partition, evicted=work.evicted, note=_FULL
                )
        waiting = {tp: self.prefetch.waiting_bytes(tp) + work.letter_bytes for tp, work in owned.items()}
        backlog = {tp: max(0, size - owned[tp].gathering.ripening.unripe_bytes) for tp, size in waiting.items()}
        messages = {tp: size + owned[tp].gathering.open.kept_bytes for tp, size in waiting.items()}
        self._message_bytes = sum(messages.values())
        behind, not_behind = _shared(backlog, _BACKLOG * self.limits.inflight_bytes, again=0.5)
        full, not_full = _shared(messages, _MESSAGES * self.limits.inflight_bytes, again=_AGAIN)
        rows = sum(work.rows for work in owned.values())
        share = max(rows / self.limits.uncommitted_rows, self.recorder.share)
        self._all = share >= _LEFT if self._all else share > 1.0
        self._paused &= owned.keys()
        pause = {tp for tp in owned if self._all or tp in behind or tp in full} - self._paused
        stuck = {tp for tp in self._paused if not owned[tp].ready and self.prefetch.is_stuck(tp)}
        resume = set() if self._all else self._paused & not_behind & (not_full | (stuck - full))
        if pause:
            self.source.pause(list(pause))
        if resume:
            self.source.resume(list(resume))
        self._paused = (self._paused | pause) - resume
        self._make_room(owned)
        if full and full <= stuck and not self._all:  # nothing will make room, and nothing more would ever come
            self._close_early(owned[max(full, key=lambda tp: messages[tp])])

    def to_write(self, works: Iterable[PartitionWork]) -> set[TopicPartition]:
        """The fullest partitions, if too many rows wait in all of them: no segment is due while each has but a few."""
        waiting = [work for work in works if not work.is_sealed]
        rows, most = sum(work.rows for work in waiting), self.limits.uncommitted_rows
        if not self._all and rows <= _WAITING * most:
            return set()
        found = set()
        for work in sorted(waiting, key=lambda work: -work.rows):
            if rows < _LEFT * most:
                break
            found.add(work.tp)
            rows -= work.rows
        return found

    def is_full(self, works: Iterable[PartitionWork]) -> bool:
        """True if no more images are to be taken; where there is room, it is for those that are decoded next."""
        most = self.limits.inflight_bytes
        messages = min(max(self._message_bytes, int(_BACKLOG * most)), int(_MESSAGES * most))
        images = sum(work.gathering.image_bytes for work in works)
        self.prefetch.make_room(most - messages - images, int(_EAGER * most) - images)
        return most - messages - images <= 0

    def _make_room(self, owned: Mapping[TopicPartition, PartitionWork]) -> None:
        """See that open batches leave room for images: nothing more would ever come to complete them.

        Those of the partition that has the most, so that none has to suffer for the names of another. What takes less
        room as a message becomes one again; what does not is closed early if it takes all.
        """
        works = owned.values()
        too_many = sum(work.gathering.open.image_bytes for work in works) - int(_OPEN * self.limits.inflight_bytes)
        for work in sorted(works, key=lambda work: -work.gathering.open.image_bytes) if too_many > 0 else ():
            too_many -= work.gathering.put_back(too_many, partial(self._give_back, work))
        if self.is_full(works) and not self.prefetch.is_completing and not any(work.ready for work in works):
            self._close_early(max(works, key=lambda work: work.gathering.image_bytes))

    def _give_back(self, work: PartitionWork, stream: str, messages: Sequence[Message]) -> bool:
        apart = [(message, message.offset < work.apart_until) for message in messages]
        return self.prefetch.put_back(work.tp, stream, apart, known=work.head.states)

    def _close_early(self, work: PartitionWork) -> None:
        images = work.gathering
        held = images.open.image_bytes + images.open.kept_bytes + images.ripening.unripe_bytes
        batches = images.close_oldest(held // 2 + 1)
        self.closed_early += batches
        _log.warning(
            "batches_closed_early",
            partition=work.tp.partition,
            open_bytes=held,
            batches=batches,
            remedy="the open batches of all streams do not fit: raise limits.inflight_mib, or lower batch.images",
        )


def _shared(
    sizes: Mapping[TopicPartition, int], most: float, *, again: float
) -> tuple[set[TopicPartition], set[TopicPartition]]:
    """Who has to stop so that half of an equal share of `most` bytes is left for each other; and who may go on.

    The latter once all together, or its own, is `again` times what made it stop.
    """
    half, total = most / (2 * max(1, len(sizes))), sum(sizes.values())
    lacking = sum(max(0.0, half - size) for size in sizes.values())
    stop, go_on = set[TopicPartition](), set[TopicPartition]()
    for tp, size in sizes.items():
        room = most - (lacking - max(0.0, half - size))
        if total > room and size > half:
            stop.add(tp)
        elif total < again * room or size < half / 2:
            go_on.add(tp)
    return stop, go_on
