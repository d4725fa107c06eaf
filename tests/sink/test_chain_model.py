"""Two owners of one partition, at once, whatever happens to them: every row exactly once, states that follow.

A model of the worker drives real chains over one store. hypothesis chooses the order: reads, drafts that wait, commits
whose answers are lost, deaths at each point of a commit, recoveries, silent streams, holes and retention of the log.
After each step the whole chain must hold. The same machine over a store that overwrites has to fail: it shows that the
check can.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from adawise.errors import ChainError, Reason, StoreUnavailable
from adawise.output.verify.root import verify
from adawise.ports import Head, SegmentDraft
from adawise.records import Frame, Gap
from adawise.sink.chain import SegmentChain
from adawise.sink.files import segment_keys
from adawise.sink.segment import SegmentFooter, read_footer, read_rows
from tests.sink.building import (
    IDENTITY,
    TP,
    DictStore,
    OverwritingStore,
    Served,
    draft,
    frame,
    next_state,
    open_chain,
    served,
)
from tests.sink.stored import read_predictions

ORIGIN = 5
POINTS = ("segment.encoded", "segment.created", "traces.written")


class Died(Exception):
    """The owner came to the point where it was to die."""


@dataclass
class Log:
    """The topic: what lies at each offset (nothing at a hole), and how far retention has come."""

    frames: dict[int, list[Frame]] = field(default_factory=dict)
    start: int = ORIGIN
    end: int = ORIGIN

    def append(self, message: tuple[str, int] | Reason | None) -> None:
        """A stream with its images, a tombstone, what cannot be read, or a hole."""
        if isinstance(message, Reason):
            self.frames[self.end] = [frame(self.end, stream="a", reason=message)]
        elif message is not None:
            stream, images = message
            self.frames[self.end] = [frame(self.end, index, stream=stream) for index in range(images)]
        self.end += 1


@dataclass
class Owner:
    """A worker as far as the sink sees one: reads messages, gathers batches per stream, drafts segments."""

    log: Log
    store: DictStore
    head: Head = field(default_factory=lambda: Head(0))
    position: int = 0
    states: dict[str, bytes] = field(default_factory=dict)
    buffers: dict[str, list[Frame]] = field(default_factory=dict)
    accepted: list[Served] = field(default_factory=list)
    rejected: list[Frame] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    sealed: SegmentDraft | None = None
    dies_at: str | None = None

    def __post_init__(self) -> None:
        self.chain: SegmentChain = open_chain(self.store, "owner", at=self._at)
        self.recover()

    def _at(self, point: str) -> None:
        if point == self.dies_at:
            raise Died

    def recover(self) -> None:
        self.adopt(self.chain.recover(TP, IDENTITY, ORIGIN))

    def adopt(self, head: Head) -> None:
        """Go on from a head; what the log no longer has is a gap."""
        start = self.log.start
        self.head, self.states, self.sealed = head, dict(head.states), None
        self.buffers, self.accepted, self.rejected = {}, [], []
        self.gaps = [Gap(offset, offset + 1) for offset in sorted(head.pending) if offset < start]
        if head.next_offset < start:
            self.gaps.append(Gap(head.next_offset, start))
        self.position = max(head.low_water, start)

    def read(self, messages: int, size: int) -> None:
        for _ in range(messages):
            if self.position >= self.log.end:
                return
            offset, self.position = self.position, self.position + 1
            if offset < self.head.next_offset and offset not in self.head.pending:
                continue
            for one in self.log.frames.get(offset, ()):
                if one.reason is None:
                    self.buffers.setdefault(one.stream_id or "", []).append(one)
                else:
                    self.rejected.append(one)
            for stream in [s for s, gathered in self.buffers.items() if len(gathered) >= size]:
                self.cut(stream)

    def cut(self, stream: str) -> None:
        frames = self.buffers.pop(stream)
        number = int(self.states.get(stream, b"0:").partition(b":")[0])
        self.states[stream] = next_state(self.states.get(stream, b""), [str(f.row_id) for f in frames])
        self.accepted.append(served(frames, number=number))

    def seal(self) -> bool:
        """Make a draft of what there is; the same one until its fate is known. False if there is nothing to write."""
        until = max(self.position, self.head.next_offset)
        nothing = until == self.head.next_offset and not self.accepted and not self.rejected
        if self.sealed is None and not nothing:
            gathered = {one.row_id.offset for frames in self.buffers.values() for one in frames}
            unread = {offset for offset in self.head.pending if offset >= self.position}
            self.sealed = SegmentDraft(
                TP,
                until,
                tuple(gathered | unread),
                dict(self.states),
                list(self.accepted),
                list(self.rejected),
                list(self.gaps),
            )
        return self.sealed is not None

    def commit(self) -> None:
        """As the worker must: the same draft again after StoreUnavailable."""
        if not self.seal():
            return
        assert self.sealed is not None
        done = self.chain.commit(self.sealed)
        if done.won:
            self.head, self.sealed, self.accepted, self.rejected, self.gaps = done.head, None, [], [], []
        else:
            self.adopt(done.head)

    def finish(self) -> None:
        for _ in range(3):  # a segment that was sealed, then the rest
            if self.sealed is None:
                self.read(self.log.end, size=1_000_000)
                for stream in list(self.buffers):
                    self.cut(stream)
            self.commit()


class ChainChecker:
    """Follows the chain: rows, states and offsets of each new segment, or of all if an old one was changed."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._seen: dict[str, bytes] = {}
        self._restart()

    def _restart(self) -> None:
        self._seen = {}
        self.rows: set[str] = set()
        self.gaps: set[int] = set()
        self.states: dict[str, bytes] = {}
        self.pending: tuple[int, ...] = ()
        self.next = ORIGIN
        self.last: str | None = None

    def follow(self, store: DictStore) -> None:
        keys = [key for _, key in segment_keys(store)]
        if any(store.objects.get(key) is not data for key, data in self._seen.items()):
            self._restart()
        for key in keys[len(self._seen) :]:
            self._take(key, store.objects[key])
            self._seen[key] = store.objects[key]

    def _take(self, key: str, data: bytes) -> None:
        footer = read_footer(data, key)
        rows = read_rows(data, key, ["row_id", "offset", "stream_id", "batch_number", "status"]).to_pylist()
        assert (footer.first, footer.previous) == (self.next, self.last)
        ids = [row["row_id"] for row in rows]
        assert not self.rows & set(ids), "a row twice"
        self.rows |= set(ids)
        self.gaps |= {offset for gap in footer.gaps for offset in range(gap.first, gap.until)}
        due = {*self.pending, *(o for o in range(footer.first, footer.next) if o in self.log.frames)}
        done = {row["offset"] for row in rows}
        assert done | set(footer.pending) == due - self.gaps, "an offset that is nowhere"
        assert set(ids) == {str(one.row_id) for offset in done for one in self.log.frames[offset]}
        self._follow_states(footer, rows)
        self.pending, self.next, self.last = footer.pending, footer.next, key

    def _follow_states(self, footer: SegmentFooter, rows: Iterable[dict[str, object]]) -> None:
        batches: dict[tuple[str, int], list[str]] = {}
        for row in rows:
            if row["status"] == "accepted":
                batches.setdefault((str(row["stream_id"]), int(str(row["batch_number"]))), []).append(
                    str(row["row_id"])
                )
        for (stream, number), ids in sorted(batches.items()):
            assert number == int(self.states.get(stream, b"0:").partition(b":")[0])
            self.states[stream] = next_state(self.states.get(stream, b""), ids)
        assert footer.states == self.states, "a state that does not follow"


