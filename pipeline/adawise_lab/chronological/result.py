"""The result of a protocol: accuracy and macro recall by camera and interval, and what follows from them. Pure.

A camera's figure is the mean over its tested intervals, and every figure is a mean over cameras of equal weight.
Intervals of confidence are of a bootstrap over cameras (Efron, 1979; percentiles): cameras are drawn, their images are
not, and rows that are compared share the drawn cameras.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from adawise.adapt.search import forward_cost
from adawise_lab.chronological.intervals import Train
from adawise_lab.chronological.pace import Name
from adawise_lab.chronological.served import NAMES, ServedCell, ServedWay
from adawise_lab.evaluate.references import BEST_FIXED, ZERO_SHOT
from adawise_lab.evaluate.result import Difference, Interval
from adawise_lab.evaluate.score import BINS, RESAMPLES, interval

FORMAT = 1
BEST_EACH = "best_fixed_each"
"""The best fixed alpha of each camera and interval in hindsight, which no rule could know."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """A training, as the result names it: up to which interval, of which camera (None: all), and what came of it."""

    interval: int
    camera: str | None
    folder: str
    images: int
    pair: bool
    why: str = ""


@dataclass(frozen=True)
class Setting:
    """The intervals, the trainings and the choices of a result.

    Attributes:
        cameras: the names of the cameras.
        edges_us: K + 1 times for K intervals, microseconds since the epoch.
        images: by interval.
        alphas: the grid.
        train: what a model is trained on.
        keeps: cameras keep what they learned from pair to pair.
        scene: off, prior or smoothing.
        trainings: in the order of time.
        without_time: images that were left out.
        pace: when batches end.
        shortlists: the number of classes of each camera that has a shortlist, by its name.
        classes: the number of all classes; 0 if it is not known.
    """

    cameras: tuple[str, ...]
    edges_us: tuple[int, ...]
    images: tuple[int, ...]
    alphas: tuple[float, ...]
    train: Train
    keeps: bool
    scene: str
    trainings: tuple[Training, ...]
    without_time: int = 0
    pace: Name = "backlog"
    shortlists: Mapping[str, int] = field(default_factory=dict)
    classes: int = 0


@dataclass(frozen=True)
class WayRow:
    """The figures of a way to serve; a reference in hindsight has no macro recall, ECE, NLL and cost.

    Attributes:
        name: of the way, or of a reference.
        scene: whether it is of `scene_label`.
        accuracy: mean over cameras.
        accuracy_ci: its interval.
        macro_recall: mean over the classes that a camera shows in an interval, then over intervals and cameras.
        macro_recall_ci: its interval.
        below_zero_shot: the share of cameras whose accuracy is below that of zero-shot's label.
        below_zero_shot_ci: its interval.
        versus: accuracy less that of zero-shot and of the references; of a scene, also of its own label.
        recall_versus_zero_shot: macro recall less that of zero-shot's label.
        ece: expected calibration error over all images together, 15 equal bins.
        nll: negative log-likelihood, nats; mean over cameras. That of a scene is by the corrected probabilities.
        flicker: over all images together, the share of those with the label of the camera's image before them in the
            interval whose prediction is another one, in [0, 1]; None if there is none.
        forwards: images that passed the image tower over images served.
        forward_cost: the same, where layers that both models share count once an image.
        by_interval: accuracy in each interval, mean over its cameras; nan where none was tested.
        alpha: of `best_fixed`.
    """

    name: str
    scene: bool
    accuracy: float
    accuracy_ci: Interval
    below_zero_shot: float
    below_zero_shot_ci: Interval
    versus: Mapping[str, Difference]
    by_interval: tuple[float, ...]
    macro_recall: float | None = None
    macro_recall_ci: Interval | None = None
    recall_versus_zero_shot: Difference | None = None
    ece: float | None = None
    nll: float | None = None
    flicker: float | None = None
    forwards: float | None = None
    forward_cost: float | None = None
    alpha: float | None = None

    @property
    def title(self) -> str:
        """The name, with + scene if it is of `scene_label`."""
        return ServedWay(self.name, self.scene).title


@dataclass(frozen=True, eq=False)
class ChronologicalResult:
    """The result: rows of all ways, and tables by camera and interval `[C, K]`, nan where nothing was tested.

    Attributes:
        setting: what was cut and compared.
        rows: the ways, then the references.
        accuracy: by the row's title.
        macro_recall: likewise, without references.
        counts: tested images.
        unpaired: tested images that theta_0 alone served.
        batches: of the tested images that a pair served.
    """

    setting: Setting
    rows: tuple[WayRow, ...]
    accuracy: Mapping[str, Floats]
    macro_recall: Mapping[str, Floats]
    counts: npt.NDArray[np.int64]
    unpaired: int
    batches: int

    def row(self, name: str, *, scene: bool = False) -> WayRow:
        """Return a row by its name."""
        return next(row for row in self.rows if (row.name, row.scene) == (name, scene))

    def camera_accuracy(self, title: str) -> Floats:
        """Return the accuracy of each camera, `[C]`; nan for a camera that was not tested."""
        return _over(self.accuracy[title], axis=1)

    @property
    def tested(self) -> int:
        """The number of cameras that were tested."""
        return int((self.counts.sum(axis=1) > 0).sum())

    @property
    def tested_intervals(self) -> list[int]:
        """The intervals in which a camera was tested."""
        return [k for k in range(self.counts.shape[1]) if self.counts[:, k].any()]

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints and result.json has; unknown numbers are nan."""
        setting = asdict(self.setting)
        cameras = self.setting.cameras
        cells = [
            {
                "camera": cameras[c],
                "interval": k,
                "images": int(self.counts[c, k]),
                "accuracy": {title: float(table[c, k]) for title, table in self.accuracy.items()},
                "macro_recall": {title: float(table[c, k]) for title, table in self.macro_recall.items()},
            }
            for c, k in np.argwhere(self.counts > 0).tolist()
        ]
        return {
            "format": FORMAT,
            "protocol": "chronological",
            **setting,
            "tested": {
                "cameras": self.tested,
                "images": int(self.counts.sum()),
                "without_pair": self.unpaired,
                "batches": self.batches,
            },
            "rows": [asdict(row) for row in self.rows],
            "cells": cells,
        }


