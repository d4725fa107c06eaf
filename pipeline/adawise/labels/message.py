"""Messages of a label topic: which image a label is for, and what the image shows; and the column of these in files.

The value is a JSON object, or an array of them, or an Arrow IPC stream with these as columns:

    {"row_id": "frames/0/17/0", "label": "car"}
    {"stream_id": "gate-01", "captured_at": "2026-05-01T12:00:00.25Z", "label": "car"}

An optional `labelled_at` (a time) says when the label was decided; without it the broker's timestamp counts. If a label
names neither row nor stream, the key does: a row id or a stream id. `"label": null` withdraws an earlier label, and so
does a message without a value whose key is a row id. An unreadable label becomes one with a `problem`, so that nothing
is lost unnoticed.

The files are a recording of the topic, in which each message has the labels that were read from it. DuckDB reads them:

    SELECT unnest(labels, recursive := true) FROM 'ROOT/labels/topic-*/*/*.parquet'
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from adawise.decode.arrow_stream import (
    ARROW_ERRORS,
    checked_batches,
    checked_schema,
    first_bytes,
    is_text,
    microseconds,
)
from adawise.decode.headers import check_timestamp, parse_timestamp
from adawise.errors import InvalidMessage
from adawise.records import Message, TopicPartition

MAX_LABELS = 10_000
"""The most labels that one message may have."""

_LEAST_BYTES = 8  # of a label: fewer cannot identify an image
_MAX_TEXT_BYTES = 1_024
_ROW_ID = re.compile(r"[^/]{1,249}/[0-9]{1,9}/[0-9]{1,18}/[0-9]{1,9}")
_ARROW = b"\xff\xff\xff\xff"
_TEXTS, _TIMES = ("row_id", "stream_id", "label"), ("captured_at", "labelled_at")
_EXPECTED = "label and row_id, or label, stream_id and captured_at"
_SHOWN = 80  # characters of a value that are shown
_PROBLEM_TEXT = 400  # characters of a problem


@dataclass(frozen=True, slots=True)
class Label:
    """The label of one image, which is named by its row or by its stream and time.

    `label` is None if an earlier one is withdrawn. With a `problem` (what was expected and what came), the other fields
    mean nothing.
    """

    row_id: str | None = None
    stream_id: str | None = None
    captured_at_us: int | None = None
    label: str | None = None
    labelled_at_us: int | None = None
    problem: str | None = None


class _Microseconds(int):
    """A time from an Arrow column, whose unit is known; a number in JSON may mean anything."""


class _Unread(Exception):
    """Raised for an unreadable label; the message says what was expected and what came."""


def read_labels(message: Message) -> list[Label]:
    """Return the labels of a message, in its order; there is at least one, and no error is raised."""
    key = _key(message.key)
    try:
        if message.value is None:
            return [_withdrawn(key)]
        rows = _arrow(message.value) if message.value.startswith(_ARROW) else _json(message.value)
        found = [_label(row, key) for row in rows]
    except (_Unread, InvalidMessage) as error:
        return [_problem(error)]
    return found or [Label(problem="expected labels, got none")]


def _problem(error: Exception) -> Label:
    """Return a label with the problem, cut short, as text that a file can hold."""
    return Label(problem=str(error)[:_PROBLEM_TEXT].encode("utf-8", "replace").decode())


def _key(raw: bytes | None) -> str | None:
    try:
        return raw[: _MAX_TEXT_BYTES + 1].decode() if raw else None
    except UnicodeDecodeError:
        return None


def _withdrawn(key: str | None) -> Label:
    if key is None or not _ROW_ID.fullmatch(key):
        raise _Unread(f"expected a row id as the key of a message without a value, got {_show(key)}")
    return Label(row_id=key)


def _json(value: bytes) -> list[Any]:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        detail = str(error).partition("\n")[0] or type(error).__name__
        raise _Unread(f"expected JSON or an Arrow IPC stream, got {_show(value)}: {detail}") from error
    rows = found if isinstance(found, list) else [found]
    if len(rows) > _most(value):
        raise _Unread(f"expected at most {_most(value)} labels in a message of {len(value)} bytes, got {len(rows)}")
    return rows


def _most(value: bytes) -> int:
    """Return how many labels a value may hold: memory grows with labels, while other limits are in bytes."""
    return max(1, min(MAX_LABELS, len(value) // _LEAST_BYTES))


def _arrow(value: bytes) -> list[Any]:
    try:
        return list(_arrow_rows(value))
    except ARROW_ERRORS as error:
        raise _Unread(f"expected an Arrow IPC stream, got {len(value)} bytes that are not: {error}") from error


def _arrow_rows(value: bytes) -> Iterator[Mapping[str, Any]]:
    schema = checked_schema(value)
    columns = {name: schema.get_all_field_indices(name) for name in (*_TEXTS, *_TIMES)}
    for name, places in columns.items():
        if len(places) > 1:
            raise _Unread(f"expected the column {name} once, got it {len(places)} times")
        fits = all(is_text(schema.types[i]) if name in _TEXTS else _is_time(schema.types[i]) for i in places)
        if not fits:
            kind = "utf8" if name in _TEXTS else "a timestamp"
            raise _Unread(f"column {name}: expected {kind}, got {schema.types[places[0]]}")
    if not columns["label"]:
        raise _Unread(f"expected {_EXPECTED}, got the columns {', '.join(schema.names)[:_SHOWN] or 'none'}")
    used = sorted(place for places in columns.values() for place in places)
    for batch in checked_batches(value, used, max_rows=_most(value), limit=f"of {len(value)} bytes"):
        found = {name: batch.column(name) for name in batch.schema.names}
        times = {name: microseconds(found[name]) for name in _TIMES if name in found}
        for row in range(batch.num_rows):
            texts = {name: _arrow_text(found[name][row]) for name in _TEXTS if name in found}
            at = {name: column[row] for name, column in times.items()}
            yield texts | {name: None if us is None else _Microseconds(us) for name, us in at.items()}


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind))


def _arrow_text(scalar: Any) -> str | None:
    """Return the beginning of a text, long enough that a text over the limit is still rejected."""
    raw = first_bytes(scalar, _MAX_TEXT_BYTES + 1)
    return None if raw is None else raw.decode("utf-8", "replace")


def _label(row: Any, key: str | None) -> Label:
    """Return the label of one entry, complete and checked, or its problem."""
    try:
        if not isinstance(row, Mapping):
            raise _Unread(f"expected a JSON object with {_EXPECTED}, got {_show(row)}")
        label = Label(
            row_id=_text(row, "row_id"),
            stream_id=_text(row, "stream_id"),
            captured_at_us=_time(row, "captured_at"),
            label=_text(row, "label"),
            labelled_at_us=_time(row, "labelled_at"),
        )
        if "label" not in row:
            raise _Unread(f"expected {_EXPECTED}, got {', '.join(map(str, row))[:_SHOWN] or 'nothing'}")
        return _identified(label, key)
    except (_Unread, InvalidMessage) as error:
        return _problem(error)


def _identified(label: Label, key: str | None) -> Label:
    if label.row_id is None and label.stream_id is None and key is not None:
        label = replace(label, row_id=key) if _ROW_ID.fullmatch(key) else replace(label, stream_id=key)
    if label.row_id is not None and not _ROW_ID.fullmatch(label.row_id):
        raise _Unread(f"row_id: expected topic/partition/offset/index, got {_show(label.row_id)}")
    if label.row_id is None and (label.stream_id is None or label.captured_at_us is None):
        raise _Unread(f"expected {_EXPECTED}, got a label without row_id, and without stream_id or captured_at")
    return label


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _Unread(f"{name}: expected text, got {_show(value)}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:  # JSON may contain an unpaired surrogate
        raise _Unread(f"{name}: expected Unicode text, got half a character in {_show(value)}") from error
    if not 0 < size <= _MAX_TEXT_BYTES:
        raise _Unread(f"{name}: expected 1 to {_MAX_TEXT_BYTES} bytes of text, got {size}")
    return value.strip() or None


def _time(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, _Microseconds):
        return check_timestamp(value)
    if not isinstance(value, str):
        raise _Unread(f"{name}: expected RFC 3339, as 2026-05-01T12:00:00.25Z, got {_show(value)}")
    return parse_timestamp(value.encode("utf-8", "replace"))


def _show(value: Any) -> str:
    return repr(value[:_SHOWN] if isinstance(value, (str, bytes)) else value)[:_SHOWN]


_TIME = pa.timestamp("us", tz="UTC")
LABEL = pa.struct(
    [
        pa.field("row_id", pa.string()),
        pa.field("stream_id", pa.string()),
        pa.field("captured_at", _TIME),
        pa.field("label", pa.string()),  # null: an earlier label is withdrawn
        pa.field("labelled_at", _TIME),
        pa.field("problem", pa.string()),  # null: it could be read
    ]
)
FIELD = pa.field("labels", pa.list_(pa.field("element", LABEL, nullable=False)), nullable=False)


@dataclass(slots=True)
class LabelColumns:
    """The column `labels` of a file, with counts of the labels so far.

    A message counts once, even if its file is written again because the store did not accept it.
    """

    labels: int = 0
    unread: int = 0
    problems: dict[str, int] = field(default_factory=dict)

    fields: tuple[pa.Field, ...] = (FIELD,)
    _counted: dict[TopicPartition, int] = field(default_factory=dict)  # offsets below this one are counted

    def columns(self, messages: Sequence[Message]) -> list[pa.Array]:
        """Return one list of labels for each message; the messages of a partition are consecutive."""
        found = [read_labels(message) for message in messages]
        for message, labels in zip(messages, found, strict=True):
            if message.offset >= self._counted.get(message.topic_partition, 0):
                self._counted[message.topic_partition] = message.next_offset
                self._count(labels)
        return [pa.array([[_plain(label) for label in labels] for labels in found], FIELD.type)]

    def _count(self, labels: Sequence[Label]) -> None:
        for label in labels:
            self.labels += label.problem is None
            if label.problem is not None:
                self.unread += 1
                if label.problem in self.problems or len(self.problems) < _PROBLEMS:
                    self.problems[label.problem] = self.problems.get(label.problem, 0) + 1


_PROBLEMS = 20  # distinct ones that are counted separately


def _plain(label: Label) -> dict[str, object]:
    cells = asdict(label)
    return {name.removesuffix("_us"): value for name, value in cells.items()}
