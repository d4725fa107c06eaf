"""Labels of messages that anybody may have sent: what can be read is read, what cannot is told and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.labels.message import MAX_LABELS, Label, LabelColumns, read_labels
from adawise.ports import TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.recording.run import Bounds, record
from adawise.records import Message, TopicPartition
from tests.fakes import FakeSource

ROW = "frames/0/17/0"
NOON = "2026-05-01T12:00:00.25Z"
NOON_US = 1_777_636_800_250_000
TINY = pa.dictionary(pa.int8(), pa.string())


def message(value: bytes | None, key: bytes | None = None) -> Message:
    return Message("labels", 0, 0, key, value)


def labels(value: Any, key: bytes | None = None) -> list[Label]:
    return read_labels(message(json.dumps(value).encode(), key))


def arrow(columns: dict[str, Any], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=5_000)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def problem(found: list[Label]) -> str:
    assert len(found) == 1
    assert found[0].problem is not None
    assert found[0] == Label(problem=found[0].problem)
    return found[0].problem


def test_a_label_of_a_row() -> None:
    assert labels({"row_id": ROW, "label": "car"}) == [Label(row_id=ROW, label="car")]


def test_a_label_of_a_stream_at_a_time_and_when_it_was_decided() -> None:
    found = labels({"stream_id": "gate", "captured_at": NOON, "label": "car", "labelled_at": NOON, "who": "me"})
    assert found == [Label(stream_id="gate", captured_at_us=NOON_US, label="car", labelled_at_us=NOON_US)]


def test_an_array_is_several_labels_of_which_a_bad_one_spoils_no_other() -> None:
    found = labels([{"row_id": ROW, "label": "car"}, {"row_id": ROW}, {"row_id": ROW, "label": None}])
    assert [each.label for each in found] == ["car", None, None]
    assert [each.problem is None for each in found] == [True, False, True]


@pytest.mark.parametrize(
    ("key", "expected"),
    [(ROW.encode(), Label(row_id=ROW, label="car")), (b"gate", Label(stream_id="gate", label="car"))],
)
def test_the_key_says_what_the_value_does_not(key: bytes, expected: Label) -> None:
    value = {"label": "car"} | ({"captured_at": NOON} if key == b"gate" else {})
    found = labels(value, key)
    assert [(each.row_id, each.stream_id, each.label) for each in found] == [
        (expected.row_id, expected.stream_id, "car")
    ]


def test_a_row_id_of_the_value_goes_before_the_key() -> None:
    assert labels({"row_id": ROW, "label": "car"}, b"frames/0/1/0") == [Label(row_id=ROW, label="car")]


def test_no_value_under_a_row_id_takes_back() -> None:
    assert read_labels(message(None, ROW.encode())) == [Label(row_id=ROW)]
    assert "expected a row id as the key" in problem(read_labels(message(None, b"gate")))
    assert "expected a row id as the key" in problem(read_labels(message(None)))


def test_labels_of_an_arrow_stream_in_their_order() -> None:
    times = pa.array([NOON_US // 1000, None, NOON_US // 1000], pa.timestamp("ms"))
    columns = {
        "row_id": pa.array([None, ROW, None]),
        "stream_id": pa.array(["gate", None, "yard"]).dictionary_encode(),
        "captured_at": times,
        "label": pa.array(["car", None, "dog"], pa.string_view()),
        "more": pa.array([1, 2, 3]),
    }
    assert read_labels(message(arrow(columns))) == [
        Label(stream_id="gate", captured_at_us=NOON_US, label="car"),
        Label(row_id=ROW),
        Label(stream_id="yard", captured_at_us=NOON_US, label="dog"),
    ]


BAD: list[tuple[bytes, str]] = [
    (b"", "expected JSON or an Arrow IPC stream"),
    (b"\x80{", "expected JSON or an Arrow IPC stream"),
    (b"car", "expected JSON or an Arrow IPC stream"),
    (b"[" * 100_000, "expected JSON or an Arrow IPC stream"),
    (b"[]", "expected labels, got none"),
    (b"3", "expected a JSON object with label and row_id"),
    (b'{"row_id": "frames/0/17/0"}', "expected label and row_id, .* got row_id"),
    (b'{"label": "car"}', "without row_id, and without stream_id or captured_at"),
    (b'{"label": "car", "stream_id": "gate"}', "without row_id, and without stream_id or captured_at"),
    (b'{"label": 3, "row_id": "frames/0/17/0"}', "label: expected text, got 3"),
    (b'{"label": "", "row_id": "frames/0/17/0"}', "label: expected 1 to 1024 bytes of text, got 0"),
    (b'{"label": "\\ud800", "row_id": "frames/0/17/0"}', "label: expected Unicode text"),
    (b'{"label": "car", "row_id": "17"}', "row_id: expected topic/partition/offset/index, got '17'"),
    (b'{"label": "car", "stream_id": "a", "captured_at": 1777636800}', "captured_at: expected RFC 3339"),
    (b'{"label": "car", "stream_id": "a", "captured_at": "noon"}', "expected RFC 3339 with an offset"),
    (b'{"label": "car", "stream_id": "a", "captured_at": true}', "captured_at: expected RFC 3339"),
    (json.dumps({"label": "c" * 2000, "row_id": ROW}).encode(), "label: expected 1 to 1024 bytes of text, got 2000"),
    (json.dumps([{"label": "a"}] * (MAX_LABELS + 1)).encode(), "expected at most 10000 labels"),
    (b"[" + b"{}," * 100 + b"{}]", "expected at most 38 labels in a message of 304 bytes, got 101"),
    (
        arrow({name: pa.array([name] * 9_000).dictionary_encode().cast(TINY) for name in ("label", "row_id")}),
        "too_many_rows: expected at most [0-9]{4} rows",
    ),
    (b"\xff\xff\xff\xff\x10\x00\x00\x00", "expected an Arrow IPC stream|bad_arrow"),
    (arrow({"label": pa.array([1]), "row_id": pa.array([ROW])}), "column label: expected utf8, got int64"),
    (arrow({"row_id": pa.array([ROW])}), "expected label and row_id, .* got the columns row_id"),
    (arrow({"image": pa.array([b""])}), "expected label and row_id, .* got the columns image"),
    (b'{"\\ud800": "half a character"}', "expected label and row_id"),
    (arrow({"label": pa.array(["x" * 2000]), "row_id": pa.array([ROW])}), "label: expected 1 to 1024 bytes"),
    (
        arrow({"label": ["a"], "row_id": [ROW]}, options=pa.ipc.IpcWriteOptions(compression="zstd")),
        "bad_arrow",
    ),
    (arrow({"label": ["a"] * (MAX_LABELS + 1), "row_id": [ROW] * (MAX_LABELS + 1)}), "bad_arrow|too_many_rows"),
]


@pytest.mark.parametrize(("value", "expected"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_read_is_told_and_never_an_error(value: bytes, expected: str) -> None:
    with pytest.raises(AssertionError, match=expected):
        raise AssertionError(problem(read_labels(message(value))))


@pytest.mark.parametrize("value", [{"row_id": "x" * 1000, "label": "car"}, {"\ud800" * 1000: 1}, {"row_id": 10**300}])
def test_a_problem_is_short_text_whatever_came(value: Any) -> None:
    output = problem(labels(value))
    assert len(output) <= 400
    assert output.encode()


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
