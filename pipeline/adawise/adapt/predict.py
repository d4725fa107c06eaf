"""Logits to predictions: what is served at the chosen alpha, and what the endpoints predict if they were evaluated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adawise.records import FloatArray, IntArray, Predictions


def predict(
    logits: Tensor,
    evaluated: dict[int, tuple[np.ndarray, Tensor]],
    *,
    index: int,
    temperatures: tuple[float, ...],
    top_k: int,
    columns: Tensor | None = None,
) -> Predictions:
    """Return the predictions for a batch of N images, calibrated by the card's temperatures if there is a card.

    Probabilities are softmax(logits / T) (Guo et al., 2017, section 4.2), and `entropy` is theirs (Shannon, 1948).

    Args:
        logits: `[N, K]` at the served alpha.
        evaluated: alpha index -> (rows `[m]`, logits `[m, K]`), as in an `Outcome`.
        index: index of the served alpha in the grid.
        temperatures: per alpha of the grid; all 1 without a card.
        top_k: classes kept for each row; at most K are.
        columns: int64 `[K]`, the classes of the logits' columns; None: all C classes, so that K = C.
    """
    p = (logits / temperatures[index]).softmax(dim=-1)  # [N, K]
    top = p.topk(min(top_k, p.shape[1]), dim=-1)
    N = len(logits)
    endpoint_index = np.full((2, N), -1, dtype=np.int32)
    endpoint_confidence = np.full((2, N), np.nan, dtype=np.float32)
    for end, grid_index in enumerate((0, len(temperatures) - 1)):
        if grid_index in evaluated:
            rows, z = evaluated[grid_index]
            best = (z / temperatures[grid_index]).softmax(dim=-1).max(dim=-1)
            endpoint_index[end, rows] = _classes(best.indices, columns)
            endpoint_confidence[end, rows] = _floats(best.values)
    return Predictions(
        top_index=_classes(top.indices, columns),
        top_probability=_floats(top.values),
        entropy=_floats(torch.special.entr(p).sum(dim=-1)),
        endpoint_index=endpoint_index,
        endpoint_confidence=endpoint_confidence,
    )


def _classes(indices: Tensor, columns: Tensor | None) -> IntArray:
    """Return the class indices of columns."""
    array: IntArray = (indices if columns is None else columns[indices]).to(torch.int32).numpy()
    return array


def _floats(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.float().numpy()
    return array
