from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.state import StreamState
from adawise.adapt.state_key import state_key
from adawise.errors import ChainError, Lost, SourceError
from adawise.ports import Head, SegmentDraft
from adawise.records import BatchTrace, DecodedMessage, Gap, Message, TopicPartition
from adawise.worker.batching import BatchPolicy, batch_of
from adawise.worker.partition import FlushPolicy, PartitionPolicy, PartitionWork
from tests.frames import TOPIC, a_frame, adapted, decoded, lost, single, turn_of

TP = TopicPartition(TOPIC, 0)
PIXELS = 48  # bytes of one image here
POLICY = BatchPolicy(images=3, max_age_s=1.0)


FORGET_S = 1_000.0


class Work(PartitionWork):
    """Reads and takes at once, unless it is asked to read first."""

    def add(self, decoded: DecodedMessage, now_s: float, read_s: float | None = None) -> None:
        if decoded.message.missing is not None:
            self.miss(decoded.message, decoded.message.missing, now_s)
            return
        if decoded.message.offset not in self.offsets._undecoded:
            self.read(decoded.message, streams_of(decoded))
        super().add(decoded, now_s, read_s)


def streams_of(decoded: DecodedMessage) -> frozenset[str]:
    return frozenset(frame.stream_id or "" for frame in decoded.frames)


def work(head: Head | None = None, *, key: str = "k", policy: BatchPolicy = POLICY, max_streams: int = 100) -> Work:
    partition = PartitionPolicy(policy, forget_after_s=FORGET_S, max_streams=max_streams)
    return Work(TP, head or Head(0), partition, turn_of(lambda: StreamState(key, 10)))


def state_of(subject: PartitionWork, stream: str) -> StreamState:
    """What the next batch of a stream goes on from."""
    return subject.state(batch_of([a_frame(0, stream)]))


def finish(subject: PartitionWork, now_s: float = 0.0) -> list[BatchTrace]:
    """Adapt all that is ready, as a round would."""
    traces = []
    while subject.ready:
        batch = subject.ready.popleft()
        traces.append(subject.complete(batch, adapted(batch, subject.state(batch)), now_s))
    return traces


def row_ids(draft: SegmentDraft) -> list[tuple[int, int]]:
    frames = [frame for batch, _, _ in draft.accepted for frame in batch.frames] + list(draft.rejected)
    return [(frame.row_id.offset, frame.row_id.index) for frame in frames]


def head_of(draft: SegmentDraft) -> Head:
    """The head that a sink makes of a draft."""
    return Head(draft.next_offset, draft.pending, dict(draft.states), f"{draft.next_offset}", draft.stream_table)


# -- the invariant


@dataclasses.dataclass
class Log:
    """A partition's messages as decode leaves them; delivered again from any offset."""

    messages: list[DecodedMessage]

    @classmethod
    def drawn(cls, data: st.DataObject, streams: str = "abc", most: int = 30) -> Log:
        messages, offset = [], 0
        for _ in range(data.draw(st.integers(0, most))):
            offset += data.draw(st.sampled_from([1, 1, 1, 4]))  # transactions and compaction leave holes
            if data.draw(st.sampled_from([True, *[False] * 7])):
                first, offset = offset, offset + data.draw(st.integers(0, 3))
                messages.append(lost(first, offset))
                continue
            images = data.draw(st.sampled_from([1, 1, 1, 3]))
            frames = [
                a_frame(
                    offset,
                    data.draw(st.sampled_from(streams)),
                    index=i,
                    timestamp_ms=offset * 400,
                    rejected=data.draw(st.sampled_from([False, False, False, True])),
                )
                for i in range(images)
            ]
            messages.append(decoded(*frames, is_batch=images > 1))
        return cls(messages)

    def since(self, offset: int) -> list[DecodedMessage]:
        return [m for m in self.messages if m.message.offset >= offset]


