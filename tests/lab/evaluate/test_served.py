"""What each image was served: kept in a file, and compared with what another pair serves on the same images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise_lab.evaluate.bench import Floats
from adawise_lab.evaluate.served import ServedImages, read_served
from tests.damage.hostile_parquet import little_memory, more_rows_than_there_are

N = 200
RANDOM = np.random.default_rng(0)
LABELS = {"home": RANDOM.integers(0, 5, N), "new_clean": RANDOM.integers(0, 5, N)}


def served(right: Floats, *, orders: int = 1, visits: int = 1) -> ServedImages:
    """Images of two conditions that are right, or not, each time that they come."""
    came = np.full((orders, 2 * N), float(visits))
    return ServedImages(LABELS, came, came * right)


LUCK = RANDOM.random(2 * N)
HALF, MORE = (LUCK < 0.5).astype(float), (LUCK < 0.55).astype(float)


def test_a_difference_is_of_the_same_images_and_so_its_interval_is_narrow() -> None:
    one, other = served(MORE), served(HALF)
    found = one.over(other)
    assert found is not None
    assert found.difference == pytest.approx(one.accuracy - other.accuracy)
    assert found.difference == pytest.approx((MORE - HALF).mean())
    assert 0.0 < found.ci[0] < found.difference < found.ci[1]
    independent = one.over(served(RANDOM.permutation(HALF)))
    assert independent is not None
    assert independent.ci[1] - independent.ci[0] > 2 * (found.ci[1] - found.ci[0])
    same = one.over(one)
    assert same is not None
    assert (same.difference, same.ci) == (0.0, (0.0, 0.0))


def test_adapting_in_two_orders_is_compared_with_a_fixed_alpha() -> None:
    adapting, fixed = served(MORE, orders=2, visits=9), served(HALF)
    alone, both = served(MORE).over(fixed), adapting.over(fixed)
    assert alone is not None
    assert both is not None
    assert both.difference == pytest.approx(alone.difference)
    assert both.ci == pytest.approx(alone.ci), "nine visits to an image are the evidence of one image"


def test_other_images_are_not_compared() -> None:
    labels = {**LABELS, "home": LABELS["home"][::-1]}
    one = served(HALF)
    assert one.over(ServedImages(labels, one.visits, one.hits)) is None
    assert one.over(ServedImages({"shifted": LABELS["home"], **LABELS}, one.visits, one.hits)) is None


def test_a_file_has_what_was_served_and_one_that_is_not_of_these_weights_is_not_read(tmp_path: Path) -> None:
    file, kept = tmp_path / "served.parquet", served(HALF, orders=2, visits=3)
    assert read_served(file, "abc") is None
    file.write_bytes(kept.to_bytes("abc"))
    found = read_served(file, "abc")
    assert found is not None
    assert [*found.labels] == [*LABELS]
    assert all(np.array_equal(found.labels[name], labels) for name, labels in LABELS.items())
    assert np.array_equal(found.visits, kept.visits)
    assert np.array_equal(found.hits, kept.hits)
    assert kept.to_bytes("abc") == file.read_bytes()
    assert read_served(file, "def") is None


def test_a_file_that_is_damaged_or_of_a_later_version_is_not_read(tmp_path: Path) -> None:
    file, content = tmp_path / "served.parquet", served(HALF).to_bytes("abc")
    file.write_bytes(content[:-20])
    assert read_served(file, "abc") is None
    table = pq.read_table(io.BytesIO(content))
    for metadata in (None, {"adawise.served": "{}"}, {"adawise.served": '{"format": 2, "theta_1": "abc"}'}):
        pq.write_table(table.replace_schema_metadata(metadata), file)
        assert read_served(file, "abc") is None
    pq.write_table(table.drop_columns(["hits"]).replace_schema_metadata(table.schema.metadata), file)
    assert read_served(file, "abc") is None


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("condition", ["home", "new_clean"] * N),
        ("visits", [[0]] * (2 * N)),
        ("visits", [[None]] * (2 * N)),
        ("visits", [[]] * (2 * N)),
        ("visits", [[1, 1]] * N + [[1]] * N),
        ("hits", [[-1]] * (2 * N)),
        ("hits", [[2]] * (2 * N)),
    ],
)
def test_a_file_with_values_that_are_no_counts_of_images_in_order_is_not_read(
    tmp_path: Path, column: str, values: Sequence[object]
) -> None:
    file, table = tmp_path / "served.parquet", pq.read_table(io.BytesIO(served(HALF).to_bytes("abc")))
    place, field = table.schema.get_field_index(column), table.schema.field(column)
    array = pa.array(values, pa.string() if column == "condition" else field.type).cast(field.type)
    pq.write_table(table.set_column(place, field, array), file)
    assert read_served(file, "abc") is None
    pq.write_table(table, file)
    assert read_served(file, "abc") is not None


def test_a_file_that_states_too_many_rows_is_not_read_and_no_memory_is_taken_for_them(tmp_path: Path) -> None:
    (file := tmp_path / "served.parquet").write_bytes(served(HALF).to_bytes("abc"))
    more_rows_than_there_are(file)
    with little_memory():
        assert read_served(file, "abc") is None


def test_a_file_with_columns_of_other_types_is_not_read(tmp_path: Path) -> None:
    file, table = tmp_path / "served.parquet", pq.read_table(io.BytesIO(served(HALF).to_bytes("abc")))
    for labels in (pa.array([2**64 - 1] * (2 * N), pa.uint64()), pa.array([None] * (2 * N), pa.int32())):
        pq.write_table(table.set_column(1, "label", labels), file)
        assert read_served(file, "abc") is None
