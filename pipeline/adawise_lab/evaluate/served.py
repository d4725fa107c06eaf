"""Counts of correct predictions by image, as the recommendation of a verdict serves: pairs compare on equal images.

On disk it is `served.parquet` in the folder of a run of fine-tuning, with a row for each image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from adawise.store.files import read_bytes
from adawise.store.parquet import open_parquet
from adawise_lab.evaluate.bench import Bench, Floats
from adawise_lab.evaluate.result import Difference
from adawise_lab.evaluate.score import by_domain, interval, mean, ratio, resampled_accuracies
from adawise_lab.evaluate.tables import LogitTable

_FORMAT = 1
_METADATA = b"adawise.served"
_SCHEMA = pa.schema(
    [
        pa.field("condition", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("visits", pa.list_(pa.int32()), nullable=False),
        pa.field("hits", pa.list_(pa.int32()), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class ServedImages:
    """Counts of N images: how often each was served, and how often rightly, in R orders (1 for a fixed alpha).

    Attributes:
        labels: class indices of the images of each condition, by its name; N in all.
        visits: how often each image came, `[R, N]`.
        hits: how often it was right, `[R, N]`.
    """

    labels: Mapping[str, npt.NDArray[np.int64]]
    visits: Floats
    hits: Floats

    @property
    def accuracy(self) -> float:
        """The mean over conditions, then over orders."""
        return float(_accuracies(self._bench, self.hits, self.visits).mean())

    def over(self, other: ServedImages) -> Difference | None:
        """Return the accuracy less that of `other`, with its 95 % interval; None if the images are not the same."""
        if [*self.labels] != [*other.labels]:
            return None
        if not all(np.array_equal(labels, other.labels[name]) for name, labels in self.labels.items()):
            return None
        bench, orders = self._bench, len(self.visits)
        hits, visits = np.concatenate([self.hits, other.hits]), np.concatenate([self.visits, other.visits])

        def less(accuracies: Floats) -> Floats:
            return np.asarray(accuracies[:orders].mean(axis=0) - accuracies[orders:].mean(axis=0))

        difference = less(_accuracies(bench, hits, visits))
        return Difference(float(difference), interval(less(resampled_accuracies(bench, hits, visits))))

    def to_bytes(self, theta_1: str) -> bytes:
        """Return the file; it names the weights by their hash."""
        conditions = [name for name, labels in self.labels.items() for _ in labels]
        columns = [conditions, np.concatenate([*self.labels.values()]), *_lists(self.visits, self.hits)]
        arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        facts = json.dumps({"format": _FORMAT, "theta_1": theta_1})
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA.with_metadata({_METADATA: facts})), sink)
        return bytes(sink.getvalue().to_pybytes())

    @property
    def _bench(self) -> Bench:
        """The images and their conditions, without logits."""
        tables = [
            LogitTable(name, np.empty((1, len(labels), 0), dtype=np.float32), labels, (0.0,), ())
            for name, labels in self.labels.items()
        ]
        return Bench(tuple(tables), (1.0,))


def _accuracies(bench: Bench, hits: Floats, visits: Floats) -> Floats:
    """Return the mean over conditions of each row, `[R]`, of `[R, N]`."""
    return np.asarray([mean(row) for row in ratio(by_domain(bench, hits), by_domain(bench, visits))])


def _lists(*counts: Floats) -> list[list[list[int]]]:
    return [each.T.astype(np.int64).tolist() for each in counts]


def read_served(path: Path, theta_1: str) -> ServedImages | None:
    """Read what a pair with these weights served.

    Returns:
        None if there is no such file, as in runs of earlier versions, or if it is damaged, of a later version, or of
        other weights.
    """
    try:
        table = open_parquet(pa.BufferReader(read_bytes(path))).read()
        facts = json.loads((table.schema.metadata or {})[_METADATA])
        if (facts["format"], facts["theta_1"]) != (_FORMAT, theta_1) or not table.schema.equals(_SCHEMA):
            return None
        condition, label, visits, hits = (table[name].to_pylist() for name in _SCHEMA.names)
        names, labels = np.asarray(condition), np.asarray(label, dtype=np.int64)
        served = ServedImages(
            {name: labels[names == name] for name in dict.fromkeys(condition)},
            np.asarray(visits, dtype=np.float64).T,
            np.asarray(hits, dtype=np.float64).T,
        )
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, RecursionError):
        return None
    in_order = [name for name, labels in served.labels.items() for _ in labels]
    return served if condition == in_order and _are_counts(served.visits, served.hits) else None


def _are_counts(visits: Floats, hits: Floats) -> bool:
    """Return True for counts `[R, N]` with images in each order; a null in the file is nan here."""
    if visits.ndim != 2 or not len(visits) or visits.shape != hits.shape:
        return False
    return bool(((hits >= 0) & (hits <= visits)).all() and visits.any(axis=1).all())
