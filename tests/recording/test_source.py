"""RecordingSource: what is special to a recording. What any source must do is in tests/contracts."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.errors import SourceError
from adawise.ports import TopicIdentity
from adawise.recording import format as layout
from adawise.recording.format import MANIFEST
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.recording.source import Order, RecordingSource
from adawise.records import Message, TopicPartition
from tests.worker.recordings import read_all

IDENTITY = TopicIdentity("cluster", "topic-id", 2)


def message(partition: int, offset: int, timestamp_ms: int = 0, value: bytes = b"x") -> Message:
    return Message("frames", partition, offset, None, value, timestamp_ms=timestamp_ms)


def write(root: Path, messages: Sequence[Message], *, file_messages: int = 3) -> None:
    policy = FilePolicy(max_messages=file_messages, max_bytes=1 << 40, max_age_s=1e9)
    recorder = Recorder(str(root), topic="frames", identity=IDENTITY, policy=policy, max_buffered_bytes=1 << 40)
    for partition in (0, 1):
        first = next((m.offset for m in messages if m.partition == partition), 0)
        recorder.begin(TopicPartition("frames", partition), first)
    recorder.append(messages, 0.0)
    recorder.flush()


def opened(root: Path, order: Order = "timestamp", seed: int = 0, max_poll_records: int = 100) -> RecordingSource:
    return RecordingSource(str(root), order=order, seed=seed, max_poll_records=max_poll_records)


def places(messages: Sequence[Message]) -> list[tuple[int, int]]:
    return [(m.partition, m.offset) for m in messages]


def test_partitions_interleave_by_the_times_at_which_the_messages_came(tmp_path: Path) -> None:
    write(tmp_path, [message(0, 0, 10), message(0, 1, 40), message(1, 0, 20), message(1, 1, 30), message(1, 2, 50)])
    assert places(read_all(opened(tmp_path))) == [(0, 0), (1, 0), (1, 1), (0, 1), (1, 2)]


@pytest.mark.parametrize("offset", range(8))
def test_reading_begins_at_any_offset_of_any_row_group(tmp_path: Path, offset: int) -> None:
    """Groups end at 1, 3 and 6; one of them is empty."""
    messages = [message(0, n, 10 * n) for n in range(7)]
    whole = pq.read_table(pa.BufferReader(layout.encode_file(messages, layout.Footer("frames", 0, 0, 7, "c", "t", 2))))
    with pq.ParquetWriter(path := tmp_path / "file", whole.schema) as writer:
        for first, until in ((0, 2), (2, 2), (2, 4), (4, 7)):
            writer.write_table(whole.slice(first, until - first))
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups >= 3
        assert [m.offset for m in layout.messages_from(file, offset)] == [*range(offset, 7)]
        assert layout.first_at(file, 10 * offset) == (offset if offset < 7 else None)


def test_a_late_timestamp_neither_reorders_its_partition_nor_lets_it_run_ahead(tmp_path: Path) -> None:
    write(tmp_path, [message(0, 0, 30), message(0, 1, 5), message(0, 2, 31), message(1, 0, 20), message(1, 1, 30)])
    assert places(read_all(opened(tmp_path))) == [(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]


def test_partitions_interleave_by_offset_when_asked(tmp_path: Path) -> None:
    write(tmp_path, [message(0, 0, 9), message(0, 1, 9), message(1, 0, 1), message(1, 1, 1)])
    assert places(read_all(opened(tmp_path, "offset"))) == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_a_seed_shuffles_the_interleaving_repeatably_and_keeps_each_partition_in_order(tmp_path: Path) -> None:
    write(tmp_path, [message(p, n, n) for p in (0, 1) for n in range(20)])
    runs = [places(read_all(opened(tmp_path, "shuffled", seed))) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    for run in runs:
        for partition in (0, 1):
            assert [place for place in run if place[0] == partition] == [(partition, n) for n in range(20)]


def test_offsets_that_the_broker_no_longer_had_are_holes_and_not_an_end(tmp_path: Path) -> None:
    write(tmp_path, [message(0, n) for n in (5, 9, 10, 40, 41)], file_messages=2)
    source = opened(tmp_path)
    assert source.log.bounds(TopicPartition("frames", 0)) == (5, 42)
    assert places(read_all(source)) == [(0, n) for n in (5, 9, 10, 40, 41)]


def test_seeking_into_a_hole_goes_on_with_the_next_message(tmp_path: Path) -> None:
    write(tmp_path, [message(0, n) for n in (5, 9, 10, 40, 41)], file_messages=2)
    with closing(opened(tmp_path)) as source:
        tps = source.poll(0.0).assigned
        for tp in tps:
            source.seek(tp, 11)
        source.resume(tps)
        assert places(source.poll(0.0).messages) == [(0, 40), (0, 41)]


def test_a_poll_delivers_no_more_than_asked_for(tmp_path: Path) -> None:
    write(tmp_path, [message(0, n) for n in range(10)])
    with closing(opened(tmp_path, max_poll_records=4)) as source:
        tps = source.poll(0.0).assigned
        for tp in tps:
            source.seek(tp, 0)
        source.resume(tps)
        assert [len(source.poll(0.0).messages) for _ in range(4)] == [4, 4, 2, 0]


def test_memory_is_bounded_by_row_groups_and_not_by_the_recording(tmp_path: Path) -> None:
    size = 1 << 20
    write(tmp_path, [message(0, n, value=bytes([n]) * size) for n in range(96)], file_messages=48)
    with closing(opened(tmp_path, max_poll_records=1)) as source:
        tps = source.poll(0.0).assigned
        for tp in tps:
            source.seek(tp, 0)
        source.resume(tps)
        tracemalloc.start()
        try:
            count = held = 0
            before = pa.total_allocated_bytes()
            while not source.exhausted:
                count += len(source.poll(0.0).messages)
                held = max(held, pa.total_allocated_bytes() - before)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count == 96
    assert peak < 8 * size  # Python's own: some messages; the recording held whole would be 96
    assert held < 3 * layout.ROW_GROUP_BYTES  # Arrow's: the row group that is read, and its successor
    groups = pq.ParquetFile(tmp_path / layout.key_of(TopicPartition("frames", 0), 0)).metadata
    assert groups.num_row_groups == 6


def test_a_folder_without_a_recording_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"_recording\.json.*adawise record"):
        opened(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"topic": "frames"}', "\x00"])
def test_a_manifest_that_is_none_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(SourceError, match=r"_recording\.json"):
        opened(tmp_path)


def test_a_recording_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [message(0, 0)])
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(SourceError, match=r"format 2.*newer version"):
        opened(tmp_path)


def test_a_missing_file_in_the_middle_is_noticed_where_it_is_missing(tmp_path: Path) -> None:
    write(tmp_path, [message(0, n) for n in range(9)])
    (tmp_path / layout.key_of(TopicPartition("frames", 0), 3)).unlink()
    with pytest.raises(SourceError, match="ends at offset 3: a file of the recording is missing"):
        read_all(opened(tmp_path))


def test_a_renamed_file_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, [message(0, n) for n in range(3)])
    tp = TopicPartition("frames", 0)
    (tmp_path / layout.key_of(tp, 0)).rename(tmp_path / layout.key_of(tp, 7))
    with pytest.raises(SourceError, match="not be renamed"):
        opened(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_file_is_an_error_that_names_it_and_never_wrong_messages(tmp_path: Path, damage: str) -> None:
    write(tmp_path, [message(0, n, value=bytes([65 + n]) * 1000) for n in range(6)])
    path = tmp_path / layout.key_of(TopicPartition("frames", 0), 0)
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "empty":
        data.clear()
    else:
        data[data.index(b"A" * 100)] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"0{20}\.parquet"):
        read_all(opened(tmp_path))


def test_foreign_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, [message(0, n) for n in range(3)])
    folder = tmp_path / layout.folder(TopicPartition("frames", 0))
    (folder / "README.txt").write_text("notes")
    (folder / "00000000000000000000.parquet.bak").write_bytes(b"")
    assert len(read_all(opened(tmp_path))) == 3


def test_a_partition_that_was_not_recorded_is_a_source_error(tmp_path: Path) -> None:
    write(tmp_path, [message(0, 0)])
    with closing(opened(tmp_path)) as source, pytest.raises(SourceError, match=r"frames/0 to frames/1.*frames/2"):
        source.log.bounds(TopicPartition("frames", 2))


def test_the_files_read_as_one_table_in_other_tools(tmp_path: Path) -> None:
    import duckdb
    import polars

    write(tmp_path, [message(p, n) for p in (0, 1) for n in range(4)])
    pattern = f"{tmp_path}/topic-frames/*/*.parquet"
    assert polars.read_parquet(pattern)["offset"].to_list() == [0, 1, 2, 3] * 2
    with closing(duckdb.connect()) as connection:
        rows = connection.sql(f"select \"partition\", count(*) from '{pattern}' group by 1 order by 1").fetchall()
    assert rows == [(0, 4), (1, 4)]


def test_a_time_that_is_none_is_not_believed_whoever_stored_it(tmp_path: Path) -> None:
    """Earlier versions stored any number that a producer had set."""
    times = [1_000, 2**62, 2_000, -5, 3_000]
    write(tmp_path, [message(0, offset, at) for offset, at in enumerate(times)], file_messages=2)
    assert [m.timestamp_ms for m in read_all(opened(tmp_path))] == [1_000, -1, 2_000, -1, 3_000]
    with closing(opened(tmp_path)) as source:
        assert [source.log.offset_at(TopicPartition("frames", 0), at) for at in (0, 1_001, 2_001, 3_001)] == [
            0,
            2,
            4,
            None,
        ]
