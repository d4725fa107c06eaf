"""The class prior of a camera: which classes it shows, and how often, learned from its predictions without labels.

A camera at a gate shows five of a hundred classes. Expected counts of the classes, faded over some hundred images, are
the prior by which its probabilities are corrected (Saerens, Latinne and Decaestecker, 2002, equations 2.4 and 2.9, with
counts that are carried from batch to batch). A model that errs towards a few classes would correct itself ever further
into them, so two gates close the correction: where the counts are spread over many classes, because then there is
little to gain; and where the model is unsure of most images, because then it does not work here. Both are our own
(docs/decisions/formulas.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

COUNT = np.dtype([("place", "<u4"), ("images", "<f4")])
"""A count as a state keeps it: the index of its class, and an expected number of images."""

_MOST = 1e6  # every number of a state is smaller
_HALF_LIFE = 320.0  # images after which an image counts half
_PASSES = 2  # of expectation and maximisation, for each batch
_SMOOTHING = 30.0  # images that count as spread evenly over all classes
_LEAST_SHARE = 0.05  # the least prior of a class, as a share of the largest: what is rare can still be served
_LEAST_IMAGES = 15.5  # before that the gate is closed: not 16, the usual batch, of which rounding would decide
_SPREAD = (0.5, 0.25)  # share of the classes that the counts are spread over: closed from the first, open to the second
_SURE = (0.46, 0.56)  # mean confidence of the served predictions above chance, over that of a sure model, likewise
KEPT = 64
"""The most classes whose counts are kept; the others share what is left evenly."""

LARGEST = KEPT * COUNT.itemsize
"""The most bytes of the kept counts."""


def packed(counts: Array, most: int) -> tuple[bytes, float]:
    """Return the largest counts, at most so many, with their classes in ascending order, and the sum of the others.

    Args:
        counts: expected numbers of images, `[C]`.
        most: the number of counts that are kept, in single precision, as the sum is.
    """
    order = np.argsort(-counts, kind="stable")
    kept = np.zeros(min(len(counts), most), COUNT)
    kept["place"] = np.sort(order[:most])
    kept["images"] = counts[kept["place"]]
    return kept.tobytes(), float(np.float32(counts[np.sort(order[most:])].sum()))


def unpacked(kept: bytes, rest: float, C: int) -> Array:
    """Return the counts of all classes, `[C]`: those that are not kept share the rest evenly."""
    counts = np.frombuffer(kept, COUNT)
    others = C - len(counts)
    found = np.full(C, rest / others if others > 0 else 0.0)
    found[counts["place"]] = counts["images"]
    return found


def is_sound(kept: bytes, rest: float, most: int) -> bool:
    """Return True if a camera can have these counts: what a damaged state holds may be anything."""
    if len(kept) % COUNT.itemsize or len(kept) > most * COUNT.itemsize:
        return False
    counts = np.frombuffer(kept, COUNT)
    numbers = np.array([*counts["images"], rest], np.float64)
    ascending = np.diff(counts["place"].astype(np.int64), prepend=-1) > 0
    return bool(ascending.all() and ((numbers >= 0.0) & (numbers < _MOST)).all())


@dataclass(frozen=True)
class ClassPrior:
    """A faded count of images for each class of one camera.

    Attributes:
        classes: digest of the names of the C classes, in their order.
        kept: the classes with the largest counts, at most `KEPT`: ascending indices, uint32, each with its expected
            number of images, float32, packed as a state keeps them.
        rest: the expected number of images of all other classes together, in single precision.
        confidence: sum over these images of the largest probability, not corrected, in single precision.
    """

    classes: str
    kept: bytes = field(default=b"", repr=False)
    rest: float = 0.0
    confidence: float = 0.0

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """The indices of the classes whose counts are kept."""
        return np.frombuffer(self.kept, COUNT)["place"].astype(np.int64)

    @property
    def counts(self) -> Array:
        """The expected numbers of images of these classes."""
        return np.frombuffer(self.kept, COUNT)["images"].astype(np.float64)

    @property
    def images(self) -> float:
        """The number of images in all counts."""
        return math.fsum(self.counts.tolist()) + self.rest

    def observed(self, p: Array) -> ClassPrior:
        """Return the prior after a batch with the probabilities `p`, `[N, C]`, which are finite."""
        N, C = p.shape
        faded = 0.5 ** (N / _HALF_LIFE)
        counts, expected = unpacked(self.kept, self.rest, C) * faded, np.zeros(C)
        for _ in range(_PASSES):
            corrected = p * (counts + expected + _SMOOTHING / C)
            corrected /= corrected.sum(axis=1, keepdims=True)
            expected = corrected.sum(axis=0)
        counts += expected
        kept, rest = packed(counts, KEPT)
        confidence = self.confidence * faded + p.max(axis=1).sum()
        return ClassPrior(self.classes, kept, rest, float(np.float32(confidence)))

    def gate(self, C: int) -> float:
        """Return how far the correction is open, from 0 (probabilities stay what they are) to 1, for C classes.

        The product of two gates of our own (docs/decisions/formulas.md).
        """
        images = self.images
        if images < _LEAST_IMAGES or C < 2:
            return 0.0
        # As many classes as `images` images of C equally frequent classes show, about: C for many images.
        expected = C * images / (C + images)
        spread = max(math.exp(self._entropy(C, images)) - 1.0, 1e-9) / (expected - 1.0)
        closed, opened = _SPREAD
        by_spread = math.log(closed / spread) / math.log(closed / opened)
        closed, opened = _SURE
        by_confidence = (self.sureness(C) - closed) / (opened - closed)
        return min(max(by_spread, 0.0), 1.0) * min(max(by_confidence, 0.0), 1.0)

    def sureness(self, C: int) -> float:
        """Return the mean confidence above chance, over that of a sure model; there are two classes or more."""
        return (self.confidence / self.images - 1.0 / C) / (1.0 - 1.0 / C)

    def factors(self, C: int) -> Array:
        """Return by how much the prior multiplies the probability of each class, `[C]`, as far as the gate is open."""
        prior = unpacked(self.kept, self.rest, C) + _SMOOTHING / C
        factors: Array = np.maximum(prior / prior.max(), _LEAST_SHARE) ** self.gate(C)
        return factors

    def corrected(self, p: Array) -> Array:
        """Return the probabilities `p`, `[N, C]`, corrected by the prior as far as the gate is open."""
        corrected: Array = p * self.factors(p.shape[1])
        corrected /= corrected.sum(axis=1, keepdims=True)
        return corrected

    def is_sound(self) -> bool:
        """Return True if a camera can have this prior: what a damaged state holds may be anything."""
        return is_sound(self.kept, self.rest, KEPT) and 0.0 <= self.confidence < _MOST

    def _entropy(self, C: int, images: float) -> float:
        """Return the entropy of the counts, nats (Shannon, 1948); those that are not kept are equal."""
        counts = self.counts.tolist()
        shares = [count / images for count in counts if count > 0.0]
        others = C - len(counts)
        found = -math.fsum(share * math.log(share) for share in shares)
        share = self.rest / images
        return found - share * math.log(share / others) if share > 0.0 and others > 0 else found


def continued(prior: ClassPrior | None, classes: str, C: int) -> ClassPrior:
    """Return the prior to go on with among C classes with this digest: an empty one if it was learned among others."""
    if prior is None or prior.classes != classes or (prior.places >= C).any():
        return ClassPrior(classes)
    return prior
