"""A topic as the broker has it, offset by offset: what a chain is compared with. Implements `sink.findings.Log`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer
from kafka.structs import TopicPartition as KafkaPartition

from pipeline.errors import BrokerUnavailable
from pipeline.ports import TopicIdentity
from pipeline.records import TopicPartition
from pipeline.source.kafka_batches import BatchLimits, Unread, bound_batches
from pipeline.source.kafka_client import kafka_errors, open_client
from pipeline.source.kafka_topic import KafkaTopics

_POLL_MS, _MESSAGES = 500, 500
_PATIENCE_S = 30.0  # without an answer that brings anything


class KafkaLog:
    """Reads partitions without a group; values are dropped as they come.

    Args:
        bootstrap_servers: "host:port", several separated by commas.
        max_partition_fetch_bytes: held at once, and a message more.
        batch_limits: batches beyond them are not read; nor are they by a worker.
        security: kafka-python's arguments for TLS and SASL.

    Raises:
        BrokerUnavailable: no broker answered within 10 s.
        SettingsError: an argument cannot work.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        client_id: str,
        max_partition_fetch_bytes: int,
        batch_limits: BatchLimits,
        security: Mapping[str, object],
    ) -> None:
        self._servers = bootstrap_servers
        self._topics = KafkaTopics(bootstrap_servers=bootstrap_servers, client_id=client_id, security=security)
        try:
            self._consumer: Any = open_client(
                KafkaConsumer,
                bootstrap_servers,
                security,
                client_id=f"{client_id}-verify",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                isolation_level="read_committed",
                max_partition_fetch_bytes=max_partition_fetch_bytes,
            )
            bound_batches(self._consumer, batch_limits)
        except BaseException:
            self._topics.close()
            raise
        self._reading: KafkaPartition | None = None
        self._ahead: list[int] = []  # read, but beyond what was asked for

    def identity(self, topic: str) -> TopicIdentity:
        """See `Log.identity`."""
        return self._topics.identity(topic)

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """See `Log.bounds`."""
        return self._topics.bounds(tp)

    def offsets(self, tp: TopicPartition, first: int, until: int) -> npt.NDArray[np.int64]:
        """See `Log.offsets`; `until` is at most the log's end."""
        partition = KafkaPartition(*tp)
        with kafka_errors(self._servers, f"read the offsets [{first}, {until}) of {tp}"):
            position = self._begin(partition, first)
            found = self._ahead
            give_up_s = time.monotonic() + _PATIENCE_S
            while position < until:
                records = self._consumer.poll(timeout_ms=_POLL_MS, max_records=_MESSAGES).get(partition, [])
                found += [record.offset for record in records if not isinstance(record.checksum, Unread)]
                # Where a log ends in markers of transactions there is no message: the position goes past them.
                before, position = position, self._consumer.position(partition, timeout_ms=10_000)
                if position > before:
                    give_up_s = time.monotonic() + _PATIENCE_S
                elif time.monotonic() > give_up_s:
                    raise BrokerUnavailable(
                        f"{self._servers} sends nothing of {tp} from offset {position} on, for {_PATIENCE_S:g} s. "
                        "Is the partition's leader alive? Try again."
                    )
        self._ahead = [offset for offset in found if offset >= until]
        return np.asarray([offset for offset in found if first <= offset < until], np.int64)

    def close(self) -> None:
        """Free the clients."""
        self._consumer.close()
        self._topics.close()

    def _begin(self, partition: KafkaPartition, first: int) -> int:
        """The position, once reading goes on at `first` or, if that was read already, behind it."""
        if partition != self._reading:
            self._consumer.assign([partition])
            self._reading, self._ahead = partition, []
            self._consumer.seek(partition, first)
        position = int(self._consumer.position(partition, timeout_ms=10_000))
        if position < first:
            self._consumer.seek(partition, first)
            return first
        return position
