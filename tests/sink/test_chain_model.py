"""Two owners of one partition, at once, with crashes and lost answers: every row exactly once, states that follow.

A model of the worker drives real chains over one store; hypothesis chooses what happens when. The same check over a
store that overwrites has to fail: it shows that the check can.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.errors import Reason, StoreUnavailable
from pipeline.ports import Head, SegmentDraft
from pipeline.records import Frame
from pipeline.sink.chain import SegmentChain
from pipeline.sink.read import read_predictions, read_segment_footers, segment_keys
from pipeline.sink.segment import read_rows
from pipeline.sink.verify import verify
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

ORIGIN = 5


@dataclass
class Owner:
    """A worker as far as the sink sees one: reads messages, gathers batches per stream, drafts segments."""

    log: dict[int, list[Frame]]
    chain: SegmentChain
    head: Head = field(default_factory=lambda: Head(0))
    position: int = 0
    states: dict[str, bytes] = field(default_factory=dict)
    buffers: dict[str, list[Frame]] = field(default_factory=dict)
    accepted: list[Served] = field(default_factory=list)
    rejected: list[Frame] = field(default_factory=list)
    retry: SegmentDraft | None = None

    def recover(self) -> None:
        self.adopt(self.chain.recover(TP, IDENTITY, ORIGIN))

    def adopt(self, head: Head) -> None:
        self.head, self.position, self.states = head, head.low_water, dict(head.states)
        self.buffers, self.accepted, self.rejected, self.retry = {}, [], [], None

    def read(self, messages: int, size: int) -> None:
        for _ in range(messages):
            if self.position > max(self.log, default=-1):
                return
            offset, self.position = self.position, self.position + 1
            if offset < self.head.next_offset and offset not in self.head.pending:
                continue
            for one in self.log.get(offset, ()):
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

    def commit(self) -> None:
        """As the worker must: the same draft again after StoreUnavailable, nothing at all if there is nothing."""
        if self.retry is None:
            gathered = {one.row_id.offset for frames in self.buffers.values() for one in frames}
            unread = {offset for offset in self.head.pending if offset >= self.position}
            until = max(self.position, self.head.next_offset)
            if until == self.head.next_offset and not self.accepted and not self.rejected:
                return
            self.retry = SegmentDraft(
                TP, until, tuple(gathered | unread), dict(self.states), list(self.accepted), list(self.rejected)
            )
        done = self.chain.commit(self.retry)
        if not done.won:
            self.adopt(done.head)
            return
        self.head, self.accepted, self.rejected, self.retry = done.head, [], [], None

    def finish(self) -> None:
        self.read(len(self.log) + 200, size=1_000_000)
        for stream in list(self.buffers):
            self.cut(stream)
        self.commit()


@dataclass(frozen=True)
class Step:
    """What one owner does next: reads, then commits (the store refusing as said), or dies and comes back."""

    owner: int
    messages: int
    size: int
    then: str


STEPS = st.lists(
    st.builds(
        Step,
        owner=st.integers(0, 1),
        messages=st.integers(0, 5),
        size=st.integers(1, 4),
        then=st.sampled_from(["commit"] * 6 + ["before", "after", "before put", "read", "die", "recover"]),
    ),
    min_size=40,
    max_size=80,
)
# One message each: its stream and its images; a hole in the log, a tombstone, or what cannot be read.
MESSAGES = st.lists(
    st.tuples(st.sampled_from("aaabbc"), st.integers(1, 3)) | st.sampled_from([None, Reason.TOMBSTONE, Reason.EMPTY]),
    min_size=60,
    max_size=120,
)


def recorded(messages: list[tuple[str, int] | Reason | None]) -> dict[int, list[Frame]]:
    log: dict[int, list[Frame]] = {}
    for offset, message in enumerate(messages, ORIGIN):
        if isinstance(message, Reason):
            log[offset] = [frame(offset, stream="a", reason=message)]
        elif message is not None:
            stream, images = message
            log[offset] = [frame(offset, index, stream=stream) for index in range(images)]
    return log


def run(store: DictStore, log: dict[int, list[Frame]], steps: list[Step]) -> None:
    """Let two owners take these steps, then a third one finish."""
    owners = [Owner(log, open_chain(store, f"worker-{i}")) for i in (0, 1)]
    for owner in owners:
        owner.recover()
    for step in steps:
        owner = owners[step.owner]
        if step.then == "die":
            owner = owners[step.owner] = Owner(log, open_chain(store, "reborn"))
        if step.then in {"die", "recover"}:
            owner.recover()
        if owner.retry is None:
            owner.read(step.messages, step.size)
        if step.then not in {"read", "die", "recover"}:
            store.refuse = [step.then]
            with suppress(StoreUnavailable):
                owner.commit()
            store.refuse = []
    last = Owner(log, open_chain(store, "the last"))
    last.recover()
    last.finish()


def check(store: DictStore, log: dict[int, list[Frame]]) -> None:
    """Every image exactly once, no fault of the chain, and every state a function of the one before and its rows."""
    assert verify(store) == []
    expected = sorted(str(one.row_id) for frames in log.values() for one in frames)
    assert sorted(read_predictions(store, ["row_id"])["row_id"].to_pylist()) == expected
    states: dict[str, bytes] = {}
    for key, footer in read_segment_footers(store):
        rows = read_rows(store.objects[key], key, ["row_id", "stream_id", "batch_number", "status"]).to_pylist()
        batches: dict[tuple[str, int], list[str]] = {}
        for row in rows:
            if row["status"] == "accepted":
                batches.setdefault((row["stream_id"], row["batch_number"]), []).append(row["row_id"])
        for (stream, number), ids in sorted(batches.items()):
            assert number == int(states.get(stream, b"0:").partition(b":")[0])
            states[stream] = next_state(states.get(stream, b""), ids)
        assert footer.states == states


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(messages=MESSAGES, steps=STEPS)
def test_rows_are_written_exactly_once_and_states_follow_whatever_two_owners_do(
    messages: list[tuple[str, int] | Reason | None], steps: list[Step]
) -> None:
    store, log = DictStore(), recorded(messages)
    run(store, log, steps)
    check(store, log)


def test_the_same_check_finds_that_a_store_which_overwrites_loses_or_doubles_rows() -> None:
    @settings(
        max_examples=80,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        database=None,
        report_multiple_bugs=False,
    )
    @given(messages=MESSAGES, steps=STEPS)
    def overwriting(messages: list[tuple[str, int] | Reason | None], steps: list[Step]) -> None:
        store, log = OverwritingStore(), recorded(messages)
        run(store, log, steps)
        check(store, log)

    with pytest.raises(AssertionError):
        overwriting()


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
