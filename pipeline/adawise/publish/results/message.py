"""Messages of results: a JSON object or an Arrow table, with CloudEvents headers in Kafka's binary mode. Pure.

Results are made from the batch that the worker holds; `sink.columns` reads equal ones from a segment.

One table of fields defines a result; the JSON, the Arrow schema and the JSON Schema of the reference follow from it. A
message has one image, or the images of one batch. Its id contains the attempt: a message that is sent twice is the same
event, and results of two workers for the same image are two events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import orjson
import pyarrow as pa

from adawise.decode.arrow_batch import ARROW_STREAM
from adawise.decode.headers import TRACEPARENT, TRACESTATE, continued, is_traceparent
from adawise.ports import Served
from adawise.records import Frame, LabelColumn, RowResult, status_of

Per: TypeAlias = Literal["image", "batch"]
Form: TypeAlias = Literal["json", "arrow"]
Headers: TypeAlias = tuple[tuple[str, bytes], ...]

IMAGE, BATCH = "adawise.result.image", "adawise.result.batch"
"""Types of events."""

JSON = "application/json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT, NUMBER, _INTEGER = pa.string(), pa.float64(), pa.int64()
_LIST = {"texts": pa.list_(pa.field("element", pa.string())), "numbers": pa.list_(pa.field("element", pa.float64()))}
TIME = pa.timestamp("us", tz="UTC")
_STATUSES = ("accepted", "rejected", "skipped")

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class EventField(Generic[Subject]):
    """One field of a value: its name, Arrow type and description, and `of`, which computes it from subject and attempt.

    `values` lists the values that a field of text may have, if they are few. The `optional` fields are left out
    together where all of them are null: in JSON for each image, in Arrow where that holds for every image of the
    message.
    """

    name: str
    kind: pa.DataType
    description: str
    of: Callable[[Subject, str], Any]
    nullable: bool = True
    values: tuple[str, ...] = ()
    optional: bool = False


def its(name: str) -> Callable[[Any, str], Any]:
    """Return a function that returns an attribute of the subject."""
    return lambda subject, _: getattr(subject, name)


def _stamp_us(result: RowResult) -> int | None:
    return None if result.kafka_timestamp_ms is None else 1_000 * result.kafka_timestamp_ms


def _agreement(result: RowResult) -> bool | None:
    ends = result.zero_shot_label, result.fine_tuned_label
    return None if None in ends else ends[0] == ends[1]


FIELDS: Sequence[EventField[RowResult]] = (
    EventField(
        "row_id",
        TEXT,
        "topic/partition/offset/index of the image: stable for ever, the same in every duplicate",
        lambda r, _: str(r.row_id),
        False,
    ),
    EventField("topic", TEXT, "Kafka topic of the image", lambda r, _: r.row_id.topic, False),
    EventField("partition", _INTEGER, "its partition", lambda r, _: r.row_id.partition, False),
    EventField("offset", _INTEGER, "its offset", lambda r, _: r.row_id.offset, False),
    EventField("index", _INTEGER, "position of the image in its message, from 0", lambda r, _: r.row_id.index, False),
    EventField("stream_id", TEXT, "the camera; null only if the message did not say", its("stream_id")),
    EventField("frame_id", TEXT, "the producer's own id of the image; null if it gave none", its("frame_id")),
    EventField(
        "captured_at", TIME, "when the camera took the image; null if the producer did not say", its("captured_at_us")
    ),
    EventField(
        "kafka_timestamp", TIME, "the broker's timestamp; null if the broker has none", lambda r, _: _stamp_us(r)
    ),
    EventField("status", TEXT, "accepted, rejected, or skipped (a tombstone)", its("status"), False, _STATUSES),
    EventField("reason", TEXT, "why the image was not accepted, a stable word; null if accepted", its("reason")),
    EventField("detail", TEXT, "the reason in a sentence; null if accepted", its("detail")),
    EventField("label", TEXT, "the served class; null if not accepted", its("label")),
    EventField(
        "confidence", NUMBER, "probability of label; null if not accepted, or if the scene has none", its("confidence")
    ),
    EventField(
        "top_labels", _LIST["texts"], "predict.top_k classes, best first; null if not accepted", its("top_labels")
    ),
    EventField(
        "top_probabilities",
        _LIST["numbers"],
        "probabilities of top_labels; null if not accepted",
        its("top_probabilities"),
    ),
    EventField("entropy", NUMBER, "entropy of the served distribution, nats; null if not accepted", its("entropy")),
    EventField(
        "alpha", NUMBER, "mixing coefficient that served the image, from 0 to 1; null if not accepted", its("alpha")
    ),
    EventField(
        "batch_number",
        _INTEGER,
        "number of the image's batch in the stream, from 0; null if not accepted",
        its("batch_number"),
    ),
    EventField(
        "zero_shot_label", TEXT, "class at alpha 0; null if not evaluated on this image", its("zero_shot_label")
    ),
    EventField(
        "zero_shot_confidence",
        NUMBER,
        "probability of zero_shot_label; null if not evaluated",
        its("zero_shot_confidence"),
    ),
    EventField(
        "fine_tuned_label", TEXT, "class at alpha 1; null if not evaluated on this image", its("fine_tuned_label")
    ),
    EventField(
        "fine_tuned_confidence",
        NUMBER,
        "probability of fine_tuned_label; null if not evaluated",
        its("fine_tuned_confidence"),
    ),
    EventField(
        "agreement",
        pa.bool_(),
        "true if zero_shot_label and fine_tuned_label are the same; null unless both were evaluated",
        lambda r, _: _agreement(r),
    ),
    EventField(
        "predicted_at",
        TIME,
        "when the image was predicted, by the worker's clock; null if not accepted",
        its("predicted_at_us"),
    ),
    EventField(
        "model_fingerprint",
        TEXT,
        "fingerprint of checkpoints, classes, preprocessing and precision",
        its("model_fingerprint"),
        False,
    ),
    EventField(
        "attempt",
        TEXT,
        "the worker's attempt at the row's segment: the row is final if the segment has this attempt",
        lambda _, attempt: attempt,
        False,
    ),
    EventField(
        "traceparent",
        TEXT,
        "W3C trace context of the image's message; null if it has none",
        lambda r, _: r.meta.get(TRACEPARENT),
    ),
    EventField(
        "scene_label",
        TEXT,
        "the class, corrected by what the camera has shown; absent if not accepted, and without scene.prior",
        its("scene_label"),
        optional=True,
    ),
    EventField(
        "scene_confidence",
        NUMBER,
        "probability of scene_label, likewise corrected; absent as that, null if it is not finite",
        its("scene_confidence"),
        optional=True,
    ),
    EventField(
        "label_column",
        TEXT,
        "the column of the output that label and confidence are of: label, or scene_label with scene.prior = served; "
        "absent as scene_label",
        its("label_column"),
        values=("label", "scene_label"),
        optional=True,
    ),
)

ARROW_SCHEMA = pa.schema([pa.field(field.name, field.kind, nullable=field.nullable) for field in FIELDS])


@dataclass(frozen=True, slots=True, eq=False)
class EventMessage:
    """A record for the topic of results.

    `shorten` returns messages with fewer images or fewer labels; None if it cannot be shortened.
    """

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers
    shorten: Callable[[], Sequence[EventMessage]] | None = None

    @property
    def timestamp_ms(self) -> int | None:
        """See `publish.outbox.Outgoing`."""
        return None

    @property
    def size_bytes(self) -> int:
        """See `publish.outbox.Outgoing`."""
        of_headers = sum([len(name) + len(value) for name, value in self.headers])
        return len(self.key or b"") + len(self.value) + of_headers

    def smaller(self) -> Sequence[EventMessage]:
        """See `publish.outbox.Outgoing`."""
        return self.shorten() if self.shorten is not None else ()


@dataclass(frozen=True, slots=True)
class Envelope:
    """The common part of all events of a worker: the topic, and `source`, a URI reference of their origin."""

    topic: str
    source: str

    def headers(
        self, kind: str, event_id: str, subject: str | None, at_us: int | None, content_type: str = JSON
    ) -> Headers:
        """Return the headers of a CloudEvent in binary mode; `subject` is the camera, `at_us` when it happened."""
        return (*_of_kind(content_type, kind, self.source), ("ce_id", text(event_id)), *_of_batch_too(subject, at_us))


@lru_cache
def _of_kind(content_type: str, kind: str, source: str) -> Headers:
    """Return the headers that all events of a kind share."""
    headers = {"content-type": content_type, "ce_specversion": "1.0", "ce_type": kind, "ce_source": source}
    return tuple((name, text(value)) for name, value in headers.items())


@lru_cache
def _of_batch_too(subject: str | None, at_us: int | None) -> Headers:
    """Return the headers that all events of a batch share."""
    headers = {"ce_subject": subject or None, "ce_time": None if at_us is None else moment(at_us)}
    return tuple((name, text(value)) for name, value in headers.items() if value is not None)


def messages_of(
    results: Sequence[RowResult], attempt: str, envelope: Envelope, *, per: Per, form: Form
) -> list[EventMessage]:
    """Return the messages of the results of one batch, or of one image that was not accepted."""
    if per == "image":
        return [_of_image(result, attempt, envelope) for result in results]
    return [_of_batch(results, attempt, envelope, form)]


def _of_image(result: RowResult, attempt: str, envelope: Envelope, labels: int | None = None) -> EventMessage:
    event_id = f"{result.row_id}@{attempt}"
    headers = envelope.headers(IMAGE, event_id, result.stream_id, result.predicted_at_us)
    value = plain(FIELDS, result, attempt)
    if labels is not None:
        value |= {name: value[name][:labels] for name in ("top_labels", "top_probabilities")}
    can_lose = labels is None and len(result.top_labels or ()) > 1
    return EventMessage(
        envelope.topic,
        _key(result.stream_id),
        encoded(value),
        headers + _trace([result], event_id),
        (lambda: [_of_image(result, attempt, envelope, labels=1)]) if can_lose else None,
    )


def _of_batch(results: Sequence[RowResult], attempt: str, envelope: Envelope, form: Form) -> EventMessage:
    first = results[0]
    event_id = f"{first.row_id}+{len(results)}@{attempt}"
    if form == "arrow":
        value, content_type = _arrow(results, attempt), ARROW_STREAM
    else:
        rows = [plain(FIELDS, result, attempt) for result in results]
        value, content_type = encoded({"stream_id": first.stream_id, "results": rows}), JSON
    headers = envelope.headers(BATCH, event_id, first.stream_id, first.predicted_at_us, content_type)

    def halves() -> list[EventMessage]:
        middle = len(results) // 2
        return [_of_batch(half, attempt, envelope, form) for half in (results[:middle], results[middle:])]

    trace = _trace(results, event_id) if len({r.row_id.offset for r in results}) == 1 else ()
    shorten = halves if len(results) > 1 else None
    return EventMessage(envelope.topic, _key(first.stream_id), value, headers + trace, shorten)


def plain(fields: Sequence[EventField[Subject]], subject: Subject, attempt: str) -> dict[str, Any]:
    """Return these fields as an object for JSON; numbers may still be nan or infinite, which `encoded` makes null."""
    body: dict[str, Any] = {}
    for field in fields:
        value = field.of(subject, attempt)
        body[field.name] = moment(value) if value is not None and field.kind is TIME else value
    optional = [field.name for field in fields if field.optional]
    if all(body[name] is None for name in optional):
        for name in optional:
            del body[name]
    return body


def _arrow(results: Sequence[RowResult], attempt: str) -> bytes:
    made = [(field, [_valid(field.of(result, attempt)) for result in results]) for field in FIELDS]
    optional = [value for field, values in made if field.optional for value in values]
    there = [each for each in made if not each[0].optional or any(value is not None for value in optional)]
    schema = pa.schema([ARROW_SCHEMA.field(field.name) for field, _ in there])
    columns = [pa.array(values, field.kind) for field, values in there]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    value: bytes = sink.getvalue().to_pybytes()
    return value


def _valid(value: Any) -> Any:
    """Return the value with strings that UTF-8 can hold."""
    if isinstance(value, str):
        return text(value).decode()
    if isinstance(value, dict):
        return {_valid(name): _valid(each) for name, each in value.items()}
    return [_valid(each) for each in value] if isinstance(value, list) else value


def _trace(results: Iterable[RowResult], span: str) -> Headers:
    """Return the headers that continue the trace of the images' message; none if it was in no trace."""
    meta: Mapping[str, str] = next(iter(results)).meta
    parent, state = meta.get(TRACEPARENT, ""), meta.get(TRACESTATE)
    if not is_traceparent(parent):
        return ()
    headers = ((TRACEPARENT, text(continued(parent, span))),)
    return headers if state is None else (*headers, (TRACESTATE, text(state)))


