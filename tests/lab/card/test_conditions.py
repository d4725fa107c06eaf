"""Labelled rows by condition: as the traces number them, or by the day of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from adawise.records import RowId
from adawise.sink import schemas
from adawise_lab.card.late_labels import labelled_rows
from tests.drift.answers import BEGIN_US, World, labels_csv, write

CLASSES = ("bus", "car", "dog")
WORLD = World(batches=4, images=2, cameras=2)
DAY_US = 86_400_000_000


def traces(conditions: Sequence[int | None], **columns: Any) -> pa.Table:
    """Of each batch of each camera its condition."""
    n = WORLD.batches * WORLD.cameras
    batch = [i % WORLD.batches for i in range(n)]
    fields: dict[str, Any] = {
        "topic": ["frames"] * n,
        "partition": [i // WORLD.batches for i in range(n)],
        "stream_id": [f"camera-{i // WORLD.batches}" for i in range(n)],
        "batch_number": batch,
        "first_offset": [2 * b for b in batch],
        "last_offset": [2 * b + 1 for b in batch],
        "condition": [*conditions, *conditions],
        **columns,
    }
    arrays = [pa.array(fields.get(f.name, [None] * n), f.type) for f in schemas.TRACES]
    return pa.table(arrays, names=[f.name for f in schemas.TRACES])


def found(root: Path, offsets: Sequence[int], name: str = "car") -> dict[str, list[tuple[int, int]]]:
    """Condition -> (partition, offset) of both cameras' labelled rows."""
    rows = [{"row_id": f"frames/{c}/{n}/0", "label": name} for c in (0, 1) for n in offsets]
    made = labelled_rows(str(root), CLASSES, file=str(labels_csv(root / "labels.csv", rows)))
    by_condition: dict[str, list[tuple[int, int]]] = {}
    for one in made.rows:
        assert one.batch in (one.row_id.offset // WORLD.images, one.row_id.offset // WORLD.images * WORLD.images)
        by_condition.setdefault(one.condition, []).append((one.row_id.partition, one.row_id.offset))
    return by_condition


def test_rows_are_of_the_condition_of_their_batch(tmp_path: Path) -> None:
    root = write(tmp_path, WORLD.table(), traces([0, 0, 1, 0]))
    assert found(root, [0, 3, 4, 7]) == {
        "camera-0, condition 0": [(0, 0), (0, 3), (0, 7)],
        "camera-0, condition 1": [(0, 4)],
        "camera-1, condition 0": [(1, 0), (1, 3), (1, 7)],
        "camera-1, condition 1": [(1, 4)],
    }


def test_batches_of_one_number_are_two_where_the_stream_began_anew_between_them(tmp_path: Path) -> None:
    """As after `pair switch`: their images are of two scenes, and count as two batches of the condition."""
    table = WORLD.table(batch_number=[n % 8 // 2 % 2 for n in range(WORLD.rows)])
    root = write(tmp_path, table, traces([0] * 4, batch_number=[0, 1, 0, 1] * 2))
    file = labels_csv(tmp_path / "labels.csv", [{"row_id": f"frames/0/{n}/0", "label": "car"} for n in (0, 1, 4, 7)])
    made = labelled_rows(str(root), CLASSES, file=str(file))
    assert {row.condition for row in made.rows} == {"camera-0, condition 0"}
    first, same, anew, last = (row.batch for row in made.rows)
    assert first == same
    assert len({first, anew, last}) == 3


def test_where_no_condition_was_told_a_day_stands_for_it(tmp_path: Path) -> None:
    """Also where the batch has no trace (any more), or another batch has its number now."""
    at = [BEGIN_US + (n % 8) // 4 * DAY_US for n in range(WORLD.rows)]
    table = WORLD.table(captured_at=at)
    by_day = {
        "camera-0, 2026-06-01": [(0, 0), (0, 3)],
        "camera-0, 2026-06-02": [(0, 4)],
        "camera-1, 2026-06-01": [(1, 0), (1, 3)],
        "camera-1, 2026-06-02": [(1, 4)],
    }
    for name, expected in {
        "null": traces([None] * 4),
        "none": traces([0] * 4).slice(0, 0),
        "elsewhere": traces([3] * 4, first_offset=[100] * 8, last_offset=[200] * 8),
    }.items():
        assert found(write(tmp_path / name, table, expected), [0, 3, 4]) == by_day, name


def test_a_row_of_two_traces_counts_once_and_a_class_that_nobody_serves_not_at_all(tmp_path: Path) -> None:
    twice = pa.concat_tables([traces([0] * 4), traces([0] * 4)])
    root = write(tmp_path, WORLD.table(), twice)
    assert found(root, [0]) == {"camera-0, condition 0": [(0, 0)], "camera-1, condition 0": [(1, 0)]}
    assert found(root, [0], "zeppelin") == {}


def test_rows_are_in_order_with_their_truths_and_the_source_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, WORLD.table(), traces([0, 1, 2, 3]))
    file = labels_csv(tmp_path / "labels.csv", [{"row_id": f"frames/0/{n}/0", "label": "dog"} for n in (0, 2)])
    made = labelled_rows(str(root), CLASSES, file=str(file))
    assert [(row.row_id, row.truth) for row in made.rows] == [(RowId("frames", 0, n, 0), "dog") for n in (0, 2)]
    assert made.source == str(file)
