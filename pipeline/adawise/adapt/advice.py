"""Which objective fits a pair: what each would have chosen on labelled images, and how right that would have been.

On the images that a card was made from, `relative` and `atc` know the answer: their references are from there. So the
card's own sample is judged in two halves, each by a card of the other; other conditions are judged by the whole card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adawise.adapt import objective as objectives
from adawise.adapt.card import Card, Judged, make_card
from adawise.adapt.objective import Objective

AUTO = "auto"
OWN = "own, in halves"
OVER_CONFIDENT = 1.0  # the temperature that fits the fine-tuned model at home
_MARGIN = 0.01  # accuracy: a smaller gain over the default is a draw
_APART = 0.03  # accuracy: with less between its ends a condition says nothing of where to go
_LEAST = 8  # images: fewer are not worth halving


@dataclass(frozen=True)
class Advice:
    """An objective, and why: a clause that goes on after a colon."""

    objective: str
    reason: str


Logits = Callable[[int], Tensor]  # alpha index -> [N, C]


def judge(condition: str, logits: Logits, labels: Tensor, card: Card) -> tuple[Judged, ...]:
    """Each objective's choice for the N images of one condition, `labels` `[N]`, with what the card knows."""
    right, choices = _measure(logits, labels, card)
    return tuple(
        Judged(
            condition,
            len(labels),
            name,
            alpha=card.alphas[j],
            accuracy=float(right[j]),
            best_accuracy=float(right.max()),
            zero_shot=float(right[0]),
            fine_tuned=float(right[-1]),
        )
        for name, j in choices.items()
    )


def judge_own(logits: Logits, labels: Tensor, card: Card) -> tuple[Judged, ...]:
    """The same for the card's own sample: each half by a card of the other, mean of both; empty for a small sample."""
    if len(labels) < _LEAST:
        return ()
    halves = [torch.arange(first, len(labels), 2) for first in (0, 1)]
    # what `Judged` has after its names, times images
    sums: dict[str, np.ndarray] = dict.fromkeys(objectives.NAMES, np.zeros(5))
    for own, other in (halves, halves[::-1]):
        fitted = make_card(
            _of(logits, other), labels[other], alphas=card.alphas, identity=card.identity, created_at=card.created_at
        )
        right, choices = _measure(_of(logits, own), labels[own], fitted)
        for name, j in choices.items():
            measured = np.array([card.alphas[j], right[j], right.max(), right[0], right[-1]])
            sums[name] = sums[name] + len(own) * measured
    means = {name: (total / len(labels)).tolist() for name, total in sums.items()}
    return tuple(
        Judged(OWN, len(labels), name, alpha, accuracy, max(accuracy, best, *ends), *ends)
        for name, (alpha, accuracy, best, *ends) in means.items()
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


def advise(card: Card) -> Advice:
    """The objective that the card recommends.

    An objective is proven where it had to choose each way. So judged conditions count if the fine-tuned model is better
    in some of them and zero-shot in others, and both kinds weigh the same. On conditions of one kind, whatever always
    runs to that end wins: on a development pair's corruptions of known classes `calibrated_entropy` served most, and
    .14 less than `entropy` on new classes. Without both kinds, and in a draw, confidence at home decides: `tsallis`,
    unless the fine-tuned model is over-confident on the card's own sample. For then it is surer still of what it never
    saw, and `relative`, which takes that into account, served .06 more; at temperatures of .97 and .99 the two drew.
    """
    T = card.temperature[-1]
    if T > OVER_CONFIDENT:
        default, why = "relative", "over-confident, so that it would be preferred where it is wrong"
    else:
        default, why = objectives.DEFAULT, "not over-confident, so that entropy can be trusted"
    reason = f"on its own kind of images the fine-tuned model is {why} (its temperature there: {T:.2f})"
    served = _served(card.judged)
    if not served:
        return Advice(default, reason)
    best = max(served, key=lambda name: served[name])
    if served[best] <= served[default] + _MARGIN:
        return Advice(default, reason)
    return Advice(
        best,
        f"it serves {served[best]:.3f}, {default} {served[default]:.3f}, over conditions where the fine-tuned model is "
        "better and where zero-shot is",
    )


def chosen(name: str, card: Card | None) -> str:
    """The objective that `name` stands for: `auto` is what the card recommends, the default without a card."""
    if name != AUTO:
        return name
    return objectives.DEFAULT if card is None else advise(card).objective


def _served(judged: Sequence[Judged]) -> dict[str, float]:
    """Objective -> accuracy, mean of both kinds of condition; empty if one kind is missing.

    The card's own sample does not count: it has no shift to choose by.
    """
    kinds: dict[str, tuple[list[float], list[float]]] = {}
    for one in judged:
        if one.condition != OWN and abs(one.fine_tuned - one.zero_shot) >= _APART:
            kinds.setdefault(one.objective, ([], []))[one.fine_tuned > one.zero_shot].append(one.accuracy)
    if not kinds or not all(zero_shot and fine_tuned for zero_shot, fine_tuned in kinds.values()):
        return {}
    return {name: float(np.mean([np.mean(kind) for kind in both])) for name, both in kinds.items()}
