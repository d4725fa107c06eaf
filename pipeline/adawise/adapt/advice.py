"""Which objective fits a pair: what each would have chosen on labelled images, and how right that would have been.

On the images that a card was made from, objectives that need it know the answer: their references are from there. So
every condition is judged in two halves, each by a card of the other halves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch

from adawise.adapt import objective as objectives
from adawise.adapt.calibration import APART, sharing
from adawise.adapt.card import Card, Condition, Judged, PairVerdict, make_card
from adawise.adapt.objective import Objective

AUTO = "auto"
OWN = "own, in halves"
OVER_CONFIDENT = 1.0  # the temperature that fits the fine-tuned model at home
_MARGIN = 0.01  # accuracy: a smaller gain over the default is a draw
_MOVED = 0.1  # share of images
_LOSS = 0.002  # accuracy: what adapting may cost on labelled conditions
_LEAST = 8  # images: fewer are not worth halving


@dataclass(frozen=True)
class Advice:
    """An objective, and why: a clause that goes on after a colon."""

    objective: str
    reason: str


def judge(home: Condition, shifted: Sequence[Condition], like: Card) -> tuple[Judged, ...]:
    """What each objective would choose for each condition: both halves by a card of the others, mean of the two.

    A condition too small to be halved is not judged. Shifted conditions of the same source images share their evidence:
    what is hard about an image is so in each of them. `like` has the grid.
    """
    found: list[Judged] = []
    halves = [_halves(one) for one in (home, *shifted) if len(one.labels) >= _LEAST]
    if len(home.labels) < _LEAST:
        return ()
    for measured in (0, 1):
        fitted = [half[1 - measured] for half in halves]
        own = fitted[0]
        card = make_card(
            *(own.logits, own.labels, fitted[1:]),
            alphas=like.alphas,
            identity=like.identity,
            created_at=like.created_at,
        )
        for half in halves:
            found += _choices(half[measured], card)
    grouped: dict[tuple[str, str], list[Judged]] = {}
    for one in found:
        grouped.setdefault((one.condition, one.objective), []).append(one)
    groups = sharing([one.labels.numpy() for one in shifted], [0] * len(shifted))
    sharers = {shifted[d].name: len(group) for group in groups for d in group}
    return tuple(_among(_mean(*both), sharers.get(both[0].condition, 1)) for both in grouped.values())


def _among(one: Judged, sharers: int) -> Judged:
    return replace(one, images=max(1, one.images // sharers))


def _halves(condition: Condition) -> tuple[Condition, Condition]:
    every = torch.arange(len(condition.labels))
    return condition.part(every[::2]), condition.part(every[1::2])


def _choices(condition: Condition, card: Card) -> Iterator[Judged]:
    """Each objective's choice for these images; the lowest of equal alphas."""
    names = objectives.NAMES
    judged: dict[str, Objective] = {name: card.objective(name) for name in names}
    means: dict[str, list[float]] = {name: [] for name in judged}
    right: list[float] = []
    for j in range(len(card.alphas)):
        z = condition.logits(j)
        right.append(float((z.argmax(dim=-1) == condition.labels).double().mean()))
        for name, objective in judged.items():
            means[name].append(float(objective(z, j).mean()))
    for name, values in means.items():
        j = int(np.argmin(values))
        ends = right[0], right[-1]
        yield Judged(condition.name, len(condition.labels), name, card.alphas[j], right[j], max(right), *ends)


def _mean(one: Judged, other: Judged) -> Judged:
    """Of two halves of a condition, by their images."""
    images = one.images + other.images
    measured = [np.array([j.alpha, j.accuracy, j.best_accuracy, j.zero_shot, j.fine_tuned]) for j in (one, other)]
    alpha, *accuracies = ((one.images * measured[0] + other.images * measured[1]) / images).tolist()
    accuracy, best, *ends = accuracies
    return Judged(one.condition, images, one.objective, alpha, accuracy, max(accuracy, best, *ends), *ends)


def advise(card: Card) -> Advice:
    """The objective that the card recommends.

    Where images under shift were given, `calibrated_tsallis`, which is fitted to them: on six pairs that `finetune`
    makes its worst domain lay .7 to 2.8 points below the better endpoint, that of each other objective up to 11 or more
    (docs/measurements/method.md). Without any, confidence at home decides: `tsallis` where the fine-tuned model is
    surely not over-confident on the card's own sample, else `relative`. For a model that is so at home is surer still
    of what it never saw; `relative` takes that into account and served up to 1.2 points more there, .5 less elsewhere.

    Another objective is proven where it had to choose each way. So judged conditions count if the fine-tuned model is
    better in some of them and zero-shot in others, and both kinds weigh the same. On conditions of one kind, whatever
    always runs to that end wins: on a development pair's corruptions of known classes `calibrated_entropy` served most,
    and .14 less than `entropy` on new classes.
    """
    default, reason = _default(card)
    served, margin = _served(card.judged)
    if not served:
        return Advice(default, reason)
    best = max(served, key=lambda name: served[name])
    if served[best] <= served[default] + margin:
        return Advice(default, reason)
    return Advice(
        best,
        f"it serves {served[best]:.3f}, {default} {served[default]:.3f}, over conditions where the fine-tuned model is "
        "better and where zero-shot is",
    )


