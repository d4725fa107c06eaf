"""The objective that fits a pair: what each would have chosen on labelled images, and how accurate that choice is.

Objectives with references from a card would know the answer on the images that the card was made from. So every
condition is split into two halves, and each half is judged by a card made from the other halves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch

from adawise.adapt import objective as objectives
from adawise.adapt.objective import Objective
from adawise.card.calibration import LEAST_DIFFERENCE, sharing
from adawise.card.card import Card, Condition, ObjectiveResult, PairVerdict, SceneProof, make_card

AUTO = "auto"
OWN = "own, in halves"
OVER_CONFIDENT = 1.0  # a model with a higher fitted temperature is over-confident
_MARGIN = 0.01  # accuracy: a smaller gain over the default is a draw
_MOVED = 0.1  # share of images that become right or wrong between two alphas
_LOSS = 0.002  # accuracy: what adapting may cost on labelled conditions
_LEAST = 8  # images: fewer are not worth halving
PRIOR_WITHOUT_CARD = (
    "without a card, confidence is not calibrated: where it is too high, the class prior also corrects where the model "
    "recognises nothing, and scene_label is then worse than label. `adawise card make` makes a card"
)
"""The note on a class prior that no card supports."""

ADVICE_OF_ALL = (
    "the card advises a fixed alpha, and no adapting, by a comparison among all {classes} classes, and cameras with "
    "a shortlist are served among fewer: whether it holds there is not known. Set search.strategy to warm, or to fixed "
    "if that alpha is meant"
)
"""The note on a fixed alpha that a card advises where cameras have shortlists."""


def scene_in_words(proof: SceneProof) -> str:
    """Return the figures of a comparison of `scene_label` with `label`, as a clause."""
    gain, low, high = (f"{100 * each + 0.0:+.1f}" for each in proof.gain)
    found = f"on {proof.images} labelled images of {proof.cameras} cameras it is {gain} points (95 %: {low} to {high})"
    if not proof.worst:
        return found
    return f"{found}, and {100 * proof.worst_gain + 0.0:+.1f} at worst ({proof.worst}; bound {100 * proof.bound:+.1f})"


@dataclass(frozen=True)
class Advice:
    """A recommended objective and the reason for it, a clause that continues a sentence after a colon."""

    objective: str
    reason: str


def evaluate_conditions(home: Condition, shifted: Sequence[Condition], like: Card) -> tuple[ObjectiveResult, ...]:
    """Return what each objective would choose for each condition.

    Both halves of a condition are judged by a card made from the other halves, and the mean of the two is returned. A
    condition too small to be halved is not judged. Shifted conditions made of the same source images divide their
    number of images among them: an image that is hard is hard in each of them.

    Args:
        home: the labelled in-distribution sample.
        shifted: labelled images under shift.
        like: a card of the same pair, for the grid, identity and date.
    """
    found: list[ObjectiveResult] = []
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
    grouped: dict[tuple[str, str], list[ObjectiveResult]] = {}
    for one in found:
        grouped.setdefault((one.condition, one.objective), []).append(one)
    groups = sharing([one.labels.numpy() for one in shifted], [0] * len(shifted))
    sharers = {shifted[d].name: len(group) for group in groups for d in group}
    return tuple(_among(_mean(*both), sharers.get(both[0].condition, 1)) for both in grouped.values())


def _among(one: ObjectiveResult, sharers: int) -> ObjectiveResult:
    """Return the result with its number of images divided by the conditions that are made of the same ones."""
    return replace(one, images=max(1, one.images // sharers))


def _halves(condition: Condition) -> tuple[Condition, Condition]:
    """Return the images at even and at odd places."""
    every = torch.arange(len(condition.labels))
    return condition.part(every[::2]), condition.part(every[1::2])


def _choices(condition: Condition, card: Card) -> Iterator[ObjectiveResult]:
    """Yield the alpha that each objective chooses for these images; the lowest where several are equal."""
    names = objectives.NAMES
    by_name: dict[str, Objective] = {name: card.objective(name) for name in names}
    means: dict[str, list[float]] = {name: [] for name in by_name}
    right: list[float] = []
    for j in range(len(card.alphas)):
        z = condition.logits(j)
        right.append(float((z.argmax(dim=-1) == condition.labels).double().mean()))
        for name, objective in by_name.items():
            means[name].append(float(objective(z, j).mean()))
    for name, values in means.items():
        j = int(np.argmin(values))
        ends = right[0], right[-1]
        yield ObjectiveResult(condition.name, len(condition.labels), name, card.alphas[j], right[j], max(right), *ends)


def _mean(one: ObjectiveResult, other: ObjectiveResult) -> ObjectiveResult:
    """Return the mean over two halves of a condition, weighted by their images."""
    images = one.images + other.images
    measured = [np.array([j.alpha, j.accuracy, j.best_accuracy, j.zero_shot, j.fine_tuned]) for j in (one, other)]
    alpha, *accuracies = ((one.images * measured[0] + other.images * measured[1]) / images).tolist()
    accuracy, best, *ends = accuracies
    # `max`: rounding must not leave the best accuracy below another one, which `read_card` refuses.
    return ObjectiveResult(one.condition, images, one.objective, alpha, accuracy, max(accuracy, best, *ends), *ends)


def advise(card: Card) -> Advice:
    """Return the objective that the card recommends.

    If the card has images under shift, that is `calibrated_tsallis`, which is fitted to them. On six pairs made by
    `finetune` its worst domain was .7 to 2.8 points below the better endpoint; that of each other objective was up to
    11 or more below (docs/measurements/method.md). Otherwise confidence on the card's own sample decides: `tsallis` if
    the fine-tuned model is surely not over-confident there, else `relative`. A model that is over-confident at home is
    even more so on images unlike its training set. `relative` takes that into account: it served up to 1.2 points more
    there, and .5 less elsewhere.

    Another objective must prove itself on conditions of both kinds. So judged conditions count only if the fine-tuned
    model is better in some of them and zero-shot in others, and both kinds have the same weight. On conditions of one
    kind, an objective that always runs to that end would win: on a development pair's corruptions of known classes
    `calibrated_entropy` served most, and .14 less than `entropy` on new classes.
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
    """Return the objective for a card without judged conditions, and the reason."""
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
        return "relative", where.format("perhaps over-confident, but there are too few images to be sure")
    return objectives.DEFAULT, where.format("not over-confident, so that entropy can be trusted")


