from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.errors import ChainError
from adawise.output.compaction.compact import FAILPOINTS, choose_plan, claim_plan, planned
from adawise.output.compaction.delete import FAILPOINTS as DELETE_POINTS
from adawise.output.compaction.delete import deletable, delete
from adawise.output.compaction.retain import removal, remove
from adawise.output.verify.root import verify
from adawise.records import Frame
from adawise.sink import layout, segment
from adawise.sink.files import compacted_names, data_keys, segment_names
from adawise.store.store import LocalStore, Store
from tests.dying import exit_code
from tests.output.compaction.building import LIMITS, Days, compacted, content, found
from tests.sink.building import IDENTITY, TP, DictStore, Served, open_chain, served


def faults(store: Store) -> list[str]:
    return [str(fault) for fault in verify(store, contiguous=True)]


@pytest.fixture
def store() -> DictStore:
    return DictStore()


@pytest.mark.parametrize("seed", range(3))
def test_readers_find_the_same_rows_and_batches_before_and_after(store: DictStore, seed: int) -> None:
    Days(store, seed).commit(20)
    before, segments = content(store), dict(store.objects)
    made = compacted(store)
    assert len(made) == 4
    assert content(store) == before
    assert len(data_keys(store)) == len(made) + 1 == len(data_keys(store, layout.TRACES))
    assert segments.items() <= store.objects.items()  # the chain is as it was
    assert faults(store) == []


@pytest.mark.parametrize("values", [(True, False), (True, None), (None, None), (False, False)])
def test_batches_with_what_is_true_false_or_unknown_are_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: tuple[bool | None, ...]
) -> None:
    def known(frames: Sequence[Frame], *, number: int = 0, alpha: float = 0.35) -> Served:
        batch, predictions, trace = served(frames, number=number, alpha=alpha)
        value = values[number % 2]
        return batch, predictions, replace(trace, condition=number, returned=value, alarm=value)

    monkeypatch.setattr("tests.output.compaction.building.served", known)
    store = LocalStore(tmp_path)  # of a `DictStore` the chains of other tests are copied
    Days(store).commit(20)
    before = content(store)
    assert len(compacted(store)) == 4
    assert content(store) == before
    assert faults(store) == []


def test_a_file_holds_the_segments_of_one_day_and_the_head_is_left(store: DictStore) -> None:
    days = Days(store)
    days.commit(16)
    made = compacted(store)
    assert [str(m.name)[:10] for m in made] == ["2026-11-21", "2026-11-22", "2026-11-23"]
    assert made[-1].name.until == segment_names(store, TP)[-1]
    footers = [segment.read_footer(store.objects[key], key) for key in data_keys(store) if key.startswith("pred")]
    assert {footer.created_at[:10] for footer in footers} == {"2026-11-23"}  # its last is the head, whose day may go on


def test_days_that_are_not_over_are_left(store: DictStore) -> None:
    Days(store).commit(20)
    made = compacted(store, replace(LIMITS, before=date(2026, 11, 22)))
    assert [str(m.name)[:10] for m in made] == ["2026-11-21"]
    assert compacted(store, replace(LIMITS, before=date(2026, 11, 21))) == []