class Life:
    """A worker on one partition, and the chain that it writes."""

    def __init__(self, log: Log, max_streams: int = 100) -> None:
        self.log, self.now_s, self.max_streams = log, 0.0, max_streams
        self.traces: list[BatchTrace] = []
        self.head, self.written, self.gaps = Head(0), list[tuple[int, int]](), list[int]()
        self.sealed: SegmentDraft | None = None
        self.subject, self.position = work(self.head, max_streams=max_streams), 0
        self.undecoded: list[DecodedMessage] = []

    def read(self, count: int) -> None:
        following = self.log.since(self.position)[:count]
        for message in following:
            self.position = message.message.next_offset
            if self.subject.offsets.wants(message.message):
                if message.message.missing is not None:
                    self.subject.add(message, self.now_s)
                else:
                    self.subject.read(message.message, streams_of(message))
                    self.undecoded.append(message)
        self.subject.polled(self.now_s, drained=not self.log.since(self.position))

    def decode(self, draw: Callable[[int], int]) -> None:
        """One comes back, whichever it is, but those of a stream in their order."""
        first, before = list[DecodedMessage](), set[str]()
        for message in self.undecoded:
            if not before & streams_of(message):
                first.append(message)
            before |= streams_of(message)
        if first:
            message = first[draw(len(first))]
            self.undecoded.remove(message)
            self.subject.add(message, self.now_s)

    def seal(self) -> None:
        """Make a draft, of which it is not known for a while whether the store has kept it."""
        if self.sealed is None:
            finish(self.subject, self.now_s)
            self.sealed = self.subject.draft()
            check_invariant(self.sealed, self.head, self.log, self.subject)

    def land(self) -> None:
        """The store has kept the draft, and says so."""
        if self.sealed is not None:
            assert self.subject.draft() is self.sealed
            self.keep(self.sealed)
            self.subject.committed(self.head)

    def keep(self, draft: SegmentDraft) -> None:
        self.head, self.sealed = head_of(draft), None
        self.written += row_ids(draft)
        self.gaps += offsets_of(draft.gaps)
        self.traces += [trace for _, _, trace in draft.accepted]

    def crash(self, kept: bool) -> None:
        """Everything in memory is lost; the store has kept the draft or not."""
        if self.sealed is not None and kept:
            self.keep(self.sealed)
        self.sealed = None
        self.subject, self.undecoded = work(self.head, max_streams=self.max_streams), []
        self.position = self.subject.offsets.find_in((0, 10_000), skip_gaps=False)


@pytest.mark.slow
@given(st.data())
def test_rows_and_pending_are_what_was_pending_and_what_was_delivered_since_the_head_each_once(
    data: st.DataObject,
) -> None:
    """Random traffic, decoded in any order, drafts of unknown fate, crashes, silence; in the end each row once."""
    life = Life(Log.drawn(data))
    for _ in range(data.draw(st.integers(0, 60))):
        life.now_s += 1.0
        match data.draw(
            st.sampled_from(["read", "read", "decode", "decode", "adapt", "silence", "seal", "land", "crash"])
        ):
            case "read":
                life.read(data.draw(st.integers(1, 4)))
            case "decode":
                life.decode(lambda count: data.draw(st.integers(0, count - 1)))
            case "adapt":
                finish(life.subject, life.now_s)
            case "silence":
                life.read(0)
            case "seal":
                life.seal()
            case "land":
                life.land()
            case "crash":
                life.crash(data.draw(st.booleans()))
    life.land()
    life.read(1000)
    while life.undecoded:
        life.decode(lambda count: data.draw(st.integers(0, count - 1)))
    life.subject.gathering.close_all()
    life.seal()
    life.land()
    assert life.head.pending == ()
    everything = [(f.row_id.offset, f.row_id.index) for m in life.log.messages for f in m.frames]
    assert sorted(life.written) == sorted(everything)
    assert sorted(life.gaps) == missing_in(life.log, 0, 10_000)
    assert (life.subject.rows, life.subject.gathering.image_bytes) == (0, 0)
    assert {(t.stream_id, t.last_offset): t.rejected for t in life.traces} == rejects_between_batches(life)


