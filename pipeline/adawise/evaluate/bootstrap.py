"""Paired bootstrap over images: the same images are drawn anew for everything that is compared.

An image is drawn with all of its visits, in all streams and seeds: 1,600 visits to 400 images are 400 images' worth of
evidence. Domains are not drawn: what is said is said of these.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adawise.evaluate.bench import Bench, Floats

RESAMPLES = 1000
_LEVEL = 0.95


def resampled_accuracies(bench: Bench, hits: Floats, visits: Floats, *, seed: int = 0) -> Floats:
    """Accuracy (mean over domains) of R rows in each of 1,000 resamples, `[R, 1000]`.

    `hits` `[R, N]` how often each image was right, `visits` `[R, N]` how often it came. A domain that did not come in
    any row is left out.
    """
    parts = []
    for d, (first, last) in enumerate(zip(bench.starts, bench.starts[1:], strict=False)):
        if not visits[:, first:last].any():
            continue
        rng = np.random.default_rng((seed, d))
        n = last - first
        drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES).T.astype(np.float64)  # [n, 1000]
        came = visits[:, first:last] @ drawn
        right = hits[:, first:last] @ drawn
        parts.append(np.divide(right, came, out=np.full_like(came, np.nan), where=came > 0))
    accuracies: Floats = np.nanmean(np.stack(parts), axis=0)
    return accuracies


def interval(samples: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values `[1000]`."""
    tail = 50.0 * (1.0 - _LEVEL)
    low, high = np.nanpercentile(samples, [tail, 100.0 - tail])
    return float(low), float(high)
