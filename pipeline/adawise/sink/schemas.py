"""The two tables that the program writes, column by column; a reader needs to know nothing else.

A column is nullable only where null has a meaning, which its description (kept in the file, as field metadata)
explains. Alphas are float64 in both tables, so that they join and compare exactly; everything else that a network
computed is float32, as it was computed.

No two batches of a stream begin with the same message, so `topic`, `partition`, `stream_id` and `first_offset` are the
key of a trace. The trace of a row has its topic, partition, stream and batch number, and its offset is among those from
`first_offset` to `last_offset`. Without the offsets it may be another one, because numbers begin at 0 again when a
stream begins anew.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def _field(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def _list(kind: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", kind, nullable=False))


def _map(kind: pa.DataType) -> pa.MapType:
    return pa.map_(pa.string(), pa.field("value", kind, nullable=False))


_MICROSECONDS = pa.timestamp("us", tz="UTC")
_MILLISECONDS = pa.timestamp("ms", tz="UTC")

TRIAL = pa.struct(
    [
        _field("alpha", pa.float64(), "mixing coefficient of the trial"),
        _field("images", pa.int32(), "images on which the trial was judged"),
        _field("objective", pa.float64(), "objective of the trial, lower is better; nan if it was not finite"),
    ]
)

_STATISTICS = [
    ("luminance", "log(mean luminance + .02), light"),
    ("contrast", "log(sd of luminance + .02), contrast"),
    ("gradient", "log((mean |dx| + mean |dy|) / (sd + .02) + .01) of luminance, sharpness"),
    ("laplacian", "log(mean |laplacian| / (mean |dx| + mean |dy|) + .001) of luminance, fine texture or noise"),
    ("colourfulness", "log(mean (max - min of the channels) + .02), colour"),
]
PIXELS = [
    _field(
        f"{name}_{moment}",
        pa.float32(),
        f"{moment} over the batch's images of {what}, of the model's pixels in [0, 1]; null from earlier versions",
        nullable=True,
    )
    for name, what in _STATISTICS
    for moment in ("mean", "variance")
]

SHADOW = [
    _field("shadow_pair", pa.string(), "id of the staged pair if it was tried on the batch; else null", nullable=True),
    _field(
        "shadow_agreement",
        pa.float64(),
        "share of images to which the staged pair gave the served label; null if it was not tried on the batch",
        nullable=True,
    ),
    _field(
        "shadow_alpha",
        pa.float64(),
        "alpha with which the staged pair would have served; null if it was not tried on the batch",
        nullable=True,
    ),
    _field(
        "shadow_objective",
        pa.float64(),
        "objective of the staged pair; nan if it was not finite, null if it was not tried on the batch",
        nullable=True,
    ),
    _field(
        "shadow_forward_equivalents",
        pa.float64(),
        "images through the staged pair's image tower / images; null if it was not tried on the batch",
        nullable=True,
    ),
]

OUTCOME = [
    _field(
        "mean_confidence",
        pa.float32(),
        "mean confidence of the batch's rows; null from earlier versions",
        nullable=True,
    ),
    _field(
        "compared",
        pa.int32(),
        "images on which zero-shot and fine-tuned were evaluated; null from earlier versions",
        nullable=True,
    ),
    _field(
        "agreed",
        pa.int32(),
        "images of these to which both gave the same class; null from earlier versions",
        nullable=True,
    ),
    _field(
        "class_counts",
        _map(pa.int32()),
        "images of each served class, in the order of the class list, without classes that have none; null from "
        "earlier versions",
        nullable=True,
    ),
    _field(
        "rejected",
        pa.int32(),
        "images of the stream that were rejected between its previous batch and this one, without unreadable "
        "messages that name the stream neither by key nor by stream-id header; null from earlier versions, and for "
        "a stream's first batch after one",
        nullable=True,
    ),
]

CONDITION = [
    _field(
        "condition",
        pa.int32(),
        "number of the condition that the stream was in, from 0, as its search distinguishes them; null from "
        "earlier versions, and from strategies without conditions",
        nullable=True,
    ),
    _field(
        "returned", pa.bool_(), "true if the stream was in this condition before; null as for condition", nullable=True
    ),
    _field(
        "alarm",
        pa.bool_(),
        "true if alpha is limited although the objective falls beyond it, because the entropy of standardised logits "
        "would surely choose an alpha lower by .25 or more: the fine-tuned weights may be over-confident; null from "
        "earlier versions and from strategies without an alarm",
        nullable=True,
    ),
]

COST = [
    _field(
        "forward_cost",
        pa.float64(),
        "whole forwards per image: layers that both models share count once, all others for each evaluation; null from "
        "earlier versions",
        nullable=True,
    ),
]

SHORTLIST = [
    _field(
        "shortlist",
        pa.string(),
        "digest of the camera's shortlist, the classes of scene.shortlists that it can show; null if it may show every "
        "class, and from earlier versions",
        nullable=True,
    ),
    _field(
        "off_list",
        _map(pa.int32()),
        "images whose first class among all classes has a probability of .9 or more and is not on the shortlist, by "
        "that class, in the order of the class list; null as for shortlist",
        nullable=True,
    ),
]

SCENE = [
    _field(
        "scene_gate",
        pa.float64(),
        "how far scene_label was corrected by the camera's class prior, from 0 (not at all) to 1; null "
        "without scene.prior, and from earlier versions",
        nullable=True,
    ),
    _field(
        "scene_smoothing",
        pa.float64(),
        "how far scene_label was corrected by the frames before and after, from 0 (not at all) to 1; null without "
        "scene.smoothing, and from earlier versions",
        nullable=True,
    ),
]
SCENE_ROWS = [
    _field(
        "scene_label",
        pa.string(),
        "the class, corrected by what the camera has shown; null if not accepted, absent without scene.prior and in "
        "rows of earlier versions",
        nullable=True,
    ),
    _field(
        "scene_confidence",
        pa.float32(),
        "probability of scene_label, likewise corrected; null or absent as that, and null if it is not finite",
        nullable=True,
    ),
]

AUDIT_REGRET = "audit_regret"
_REGRET = "nats by which an audit found another alpha's objective lower"
_NULLABLE_REGRET = _field(
    AUDIT_REGRET, pa.float64(), f"{_REGRET}; null without an audit, for which earlier versions wrote nan", nullable=True
)

PREDICTED_AT = "predicted_at"
LATER = (
    PREDICTED_AT,
    *(c.name for c in (*PIXELS, *SHADOW, *OUTCOME, *CONDITION, *COST, *SHORTLIST, *SCENE, *SCENE_ROWS)),
)
"""The columns that earlier versions did not write, in the order in which they were added; they end their schema."""

PREDICTIONS = pa.schema(
    [
        _field("row_id", pa.string(), "topic/partition/offset/index: never changes; labels that come later join by it"),
        _field("topic", pa.string(), "Kafka topic of the message"),
        _field("partition", pa.int32(), "Kafka partition of the message"),
        _field("offset", pa.int64(), "Kafka offset of the message"),
        _field("index", pa.int32(), "position of the image in its message, from 0"),
        _field("stream_id", pa.string(), "the camera; null only if the message did not say", nullable=True),
        _field("frame_id", pa.string(), "the producer's own id of the image; null if it gave none", nullable=True),
        _field(
            "captured_at",
            _MICROSECONDS,
            "when the camera took the image; null if the producer did not say",
            nullable=True,
        ),
        _field("kafka_timestamp", _MILLISECONDS, "the broker's timestamp; null if the broker has none", nullable=True),
        _field("status", pa.string(), "accepted, rejected, or skipped (a tombstone)"),
        _field("reason", pa.string(), "why the image was not accepted, a stable word; null if accepted", nullable=True),
        _field("detail", pa.string(), "the reason in a sentence; null if accepted", nullable=True),
        _field("label", pa.string(), "the served class, top_labels[0]; null if not accepted", nullable=True),
        _field("confidence", pa.float32(), "probability of label; null if not accepted", nullable=True),
        _field("top_labels", _list(pa.string()), "best classes, best first; null if not accepted", nullable=True),
        _field(
            "top_probabilities", _list(pa.float32()), "probabilities of top_labels; null if not accepted", nullable=True
        ),
        _field(
            "entropy", pa.float32(), "entropy of the served distribution, nats; null if not accepted", nullable=True
        ),
        _field("zero_shot_label", pa.string(), "class at alpha 0; null if not evaluated on this image", nullable=True),
        _field(
            "zero_shot_confidence", pa.float32(), "probability of zero_shot_label; null if not evaluated", nullable=True
        ),
        _field("fine_tuned_label", pa.string(), "class at alpha 1; null if not evaluated on this image", nullable=True),
        _field(
            "fine_tuned_confidence",
            pa.float32(),
            "probability of fine_tuned_label; null if not evaluated",
            nullable=True,
        ),
        _field("alpha", pa.float64(), "mixing coefficient that served the image; null if not accepted", nullable=True),
        _field(
            "batch_number",
            pa.int64(),
            "number of the image's batch in the stream, from 0, and from 0 again where the stream started anew: "
            "its batch is the one whose first_offset to last_offset include the row's offset; null if not accepted",
            nullable=True,
        ),
        _field("true_label", pa.string(), "the producer's label of the image; null if it gave none", nullable=True),
        _field("meta", _map(pa.string()), "the producer's meta_* columns, without the prefix, and its trace context"),
        _field("model_fingerprint", pa.string(), "fingerprint of checkpoints, classes, preprocessing and precision"),
        _field(
            "predicted_at",
            _MICROSECONDS,
            "when the image was predicted, by the worker's clock; null if not accepted, and from earlier versions",
            nullable=True,
        ),
        *SCENE_ROWS,
    ]
)
# The columns whose values repeat within a segment; row ids and the numbers of a softmax do not.
PREDICTIONS_DICTIONARY = [
    *("topic", "partition", "index", "stream_id", "status", "reason", "label", "top_labels.list.element"),
    *("zero_shot_label", "fine_tuned_label", "alpha", "batch_number", "true_label", "scene_label"),
    *("meta.key_value.key", "meta.key_value.value", "model_fingerprint"),
]


def as_stored(rows: pa.Table, *, has_prior: bool = False) -> pa.Table:
    """Return rows as a file has them: without the columns of the class prior if no row has one, as in earlier versions.

    With `has_prior` they stay, so that all segments of a worker with a prior have the same columns.
    """
    scene = [column.name for column in SCENE_ROWS if column.name in rows.column_names]
    if has_prior or any(rows[name].null_count < rows.num_rows for name in scene):
        return rows
    return rows.drop_columns(scene)


def with_later(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows of any version with the columns of this schema; columns that were added later are null."""
    if schema is TRACES:
        rows = regret_or_null(rows)
    missing = list(schema)[rows.num_columns :]
    is_older = {field.name for field in missing} <= {*LATER}
    if is_older and rows.schema.equals(pa.schema(list(schema)[: rows.num_columns])):
        for field in missing:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


