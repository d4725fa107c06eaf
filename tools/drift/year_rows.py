"""The batches of a made-up day of one partition, column by column, and the segments that they came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from adawise.output.compaction.merged import Replaced
from adawise.records import TopicPartition
from adawise.sink import layout, schemas
from adawise.sink.layout import SegmentName
from tools.drift.year_script import BEGIN, GRID, CameraBatches, YearCamera

IMAGES = 16
FINGERPRINT = "made-up-model"

_DAY_US = 86_400_000_000
_DELAY_US = 150_000  # from the camera to the broker
_TRIGGERS = ("none", "uncertain", "clock", "audit")


@dataclass(frozen=True)
class Year:
    """How much is made: one batch of 16 images every 1 / `batches_per_day` of a day, of each camera."""

    cameras: int = 200
    days: int = 365
    batches_per_day: int = 1370
    partitions: int = 8
    segments_per_day: int = 1440
    seed: int = 0
    begin: datetime = BEGIN


@dataclass(frozen=True)
class PartitionDay:
    """One day of a partition, whose first offset is `offset`."""

    tp: TopicPartition
    year: Year
    number: int
    offset: int
    rng: np.random.Generator

    @property
    def begin(self) -> datetime:
        return self.year.begin + timedelta(days=self.number)

    def table(self, cameras: Sequence[YearCamera], paths: Sequence[CameraBatches]) -> tuple[pa.Table, list[Replaced]]:
        """The batches of these cameras on this day, by camera and time, and the segments that they came in."""
        start = (self.begin - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        limits = [np.searchsorted(path.at_us, [start, start + _DAY_US]) for path in paths]
        spans = [slice(int(first), int(last)) for first, last in limits]
        counts = [span.stop - span.start for span in spans]
        at_us = np.concatenate([path.at_us[span] for path, span in zip(paths, spans, strict=True)])
        place = np.empty(len(at_us), np.int64)  # of each batch among all, by time: offsets follow it
        order = np.argsort(at_us, kind="stable")
        place[order] = np.arange(len(at_us))
        segments, keys, of_segment = self._segments(at_us[order] - start)
        first = self.offset + IMAGES * place
        columns = {
            "topic": pa.repeat(self.tp.topic, len(at_us)),
            "partition": pa.repeat(pa.scalar(self.tp.partition, pa.int32()), len(at_us)),
            "first_offset": pa.array(first),
            "last_offset": pa.array(first + IMAGES - 1),
            "stream_id": _named([camera.stream_id for camera in cameras], np.repeat(np.arange(len(cameras)), counts)),
            "batch_number": pa.array(np.concatenate([np.arange(span.start, span.stop) for span in spans])),
            "captured_at": pa.array(at_us),
            "kafka_timestamp": pa.array((at_us + _DELAY_US) // 1000),
            "images": pa.repeat(pa.scalar(IMAGES, pa.int32()), len(at_us)),
            **self._chosen(paths, spans),
            "model_fingerprint": pa.repeat(FINGERPRINT, len(at_us)),
            "segment": _named(keys, of_segment[place]),
            **_outcome(len(at_us), self.rng.spawn(1)[0]),
        }
        # Pixels and shadows: what later versions trace is null, as in the traces of an earlier one.
        columns |= {
            f.name: pa.nulls(len(at_us), f.type) for f in schemas.TRACES if f.nullable and f.name not in columns
        }
        arrays = [
            columns[f.name].cast(f.type) if columns[f.name].type != f.type else columns[f.name] for f in schemas.TRACES
        ]
        return pa.Table.from_arrays(arrays, schema=schemas.TRACES), segments

    def _segments(self, passed_us: npt.NDArray[np.int64]) -> tuple[list[Replaced], list[str], npt.NDArray[np.int64]]:
        """The segments of batches that came so long after midnight, in order; their keys; which one is whose."""
        cut = passed_us * self.year.segments_per_day // _DAY_US
        _, starts, of_segment = np.unique(cut, return_index=True, return_inverse=True)
        names = [SegmentName(self.offset + IMAGES * int(start)) for start in starts]
        rows = np.diff([*starts, len(cut)]) * IMAGES
        attempts = [self.rng.bytes(16).hex() for _ in names]
        made = [Replaced(n.stem, a, int(r)) for n, a, r in zip(names, attempts, rows, strict=True)]
        return made, [layout.segment_key(self.tp, name) for name in names], of_segment

    def _chosen(self, paths: Sequence[CameraBatches], spans: Sequence[slice]) -> dict[str, pa.Array]:
        """How alpha was chosen: a look at one alternative where there was one."""
        alpha = np.concatenate([path.alpha[span] for path, span in zip(paths, spans, strict=True)])
        before = np.concatenate([_before(path, span) for path, span in zip(paths, spans, strict=True)])
        probed = np.concatenate([path.probed[span] for path, span in zip(paths, spans, strict=True)])
        harder = np.concatenate([path.difficulty[span] for path, span in zip(paths, spans, strict=True)])
        count, normal = len(alpha), partial(self.rng.standard_normal, dtype=np.float32)
        objective = (0.9 + harder + 0.05 * normal(count)).astype(np.float64)
        trigger = np.where(probed, self.rng.integers(1, len(_TRIGGERS), count), 0)
        audited = trigger == _TRIGGERS.index("audit")
        return {
            "alpha": _alphas(alpha),
            "previous_alpha": _alphas(np.maximum(before, 0), before < 0),
            "trials": _trials(alpha, probed, objective, self.rng),
            "objective": pa.array(objective),
            "posterior_mean": pa.array((objective + 0.01 * normal(count)).astype(np.float64)),
            "posterior_sd": pa.array((0.02 + 0.01 * self.rng.random(count, np.float32)).astype(np.float64)),
            "trigger": _named(_TRIGGERS, trigger),
            "reset": pa.nulls(count, pa.string()),
            "audit_regret": pa.array(np.where(audited, 0.01 * np.abs(normal(count)), np.nan).astype(np.float64)),
            "forward_equivalents": pa.array(np.where(probed, 1.5, 1.0)),
            "milliseconds": _milliseconds(count, self.rng),
        }


def _before(path: CameraBatches, span: slice) -> npt.NDArray[np.int16]:
    """The alphas of the batches before, on the grid; -1 if there was none."""
    shifted = np.empty(span.stop - span.start, np.int16)
    if len(shifted):
        shifted[1:] = path.alpha[span.start : span.stop - 1]
        shifted[0] = path.alpha[span.start - 1] if span.start else -1
    return shifted


def _alphas(index: npt.NDArray[Any], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    return pa.array(index / GRID, pa.float64(), mask=null)


def _named(names: Sequence[str], index: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(index))


def _trials(
    alpha: npt.NDArray[np.uint8],
    probed: npt.NDArray[np.bool_],
    objective: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> pa.Array:
    """The served alpha, and after a look one of its neighbours, on half of the images."""
    ends = np.concatenate([[0], np.cumsum(1 + probed)]).astype(np.int32)
    row = np.repeat(np.arange(len(alpha)), 1 + probed)
    other = np.zeros(len(row), np.bool_)
    other[ends[1:][probed] - 1] = True
    neighbour = np.clip(alpha.astype(np.int16) + np.where(rng.random(len(alpha)) < 0.5, -1, 1), 0, GRID)
    values = objective[row]
    values[other] += 0.02 * np.abs(rng.standard_normal(int(other.sum()), np.float32))
    fields = [
        pa.array(np.where(other, neighbour[row], alpha[row]) / GRID),
        pa.array(np.where(other, IMAGES // 2, IMAGES).astype(np.int32)),
        pa.array(values),
    ]
    return pa.ListArray.from_arrays(pa.array(ends), pa.StructArray.from_arrays(fields, fields=list(schemas.TRIAL)))


def _outcome(count: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    """What came of the batches: nothing that the script knows of. Two classes, or three in nine of ten."""
    first = rng.binomial(IMAGES, 0.6, count)
    rest = IMAGES - first
    third = rng.binomial(rest, 0.2) * (rng.random(count) < 0.9)
    by_class = np.stack([first, rest - third, third], axis=1).astype(np.int32)  # [count, 3]
    there = by_class > 0
    ends = pa.array(np.append(0, np.cumsum(there.sum(axis=1))).astype(np.int32))
    compared = rng.integers(0, IMAGES + 1, count)
    return {
        "mean_confidence": pa.array((0.8 + 0.03 * rng.standard_normal(count, np.float32)).astype(np.float32)),
        "compared": pa.array(compared),
        "agreed": pa.array(rng.binomial(compared, 0.85)),
        "class_counts": pa.MapArray.from_arrays(
            ends, _named(("car", "bus", "person"), np.nonzero(there)[1]), pa.array(by_class[there])
        ),
        "rejected": pa.array(rng.poisson(0.01, count)),
    }


def _milliseconds(count: int, rng: np.random.Generator) -> pa.Array:
    names = _named(("forward", "search"), np.tile(np.arange(2), count))
    values = (rng.gamma(9, 1, (count, 2)) * [20, 0.1]).astype(np.float32).reshape(-1)
    offsets = pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32))
    return pa.MapArray.from_arrays(offsets, names, pa.array(values))
