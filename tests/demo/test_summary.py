"""What counts as whole, and how accuracies are counted."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from adawise.demo.report import ConditionScore, missing, scores
from adawise.demo.script import scripts

CAMERAS = scripts(8)


def row(partition: int, offset: int, **changes: Any) -> dict[str, Any]:
    return {
        "partition": partition,
        "offset": offset,
        "frame_id": CAMERAS[partition].frame_id(offset),
        "status": "accepted",
        "label": "car",
        "true_label": "car",
        "meta": [("condition", "clear")],
        "alpha": 0.5,
    } | changes


def rows(*changed: dict[str, Any]) -> pa.Table:
    schema = pa.schema(
        {
            "partition": pa.int32(),
            "offset": pa.int64(),
            "frame_id": pa.string(),
            "status": pa.string(),
            "label": pa.string(),
            "true_label": pa.string(),
            "meta": pa.map_(pa.string(), pa.string()),
            "alpha": pa.float64(),
        }
    )
    return pa.Table.from_pylist(list(changed), schema=schema)


ALL = [row(partition, offset) for partition in range(4) for offset in range(2)]


def test_rows_that_are_the_acknowledged_images_are_whole() -> None:
    assert missing(rows(*ALL), CAMERAS, [2, 2, 2, 2]) == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (ALL[1:], "1 images are not in the output, the first is market-000000"),
        ([*ALL, ALL[3]], "1 rows are there more than once"),
        ([*ALL[:-1], row(3, 1, frame_id="someone else's")], "1 rows are of images that were not sent"),
        ([*ALL[:-1], row(3, 1, status="rejected")], "1 images were rejected"),
    ],
)
def test_a_lost_a_doubled_a_foreign_and_a_rejected_image_are_found(table: list[dict[str, Any]], words: str) -> None:
    problems = missing(rows(*table), CAMERAS, [2, 2, 2, 2])
    assert any(words in problem for problem in problems)


def test_accuracy_is_counted_for_each_condition_and_for_all() -> None:
    night = [("condition", "night")]
    table = rows(
        row(0, 0, label="dog", alpha=0.0), row(0, 1, alpha=0.5), row(1, 0, meta=night, alpha=1.0), row(1, 1, meta=night)
    )
    fixed = {
        (0, 0): ("car", "dog", "dog"),
        (0, 1): ("car", "car", "dog"),
        (1, 0): ("dog", "car", "car"),
        (1, 1): ("dog", "car", "dog"),
    }
    assert scores(table, fixed) == [
        ConditionScore("clear", 2, 0.5, 1.0, 0.5, 0.0, 0.25),
        ConditionScore("night", 2, 1.0, 0.0, 1.0, 0.5, 0.75),
        ConditionScore("all", 4, 0.75, 0.5, 0.75, 0.25, 0.5),
    ]


def test_no_row_gives_no_score() -> None:
    assert scores(rows(), {}) == []
