"""Parquet files that state what they do not have, and pipes in their place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.errors import ChainError, SourceError, StoreUnavailable
from adawise.labels.given import read_chain
from adawise.recording import format as recorded
from adawise.recording.files import RecordedFile
from adawise.records import Message, TopicPartition
from adawise.sink import schemas, segment
from adawise.sink.files import data_files
from adawise.store.parquet import open_parquet
from adawise.store.store import LocalStore
from tests.damage.hostile_parquet import (
    columns_of_another_type,
    more_rows_than_its_groups_have,
    more_rows_than_there_are,
    nested_columns,
)
from tests.sink.forging import an_honest_sink, key

KEY = key(0)


def written(folder: Path) -> Path:
    """A segment, as a file."""
    path = folder / "segment.parquet"
    data = an_honest_sink().get(KEY)
    assert data is not None
    path.write_bytes(data)
    return path


def test_more_rows_than_a_file_can_have_are_refused_before_memory_is_taken_for_them(tmp_path: Path) -> None:
    more_rows_than_there_are(path := written(tmp_path))
    with path.open("rb") as file, pytest.raises(pa.ArrowInvalid, match="states 268,435,456 rows"):
        open_parquet(file)
    for read in (segment.read_footer, segment.read_rows):
        with pytest.raises(ChainError, match="states 268,435,456 rows"):
            read(path.read_bytes(), KEY)


def test_a_file_whose_row_groups_have_fewer_rows_than_it_states_is_refused(tmp_path: Path) -> None:
    more_rows_than_its_groups_have(path := written(tmp_path))
    with pytest.raises(ChainError, match="states 268,435,456 rows, but its row groups 3"):
        segment.read_rows(path.read_bytes(), KEY)


def test_more_rows_than_a_recorded_file_can_have_are_refused(tmp_path: Path) -> None:
    name = recorded.key_of(TopicPartition("frames", 0), 0, "full")
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"offset": range(5)}), path)
    more_rows_than_there_are(path)
    with pytest.raises(SourceError, match="states 268,435,456 rows"):
        RecordedFile(str(tmp_path), LocalStore(tmp_path), name, 0).footer()


@pytest.mark.parametrize("rows", [1, 1_000_000])
def test_rows_that_compress_best_are_within_the_bound(rows: int, tmp_path: Path) -> None:
    empty = {column.name: pa.nulls(rows, column.type) for column in schemas.PREDICTIONS if column.nullable}
    data = segment.parquet(pa.table({"offset": pa.array(range(rows), pa.int64()), **empty}), (), {})
    assert open_parquet(pa.BufferReader(data)).metadata.num_rows == rows


def test_a_segment_whose_columns_have_other_types_is_damaged(tmp_path: Path) -> None:
    for damage in (nested_columns, columns_of_another_type):
        damage(path := written(tmp_path))
        for columns in (None, ["offset"]):
            with pytest.raises(ChainError, match=r"expected \w+ in column \w+, but it has"):
                segment.read_rows(path.read_bytes(), KEY, columns)


def test_traces_without_numbers_for_the_regret_are_returned_unchanged() -> None:
    traces = pa.table({schemas.AUDIT_REGRET: ["a"]})
    assert schemas.regret_or_null(traces) is traces


def test_a_pipe_among_rows_or_labels_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name in (KEY, "labels/topic-frames/partition-00000/0.parquet"):
        (tmp_path / name).parent.mkdir(parents=True)
        os.mkfifo(tmp_path / name)
    with pytest.raises(ChainError, match=r"parquet: expected a regular file, but it is a pipe, a device"):
        data_files(str(tmp_path))
    with duckdb.connect() as connection, pytest.raises(ChainError, match="expected a regular file"):
        read_chain(connection, [str(tmp_path)])


def test_a_pipe_in_the_place_of_the_document_of_a_root_is_not_waited_for(tmp_path: Path) -> None:
    (document := tmp_path / "_sink.json").write_bytes(b"{}")
    store = LocalStore(tmp_path)
    assert store.get("_sink.json") == b"{}"
    document.unlink()
    os.mkfifo(document)
    with pytest.raises(StoreUnavailable, match="it is gone"):
        store.list("")


@pytest.mark.parametrize("made", ["pipe", "device", "link"])
def test_a_document_that_is_a_pipe_a_device_or_a_link_to_itself_is_damaged(made: str, tmp_path: Path) -> None:
    place = tmp_path / "_owner.json"
    if made == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero" if made == "device" else place)
    for read in (LocalStore(tmp_path).get, LocalStore(tmp_path).open):
        with pytest.raises(ChainError, match=r"_owner\.json: expected a regular file, but it is a pipe, a device or a"):
            read("_owner.json")


def footer_begin(data: bytes) -> int:
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def footer_bits(data: bytes) -> Iterator[bytes]:
    """The file with one bit of its footer flipped, up to the key-values of ours, for each bit."""
    begin = footer_begin(data)
    for bit in range(8 * begin, 8 * data.index(b"adawise", begin)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_a_footer_with_a_flipped_bit_is_named_or_read_and_never_ends_the_process(tmp_path: Path) -> None:
    """Arrow ends the process where the statistics of a column are asked for, and some bits of them are flipped."""
    tp = TopicPartition("frames", 0)
    name = recorded.key_of(tp, 0, "full")
    (path := tmp_path / name).parent.mkdir(parents=True)
    messages = [Message(*tp, offset, b"gate", b"image", timestamp_ms=1_000 + offset) for offset in range(8)]
    kinds = Counter[str]()
    data = recorded.encode_file(messages, recorded.Footer(*tp, 0, 8, "cluster", "topic-id", 1))
    for damaged in islice(footer_bits(data), 0, None, 5):
        path.write_bytes(damaged)
        file = RecordedFile(str(tmp_path), LocalStore(tmp_path), name, 0)
        try:
            kinds["read"] += [*file.messages(4)] == messages[4:] and file.first_at(1_004) == 4
        except SourceError:
            kinds["named"] += 1
    assert min(kinds["read"], kinds["named"]) > 20, kinds


def test_a_name_in_a_schema_that_is_no_text_is_an_error_of_arrows(tmp_path: Path) -> None:
    data = written(tmp_path).read_bytes()
    place = data.index(b"stream_id", footer_begin(data))
    damaged = data[:place] + b"\xff" + data[place + 1 :]
    with pytest.raises(pa.ArrowInvalid, match="a name in its schema is no text"):
        open_parquet(pa.BufferReader(damaged))


def test_a_segment_that_lacks_a_column_or_whose_text_is_none_is_damaged(tmp_path: Path) -> None:
    table = pq.read_table(path := written(tmp_path))
    metadata = pq.read_metadata(path).metadata
    place = table.schema.get_field_index("stream_id")
    no_text = pa.array([b"\xff"] * len(table)).cast(pa.string(), safe=False)
    others = {
        "expected the columns stream_id, but there are none": table.drop_columns(["stream_id"]),
        "expected readable rows": table.set_column(place, table.schema.field(place), no_text),
    }
    for expected, damaged in others.items():
        pq.write_table(damaged.replace_schema_metadata(metadata), path)
        for columns in (None, ["stream_id"]):
            with pytest.raises(ChainError, match=expected):
                segment.read_rows(path.read_bytes(), KEY, columns)