@pytest.mark.slow
@given(st.data())
def test_who_leaves_and_who_begins_anew_follows_from_the_messages_alone(data: st.DataObject) -> None:
    """Whatever was decoded and committed when, and however often a worker fell: batches and resets are the same."""
    log = Log.drawn(data, streams="aaabbcdefghijkl", most=60)
    disturbed, undisturbed = Life(log, max_streams=8), Life(log, max_streams=8)
    for _ in range(data.draw(st.integers(0, 80))):
        match data.draw(st.sampled_from(["read", "read", "decode", "decode", "adapt", "seal", "land", "crash"])):
            case "read":
                disturbed.read(data.draw(st.integers(1, 4)))
            case "decode":
                disturbed.decode(lambda count: data.draw(st.integers(0, count - 1)))
            case "adapt":
                finish(disturbed.subject)
            case "seal":
                disturbed.seal()
            case "land":
                disturbed.land()
            case "crash":
                disturbed.crash(data.draw(st.booleans()))
    for life in (disturbed, undisturbed):
        life.land()
        life.read(1000)
        while life.undecoded:
            life.decode(lambda _: 0)
        life.subject.gathering.close_all()
        life.seal()
        life.land()
    assert traces_published(disturbed) == traces_published(undisturbed)
    assert disturbed.head.stream_table == undisturbed.head.stream_table
    assert disturbed.head.states.keys() == undisturbed.head.states.keys()
    assert len(disturbed.head.states) <= 8


def traces_published(life: Life) -> list[tuple[str, int, int, str | None, int | None]]:
    return sorted((t.stream_id, t.first_offset, t.batch_number, t.reset, t.rejected) for t in life.traces)


def rejects_between_batches(life: Life) -> dict[tuple[str, int], int]:
    """By stream and last offset of a batch: its images that were rejected behind the batch before."""
    rejected = [(f.stream_id, f.row_id.offset) for m in life.log.messages for f in m.frames if f.image is None]
    found, last = {}, dict[str, int]()
    for trace in sorted(life.traces, key=lambda t: t.last_offset):
        name, until = trace.stream_id, trace.last_offset
        found[name, until] = sum(s == name and last.get(name, -1) < at <= until for s, at in rejected)
        last[name] = until
    return found


def offsets_of(gaps: Iterable[Gap]) -> list[int]:
    return [offset for gap in gaps for offset in range(gap.first, gap.until)]


def missing_in(log: Log, first: int, until: int) -> list[int]:
    """Offsets that nobody can read."""
    ranges = [(m.message.missing.first, m.message.offset) for m in log.messages if m.message.missing is not None]
    return [offset for begin, last in ranges for offset in range(begin, last + 1) if first <= offset < until]


def check_invariant(draft: SegmentDraft, head: Head, log: Log, subject: PartitionWork) -> None:
    rows = row_ids(draft)
    assert len(set(rows)) == len(rows)
    read = [m.message.offset for m in log.messages if m.message.missing is None]
    delivered = {offset for offset in read if head.next_offset <= offset < draft.next_offset}
    assert offsets_of(draft.gaps) == missing_in(log, head.next_offset, draft.next_offset)
    done, pending = {offset for offset, _ in rows}, set(draft.pending)
    assert not done & pending
    assert done | pending == set(head.pending) | delivered
    for message in log.messages:  # a message's rows go together
        if message.message.offset in done:
            assert {(f.row_id.offset, f.row_id.index) for f in message.frames} <= set(rows)
    assert draft.next_offset >= head.next_offset
    assert subject.rows == len(rows) + len(draft.gaps)
    assert subject.gathering.image_bytes == PIXELS * len(
        pending - subject.offsets._awaited - subject.offsets._undecoded.keys()
    )


