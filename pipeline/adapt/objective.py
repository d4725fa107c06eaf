"""What makes a batch good at an alpha, without labels: one function per objective, lower is better.

Each takes the logits of images at one alpha and returns a value per image, so that alphas are compared on the same
images (paired differences have a fifth of the variance). The batch's objective is the mean over the reliable ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

Values = npt.NDArray[np.float64]
Objective = Callable[[Tensor, int], Values]  # (logits [n, C], alpha index) -> [n], nats

RELIABLE_SHARE = 0.4  # of ln C: the margin of EATA (arXiv 2204.02610)


def entropy(logits: Tensor, temperature: float = 1.0) -> Values:
    """Shannon entropy of softmax(logits / temperature) per image, nats: `[n, C]` -> `[n]`, in [0, ln C].

    The mean of it is what AdaWiSE minimises, in the words of its abstract; which temperature is ours.
    """
    log_p = (logits.double() / temperature).log_softmax(dim=-1)  # [n, C]
    values: Values = -(log_p.exp() * log_p).sum(dim=-1).numpy()
    return values


def raw_entropy(logits: Tensor, alpha_index: int) -> Values:
    """The objective `entropy`: at temperature 1, whatever the alpha."""
    del alpha_index
    return entropy(logits)


def calibrated_entropy(temperatures: Sequence[float]) -> Objective:
    """The objective `calibrated_entropy`: entropy at the card's temperature of that alpha.

    Fine-tuned weights are over-confident off their distribution; dividing by a temperature fitted for each alpha takes
    the part of that away which a labelled sample shows.
    """

    def objective(logits: Tensor, alpha_index: int) -> Values:
        return entropy(logits, temperatures[alpha_index])

    return objective


def reliable(values: Sequence[Values], classes: int, minimum: int) -> npt.NDArray[np.bool_]:
    """Which images count: entropy below .4 ln C in the mean of these alphas; all of them if fewer than `minimum` would.

    One mask `[n]` for every alpha of a batch: a mask per alpha would let a confident alpha keep only its easy images.
    """
    mask = np.mean(values, axis=0) < RELIABLE_SHARE * math.log(classes)
    return mask if int(mask.sum()) >= minimum else np.ones_like(mask)
