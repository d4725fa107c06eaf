"""Bounded memory: the source is paused while the worker holds too much, and resumed once it holds clearly less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from adawise.ports import Source
from adawise.records import Message, TopicPartition
from adawise.worker.commit import WriteAheadRecorder
from adawise.worker.decode_pool import Prefetch
from adawise.worker.partition import PartitionWork

_log = structlog.get_logger("worker")

_FULL = (
    "more streams than limits.streams: those last seen longest ago start anew when they return; raise it, spread "
    "streams over more partitions, or find the producer that sends under new names"
)
# Shares of `Limits.inflight_bytes`.
_BACKLOG = 0.25  # most for messages that could be decoded now and wait for their turn
_MESSAGES = 0.75  # most for all messages; the rest is reserved for images
_EAGER = 0.125  # above this many bytes of images, only messages whose batch is ready to be decoded are decoded
_OPEN = 0.1875  # above this many bytes of images in open batches, the newest go back to waiting as messages
# Shares of `Limits.uncommitted_rows`: above the first, rows are written before their segments are due; writing and
# pausing end below the second.
_WAITING, _LEFT = 0.75, 0.5
_AGAIN = 0.875  # reading resumes below this share of _MESSAGES; messages of incomplete batches may never become fewer


@dataclass(frozen=True)
class Limits:
    """Bounds on what the worker holds.

    Attributes:
        inflight_bytes: bytes under decode or waiting for the model.
        uncommitted_rows: rows that are not committed yet.
        round_images: images that are gathered before the model runs, so that forwards are full.
    """

    inflight_bytes: int
    uncommitted_rows: int
    round_images: int


@dataclass
class Backpressure:
    """Pauses and resumes the partitions of the source, so that the worker stays within its limits.

    A partition is paused for its own messages. Messages that could be decoded now may take a quarter of the bytes;
    together with those that wait for their batch, they may take three quarters. A partition that uses more than half of
    an equal share is paused once less than half a share is left for each of the others. So a partition that is alone
    may use everything, and no backlog takes the room of another partition. All partitions are paused for what belongs
    to none of them: rows that the store does not take, and the recording. Images pause no partition: where there is no
    room for them, nothing is decoded, and messages wait.

    No batch waits for ever. Ready messages are decoded, since open batches leave room for them: above their share, the
    images of open batches are dropped and wait as messages again. If nothing is ready in any partition that is full,
    the oldest batches of the fullest partition are closed early.

    Attributes:
        limits: the bounds.
        source: the source that is paused and resumed.
        prefetch: the decode pool.
        recorder: the recording, whose memory counts too.
        closed_early: batches that were closed early since the start.
    """

    limits: Limits
    source: Source
    prefetch: Prefetch
    recorder: WriteAheadRecorder
    _paused: set[TopicPartition] = field(default_factory=set)
    _all: bool = False
    _evicted: dict[TopicPartition, int] = field(default_factory=dict)  # evicted streams at the last warning
    _message_bytes: int = 0
    closed_early: int = 0

    @property
    def is_all_paused(self) -> bool:
        """True while nothing is read, because rows or the recording are not written quickly enough."""
        return self._all

    def is_paused(self, tp: TopicPartition) -> bool:
        """Return True while the partition is paused."""
        return tp in self._paused

    def held_bytes(self, works: Iterable[PartitionWork]) -> int:
        """Return the bytes of messages, as of the last step, and of decoded images."""
        return self._message_bytes + sum(work.gathering.image_bytes for work in works)

    def begin(self, tp: TopicPartition) -> None:
        """Note a partition that the source has paused: `apply` resumes it as soon as there is room."""
        self._paused.add(tp)

    def apply(self, owned: Mapping[TopicPartition, PartitionWork]) -> None:
        """Pause or resume partitions by what the worker holds now; to be called once a step."""
        for tp, work in owned.items():
            if work.evicted > 2 * self._evicted.get(tp, 0):  # log again only once the number has doubled
                self._evicted[tp] = work.evicted
                _log.warning(
                    "streams_evicted", topic=tp.topic, partition=tp.partition, evicted=work.evicted, note=_FULL
                )
        # Of what is not decoded, `backlog` could be decoded now; `messages` includes those kept with images.
        backlog, messages = dict[TopicPartition, int](), dict[TopicPartition, int]()
        for tp, work in owned.items():
            waiting, unready = self.prefetch.waiting_bytes(tp)
            backlog[tp] = waiting - unready + work.dead_letter_bytes
            messages[tp] = waiting + work.dead_letter_bytes + work.gathering.open.kept_bytes
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
        # Every full partition only has messages that wait for more of their batch, and none will be read: a deadlock.
        if full and full <= stuck and not self._all:
            self._close_early(owned[max(full, key=lambda tp: messages[tp])])

    def to_write(self, works: Iterable[PartitionWork]) -> set[TopicPartition]:
        """Return the fullest partitions, to be written before they are due, if too many rows wait in all of them.

        With many partitions the rows can be too many although each has too few for a segment to be due.
        """
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
        """Return True if there is no room for more images; also give the room that is left to the decode pool."""
        most = self.limits.inflight_bytes
        messages = min(max(self._message_bytes, int(_BACKLOG * most)), int(_MESSAGES * most))
        images = sum(work.gathering.image_bytes for work in works)
        self.prefetch.make_room(most - messages - images, int(_EAGER * most) - images)
        return most - messages - images <= 0

    def _make_room(self, owned: Mapping[TopicPartition, PartitionWork]) -> None:
        """Keep room for the images that complete open batches: without it, the batches would never become complete.

        The partition that has most gives first, so that none suffers from the many stream names of another. Images that
        take less room as messages become messages again. If images still take all the room, batches are closed early.
        """
        works = owned.values()
        too_many = sum(work.gathering.open.image_bytes for work in works) - int(_OPEN * self.limits.inflight_bytes)
        for work in sorted(works, key=lambda work: -work.gathering.open.image_bytes) if too_many > 0 else ():
            too_many -= work.gathering.put_back(too_many, partial(self._give_back, work))
        if self.is_full(works) and not self.prefetch.is_completing and not any(work.ready for work in works):
            self._close_early(max(works, key=lambda work: work.gathering.image_bytes))

    def _give_back(self, work: PartitionWork, stream: str, read_s: float, messages: Sequence[Message]) -> bool:
        again = [(message, message.offset < work.isolated_until) for message in messages]
        return self.prefetch.put_back(work.tp, stream, again, known=work.head.states, read_s=read_s)

    def _close_early(self, work: PartitionWork) -> None:
        images = work.gathering
        held = images.open.image_bytes + images.open.kept_bytes + self.prefetch.waiting_bytes(work.tp)[1]
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
    """Return the partitions that have to pause and those that may resume, so that they share `most` bytes.

    A partition has to pause if it uses more than half of an equal share, and less than that is left for each of the
    others. It may resume once all together are below `again` times the bound that paused it, or once it uses less than
    a quarter of an equal share.
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
