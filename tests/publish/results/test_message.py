from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from adawise.errors import Reason
from adawise.ports import Served
from adawise.publish.results.message import (
    ARROW_SCHEMA,
    BATCH,
    IMAGE,
    Envelope,
    EventMessage,
    messages_of,
    result_of_frame,
    results_of_batch,
)
from adawise.records import RowResult
from adawise.sink.columns import prediction_table, results_of
from tests.sink.building import CLASSES, TP, draft, frame, served
from tools.results_schema import json_schema

ENVELOPE = Envelope("frames.results", "/adawise/roots/r")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
VALIDATOR = jsonschema.Draft202012Validator(json_schema(), format_checker=jsonschema.FormatChecker())


SCENE = ("scene_label", "scene_confidence", "label_column")


def batch(count: int = 3) -> Served:
    frames = [replace(frame(offset), frame_id=f"f{offset}", captured_at_us=10**15 + offset) for offset in range(count)]
    images, predictions, trace = served(frames, number=7)
    return images, predictions, replace(trace, predicted_at_us=1_800_000_000_123_456)


def results(count: int = 3) -> list[RowResult]:
    return results_of_batch(batch(count), CLASSES, "model")


def value(message: EventMessage) -> Any:
    document = json.loads(message.value)
    VALIDATOR.validate(document)
    return document


def test_an_image_is_one_message_with_the_camera_as_its_key() -> None:
    first, second, _ = messages_of(results(), "a1", ENVELOPE, per="image", form="json")
    assert (first.topic, first.key) == ("frames.results", b"north")
    assert dict(first.headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_type": IMAGE.encode(),
        "ce_source": b"/adawise/roots/r",
        "ce_id": b"frames/3/0/0@a1",
        "ce_subject": b"north",
        "ce_time": b"2027-01-15T08:00:00.123456Z",
    }
    document = value(first)
    assert document["row_id"] == "frames/3/0/0"
    assert (document["label"], document["confidence"], document["status"], document["attempt"]) == (
        CLASSES[0],
        0.75,
        "accepted",
        "a1",
    )
    assert (document["top_labels"], document["top_probabilities"]) == ([CLASSES[0], CLASSES[1]], [0.75, 0.25])
    assert (document["zero_shot_label"], document["fine_tuned_label"], document["agreement"]) == (
        CLASSES[1],
        CLASSES[2],
        False,
    )
    assert (document["alpha"], document["batch_number"], document["frame_id"]) == (0.35, 7, "f0")
    assert document["captured_at"] == "2001-09-09T01:46:40.000000Z"
    assert document["kafka_timestamp"] == "2023-11-14T22:13:20.000000Z"
    not_asked = value(second)
    assert (not_asked["zero_shot_label"], not_asked["zero_shot_confidence"], not_asked["agreement"]) == (None,) * 3


def test_a_batch_is_one_message_with_its_images_in_order() -> None:
    (message,) = messages_of(results(), "a1", ENVELOPE, per="batch", form="json")
    headers = dict(message.headers)
    assert (headers["ce_type"], headers["ce_id"]) == (BATCH.encode(), b"frames/3/0/0+3@a1")
    document = value(message)
    assert document["stream_id"] == "north"
    assert [row["offset"] for row in document["results"]] == [0, 1, 2]


def test_a_batch_in_arrow_has_the_columns_of_the_fields() -> None:
    (message,) = messages_of(results(), "a1", ENVELOPE, per="batch", form="arrow")
    assert dict(message.headers)["content-type"] == b"application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(message.value).read_all()
    assert table.schema.equals(pa.schema([field for field in ARROW_SCHEMA if field.name not in SCENE]))
    (found,) = messages_of(results()[:1], "a1", ENVELOPE, per="image", form="json")
    row = table.to_pylist()[0]
    assert {name: row[name] for name in ("label", "alpha", "row_id", "top_probabilities")} == {
        name: value(found)[name] for name in ("label", "alpha", "row_id", "top_probabilities")
    }


def test_what_the_class_prior_corrected_is_there_where_it_is_known_alone() -> None:
    images, predictions, trace = batch(2)
    corrected = replace(
        predictions, scene_index=np.array([2, 0], np.int32), scene_confidence=np.array([0.75, np.nan], np.float32)
    )
    found = [*results_of_batch((images, corrected, trace), CLASSES, "model"), *results(1)]
    first, second, without = (value(m) for m in messages_of(found, "a1", ENVELOPE, per="image", form="json"))
    assert (first["scene_label"], first["scene_confidence"]) == (CLASSES[2], 0.75)
    assert (second["scene_label"], second["scene_confidence"]) == (CLASSES[0], None)
    assert {*SCENE} & {*without} == set()
    schema = json_schema()["$defs"]["image"]
    assert {*without} == {*schema["required"]} == {*schema["properties"]} - {*SCENE}
    (message,) = messages_of(found, "a1", ENVELOPE, per="batch", form="arrow")
    table = pa.ipc.open_stream(message.value).read_all()
    assert table.schema.equals(ARROW_SCHEMA)
    assert table["scene_label"].to_pylist() == [CLASSES[2], CLASSES[0], None]
    assert table["label_column"].to_pylist() == ["label", "label", None]


