"""Labels that were collected under a root are found by its report, the latest of each image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.errors import ChainError
from adawise.labels import given
from adawise.labels.join import label
from adawise.labels.message import LabelColumns
from adawise.output.read.duckdb_rows import translated
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.recording.run import Bounds, record
from adawise.records import Message
from tests.drift.answers import World, connected
from tests.fakes import FakeSource

CLASSES = ("bus", "car", "dog")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(connected(World(batches=2).table(true_label=["dog"] * 4 + [None] * 12))) as opened:
        yield opened


def collect(root: Path, *values: Mapping[str, Any] | bytes, folder: str = "labels") -> None:
    """As `adawise labels` does, one message after the other, each a second after the one before."""
    messages = [
        Message("truth", 0, n, None, value if isinstance(value, bytes) else json.dumps(value).encode(), (), 1000 * n)
        for n, value in enumerate(values)
    ]
    source = FakeSource(messages, topic="truth")
    recorder = Recorder(
        str(root / folder),
        topic="truth",
        identity=source.known,
        policy=FilePolicy(2, 1 << 30, 1e9),
        max_buffered_bytes=1 << 30,
        beside=LabelColumns(),
    )
    record(source, recorder, Bounds(until_drained=True))


def row(offset: int, name: str | None, **more: str) -> dict[str, Any]:
    return {"row_id": f"frames/0/{offset}/0", "label": name, **more}


def truths(connection: duckdb.DuckDBPyConnection) -> dict[int, str]:
    return dict(connection.execute('SELECT "offset", truth FROM labelled').fetchall())


def test_collected_labels_go_before_the_producers_which_fill_in(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    collect(tmp_path, row(0, "car"), row(9, "bus"))
    found = label(connection, str(tmp_path), file=None, classes=CLASSES)
    assert truths(connection) == {0: "car", 1: "dog", 2: "dog", 3: "dog", 9: "bus"}
    assert (found.source, found.notes) == (f"{tmp_path}/labels and the producer", ())


def test_the_latest_of_several_counts_by_its_own_time_else_by_the_brokers(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    early, late = "1970-01-01T00:00:00.5Z", "1980-01-01T00:00:00Z"
    collect(
        tmp_path,
        row(5, "bus"),
        row(5, "car"),
        row(6, "car", labelled_at=late),
        row(6, "bus"),
        row(7, "car"),
        row(7, "bus", labelled_at=early),
    )
    found = label(connection, str(tmp_path), file=None, classes=CLASSES)
    assert {n: name for n, name in truths(connection).items() if n > 3} == {5: "car", 6: "car", 7: "car"}
    assert any("3 images have several labels, 3 of them contradictory" in note for note in found.notes)


def test_a_label_that_was_taken_back_is_none_not_even_the_producers(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    collect(tmp_path, row(0, "car"), row(5, "car"), row(0, None), row(5, None))
    label(connection, str(tmp_path), file=None, classes=CLASSES)
    assert truths(connection) == {1: "dog", 2: "dog", 3: "dog"}


def test_labels_by_time_and_those_that_could_not_be_read(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    by_time = {"stream_id": "camera-0", "captured_at": "2026-06-01T00:00:09.2Z", "label": "car"}
    collect(tmp_path, by_time, b"no label")
    found = label(connection, str(tmp_path), file=None, within_us=300_000, classes=CLASSES)
    assert truths(connection)[9] == "car"
    assert len(found.notes) == 1
    assert "1 labels" in found.notes[0]
    assert "could not be read, such as: expected JSON" in found.notes[0]


def test_labels_of_a_root_are_not_those_of_a_root_that_its_name_would_match(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    collect(tmp_path / "site[1]", row(5, "car"))
    collect(tmp_path / "site1", row(6, "bus"))
    label(connection, str(tmp_path / "site[1]"), file=None, classes=CLASSES)
    assert {n: name for n, name in truths(connection).items() if n > 3} == {5: "car"}


def test_labels_of_an_earlier_topic_that_were_moved_below_are_still_found(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    collect(tmp_path, row(5, "car"), folder="labels/before")
    collect(tmp_path, row(6, "bus"))
    label(connection, str(tmp_path), file=None, classes=CLASSES)
    assert {n: name for n, name in truths(connection).items() if n > 3} == {5: "car", 6: "bus"}


@pytest.mark.parametrize("damage", [b"PAR1", b""])
def test_a_damaged_or_foreign_file_is_named_with_the_remedy(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, damage: bytes
) -> None:
    collect(tmp_path, row(5, "car"))
    (tmp_path / "labels" / "other.parquet").write_bytes(damage)
    with pytest.raises(ChainError, match=r"wrote, but: .*other\.parquet.*; restore the file"):
        label(connection, str(tmp_path), file=None)
    pq.write_table(pa.table({"label": ["car"]}), tmp_path / "labels" / "other.parquet")
    with pytest.raises(ChainError, match="expected files that `adawise labels` wrote"):
        label(connection, str(tmp_path), file=None)


def test_ctrl_c_while_a_file_of_labels_is_read_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise RuntimeError("Query interrupted")  # as DuckDB raises it

    monkeypatch.setattr(given, "_load", interrupted)
    file = tmp_path / "labels.csv"
    file.write_text("row_id,label\nframes/0/0/0,car\n")
    with duckdb.connect() as connection, pytest.raises(KeyboardInterrupt), translated(str(tmp_path)):
        given.read_labels(connection, str(file))


def test_stored_labels_that_are_removed_while_they_are_read_are_no_damage(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `retain` removes them."""
    collect(tmp_path, row(5, "car"))
    monkeypatch.setattr(given, "_files", lambda root: [f"{root}/labels/gone.parquet"])
    with pytest.raises(ChainError, match=r"one is gone.*labels/gone\.parquet"), translated(str(tmp_path)):
        label(connection, str(tmp_path), file=None)
