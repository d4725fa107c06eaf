"""Questions to a broker about a topic: its identity, the bounds of its partitions, the offset of a time.

They go through two clients beside the group's consumer. So a question never disturbs that consumer's position and
paused partitions, and partitions of other members can be asked about too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import TopicPartition as KafkaPartition

from adawise.errors import AdawiseError, BrokerUnavailable, SettingsError, SourceError
from adawise.kafka.batches import NOTHING, bound_batches
from adawise.kafka.client import (
    EMBEDDED,
    REQUEST_TIMEOUT_MS,
    kafka_errors,
    open_client,
    translated,
)
from adawise.kafka.group import Membership, members_of
from adawise.kafka.transactions import OpenTransaction, open_transaction
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.text import near_match

Answer = TypeVar("Answer")

_QUICK_MS = 2_000
_MADE = (".dlq", ".results")  # suffixes of topics that workers create for records about another topic's messages
_NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"  # the answer of brokers before KIP-516
_NO_COORDINATOR_S, _AGAIN_S = 5.0, 0.1


class KafkaTopics:
    """The topics of one cluster, asked about one at a time.

    Args:
        bootstrap_servers: "host:port", several separated by commas.
        client_id: the prefix of the clients' names at the broker.
        security: kafka-python's arguments for TLS and SASL.
        connect_ms: how long the first broker may take to answer; None for 10 s.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        client_id: str,
        security: Mapping[str, object],
        connect_ms: int | None = None,
    ) -> None:
        self._servers, self._client_id, self._security = bootstrap_servers, client_id, security
        self._admin: Any = open_client(
            KafkaAdminClient,
            bootstrap_servers,
            security,
            client_id=f"{client_id}-topics",
            **({} if connect_ms is None else {"bootstrap_timeout_ms": connect_ms}),
        )
        try:
            self._cluster_id = (
                self._request("ask for the cluster's id", self._admin.describe_cluster)["cluster_id"] or ""
            )
            self._probe: Any = self._open_probe()
        except BaseException:
            self._admin.close()
            raise

    def identity(self, topic: str) -> TopicIdentity:
        """Return the topic's current identity, always asked of the broker.

        Raises:
            SourceError: there is no such topic.
            BrokerUnavailable: no broker answered within 10 s.
        """
        doing = f"describe topic {topic!r}"
        found = self._request(doing, lambda: self._admin.describe_topics([topic]))
        if not found:
            raise BrokerUnavailable(f"could not {doing} at {self._servers}: the answer names no topic. Try again.")
        refused = errors.for_code(found[0]["error_code"])
        if refused is errors.UnknownTopicOrPartitionError:
            raise SourceError(
                f"there is no topic {topic!r} at {self._servers}{self._near(topic)}. Create the topic (for images: "
                "`adawise produce SOURCE --create-topic`), or name one that exists: reading never creates it."
            )
        if refused is not errors.NoError:
            raise translated(refused(), self._servers, doing)
        topic_id = str(found[0].get("topic_id") or "")
        return TopicIdentity(
            cluster_id=self._cluster_id,
            topic_id="" if topic_id == _NO_TOPIC_ID else topic_id,
            partitions=len(found[0]["partitions"]),
        )

    def _near(self, topic: str) -> str:
        """Return a hint at the topic that was likely meant, for the error about a missing one; "" if none is alike."""
        try:
            known = self._request("list topics", self._admin.list_topics)
        except AdawiseError:
            return ""
        role = _role_of(topic)
        alike = [name for name in known if not name.startswith("__") and _role_of(name) == role]
        near = near_match(topic.removesuffix(role), [name.removesuffix(role) for name in alike], 0.6)
        return f" (did you mean {near + role!r}?)" if near else ""

    def is_compacted(self, topic: str) -> bool | None:
        """Return True if `cleanup.policy` includes compact; None if the broker does not say (no DESCRIBE_CONFIGS)."""
        if self._cluster_id == EMBEDDED:  # it compacts nothing, and hangs up on the request
            return None
        requested = ConfigResource(ConfigResourceType.TOPIC, topic, configs=["cleanup.policy"])
        try:
            answer = self._request("ask", lambda: self._admin.describe_configs([requested], config_filter="All"))
            return "compact" in str(answer["topic"][topic]["cleanup.policy"]["value"])
        except (AdawiseError, KeyError):
            return None

    def expect_not_compacted(self, topic: str) -> None:
        """Raise SettingsError if the topic is compacted; a topic whose policy is unknown is accepted."""
        if self.is_compacted(topic):
            raise SettingsError(
                f"topic {topic!r} at {self._servers}: expected a topic that keeps every message until its "
                "retention is over, but it has cleanup.policy=compact: the broker removes all but the newest "
                "frames of each camera, read or not. Set cleanup.policy=delete on the topic; or, to read the rest "
                "and record the gaps, set kafka.on_compacted=skip."
            )

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """Return (log start, log end); raise SourceError for a partition that the topic does not have."""
        self._expect(tp)
        partition = KafkaPartition(*tp)
        doing = f"ask for the bounds of {tp}"
        start = self._request_probe(doing, lambda: self._probe.beginning_offsets([partition], REQUEST_TIMEOUT_MS))[
            partition
        ]
        end = self._request_probe(doing, lambda: self._probe.end_offsets([partition], REQUEST_TIMEOUT_MS))[partition]
        return start, max(end, self._request_probe(doing, lambda: self._high_watermark(partition, end)))

    def all_bounds(self, topic: str) -> dict[TopicPartition, tuple[int, int]]:
        """Return (log start, log end) of every partition, with a few requests for all of them together."""
        tps = [TopicPartition(topic, number) for number in range(self.identity(topic).partitions)]
        partitions, doing = [KafkaPartition(*tp) for tp in tps], f"ask for the bounds of {topic!r}"
        starts = self._request_probe(doing, lambda: self._probe.beginning_offsets(partitions, REQUEST_TIMEOUT_MS))
        ends = self._request_probe(doing, lambda: self._probe.end_offsets(partitions, REQUEST_TIMEOUT_MS))
        if self._cluster_id == EMBEDDED:  # it lists the end of its last whole batch or less
            ends = {
                p: max(ends[p], self._request_probe(doing, partial(self._high_watermark, p, ends[p]))) for p in ends
            }
        return {tp: (int(starts[p]), int(ends[p])) for tp, p in zip(tps, partitions, strict=True)}

    def members(self, group: str) -> Membership:
        """Return the members of a group; raise FatalError (no ACL DESCRIBE on it) or BrokerUnavailable."""
        return self._request(f"ask who is in group {group!r}", lambda: members_of(self._admin, group))

    def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the logs' ends by one quick request, to which some brokers name an earlier offset.

        Raises:
            BrokerUnavailable: no broker answered.
        """
        partitions = [KafkaPartition(*tp) for tp in tps]
        doing = f"ask for the end of {', '.join(f'{each.topic}/{each.partition}' for each in partitions)}"
        listed = self._request_probe(doing, lambda: self._probe.end_offsets(partitions, _QUICK_MS))
        return {TopicPartition(*partition): int(end) for partition, end in listed.items()}

    def offsets_at(self, tps: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int | None]:
        """Return each partition's first offset that is not older than `timestamp_ms`; None if every message is older.

        It takes one request for all of them. Raises BrokerUnavailable.
        """
        requested = {KafkaPartition(*tp): timestamp_ms for tp in tps}
        doing = f"look for {timestamp_ms} ms in {len(requested)} partitions"
        found = self._request_probe(doing, lambda: self._probe.offsets_for_times(requested, REQUEST_TIMEOUT_MS))
        return {TopicPartition(*each): None if at is None else int(at.offset) for each, at in found.items()}

    def open_transaction(self, tp: TopicPartition, end: int) -> OpenTransaction | None:
        """Return the transaction that holds back a part of the log before `end`, or None; raise BrokerUnavailable."""
        with kafka_errors(self._servers, f"ask for open transactions in {tp}"):
            return open_transaction(self._admin, tp, end)

    def offset_at(self, tp: TopicPartition, timestamp_ms: int) -> int | None:
        """Return the first offset that is not older than `timestamp_ms`; None if every message is older."""
        self._expect(tp)
        partition = KafkaPartition(*tp)
        found = self._request_probe(
            f"look for {timestamp_ms} ms in {tp}",
            lambda: self._probe.offsets_for_times({partition: timestamp_ms}, REQUEST_TIMEOUT_MS),
        )[partition]
        return None if found is None else int(found.offset)

    def committed(self, group: str, topic: str) -> dict[TopicPartition, tuple[int, str]]:
        """Return the offsets that a group has committed, with their metadata; raise BrokerUnavailable."""
        found = self._request(f"ask for the offsets of group {group!r}", lambda: self._group_offsets(group))
        return {
            TopicPartition(topic, partition.partition): (int(committed.offset), str(committed.metadata or ""))
            for partition, committed in found.get(group, {}).items()
            if partition.topic == topic and committed.offset >= 0
        }

    def close(self) -> None:
        """Close both clients."""
        self._admin.close()
        self._close_probe()

    def _expect(self, tp: TopicPartition) -> None:
        # Without this check the client would wait for a partition that never comes, and call it a timeout.
        partitions = self.identity(tp.topic).partitions
        if not 0 <= tp.partition < partitions:
            raise SourceError(f"topic {tp.topic!r} at {self._servers} has {partitions} partitions, so it has no {tp}.")

    def _group_offsets(self, group: str) -> Any:
        """Return the client's answer; wait for the coordinator, which a new cluster does not have at once."""
        give_up_s = time.monotonic() + _NO_COORDINATOR_S
        while True:
            # The client never forgets which broker coordinates a group, and would ask a dead one for ever.
            self._admin._manager.cluster._coordinators.clear()
            try:
                return self._admin.list_group_offsets([group])
            except (errors.CoordinatorNotAvailableError, errors.CoordinatorLoadInProgressError):
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(_AGAIN_S)

    def _high_watermark(self, partition: KafkaPartition, at: int) -> int:
        """Return the end of the log as a fetch reports it; asked for offsets, some brokers name an earlier one."""
        self._probe.assign([])
        self._probe.assign([partition])
        self._probe.seek(partition, at)
        give_up = time.monotonic() + REQUEST_TIMEOUT_MS / 1000
        while time.monotonic() < give_up:
            self._probe.poll(timeout_ms=20, max_records=1)
            known = self._probe.highwater(partition)
            if known is not None:
                return int(known)
        raise errors.KafkaTimeoutError(f"no fetch of {partition} was answered in {REQUEST_TIMEOUT_MS} ms")

    def _open_probe(self) -> Any:
        probe = open_client(
            KafkaConsumer,
            self._servers,
            self._security,
            client_id=f"{self._client_id}-probe",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            enable_incremental_fetch_sessions=False,  # they leave out what did not change since the last answer
            fetch_max_wait_ms=1,
            max_partition_fetch_bytes=1,
        )
        bound_batches(probe, NOTHING)
        return probe

    def _close_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _request_probe(self, doing: str, question: Callable[[], Answer]) -> Answer:
        """Ask the probe; after a request without an answer, the next one goes to a new client.

        A process stood still while a broker died and came back: its client then asked in vain for ever, and the
        partition to be recovered stayed with a group member that could not read it (measured).
        """
        if self._probe is None:
            self._probe = self._open_probe()
        try:
            return self._request(doing, question)
        except BrokerUnavailable:
            self._close_probe()
            raise

    def _request(self, doing: str, question: Callable[[], Answer]) -> Answer:
        with kafka_errors(self._servers, doing):
            return question()


def _role_of(topic: str) -> str:
    """Return the suffix of a topic that workers create, "" for any other."""
    return next((end for end in _MADE if topic.endswith(end)), "")