def test_recovery_reads_on_from_the_oldest_pending_offset_and_takes_only_what_is_not_in_the_chain() -> None:
    subject = work(Head(10, pending=(4, 7)))
    assert subject.offsets.find_in((0, 13), skip_gaps=False) == 4
    assert [offset for offset in range(4, 13) if subject.offsets.wants(single(offset).message)] == [4, 7, 10, 11, 12]
    for offset in (4, 7, 10):
        subject.add(single(offset), 0.0)
        assert not subject.offsets.wants(single(offset).message)
    finish(subject)
    draft = subject.draft()
    assert draft.pending == ()
    assert row_ids(draft) == [(4, 0), (7, 0), (10, 0)]
    assert draft.next_offset == 11


def test_what_was_not_read_again_yet_stays_pending() -> None:
    subject = work(Head(10, pending=(4, 7)))
    subject.add(single(4, rejected=True), 0.0)
    assert subject.draft().pending == (7,)


def test_a_draft_stays_the_same_until_its_fate_is_known_whatever_is_done_meanwhile() -> None:
    subject = work()
    for offset in range(4):
        subject.add(single(offset), 0.0)
    finish(subject)
    draft = subject.draft()
    rows = row_ids(draft)
    assert subject.is_sealed
    for offset in range(4, 7):
        subject.add(single(offset), 0.0)
    subject.add(single(7, rejected=True), 0.0)
    finish(subject)
    assert subject.draft() is draft
    assert (row_ids(draft), draft.next_offset, draft.pending) == (rows, 4, (3,))
    assert subject.rows == 7
    subject.committed(head_of(draft))
    assert subject.rows == 4
    following = subject.draft()
    assert sorted(row_ids(following)) == [(3, 0), (4, 0), (5, 0), (7, 0)]
    assert following.pending == (6,)
    assert StreamState.from_bytes(following.states["cam-0"]).batches == 2


def test_what_stays_open_at_a_commit_is_pending_and_not_read_again() -> None:
    subject = work()
    for offset in range(5):
        subject.add(single(offset), 0.0)
    finish(subject)
    draft = subject.draft()
    assert draft.pending == (3, 4)
    subject.committed(head_of(draft))
    assert not subject.offsets.wants(single(3).message)
    subject.add(single(5), 0.0)
    finish(subject)
    assert row_ids(subject.draft()) == [(3, 0), (4, 0), (5, 0)]


def test_a_draft_is_not_made_while_a_batch_is_ready() -> None:
    subject = work()
    for offset in range(3):
        subject.add(single(offset), 0.0)
    with pytest.raises(AssertionError):
        subject.draft()


def test_what_is_read_and_not_decoded_is_pending_whatever_came_back_meanwhile() -> None:
    subject = work()
    for offset, stream in enumerate(["slow", "a", "a", "a"]):
        subject.read(single(offset, stream).message, frozenset([stream]))
    assert not subject.offsets.wants(single(0).message)
    for offset in (1, 2, 3):
        subject.add(single(offset, "a"), 0.0)
    finish(subject)
    draft = subject.draft()
    assert (draft.pending, draft.next_offset) == ((0,), 4)
    assert row_ids(draft) == [(1, 0), (2, 0), (3, 0)]
    after = work(head_of(draft))
    assert after.offsets.find_in((0, 4), skip_gaps=False) == 0
    assert [offset for offset in range(5) if after.offsets.wants(single(offset).message)] == [0, 4]


def test_what_of_other_streams_is_not_decoded_keeps_no_silent_stream_open() -> None:
    subject = work()
    for offset, stream in enumerate(["slow", "a", "b", "b"]):
        subject.read(single(offset, stream).message, frozenset([stream]))
    subject.add(single(1, "a"), 0.0)
    subject.add(single(2, "b"), 0.0)
    assert subject.is_due(100.0)
    subject.polled(100.0, drained=True)
    subject.polled(100.1, drained=True)
    assert [batch.stream_id for batch in subject.ready] == ["a"]
    assert not subject.is_due(100.0)  # a question to the broker would be in vain


