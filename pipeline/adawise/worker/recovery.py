"""Recovery of newly assigned partitions: the chain is walked and the log compared with it, to find where to read on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from adawise.errors import LogEndsEarly, LogRewritten, PairMissing, RetryableError
from adawise.ports import Head, Source
from adawise.records import Gap, TopicPartition, time_text
from adawise.worker.attempts import Attempts, Backoff, recovering
from adawise.worker.commit import Outputs
from adawise.worker.events import GapFound, Observer, PartitionRecovered
from adawise.worker.partition import PartitionWork

_log = structlog.get_logger("worker")

_CATCH_UP_S = 30.0  # how long a log that ends early is asked again before this is an error
_RETRY_S = 60.0  # between two tries of a blocked partition: the operator may restore its log or its pair

_ADDED = (
    "it is read from its start, since all its messages are new; producers now send some streams to other "
    "partitions: these start there with new adaptation states, and their messages in the old partition may be "
    "served later"
)
_HOLE = (
    "rows were lost or moved; the worker goes on at the end of the chain, which does no harm. `adawise verify "
    "ROOT` lists all that is missing: restore it from a backup, or bridge it with `adawise repair ROOT`"
)
_UNCOUNTED = (
    "an earlier version wrote its newest segment and did not count those before it, so only `adawise verify` can "
    "find a missing one. Counting begins now"
)
_LOST = (
    "the broker deleted them (retention) before they were read, and kafka.on_gap=skip goes on without them: they "
    "will have no rows. Raise retention.ms of the topic, or start more workers"
)


class Recovery:
    """The partitions that wait to be recovered, in the order in which they came.

    Args:
        source: says how far the partitions' logs reach, and is made to read on where the chains end.
        outputs: the sink with the chains, and the recorder, which may have to read from further back.
        observer: receives the events of recovered partitions.
        attempts: notes failures, and the successes that end them.
        begin: makes the work on a partition whose chain ends at a head.
        skip_gaps: if the broker's log no longer has the next offset, go on where the log begins, and record the gap.
    """

    def __init__(
        self,
        source: Source,
        outputs: Outputs,
        observer: Observer,
        attempts: Attempts,
        *,
        begin: Callable[[TopicPartition, Head], PartitionWork],
        skip_gaps: bool,
    ) -> None:
        self._source, self._sink, self._recorder = source, outputs.sink, outputs.recorder
        self._observer, self._attempts = observer, attempts
        self._begin, self._skip_gaps, self._publish_when = begin, skip_gaps, outputs.results.when
        self._waiting: list[TopicPartition] = []
        self._early_since: dict[TopicPartition, float] = {}  # when a log was first seen to end before its chain
        self._blocked_until_s: dict[TopicPartition, float] = {}
        self._backoff = Backoff()

    @property
    def is_done(self) -> bool:
        """True if no partition waits."""
        return not self._waiting

    @property
    def waiting(self) -> Sequence[TopicPartition]:
        """The partitions that this worker owns and has not recovered yet."""
        return tuple(self._waiting)

    def add(self, tps: Iterable[TopicPartition]) -> None:
        """Add partitions that were assigned to this worker, and that the source has paused."""
        self._waiting += tps

    def drop(self, tp: TopicPartition) -> None:
        """Forget a partition that this worker no longer owns."""
        self._waiting = [waiting for waiting in self._waiting if waiting != tp]
        self._early_since.pop(tp, None)
        self._blocked_until_s.pop(tp, None)
        self._recorder.forget([tp])
        self._sink.forget(tp)
        self._attempts.ended(recovering(tp))

    def advance(self, now_s: float) -> list[PartitionWork]:
        """Recover the partitions that can be recovered now, and make the source read on where each of them begins.

        A broker that begins to lead a partition reports a log end that lags behind, until it knows how far its replicas
        (or its own log, after a crash) have come. So a log that ends early is asked again for a while. A partition
        whose log was rewritten, or whose pair cannot be loaded, is blocked, and is tried again now and then; the others
        go on.

        Returns:
            The work on each recovered partition.

        Raises:
            FatalError: the chain and the topic do not belong together, or the chain is damaged.
        """
        begun: list[PartitionWork] = []
        while self._backoff.due(now_s):
            due = [tp for tp in self._waiting if self._blocked_until_s.get(tp, now_s) <= now_s]
            if not due:
                break
            try:
                begun.append(self._recovered(due[0]))
            except (LogRewritten, PairMissing) as error:
                _log.error("partition_blocked", topic=due[0].topic, partition=due[0].partition, error=str(error))
                self._blocked_until_s[due[0]] = now_s + _RETRY_S
                self._attempts.ended(recovering(due[0]))  # the broker and the store answered: no outage
                continue
            except (RetryableError, LogEndsEarly) as error:
                if isinstance(error, LogEndsEarly) and not self._may_catch_up(due[0], now_s):
                    raise
                self._attempts.failed(recovering(due[0]), error, self._backoff.failed(now_s))
                break
            self._backoff.succeeded()
            self._attempts.ended(recovering(due[0]))
            self._early_since.pop(due[0], None)
            self._blocked_until_s.pop(due[0], None)
            self._waiting.remove(due[0])
        return begun

    def _may_catch_up(self, tp: TopicPartition, now_s: float) -> bool:
        return now_s - self._early_since.setdefault(tp, now_s) < _CATCH_UP_S

    def _recovered(self, tp: TopicPartition) -> PartitionWork:
        identity, log = self._source.log.identity(tp.topic), self._source.log.bounds(tp)
        had = self._sink.began(tp.topic, identity).partitions
        is_added = tp.partition >= had
        head = self._sink.recover(tp, identity, log[0] if is_added else self._source.log.origin(tp))
        if is_added and head.segment is None:
            _log.warning("partition_added", topic=tp.topic, partition=tp.partition, had=had, note=_ADDED)
        for hole in head.holes:
            _log.error("hole_found", topic=tp.topic, partition=tp.partition, hole=hole, note=_HOLE)
        if not head.is_counted:
            _log.info("chain_not_counted", topic=tp.topic, partition=tp.partition, note=_UNCOUNTED)
        work = self._begin(tp, head)
        if head.is_published_again(self._publish_when):
            work.unpublished.extend(self._sink.newest(tp))
        offset = work.offsets.find_in(log, skip_gaps=self._skip_gaps)
        self._compare(tp, head, log)
        if gaps := work.offsets.gaps:
            self._warn_of_loss(tp, head, gaps, log)
            for gap in gaps:
                self._observer.observe(GapFound(tp, gap))
        self._source.seek(tp, self._recorder.begin(tp, offset, log))
        # Lag tools see it at once: a partition without new messages has no segment that would commit an offset.
        self._source.commit({tp: offset}, self._sink.root_id)
        self._observer.observe(PartitionRecovered(tp, head))
        return work

    def _compare(self, tp: TopicPartition, head: Head, log: tuple[int, int]) -> None:
        """Raise LogRewritten if the broker now has other messages at the offsets of the chain's newest rows."""
        known = {offset: at for offset, at in head.newest.items() if log[0] <= offset < log[1]}
        if not known:
            return
        found = self._source.log.timestamps(tp, min(known), max(known) + 1)
        others = sorted(offset for offset, at in known.items() if found.get(offset, at) != at)
        if others:
            first = others[0]
            raise LogRewritten(
                f"{tp}: expected the messages of the newest rows, but of {len(known)} that were compared the "
                f"broker has {len(others)} others: at offset {first} one of {time_text(found[first])}, the row is of "
                f"{time_text(known[first])}. Its log was rewritten (an unclean leader election, a restored disk): rows "
                f"up to offset {head.next_offset - 1} may be of messages that are gone, and the messages there now "
                "were never served. This partition is blocked, the others go on. Restore the broker's log, and it "
                "goes on too; or stop all workers and start a new output: see `adawise verify ROOT --broker` for "
                "what differs, then set another sink.root, kafka.origin to where it is to begin, and for one "
                "start --sink.begin-anew."
            )

    def _warn_of_loss(self, tp: TopicPartition, head: Head, gaps: Sequence[Gap], log: tuple[int, int]) -> None:
        """Log one line about the messages that retention deleted before they were read."""
        oldest = self._source.log.timestamps(tp, log[0], log[0] + 1) if log[0] < log[1] else {}
        _log.warning(
            "messages_lost",
            topic=tp.topic,
            partition=tp.partition,
            first=gaps[0].first,
            last=gaps[-1].until - 1,
            messages=sum(gap.until - gap.first for gap in gaps),
            newest_before=time_text(max(head.newest.values(), default=-1)),
            oldest_after=time_text(oldest.get(log[0], -1)),
            note=_LOST,
        )


class Starts(Protocol):
    """A record of the workers that had a partition and did not end in order, and of what they may have read.

    Called from the main thread.
    """

    def begin(self, tp: TopicPartition, low_water: int) -> int:
        """Note that this worker reads a partition, whose offsets before `low_water` are in rows.

        Returns:
            The offset below which messages may have killed earlier workers; they are to be decoded in isolation.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    def reads(self, tp: TopicPartition, offset: int) -> None:
        """Note that a message of a partition that was begun is about to be decoded. Never raises."""

    def end(self, tp: TopicPartition) -> None:
        """Note that this worker let the partition go in order. Never raises."""

    def close(self) -> None:
        """Note that this worker ends in order. Never raises."""


class NoStarts:
    """A record that remembers nothing."""

    def begin(self, tp: TopicPartition, low_water: int) -> int:
        """See `Starts`."""
        del tp, low_water
        return 0

    def reads(self, tp: TopicPartition, offset: int) -> None:
        """See `Starts`."""

    def end(self, tp: TopicPartition) -> None:
        """See `Starts`."""

    def close(self) -> None:
        """See `Starts`."""
