"""What is written can be read by what people use, without this program."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pipeline.records import TopicPartition
from pipeline.sink.store import LocalStore
from tests.sink.building import IDENTITY, TP, draft, open_chain


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Seven rows of the partition 3, in two segments, and an empty segment of the partition 0."""
    chain = open_chain(LocalStore(tmp_path))
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 3))
    chain.commit(draft(3, 7, number=1))
    chain.recover(TopicPartition("frames", 0), IDENTITY, 0)
    empty = draft(0, 0)
    empty.tp, empty.next_offset = TopicPartition("frames", 0), 5
    chain.commit(empty)
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
