"""Labels that come later find their rows, and what does not fit is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.errors import SettingsError
from adawise.labels.join import Labels, label
from tests.drift.answers import BEGIN_US, World, connected, labels_csv

BEGIN = datetime.fromtimestamp(BEGIN_US / 1e6, UTC)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """16 rows of a camera, one a second, nothing labelled by the producer."""
    with closing(connected(World(batches=2).table())) as opened:
        yield opened


def given(connection: duckdb.DuckDBPyConnection, path: Path, **options: Any) -> Labels:
    return label(connection, "nowhere", file=str(path), **{"classes": ["bus", "car", "dog"], **options})


def truths(connection: duckdb.DuckDBPyConnection) -> dict[int, str]:
    """By offset."""
    return dict(connection.execute('SELECT "offset", truth FROM labelled').fetchall())


def csv(path: Path, *rows: Mapping[str, Any]) -> Path:
    return labels_csv(path / "labels.csv", rows)


def at(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


def note(labels: Labels, words: str) -> str:
    found = [note for note in labels.notes if words in note]
    assert found, labels.notes
    return found[0]


def test_labels_of_a_csv_are_joined_by_row(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = csv(tmp_path, {"row_id": "frames/0/3/0", "label": "car"}, {"row_id": "frames/0/7/0", "label": " dog "})
    found = given(connection, path)
    assert truths(connection) == {3: "car", 7: "dog"}
    assert (found.labelled, found.source, found.notes) == (2, str(path), ())


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(("name", "other"), [("labels[1]", "labels1"), ("labels*", "labels_"), ("labels?", "labelsx")])
def test_the_file_that_is_named_is_read_and_none_that_its_name_would_match(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, form: str, name: str, other: str
) -> None:
    for stem, truth in ((name, "car"), (other, "dog")):
        rows = [{"row_id": "frames/0/3/0", "label": truth}]
        if form == "csv":
            labels_csv(tmp_path / f"{stem}.csv", rows)
        else:
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{stem}.parquet")
    given(connection, tmp_path / f"{name}.{form}")
    assert truths(connection) == {3: "car"}


def test_a_label_with_a_comma_or_a_quote_is_read_as_csv_has_it(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('row_id,label\nframes/0/3/0,"car, ""red"""\n', encoding="utf-8")
    given(connection, path, classes=['car, "red"'])
    assert truths(connection) == {3: 'car, "red"'}


@pytest.mark.parametrize("zone", ["UTC", None, "Europe/Berlin"])
def test_labels_of_parquet_are_joined_by_stream_and_exact_time(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, zone: str | None
) -> None:
    times = pa.array([BEGIN_US + 3_000_000, BEGIN_US + 3_000_001], pa.timestamp("us", zone))
    table = pa.table({"stream_id": ["camera-0"] * 2, "captured_at": times, "label": ["car", "dog"]})
    pq.write_table(table, tmp_path / "labels.parquet")
    found = given(connection, tmp_path / "labels.parquet")
    assert truths(connection) == {3: "car"}
    assert "1 of 2 labels name a stream and a time without a frame at exactly it" in note(found, "without a frame")