def test_rows_are_sorted_by_stream_and_time_in_row_groups_that_say_so(
    store: DictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adawise.output.compaction.merged.ROW_GROUP", 8)
    Days(store).commit(16)
    compacted(store)
    (key, *_) = data_keys(store)
    file = pq.ParquetFile(pa.BufferReader(store.objects[key]))
    rows = file.read().to_pylist()
    assert rows == sorted(rows, key=lambda r: (r["stream_id"] or "~", r["kafka_timestamp"], r["offset"], r["index"]))
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    assert max(group.num_rows for group in groups) == 8
    assert [column.column_index for column in groups[0].sorting_columns][:2] == [5, 8]
    assert all(group.column(5).statistics.has_min_max for group in groups if group.column(5).statistics.num_values)


def test_a_file_has_no_more_rows_than_allowed_unless_one_segment_has(store: DictStore) -> None:
    Days(store).commit(16)
    before = content(store)
    made = compacted(store, replace(LIMITS, max_rows=12))
    assert all(m.rows <= 12 or m.segments == 1 for m in made)
    assert any(m.segments > 1 for m in made)
    assert content(store) == before


def test_a_second_compaction_finds_nothing_to_do_and_a_later_one_goes_on(store: DictStore) -> None:
    days = Days(store)
    days.commit(20)
    first = compacted(store)
    objects = dict(store.objects)
    assert compacted(store) == []
    assert store.objects == objects
    days.commit(20)
    before = content(store)
    assert compacted(store)[0].name.first == first[-1].name.until
    assert content(store) == before
    assert faults(store) == []


def test_what_would_be_done_is_what_is_done(store: DictStore) -> None:
    Days(store).commit(16)
    objects = dict(store.objects)
    expected = list(planned(store, TP, LIMITS))
    assert store.objects == objects
    assert [(p.name, p.segments, p.rows) for p in expected] == [(m.name, m.segments, m.rows) for m in compacted(store)]


def test_a_worker_recovers_and_commits_as_if_nothing_had_been_compacted(store: DictStore) -> None:
    days = Days(store)
    days.commit(20)
    compacted(store)
    recovered = open_chain(store).recover(TP, IDENTITY, 0)
    assert recovered == days.head
    days.commit(1)


def test_a_compaction_that_sees_other_limits_makes_the_file_that_was_planned(store: DictStore) -> None:
    Days(store).commit(16)
    before = content(store)
    first_plan = next(planned(store, TP, LIMITS))

    class Dies(Exception):
        pass

    def die(point: str) -> None:
        raise Dies(point)

    with pytest.raises(Dies, match=r"compact\.planned"):
        compacted(store, at=die)
    made = compacted(store, replace(LIMITS, max_rows=12))
    assert made[0].name == first_plan.name
    assert content(store) == before


def test_a_segment_that_is_missing_or_damaged_stops_it_before_anything_is_made(store: DictStore) -> None:
    days = Days(store)
    days.commit(20)
    names = segment_names(store, TP)
    key = layout.segment_key(TP, names[2])
    kept = store.objects.pop(key)
    for harm, expected in [(None, "expected the chain to go on with"), (kept[:-9], "readable Parquet file")]:
        if harm is not None:
            store.objects[key] = harm
        with pytest.raises(ChainError, match=expected):
            compacted(store)
        assert compacted_names(store, layout.PREDICTIONS, TP) == []
    store.objects[key] = kept
    del store.objects[layout.segment_key(TP, names[0])]
    for name in list(store.objects):
        if "/plans/" in name:
            del store.objects[name]
    with pytest.raises(ChainError, match=r"00000000000000000000\.parquet: expected the chain to go on here"):
        compacted(store)


def test_a_segment_whose_rows_are_not_all_there_is_not_compacted(store: DictStore) -> None:
    Days(store).commit(8)
    key = layout.segment_key(TP, segment_names(store, TP)[1])
    data = store.objects[key]
    rows, footer = segment.read_rows(data, key), segment.read_footer(data, key)
    assert rows.num_rows > 1
    store.objects[key] = segment.encode(rows.slice(0, rows.num_rows - 1), footer)
    with pytest.raises(ChainError, match=rf"{key}: .*see `adawise verify`"):
        compacted(store)
    assert compacted_names(store, layout.PREDICTIONS, TP) == []


class Racing(DictStore):
    """Another compaction does the same work whenever this one is about to create the file `at`."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at
        self.rounds = 0

    def create(self, key: str, data: bytes) -> None:
        if key.startswith(self._at) and not self.rounds:
            self.rounds += 1
            compacted(self, replace(LIMITS, max_rows=12))
        super().create(key, data)


@pytest.mark.parametrize("place", ["compacted/plans", "compacted/predictions", "compacted/traces"])
def test_of_two_compactions_at_once_one_makes_the_file_and_the_other_leaves_nothing(place: str) -> None:
    store = Racing(place)
    Days(store).commit(16)
    before = content(store)
    compacted(store)
    assert store.rounds == 1
    assert content(store) == before
    assert faults(store) == []
    made = [compacted_names(store, dataset, TP) for dataset in (layout.PREDICTIONS, layout.TRACES)]
    assert made[0] == made[1]
    assert len([key for key in store.objects if "/plans/" in key]) == len(made[0])


class Late(DictStore):
    """The segments of `late` are committed while the first listing of a partition is under way."""

    late: Sequence[str] = ()

    def list(self, prefix: str) -> list[str]:
        found = super().list(prefix)
        if prefix.startswith(layout.PREDICTIONS):
            found, self.late = [key for key in found if key not in self.late], ()
        return found


def test_a_compaction_that_listed_before_the_one_that_planned_lists_again() -> None:
    store = Late()
    Days(store).commit(8)
    names = segment_names(store, TP)
    plan = choose_plan(store, TP, names, LIMITS)
    assert plan is not None
    claim_plan(store, TP, plan)
    inside = [name for name in names if name < plan.name.until]
    before = content(store)
    store.late = [layout.segment_key(TP, name) for name in names if name >= inside[-1]]
    first, *_ = compacted(store)
    assert (first.name, first.segments) == (plan.name, len(inside))
    assert content(store) == before
    assert faults(store) == []


def test_a_compaction_that_lists_again_behind_a_retention_begins_behind_it() -> None:
    class Raced(Late):
        """Another compaction, which lists later, plans first; then retention removes what both planned."""

        claims: Callable[[], object]
        removes: Callable[[], object]
        raced: Sequence[str] = ()

        def create(self, key: str, data: bytes) -> None:
            if "/plans/" in key and not self.raced:
                self.raced = ["claimed"]
                self.claims()
            super().create(key, data)

        def get(self, key: str) -> bytes | None:
            data = super().get(key)
            if "/plans/" in key and self.raced == ["claimed"] and data is not None:
                self.raced = ["claimed", "removed"]
                self.removes()
            return data

    store = Raced()
    Days(store).commit(24)
    names = segment_names(store, TP)
    plan = choose_plan(store, TP, names, LIMITS)
    assert plan is not None
    inside = [name for name in names if name < plan.name.until]
    store.late = [layout.segment_key(TP, name) for name in names if name >= inside[-1]]
    store.claims = lambda: claim_plan(store, TP, plan)
    later = datetime.now(UTC) + timedelta(days=30)

    def cut() -> None:
        removed = removal(store, TP, before=LIMITS.before, now=later)
        assert removed is not None
        assert [*remove(store, removed)]

    store.removes = cut
    made = compacted(store)
    assert store.raced == ["claimed", "removed"]
    assert made
    assert made[0].name.first > plan.name.until
    assert faults(store) == []


def test_readers_beside_workers_and_compactions_find_each_row_once_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of them would only wait for the disk
    store = LocalStore(tmp_path)
    days = Days(store, step=timedelta(hours=6))
    days.commit(4)
    stop = threading.Event()
    seen: list[int] = []

    def check() -> None:
        while not stop.is_set() or not seen:
            offsets = found(store, layout.PREDICTIONS).select(["offset", "index"]).to_pylist()
            keys = [(row["offset"], row["index"]) for row in offsets]
            assert len(keys) == len(set(keys))
            seen.append(len(keys))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(check)
        try:
            for _ in range(5):
                days.commit(4)
                compacted(store)
        finally:
            stop.set()
        reader.result()
    assert seen == sorted(seen)  # no row was ever away
    assert compacted_names(store, layout.PREDICTIONS, TP)


def work_and_die(root: Path, fatal: str, time: int) -> None:
    """Compact, delete, and be killed where that failpoint is passed for the nth time."""
    passed = 0

    def at(point: str) -> None:
        nonlocal passed
        passed += point == fatal
        if passed == time:
            os.kill(os.getpid(), signal.SIGKILL)

    store = LocalStore(root, failpoint=at)
    compacted(store, at=at)
    for covered in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC)):
        list(delete(store, covered, failpoint=at))


# For each compacted file the store makes three: the plan, the rows, the batches; 4 to 6 are those of the second one.
DEATHS = ["compact.traces_deleted-1", *(f"{point}-2" for point in (*FAILPOINTS, *DELETE_POINTS))]
DEATHS += ["claim.linked-4", "claim.temp_written-5", "claim.linked-5", "claim.temp_written-6"]
SEGMENTS, STEP = 7, timedelta(hours=10)  # two days, and the one that is going on


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root for each death, whose compaction was killed there."""
    root, whole = tmp_path_factory.mktemp("killed"), DictStore()
    Days(whole, step=STEP).commit(SEGMENTS)
    for death in DEATHS:
        for key, data in whole.objects.items():
            (root / death / key).parent.mkdir(parents=True, exist_ok=True)
            (root / death / key).write_bytes(data)
        fatal, _, time = death.partition("-")
        assert exit_code(work_and_die, root / death, fatal, int(time)) == -signal.SIGKILL, death
    return root


@pytest.fixture(scope="module")
def peace() -> tuple[DictStore, dict[str, str]]:
    """The same root, compacted in peace, and what readers found in it before."""
    store = DictStore()
    Days(store, step=STEP).commit(SEGMENTS)
    before = content(store)
    compacted(store)
    return store, before


@pytest.mark.parametrize("death", DEATHS)
def test_a_compaction_that_is_killed_leaves_a_root_that_reads_right_and_the_next_one_finishes_it(
    death: str, victims: Path, peace: tuple[DictStore, dict[str, str]]
) -> None:
    store: Store = LocalStore(victims / death)
    undisturbed, before = peace
    assert content(store) == before
    assert faults(store) == []
    compacted(store)
    assert content(store) == before
    assert all(data_keys(store, dataset) == data_keys(undisturbed, dataset) for dataset in before)
    assert faults(store) == []
