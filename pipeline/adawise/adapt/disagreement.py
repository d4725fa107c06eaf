"""The cap on alpha: how many of zero-shot's predictions the weights at an alpha may contradict.

Entropy prefers weights that are sure, and they may be sure and wrong. Such weights then predict other classes than
zero-shot does. So alpha is capped at the largest one whose expected share of differing predictions is within a limit.
The share is taken to be proportional to alpha. Every comparison corrects that at the alpha where the stream is, so the
cap settles at the alpha that has the limit itself. This guard is our own, not the paper's (docs/decisions/formulas.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_EXPECTED, _WORTH = 0.3, 8.0  # share at alpha 1 before any comparison, and the weight of that guess in images
_REMEMBERED = 64.0  # most images that are remembered, each counted alpha^2
_KEPT = 0.99  # share kept from batch to batch, so that a refused alpha is tried again after a while


@dataclass(frozen=True)
class Disagreement:
    """The result of comparisons within a condition.

    Attributes:
        images: sum of alpha^2 over the compared images; at most 64.
        differing: sum of alpha over the images whose prediction differed from zero-shot's, scaled alike.
    """

    images: float = 0.0
    differing: float = 0.0

    @property
    def slope(self) -> float:
        """The share of differing predictions at alpha 1: least squares through 0, shrunk towards a guess.

        It is a ridge regression (Hoerl and Kennard, 1970) with one coefficient, whose penalty is the guess's weight.
        """
        return (_EXPECTED * _WORTH + self.differing) / (_WORTH + self.images)

    def observed(self, alpha: float, share: float, images: int) -> Disagreement:
        """Return the sums after a comparison in which alpha and zero-shot differed on that share of `images`."""
        kept = min(1.0, _REMEMBERED / max(self.images + alpha**2 * images, 1e-9))
        return Disagreement(kept * (self.images + alpha**2 * images), kept * (self.differing + alpha * share * images))

    def faded(self) -> Disagreement:
        """Return the sums one batch later."""
        return Disagreement(_KEPT * self.images, _KEPT * self.differing)

    def highest(self, alphas: Sequence[float], limit: float) -> int:
        """Return the index of the largest alpha whose expected share is within `limit`; 0 is always allowed."""
        slope = self.slope
        return max(j for j, alpha in enumerate(alphas) if j == 0 or slope * alpha <= limit)
