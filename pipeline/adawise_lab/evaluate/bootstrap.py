"""Paired bootstrap over images: all rows that are compared share the same resampled images.

An image is drawn with all of its visits, in all streams and seeds: 1,600 visits to 400 images are the evidence of 400
images. One photograph under six corruptions is part of six domains, and is drawn once for all of them, because an image
that is hard under one corruption is hard under the others. Domains are not resampled: the result is about these
domains.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adawise_lab.evaluate.bench import Bench, Floats

RESAMPLES = 1000
_LEVEL = 0.95


def resampled_accuracies(bench: Bench, hits: Floats, visits: Floats, *, seed: int = 0) -> Floats:
    """Return the accuracy (mean over domains) of R rows in each of 1,000 resamples, `[R, 1000]`.

    Args:
        bench: the images and their domains.
        hits: how often each image was right in each row, `[R, N]`.
        visits: how often each image came in each row, `[R, N]`. A domain without visits in any row is left out.
        seed: of the resampling.
    """
    parts: dict[int, Floats] = {}
    for domains in bench.sharing:
        drawn = _drawn(max(len(bench.tables[d]) for d in domains), (seed, min(domains)))
        for d in domains:
            images = slice(bench.starts[d], bench.starts[d + 1])
            if not visits[:, images].any():
                continue
            times = drawn[: len(bench.tables[d])]
            came, right = visits[:, images] @ times, hits[:, images] @ times
            parts[d] = np.divide(right, came, out=np.full_like(came, np.nan), where=came > 0)
    accuracies: Floats = np.nanmean(np.stack([parts[d] for d in sorted(parts)]), axis=0)
    return accuracies


def _drawn(images: int, seed: tuple[int, int]) -> Floats:
    """Return how often each source image is drawn, `[n, 1000]`; a domain may have only the first few of them."""
    if not images:
        return np.empty((0, RESAMPLES))
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1.0 / images), size=RESAMPLES)
    return drawn.T.astype(np.float64)


def interval(samples: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the middle 95 % of resampled values `[1000]`."""
    tail = 50.0 * (1.0 - _LEVEL)
    low, high = np.nanpercentile(samples, [tail, 100.0 - tail])
    return float(low), float(high)
