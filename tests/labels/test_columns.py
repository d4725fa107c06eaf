"""Labels on disk: a recording of their topic with, beside each message, what was read from it; once, whatever dies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from adawise.labels.columns import LabelColumns
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.recording.run import Bounds, record
from adawise.records import Message, TopicPartition
from tests.fakes import FakeSource

TP = TopicPartition("truth", 0)
IDENTITY = TopicIdentity("fake-cluster", "fake-topic", 1)
POINTS = ("encoded", "temp_written", "linked", "folder_synced", "created")


class Killed(BaseException):
    """What a kill is to a test in this process: nothing runs after it."""


def sent(count: int, first: int = 0) -> list[Message]:
    values = [json.dumps({"row_id": f"frames/0/{n}/0", "label": f"class {n % 3}"}) for n in range(first, first + count)]
    return [
        Message("truth", 0, n, None, value.encode(), timestamp_ms=1000 + n) for n, value in enumerate(values, first)
    ]


def recorder_in(root: Path, columns: LabelColumns | None = None, **options: Any) -> Recorder:
    return Recorder(
        str(root),
        topic="truth",
        identity=IDENTITY,
        policy=FilePolicy(10, 1 << 30, 1e9),
        max_buffered_bytes=1 << 30,
        beside=columns or LabelColumns(),
        **{"on_race": "adopt", **options},
    )


def source_of(messages: Sequence[Message], **options: Any) -> FakeSource:
    return FakeSource(messages, topic="truth", **options)


def stored(root: Path) -> list[tuple[int, str]]:
    """(offset, row id) as DuckDB reads them."""
    query = 'SELECT "offset", unnest(labels).row_id FROM read_parquet(?) ORDER BY ALL'
    with duckdb.connect() as connection:
        return connection.execute(query, [f"{root}/topic-truth/*/*.parquet"]).fetchall()


def expected(count: int) -> list[tuple[int, str]]:
    return [(n, f"frames/0/{n}/0") for n in range(count)]


def test_labels_lie_beside_their_messages_and_a_later_run_goes_on(tmp_path: Path) -> None:
    record(source_of(sent(25)), recorder_in(tmp_path), Bounds(until_drained=True))
    record(source_of(sent(30)), recorder_in(tmp_path), Bounds(until_drained=True))
    assert stored(tmp_path) == expected(30)
    first = pq.read_table(tmp_path / "topic-truth" / "partition-00000" / f"{0:020d}.parquet")
    assert first["value"].to_pylist() == [message.value for message in sent(10)]
    assert first["timestamp_ms"].to_pylist() == list(range(1000, 1010))


def test_what_cannot_be_read_is_kept_with_its_reason_and_counted(tmp_path: Path) -> None:
    columns = LabelColumns()
    bad = [Message("truth", 0, 3, None, b"no label"), Message("truth", 0, 4, None, b"no label")]
    record(source_of([*sent(3), *bad]), recorder_in(tmp_path, columns), Bounds(until_drained=True))
    assert (columns.labels, columns.unread) == (3, 2)
    assert list(columns.problems.values()) == [2]
    table = pq.read_table(tmp_path / "topic-truth")
    assert table["value"].to_pylist()[3:] == [b"no label"] * 2
    assert "expected JSON" in table["labels"].to_pylist()[3][0]["problem"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("time", [1, 2])
def test_killed_at_any_point_the_next_run_completes_each_label_once(tmp_path: Path, point: str, time: int) -> None:
    reached = 0

    def die(at: str) -> None:
        nonlocal reached
        reached += at == f"recording.{point}"
        if reached == time:
            raise Killed

    # The folder's own document is created by the same store, at the same points.
    recorder_in(tmp_path)
    with pytest.raises(Killed):
        record(source_of(sent(35)), recorder_in(tmp_path, failpoint=die), Bounds(until_drained=True))
    record(source_of(sent(35)), recorder_in(tmp_path), Bounds(until_drained=True))
    assert stored(tmp_path) == expected(35)


def test_of_two_consumers_of_a_partition_the_slower_one_goes_on_after_what_the_other_wrote(tmp_path: Path) -> None:
    first, second = recorder_in(tmp_path), recorder_in(tmp_path)
    for recorder in (first, second):
        recorder.begin(TP, 0)
    first.append(sent(6), 0.0)
    second.append(sent(8), 0.0)
    first.flush()
    second.flush()
    assert stored(tmp_path) == expected(8)
    first.append(sent(6, first=6), 0.0)  # it does not know yet that 6 and 7 are there
    first.flush()
    assert stored(tmp_path) == expected(12)
    second.append(sent(2, first=8), 0.0)
    second.flush()  # the other has gone further than it has read
    second.append(sent(6, first=10), 0.0)
    second.flush()
    assert stored(tmp_path) == expected(16)


def test_what_the_broker_deleted_unread_is_a_gap_where_gaps_are_skipped(tmp_path: Path) -> None:
    record(source_of(sent(5)), recorder_in(tmp_path), Bounds(until_drained=True))
    later = source_of(sent(6, first=8))
    later.starts[TP] = 8
    record(later, recorder_in(tmp_path), Bounds(until_drained=True), skip_gaps=True)
    assert [offset for offset, _ in stored(tmp_path)] == [*range(5), *range(8, 14)]
    recorder = recorder_in(tmp_path)
    assert recorder.next_offset(TP) == 14
    footer = pq.read_metadata(tmp_path / "topic-truth" / "partition-00000" / f"{5:020d}.parquet").metadata
    assert json.loads(footer[b"adawise.recording"])["gaps"] == [[5, 8]]
