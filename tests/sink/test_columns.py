from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from adawise.adapt.shortlist import SURE
from adawise.errors import Reason
from adawise.ports import SegmentDraft
from adawise.records import STATISTICS, Frame, RowId
from adawise.sink import schemas
from adawise.sink.columns import prediction_table, trace_table
from tests.sink.building import CLASSES, TP, Served, frame, served

NAMES = pa.array(CLASSES)


def table(accepted: list[Served], rejected: list[Frame] | None = None) -> pa.Table:
    made = prediction_table(
        SegmentDraft(TP, 100, (), {}, accepted, rejected or []), classes=CLASSES, model_fingerprint="model"
    )
    made.validate(full=True)
    assert made.schema.equals(schemas.PREDICTIONS)
    for field in schemas.PREDICTIONS:
        assert field.nullable or made[field.name].null_count == 0
    return made


def test_rows_are_sorted_by_offset_and_index_whatever_the_order_of_the_batches() -> None:
    late, early = served([frame(5, 0), frame(5, 1), frame(9)], number=0), served([frame(2), frame(7)], number=1)
    rows = table([late, early], [frame(6, reason=Reason.EMPTY)])
    assert rows["row_id"].to_pylist() == [f"frames/3/{end}" for end in ("2/0", "5/0", "5/1", "6/0", "7/0", "9/0")]
    assert rows["batch_number"].to_pylist() == [1, 0, 0, None, 1, 0]
    assert rows["label"].to_pylist() == ["car", "car", "bus", None, "bus", "empty street"]


def test_an_accepted_row_says_everything_that_is_known_of_the_image() -> None:
    known = replace(
        frame(17),
        frame_id="f-1",
        captured_at_us=1_700_000_000_123_456,
        true_label="bus",
        meta={"site": "a", "lane": "2"},
    )
    batch, predictions, trace = served([known], number=4)
    trace = replace(trace, predicted_at_us=1_700_000_000_999_000)
    (row,) = table([(batch, predictions, trace)]).to_pylist()
    assert row == {
        "row_id": "frames/3/17/0",
        "topic": "frames",
        "partition": 3,
        "offset": 17,
        "index": 0,
        "stream_id": "north",
        "frame_id": "f-1",
        "captured_at": datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC),
        "kafka_timestamp": datetime(2023, 11, 14, 22, 13, 20, 17_000, UTC),
        "status": "accepted",
        "reason": None,
        "detail": None,
        "label": "car",
        "confidence": 0.75,
        "top_labels": ["car", "bus"],
        "top_probabilities": [0.75, 0.25],
        "entropy": 0.5,
        "zero_shot_label": "bus",
        "zero_shot_confidence": 0.5,
        "fine_tuned_label": "empty street",
        "fine_tuned_confidence": 0.25,
        "alpha": 0.35,
        "batch_number": 4,
        "true_label": "bus",
        "meta": [("site", "a"), ("lane", "2")],
        "predicted_at": datetime(2023, 11, 14, 22, 13, 20, 999_000, UTC),
        "model_fingerprint": "model",
        "scene_label": None,
        "scene_confidence": None,
    }


def test_endpoints_are_null_where_they_were_not_evaluated() -> None:
    rows = table([served([frame(1), frame(2)])])
    assert rows["zero_shot_label"].to_pylist() == ["bus", None]
    assert rows["fine_tuned_confidence"].to_pylist() == [0.25, None]


def test_a_rejected_row_has_a_reason_and_no_prediction_and_a_tombstone_is_skipped() -> None:
    unknown = Frame(RowId("frames", 3, 8, 0), -1, None, reason=Reason.MISSING_STREAM_ID, detail="expected a key")
    rejected, skipped = table([], [unknown, frame(9, reason=Reason.TOMBSTONE)]).to_pylist()
    assert (rejected["status"], rejected["reason"], rejected["detail"]) == (
        "rejected",
        "missing_stream_id",
        "expected a key",
    )
    assert (skipped["status"], skipped["reason"]) == ("skipped", "tombstone")
    for name in ("stream_id", "kafka_timestamp", "label", "top_labels", "alpha", "batch_number", "entropy"):
        assert rejected[name] is None


def test_no_rows_make_an_empty_table() -> None:
    assert table([]).num_rows == 0


def test_batches_may_keep_different_numbers_of_classes() -> None:
    batch, predictions, trace = served([frame(1), frame(2)])
    one = replace(
        predictions, top_index=predictions.top_index[:, :1], top_probability=predictions.top_probability[:, :1]
    )
    rows = table([(batch, one, trace), served([frame(3)], number=1)])
    assert rows["top_labels"].to_pylist() == [["car"], ["bus"], ["car", "bus"]]
    assert rows["label"].to_pylist() == ["car", "bus", "car"]


def test_text_that_utf_8_cannot_hold_does_not_stop_the_stream() -> None:
    hostile = replace(frame(1, reason=Reason.EMPTY), detail="\ud800 came", frame_id="\ud800")
    (row,) = table([], [hostile]).to_pylist()
    assert row["detail"] == "? came"


def test_each_row_keeps_its_own_meta_and_what_utf_8_cannot_hold_of_it_is_replaced() -> None:
    metas = [{"site": "a", "lane": "2"}, {}, {"\ud800": "b", "lane": "\ud800"}]
    rows = table([served([replace(frame(offset), meta=meta) for offset, meta in enumerate(metas)])])
    assert rows["meta"].to_pylist() == [[("site", "a"), ("lane", "2")], [], [("?", "b"), ("lane", "?")]]