def result_of(cells: Sequence[ServedCell], setting: Setting) -> ChronologicalResult:
    """Return the result of all cells that were served; there is at least one."""
    shape = len(setting.cameras), len(setting.images)
    ways = [way for way in (ServedWay(n, scene) for scene in (False, True) for n in NAMES) if way in cells[0].answers]
    accuracy = {way.title: _table(cells, shape, partial(_accuracy, way)) for way in ways}
    recall = {way.title: _table(cells, shape, partial(_recall, way)) for way in ways}
    by_alpha = [_table(cells, shape, partial(_at_alpha, j)) for j in range(len(setting.alphas))]
    best = int(np.argmax([_mean(table) for table in by_alpha]))
    each = _table(cells, shape, lambda cell: cell.by_alpha.mean(axis=1).max())
    accuracy |= {BEST_FIXED: by_alpha[best], BEST_EACH: each}
    rows = [_with_quality(_row(way.name, way.title, accuracy, scene=way.scene), way, cells, recall) for way in ways]
    rows += [_row(name, name, accuracy, scene=False) for name in (BEST_FIXED, BEST_EACH)]
    rows = [replace(row, alpha=setting.alphas[best]) if row.name == BEST_FIXED else row for row in rows]
    counts = np.nan_to_num(_table(cells, shape, lambda cell: len(cell.labels))).astype(np.int64)
    unpaired = sum(len(cell.labels) for cell in cells if not cell.has_pair)
    batches = sum(cell.batches for cell in cells)
    return ChronologicalResult(setting, tuple(rows), accuracy, recall, counts, unpaired, batches)


def _row(name: str, title: str, accuracy: Mapping[str, Floats], *, scene: bool) -> WayRow:
    """Return what follows from the accuracies, by title, of a way or a reference."""
    table = accuracy[title]
    below = _below(table, accuracy[ZERO_SHOT])
    against = (ZERO_SHOT, BEST_FIXED, BEST_EACH, *([name] if scene else []))
    return WayRow(
        name=name,
        scene=scene,
        accuracy=_mean(table),
        accuracy_ci=_interval(_resampled(table)),
        below_zero_shot=_mean(below),
        below_zero_shot_ci=_interval(_resampled(below)),
        versus={other: _difference(table, accuracy[other]) for other in dict.fromkeys(against) if other != title},
        by_interval=tuple(_over(table, axis=0).tolist()),
    )


