"""Corruptions by the sensor. Pictures are float `[S, S, 3]` in [0, 1]; results are not clipped."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.util import random_noise

Picture = npt.NDArray[np.float64]


def gaussian_noise(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add normal noise of standard deviation .08, .12, .18, .26, .38, as with too little light."""
    sd = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return np.asarray(random_noise(x, "gaussian", rng=rng, var=sd**2))


def shot_noise(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add Poisson noise of 60, 25, 12, 5, 3 photons at full brightness."""
    photons = (60.0, 25.0, 12.0, 5.0, 3.0)[severity - 1]
    return rng.poisson(x * photons) / photons


def impulse_noise(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add bit errors: a share of .03, .06, .09, .17, .27 of the values is black or white."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    return np.asarray(random_noise(x, "s&p", rng=rng, amount=share))
