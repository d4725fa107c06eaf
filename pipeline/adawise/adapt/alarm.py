"""Is the objective deceived? What the entropy of standardised logits would choose, from what is looked at anyway.

Weights that are over-confident give large logits, and entropy takes that for knowledge. Logits of mean 0 and one spread
have lost their scale: their entropy follows accuracy less well (docs/decisions/objective.md), but scale does not
deceive it. So it chooses nothing, and where it would surely choose an alpha far below, it is believed as far as that:
alpha goes no further, and labels should be looked at.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.objective import standardised_tsallis
from adawise.adapt.search import NOISE_FLOOR, Rows
from adawise.adapt.surrogate import Abridged, Surrogate

_FAR = 0.25  # alpha
_BATCHES = 8.0  # that the curve has drifted by between two looks
_SURE = 1.0  # standard deviations


def observed(
    surrogate: Surrogate, curve: Abridged | None, current: int, evaluated: dict[int, tuple[Rows, Tensor]]
) -> Abridged | None:
    """What is known of that entropy's curve after the looks of a batch; None before the first of a condition.

    `evaluated` maps an alpha's index to rows and logits, that of `current` to those of the whole batch.
    """
    looks = {index: look for index, look in evaluated.items() if index != current}
    if not looks:
        return curve
    belief = surrogate.prior() if curve is None else surrogate.advance(surrogate.restore(curve), _BATCHES)
    of_current, served = evaluated[current][1], np.full(len(evaluated[current][1]), np.nan)
    for index, (rows, logits) in looks.items():
        new = rows[np.isnan(served[rows])]  # not all: of a thousand classes a row takes time
        if len(new):
            served[new] = standardised_tsallis(of_current[torch.from_numpy(new)])
        differences = standardised_tsallis(logits) - served[rows]
        if np.isfinite(differences).all():
            variance = max(NOISE_FLOOR, float(differences.var()) / len(rows))
            belief = surrogate.observe_difference(belief, index, current, float(differences.mean()), variance)
    return surrogate.abridge(belief)


def highest(surrogate: Surrogate, curve: Abridged | None, most: int) -> int:
    """The index of the largest alpha, `most` or lower, that is not surely worse by it than one that lies far below."""
    alphas = surrogate.alphas
    if curve is None:
        return most
    best = int(surrogate.restored_mean(curve).argmin())
    if alphas[most] - alphas[best] < _FAR - 1e-9:  # as nearly always
        return most
    belief = surrogate.restore(curve)
    while most > best and alphas[most] - alphas[best] >= _FAR - 1e-9:
        gain, sd = belief.difference(best, most)
        if gain <= _SURE * sd:
            break
        most -= 1
    return most