def _with_quality(row: WayRow, way: ServedWay, cells: Sequence[ServedCell], recall: Mapping[str, Floats]) -> WayRow:
    """Return the row with what is known of a way alone: `recall` is macro recall by title."""
    own = recall[way.title]
    answers = [cell.answers[way] for cell in cells]
    nll = _table(cells, own.shape, lambda cell: cell.answers[way].nll.mean())
    forwards, images = [cell.forwards[way.name] for cell in cells], [len(cell.labels) for cell in cells]
    costs = [forward_cost(cell.forwards[way.name], cell.tail_share) for cell in cells]
    return replace(
        row,
        macro_recall=_mean(own),
        macro_recall_ci=_interval(_resampled(own)),
        recall_versus_zero_shot=_difference(own, recall[ZERO_SHOT]),
        ece=calibration_error(*(np.concatenate([getattr(a, n) for a in answers]) for n in ("correct", "confidence"))),
        nll=_mean(nll),
        flicker=flicker([(cell.labels, cell.answers[way].predicted) for cell in cells]),
        forwards=float(np.average(forwards, weights=images)),
        forward_cost=float(np.average(costs, weights=images)),
    )


def _difference(table: Floats, other: Floats) -> Difference:
    """Return the difference of two means over cameras; both are of the same cells, and share the drawn cameras."""
    return Difference(_mean(table) - _mean(other), _interval(_resampled(table) - _resampled(other)))


def macro_recall(correct: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> float:
    """Return the mean over the classes among `labels` `[n]` of the share of their images that are right."""
    _, of = np.unique(labels, return_inverse=True)
    return float((np.bincount(of, correct) / np.bincount(of)).mean())


def flicker(sequences: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]) -> float | None:
    """Return how often a prediction changes while the label stays, over pairs of neighbours with one label, in [0, 1].

    The definition is our own (docs/decisions/formulas.md). None if no neighbours have one label.

    Args:
        sequences: labels `[n]` and predictions `[n]` of images in their order, sequence by sequence.
    """
    same = np.concatenate([labels[1:] == labels[:-1] for labels, _ in sequences])
    changed = np.concatenate([predicted[1:] != predicted[:-1] for _, predicted in sequences])
    return float(changed[same].mean()) if same.any() else None


def calibration_error(correct: npt.NDArray[np.bool_], confidence: Floats) -> float:
    """Return the expected calibration error of n images over 15 equal bins of confidence, in [0, 1]."""
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return float(np.abs(np.bincount(bins, correct - confidence, BINS)).sum() / len(correct))


def _table(cells: Sequence[ServedCell], shape: tuple[int, ...], value: Callable[[ServedCell], float]) -> Floats:
    """Return a value of each cell, `[C, K]`; nan where there is no cell."""
    table = np.full(shape, np.nan)
    for cell in cells:
        table[cell.camera, cell.interval] = value(cell)
    return table


def _interval(samples: Floats) -> Interval:
    """Return the interval of resampled values; nan for one camera, of which nothing can be drawn."""
    return (math.nan, math.nan) if np.isnan(samples).all() else interval(samples)


def _accuracy(way: ServedWay, cell: ServedCell) -> float:
    return float(cell.answers[way].correct.mean())


def _recall(way: ServedWay, cell: ServedCell) -> float:
    return macro_recall(cell.answers[way].correct, cell.labels)


def _at_alpha(j: int, cell: ServedCell) -> float:
    """Return accuracy at an alpha; without a pair, theta_0 serves at each."""
    return float(cell.by_alpha[j if cell.has_pair else 0].mean())


def _over(table: Floats, axis: int) -> Floats:
    """Return the mean over what is known along an axis; nan where nothing is."""
    known = ~np.isnan(table)
    count = known.sum(axis=axis)
    sums = np.where(known, table, 0.0).sum(axis=axis)
    means: Floats = np.divide(sums, count, out=np.full(sums.shape, np.nan), where=count > 0)
    return means


def _mean(table: Floats) -> float:
    """Return the mean over cameras of each one's mean over intervals, from `[C, K]`."""
    return float(np.nanmean(_over(table, axis=1)))


def _below(table: Floats, zero_shot: Floats) -> Floats:
    """Return 1 for a camera whose accuracy is below zero-shot's, else 0, `[C, 1]`; nan if it was not tested."""
    own, other = _over(table, axis=1), _over(zero_shot, axis=1)
    # Means of the same hits, added in another order, differ by rounding.
    return np.where(np.isnan(own), np.nan, (own < other - 1e-12).astype(np.float64))[:, None]


def _resampled(table: Floats, *, seed: int = 0) -> Floats:
    """Return the mean over cameras in each of 1,000 resamples of the tested cameras, `[1000]`; nan if there is one."""
    each = _over(table, axis=1)
    each = each[~np.isnan(each)]
    if len(each) < 2:
        return np.full(RESAMPLES, np.nan)
    drawn = np.random.default_rng(seed).integers(len(each), size=(RESAMPLES, len(each)))
    means: Floats = each[drawn].mean(axis=1)
    return means