def advised_alpha(verdict: PairVerdict | None) -> float | None:
    """Return the alpha to serve always, if adapting surely served less by more than a draw; None means adapt."""
    return verdict.fixed_alpha if verdict is not None and verdict.gain[0] < -_LOSS and verdict.gain[2] < 0.0 else None


@dataclass(frozen=True)
class Recommendation:
    """The way to serve a judged pair.

    Attributes:
        alpha: the alpha for all images; 0 is theta_0 alone, None means adapt.
        served: the accuracy that this had, mean over the judged conditions.
        is_auto: True if `search.strategy = auto` does this by the card.
    """

    alpha: float | None
    served: float
    is_auto: bool


def recommend(verdict: PairVerdict) -> Recommendation:
    """Return the one recommendation: what served the highest accuracy.

    Adapting counts as best unless a fixed alpha surely serves more. If adapting serves no more than theta_0, it is not
    worth its forwards: the best fixed alpha is recommended, or theta_0 alone if that alpha serves no more either.
    """
    if (fixed := advised_alpha(verdict)) is not None:
        return Recommendation(fixed, verdict.best_fixed, is_auto=True)
    if verdict.adapted >= verdict.zero_shot + _LOSS:
        return Recommendation(None, verdict.adapted, is_auto=True)
    if verdict.best_fixed >= verdict.zero_shot + _LOSS:
        return Recommendation(verdict.fixed_alpha, verdict.best_fixed, is_auto=False)
    return Recommendation(0.0, verdict.zero_shot, is_auto=False)


def in_words(strategy: str, objective: str, alpha: float, *, is_advised: bool) -> str:
    """Return how alpha is chosen, as messages say it; `is_advised` if `auto` chose the strategy by the card."""
    if strategy == "fixed":
        return f"a fixed alpha of {alpha:g}, as {'the card advises' if is_advised else 'search.alpha says'}"
    return f"adapts by {objective}" + ("" if strategy == "warm" else f", search {strategy}")


def chosen(name: str, card: Card | None) -> str:
    """Return the objective that `name` means: for `auto` the card's recommendation, or the default without a card."""
    if name != AUTO:
        return name
    return objectives.DEFAULT if card is None else advise(card).objective


def of_all_classes(objective: str, card: Card | None, where: str) -> str:
    """Return why an objective does not hold among a shortlist, with the remedy; "" if it holds.

    Args:
        objective: its name, not `auto`.
        card: of the pair.
        where: what has the shortlists, as messages name it.
    """
    if objective in objectives.OF_ALL_CLASSES:
        return (
            f"search.objective {objective} compares images with the card's figures for all classes, which do not hold "
            f"within {where}: set search.objective to calibrated_tsallis or tsallis"
        )
    if card is not None and card.bias is not None and card.bias.objective == objective:
        return (
            f"the card's correction of {objective} by late labels was learned with all classes, and does not hold "
            f"within {where}: use the card without the correction, or no shortlists"
        )
    return ""


def _served(results: Sequence[ObjectiveResult]) -> tuple[dict[str, float], float]:
    """Return each objective's accuracy, mean over both kinds of condition, and the margin below which it is a draw.

    The accuracies are empty if one kind of condition is missing. The card's own sample does not count, because there is
    no shift to choose by. Between the alphas of two objectives hardly more than a tenth of the images become right or
    wrong, which gives the difference its standard deviation.
    """
    kinds: dict[str, tuple[list[ObjectiveResult], list[ObjectiveResult]]] = {}
    for one in results:
        if one.condition != OWN and abs(one.fine_tuned - one.zero_shot) >= LEAST_DIFFERENCE:
            kinds.setdefault(one.objective, ([], []))[one.fine_tuned > one.zero_shot].append(one)
    if not kinds or not all(zero_shot and fine_tuned for zero_shot, fine_tuned in kinds.values()):
        return {}, 0.0
    means = {name: fmean(fmean(one.accuracy for one in kind) for kind in both) for name, both in kinds.items()}
    both = next(iter(kinds.values()))
    variance = sum(sum(_MOVED / one.images for one in kind) / len(kind) ** 2 for kind in both) / len(both) ** 2
    return means, max(_MARGIN, 2.0 * math.sqrt(variance))
