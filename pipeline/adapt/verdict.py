"""Which objective fits a pair: what each would have chosen on labelled images, and how right that would have been.

On the images that a card was made from, `relative` and `atc` know the answer: their references are from there. So the
card's own sample is judged in two halves, each by a card of the other; other conditions are judged by the whole card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.adapt import objective as objectives
from pipeline.adapt.card import Card, Judged, make_card
from pipeline.adapt.objective import Objective

OWN = "own, in halves"
PREFERRED = "relative"
_MARGIN = 0.01  # accuracy: a smaller gain over the preferred one is a draw
_LEAST = 8  # images: fewer are not worth halving

Logits = Callable[[int], Tensor]  # alpha index -> [N, C]


def judge(condition: str, logits: Logits, labels: Tensor, card: Card) -> tuple[Judged, ...]:
    """Each objective's choice for the N images of one condition, `labels` `[N]`, with what the card knows."""
    right, choices = _measure(logits, labels, card)
    return tuple(
        Judged(condition, len(labels), name, card.alphas[j], float(right[j]), float(right.max()))
        for name, j in choices.items()
    )


def judge_own(logits: Logits, labels: Tensor, card: Card) -> tuple[Judged, ...]:
    """The same for the card's own sample: each half by a card of the other, mean of both; empty for a small sample."""
    if len(labels) < _LEAST:
        return ()
    halves = [torch.arange(first, len(labels), 2) for first in (0, 1)]
    sums = dict.fromkeys(objectives.NAMES, np.zeros(3))  # alpha, accuracy, best accuracy, times images
    for own, other in (halves, halves[::-1]):
        fitted = make_card(
            _of(logits, other), labels[other], alphas=card.alphas, identity=card.identity, created_at=card.created_at
        )
        right, choices = _measure(_of(logits, own), labels[own], fitted)
        for name, j in choices.items():
            sums[name] = sums[name] + len(own) * np.array([card.alphas[j], right[j], right.max()])
    means = {name: (total / len(labels)).tolist() for name, total in sums.items()}
    return tuple(
        Judged(OWN, len(labels), name, alpha, accuracy, max(accuracy, best))
        for name, (alpha, accuracy, best) in means.items()
    )


def _of(logits: Logits, rows: Tensor) -> Logits:
    return lambda j: logits(j)[rows]


def _measure(logits: Logits, labels: Tensor, card: Card) -> tuple[np.ndarray, dict[str, int]]:
    """Accuracy per alpha `[G]`, and each objective's choice; the lowest of equal alphas."""
    judged: dict[str, Objective] = {name: card.objective(name) for name in objectives.NAMES}
    means: dict[str, list[float]] = {name: [] for name in judged}
    right = []
    for j in range(len(card.alphas)):
        z = logits(j)
        right.append(float((z.argmax(dim=-1) == labels).double().mean()))
        for name, objective in judged.items():
            means[name].append(float(objective(z, j).mean()))
    return np.array(right), {name: int(np.argmin(values)) for name, values in means.items()}


def recommend(judged: Sequence[Judged]) -> str:
    """The objective with the highest mean accuracy over the conditions, equally weighted; `relative` if it is a draw.

    Labelled images seldom show what a stream will bring, and for new classes entropy has chosen the surer, wrong end
    where `relative` did not, which lost nothing elsewhere (development pair, DESIGN.md). The card's own sample does not
    count: it has no shift to choose by.
    """
    shifted = [one for one in judged if one.condition != OWN]
    accuracies: dict[str, list[float]] = {}
    for one in shifted:
        accuracies.setdefault(one.objective, []).append(one.accuracy)
    means = {name: float(np.mean(values)) for name, values in accuracies.items()}
    if not means or max(means.values()) <= means.get(PREFERRED, 0.0) + _MARGIN:
        return PREFERRED
    return max(means, key=lambda name: means[name])
