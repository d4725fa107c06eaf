"""Probes within a batch: a few of its images are evaluated at other alphas, as long as that is worth its price."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.adapt.change import Hypotheses
from adawise.adapt.noise import PairedNoise
from adawise.adapt.objective import Values
from adawise.adapt.search import BatchTrials, Trial
from adawise.adapt.surrogate import Surrogate, knowledge_gradient
from adawise.records import Rows

Probing = Generator[list[Trial], list[Tensor], None]

_PARTS = 4  # probes are at the quarters of the grid
_SIZES = (1, 2, 4, 8)  # of a probe, in multiples of the smallest


@dataclass
class Probes:
    """The probes of one batch, and the hypotheses after them.

    Every image was evaluated at `current`; the search learns from differences to it on the same images.

    Attributes:
        surrogate: the prior over curves.
        trials: what was evaluated so far.
        current: index of the served alpha.
        hypotheses: the hypotheses after the probes so far.
        noise: the noise of probes, learned by the stream.
        price: nats that a forward over the whole batch must promise.
        smallest: images of the smallest probe.
        left: images that may still be evaluated.
        broken: indices of alphas that gave a value that is not finite.
    """

    surrogate: Surrogate
    trials: BatchTrials
    current: int
    hypotheses: Hypotheses
    noise: PairedNoise
    price: float
    smallest: int
    left: int
    broken: set[int] = field(default_factory=set)

    @cached_property
    def sample(self) -> StratifiedSample:
        """The batch's images in the order in which probes take them; computed late, because most batches need none."""
        return StratifiedSample(self.trials.values[self.current])

    @property
    def alphas(self) -> tuple[float, ...]:
        """The grid."""
        return self.surrogate.alphas

    def while_worth(self, *, one_at_least: bool) -> Probing:
        """Probe what is worth most beyond its price, until nothing is; `one_at_least` exempts the first probe."""
        while probe := self._best(forced=one_at_least and len(self.trials.evaluated) == 1):
            index, count = probe
            rows = self.sample.draw(count, unseen=self._unseen(index))
            yield from self.trials.evaluate([index], rows)
            self.left -= len(rows)
            self._learn(index, rows, 1.0)

    def sweep(self, count: int) -> Generator[list[Trial], list[Tensor], tuple[float, float]]:
        """Evaluate the knots on `count` images; return the lowest objective's gain over `current` and its sd, nats.

        The images are the same at all alphas, so the differences share one error. Therefore each is taken to be
        noisier, by a factor of the number of swept alphas.
        """
        rows = self.sample.draw(count, unseen=np.ones(self.trials.images, dtype=np.bool_))
        swept = [j for j in self.surrogate.knots.tolist() if j != self.current]
        yield from self.trials.evaluate(swept, rows)
        self.left -= len(swept) * len(rows)
        base, noise = self.trials.values[self.current][rows], self.noise
        regret = sd = 0.0
        for index in swept:
            differences = self.trials.values[index][rows] - base
            self._learn(index, rows, float(len(swept)))
            if index not in self.broken and -float(differences.mean()) > regret:
                regret = -float(differences.mean())
                sd = noise.measured(self.alphas[index] - self.alphas[self.current], differences) ** 0.5
        return regret, sd

    def at_zero_shot(self, count: int) -> Probing:
        """Evaluate that many images at alpha 0."""
        rows = self.sample.draw(min(count, self.trials.images), unseen=self._unseen(0))
        yield from self.trials.evaluate([0], rows)
        self.left -= len(rows)
        self._learn(0, rows, 1.0)

    def disagreement(self) -> tuple[float, int]:
        """Return the share of images whose class differs between alpha 0 and the current alpha, and of how many.

        Images with logits that are not finite are left out: they have no class.
        """
        if self.current == 0 or 0 not in self.trials.evaluated:
            return 0.0, 0
        (_, whole), (seen, theirs) = self.trials.evaluated[self.current], self.trials.evaluated[0]
        ours = whole[torch.from_numpy(seen)]
        differs = ours.argmax(dim=-1) != theirs.argmax(dim=-1)
        differs = differs[ours.isfinite().all(dim=-1) & theirs.isfinite().all(dim=-1)]
        return (float(differs.double().mean()) if len(differs) else 0.0), len(differs)

    def rest(self, index: int) -> Probing:
        """Evaluate an alpha on the images that were not evaluated at it."""
        rows = np.flatnonzero(self._unseen(index))
        if len(rows):
            yield from self.trials.evaluate([index], rows)
        if not np.isfinite(self.trials.values[index]).all():
            self.broken.add(index)

    def is_evaluated_whole(self, index: int) -> bool:
        """Return True if every image of the batch was evaluated at that alpha."""
        return not self._unseen(index).any()

    def _unseen(self, index: int) -> npt.NDArray[np.bool_]:
        """Return the mask `[n]` of images that were not evaluated at that alpha."""
        unseen = np.ones(self.trials.images, dtype=np.bool_)
        if index in self.trials.evaluated:
            unseen[self.trials.evaluated[index][0]] = False
        return unseen

    def _learn(self, index: int, rows: npt.NDArray[np.int64], share: float) -> None:
        """Update hypotheses and noise from the differences on these rows; their variance is multiplied by `share`."""
        differences = self.trials.values[index][rows] - self.trials.values[self.current][rows]
        if not np.isfinite(differences).all():
            self.broken.add(index)
            return
        distance = self.alphas[index] - self.alphas[self.current]
        variance = share * self.noise.measured(distance, differences)
        mean = float(differences.mean())
        self.hypotheses = self.hypotheses.observed(self.surrogate, index, self.current, mean, variance)
        self.noise = self.noise.learned(distance, differences)

    def _best(self, *, forced: bool) -> tuple[int, int] | None:
        """Return (alpha index, images) of the best probe; None if none is worth its price, unless `forced`."""
        images, last = self.trials.images, len(self.alphas) - 1
        sizes = np.array([size for size in (self.smallest * s for s in _SIZES) if size <= min(self.left, images)])
        parts = {last * part // _PARTS for part in range(_PARTS + 1)} - self.broken - {self.current}
        seen = {j: len(rows) for j, (rows, _) in self.trials.evaluated.items()}
        indices = np.array([j for j in sorted(parts) if seen.get(j, 0) < images], dtype=np.int64)
        if not len(sizes) or not len(indices):
            return None
        distances = np.asarray(self.alphas)[indices] - self.alphas[self.current]
        variances = self.noise.variance(distances[:, None], sizes)  # [J, S]
        gain = knowledge_gradient(self.hypotheses.belief, self.current, indices, variances)
        worth = gain - self.price * sizes / images
        j, s = np.unravel_index(int(worth.argmax()), worth.shape)
        return (int(indices[j]), int(sizes[s])) if forced or worth[j, s] > 0.0 else None


class StratifiedSample:
    """The images of a batch, ordered so that every stretch is a sample from easy to hard ones.

    They are sorted by their value at the served alpha and drawn in the order of the reversed bits of their rank (van
    der Corput, 1935), so a few images represent the batch better than random ones do. No image is drawn twice before
    all were drawn once.
    """

    def __init__(self, values: Values) -> None:
        self._order = np.argsort(values, kind="stable")[_spread(len(values))]
        self._drawn = 0

    def draw(self, count: int, *, unseen: npt.NDArray[np.bool_]) -> Rows:
        """Return the next `count` images (or fewer) that are `unseen` `[n]` at the probed alpha, in ascending order."""
        order = np.roll(self._order, -self._drawn)
        rows = order[unseen[order]][:count]
        self._drawn = (self._drawn + len(rows)) % len(self._order)
        return np.sort(rows)


@lru_cache(maxsize=64)
def _spread(count: int) -> Rows:
    """Return 0 .. count - 1 in the order of their reversed bits."""
    bits = max(1, (count - 1).bit_length())
    numbers = np.arange(1 << bits)
    reversed_bits = sum(((numbers >> b) & 1) << (bits - 1 - b) for b in range(bits))
    order = np.asarray(reversed_bits, dtype=np.int64)
    return order[order < count]
