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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from adawise.records import Predictions

if TYPE_CHECKING:
    from torch import Tensor  # commands that read states do not load it

_HALF_LIFE = 320.0  # images after which an image counts half
_PASSES = 2  # of expectation and maximisation, for each batch
_SMOOTHING = 30.0  # images that count as spread evenly over all classes
_LEAST_SHARE = 0.05  # the least prior of a class, as a share of the largest: what is rare can still be served
_LEAST_IMAGES = 15.5  # before that the gate is closed: not 16, the usual batch, of which rounding would decide
_SPREAD = (0.5, 0.25)  # share of the classes that the counts are spread over: closed from the first, open to the second
_SURE = (0.46, 0.56)  # mean confidence of the served predictions above chance, over that of a sure model, likewise
KEPT = 64
"""The most classes whose counts are kept; the others share what is left evenly."""

_MOST = 1e6  # every number of a prior is smaller
_COUNT = np.dtype([("place", "<u4"), ("images", "<f4")])
LARGEST = KEPT * _COUNT.itemsize
"""The most bytes of the kept counts."""

Array = npt.NDArray[np.float64]


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
        return np.frombuffer(self.kept, _COUNT)["place"].astype(np.int64)

    @property
    def counts(self) -> Array:
        """The expected numbers of images of these classes."""
        return np.frombuffer(self.kept, _COUNT)["images"].astype(np.float64)

    @property
    def images(self) -> float:
        """The number of images in all counts."""
        return math.fsum(self.counts.tolist()) + self.rest

    def observed(self, p: Array) -> ClassPrior:
        """Return the prior after a batch with the probabilities `p`, `[N, C]`, which are finite."""
        N, C = p.shape
        faded = 0.5 ** (N / _HALF_LIFE)
        counts, expected = self._dense(C) * faded, np.zeros(C)
        for _ in range(_PASSES):
            corrected = p * (counts + expected + _SMOOTHING / C)
            corrected /= corrected.sum(axis=1, keepdims=True)
            expected = corrected.sum(axis=0)
        counts += expected
        order = np.argsort(-counts, kind="stable")
        kept = np.zeros(min(C, KEPT), _COUNT)
        kept["place"] = np.sort(order[:KEPT])
        kept["images"] = counts[kept["place"]]
        rest = counts[np.sort(order[KEPT:])].sum()
        confidence = self.confidence * faded + p.max(axis=1).sum()
        return ClassPrior(self.classes, kept.tobytes(), float(np.float32(rest)), float(np.float32(confidence)))

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
        by_confidence = ((self.confidence / images - 1.0 / C) / (1.0 - 1.0 / C) - closed) / (opened - closed)
        return min(max(by_spread, 0.0), 1.0) * min(max(by_confidence, 0.0), 1.0)

    def corrected(self, p: Array) -> Array:
        """Return the probabilities `p`, `[N, C]`, corrected by the prior as far as the gate is open."""
        C = p.shape[1]
        prior = self._dense(C) + _SMOOTHING / C
        corrected: Array = p * np.maximum(prior / prior.max(), _LEAST_SHARE) ** self.gate(C)
        corrected /= corrected.sum(axis=1, keepdims=True)
        return corrected

    def is_sound(self) -> bool:
        """Return True if a camera can have this prior: what a damaged state holds may be anything."""
        if len(self.kept) % _COUNT.itemsize or len(self.kept) > LARGEST:
            return False
        numbers = np.array([*self.counts, self.rest, self.confidence])
        return bool((np.diff(self.places, prepend=-1) > 0).all() and ((numbers >= 0.0) & (numbers < _MOST)).all())

    def _entropy(self, C: int, images: float) -> float:
        """Return the entropy of the counts, nats (Shannon, 1948); those that are not kept are equal."""
        counts = self.counts.tolist()
        shares = [count / images for count in counts if count > 0.0]
        others = C - len(counts)
        found = -math.fsum(share * math.log(share) for share in shares)
        share = self.rest / images
        return found - share * math.log(share / others) if share > 0.0 and others > 0 else found

    def _dense(self, C: int) -> Array:
        """Return the counts of all classes, `[C]`."""
        kept = self.counts
        others = C - len(kept)
        counts = np.full(C, self.rest / others if others > 0 else 0.0)
        counts[self.places] = kept
        return counts


def continued(prior: ClassPrior | None, classes: str, C: int) -> ClassPrior:
    """Return the prior to go on with among C classes with this digest: an empty one if it was learned among others."""
    if prior is None or prior.classes != classes or (prior.places >= C).any():
        return ClassPrior(classes)
    return prior


def corrected(
    prior: ClassPrior, predictions: Predictions, logits: Tensor, temperature: float, columns: Tensor | None
) -> tuple[ClassPrior, Predictions, float]:
    """Return the prior after a batch, the batch's predictions with what it makes of them, and its gate.

    Probabilities are softmax(logits / T) (Guo et al., 2017, section 4.2), and are corrected as `ClassPrior` says.
    An image whose probabilities are not finite teaches nothing, and keeps its label.

    Args:
        prior: the prior before the batch.
        predictions: the served predictions of the N images.
        logits: `[N, K]` at the served alpha.
        temperature: that of the served predictions.
        columns: int64 `[K]`, the classes of the logits' columns; None: all classes.
    """
    p = (logits.double() / temperature).softmax(dim=-1).numpy()
    finite = np.isfinite(p).all(axis=1)
    if finite.any():
        prior = prior.observed(p[finite])
    gate = prior.gate(p.shape[1])
    index, confidence = predictions.top_index[:, 0].copy(), predictions.top_probability[:, 0].copy()
    if gate > 0.0:
        q = prior.corrected(p[finite])
        best = q.argmax(axis=1)
        index[finite] = best if columns is None else columns.numpy()[best]
        confidence[finite] = q[np.arange(len(best)), best]
    return prior, replace(predictions, scene_index=index, scene_confidence=confidence), gate
