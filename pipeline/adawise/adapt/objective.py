"""What makes a batch good at an alpha, without labels: one function per objective, lower is better.

Each takes the logits of images at one alpha and returns a value per image, so that alphas are compared on the same
images (paired differences have a fifth of the variance). The batch's objective is the mean over the reliable ones.
Those beside `NO_CARD` need the card, which knows what is normal for the pair at each alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.adapt.names import ObjectiveName

Values = npt.NDArray[np.float64]
Objective = Callable[[Tensor, int], Values]  # (logits [n, C], alpha index) -> [n], nats (`atc`: expected errors)

NAMES: tuple[ObjectiveName, ...] = get_args(ObjectiveName)
DEFAULT: ObjectiveName = "tsallis"
RELIABLE_SHARE = 0.4  # of ln C: the margin of EATA (arXiv 2204.02610)
_RELATIVE_POWER = 0.5
_SPREAD, _LEAST_SPREAD = 3.0, 1e-6  # of standardised logits
_LEAST_REFERENCE = 1e-6  # nats: a sample that is certain at an alpha must not divide by zero


def entropy(logits: Tensor, temperature: float = 1.0) -> Values:
    """Shannon entropy of softmax(logits / temperature) per image, nats: `[n, C]` -> `[n]`, in [0, ln C].

    The mean of it is what AdaWiSE minimises, in the words of its abstract; which temperature is ours.
    """
    scaled = logits if temperature == 1.0 else logits.double() / temperature
    log_p = torch.log_softmax(scaled, dim=-1, dtype=torch.float64)  # [n, C]
    values: Values = -log_p.exp().mul_(log_p).sum(dim=-1).numpy()
    return values


def raw_entropy(logits: Tensor, alpha_index: int) -> Values:
    """The objective `entropy`: at temperature 1, whatever the alpha."""
    del alpha_index
    return entropy(logits)


def tsallis(logits: Tensor, alpha_index: int) -> Values:
    """The objective `tsallis`: Tsallis entropy of order 4, 8 (1 - sum p^4) / 3 per image, in [0, 8 / 3).

    Shannon's entropy is the same family's order 1 (Tsallis 1988). Its value is mostly that of images which the
    model is unsure about, and among these that of the many classes which nobody would choose; with the fourth power
    an image counts as far as one class leads. So images of which nothing can be known weigh little, without a
    filter and its threshold, and more confidence in a few answers is worth more than a little less doubt
    everywhere. On three development pairs and the validation tables it chose better alphas than entropy did
    (docs/decisions/objective.md). The factor 8 makes images differ as much between alphas as in nats of entropy,
    which the search's constants are for.
    """
    del alpha_index
    return _tsallis(logits.double())


def standardised_tsallis(logits: Tensor) -> Values:
    """`tsallis` of each image's logits with mean 0 and standard deviation 3 over the classes, in [0, 8 / 3).

    No objective: it costs up to 2.2 points where weights are sound (docs/decisions/objective.md).
    """
    z = logits.double()
    z = z - z.mean(dim=-1, keepdim=True)
    spread = z.square().mean(dim=-1, keepdim=True).sqrt_().clamp_(min=_LEAST_SPREAD)
    return _tsallis(z.mul_(_SPREAD / spread))


def _tsallis(z: Tensor) -> Values:
    """Of float64 logits `[n, C]`, whatever their temperature."""
    fourth = torch.softmax(z, dim=-1).square_().square_()
    finite = z.sum(dim=-1).mul_(0.0)  # nan for an image whose logits are not, -inf among them, as entropy gives
    values: Values = (1.0 - fourth.sum(dim=-1)).mul_(8.0 / 3.0).add_(finite).numpy()
    return values


def calibrated_tsallis(temperatures: Sequence[float]) -> Objective:
    """The objective `calibrated_tsallis`: `tsallis` at the card's temperature of that alpha under shift.

    A temperature that was fitted at home lets fine-tuned weights be surer than they may be of what they never saw;
    those of `Card.shifted_temperature` were fitted to such images as well.
    """

    def objective(logits: Tensor, alpha_index: int) -> Values:
        return _tsallis(logits.double() / temperatures[alpha_index])

    return objective


def calibrated_entropy(temperatures: Sequence[float]) -> Objective:
    """The objective `calibrated_entropy`: entropy at the card's temperature of that alpha.

    Fine-tuned weights are over-confident off their distribution; dividing by a temperature fitted for each alpha takes
    the part of that away which a labelled sample shows.
    """

    def objective(logits: Tensor, alpha_index: int) -> Values:
        return entropy(logits, temperatures[alpha_index])

    return objective


def relative(temperatures: Sequence[float], references: Sequence[float]) -> Objective:
    """The objective `relative`: calibrated entropy over the square root of the card's reference entropy of that alpha.

    An alpha that is surer than others on images that it knows is expected to be surer here, too. Divided by the whole
    reference, every alpha would be equally good on the card's own sample, and chance would choose; undivided, the surer
    weights win where they are wrong. The root is between, and served most on the development pairs. Times the
    root of the mean reference, so that it is in nats like the others.
    """
    mean = sum(references) / len(references)
    factors = [math.pow(mean / max(reference, _LEAST_REFERENCE), _RELATIVE_POWER) for reference in references]

    def objective(logits: Tensor, alpha_index: int) -> Values:
        return factors[alpha_index] * entropy(logits, temperatures[alpha_index])

    return objective


def atc(temperatures: Sequence[float], thresholds: Sequence[float]) -> Objective:
    """The objective `atc`: the expected share of errors (average thresholded confidence, arXiv 2201.04234).

    1 for an image whose calibrated entropy is above the card's threshold of that alpha, else 0. On the card's sample
    the share of ones is the share of errors. (With fewer than 13 classes, `reliable` takes out images that are above it
    at most alphas.)
    """

    def objective(logits: Tensor, alpha_index: int) -> Values:
        found = entropy(logits, temperatures[alpha_index])
        return np.where(np.isfinite(found), (found > thresholds[alpha_index]).astype(np.float64), np.nan)

    return objective


def biased(objective: Objective, nats: Sequence[float]) -> Objective:
    """The objective with what labels say it is wrong by, at each alpha, added to every image's value."""

    def corrected(logits: Tensor, alpha_index: int) -> Values:
        return objective(logits, alpha_index) + nats[alpha_index]

    return corrected


ERRORS_A_NAT: Mapping[str, float] = {**dict.fromkeys(NAMES, 0.33), "atc": 1.0}
"""Of each objective, by how much errors differ where it differs by one: `atc` is a share of errors itself."""

NO_CARD: Mapping[str, Objective] = {"tsallis": tsallis, "entropy": raw_entropy}
"""The objectives that ask for nothing but logits."""


def reliable(values: Sequence[Values], classes: int, minimum: int) -> npt.NDArray[np.bool_]:
    """Which images count: entropy below .4 ln C in the mean of these alphas; all of them if fewer than `minimum` would.

    One mask `[n]` for every alpha of a batch: a mask per alpha would let a confident alpha keep only its easy images.
    """
    mask = np.mean(values, axis=0) < RELIABLE_SHARE * math.log(classes)
    return mask if int(mask.sum()) >= minimum else np.ones_like(mask)
