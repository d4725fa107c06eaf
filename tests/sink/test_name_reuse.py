"""Workers that wake up after their segment's name was deleted: whoever they are, nothing of theirs counts."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from adawise.output.compaction.delete import deletable, delete
from adawise.output.verify.root import verify
from adawise.ports import Head, SegmentDraft, ServedBy
from adawise.sink import chain as chain_module
from adawise.sink import layout
from adawise.sink.chain import FRESH_S, Instant, SegmentChain, is_fresh
from tests.output.compaction.building import Days, compacted, content
from tests.sink.building import CLASSES, IDENTITY, TP, DictStore, draft

SEGMENTS = 24
HOURS = 7_200.0
LATER = datetime(2026, 12, 1, tzinfo=UTC) + timedelta(hours=1)


class Zombie:
    """Knows the chain as it was after `segments` of `SEGMENTS`; then the rest came, and days of it were deleted.

    Args:
        segments: of several numbers it is as many, `all`, and first the first of them.
        store: an empty one.
    """

    def __init__(self, *segments: int, store: DictStore | None = None) -> None:
        self.store = store if store is not None else DictStore()
        self.now: Instant = (0.0, 0.0)
        self.days = Days(self.store)
        self.all: list[tuple[SegmentChain, Head]] = []
        before = 0
        for number in segments:
            self.days.commit(number - before)
            self.all.append(self.another())
            before = number
        self.days.commit(SEGMENTS - before)
        self.chain, self.head = self.all[0]

    def another(self) -> tuple[SegmentChain, Head]:
        """One that knows the chain as it is now."""
        chain = SegmentChain(
            store=self.store,
            by=ServedBy(CLASSES, "model", "config"),
            writer="zombie",
            instant=lambda: self.now,
        )
        return chain, chain.recover(TP, IDENTITY, 0)

    @property
    def draft(self) -> SegmentDraft:
        """More than the next worker's: it might go far beyond what is compacted."""
        return replace(draft(self.head.next_offset, self.head.next_offset + 40), pending=self.head.pending)

    def pass_hours(self) -> None:
        """By the clock that counts a standstill; the other one stands still too."""
        self.now = (self.now[0] + HOURS, self.now[1])

    def delete(self) -> int:
        compacted(self.store)
        gone = [key for some in deletable(self.store, TP, made_before=LATER) for key in delete(self.store, some)]
        return len(gone)

    def check_adopted(self, head: Head) -> None:
        assert head == self.days.head
        chain, recovered = self.another()
        assert recovered == head
        assert chain.commit(replace(draft(head.next_offset, head.next_offset + 4), pending=head.pending)).won


def test_a_zombie_adopts_the_head_and_writes_nothing_wherever_in_the_chain_it_stood_still() -> None:
    zombie = Zombie(*range(1, SEGMENTS, 2))
    assert zombie.delete() > 10
    before, keys = content(zombie.store), sorted(zombie.store.objects)
    zombie.pass_hours()
    for chain, head in zombie.all:
        zombie.head = head
        late = chain.commit(zombie.draft)
        assert not late.won
        assert late.head == zombie.days.head
    assert (content(zombie.store), sorted(zombie.store.objects)) == (before, keys)
    assert verify(zombie.store, contiguous=True) == []
    zombie.check_adopted(late.head)


def test_without_the_question_it_would_win_and_fork_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "is_fresh", lambda since, now: True)
    zombie = Zombie(3)
    zombie.delete()
    first = zombie.chain.commit(zombie.draft)
    assert first.won
    assert zombie.chain.commit(draft(first.head.next_offset, first.head.next_offset + 400, number=1)).won
    assert verify(zombie.store) != []


class Frozen(DictStore):
    """Stands still between the decision to create a segment and the request."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[str], None] | None = None

    def create(self, key: str, data: bytes) -> None:
        if self.meanwhile is not None and key.startswith(layout.PREDICTIONS):
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile(key)
        super().create(key, data)


@pytest.mark.parametrize(("segments", "is_free"), [(1, True), (3, True), (5, False), (11, False)])
def test_what_a_zombie_wrote_that_stood_still_just_before_its_request_counts_for_nobody(
    segments: int, is_free: bool
) -> None:
    store = Frozen()
    zombie = Zombie(segments, store=store)
    free: list[bool] = []

    def meanwhile(key: str) -> None:
        zombie.delete()
        zombie.pass_hours()
        free.append(key not in store.objects)

    store.meanwhile = meanwhile
    late = zombie.chain.commit(zombie.draft)
    assert not late.won
    assert free == [is_free]  # or it was the last one of a compacted file, which stays
    before = content(store)
    assert zombie.delete() == sum(free)
    assert content(store) == before
    assert verify(store, contiguous=True) == []
    zombie.check_adopted(late.head)


def test_a_zombie_that_finds_what_another_one_wrote_under_a_deleted_name_does_not_build_on_it() -> None:
    store = Frozen()
    zombie = Zombie(3, store=store)
    other = copy(zombie.chain)
    other._attempts, other._tips = {}, dict(other._tips)

    def meanwhile(key: str) -> None:
        zombie.delete()
        zombie.pass_hours()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chain_module, "is_fresh", lambda since, now: True)
            assert other.commit(zombie.draft).won
        assert key in store.objects

    store.meanwhile = meanwhile
    late = zombie.chain.commit(zombie.draft)
    assert not late.won
    zombie.check_adopted(late.head)


def test_the_question_is_asked_only_after_a_standstill_and_harms_nobody_who_was_merely_idle() -> None:
    listed: list[str] = []

    class Listing(DictStore):
        def list(self, prefix: str) -> list[str]:
            listed.append(prefix)
            return super().list(prefix)

    zombie = Zombie(SEGMENTS, store=Listing())
    compacted(zombie.store)
    listed.clear()
    zombie.head = zombie.chain.commit(zombie.draft).head
    assert listed == []
    zombie.pass_hours()
    idle = zombie.chain.commit(zombie.draft)
    assert idle.won
    assert set(listed) == {layout.retained_folder(TP), layout.compacted_folder(layout.PREDICTIONS, TP)}
    listed.clear()
    zombie.head = idle.head
    assert zombie.chain.commit(zombie.draft).won
    assert listed == []
    assert verify(zombie.store) == []


@pytest.mark.parametrize(
    ("now", "fresh"),
    [
        ((100.0, 10.0), True),
        ((100.0 + FRESH_S - 1, 10.0 + FRESH_S - 1), True),
        ((100.0 + FRESH_S, 10.0), False),
        ((100.0, 10.0 + FRESH_S), False),
        ((99.0, 20.0), False),
    ],
)
def test_a_moment_is_fresh_if_no_clock_says_otherwise(now: Instant, fresh: bool) -> None:
    assert is_fresh((100.0, 10.0), now) is fresh


def test_the_clocks_go_on_and_the_bound_is_far_below_the_hour_after_which_compact_deletes() -> None:
    first = chain_module.instant()
    assert is_fresh(first, chain_module.instant())
    assert FRESH_S <= 1_800.0
