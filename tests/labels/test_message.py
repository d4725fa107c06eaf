"""Labels of messages that anybody may have sent: what can be read is read, what cannot is told and kept."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from adawise.labels.message import MAX_LABELS, Label, read_labels
from adawise.records import Message

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