# -- gaps


def test_what_nobody_can_read_is_one_gap_with_its_reason_and_one_dead_letter_and_is_committed_alone() -> None:
    subject = work(Head(10))
    assert subject.offsets.wants(lost(12, 40).message)
    subject.add(lost(12, 40), 5.0)
    ((message, frame),) = subject.dead_letters
    assert (message.offset, frame.row_id.offset, frame.reason) == (40, 12, Lost.BATCH_TOO_LARGE)
    assert (subject.rows, subject.since_s) == (1, 5.0)
    draft = subject.draft()
    assert (draft.gaps, draft.pending, draft.next_offset) == ([Gap(12, 41, Lost.BATCH_TOO_LARGE)], (), 41)
    subject.committed(head_of(draft))
    assert subject.rows == 0


def test_what_was_compacted_away_is_a_gap_and_no_letter() -> None:
    subject = work(Head(10))
    subject.add(lost(12, 40, Lost.COMPACTED), 5.0)
    assert not subject.dead_letters
    assert subject.draft().gaps == [Gap(12, 41, Lost.COMPACTED)]


def test_of_what_nobody_can_read_any_more_only_what_is_not_in_rows_is_a_gap() -> None:
    subject = work(Head(20, pending=(13, 17)))
    assert subject.offsets.wants(lost(10, 15).message)
    assert not subject.offsets.wants(lost(14, 16).message)
    subject.add(lost(10, 15), 0.0)
    assert subject.offsets.wants(single(17).message)
    subject.add(lost(16, 30), 0.0)
    reason = Lost.BATCH_TOO_LARGE
    assert subject.draft().gaps == [Gap(13, 14, reason), Gap(17, 18, reason), Gap(20, 31, reason)]
    assert subject.draft().pending == ()


def test_offsets_that_the_broker_has_deleted_are_an_error_or_become_gaps() -> None:
    subject = work(Head(10, pending=(4, 7)))
    with pytest.raises(SourceError, match=r"frames/0: offsets from 4 to 5 are needed next.*kafka\.on_gap=skip"):
        subject.offsets.find_in((6, 20), skip_gaps=False)
    assert subject.offsets.find_in((6, 20), skip_gaps=True) == 6
    assert not subject.offsets.wants(single(4).message)
    assert subject.offsets.wants(single(7).message)
    draft = subject.draft()
    assert (draft.gaps, draft.pending, draft.next_offset) == ([Gap(4, 5)], (7,), 10)
    subject.committed(head_of(draft))
    assert subject.draft().gaps == []


def test_a_gap_that_reaches_beyond_the_head_moves_the_next_offset() -> None:
    subject = work(Head(10, pending=(7,)))
    assert subject.offsets.find_in((15, 20), skip_gaps=True) == 15
    draft = subject.draft()
    assert (draft.gaps, draft.pending, draft.next_offset) == ([Gap(7, 8), Gap(10, 15)], (), 15)
    assert not subject.offsets.wants(single(14).message)


def test_what_is_needed_of_the_broker_begins_at_the_logs_start_while_a_gap_is_not_written() -> None:
    subject = work(Head(10, pending=(4,)))
    assert subject.offsets.low_water == 4
    subject.offsets.find_in((15, 20), skip_gaps=True)
    assert subject.offsets.low_water == 15
    subject.committed(Head(30, pending=(25,)))
    assert subject.offsets.low_water == 25


def test_a_log_that_has_everything_leaves_no_gap() -> None:
    subject = work(Head(10, pending=(4,)))
    assert subject.offsets.find_in((4, 10), skip_gaps=True) == 4
    assert subject.draft().gaps == []
    assert subject.draft().pending == (4,)


def test_a_log_that_ends_before_the_chain_means_that_the_broker_lost_data() -> None:
    with pytest.raises(
        SourceError, match=r"goes on at offset 10, but the broker's log ends at 9: .*Restore the broker"
    ):
        work(Head(10)).offsets.find_in((0, 9), skip_gaps=True)


