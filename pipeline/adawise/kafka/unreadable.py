"""Decisions about offsets that cannot be read: leave them out, or block their partition there.

A batch beyond the limits is left out: the reason lies in the batch alone, so every worker and every replay leaves out
the same. A batch that cannot be unpacked may come from a damaged disk or a future codec, and be readable the next time
or elsewhere. So its partition is blocked, is tried again now and then, and goes on by itself once the batch can be
read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from adawise.errors import Lost
from adawise.kafka.batches import Unread
from adawise.records import Missing, TopicPartition

log = logging.getLogger(__name__)

AGAIN_S = 60.0  # between two attempts, each of which logs the line again
SURE_S = 1.0  # before a batch to be left out is read again: a bit may have flipped on the way here


@dataclass(slots=True)
class _Block:
    """The offset at which a partition is blocked, and the time before which it is not tried again."""

    offset: int
    until_s: float
    is_tried: bool = False


class Unreadable:
    """The partitions that are blocked.

    Args:
        leaves_out: True to go on past what cannot be unpacked.
        clock: monotonic seconds.
    """

    def __init__(self, *, leaves_out: bool, clock: Callable[[], float]) -> None:
        self._leaves_out, self._clock = leaves_out, clock
        self._blocked: dict[TopicPartition, _Block] = {}
        self._compacted: dict[TopicPartition, int] = {}  # the number of offsets that compaction removed

    def __contains__(self, tp: object) -> bool:
        """Return True if the partition is not to be read now."""
        block = self._blocked.get(tp) if isinstance(tp, TopicPartition) else None
        return block is not None and not block.is_tried

    def __iter__(self) -> Iterator[TopicPartition]:
        """Iterate over the partitions that are not to be read now."""
        return (tp for tp in list(self._blocked) if tp in self)

    def blocked(self, tp: TopicPartition) -> bool:
        """Return True if the partition goes on only if something changes."""
        return not self._leaves_out and tp in self._blocked

    def resolve(self, tp: TopicPartition, unread: Unread) -> Missing | None:
        """Log and return what replaces the offsets in the stream; None if the partition is to be blocked there."""
        if unread.reason == Lost.COMPACTED:
            self._log_compacted(tp, unread)
            return Missing(unread.first, unread.reason)
        if unread.is_hostile or (self._leaves_out and self._is_sure(tp, unread)):
            self._blocked.pop(tp, None)
            log.warning("%s: %s", tp, _left_out(unread))
            return Missing(unread.first, unread.reason, f"offsets {unread.first} to {unread.last}: it {unread.detail}")
        wait_s = SURE_S if self._leaves_out else AGAIN_S
        self._blocked[tp] = _Block(unread.first, self._clock() + wait_s)
        if not self._leaves_out:
            log.error("%s: %s", tp, _blocked(unread))
        return None

    def _log_compacted(self, tp: TopicPartition, unread: Unread) -> None:
        """Log the loss at its first offset, and whenever the total has about doubled."""
        before = self._compacted.get(tp, 0)
        now = self._compacted[tp] = before + unread.last - unread.first + 1
        if now.bit_length() > before.bit_length():
            log.warning(
                "%s: offsets %d to %d were compacted away before they were read (cleanup.policy=compact): %d in all so "
                "far, which become gaps of the output. To lose none, set cleanup.policy=delete on the topic",
                *(tp, unread.first, unread.last, now),
            )

    def due(self) -> list[TopicPartition]:
        """Return the partitions that are to be tried again now, and mark them as tried."""
        now_s = self._clock()
        due = [tp for tp, block in self._blocked.items() if tp in self and now_s >= block.until_s]
        for tp in due:
            self._blocked[tp].is_tried = True
        return due

    def read(self, tp: TopicPartition, offset: int) -> None:
        """Note that a message of the partition was read, which unblocks it."""
        block = self._blocked.get(tp)
        if block is not None and offset >= block.offset:
            del self._blocked[tp]
            log.info("%s: offset %d can be read now; the partition goes on", tp, offset)

    def forget(self, tp: TopicPartition) -> bool:
        """Unblock a partition that is read from elsewhere or no longer ours; return True if it was blocked."""
        return self._blocked.pop(tp, None) is not None

    def _is_sure(self, tp: TopicPartition, unread: Unread) -> bool:
        """Return True if a second reading cannot differ, or has already failed at the same offset."""
        block = self._blocked.get(tp)
        return unread.reason != Lost.BATCH_DAMAGED or (block is not None and block.offset == unread.first)


def _left_out(unread: Unread) -> str:
    remedy = (
        "If its producer is trusted, raise that setting and replay from the topic"
        if unread.is_hostile
        else "kafka.on_unreadable=skip goes on"
    )
    return (
        f"offsets {unread.first} to {unread.last} are left out and become a gap of the output ({unread.reason}): the "
        f"batch {unread.detail}. {remedy}"
    )


def _blocked(unread: Unread) -> str:
    causes = {
        Lost.BATCH_DAMAGED: "A disk of the broker, or the network path, damages data: restore that replica",
        Lost.BATCH_UNREADABLE: "Its producer may use a feature that this version does not know: upgrade this program",
    }
    return (
        f"the partition is blocked at offset {unread.first}, others go on; the worker tries again every "
        f"{AGAIN_S:g} s ({unread.reason}): the batch up to offset {unread.last} {unread.detail}. "
        f"{causes[unread.reason]}, or set kafka.on_unreadable=skip to go on past it and record the gap"
    )
