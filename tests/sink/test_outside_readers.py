"""What is written can be read by what people use, without this program."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from adawise.output.compaction import sql_views
from adawise.output.compaction.delete import deletable, delete
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.files import data_files, data_keys
from adawise.store.store import LocalStore, open_store
from tests.output.compaction.building import Days, compacted, found
from tests.sink.building import IDENTITY, TP, DictStore, draft, open_chain


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Seven rows of the partition 3, in two segments, and an empty segment of the partition 0."""
    chain = open_chain(LocalStore(tmp_path))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 3))
    chain.commit(draft(3, 7, number=1))
    chain.recover(TopicPartition("frames", 0), IDENTITY, 0)
    chain.commit(replace(draft(0, 0), tp=TopicPartition("frames", 0), next_offset=5))
    return tmp_path


def test_pyarrow_reads_the_folders(root: Path) -> None:
    assert pq.read_table(root / "predictions").num_rows == 7
    assert pyarrow.dataset.dataset(root / "traces").to_table().num_rows == 2


def test_pandas_reads_the_folders(root: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(root / "predictions")
    assert frame["partition"].tolist() == [3] * 7
    traces = pandas.read_parquet(root / "traces")[["stream_id", "batch_number", "images"]]
    assert frame.merge(traces, on=["stream_id", "batch_number"])["images"].tolist() == [3] * 3 + [4] * 4


def test_duckdb_reads_the_files_with_the_types_of_their_columns(root: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = f"""
        select p.partition, count(*), any_value(p.label), max(t.alpha)
        from '{root}/predictions/**/*.parquet' p
        join '{root}/traces/**/*.parquet' t using (topic, partition, stream_id, batch_number)
        where p.alpha = 0.35 group by all
    """
    assert duckdb.sql(query).fetchall() == [(3, 7, "car", 0.35)]
    kept = duckdb.sql(
        f"select value from parquet_kv_metadata('{root}/predictions/**/*.parquet') where key = 'adawise.segment'"
    )
    assert len(kept.fetchall()) == 3


def test_polars_reads_the_files(root: Path) -> None:
    polars = pytest.importorskip("polars")
    rows = polars.scan_parquet(root / "predictions" / "**" / "*.parquet").filter(polars.col("status") == "accepted")
    assert rows.select("partition", "top_labels", "meta", "captured_at").collect().height == 7


@pytest.fixture(scope="module")
def days() -> DictStore:
    """Four days in 18 segments, three of which are compacted."""
    store = DictStore()
    Days(store).commit(18)
    compacted(store)
    return store


@pytest.fixture(params=["kept", "deleted"])
def compacted_root(request: pytest.FixtureRequest, days: DictStore, tmp_path: Path) -> Path:
    """The same as a folder whose name needs care; with the segments of compacted files, or without."""
    root = tmp_path / "the yard's output"
    for key, data in days.objects.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    store = LocalStore(root)
    sql_views.write(store, str(root))
    if request.param == "deleted":
        for covered in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC)):
            list(delete(store, covered))
    return root


def test_duckdb_reads_each_row_once_by_the_views(compacted_root: Path, days: DictStore) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.execute((compacted_root / "views.sql").read_text())
        rows = connection.sql('select "offset", "index" from predictions order by all').fetchall()
        expected = found(days, layout.PREDICTIONS).select(["offset", "index"]).to_pylist()
        assert rows == sorted((row["offset"], row["index"]) for row in expected)
        images = sum(found(days, layout.TRACES)["images"].to_pylist())
        assert connection.sql("select sum(images) from traces").fetchall() == [(images,)]
        files = connection.sql("select unnest(getvariable('predictions_files'))").fetchall()
        assert {file for (file,) in files} == {str(compacted_root / key) for key in data_keys(days)}


def test_the_views_have_null_and_no_nan_for_a_batch_without_an_audit(compacted_root: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    newest = max((compacted_root / layout.TRACES).rglob("*.parquet"))
    rows = pq.ParquetFile(newest).read()
    place, older = rows.schema.get_field_index("audit_regret"), pa.array([math.nan] * rows.num_rows)
    pq.write_table(rows.set_column(place, pa.field("audit_regret", pa.float64(), nullable=False), older), newest)
    with duckdb.connect() as connection:
        connection.execute((compacted_root / "views.sql").read_text())
        (counted,) = connection.sql("select count(*) > 20, count(audit_regret) from traces").fetchall()
    assert counted == (True, 0)


def test_the_views_read_a_root_that_was_moved_and_what_was_never_compacted(
    compacted_root: Path, root: Path, tmp_path: Path
) -> None:
    """To a name that would match the folder beside it as a pattern, in which there is nothing that can be read."""
    duckdb = pytest.importorskip("duckdb")
    views = (compacted_root / "views.sql").read_text()
    moved = compacted_root.rename(tmp_path / "moved [1]?*")
    beside = tmp_path / "moved 1 and more/predictions/topic-frames/partition-00000"
    beside.mkdir(parents=True)
    (beside / f"{0:020}.parquet").write_bytes(b"")
    for place, rows in ((moved, None), (root, 7)):
        with duckdb.connect() as connection:
            connection.execute(f"set variable root = '{place}'")
            connection.execute(views)
            count = connection.execute("select count(*) from predictions").fetchall()
            assert count == [(rows or len(found(LocalStore(moved), layout.PREDICTIONS)),)]


def test_polars_pandas_and_pyarrow_read_each_row_once_by_the_list_of_files(
    compacted_root: Path, days: DictStore
) -> None:
    polars, pandas = pytest.importorskip("polars"), pytest.importorskip("pandas")
    files = data_files(str(compacted_root))
    expected = sorted(found(days, layout.PREDICTIONS)["row_id"].to_pylist())
    assert sorted(polars.scan_parquet(files).select("row_id").collect()["row_id"]) == expected
    assert sorted(pyarrow.dataset.dataset(files).to_table(["row_id"])["row_id"].to_pylist()) == expected
    assert sorted(pandas.read_parquet(files, columns=["row_id"])["row_id"]) == expected


def test_compacted_files_alone_are_one_table_for_a_pattern(compacted_root: Path, days: DictStore) -> None:
    duckdb = pytest.importorskip("duckdb")
    pattern = str(compacted_root / "compacted/predictions/**/2026-11-2[12]*.parquet").replace("'", "''")
    two_days = [key for key in data_keys(days) if "2026-11-21" in key or "2026-11-22" in key]
    rows = duckdb.sql(f"select count(*), count(distinct row_id) from '{pattern}'").fetchall()
    assert rows == [(pq.read_table([compacted_root / key for key in two_days]).num_rows,) * 2]


def test_the_files_of_a_url_are_urls() -> None:
    store = open_store("memory://")
    assert data_keys(store) == data_files("memory://") == []
    assert layout.compacted_folder("predictions", TP) == "compacted/predictions/topic-frames/partition-00003/"
