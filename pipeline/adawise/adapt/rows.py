"""Rows of a round: which images of which batch are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from adawise.records import Rows, Selection

Evaluate = Callable[[Mapping[int, Sequence[Selection]]], Mapping[int, Tensor]]
"""A model that knows the images of a round: `ports.Round.evaluate`."""

EvaluateImages = Callable[[Mapping[int, Sequence[Tensor]]], Mapping[int, Tensor]]
"""A model that is given images: alpha index -> `[n, 3, S, S]`, one tensor or more, N images in all.

It returns alpha index -> logits `[N, C]`, in the order of the images.
"""


def of_images(batches: Sequence[Tensor], evaluate: EvaluateImages) -> Evaluate:
    """Return `Evaluate` for a round of these batches, `[n, 3, S, S]` each, by a model that is given images."""

    def selected(requested: Mapping[int, Sequence[Selection]]) -> Mapping[int, Tensor]:
        return evaluate(
            {index: [v for s, rows in each for v in _views(batches[s], rows)] for index, each in requested.items()}
        )

    return selected


def all_rows(batches: Sequence[Tensor]) -> list[Selection]:
    """Return selections of all images of these batches, in order."""
    return [(number, np.arange(len(batch))) for number, batch in enumerate(batches)]


def _views(images: Tensor, rows: Rows) -> list[Tensor]:
    """Return `images[rows]` as views of consecutive rows: a classifier copies its input anyway."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
    return [images[rows[i] : rows[j - 1] + 1] for i, j in zip(starts, [*starts[1:], len(rows)], strict=True)]
