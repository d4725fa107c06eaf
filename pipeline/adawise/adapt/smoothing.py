"""Smoothing over the frames of a camera, without labels, where neighbouring frames show the same class.

A sticky hidden Markov model (Rabiner, 1989, equations 19 to 27): from one image to the next the class stays with a
probability s, or is drawn anew from the camera's class prior. The posterior of an image has the images before it, also
of earlier batches, and those after it in its batch. These count with the square root of their probabilities, because
the errors of neighbouring frames are alike.

Three gates of our own close it (docs/decisions/formulas.md). Order: each s has to explain the images better than the
mixture of their neighbourhood does, which knows the same images in no order. A camera that shows one class for long, or
a model that says one class for everything, is no evidence; a class that changes within a batch is. Likeness: frames
that are almost the same picture have almost the same errors, and many of them say no more than one. Confidence: a model
that is unsure of most images does not work here, as for the class prior.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from adawise.adapt.prior import COUNT, Array, ClassPrior, is_sound, packed, unpacked
from adawise.records import Predictions

if TYPE_CHECKING:
    from torch import Tensor  # commands that read states do not load it

STAYS = (0.7, 0.95)
"""The probabilities s that are compared: what the camera shows is gone after some 3 or 20 images."""

_NEAR = 24.0  # images after which an image counts half in the neighbourhood
_SMOOTHING = 4.0  # images of the class prior that the neighbourhood has besides
_HALF_LIFE = 120.0  # images after which evidence counts half
_EVIDENCE = (-20.0, 8.0)  # nats within which it is kept, so that it follows a camera that changes its ways
_FIRST_EVIDENCE = -6.0  # nats that a camera begins with: chance in the first batches is not taken for order
_ODDS = 64.0  # that images come in no order, over those of one s
_SURE = (0.36, 0.46)  # of `ClassPrior.sureness`: closed up to the first, open from the second
_ALIKE = (0.88, 0.8)  # of the likeness of neighbouring frames, likewise
_LIKENESS_HALF_LIFE = 64.0
_FIRST_LIKENESS = (4.0, 0.9)  # images that a camera begins with, and their likeness: closed until there is evidence
_LEAST_WEIGHT = 1e-3  # below that nothing is smoothed
_FLOOR = 1e-6  # of a probability whose logarithm is compared
_SKETCH = 32  # numbers that stand for the logarithms of the probabilities of an image
_SEEN, _RECENT = 6, 16  # the most classes that are kept of the last image, and of the neighbourhood


@dataclass(frozen=True)
class Smoothing:
    """Memory of the last images of one camera, and evidence that their order says something.

    Attributes:
        classes: digest of the names of the C classes, in their order.
        last: the posterior of the last image, its `_SEEN` largest classes, packed as counts are.
        recent: the faded counts of the neighbourhood, its `_RECENT` largest classes, likewise.
        sketch: of the last image (`_sketches`), int8.
        rest: the counts of all other classes in `recent` together. All numbers are in single precision.
        evidence: for each of `STAYS`, the faded log evidence over that of the neighbourhood, nats.
        alike: faded sums of the probability that neighbouring images show the same class, and of that times their
            likeness.
    """

    classes: str
    last: bytes = field(default=b"", repr=False)
    recent: bytes = field(default=b"", repr=False)
    sketch: bytes = field(default=b"", repr=False)
    rest: float = 0.0
    evidence: tuple[float, ...] = (_FIRST_EVIDENCE,) * len(STAYS)
    alike: tuple[float, ...] = (0.0, 0.0)

    def smoothed(self, p: Array, corrected: Array, prior: ClassPrior) -> tuple[Smoothing, Array, float]:
        """Return the state after a batch, its probabilities, and the weight of what is smoothed, from 0 to 1.

        The log evidence of each s is that of the forward pass (Rabiner, 1989, equation 103 with its scaling).

        Args:
            p: finite probabilities `[N, C]` of the N images, in their order.
            corrected: the same, corrected by the class prior.
            prior: the class prior after the batch.
        """
        N, C = p.shape
        if C < 2:
            return self, corrected, 0.0
        jump = prior.factors(C)
        jump /= jump.sum()
        before, scales, last = _filtered(p, jump, self._last(C))
        joint = before * p[:, None]
        evidence = joint.sum(axis=2)
        recent, of_mixture = _neighbourhood(p, unpacked(self.recent, self.rest, C) * 0.5 ** (N / _NEAR), jump)
        gained = (np.log(evidence) - of_mixture[:, None]).sum(axis=0)
        kept, rest = packed(recent, _RECENT)
        stays = np.array(STAYS)
        same = ((evidence - (1.0 - stays) * (p * jump).sum(axis=1, keepdims=True)) / stays).mean(axis=1)
        same = np.maximum(same, 0.0)  # a difference, which rounding makes negative where the classes surely differ
        alike, sketch = self._compared(p, same)
        after = Smoothing(
            self.classes,
            packed(last, _SEEN)[0],
            kept,
            sketch,
            rest,
            _single(np.clip(np.array(self.evidence) * 0.5 ** (N / _HALF_LIFE) + gained, *_EVIDENCE)),
            alike,
        )
        weights = after.weights() * _opened(prior.sureness(C), _SURE) * _opened(after.likeness, _ALIKE)
        weight = float(weights.sum())
        if weight < _LEAST_WEIGHT:
            return after, corrected, 0.0
        joint *= _backward(p, jump, scales)
        joint *= weights[:, None] / joint.sum(axis=2, keepdims=True)
        return after, (1.0 - weight) * corrected + joint.sum(axis=1), weight

    @property
    def likeness(self) -> float:
        """Likeness of neighbouring images of one class, from -1 to 1."""
        images, likeness = _FIRST_LIKENESS
        weight, total = self.alike
        return (total + images * likeness) / (weight + images)

    def weights(self) -> Array:
        """Return the probability of each of `STAYS`, `[len(STAYS)]`; that of no order is what they lack to 1.

        By Bayes' rule over the hypotheses, with prior odds and a bound of the evidence of our own.
        """
        odds = np.exp(np.array(self.evidence))
        weights: Array = odds / (_ODDS + odds.sum())
        return weights

    def is_sound(self) -> bool:
        """Return True if a camera can have this state: what a damaged one holds may be anything."""
        lowest, highest = _EVIDENCE
        return (
            is_sound(self.last, 0.0, _SEEN)
            and is_sound(self.recent, self.rest, _RECENT)
            and len(self.sketch) in (0, _SKETCH)
            and len(self.evidence) == len(STAYS)
            and all(lowest <= nats <= highest for nats in self.evidence)
            and len(self.alike) == 2
            and 0.0 <= self.alike[0] < 1e6
            and abs(self.alike[1]) <= self.alike[0] * 1.01
        )

    def _last(self, C: int) -> Array:
        """Return the posterior of the last image, `[C]`; before the first it says nothing."""
        last = unpacked(self.last, 0.0, C)
        total = last.sum()
        return last / total if total > 0.0 else np.full(C, 1.0 / C)

    def _compared(self, p: Array, same: Array) -> tuple[tuple[float, ...], bytes]:
        """Return `alike` after a batch, and the sketch of its last image.

        `same` is the probability `[N]` that an image shows the class of the one before.
        """
        sketches = _sketches(p)
        stored = np.frombuffer(self.sketch, np.int8).astype(np.float64)
        if len(stored):
            sketches = np.concatenate([stored[None] / max(np.sqrt((stored * stored).sum()), 1.0), sketches])
        else:
            same = same[1:]
        likeness = (sketches[1:] * sketches[:-1]).sum(axis=1)
        faded = np.array(self.alike) * 0.5 ** (len(p) / _LIKENESS_HALF_LIFE)
        last = sketches[-1] * (127.0 / max(np.abs(sketches[-1]).max(), 1e-9))
        alike = _single(faded + np.array([same.sum(), (same * likeness).sum()]))
        return alike, np.rint(last).astype(np.int8).tobytes()


LARGEST = Smoothing("0" * 12, bytes(_SEEN * COUNT.itemsize), bytes(_RECENT * COUNT.itemsize), bytes(_SKETCH))
"""A state whose serialised form no other exceeds."""


def _single(numbers: Array) -> tuple[float, ...]:
    return tuple(numbers.astype(np.float32).tolist())


def _opened(value: float, gate: tuple[float, float]) -> float:
    closed, opened = gate
    return min(max((value - closed) / (opened - closed), 0.0), 1.0)


def _sketches(p: Array) -> Array:
    """Return unit vectors `[N, _SKETCH]` whose products are the likeness of images, about, from probabilities `[N, C]`.

    The likeness is the cosine between their centred log probabilities; these are summed with signs into few places
    (the count sketch of Charikar et al., 2002), so that a state has room for the last one.
    """
    N, C = p.shape
    x = np.log(p + _FLOOR)
    x -= x.mean(axis=1, keepdims=True)
    places = np.zeros((N, -(-C // _SKETCH) * _SKETCH))
    places[:, :C] = x * _signs(C)
    sketches: Array = places.reshape(N, -1, _SKETCH).sum(axis=1)
    sketches /= np.maximum(np.sqrt((sketches * sketches).sum(axis=1, keepdims=True)), 1e-9)
    return sketches


@lru_cache(maxsize=4)
def _signs(C: int) -> Array:
    """Return a sign for each class, by a hash of its index (SplitMix, Steele et al., 2014)."""
    z = np.arange(1, C + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return 1.0 - 2.0 * (z >> np.uint64(63)).astype(np.float64)


def _filtered(p: Array, jump: Array, last: Array) -> tuple[Array, Array, Array]:
    """Return what the images before each one say of its class, `[N, S, C]` for S stays, scales, and the last posterior.

    Args:
        p: probabilities `[N, C]`.
        jump: the probabilities of a class that is drawn anew, `[C]`.
        last: the posterior of the image before, `[C]`.

    Returns:
        The predicted classes; the scales `[N, S, 1]`, which `_backward` shares; the posterior `[C]` of the last image.
    """
    N, C = p.shape
    s = np.array(STAYS)[:, None]
    others, drawn = np.sqrt(p), (1.0 - s) * jump
    before, scales = np.empty((N, len(STAYS), C)), np.empty((N, len(STAYS), 1))
    seen = np.empty((len(STAYS), C))
    seen[:] = last
    for here, other, scale in zip(before, others, scales, strict=True):
        np.multiply(seen, s, out=here)
        here += drawn
        np.multiply(here, other, out=seen)
        np.add.reduce(seen, axis=1, keepdims=True, out=scale)
        seen /= scale
    return before, scales, seen.mean(axis=0)


def _backward(p: Array, jump: Array, scales: Array) -> Array:
    """Return what the images after each one say of its class, `[N, S, C]`, up to a factor. See `_filtered`."""
    s = np.array(STAYS)[:, None]
    scaled, drawn = np.sqrt(p)[:, None] / scales, (1.0 - s) * jump
    after = np.ones_like(scaled)
    message, new = np.empty_like(drawn), np.empty((len(STAYS), 1))
    for n in range(len(p) - 1, 0, -1):
        np.multiply(after[n], scaled[n], out=message)
        here = np.multiply(message, s, out=after[n - 1])
        message *= drawn
        here += np.add.reduce(message, axis=1, keepdims=True, out=new)
    return after


def _neighbourhood(p: Array, recent: Array, jump: Array) -> tuple[Array, Array]:
    """Return the counts `[C]` after a batch, and the log evidence `[N]` of each image's neighbours, in no order.

    A mixture of our own: one step of expectation, from the faded counts, the class prior and the other images.
    """
    known = recent + _SMOOTHING * jump
    shown = p * known
    shown /= shown.sum(axis=1, keepdims=True)
    others = known + shown.sum(axis=0) - shown
    shown = p * (others / others.sum(axis=1, keepdims=True))
    evidence = shown.sum(axis=1, keepdims=True)
    shown /= evidence
    return recent + shown.sum(axis=0), np.log(evidence[:, 0])


def continued(smoothing: Smoothing | None, classes: str, C: int) -> Smoothing:
    """Return the state to go on with among C classes with this digest: an empty one if it was of others."""
    if smoothing is None or smoothing.classes != classes:
        return Smoothing(classes)
    places = [np.frombuffer(kept, COUNT)["place"] for kept in (smoothing.last, smoothing.recent)]
    return Smoothing(classes) if any((found >= C).any() for found in places) else smoothing


class CorrectedProbabilities(NamedTuple):
    """Probabilities corrected by a camera's scene, with the memory to go on with.

    Attributes:
        prior: the class prior after the batch.
        smoothing: the smoothing after it; None where nothing is smoothed.
        p: the corrected probabilities `[n, K]` of the images whose probabilities are finite.
        finite: which images these are, bool `[N]`.
        gate: how far the class prior corrects, from 0 to 1.
        weight: how far neighbouring frames do, from 0 to 1.
    """

    prior: ClassPrior
    smoothing: Smoothing | None
    p: Array
    finite: npt.NDArray[np.bool_]
    gate: float
    weight: float


def correction(
    prior: ClassPrior, smoothing: Smoothing | None, logits: Tensor, temperature: float
) -> CorrectedProbabilities:
    """Return what a camera's scene makes of the probabilities of a batch.

    Probabilities are softmax(logits / T) (Guo et al., 2017, section 4.2), and are corrected as `ClassPrior` and
    `Smoothing` say. An image whose probabilities are not finite teaches nothing.

    Args:
        prior: the prior before the batch.
        smoothing: the smoothing before it, or None.
        logits: `[N, K]` at the served alpha of the N images, in their order.
        temperature: that of the served predictions.
    """
    p = (logits.double() / temperature).softmax(dim=-1).numpy()
    finite = np.isfinite(p).all(axis=1)
    p, weight = p[finite], 0.0
    if len(p):
        prior = prior.observed(p)
    gate = prior.gate(logits.shape[-1])
    q = prior.corrected(p) if gate > 0.0 else p
    if len(p) and smoothing is not None:
        smoothing, q, weight = smoothing.smoothed(p, q, prior)
    return CorrectedProbabilities(prior, smoothing, q, finite, gate, weight)


class Corrected(NamedTuple):
    """Predictions corrected by a camera's scene, with the memory to go on with.

    Attributes:
        prior: the class prior after the batch.
        smoothing: the smoothing after it; None where nothing is smoothed.
        predictions: those served, with the corrected class and probability of each image.
        gate: how far the class prior corrects, from 0 to 1.
        weight: how far neighbouring frames do, from 0 to 1; None where nothing is smoothed.
    """

    prior: ClassPrior
    smoothing: Smoothing | None
    predictions: Predictions
    gate: float
    weight: float | None


def corrected(
    prior: ClassPrior,
    smoothing: Smoothing | None,
    predictions: Predictions,
    logits: Tensor,
    temperature: float,
    columns: Tensor | None,
) -> Corrected:
    """Return what a camera's scene makes of a batch, as `correction` says.

    An image whose probabilities are not finite keeps its label.

    Args:
        prior: the prior before the batch.
        smoothing: the smoothing before it, or None.
        predictions: the served predictions of the N images, in their order.
        logits: `[N, K]` at the served alpha.
        temperature: that of the served predictions.
        columns: int64 `[K]`, the classes of the logits' columns; None: all classes.
    """
    return labelled(correction(prior, smoothing, logits, temperature), predictions, columns)


def labelled(found: CorrectedProbabilities, predictions: Predictions, columns: Tensor | None) -> Corrected:
    """Return predictions with the class and the probability of each image by corrected probabilities.

    Args:
        found: the corrected probabilities.
        predictions: the served predictions of the same images.
        columns: as of `corrected`.
    """
    index, confidence = predictions.top_index[:, 0].copy(), predictions.top_probability[:, 0].copy()
    if found.gate > 0.0 or found.weight > 0.0:
        best = found.p.argmax(axis=1)
        index[found.finite] = best if columns is None else columns.numpy()[best]
        confidence[found.finite] = found.p[np.arange(len(best)), best]
    return Corrected(
        found.prior,
        found.smoothing,
        replace(predictions, scene_index=index, scene_confidence=confidence),
        found.gate,
        None if found.smoothing is None else found.weight,
    )
