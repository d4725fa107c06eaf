from __future__ import annotations

import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.output.compaction.merged import digest
from adawise.sink import schemas

SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64()),
        pa.field("index", pa.int32()),
        pa.field("stream", pa.string()),
        pa.field("state", pa.binary()),
        pa.field("at", pa.timestamp("ms", tz="UTC")),
        pa.field("confidence", pa.float32()),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("trials", pa.list_(schemas.TRIAL)),
        pa.field("meta", pa.map_(pa.string(), pa.string())),
    ]
)
IDENTITY = ("offset", "index")
ROWS: list[dict[str, Any]] = [
    {
        "offset": offset,
        "index": index,
        "stream": None if offset == 3 else f"camera {offset % 2}",
        "state": bytes([offset]) * offset,
        "at": None if offset == 2 else 1_700_000_000_000 + offset,
        "confidence": float("nan") if offset == 1 else offset / 3,
        "labels": None if offset == 4 else ["car", "bus"][:offset],
        "trials": [{"alpha": 0.5, "images": offset, "objective": float("nan")}] * index,
        "meta": {"place": "north"} if index else {},
    }
    for offset in range(6)
    for index in range(2)
]


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_the_order_of_rows_and_how_they_are_cut_and_stored_do_not_matter() -> None:
    expected = digest(table(ROWS), IDENTITY)
    for seed in range(10):
        rows = ROWS.copy()
        random.Random(seed).shuffle(rows)
        cut = seed % len(rows)
        parts = [table([*rows[:2], *rows[:cut]]).slice(2), table(rows[cut:])]  # one is a slice of something bigger
        assert digest(pa.concat_tables(parts), IDENTITY) == expected
    file = io.BytesIO()
    pq.write_table(table(ROWS), file, row_group_size=5, use_dictionary=["stream"])
    assert digest(pq.read_table(file), IDENTITY) == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("offset", 99),
        ("index", 7),
        ("stream", "camera 2"),
        ("stream", ""),  # not the same as null
        ("state", b""),
        ("at", 0),
        ("confidence", 0.0),
        ("confidence", None),
        ("labels", []),
        ("labels", ["carbus"]),  # the same bytes, cut elsewhere
        ("trials", [{"alpha": 0.5, "images": 3, "objective": None}]),
        ("meta", {"place": "south"}),
        ("meta", {"spot": "north"}),
        ("meta", {}),
    ],
)
def test_a_change_of_any_value_of_any_row_changes_it(column: str, value: object) -> None:
    expected = digest(table(ROWS), IDENTITY)
    for number in range(len(ROWS)):
        changed = [{**row, column: value} if i == number else row for i, row in enumerate(ROWS)]
        if not table(changed).equals(table(ROWS)) and repr(table(changed).to_pylist()) != repr(table(ROWS).to_pylist()):
            assert digest(table(changed), IDENTITY) != expected


def test_a_missing_a_doubled_and_an_added_row_change_it() -> None:
    found = [digest(table(rows), IDENTITY) for rows in (ROWS, ROWS[1:], [*ROWS, ROWS[0]], [])]
    assert len(set(found)) == 4


def test_what_belongs_to_two_columns_cannot_be_moved_between_them() -> None:
    one = pa.table({"offset": [1], "a": ["xy"], "b": ["z"]})
    other = pa.table({"offset": [1], "a": ["x"], "b": ["yz"]})
    assert digest(one, ["offset"]) != digest(other, ["offset"])


def test_true_false_and_unknown_are_told_apart() -> None:
    columns = [[True, False], [False, True], [True, None], [None, True], [False, None], [None, None]]
    found = {digest(pa.table({"row": [0, 1], "flag": pa.array(column, pa.bool_())}), ["row"]) for column in columns}
    assert len(found) == len(columns)


@pytest.mark.parametrize("schema", [schemas.PREDICTIONS, schemas.TRACES], ids=["predictions", "traces"])
def test_each_column_that_is_written_can_be_summed(schema: pa.Schema) -> None:
    for field in schema:
        nothing = pa.table({"row": [0, 1], "value": pa.nulls(2, field.type)})
        assert digest(nothing, ["row"])


def test_the_checksums_of_files_that_exist_stay_valid() -> None:
    """A change of this value would turn every compacted file into a damaged one."""
    assert digest(table(ROWS), IDENTITY)[:16] == "daea2101f2e019b8"
