"""How much the mean difference of two alphas over a few images can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adawise.adapt.objective import Values

_PRIOR_SLOPE = 0.8  # nats an image: sd of its difference between two alphas, over their distance
_PRIOR_DEGREES = 8.0  # images that this guess is worth
_MEMORY = 0.98  # a probe
_OWN_DEGREES = 8.0  # images at which a probe's own variance counts as much as what was learned
_FLOOR = 1e-4  # nats^2


@dataclass(frozen=True)
class PairedNoise:
    """How much images differ in what another alpha does to them, learned by the stream.

    The difference of an image's objective between two alphas varies from image to image with a standard deviation that
    grows about linearly with their distance (measured on real pairs). `squares` is the sum of squared deviations over
    squared distance, nats^2, of `degrees` images.
    """

    squares: float = _PRIOR_DEGREES * _PRIOR_SLOPE**2
    degrees: float = _PRIOR_DEGREES

    def variance(self, distance: npt.ArrayLike, images: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Of the mean difference at that distance in alpha over that many images, nats^2; the arguments broadcast."""
        one = self.squares / self.degrees * np.square(distance)
        expected: npt.NDArray[np.float64] = one / np.asarray(images, dtype=np.float64) + _FLOOR
        return expected

    def measured(self, distance: float, differences: Values) -> float:
        """The same for differences that were seen: their own variance, drawn towards what is expected of them."""
        images = len(differences)
        one = self.squares / self.degrees * distance**2
        deviations = float(np.square(differences - differences.mean()).sum())
        return (_OWN_DEGREES * one + deviations) / (_OWN_DEGREES + images - 1) / images + _FLOOR

    def learned(self, distance: float, differences: Values) -> PairedNoise:
        """After those differences."""
        if len(differences) < 2:
            return self
        deviations = float(np.square(differences - differences.mean()).sum()) / distance**2
        return PairedNoise(_MEMORY * self.squares + deviations, _MEMORY * self.degrees + len(differences) - 1)