def test_the_label_is_that_of_the_scene_where_it_is_served_and_the_result_names_it() -> None:
    images, predictions, trace = batch(2)
    corrected = replace(
        predictions, scene_index=np.array([2, 0], np.int32), scene_confidence=np.array([0.9, np.nan], np.float32)
    )
    both = [results_of_batch((images, corrected, trace), CLASSES, "model", c) for c in ("label", "scene_label")]
    beside, served_ = ([value(m) for m in messages_of(r, "a", ENVELOPE, per="image", form="json")] for r in both)
    assert [row["label_column"] for row in (*beside, *served_)] == ["label"] * 2 + ["scene_label"] * 2
    found = [(row["label"], row["confidence"]) for row in served_]
    assert found == [(CLASSES[2], pytest.approx(0.9)), (CLASSES[0], None)]
    assert [row["label"] for row in beside] == [row["top_labels"][0] for row in beside]
    own = {"label", "confidence", "label_column"}
    for one, other in zip(beside, served_, strict=True):  # what the model says itself is there as before
        assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in other.items() if k not in own}


def test_an_image_that_was_not_accepted_has_its_reason_and_nothing_of_the_model() -> None:
    unknown = result_of_frame(frame(5, stream=None, reason=Reason.MISSING_STREAM_ID), "model")
    (message,) = messages_of([unknown], "a1", ENVELOPE, per="image", form="json")
    document = value(message)
    assert message.key is None
    assert {"ce_subject", "ce_time"} & dict(message.headers).keys() == set()
    assert (document["status"], document["reason"], document["label"], document["top_labels"]) == (
        "rejected",
        "missing_stream_id",
        None,
        None,
    )
    skipped = result_of_frame(frame(6, reason=Reason.TOMBSTONE), "model")
    assert skipped.status == "skipped"


def test_numbers_that_are_not_finite_are_null() -> None:
    images, predictions, trace = batch(1)
    nothing = np.full_like(predictions.top_probability, np.nan)
    of_nan = replace(predictions, top_probability=nothing, entropy=np.full(1, np.inf, np.float32))
    (message,) = messages_of(
        results_of_batch((images, of_nan, trace), CLASSES, "model"), "a", ENVELOPE, per="image", form="json"
    )
    document = value(message)
    assert (document["confidence"], document["entropy"], document["top_probabilities"]) == (None, None, [None, None])


def test_the_trace_of_the_message_is_gone_on_with_in_a_span_of_its_own() -> None:
    traced = [replace(r, meta={"traceparent": TRACEPARENT, "tracestate": "vendor=1"}) for r in results(2)]
    one, other = (dict(m.headers) for m in messages_of(traced, "a1", ENVELOPE, per="image", form="json"))
    assert one["traceparent"].decode().split("-")[1] == TRACEPARENT.split("-")[1]
    assert one["traceparent"] != other["traceparent"]
    assert one["tracestate"] == b"vendor=1"
    (message,) = messages_of(traced, "a1", ENVELOPE, per="batch", form="json")
    assert "traceparent" not in dict(message.headers), "its images came in two messages, of two traces perhaps"
    assert [row["traceparent"] for row in value(message)["results"]] == [TRACEPARENT] * 2
    of_one = [replace(r, row_id=replace(r.row_id, offset=0, index=n)) for n, r in enumerate(traced)]
    (message,) = messages_of(of_one, "a1", ENVELOPE, per="batch", form="json")
    assert "traceparent" in dict(message.headers)


def test_what_is_no_trace_in_a_stored_row_is_not_gone_on_with() -> None:
    odd = replace(results(1)[0], meta={"traceparent": "mine", "tracestate": "yours"})
    (message,) = messages_of([odd], "a", ENVELOPE, per="image", form="json")
    assert {"traceparent", "tracestate"} & dict(message.headers).keys() == set()


def test_a_batch_that_is_too_large_becomes_halves_and_an_image_loses_all_but_its_first_label() -> None:
    (message,) = messages_of(results(3), "a", ENVELOPE, per="batch", form="json")
    first, second = message.smaller()
    assert [len(value(half)["results"]) for half in (first, second)] == [1, 2]
    assert dict(second.headers)["ce_id"] == b"frames/3/1/0+2@a"
    assert first.smaller() == ()
    (image,) = messages_of(results(1), "a", ENVELOPE, per="image", form="json")
    (short,) = image.smaller()
    assert value(short)["top_labels"] == [CLASSES[0]]
    assert short.smaller() == ()


@pytest.mark.parametrize("stream", ["Süd <b>1</b>", 'a,b"c', "Тест"])
def test_names_of_streams_are_what_they_are(stream: str) -> None:
    (message,) = messages_of([replace(results(1)[0], stream_id=stream)], "a", ENVELOPE, per="image", form="json")
    assert message.key == dict(message.headers)["ce_subject"] == stream.encode()
    assert value(message)["stream_id"] == stream


def test_what_was_stored_is_told_as_what_was_served() -> None:
    rejected = [frame(9, reason=Reason.UNDECODABLE_IMAGE)]
    served_ = batch(6)
    whole = replace(draft(0, 10), accepted=[served_], rejected=rejected)
    rows = prediction_table(whole, classes=CLASSES, model_fingerprint="model")
    found = results_of(rows)
    assert found == [results_of_batch(served_, CLASSES, "model"), [result_of_frame(rejected[0], "model")]]
    images, predictions, trace = served_
    index, confidence = np.full(6, 1, np.int32), np.full(6, 0.5, np.float32)
    corrected = images, replace(predictions, scene_index=index, scene_confidence=confidence), trace
    rows = prediction_table(replace(whole, accepted=[corrected]), classes=CLASSES, model_fingerprint="model")
    assert results_of(rows, "scene_label") == [
        results_of_batch(corrected, CLASSES, "model", "scene_label"),
        [result_of_frame(rejected[0], "model")],
    ]
    assert TP.topic == found[0][0].row_id.topic