def test_labels_of_arrow_in_several_batches_are_read_in_their_order(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    schema = pa.schema([("row_id", pa.string()), ("label", pa.dictionary(pa.int8(), pa.string()))])
    names = pa.array(["car", "dog"]).dictionary_encode().cast(schema.types[1])
    with pa.ipc.new_file(tmp_path / "labels.arrow", schema) as writer:
        for place in range(2):
            batch = {"row_id": pa.array(["frames/0/1/0"]), "label": names[place : place + 1]}
            writer.write_batch(pa.record_batch(batch, schema=schema))
    given(connection, tmp_path / "labels.arrow")
    assert truths(connection) == {1: "dog"}


def test_the_nearest_frame_within_the_tolerance_is_taken_the_earlier_of_two(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    wanted = {2.4: "bus", 4.5: "car", 7.6: "dog", 20.0: "car"}
    rows = [{"stream_id": "camera-0", "captured_at": at(s), "label": name} for s, name in wanted.items()]
    found = given(connection, csv(tmp_path, *rows), within_us=500_000)
    assert truths(connection) == {2: "bus", 4: "car", 8: "dog"}
    assert "without a frame within 0.5 s of it" in note(found, "1 of 4")
    given(connection, csv(tmp_path, *rows), within_us=300_000)
    assert truths(connection) == {}


def test_a_tolerance_over_many_frames_takes_the_nearest_of_them(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = [{"stream_id": "camera-0", "captured_at": at(s), "label": "car"} for s in (-4.0, 6.6, 19.0)]
    given(connection, csv(tmp_path, *rows), within_us=4_000_000)
    assert set(truths(connection)) == {0, 7, 15}


def test_a_time_that_frames_share_is_of_none_of_them(tmp_path: Path) -> None:
    times = BEGIN_US + 1_000_000 * (np.arange(16) // 2)
    row = {"stream_id": "camera-0", "captured_at": at(3), "label": "car"}
    with closing(connected(World(batches=2).table(captured_at=times))) as connection:
        found = given(connection, csv(tmp_path, row), within_us=100_000)
        assert truths(connection) == {}
    assert "1 labels name a time that several frames share" in note(found, "share")


def test_a_camera_of_the_same_time_is_another_camera(tmp_path: Path) -> None:
    rows = [{"stream_id": "camera-1", "captured_at": at(3), "label": "car"}]
    with closing(connected(World(batches=2, cameras=2).table())) as connection:
        given(connection, csv(tmp_path, *rows))
        found = connection.execute("SELECT stream_id, truth FROM labelled").fetchall()
    assert found == [("camera-1", "car")]


def test_of_several_labels_the_last_line_wins_and_contradictions_are_counted(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    result = [(3, "car"), (3, "dog"), (5, "bus"), (5, "bus"), (3, "bus")]
    found = given(connection, csv(tmp_path, *({"row_id": f"frames/0/{n}/0", "label": name} for n, name in result)))
    assert truths(connection) == {3: "bus", 5: "bus"}
    assert "2 images have several labels, 1 of them contradictory" in note(found, "several")


def test_the_time_of_a_label_goes_before_its_line(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    found = [("dog", at(100)), ("car", at(50)), ("bus", "")]
    rows = [{"row_id": "frames/0/3/0", "label": name, "labelled_at": when} for name, when in found]
    given(connection, csv(tmp_path, *rows))
    assert truths(connection) == {3: "dog"}


def test_a_later_line_without_a_label_takes_the_label_back(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = [{"row_id": "frames/0/3/0", "label": name} for name in ("car", "")]
    assert given(connection, csv(tmp_path, *rows)).labelled == 0


def test_classes_that_are_not_served_are_left_out_counted_and_named(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    fields = {3: "car", 4: "Car", 5: "tram", 6: "tram"}
    path = csv(tmp_path, *({"row_id": f"frames/0/{n}/0", "label": name} for n, name in fields.items()))
    found = given(connection, path)
    assert truths(connection) == {3: "car"}
    assert "3 labels are of classes that are not served, and were left out: 'tram' (2), 'Car' (1)" in note(
        found, "not served"
    )


def test_what_was_in_the_top_labels_is_a_class_that_is_served(tmp_path: Path) -> None:
    tops = [["car", "tram"]] * 16
    with closing(connected(World(batches=2).table(top_labels=tops))) as connection:
        given(connection, csv(tmp_path, {"row_id": "frames/0/3/0", "label": "tram"}), classes=None)
        assert truths(connection) == {3: "tram"}


def test_labels_of_other_rows_and_of_rejected_images_are_counted(tmp_path: Path) -> None:
    status = ["rejected"] + ["accepted"] * 15
    rows = [{"row_id": f"frames/0/{n}/0", "label": "car"} for n in (0, 3, 99)]
    with closing(connected(World(batches=2).table(status=status))) as connection:
        found = given(connection, csv(tmp_path, *rows))
        assert truths(connection) == {3: "car"}
    assert note(found, "1 labels match no image of these cameras and this time")
    assert note(found, "1 labelled images were not accepted")


def test_a_file_alone_counts_and_without_one_the_producer_is_asked(tmp_path: Path) -> None:
    result = ["car"] * 8 + [None] * 8
    with closing(connected(World(batches=2).table(true_label=result))) as connection:
        found = label(connection, "nowhere", file=None, classes=["car"])
        assert (found.labelled, found.source) == (8, "the producer")
        given(connection, csv(tmp_path, {"row_id": "frames/0/12/0", "label": "dog"}))
        assert truths(connection) == {12: "dog"}


REFUSED: Sequence[tuple[str, str, str]] = [
    ("labels.csv", "row,label\nframes/0/1/0,car\n", "expected the columns label and row_id, .* but found row, label"),
    ("labels.csv", "stream_id,label\na,car\n", "expected the columns label and row_id"),
    (
        "labels.csv",
        "row_id,label\nframes/0/1/0,car\nframes-1,car\n",
        "row 2: row_id: expected topic/partition/off.*'fr",
    ),
    ("labels.csv", "stream_id,captured_at,label\na,yesterday,car\n", "row 1: captured_at: expected a time .*'yester"),
    ("labels.csv", "stream_id,captured_at,label\n,2026-01-01T00:00:00Z,car\n", "row 1: expected a row_id, or a str"),
    ("labels.csv", "row_id,label\nframes/0/1/0,car,red\n", "expected a csv file of labels, but"),
    ("labels.csv", "", "labels.csv: expected"),
    ("labels.parquet", "no parquet", "expected a parquet file of labels, but"),
    ("labels.arrow", "no arrow", "expected a arrow file of labels, but"),
    ("labels.txt", "row_id,label\n", "expected a file whose name ends in one of .csv"),
]


@pytest.mark.parametrize(("name", "text", "expected"), REFUSED)
def test_a_bad_file_is_refused_with_what_was_expected_and_where(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, name: str, text: str, expected: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=expected):
        given(connection, tmp_path / name)


def test_a_file_that_is_not_there_or_not_here_is_refused(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is none"):
        given(connection, tmp_path / "labels.csv")
    with pytest.raises(SettingsError, match="copy it here"):
        label(connection, "nowhere", file="s3://bucket/labels.csv")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"row_id": pa.array([1]), "label": pa.array(["car"])}, "expected text in the column row_id, but it is BIGINT"),
        ({"row_id": pa.array(["frames/0/1/0"]), "label": pa.array([3])}, "expected text in the column label"),
        (
            {"stream_id": pa.array(["a"]), "captured_at": pa.array([1]), "label": pa.array(["car"])},
            "expected a timestamp in captured_at, but it is BIGINT",
        ),
    ],
)
def test_types_of_parquet_are_checked(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, columns: dict[str, pa.Array], expected: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    with pytest.raises(SettingsError, match=expected):
        given(connection, tmp_path / "labels.parquet")
