from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor
from typing_extensions import override

from adawise.pairs.shadow import ShadowRun
from adawise.pairs.shadow_sums import sum_shadow
from adawise.sink import layout
from adawise.store.store import Store
from adawise.worker.adaptation import Adaptation
from adawise.worker.events import PairsProgress
from adawise.worker.pairs import ServedBatch, Serving
from adawise.worker.partition import FlushPolicy
from tests.damage.hostile_parquet import nested_columns
from tests.pairs.test_switching import MESSAGES, NEW, OLD, TargetPairs, run
from tests.sink.building import DictStore
from tests.sink.footers import read_segment_footers
from tests.worker.loop import Bench, FakeClassifier

SAME = Serving(OLD.adaptation, replace(OLD.by, pair="same"))


class Shadowed(TargetPairs):
    """`OLD` serves, and a staged pair shadows it whenever nothing else is to do."""

    def __init__(self, staged: Serving, *, batches: int = 1_000, keeps: bool = False, idles: bool = True) -> None:
        super().__init__(OLD)
        self.now_s, self.idles = 0.0, idles
        self.run = ShadowRun(staged, keeps=keeps, batches=batches, share=0.5, clock=self._clock)

    def _clock(self) -> float:
        self.now_s += 1.0
        return self.now_s

    @override
    def served(self, served: ServedBatch) -> None:
        self.run.offer(served)

    @override
    def progress(self) -> PairsProgress:
        return PairsProgress({"1": ("ready", "")}, self.run.images, self.run.agreed, self.run.late)

    @property
    @override
    def has_work(self) -> bool:
        return self.run.has_work

    @override
    def idle(self) -> bool:
        if self.idles:
            self.run.run()
        return self.run.has_work


SELDOM: dict[str, Any] = {"polls": 3, "flush": FlushPolicy(60, 1_000.0)}  # idle moments between two segments


def shadowed(pairs: Shadowed, store: Store | None = None) -> Bench:
    return run(pairs, store, **SELDOM)


def without_shadow(rows: list[dict[str, object]]) -> str:
    return repr([{name: value for name, value in row.items() if not name.startswith("shadow_")} for row in rows])


def test_a_shadow_is_in_the_traces_and_changes_nothing_that_is_served() -> None:
    pairs, alone = Shadowed(NEW), run(TargetPairs(OLD), **SELDOM)
    bench = shadowed(pairs)
    assert bench.table.equals(alone.table)
    assert without_shadow(bench.traces) == without_shadow(alone.traces)
    seen = [row for row in bench.traces if row["shadow_pair"] is not None]
    assert len(seen) == pairs.run.done > 5
    assert {row["shadow_pair"] for row in seen} == {"new"}
    assert all(row["shadow_agreement"] == 0.0 for row in seen)  # its classes are others


def test_the_shadow_of_the_same_models_agrees_and_is_summed_over_the_root() -> None:
    bench = shadowed(Shadowed(SAME))
    sums = sum_shadow(bench.store, "same")
    assert sums.batches == len([row for row in bench.traces if row["shadow_pair"] == "same"])
    assert sums.agreement > 0.5  # it does not see every batch, and may stand at another alpha
    assert {name for name, _, _ in sums.streams} == {"north", "south", "east"}
    assert sum_shadow(bench.store, "new").batches == 0


def no_utf_8(path: Path) -> None:
    """The names of streams."""
    rows = pq.read_table(path)
    place = rows.schema.get_field_index("stream_id")
    names = pa.array([b"\xff"] * len(rows)).cast(pa.string(), safe=False)
    pq.write_table(rows.set_column(place, rows.schema.field(place), names), path)


@pytest.mark.parametrize("damage", [nested_columns, no_utf_8])
def test_traces_of_other_types_are_left_out_and_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = shadowed(Shadowed(SAME)).store
    keys = store.list(layout.TRACES)
    for key in keys:
        (path := tmp_path / "traces.parquet").write_bytes(store.get(key) or b"")
        damage(path)
        store.delete(key)
        store.create(key, path.read_bytes())
    found = sum_shadow(store, "same")
    assert found.batches == 0
    assert len(found.damaged) == len(keys)
    assert all(key in text for key, text in zip(reversed(keys), found.damaged, strict=True))


def test_only_so_many_batches_of_a_partition_are_tried() -> None:
    bench = shadowed(Shadowed(NEW, batches=4))
    assert len([row for row in bench.traces if row["shadow_pair"] is not None]) == 4


def test_a_shadow_that_never_gets_to_its_turn_is_late_and_the_segments_do_not_wait() -> None:
    pairs = Shadowed(NEW, idles=False)
    bench = shadowed(pairs)
    bench.check_against(MESSAGES)
    assert all(row["shadow_pair"] is None for row in bench.traces)


def test_a_shadow_takes_its_share_of_the_time_while_images_wait() -> None:
    pairs = Shadowed(NEW, idles=False)
    taken: list[float] = []
    real = pairs.run.run

    def counted() -> None:
        taken.append(pairs.now_s)
        real()

    pairs.run.run = counted  # type: ignore[method-assign]
    pairs.turn = pairs.run.turn  # type: ignore[method-assign]
    run(pairs, **SELDOM)
    assert len(taken) > 2
    assert all(after - before >= 2.0 for before, after in pairwise(taken))  # half of the time, a second each


def test_a_shadow_that_fails_is_given_up_and_serving_is_not_touched() -> None:
    class Broken(FakeClassifier):
        def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
            raise RuntimeError("of a card")

    staged = Serving(Adaptation(OLD.adaptation.strategy, Broken(), OLD.adaptation.temperatures, 2), NEW.by)
    pairs = Shadowed(staged)
    bench = shadowed(pairs)
    bench.check_against(MESSAGES)
    assert pairs.run.failed == "RuntimeError: of a card"
    assert not pairs.run.has_work


def test_a_shadow_that_is_too_slow_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.pairs.shadow._LEAST_OFFERED", 10)
    pairs = Shadowed(NEW, idles=False)
    shadowed(pairs)
    assert pairs.run.failed.startswith("too slow: it classified 0 of 10 served batches")


def test_what_a_shadow_of_an_earlier_segment_found_is_never_written_to_a_later_one() -> None:
    store = DictStore()
    pairs = Shadowed(NEW)
    shadowed(pairs, store)
    for _, footer in read_segment_footers(store):
        for row in footer.trace.to_pylist():
            assert (row["shadow_pair"] is None) == (row["shadow_agreement"] is None)
