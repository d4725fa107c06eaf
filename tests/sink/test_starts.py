from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from adawise.errors import SettingsError, StoreUnavailable
from adawise.records import TopicPartition
from adawise.sink.starts import DEATHS, StoredStarts, open_marks
from adawise.store.store import LocalStore
from tests.sink.building import DictStore

TP = TopicPartition("frames", 0)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def start(store: Any, name: str, clock: Clock | None = None) -> StoredStarts:
    return StoredStarts(store, name, clock or Clock())


def die(store: DictStore, name: str, low_water: int, read: int) -> int:
    """A worker that reads up to an offset and is killed; what it was told."""
    dying = start(store, name)
    found = dying.begin(TP, low_water)
    dying.reads(TP, read)
    return found


def test_after_so_many_deaths_what_they_may_have_read_is_to_be_decoded_apart() -> None:
    store = DictStore()
    assert [die(store, f"w{n}", 10, 10 + n) for n in range(DEATHS)] == [0] * DEATHS
    assert start(store, "careful").begin(TP, 10) == 10 + DEATHS - 1 + 1_024
    assert start(store, "other").begin(TopicPartition("frames", 1), 0) == 0


def test_a_worker_that_read_nothing_leaves_no_mark() -> None:
    store = DictStore()
    start(store, "idle").begin(TP, 10)
    assert store.objects == {}


def test_marks_end_once_everything_before_their_end_is_in_rows() -> None:
    store = DictStore()
    for n in range(DEATHS):
        die(store, f"w{n}", 10, 10)
    assert start(store, "a").begin(TP, 1_033) == 1_034
    assert start(store, "b").begin(TP, 1_034) == 0
    assert store.objects == {}


def test_who_ends_in_order_or_lets_the_partition_go_is_not_counted() -> None:
    store = DictStore()
    worker = start(store, "w")
    for _ in range(2 * DEATHS):
        assert worker.begin(TP, 0) == 0
        worker.reads(TP, 5)
        worker.end(TP)
    worker.begin(TP, 0)
    worker.reads(TP, 5)
    assert len(store.objects) == 1
    worker.close()
    assert store.objects == {}


def test_a_mark_is_raised_before_more_is_read_and_seldom() -> None:
    store = DictStore()
    worker = start(store, "w")
    worker.begin(TP, 0)
    written = []
    for offset in range(100_000):
        worker.reads(TP, offset)
        [data] = store.objects.values()
        until = json.loads(data)["until"]
        assert offset < until <= offset + 16_384
        if until not in written:
            written.append(until)
    assert len(written) <= 11


def test_a_store_that_is_away_holds_nobody_up_and_is_asked_again_later() -> None:
    store, clock = DictStore(), Clock()
    worker = start(store, "w", clock)
    worker.begin(TP, 0)
    store.refuse = ["before put"]
    worker.reads(TP, 0)
    worker.reads(TP, 1)
    assert store.objects == {}
    clock.now_s = 31.0
    worker.reads(TP, 2)
    assert len(store.objects) == 1


class NoDelete(DictStore):
    """May write, and not delete."""

    def delete(self, key: str) -> None:
        raise SettingsError("403")


def test_where_nothing_may_be_deleted_an_ordered_end_is_not_taken_for_a_death() -> None:
    store = NoDelete()
    for n in range(2 * DEATHS):
        worker = start(store, f"w{n}")
        assert worker.begin(TP, 0) == 0
        worker.reads(TP, 0)
        worker.close()


def test_a_mark_that_cannot_be_read_counts_as_none_and_is_kept() -> None:
    store = DictStore()
    unread = [b"", b"[]", b"{}", b'{"until": null}', b'{"until": "x"}', b'{"until": 1e999}', b"[" * 9_999]
    unread += [b'{"until": true}', b'{"until": -1}', b'{"until": 9.5}', b'{"until": 1%s}' % (b"0" * 400)]
    for n, data in enumerate(unread):
        store.objects[f"_starts/topic-frames/partition-00000/w{n}.json"] = data
    assert start(store, "w").begin(TP, 0) == 0
    assert open_marks(store, TP, 0) == 0
    assert [*store.objects.values()] == unread


def test_a_mark_of_a_later_layout_is_kept() -> None:
    store = DictStore()
    store.objects["_starts/topic-frames/partition-00000/w.json"] = b'{"layout": 2, "until": 1}'
    assert start(store, "v").begin(TP, 9) == 0
    assert len(store.objects) == 1


@pytest.mark.parametrize("made", ["pipe", "link"])
def test_a_mark_that_cannot_be_opened_counts_as_none_and_holds_nothing_up(made: str, tmp_path: Path) -> None:
    mark = tmp_path / "_starts/topic-frames/partition-00000/w.json"
    mark.parent.mkdir(parents=True)
    if made == "pipe":
        os.mkfifo(mark)
    else:
        mark.symlink_to(mark)
    store = LocalStore(tmp_path)
    assert start(store, "v").begin(TP, 9) == 0
    assert os.path.lexists(mark)


def test_a_store_that_does_not_answer_when_a_partition_comes_is_waited_for() -> None:
    class Away(DictStore):
        def list(self, prefix: str) -> list[str]:
            raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        start(Away(), "w").begin(TP, 0)
