"""Open transactions, which hold back everything that was written to their partition after they began.

A consumer that reads committed messages only learns nothing of them: its position stays before messages that the broker
has. A producer that hangs, or died without ending its transaction, thereby stops every camera of the partition for as
long as its own timeout, or for ever. So a position that does not move before the log's end is looked into, and the
cause is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kafka import IsolationLevel, OffsetSpec, errors
from kafka.structs import TopicPartition as KafkaPartition
from typing_extensions import override

from adawise.records import TopicPartition

log = logging.getLogger(__name__)

HELD_S = 10.0  # a position that did not move for this long is looked into
REPEAT_S = 300.0
_YEAR_10000_MS = 253_402_300_800_000


class OpenTransaction(NamedTuple):
    """The first open transaction of a partition: nothing from `offset` on is delivered.

    Attributes:
        offset: the offset at which it begins.
        since_ms: when it began, in ms since the epoch; -1 where the broker does not say.
        who: the producer or its transactional id; "" where the broker does not say.
    """

    offset: int
    since_ms: int = -1
    who: str = ""

    @override
    def __str__(self) -> str:
        is_known = 0 <= self.since_ms < _YEAR_10000_MS  # a producer may have set the time, so any value is possible
        since = f" since {datetime.fromtimestamp(self.since_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}" if is_known else ""
        who = f", of {self.who}" if self.who else ""
        return f"an open transaction holds back messages from offset {self.offset} on{since}{who}"


def open_transaction(admin: Any, tp: TopicPartition, end: int) -> OpenTransaction | None:
    """Return the transaction that holds back a part of the log before `end`; None if none does. Raise KafkaError."""
    partition = KafkaPartition(*tp)
    latest = {partition: OffsetSpec.LATEST}
    stable = int(admin.list_partition_offsets(latest, isolation_level=IsolationLevel.READ_COMMITTED)[partition].offset)
    if stable >= end:
        return None
    found = OpenTransaction(stable)
    try:
        producers = admin.describe_producers([partition])[partition].active_producers
        first = min(
            (each for each in producers if each.current_transaction_start_offset >= 0),
            key=lambda each: each.current_transaction_start_offset,
        )
        found = OpenTransaction(stable, first.last_timestamp, f"producer {first.producer_id}")
        listed = admin.list_transactions(producer_id_filters=[first.producer_id])
        name = next(each.transactional_id for of_broker in listed.values() for each in of_broker)
        began_ms = admin.describe_transactions([name])[name].transaction_start_time_ms
        return OpenTransaction(stable, began_ms, f"transactional.id {name!r}")
    except (errors.KafkaError, KeyError, ValueError, StopIteration):  # not every broker gives it, nor to every user
        return found


@dataclass(slots=True)
class _Position:
    offset: int
    since_s: float
    logged_s: float | None = None


class HeldBack:
    """The positions that do not move, and when their cause was logged."""

    def __init__(self) -> None:
        self._positions: dict[TopicPartition, _Position] = {}

    def standing(self, positions: Mapping[TopicPartition, int], now_s: float) -> list[TopicPartition]:
        """Return the partitions whose position has not moved for `HELD_S` and that are due to be looked into.

        Args:
            positions: the positions of all partitions with messages ahead.
            now_s: monotonic seconds.
        """
        self._positions = {
            tp: known if (known := self._positions.get(tp)) and known.offset == at else _Position(at, now_s)
            for tp, at in positions.items()
        }
        return [
            tp
            for tp, at in self._positions.items()
            if now_s - at.since_s >= HELD_S and (at.logged_s is None or now_s - at.logged_s >= REPEAT_S)
        ]

    def log_cause(self, tp: TopicPartition, found: OpenTransaction | None, now_s: float) -> None:
        """Log the cause, now and every `REPEAT_S`; look again in `HELD_S` if none was found or the broker is silent."""
        if found is None:
            self._positions[tp].since_s = now_s
            return
        self._positions[tp].logged_s = now_s
        log.warning(
            "%s: %s: later messages are served only once it is committed or aborted. Stop its producer, or end it "
            "with `kafka-transactions.sh abort --topic %s --partition %d --start-offset %d`",
            *(tp, found, tp.topic, tp.partition, found.offset),
        )