# -- dead letters


def test_a_dead_message_is_a_rejected_row_and_a_letter_and_its_bytes_count_until_it_is_sent() -> None:
    subject = work()
    message = Message(TOPIC, 0, 3, None, b"not an image")
    subject.add(DecodedMessage(message, (a_frame(3, rejected=True),), dead=True), 0.0)
    subject.add(single(4, rejected=True), 0.0)
    subject.add(single(5), 0.0)
    assert [(m.offset, f.row_id.offset) for m, f in subject.dead_letters] == [(3, 3)]
    assert subject.dead_letter_bytes == 12
    subject.dead_letters.clear()
    assert subject.dead_letter_bytes == 0
    assert row_ids(subject.draft()) == [(3, 0), (4, 0)]


# -- states


def test_a_stream_goes_on_from_the_state_in_the_head_and_a_new_one_from_the_initial() -> None:
    kept = StreamState("k", 3, batches=7)
    subject = work(Head(0, states={"a": kept.to_bytes()}))
    assert state_of(subject, "a") == kept
    assert state_of(subject, "b") == StreamState("k", 10)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_stream_takes_its_place_by_a_message_that_another_worker_rejects(is_ours: bool) -> None:
    ours, none = frozenset({"ours"}), frozenset[str]()
    subject = work(policy=BatchPolicy(1, 1.0), max_streams=8)
    for offset in range(8):
        subject.pass_by(single(offset).message, none, others=frozenset({f"other-{offset}"}))
    subject.pass_by(single(8).message, ours if is_ours else none, others=none if is_ours else ours)
    subject.add(single(9, "ours"), 0.0)
    [trace] = finish(subject)
    assert (trace.reset, subject.passed_by) == ("crowded" if is_ours else None, 9)


def test_every_state_is_in_the_draft_the_new_ones_for_the_old() -> None:
    old = {name: StreamState("k", 3, batches=7).to_bytes() for name in "ab"}
    subject = work(Head(0, states=old))
    for offset in range(3):
        subject.add(single(offset, "a"), 0.0)
    finish(subject)
    states = {name: StreamState.from_bytes(data) for name, data in subject.draft().states.items()}
    assert states["a"].batches == 8
    assert states["b"].batches == 7
    subject.committed(head_of(subject.draft()))
    assert state_of(subject, "a").batches == 8


@pytest.mark.parametrize("strategy", ["grid", "per_cluster"])
def test_a_state_of_another_or_a_gone_strategy_is_not_continued_and_the_next_trace_says_so_once(strategy: str) -> None:
    key = state_key(strategy, "tsallis@d0f0e0a21b9e0876", 10, (0.0, 0.5, 1.0))
    subject = work(Head(0, states={"a": StreamState(key, 3, batches=7).to_bytes()}))
    for offset in range(6):
        subject.add(single(offset, "a"), 0.0)
    first, second = finish(subject)
    assert (first.reset, first.batch_number) == ("settings_changed", 0)
    assert (second.reset, second.batch_number) == (None, 1)


def test_a_state_that_cannot_be_read_stops_the_worker() -> None:
    with pytest.raises(ChainError, match="restore it from a copy"):
        work(Head(0, states={"a": b"\x00"}))


# -- silence

DAY_MS = 1_000_000  # as long as a stream is remembered


def at(offset: int, stream: str, day: float) -> DecodedMessage:
    """A whole batch of a stream."""
    return decoded(
        *[a_frame(offset, stream, index=i, timestamp_ms=round(day * DAY_MS)) for i in range(3)], is_batch=True
    )


def live(messages: list[DecodedMessage], cuts: set[int]) -> tuple[list[BatchTrace], Head]:
    """The traces of these messages, with a segment and another owner after each of `cuts`, and the last head."""
    subject, traces, head = work(), list[BatchTrace](), Head(0)
    for n, message in enumerate(messages):
        subject.add(message, 0.0)
        traces += finish(subject)
        if n in cuts:
            head = head_of(subject.draft())
            subject = work(head)
    return traces, head_of(subject.draft())


