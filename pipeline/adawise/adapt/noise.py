"""The noise of a probe: how much the mean difference of two alphas over a few images can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PRIOR_SLOPE = 0.8  # nats: sd of an image's difference between two alphas, over their distance
_PRIOR_DEGREES = 8.0  # weight of this guess, in images
_MEMORY = 0.98  # share kept per probe
_OWN_DEGREES = 8.0  # images at which a probe's own variance counts as much as the learned one
_FLOOR = 1e-4  # nats^2


@dataclass(frozen=True)
class PairedNoise:
    """The spread of images in how they react to another alpha, learned by the stream.

    The difference of an image's objective between two alphas has a standard deviation over images that grows about
    linearly with their distance (measured on real pairs). Guesses and data are combined like a scaled inverse
    chi-squared prior and its sums of squares (Gelman et al., 2013, section 3.3). The linear growth and the forgetting
    are our own (docs/decisions/formulas.md).

    Attributes:
        squares: sum of squared deviations over squared distance, nats^2.
        degrees: the number of images in `squares`.
    """

    squares: float = _PRIOR_DEGREES * _PRIOR_SLOPE**2
    degrees: float = _PRIOR_DEGREES

    def variance(self, distance: npt.ArrayLike, images: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the expected variance of a mean difference, nats^2, at that distance in alpha over that many images.

        The arguments broadcast.
        """
        one = self.squares / self.degrees * np.square(distance)
        expected: npt.NDArray[np.float64] = one / np.asarray(images, dtype=np.float64) + _FLOOR
        return expected

    def measured(self, distance: float, differences: npt.NDArray[np.float64]) -> float:
        """Return the variance of the mean of these differences, nats^2: their own, shrunk towards the expected one."""
        images = len(differences)
        one = self.squares / self.degrees * distance**2
        deviations = float(np.square(differences - differences.mean()).sum())
        return (_OWN_DEGREES * one + deviations) / (_OWN_DEGREES + images - 1) / images + _FLOOR

    def learned(self, distance: float, differences: npt.NDArray[np.float64]) -> PairedNoise:
        """Return the noise after these differences."""
        if len(differences) < 2:
            return self
        deviations = float(np.square(differences - differences.mean()).sum()) / distance**2
        return PairedNoise(_MEMORY * self.squares + deviations, _MEMORY * self.degrees + len(differences) - 1)
