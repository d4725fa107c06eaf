"""What a camera's scene costs a batch of 16 images: the class prior alone, and with smoothing, open and closed.

The ways take turns, in processor time of one thread, medians over all turns. Open is a camera whose frames come in
runs, closed one whose frames come in no order.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from adawise.adapt.prior import Array, ClassPrior
from adawise.adapt.smoothing import Smoothing
from tools.bench.host import one_thread

CLASSES = (10, 100, 1_000, 10_000)
IMAGES, BATCHES = 16, 60


def frames(classes: int, run: int) -> list[Array]:
    """Return batches of probabilities `[16, classes]` of a model that is right for most images, in runs of so many."""
    rng, distance = np.random.default_rng(run), np.sqrt(2.0 * np.log(classes))
    truth = np.repeat(rng.integers(0, min(classes, 20), IMAGES * BATCHES), run)[: IMAGES * BATCHES]
    z = distance * rng.normal(0.0, 1.0, (len(truth), classes))
    z[np.arange(len(truth)), truth] += distance**2
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return np.split(p / p.sum(axis=1, keepdims=True), BATCHES)


def main() -> None:
    """Print milliseconds by the number of classes."""
    print("| classes | prior | with smoothing, closed | open | mean weight where open |\n|---|---|---|---|---|")
    with one_thread():
        for classes in CLASSES:
            (prior, closed, _), (_, opened, weight) = (_measured(frames(classes, run)) for run in (1, 8))
            print(f"| {classes:,} | {prior:.3f} | {closed:.3f} | {opened:.3f} | {weight:.2f} |")


def _measured(batches: list[Array]) -> tuple[float, float, float]:
    """Return milliseconds a batch without and with smoothing, and the mean weight of the last half."""
    prior, smoothing, spent, weights = ClassPrior(""), Smoothing(""), [], []
    for p in batches:
        begun = time.thread_time()
        prior = prior.observed(p)
        corrected = prior.corrected(p)
        between = time.thread_time()
        smoothing, _, weight = smoothing.smoothed(p, corrected, prior)
        spent.append((between - begun, time.thread_time() - begun))
        weights.append(weight)
    half = len(batches) // 2
    alone, both = (1e3 * median(seconds[way] for seconds in spent[half:]) for way in (0, 1))
    return alone, both, sum(weights[half:]) / half
