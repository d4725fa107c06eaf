"""How far fine-tuned weights may go: with how many of zero-shot's predictions an alpha disagrees.

Entropy prefers weights that are sure, and they may be sure and wrong. What they then predict is not what zero-shot
does. So alpha is capped where too much would differ: at the largest alpha whose share of other predictions is likely
within a limit. The share is taken to grow in proportion to alpha, which every comparison corrects at the alpha where
the stream is, so that the cap settles at the alpha that has the limit itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_EXPECTED, _WORTH = 0.3, 8.0  # of images at alpha 1, before any were compared; what that guess is worth in images
_REMEMBERED = 64.0  # images at alpha 1
_KEPT = 0.99  # of what was seen, from batch to batch: what was given up is tried again after a while


@dataclass(frozen=True)
class Disagreement:
    """What comparisons within a condition gave: sums over `images` of alpha^2 and of alpha if the prediction differed.

    At most 64 of them are remembered.
    """

    images: float = 0.0
    differing: float = 0.0

    @property
    def slope(self) -> float:
        """The share of other predictions at alpha 1: least squares through 0, with a guess where little was seen."""
        return (_EXPECTED * _WORTH + self.differing) / (_WORTH + self.images)

    def observed(self, alpha: float, share: float, images: int) -> Disagreement:
        """After a comparison: on that share of `images` alpha predicts another class than zero-shot does."""
        kept = min(1.0, _REMEMBERED / max(self.images + alpha**2 * images, 1e-9))
        return Disagreement(kept * (self.images + alpha**2 * images), kept * (self.differing + alpha * share * images))

    def faded(self) -> Disagreement:
        """A batch later."""
        return Disagreement(_KEPT * self.images, _KEPT * self.differing)

    def highest(self, alphas: Sequence[float], limit: float) -> int:
        """The index of the largest alpha that is likely within `limit`."""
        slope = self.slope
        return max(j for j, alpha in enumerate(alphas) if j == 0 or slope * alpha <= limit)