owners = st.integers(0, 1)
messages = st.tuples(st.sampled_from("aaabbc"), st.integers(1, 3)) | st.sampled_from(
    [None, Reason.TOMBSTONE, Reason.EMPTY]
)


class Partition(RuleBasedStateMachine):
    """One partition, two owners who both believe that it is theirs."""

    store_kind: type[DictStore] = DictStore

    def __init__(self) -> None:
        super().__init__()
        self.store, self.log = self.store_kind(), Log()
        self.checker = ChainChecker(self.log)
        for message in ("a", 1), ("b", 2), None, ("a", 1), Reason.EMPTY, ("a", 2):
            self.log.append(message)
        self.owners = [Owner(self.log, self.store) for _ in range(2)]

    @rule(sent=st.lists(messages, min_size=1, max_size=6))
    def produce(self, sent: list[tuple[str, int] | Reason | None]) -> None:
        for message in sent:
            self.log.append(message)

    @rule(owner=owners, count=st.integers(1, 5), size=st.integers(1, 4))
    def read(self, owner: int, count: int, size: int) -> None:
        if self.owners[owner].sealed is None:
            self.owners[owner].read(count, size)

    @rule(owner=owners)
    def a_silent_stream_is_closed(self, owner: int) -> None:
        subject = self.owners[owner]
        if subject.buffers and subject.sealed is None:
            subject.cut(min(subject.buffers))

    @rule(owner=owners)
    def seal(self, owner: int) -> None:
        """It stands still just before the commit: the other may go on."""
        self.owners[owner].seal()

    @rule(owner=owners, fault=st.sampled_from([None, None, None, "before", "after", "before put"]))
    def commit(self, owner: int, fault: str | None) -> None:
        self.store.refuse = [fault] if fault else []
        try:
            with suppress(StoreUnavailable):
                self._call(self.owners[owner].commit)
        finally:
            self.store.refuse = []

    @rule(owner=owners, point=st.sampled_from(POINTS), fault=st.sampled_from([None, "after"]))
    def die_in_a_commit(self, owner: int, point: str, fault: str | None) -> None:
        self.owners[owner].dies_at = point
        with suppress(Died):
            self.commit(owner, fault)
        self._reborn(owner)

    @rule(owner=owners)
    def die(self, owner: int) -> None:
        self._reborn(owner)

    @rule(owner=owners)
    def lose_and_get_it_back(self, owner: int) -> None:
        self._call(self.owners[owner].recover)

    @precondition(lambda self: self.log.end - self.log.start > 4)
    @rule(by=st.integers(1, 3))
    def retention(self, by: int) -> None:
        self.log.start += by

    def _reborn(self, owner: int) -> None:
        def recover() -> None:
            self.owners[owner] = Owner(self.log, self.store)

        self._call(recover)

    def _call(self, what: object) -> None:
        try:
            what()  # type: ignore[operator]
        except ChainError as error:
            raise AssertionError("the chain cannot be followed") from error

    @invariant()
    def every_row_is_there_once_and_states_follow(self) -> None:
        self.checker.follow(self.store)

    def teardown(self) -> None:
        """Another one finishes: then all is there that the log did not lose, and `verify` says so too."""
        last = Owner(self.log, self.store)
        last.finish()
        self.checker.follow(self.store)
        expected = {
            str(f.row_id) for o, frames in self.log.frames.items() if o not in self.checker.gaps for f in frames
        }
        found = read_predictions(self.store, ["row_id"])["row_id"].to_pylist()
        assert sorted(found) == sorted(expected)
        assert verify(self.store) == []