def _default(card: Card) -> tuple[str, str]:
    """An objective, and why, before anything was judged."""
    if card.shifted_temperature:
        low, high = card.shifted_temperature[0], card.shifted_temperature[-1]
        return "calibrated_tsallis", (
            f"labelled images under shift give both models temperatures (zero-shot {low:.2f}, fine-tuned {high:.2f}) "
            "at which they can be compared"
        )
    T, interval = card.temperature[-1], card.fine_tuned_interval
    low, high = (T, T) if interval is None else interval
    between = "" if interval is None else f", 95 %: {low:.2f} to {high:.2f} of {card.images} images"
    where = f"on its own kind of images the fine-tuned model is {{}} (its temperature there: {T:.2f}{between})"
    if low > OVER_CONFIDENT:
        return "relative", where.format("over-confident, so that it would be preferred where it is wrong")
    if high > OVER_CONFIDENT:
        return "relative", where.format("perhaps over-confident, and these are too few images to tell")
    return objectives.DEFAULT, where.format("not over-confident, so that entropy can be trusted")


def advised_alpha(verdict: PairVerdict | None) -> float | None:
    """The alpha to serve always, where adapting surely served less than it, and by more than a draw; None: adapt."""
    return verdict.fixed_alpha if verdict is not None and verdict.gain[0] < -_LOSS and verdict.gain[2] < 0.0 else None


@dataclass(frozen=True)
class Recommendation:
    """What to serve with a judged pair.

    `alpha` is the one for all images, 0 for theta_0 alone, None to adapt. `served` is the accuracy that this had, mean
    over the judged conditions. `is_auto`: `search.strategy = auto` does it by the card.
    """

    alpha: float | None
    served: float
    is_auto: bool


def recommend(verdict: PairVerdict) -> Recommendation:
    """Return the one recommendation: what serves most.

    To adapt counts as most unless a fixed alpha surely serves more. Where it serves no more than theta_0, it is not
    worth its forwards: the best fixed alpha is, or theta_0 alone where that serves no more either.
    """
    if (fixed := advised_alpha(verdict)) is not None:
        return Recommendation(fixed, verdict.best_fixed, is_auto=True)
    if verdict.adapted >= verdict.zero_shot + _LOSS:
        return Recommendation(None, verdict.adapted, is_auto=True)
    if verdict.best_fixed >= verdict.zero_shot + _LOSS:
        return Recommendation(verdict.fixed_alpha, verdict.best_fixed, is_auto=False)
    return Recommendation(0.0, verdict.zero_shot, is_auto=False)


def in_words(strategy: str, objective: str, alpha: float, *, is_advised: bool) -> str:
    """How alpha is chosen, for everybody who is told; `is_advised`: by `auto`, which goes by the card."""
    if strategy == "fixed":
        return f"a fixed alpha of {alpha:g}, as {'the card advises' if is_advised else 'search.alpha says'}"
    return f"adapts by {objective}" + ("" if strategy == "warm" else f", search {strategy}")


def chosen(name: str, card: Card | None) -> str:
    """The objective that `name` stands for: `auto` is what the card recommends, the default without a card."""
    if name != AUTO:
        return name
    return objectives.DEFAULT if card is None else advise(card).objective


def _served(judged: Sequence[Judged]) -> tuple[dict[str, float], float]:
    """Objective -> accuracy, mean of both kinds of condition, and what is a draw; empty if one kind is missing.

    The card's own sample does not count: it has no shift to choose by. Between the alphas of two objectives hardly more
    than a tenth of the images become right or wrong, which gives a difference its standard deviation.
    """
    kinds: dict[str, tuple[list[Judged], list[Judged]]] = {}
    for one in judged:
        if one.condition != OWN and abs(one.fine_tuned - one.zero_shot) >= APART:
            kinds.setdefault(one.objective, ([], []))[one.fine_tuned > one.zero_shot].append(one)
    if not kinds or not all(zero_shot and fine_tuned for zero_shot, fine_tuned in kinds.values()):
        return {}, 0.0
    means = {name: fmean(fmean(one.accuracy for one in kind) for kind in both) for name, both in kinds.items()}
    both = next(iter(kinds.values()))
    variance = sum(sum(_MOVED / one.images for one in kind) / len(kind) ** 2 for kind in both) / len(both) ** 2
    return means, max(_MARGIN, 2.0 * math.sqrt(variance))
