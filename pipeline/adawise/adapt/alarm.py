"""The alarm: a second opinion on the objective, from the entropy of standardised logits.

Over-confident weights give large logits, and entropy takes them for knowledge. Logits standardised to mean 0 and one
spread have lost their scale. Their entropy follows accuracy less well (docs/decisions/objective.md), but scale cannot
deceive it. So it never chooses an alpha. But where it would surely choose an alpha far below the objective's, it caps
alpha and raises the alarm: an operator should look at labels. It reads logits that the search has evaluated anyway, so
it costs no forward.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.objective import standardised_tsallis
from adawise.adapt.search import NOISE_FLOOR, Rows
from adawise.adapt.surrogate import Abridged, Surrogate

_FAR = 0.25  # distance in alpha that counts as far below
_BATCHES = 8.0  # of drift assumed between two batches with probes
_SURE = 1.0  # standard deviations above which a difference counts as sure


def observed(
    surrogate: Surrogate, curve: Abridged | None, current: int, evaluated: dict[int, tuple[Rows, Tensor]]
) -> Abridged | None:
    """Return the belief about that entropy's curve after the probes of a batch; None before a condition's first probe.

    Args:
        surrogate: the prior over curves.
        curve: the belief before the batch, None if there is none.
        current: index of the alpha at which the whole batch was evaluated.
        evaluated: alpha index -> (rows, logits); that of `current` has every row of the batch.
    """
    probes = {index: probe for index, probe in evaluated.items() if index != current}
    if not probes:
        return curve
    belief = surrogate.prior() if curve is None else surrogate.advance(surrogate.restore(curve), _BATCHES)
    of_current, served = evaluated[current][1], np.full(len(evaluated[current][1]), np.nan)
    for index, (rows, logits) in probes.items():
        new = rows[np.isnan(served[rows])]  # only rows that are needed: with a thousand classes each takes time
        if len(new):
            served[new] = standardised_tsallis(of_current[torch.from_numpy(new)])
        differences = standardised_tsallis(logits) - served[rows]
        if np.isfinite(differences).all():
            variance = max(NOISE_FLOOR, float(differences.var()) / len(rows))
            belief = surrogate.observe_difference(belief, index, current, float(differences.mean()), variance)
    return surrogate.abridge(belief)


def highest(surrogate: Surrogate, curve: Abridged | None, most: int) -> int:
    """Return the index of the highest alpha, at most `most`, that the alarm allows.

    An alpha is refused if it lies .25 or more above the best alpha of `curve` and is surely worse than it by that
    curve.
    """
    alphas = surrogate.alphas
    if curve is None:
        return most
    best = int(surrogate.restored_mean(curve).argmin())
    if alphas[most] - alphas[best] < _FAR - 1e-9:  # nearly every batch: skip restoring the covariance
        return most
    belief = surrogate.restore(curve)
    while most > best and alphas[most] - alphas[best] >= _FAR - 1e-9:
        gain, sd = belief.difference(best, most)
        if gain <= _SURE * sd:
            break
        most -= 1
    return most
