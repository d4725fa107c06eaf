"""Fakes at the ports: whole implementations in memory, which pass the contract suites of `tests/contracts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from adawise.errors import AdawiseError, SourceError
from adawise.kafka.ownership import Ownership
from adawise.ports import Poll, TopicIdentity
from adawise.records import Message, TopicPartition


class FakeSource:
    """A topic in memory, by `adawise.ports.Source`, that a test can extend and rebalance at will.

    Each poll delivers up to `max_poll_records` messages, round robin over the partitions. All partitions are assigned
    by the first poll. Calls of `lose`, `assign` and `fail` show at the next poll.

    Args:
        finite: the messages are all that will ever come, as in a recording.
    """

    def __init__(
        self,
        messages: Iterable[Message] = (),
        *,
        topic: str = "frames",
        partitions: int = 1,
        finite: bool = False,
        max_poll_records: int = 512,
        identity: TopicIdentity | None = None,
    ) -> None:
        self.committed: dict[TopicPartition, int] = {}
        self.note = ""  # beside the last of them
        self.closed = False
        self.polls = 0
        self.known = identity or TopicIdentity("fake-cluster", "fake-topic", partitions)
        self._first = self.known
        self.origins: dict[TopicPartition, int] = {}
        self.standing: set[TopicPartition] = set()
        self.starts: dict[TopicPartition, int] = {}  # where retention has moved a log's start
        self._topic = topic
        self._logs: dict[TopicPartition, list[Message]] = {TopicPartition(topic, n): [] for n in range(partitions)}
        self._finite = finite
        self._max_poll_records = max_poll_records
        self._owned = Ownership()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._errors: list[AdawiseError] = []
        self._owned.note_assigned(self._logs)
        self.append(*messages)

    def append(self, *messages: Message) -> None:
        """Messages arrive at the broker; the offsets of a partition must ascend and may have holes."""
        for message in messages:
            log = self._logs[message.topic_partition]
            assert not log or message.offset > log[-1].offset, f"{message} does not follow {log[-1]}"
            log.append(message)

    def assign(self, *tps: TopicPartition) -> None:
        """A rebalance brings these partitions (back)."""
        self._owned.note_assigned(tps)

    def lose(self, *tps: TopicPartition) -> None:
        """A rebalance takes these partitions away."""
        self._owned.note_lost(tps)

    def fail(self, *errors: AdawiseError) -> None:
        """Each of the next polls raises one of these."""
        self._errors.extend(errors)

    @property
    def log(self) -> FakeSource:
        """Itself: a fake has both."""
        return self

    @property
    def exhausted(self) -> bool:
        return self._finite and all(self._position(tp) >= self.bounds(tp)[1] for tp in self._logs)

    def poll(self, timeout_s: float) -> Poll:
        self.polls += 1
        if self._errors:
            raise self._errors.pop(0)
        assigned, lost = self._owned.settle()
        self._paused.update(assigned)
        for tp in (*lost, *assigned):
            self._positions.pop(tp, None)
        return Poll(self._next_messages(), assigned, lost)

    def identity(self, topic: str) -> TopicIdentity:
        if topic != self._topic:
            raise SourceError(f"there is no topic {topic!r}, only {self._topic!r}")
        return self.known

    def check(self) -> None:
        if self.known.topic_id != self._first.topic_id:
            raise SourceError(f"topic {self._topic!r} was deleted and created again")

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        log = self._logs[tp]
        start = self.starts.get(tp, log[0].offset if log else 0)
        return start, max(start, log[-1].next_offset if log else 0)

    def timestamps(self, tp: TopicPartition, first: int, until: int) -> Mapping[int, int]:
        return {m.offset: m.timestamp_ms for m in self._logs[tp] if first <= m.offset < until and m.missing is None}

    def offset_at(self, tp: TopicPartition, timestamp_ms: int) -> int | None:
        return next((m.offset for m in self._logs[tp] if m.timestamp_ms >= timestamp_ms), None)

    def origin(self, tp: TopicPartition) -> int:
        return self.origins.get(tp, self.bounds(tp)[0])

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._owned.seek(tp)
        self._positions[tp] = offset

    def pause(self, tps: Sequence[TopicPartition]) -> None:
        self._paused.update(tps)

    def resume(self, tps: Sequence[TopicPartition]) -> None:
        self._owned.expect_sought(tps)
        self._paused.difference_update(tps)

    def drained(self, tp: TopicPartition) -> bool:
        return self.lag(tp) == 0

    def blocked(self, tp: TopicPartition) -> bool:
        return tp in self.standing

    def lag(self, tp: TopicPartition, since: int = 0) -> int | None:
        return max(0, self.bounds(tp)[1] - max(since, self._positions[tp])) if self._owned.is_sought(tp) else None

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        self.note = note
        self.committed.update({tp: offset for tp, offset in offsets.items() if tp in self._owned})

    def close(self) -> None:
        self.closed = True

    def _position(self, tp: TopicPartition) -> int:
        return self._positions.get(tp, -1)

    def _next_messages(self) -> list[Message]:
        ready = {
            tp: [m for m in log if m.offset >= max(self._position(tp), self.starts.get(tp, 0))]
            for tp, log in self._logs.items()
            if self._owned.is_sought(tp) and tp not in self._paused
        }
        messages: list[Message] = []
        for turn in range(max(map(len, ready.values()), default=0)):
            for log in ready.values():
                if turn < len(log) and len(messages) < self._max_poll_records:
                    messages.append(log[turn])
        for message in messages:
            self._positions[message.topic_partition] = message.next_offset
        return messages
