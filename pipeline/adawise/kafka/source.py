"""Messages of a Kafka topic, read as a member of a consumer group or, without a group, from all partitions.

Constraints of kafka-python 3: rebalance listeners run on its IO thread, where blocking calls raise, so ours only pauses
partitions and leaves a note; `poll` turns the notes into events. Nothing is ever delivered from a position that was not
sought, since a reset policy would silently jump over a gap. `assignment()` still lists partitions after an expulsion,
so the notes and the member's state decide what is owned.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

from kafka import KafkaConsumer, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import MemberState
from kafka.structs import TopicPartition as KafkaPartition

from adawise.errors import AdawiseError, BrokerUnavailable, FatalError, Lost, place_of
from adawise.kafka.batches import BatchLimits, Unread, bound_batches
from adawise.kafka.client import EMBEDDED, EMBEDDED_SESSION_MS, kafka_errors, message_of, open_client
from adawise.kafka.group import OffsetHints, RebalanceListener, join_after_settling, why_expelled
from adawise.kafka.log import KafkaLog, KafkaSourceLog
from adawise.kafka.ownership import Ownership
from adawise.kafka.topic import KafkaTopics
from adawise.kafka.transactions import HeldBack
from adawise.kafka.unreadable import Unreadable
from adawise.ports import Poll
from adawise.records import Message, TopicPartition

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)

_SLICE_MS = 100  # events are noticed with at most this delay
_CHECK_S = 10.0  # without a message for this long, check that the broker and the topic are still there
_ENDS_S, _ENDS_AGAIN_S = 5.0, 30.0  # between two questions for the ends of logs that are not fetched; after a failure
_CLOSE_MS = 5_000
_READER_BYTES, _READER_PATIENCE_S = 2**20, 10.0  # bytes per fetch and patience of the reader for timestamps
_METADATA_MS = 60_000  # added partitions are noticed with at most this delay


class KafkaSource:
    """One topic, as `adawise.ports.Source`.

    Args:
        bootstrap_servers: "host:port", several separated by commas.
        topic: must exist; it is never created.
        group: the consumer group; None for all partitions, without a group and without commits.
        origin: where a partition without a chain begins: "earliest", "latest" or milliseconds since the epoch.
        static_member: `group.instance.id`; the partitions of this member wait for its return for a session timeout.
        max_partition_fetch_bytes: up to twice this per partition is held before it is delivered.
        batch_limits: a batch beyond them is left out, and delivered as one message that is `missing`.
        on_compacted: "fail" refuses a compacted topic; "skip" delivers what was removed as `missing`.
        on_unreadable: at a batch that cannot be unpacked, "stop" blocks its partition; "skip" leaves it out as well.
        security: kafka-python's arguments for TLS and SASL.

    Raises:
        BrokerUnavailable: no broker answered within 10 s.
        SourceError: there is no such topic.
        SettingsError: an argument cannot work.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        topic: str,
        group: str | None,
        origin: Literal["earliest", "latest"] | int,
        client_id: str,
        static_member: str | None,
        session_timeout_ms: int,
        max_poll_interval_ms: int,
        max_poll_records: int,
        max_partition_fetch_bytes: int,
        batch_limits: BatchLimits,
        on_compacted: Literal["fail", "skip"] = "skip",
        on_unreadable: Literal["stop", "skip"],
        security: Mapping[str, object],
    ) -> None:
        self._servers, self._topic, self._group = bootstrap_servers, topic, group
        self._owned = Ownership()
        self._closed = False
        self._topics = KafkaTopics(bootstrap_servers=bootstrap_servers, client_id=client_id, security=security)
        opens = partial(
            KafkaLog,
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            max_partition_fetch_bytes=min(max_partition_fetch_bytes, _READER_BYTES),
            batch_limits=batch_limits,
            security=security,
            patience_s=_READER_PATIENCE_S,
        )
        try:
            self.log = KafkaSourceLog(self._topics, topic, origin, opens, servers=bootstrap_servers)
            if on_compacted == "fail":
                self._topics.expect_not_compacted(topic)
            self._is_embedded = self.log.first_identity.cluster_id == EMBEDDED
            if self._is_embedded:
                session_timeout_ms = min(session_timeout_ms, EMBEDDED_SESSION_MS)
            self._consumer: Any = open_client(
                KafkaConsumer,
                bootstrap_servers,
                security,
                client_id=client_id,
                group_id=group,
                group_instance_id=static_member,
                partition_assignment_strategy=[CooperativeStickyAssignor],
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                isolation_level="read_committed",
                session_timeout_ms=session_timeout_ms,
                heartbeat_interval_ms=min(3_000, session_timeout_ms // 3),
                max_poll_interval_ms=max_poll_interval_ms,
                max_poll_records=max_poll_records,
                max_partition_fetch_bytes=max_partition_fetch_bytes,
                metadata_max_age_ms=_METADATA_MS,
            )
            bound_batches(self._consumer, batch_limits, reports_holes=bool(self._topics.is_compacted(topic)))
        except BaseException:
            self._topics.close()
            raise
        self._received_at = self._polled_at = time.monotonic()
        self._busy_s, self._max_poll_interval_s = 0.0, max_poll_interval_ms / 1000
        self._hints = OffsetHints(self._consumer)
        self._held_back, self._examined_at = HeldBack(), 0.0
        self._unreadable = Unreadable(leaves_out=on_unreadable == "skip", clock=time.monotonic)
        self._records: list[tuple[TopicPartition, list[Any]]] = []  # from kafka-python, not yet converted to messages
        self._taken = Poll()  # what the next poll returns first, if this one raises
        self._error: AdawiseError | None = None  # of a check, raised by the next poll: this one had something to return
        self._has_failed = False  # the last poll failed: messages fetched before do not end the outage
        self._uninformed = dict[str, set[TopicPartition | None]]()  # for which a query of `_inform` fails
        self._ends: dict[TopicPartition, int] = {}  # of logs that are not fetched, by the broker's last answer
        self._ends_due = 0.0
        self._paused: set[TopicPartition] = set()  # by the caller, who does not know of blocked partitions
        self._listener = RebalanceListener(self._consumer, self._owned)
        if group is None:
            partitions = [KafkaPartition(topic, number) for number in range(self.log.first_identity.partitions)]
            self._consumer.assign(partitions)
            self._listener.on_partitions_assigned(partitions)
        else:
            self._consumer.subscribe([topic], listener=self._listener)
            join_after_settling(self._consumer._coordinator, self._owned)
            with kafka_errors(bootstrap_servers, f"describe topic {topic!r}"):
                # A member that leads its first rebalance without metadata would hand out no partitions at all.
                self._consumer.partitions_for_topic(topic)

    @property
    def is_member(self) -> bool:
        """True while this is a member of its group and has its share of the partitions, which may be none."""
        return self._group is None or self._consumer.group_metadata().state == MemberState.STABLE

    @property
    def partitions(self) -> int:
        """The number of the topic's partitions, by the metadata that the client has."""
        known = self._consumer._client.cluster.partitions_for_topic(self._topic)  # sends no request
        return len(known or ()) or self.log.first_identity.partitions

    @property
    def exhausted(self) -> bool:
        """False: a topic can always get more messages."""
        return False

    def poll(self, timeout_s: float) -> Poll:
        """See `Source.poll`; waits up to 10 s longer if the broker does not answer, then raises BrokerUnavailable.

        After that no messages are returned until the broker has answered; events are.
        """
        try:
            return self._polled(timeout_s)
        except AdawiseError:
            self._has_failed = True
            raise

    def _polled(self, timeout_s: float) -> Poll:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, int((deadline - time.monotonic()) * 1000))
            self._poll_once(min(left_ms, _SLICE_MS))
            if self._has_failed and not (self._taken.assigned or self._taken.lost):
                try:
                    self.log.check()
                except AdawiseError:
                    # Reversed, so that the first records of each partition win.
                    for tp, records in dict(reversed(self._records)).items():
                        self._read_again(tp, records[0].offset)
                    raise
                self._has_failed = False
            found = self._take()
            is_empty = not (found.messages or found.assigned or found.lost)
            try:
                self._check(has_messages=bool(found.messages))
            except AdawiseError as error:  # what was taken from the client must be returned, or it would be lost
                if is_empty:
                    raise
                self._error = error
            if not is_empty or left_ms == 0:
                return found

    def _take(self) -> Poll:
        """Return the taken records as messages, and the events; if this raises, all is kept for the next call."""
        while self._records:
            tp, records = self._records.pop(0)
            if not self._owned.is_sought(tp):
                continue
            try:
                messages = list(self._messages(tp, records))
            except BaseException:
                self._read_again(tp, records[0].offset)
                raise
            self._taken = replace(self._taken, messages=[*self._taken.messages, *messages])
        found, self._taken = self._taken, Poll()
        if found.messages:
            self._hints.delivered(found.messages)
        return found

    def _check(self, *, has_messages: bool) -> None:
        """Check the topic beside reading it; raise what `log.check` raises."""
        self._log_transactions()
        if has_messages:
            self._received_at = time.monotonic()
        elif time.monotonic() - max(self._received_at, self.log.checked_at) >= _CHECK_S:
            self.log.check()
        self._refresh_ends()

    def _refresh_ends(self) -> None:
        """Ask for the ends of logs that are not fetched: a pause would hide the messages that arrive meanwhile."""
        now_s = time.monotonic()
        if now_s < self._ends_due:
            return
        # The client's own list also has partitions that are assigned and not resumed yet.
        paused = {TopicPartition(*partition) for partition in self._consumer.paused()}
        tps = [tp for tp in {*paused, *self._unreadable} if self._owned.is_sought(tp)]
        if not tps:
            return
        self._ends_due = now_s + _ENDS_AGAIN_S
        if (ends := self._inform("the ends of logs", partial(self._topics.ends, tps))) is not None:
            self._ends.update(ends)
            self._ends_due = now_s + _ENDS_S

    def _inform(
        self,
        about: str,
        query: Callable[[], Answer | None],
        tp: TopicPartition | None = None,
        *,
        none_answers: bool = False,
    ) -> Answer | None:
        """Return the answer to a query that only informs; None if there is none, whatever the error is.

        None from the query itself is an answer only with `none_answers`.
        An error that no broker explains is logged, once until all partitions for which the query failed have an answer.
        """
        try:
            answer = query()
        except AdawiseError:  # no broker answers, which `check` finds, or this user may not see it
            return None
        except Exception as error:  # noqa: BLE001  # such as a fault of the client, which must not end the work
            failing = self._uninformed.setdefault(about, set())
            if not failing:
                log.warning(
                    "a query about topic %s failed (%s), and the work goes on without its answer: %s: %s (%s)",
                    self._topic,
                    about,
                    type(error).__name__,
                    error,
                    place_of(error),
                )
            failing.add(tp)
            return None
        if answer is not None or none_answers:
            self._uninformed.get(about, set()).discard(tp)
        return answer

    def _end(self, tp: TopicPartition) -> int | None:
        """Return the end of the log, as far as it is known."""
        fetched = self._consumer.highwater(KafkaPartition(*tp))
        known = [int(end) for end in (fetched, self._ends.get(tp)) if end is not None]
        return max(known, default=None)

    def _drop(self, tps: Container[TopicPartition]) -> None:
        """Drop messages in hand of partitions that are read anew."""
        self._records = [(tp, records) for tp, records in self._records if tp not in tps]
        left = [each for each in self._taken.messages if TopicPartition(each.topic, each.partition) not in tps]
        self._taken = replace(self._taken, messages=left)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """See `Source.seek`. Raise ValueError if the partition is not owned."""
        self._owned.seek(tp)
        self._drop([tp])
        stood = self._unreadable.forget(tp)
        if self._held(tp):
            with self._unless_lost(tp):
                self._consumer.seek(KafkaPartition(*tp), offset)
            if stood and tp not in self._paused:
                self._resume([tp])
            self._hints.began(tp, offset)

    def pause(self, tps: Sequence[TopicPartition]) -> None:
        """See `Source.pause`; partitions that are not owned are ignored."""
        self._paused.update(tps)
        self._consumer.pause(*(KafkaPartition(*tp) for tp in tps if self._held(tp)))

    def resume(self, tps: Sequence[TopicPartition]) -> None:
        """See `Source.resume`. Raise ValueError for a partition that was assigned and not sought yet."""
        self._owned.expect_sought(tps)
        self._paused.difference_update(tps)
        self._resume(tps)

    def drained(self, tp: TopicPartition) -> bool:
        """See `Source.drained`. If the last fetch, which may be old, knew of no more messages, the broker is asked.

        An empty poll proves nothing: a broker that has stopped answering gives one too.
        """
        # A fault of the client must not look like a partition that has more: its open batches would wait for ever.
        with suppress(BrokerUnavailable), self._unless_lost(tp):
            if self._lag(tp, 0) == 0:
                end = int(self._consumer.highwater(KafkaPartition(*tp)) or 0)
                return self._topics.ends([tp])[tp] <= end
        return False

    def blocked(self, tp: TopicPartition) -> bool:
        """See `Source.blocked`."""
        return self._unreadable.blocked(tp)

    def lag(self, tp: TopicPartition, since: int = 0) -> int | None:
        """See `Source.lag`. The log's end is that of the partition's last fetch, or of the broker's answers since."""
        return self._inform("the lag", partial(self._lag, tp, since), tp)

    def _lag(self, tp: TopicPartition, since: int) -> int | None:
        if not (self._held(tp) and self._owned.is_sought(tp)):
            return None
        partition, end, position = KafkaPartition(*tp), None, None
        doing = f"ask for the position in {tp}"
        with suppress(AdawiseError), kafka_errors(self._servers, doing), self._unless_lost(tp):
            end, position = self._end(tp), self._consumer.position(partition, timeout_ms=0)
        return None if end is None or position is None else max(0, end - max(since, int(position)))

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """See `Source.commit`; without a group, nothing is committed."""
        ours = {tp: at for tp, at in offsets.items() if self._held(tp)}
        if self._group is not None and ours:
            self._hints.commit(ours, note)

    def committed(self) -> Mapping[TopicPartition, tuple[int, str]]:
        """Return the offsets that any member has committed for the topic, with metadata; raise BrokerUnavailable."""
        return {} if self._group is None else self._topics.committed(self._group, self._topic)

    def close(self) -> None:
        """See `Source.close`."""
        if self._closed:
            return
        self._closed = True
        self._owned.clear()
        if self._is_embedded and self._group is not None:
            self._leave_embedded(self._consumer._coordinator)
        try:
            self._consumer.close(timeout_ms=_CLOSE_MS)
        except errors.KafkaError as error:
            log.warning("Kafka consumer was closed without leaving its group: %s", error)
        self._topics.close()
        self.log.close()

    def _leave_embedded(self, coordinator: Any) -> None:
        """Prepare to leave a group of the embedded broker, which has two faults.

        It takes a member that left before it had an answer back in with that answer. And a leader that leaves before it
        has assigned the partitions stays the leader: each member that joins waits for it, is asked to join again, and
        so for ever. So the rebalance is finished first; if that fails, the member sends no LeaveGroup, and its session
        ends within seconds.
        """
        if coordinator._join_task is not None:
            with suppress(errors.KafkaError):
                coordinator.ensure_active_group(timeout_ms=EMBEDDED_SESSION_MS)
        if coordinator.state != MemberState.STABLE:
            coordinator.state = MemberState.UNJOINED  # a state in which no LeaveGroup is sent

    def _log_transactions(self) -> None:
        """Log what holds back partitions whose position stays before the end of the log."""
        now_s = time.monotonic()
        if now_s - self._examined_at < 1.0:
            return
        self._examined_at = now_s
        tps = [TopicPartition(*partition) for partition in self._consumer.assignment()]
        lags = {tp: self.lag(tp) for tp in tps if tp not in self._paused and tp not in self._unreadable}
        behind = [tp for tp, lag in lags.items() if lag]
        ends = {tp: end for tp in behind if (end := self._inform("the end of a log", partial(self._end, tp), tp))}
        for tp in self._held_back.standing({tp: end - (lags[tp] or 0) for tp, end in ends.items()}, now_s):
            query = partial(self._topics.open_transaction, tp, ends[tp])
            found = self._inform("open transactions", query, tp, none_answers=True)
            self._held_back.log_cause(tp, found, time.monotonic())

    def _poll_once(self, timeout_ms: int) -> None:
        """Take kafka-python's records, and the partitions that were assigned and lost up to now."""
        records: dict[Any, list[Any]] = {}
        self._resume([tp for tp in self._unreadable.due() if tp not in self._paused])
        now = time.monotonic()
        self._busy_s, self._polled_at = now - self._polled_at, now
        with kafka_errors(self._servers, f"read topic {self._topic!r}"):
            try:
                records = self._consumer.poll(timeout_ms=timeout_ms)
            except errors.OffsetOutOfRangeError as error:
                # Retention overtook the reader, or the log got shorter: the recovery of the partition finds out which.
                self._listener.on_partitions_assigned(error.args[0])
            except errors.KafkaError as error:
                # kafka-python wraps an error of the listener in a bare KafkaError.
                if error.__cause__ is not None and type(error) is errors.KafkaError:
                    raise FatalError(f"a rebalance of group {self._group!r} could not be handled: {error}") from error
                raise
        if self._group is not None and self._owned and self._consumer.group_metadata().state == MemberState.UNJOINED:
            self._owned.note_all_lost()  # expelled: the listener is called only when the member joins again
        expelled = self._owned.is_expelled
        assigned, lost = self._owned.settle()
        self._drop([*assigned, *lost])
        for tp in (*assigned, *lost):
            self._unreadable.forget(tp)
            self._paused.discard(tp)
            self._ends.pop(tp, None)
            for failing in self._uninformed.values():
                failing.discard(tp)
        self._records += [(TopicPartition(*partition), found) for partition, found in records.items()]
        before = self._taken  # events that the caller does not know of yet cannot be lost for it
        self._taken = Poll(
            before.messages,
            [*(tp for tp in before.assigned if tp not in lost), *assigned],
            [*before.lost, *(tp for tp in lost if tp not in before.assigned)],
        )
        if expelled and lost:
            why = why_expelled(busy_s=self._busy_s, max_poll_interval_s=self._max_poll_interval_s)
            log.warning("expelled from group %r, joining again, nothing is lost: %s", self._group, why)

    def _messages(self, tp: TopicPartition, records: Sequence[Any]) -> Iterator[Message]:
        """Yield our messages for kafka-python's records, up to the offset at which the partition is to be blocked."""
        for record in records:
            unread = record.checksum
            if not isinstance(unread, Unread):
                self._unreadable.read(tp, record.offset)
                yield message_of(record)
                continue
            if not self._held(tp):
                return  # its new owner reads it
            partition = KafkaPartition(*tp)
            if unread.reason == Lost.BATCH_DAMAGED:  # its end may be a guess
                with self._unless_lost(tp):
                    end = self._consumer.highwater(partition) or 0
                    unread = replace(unread, last=max(unread.first, min(unread.last, end - 1)))
                if not self._held(tp):
                    return
            missing = self._unreadable.resolve(tp, unread)
            if missing is not None:
                yield message_of(record._replace(offset=unread.last), missing)
                if unread.last == record.offset:
                    continue
                self._read_again(tp, unread.last + 1)
                return
            self._read_again(tp, unread.first)
            with self._unless_lost(tp):
                self._consumer.pause(partition)
            return

    def _read_again(self, tp: TopicPartition, offset: int) -> None:
        """Go on at `offset`; drop the records of the partition that were taken beyond those in hand."""
        self._records = [(each, records) for each, records in self._records if each != tp]
        with self._unless_lost(tp):
            self._consumer.seek(KafkaPartition(*tp), offset)

    @contextmanager
    def _unless_lost(self, tp: TopicPartition) -> Iterator[None]:
        """Ignore errors about a partition that kafka-python's IO thread has given up since we looked."""
        try:
            yield
        except (ValueError, KeyError, errors.KafkaError):
            if self._held(tp):
                raise

    def _resume(self, tps: Iterable[TopicPartition]) -> None:
        self._consumer.resume(*(KafkaPartition(*tp) for tp in tps if self._held(tp) and tp not in self._unreadable))

    def _held(self, tp: TopicPartition) -> bool:
        """Return True if it is owned, and known to kafka-python, which drops a partition one poll before we do."""
        return tp in self._owned and KafkaPartition(*tp) in self._consumer.assignment()