class PartitionOfAStoreThatOverwrites(Partition):
    """What a plain upload would do."""

    store_kind = OverwritingStore


def machine_settings(**changes: object) -> settings:
    return settings(
        derandomize=True,
        database=None,
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.examples
def test_rows_are_written_exactly_once_and_states_follow_whatever_two_owners_do() -> None:
    run_state_machine_as_test(Partition, settings=machine_settings())


def test_the_same_machine_finds_within_40_examples_that_a_store_which_overwrites_loses_or_doubles_rows() -> None:
    chosen = machine_settings(max_examples=40, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(PartitionOfAStoreThatOverwrites, settings=chosen)


def test_a_zombie_that_overwrites_is_found_but_one_that_must_create_adopts_the_winner() -> None:
    for store, won, faults in ((DictStore(), False, 0), (OverwritingStore(), True, 1)):
        zombie, owner = open_chain(store, "zombie"), open_chain(store, "owner")
        zombie.recover(TP, IDENTITY, 0)
        owner.recover(TP, IDENTITY, 0)
        owner.commit(draft(0, 4))
        owner.commit(draft(4, 8, number=1))
        late = zombie.commit(draft(0, 2))
        assert late.won is won
        assert late.head.next_offset == (2 if won else 8)
        assert (len(verify(store)) > 0) == (faults > 0)


def test_a_segment_that_moves_no_offset_has_a_name_of_its_own_and_collides_like_any_other() -> None:
    store = DictStore()
    first, second = open_chain(store, "first"), open_chain(store, "second")
    head = first.recover(TP, IDENTITY, 0)
    gathered = SegmentDraft(TP, 2, (0, 1), {}, [], [])
    assert first.commit(gathered).head.pending == (0, 1)
    second.recover(TP, IDENTITY, 0)
    one = SegmentDraft(TP, 2, (1,), {"north": b"1"}, [served([frame(0)])], [])
    other = replace(one, pending=(0,), accepted=[served([frame(1)])], states={"north": b"2"})
    assert first.commit(one).won
    lost = second.commit(other)
    assert not lost.won
    assert (lost.head.pending, lost.head.states) == ((1,), {"north": b"1"})
    assert second.commit(replace(other, pending=())).won
    assert [key.rpartition("/")[2] for _, key in segment_keys(store)] == [
        "00000000000000000000.parquet",
        "00000000000000000002.parquet",
        "00000000000000000002_000001.parquet",
    ]
    assert head.segment is None
    assert verify(store, contiguous=True) == []
