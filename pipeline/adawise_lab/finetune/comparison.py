"""theta_0 against theta_1 on the held-out images: accuracy by class, confusions, and whether it got worse."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_WORSE = 0.01  # accuracy: a smaller loss is not called one, however certain it is
_SURE = 2.33  # standard deviations: one in a hundred by chance
_CONFUSIONS = 20
SHOWN = 24
"""The number of mistakes that are shown."""


@dataclass(frozen=True)
class WrongImage:
    """A held-out image that theta_1 misclassifies; `picture` is a small JPEG."""

    name: str
    own: str
    taken_for: str
    picture: bytes


@dataclass(frozen=True)
class Comparison:
    """Class indices of each held-out image that could be read: its label, and the prediction at alpha 0, .5 and 1."""

    labels: Sequence[int]
    zero_shot: Sequence[int]
    half: Sequence[int]
    fine_tuned: Sequence[int]

    def per_class(self, names: Sequence[str], trained: Sequence[int]) -> list[dict[str, Any]]:
        """Return the images and accuracies of each class; None for accuracies without held-out images.

        `trained` has the labels of the training images.
        """
        learned, held_out = Counter(trained), Counter(self.labels)
        before, after = self._right(self.zero_shot), self._right(self.fine_tuned)

        def share(right: Counter[int], k: int) -> float | None:
            return right[k] / held_out[k] if held_out[k] else None

        return [
            {
                "name": name,
                "train": learned[k],
                "held_out": held_out[k],
                "zero_shot": share(before, k),
                "fine_tuned": share(after, k),
            }
            for k, name in enumerate(names)
        ]

    def confusions(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the most frequent confusions of theta_1, most frequent first, with theta_0's count of each."""
        after, before, held_out = self._wrong(self.fine_tuned), self._wrong(self.zero_shot), Counter(self.labels)
        return [
            {
                "class": names[own],
                "taken_for": names[other],
                "images": count,
                "of": held_out[own],
                "zero_shot": before[own, other],
            }
            for (own, other), count in sorted(after.items(), key=lambda item: (-item[1], item[0]))[:_CONFUSIONS]
        ]

    @property
    def ruin(self) -> str | None:
        """The reason why this pair must not serve: theta_1, or the path to it, is significantly worse than theta_0."""
        before, half, after = (sum(self._right(said).values()) for said in (self.zero_shot, self.half, self.fine_tuned))
        n = len(self.labels)
        if self._lost(self.zero_shot, self.fine_tuned):
            return f"theta_1 is right on {after} of {n} held-out images, theta_0 was on {before}"
        worse = self.zero_shot if before <= after else self.fine_tuned
        if self._lost(worse, self.half):
            return (
                f"there is an accuracy barrier: at alpha .5, {half} of {n} held-out images are right, at the worse end "
                f"{min(before, after)}"
            )
        return None

    def _right(self, said: Sequence[int]) -> Counter[int]:
        return Counter(own for own, k in zip(self.labels, said, strict=True) if own == k)

    def _wrong(self, said: Sequence[int]) -> Counter[tuple[int, int]]:
        return Counter((own, k) for own, k in zip(self.labels, said, strict=True) if own != k)

    def _lost(self, before: Sequence[int], after: Sequence[int]) -> bool:
        """Test whether predictions got worse: McNemar's test on the images that one of both gets right.

        It is one-sided, with continuity correction; a loss of at most 1 % of the images never counts.
        """
        moved = [(b == own) - (a == own) for own, b, a in zip(self.labels, before, after, strict=True)]
        net, changed = sum(moved), sum(map(abs, moved))
        return net > _WORSE * len(moved) and (net - 1) / math.sqrt(changed) > _SURE