def regret_or_null(traces: pa.Table) -> pa.Table:
    """Return traces of any version whose audit regret is null where there was no audit, and not nan.

    Traces without such a column of numbers, which a damaged file may have, are returned unchanged.
    """
    place = traces.schema.get_field_index(AUDIT_REGRET)
    if place < 0 or not pa.types.is_floating(traces.schema.field(place).type):
        return traces
    regret = traces[AUDIT_REGRET]
    return traces.set_column(place, _NULLABLE_REGRET, pc.if_else(pc.is_nan(regret), None, regret))


# The trace as the segment's footer keeps it: the batch's own columns. Version 0.2 reads it too, so audit regret stays
# nan there.
BATCH_TRACE = pa.schema(
    [
        _field("topic", pa.string(), "Kafka topic"),
        _field("partition", pa.int32(), "Kafka partition"),
        _field("first_offset", pa.int64(), "lowest offset of the batch's images"),
        _field("last_offset", pa.int64(), "highest offset of the batch's images"),
        _field("stream_id", pa.string(), "the camera"),
        _field(
            "batch_number",
            pa.int64(),
            "number of the batch in the stream, from 0, and from 0 again where the stream started anew; topic, "
            "partition, stream_id and first_offset are unique",
        ),
        _field(
            "captured_at",
            _MICROSECONDS,
            "capture time of the batch's last image; null if the producer did not say",
            nullable=True,
        ),
        _field(
            "kafka_timestamp",
            _MILLISECONDS,
            "broker's timestamp of the batch's last image; null if the broker has none",
            nullable=True,
        ),
        _field("images", pa.int32(), "images in the batch"),
        _field("alpha", pa.float64(), "mixing coefficient that served the batch"),
        _field(
            "previous_alpha", pa.float64(), "alpha of the stream's previous batch; null for its first", nullable=True
        ),
        _field("trials", _list(TRIAL), "the alphas that were evaluated to choose alpha"),
        _field("objective", pa.float64(), "objective of the batch at alpha; nan if it was not finite"),
        _field("posterior_mean", pa.float64(), "of the surrogate at alpha, after this batch"),
        _field("posterior_sd", pa.float64(), "of the surrogate at alpha, after this batch"),
        _field("trigger", pa.string(), "why other alphas were tried, or none"),
        _field("reset", pa.string(), "why the stream's state was reset; null if it was not", nullable=True),
        _field(AUDIT_REGRET, pa.float64(), f"{_REGRET}; nan without an audit"),
        _field("forward_equivalents", pa.float64(), "images through the image tower / images in the batch"),
        _field("milliseconds", _map(pa.float32()), "duration of each stage"),
        *PIXELS,
        *SHADOW,
        *OUTCOME,
        *CONDITION,
        *COST,
        *SHORTLIST,
        *SCENE,
    ]
)

TRACES = pa.schema(
    [
        *(_NULLABLE_REGRET if f.name == AUDIT_REGRET else f for f in BATCH_TRACE if f.name not in LATER),
        _field("model_fingerprint", pa.string(), "fingerprint of checkpoints, classes, preprocessing and precision"),
        _field("segment", pa.string(), "the segment that the batch's rows are in"),
        *PIXELS,
        *SHADOW,
        *OUTCOME,
        *CONDITION,
        *COST,
        *SHORTLIST,
        *SCENE,
    ]
)
TRACES_DICTIONARY = [
    *("topic", "partition", "stream_id", "alpha", "previous_alpha", "trigger", "reset", "model_fingerprint"),
    *("segment", "class_counts.key_value.key", "off_list.key_value.key"),
]

STATES = pa.schema(
    [
        _field("stream_id", pa.string(), "the camera"),
        _field("state", pa.large_binary(), "the camera's adaptation state, serialised by the search"),
    ]
)
