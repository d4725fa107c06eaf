"""The lag of the served alpha behind a best alpha that moves, on a `smooth` stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adawise_lab.evaluate.bench import Bench, Floats
from adawise_lab.evaluate.streams import Smooth, share_of_second

_FARTHEST = 0.25  # of the stream: a longer lag does not count as following
_LEAST_CORRELATION = 0.5  # a lower one is noise, not a lag


def best_path(bench: Bench, smooth: Smooth) -> Floats:
    """Return the alpha that is best for the mixture of each batch of a smooth stream, `[batches]`.

    The lowest of equals.

    It uses the expected share of each group and the accuracies over all images of the domains, which avoids the
    sampling noise of batches of 32 images.
    """
    first, second = (bench.accuracy[list(group)].mean(axis=0) for group in smooth)  # [G] each
    share = share_of_second()[:, None]
    best: Floats = np.asarray(bench.alphas)[((1.0 - share) * first + share * second).argmax(axis=1)]
    return best


def lag_batches(served: Sequence[Floats], best: Floats) -> float | None:
    """Return by how many batches the `served` paths (one for each seed, `[batches]`) lag behind `best` `[batches]`.

    The lag is the shift at which the mean path correlates most with `best`. None if the path does not follow: one of
    both does not move, or the correlation is below .5 at every shift.
    """
    path = np.mean(served, axis=0)
    T = len(best)
    correlations = {}
    for lag in range(int(T * _FARTHEST) + 1):
        a, b = path[lag:], best[: T - lag]
        if a.std() > 1e-9 and b.std() > 1e-9:
            correlations[lag] = float(np.corrcoef(a, b)[0, 1])
    if max(correlations.values(), default=0.0) < _LEAST_CORRELATION:
        return None
    return float(max(correlations, key=lambda lag: (correlations[lag], -lag)))


def path_error(served: Sequence[Floats], best: Floats) -> float:
    """Return the mean distance between served and best alpha."""
    return float(np.abs(np.stack(served) - best).mean())