def test_a_stream_that_was_silent_for_too_long_starts_anew_and_its_trace_says_so() -> None:
    days = [0.0, 0.9, 1.9, 3.0, 3.1, 5.2]
    traces, _ = live([at(n, "a", day) for n, day in enumerate(days)], set())
    assert [t.batch_number for t in traces] == [0, 1, 2, 0, 1, 0]
    assert [t.reset for t in traces] == [None, None, None, "silent", None, None]


def two_go_on() -> list[DecodedMessage]:
    """Of two cameras, for three days; together they are most of three."""
    return [at(2 * n + k - 1, name, 0.5 * n) for n in range(1, 7) for k, name in enumerate("bc")]


def test_a_silent_stream_leaves_the_footer_when_its_neighbours_have_gone_on_for_long_enough() -> None:
    messages = [at(0, "a", 0.0), *two_go_on()]
    for until, streams in ((9, {"a", "b", "c"}), (13, {"b", "c"})):
        _, head = live(messages[:until], {2, 3})
        assert set(head.states) == streams


@pytest.mark.parametrize("where", ["under decode", "in an open batch", "not read again"])
def test_a_stream_of_which_something_is_in_hand_is_not_forgotten_however_far_its_neighbours_have_come(
    where: str,
) -> None:
    """Or whether it starts anew would depend on what is decoded first."""
    subject, (first, *others) = work(), [at(0, "a", 0.0), *two_go_on()]
    subject.add(first, 0.0)
    finish(subject)
    second = single(1_000, "a", timestamp_ms=round(0.1 * DAY_MS))
    for message in others if where != "not read again" else []:
        subject.read(message.message, streams_of(message))
    subject.read(second.message, frozenset("a"))
    if where == "in an open batch":
        subject.add(second, 0.0)
    if where == "not read again":
        subject = work(head_of(subject.draft()))
        assert subject.draft().pending == (1_000,)
        subject = work(subject.head)
    for message in others:
        subject.add(message, 0.0)
        finish(subject)
    assert set(subject.draft().states) == {"a", "b", "c"}


def test_a_dropped_stream_is_dropped_from_memory_too() -> None:
    subject = work()
    for message in [at(0, "a", 0.0), *two_go_on()]:
        subject.add(message, 0.0)
        finish(subject)
    assert set(subject.draft().states) == {"b", "c"}
    assert set(subject._streams._states) == {"b", "c"}


@given(
    beats=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.1, 0.6, 1.2])), min_size=5, max_size=40),
    cuts=st.sets(st.integers(0, 39)),
)
def test_a_streams_traces_depend_neither_on_where_segments_were_cut_nor_on_its_neighbours(
    beats: list[tuple[str, float]], cuts: set[int]
) -> None:
    """Three cameras, of which one's clock is years behind."""
    day, messages = 0.0, list[DecodedMessage]()
    for offset, (stream, pause) in enumerate(beats):
        day += pause
        messages.append(at(offset, stream, day + (0.0 if stream == "c" else 5_000.0)))
    together, _ = live(messages, cuts)
    for stream in "abc":
        alone, _ = live([m for m in messages if m.frames[0].stream_id == stream], set())
        assert [t for t in together if t.stream_id == stream] == alone


def test_only_states_that_changed_are_serialised_again() -> None:
    subject = work()
    for offset, stream in enumerate("ab"):
        subject.add(at(offset, stream, 0.0), 0.0)
    finish(subject)
    first = subject.draft()
    subject.committed(head_of(first))
    subject.add(at(2, "b", 0.1), 0.0)
    finish(subject)
    second = subject.draft()
    assert second.states["a"] is first.states["a"]
    assert StreamState.from_bytes(second.states["b"]).batches == 2


# -- time, memory, flushing