def _key(stream_id: str | None) -> bytes | None:
    return None if stream_id is None else text(stream_id)


@lru_cache
def moment(at_us: int) -> str:
    """Format microseconds since the epoch as RFC 3339 in UTC."""
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def encoded(value: Mapping[str, Any]) -> bytes:
    """Encode as JSON in UTF-8, with null for numbers that are not finite."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # for a string that UTF-8 cannot hold
        return orjson.dumps(_valid(value))


def text(value: str) -> bytes:
    """Encode as UTF-8; what it cannot hold (a lone surrogate, from hostile input) becomes "?"."""
    return value.encode("utf-8", "replace")


def results_of_batch(
    served: Served, classes: Sequence[str], model_fingerprint: str, column: LabelColumn | None = None
) -> list[RowResult]:
    """Return one result for each image of a batch, in its order; `column` is that of their label (`label_column`)."""
    batch, predictions, trace = served
    best, probabilities = predictions.top_index.tolist(), predictions.top_probability.tolist()
    entropies = predictions.entropy.tolist()
    ends, confidences = predictions.endpoint_index.tolist(), predictions.endpoint_confidence.tolist()
    scene = None if predictions.scene_index is None else predictions.scene_index.tolist()
    sure = None if predictions.scene_confidence is None else predictions.scene_confidence.tolist()
    found = []
    for i, frame in enumerate(batch.frames):
        (zero, fine), (zero_confidence, fine_confidence) = (
            (classes[end[i]] if end[i] >= 0 else None for end in ends),
            (_number(end[i]) for end in confidences),
        )
        found.append(
            RowResult(
                row_id=frame.row_id,
                stream_id=frame.stream_id,
                frame_id=frame.frame_id,
                captured_at_us=frame.captured_at_us,
                kafka_timestamp_ms=_stated(frame),
                status="accepted",
                reason=None,
                detail=None,
                meta=frame.meta,
                model_fingerprint=model_fingerprint,
                top_labels=[classes[index] for index in best[i]],
                top_probabilities=probabilities[i],
                entropy=entropies[i],
                zero_shot_label=zero,
                zero_shot_confidence=zero_confidence,
                fine_tuned_label=fine,
                fine_tuned_confidence=fine_confidence,
                alpha=trace.alpha,
                batch_number=trace.batch_number,
                predicted_at_us=trace.predicted_at_us,
                scene_label=None if scene is None else classes[scene[i]],
                scene_confidence=None if sure is None else _number(sure[i]),
                label_column=None if scene is None else column or "label",
            )
        )
    return found


def result_of_frame(frame: Frame, model_fingerprint: str) -> RowResult:
    """Return the result of an image that was not accepted."""
    return RowResult(
        row_id=frame.row_id,
        stream_id=frame.stream_id,
        frame_id=frame.frame_id,
        captured_at_us=frame.captured_at_us,
        kafka_timestamp_ms=_stated(frame),
        status=status_of(frame),
        reason=None if frame.reason is None else str(frame.reason),
        detail=frame.detail,
        meta=frame.meta,
        model_fingerprint=model_fingerprint,
    )


def _stated(frame: Frame) -> int | None:
    return None if frame.kafka_timestamp_ms < 0 else frame.kafka_timestamp_ms


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
