"""The objectives: how good a batch is at an alpha, without labels; one function each, lower is better.

Each takes the logits of images at one alpha and returns a value per image, so alphas are compared on the same images
(paired differences have a fifth of the variance). The batch's objective is the mean over the reliable images.
Objectives that are not in `NO_CARD` need the card, which knows what is normal for the pair at each alpha.
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
OF_ALL_CLASSES: frozenset[ObjectiveName] = frozenset({"relative", "atc"})
"""The objectives whose references in the card were measured with all classes of the pair."""
RELIABLE_SHARE = 0.4  # of ln C: the margin of EATA (Niu et al., 2022, arXiv 2204.02610)
_RELATIVE_POWER = 0.5  # of the reference entropy
_SPREAD, _LEAST_SPREAD = 3.0, 1e-6  # standard deviation of standardised logits; floor of that of raw ones
_LEAST_REFERENCE = 1e-6  # nats: no division by zero where the sample is certain


def entropy(logits: Tensor, temperature: float = 1.0) -> Values:
    """Return the entropy of softmax(logits / temperature), nats: `[n, C]` -> `[n]`, in [0, ln C].

    The entropy is that of Shannon (1948, theorem 2), the temperature that of Guo et al. (2017, section 4.2).

    AdaWiSE minimises the mean of it, according to the abstract of the paper (Döbler et al., 2024). The choice of
    temperature is ours.
    """
    scaled = logits if temperature == 1.0 else logits.double() / temperature
    log_p = torch.log_softmax(scaled, dim=-1, dtype=torch.float64)  # [n, C]
    values: Values = -log_p.exp().mul_(log_p).sum(dim=-1).numpy()
    return values


def raw_entropy(logits: Tensor, alpha_index: int) -> Values:
    """Return the objective `entropy` per image: the entropy at temperature 1, for every alpha."""
    del alpha_index
    return entropy(logits)


def tsallis(logits: Tensor, alpha_index: int) -> Values:
    """Return the objective `tsallis` per image: Tsallis entropy of order 4, 8 (1 - sum p^4) / 3, in [0, 8 / 3).

    The family is that of Tsallis (1988, equation 1): (1 - sum p^q) / (q - 1), here with q = 4 and times 8. Shannon's
    entropy is its limit at order 1, and comes mostly from images that the model is unsure about, and there from the
    many classes that no prediction would choose. With the fourth power an image counts as far as one class leads. So
    images about which nothing can be known have little weight, without a filter and its threshold. More confidence in a
    few answers is worth more than a little less doubt everywhere. On three development pairs and the validation tables
    it chose better alphas than entropy did (docs/decisions/objective.md). With the factor 8 images differ as much
    between alphas as in nats of entropy, for which the search's constants are made.
    """
    del alpha_index
    return _tsallis(logits.double())


def standardised_tsallis(logits: Tensor) -> Values:
    """Return `tsallis` of logits scaled to mean 0 and standard deviation 3 over the classes, in [0, 8 / 3).

    The standardisation is our own (docs/decisions/formulas.md). This is no objective: it costs up to 2.2 points where
    weights are sound (docs/decisions/objective.md).
    """
    z = logits.double()
    z = z - z.mean(dim=-1, keepdim=True)
    spread = z.square().mean(dim=-1, keepdim=True).sqrt_().clamp_(min=_LEAST_SPREAD)
    return _tsallis(z.mul_(_SPREAD / spread))


def _tsallis(z: Tensor) -> Values:
    """Return `tsallis` (Tsallis, 1988, equation 1) of float64 logits `[n, C]`, whatever their temperature."""
    fourth = torch.softmax(z, dim=-1).square_().square_()
    finite = z.sum(dim=-1).mul_(0.0)  # nan if a logit is not finite, as entropy gives; softmax alone hides -inf
    values: Values = (1.0 - fourth.sum(dim=-1)).mul_(8.0 / 3.0).add_(finite).numpy()
    return values


def calibrated_tsallis(temperatures: Sequence[float]) -> Objective:
    """Return the objective `calibrated_tsallis`: `tsallis` at the card's temperature of that alpha under shift.

    With a temperature fitted at home, fine-tuned weights are surer than they may be about images unlike their training
    set. `Card.shifted_temperature` was fitted to such images as well. Temperature scaling is that of Guo et al. (2017,
    section 4.2).
    """

    def objective(logits: Tensor, alpha_index: int) -> Values:
        return _tsallis(logits.double() / temperatures[alpha_index])

    return objective


def calibrated_entropy(temperatures: Sequence[float]) -> Objective:
    """Return the objective `calibrated_entropy`: entropy at the card's temperature of that alpha.

    Fine-tuned weights are over-confident off their distribution. Division by a temperature fitted at each alpha (Guo et
    al., 2017, section 4.2) removes the part of it that a labelled sample shows.
    """

    def objective(logits: Tensor, alpha_index: int) -> Values:
        return entropy(logits, temperatures[alpha_index])

    return objective


def relative(temperatures: Sequence[float], references: Sequence[float]) -> Objective:
    """Return the objective `relative`: calibrated entropy over the root of the card's reference entropy of that alpha.

    An alpha that is surer than others on known images is expected to be surer here too. Divided by the whole reference,
    every alpha would be equally good on the card's own sample, and chance would choose. Undivided, the surer weights
    win where they are wrong. The square root lies between, and served most on the development pairs. A factor, the root
    of the mean reference, keeps it in nats like the others. The form is our own (docs/decisions/formulas.md).
    """
    mean = sum(references) / len(references)
    factors = [math.pow(mean / max(reference, _LEAST_REFERENCE), _RELATIVE_POWER) for reference in references]

    def objective(logits: Tensor, alpha_index: int) -> Values:
        return factors[alpha_index] * entropy(logits, temperatures[alpha_index])

    return objective


def atc(temperatures: Sequence[float], thresholds: Sequence[float]) -> Objective:
    """Return the objective `atc`: the expected share of errors (average thresholded confidence: Garg et al., 2022).

    It is 1 for an image whose calibrated entropy is above the card's threshold of that alpha, else 0 (arXiv
    2201.04234). On the card's sample the share of ones is the share of errors. (With fewer than 13 classes, `reliable`
    leaves out images that are above it at most alphas.)
    """

    def objective(logits: Tensor, alpha_index: int) -> Values:
        found = entropy(logits, temperatures[alpha_index])
        return np.where(np.isfinite(found), (found > thresholds[alpha_index]).astype(np.float64), np.nan)

    return objective


def biased(objective: Objective, nats: Sequence[float]) -> Objective:
    """Return the objective with a bias, `nats` per alpha, added to every image's value."""

    def corrected(logits: Tensor, alpha_index: int) -> Values:
        return objective(logits, alpha_index) + nats[alpha_index]

    return corrected


ERRORS_A_NAT: Mapping[str, float] = {**dict.fromkeys(NAMES, 0.33), "atc": 1.0}
"""By how much the share of errors differs where an objective differs by one; `atc` is itself a share of errors."""

NO_CARD: Mapping[str, Objective] = {"tsallis": tsallis, "entropy": raw_entropy}
"""The objectives that need logits only."""


def reliable(values: Sequence[Values], classes: int, minimum: int) -> npt.NDArray[np.bool_]:
    """Return the mask of images that count: mean value over these alphas below .4 ln C; all images if too few are.

    The threshold is that of EATA (Niu et al., 2022). One mask `[n]` serves every alpha of a batch: with a mask per
    alpha, a confident alpha would keep only its easy images.

    Args:
        values: `[n]` for each alpha.
        classes: C.
        minimum: with fewer reliable images than this, all count.
    """
    mask = np.mean(values, axis=0) < RELIABLE_SHARE * math.log(classes)
    return mask if int(mask.sum()) >= minimum else np.ones_like(mask)
