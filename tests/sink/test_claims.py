"""The claims of retention are read once, several at a time, and again after a while; damaged ones are named once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import structlog
from typing_extensions import override

from adawise.errors import StoreUnavailable
from adawise.records import TopicPartition
from adawise.sink import claims, layout
from adawise.sink.claims import Beginning, beginnings
from adawise.sink.layout import SegmentName
from tests.sink.building import DictStore

TPS = [TopicPartition("frames", number) for number in range(20)]
NAME = SegmentName(8)
KEYS = [layout.retained_key(tp, NAME) for tp in TPS]


class Clock:
    """Turned by the test."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


class Counting(DictStore):
    """Twenty partitions that retention has cut, and how often each key was read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = Counter[str]()
        for tp, key in zip(TPS, KEYS, strict=True):
            before = layout.segment_key(tp, SegmentName(0))
            claim = Beginning(
                layout=claims.LAYOUT,
                previous=before,
                pending=(),
                lineage="",
                rows=8,
                files=2,
                size_bytes=100,
                until_day="2026-01-01",
                removed_at="2026-02-01T00:00:00+00:00",
            )
            self.objects[key] = claim.model_dump_json().encode()

    @override
    def get(self, key: str) -> bytes | None:
        self.reads[key] += 1
        return super().get(key)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(claims, "time", found := Clock())
    monkeypatch.setattr(claims, "_checked", {})
    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    return found


def test_a_claim_is_read_once_in_ten_minutes(clock: Clock) -> None:
    store, once = Counting(), Counter(KEYS)
    for _ in range(2):
        assert beginnings(store) == dict.fromkeys(TPS, NAME)
        assert store.reads == once
        clock.now_s += 599.0
    assert beginnings(store) == dict.fromkeys(TPS, NAME)
    assert store.reads == once + once


def test_a_claim_that_is_damaged_later_is_named_once_through_the_same_store(clock: Clock) -> None:
    store = Counting()
    beginnings(store)
    store.objects[KEYS[3]] = b"garbage"
    clock.now_s += 600.0
    with pytest.warns(UserWarning, match="expected a claim") as named:
        assert beginnings(store) == dict.fromkeys(TPS, NAME)
    clock.now_s += 600.0
    assert beginnings(store) == dict.fromkeys(TPS, NAME), "a warning would be an error here"
    assert [KEYS[3] in str(warning.message) for warning in named] == [True]


def test_a_claim_that_is_gone_when_it_is_read_counts_and_is_read_at_the_next_listing(clock: Clock) -> None:
    class Vanishing(Counting):
        @override
        def get(self, key: str) -> bytes | None:
            data = super().get(key)
            return None if key == KEYS[3] and self.reads[key] == 1 else data

    store = Vanishing()
    store.objects[KEYS[3]] = b"garbage"
    assert beginnings(store) == dict.fromkeys(TPS, NAME)
    with pytest.warns(UserWarning, match="expected a claim"):
        assert beginnings(store) == dict.fromkeys(TPS, NAME)
    assert store.reads == Counter(KEYS) + Counter(KEYS[3:4])


def test_claims_are_read_several_at_a_time(clock: Clock) -> None:
    together = Barrier(10, timeout=20.0)  # breaks if one is read after the other

    class Slow(Counting):
        @override
        def get(self, key: str) -> bytes | None:
            together.wait()
            return super().get(key)

    store = Slow()
    assert beginnings(store) == dict.fromkeys(TPS, NAME)
    assert not together.broken


def test_a_store_that_does_not_answer_is_asked_for_no_more_claims(clock: Clock) -> None:
    class Away(Counting):
        barrier = Barrier(16)

        @override
        def get(self, key: str) -> bytes | None:
            super().get(key)
            self.barrier.wait(60.0)  # sixteen are under way when the first fails
            raise StoreUnavailable("no answer")

    store = Away()
    with pytest.raises(StoreUnavailable):
        beginnings(store)
    assert store.reads.total() == 16


def test_threads_that_list_at_once_name_a_damaged_claim_once(clock: Clock) -> None:
    store = Counting()
    store.objects[KEYS[3]] = b"garbage"
    with pytest.warns(UserWarning, match="expected a claim") as named, ThreadPoolExecutor(6) as pool:
        assert [*pool.map(beginnings, [store] * 6)] == [dict.fromkeys(TPS, NAME)] * 6
    assert len(named) == 1
    assert store.reads == Counter(KEYS)