def test_one_quiet_poll_proves_nothing_two_apart_close_what_silent_streams_left_open() -> None:
    subject = work()
    subject.add(single(0), 0.0)
    subject.polled(100.0, drained=True)
    subject.polled(100.01, drained=True)  # the same answer, not a second one
    assert not subject.ready
    subject.polled(100.1, drained=True)
    assert [len(batch) for batch in subject.ready] == [1]


def test_a_poll_that_brought_something_starts_the_quiet_anew() -> None:
    subject = work()
    subject.add(single(0), 0.0)
    subject.polled(100.0, drained=True)
    subject.polled(100.1, drained=False)
    subject.polled(100.2, drained=True)
    assert not subject.ready
    subject.polled(100.3, drained=True)
    assert subject.ready


def test_a_batch_that_is_not_due_stays_open_however_quiet_it_is() -> None:
    subject = work()
    subject.add(single(0), 100.0)
    for now_s in (100.1, 100.2, 101.4):
        subject.polled(now_s, drained=True)
    assert not subject.ready
    subject.polled(101.6, drained=True)
    assert subject.ready


def test_under_pressure_the_oldest_open_batches_become_ready_first() -> None:
    subject = work()
    for offset, stream in enumerate(["a", "b", "b", "c"]):
        subject.add(single(offset, stream), float(offset))
    assert subject.gathering.close_oldest(2 * PIXELS) == 2
    assert [batch.stream_id for batch in subject.ready] == ["a", "b"]
    assert subject.gathering.close_oldest(10**9) == 1
    assert subject.gathering.close_oldest(10**9) == 0


def test_pixels_are_counted_while_they_wait_and_let_go_when_their_batch_is_done() -> None:
    subject = work()
    messages = [single(offset) for offset in range(4)]
    pixels = [weakref.ref(m.frames[0].image) for m in messages if m.frames[0].image is not None]
    for message in messages:
        subject.add(message, 0.0)
    del message
    messages.clear()
    assert subject.gathering.image_bytes == 4 * PIXELS
    finish(subject)
    assert subject.gathering.image_bytes == PIXELS
    gc.collect()
    assert [reference() is None for reference in pixels] == [True, True, True, False]
    assert all(batch.images.nbytes == 0 for batch, _, _ in subject.draft().accepted)


def test_rejected_frames_are_rows_at_once_and_count_no_bytes() -> None:
    subject = work()
    subject.add(decoded(a_frame(0, index=0, rejected=True), a_frame(0, index=1), is_batch=True), 5.0)
    assert (subject.rows, subject.since_s) == (1, 5.0)
    finish(subject, 9.0)
    assert (subject.rows, subject.since_s) == (2, 5.0)
    assert sorted(row_ids(subject.draft())) == [(0, 0), (0, 1)]
    assert subject.gathering.image_bytes == 0


def test_rows_and_their_age_begin_anew_after_a_commit() -> None:
    subject = work()
    subject.add(single(0, rejected=True), 5.0)
    subject.committed(head_of(subject.draft()))
    assert subject.rows == 0
    subject.add(single(1, rejected=True), 8.0)
    assert (subject.rows, subject.since_s) == (1, 8.0)


def test_a_segment_is_due_by_rows_or_by_age_and_never_without_rows() -> None:
    policy = FlushPolicy(max_rows=100, max_age_s=10.0)
    assert policy.due(100, 0.0)
    assert policy.due(1, 10.0)
    assert not policy.due(99, 9.9)
    assert not policy.due(0, 1e9)


def test_the_state_of_a_batch_of_a_new_stream_starts_at_the_initial_alpha() -> None:
    subject = work()
    subject.add(decoded(*[a_frame(0, "a", index=i) for i in range(5)], is_batch=True), 0.0)
    batch = subject.ready[0]
    assert torch.equal(batch.images[:, 0, 0, 0], torch.arange(5, dtype=torch.uint8))
    assert subject.state(batch).alpha_index == 10