def test_a_row_of_another_partition_is_refused() -> None:
    astray = Frame(RowId("frames", 4, 8, 0), -1, None, reason=Reason.EMPTY)
    with pytest.raises(ValueError, match="frames/4/8/0"):
        table([], [astray])


def test_a_trace_row_says_how_alpha_was_chosen() -> None:
    made = trace_table([served([frame(1), frame(4)], number=2), served([frame(2)])], classes=CLASSES)
    made.validate(full=True)
    assert made.schema.equals(schemas.BATCH_TRACE)
    row, first = made.to_pylist()
    assert (row["first_offset"], row["last_offset"], row["images"], row["alpha"]) == (1, 4, 2, 0.35)
    assert row["trials"][0] == {"alpha": 0.35, "images": 2, "objective": 1.25}
    assert np.isnan(row["trials"][1]["objective"])
    assert row["milliseconds"] == [("decode", 1.5), ("forward", 20.0)]
    assert (row["luminance_mean"], row["colourfulness_variance"]) == (0.0, -9 / 8)
    assert first["previous_alpha"] is None
    assert trace_table([], classes=CLASSES).num_rows == 0


def test_a_trace_without_statistics_has_nulls_and_their_columns_are_mean_and_variance_of_each() -> None:
    batch, predictions, trace = served([frame(1)])
    made = trace_table([(batch, predictions, replace(trace, statistics={}))], classes=CLASSES)
    made.validate(full=True)
    names = [f"{name}_{moment}" for name in STATISTICS for moment in ("mean", "variance")]
    assert [column.name for column in schemas.PIXELS] == names
    assert all(made[name].null_count == 1 for name in names)


def test_a_trace_row_says_what_came_of_the_batch() -> None:
    """Two endpoints on the even images, which never agree here; and one batch in which they do."""
    first, (batch, predictions, trace) = served([frame(n) for n in range(5)], number=3), served([frame(7), frame(8)])
    p = predictions.top_probability.copy()
    p[:, 0] = 0.5, 0.875
    agreeing = replace(predictions, top_probability=p, endpoint_index=np.array([[2, -1], [2, 0]], np.int32))
    made = trace_table([first, (batch, agreeing, replace(trace, rejected=4))], classes=CLASSES)
    made.validate(full=True)
    assert made.select([column.name for column in schemas.OUTCOME]).to_pylist() == [
        {
            "mean_confidence": 0.75,
            "compared": 3,
            "agreed": 0,
            "class_counts": [("car", 2), ("bus", 2), ("empty street", 1)],
            "rejected": 0,
        },
        {
            "mean_confidence": 0.6875,
            "compared": 1,
            "agreed": 1,
            "class_counts": [("car", 1), ("bus", 1)],
            "rejected": 4,
        },
    ]


def test_a_trace_row_names_the_classes_that_the_shortlist_lacks_and_is_null_without_a_shortlist() -> None:
    batch, predictions, trace = served([frame(1)])
    given: list[dict[int, int] | None] = [None, {}, {0: 2, 2: 1}]
    made = trace_table([(batch, predictions, replace(trace, off_list=each)) for each in given], classes=CLASSES)
    made.validate(full=True)
    assert made["off_list"].to_pylist() == [None, [], [("car", 2), ("empty street", 1)]]
    description = made.schema.field("off_list").metadata[b"description"].decode()
    assert f"a probability of {f'{SURE:g}'.lstrip('0')} or more" in description


def test_what_came_of_a_batch_depends_neither_on_its_neighbours_nor_on_the_order_of_its_images() -> None:
    draw = np.random.default_rng(5)
    n, classes = 64, [f"class {c}" for c in range(1_000)]
    batch, predictions, trace = served([frame(offset) for offset in range(n)])
    drawn = replace(
        predictions,
        top_index=draw.integers(0, 1_000, (n, 1)).astype(np.int32),
        top_probability=draw.uniform(1e-3, 1, (n, 1)).astype(np.float32),
        endpoint_index=draw.integers(-1, 3, (2, n)).astype(np.int32),
    )
    order = draw.permutation(n)
    turned = replace(
        drawn,
        top_index=drawn.top_index[order],
        top_probability=drawn.top_probability[order],
        endpoint_index=drawn.endpoint_index[:, order],
    )
    names = [column.name for column in schemas.OUTCOME]
    alone = trace_table([(batch, drawn, trace)], classes=classes).select(names)
    others = served([frame(100)]), (batch, turned, trace)
    assert trace_table(others, classes=classes).select(names).slice(1).equals(alone)
    (row,) = alone.to_pylist()
    assert row["mean_confidence"] == np.float32(drawn.top_probability.astype(np.float64).mean())
    assert row["agreed"] < row["compared"] < sum(count for _, count in row["class_counts"]) == n


def test_tables_of_any_version_get_the_columns_that_came_later_and_others_stay_as_they_are() -> None:
    for schema in (schemas.PREDICTIONS, schemas.BATCH_TRACE, schemas.TRACES):
        whole = schema.empty_table()
        older = whole.drop_columns([name for name in schema.names if name in schemas.LATER])
        foreign = whole.drop_columns([schema.names[0]])
        assert older.num_columns < whole.num_columns
        assert schemas.with_later(older, schema).schema.equals(schema)
        assert schemas.with_later(whole, schema).equals(whole)
        assert schemas.with_later(foreign, schema).equals(foreign)


def test_every_column_is_described() -> None:
    for field in [*schemas.PREDICTIONS, *schemas.TRACES]:
        assert field.metadata[b"description"]
