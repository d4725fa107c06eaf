"""Calibration on a labelled sample: temperatures, the threshold of `atc`, and calibration error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.adapt.objective import Values, tsallis

_BINS = 15  # bins of the calibration error
_RANGE = (0.05, 20.0)  # bounds of a fitted temperature
LEAST_DIFFERENCE = 0.03  # accuracy: a condition whose endpoints differ by less does not say which of them is better
_LOG_RATIOS = np.arange(-0.2, 2.01, 0.05)  # candidates of `serving_ratio`: ratios from .82 to 7.4
_PARTS = 5  # of the grid, whose ends are evaluated: accuracies and objectives change little within one
_ALIKE = 0.01  # nats: a search hardly distinguishes alphas whose objectives differ by less
_DRAW = 0.001  # accuracy: a ratio within this of the best counts as equally good
_LEAST = 100  # images of a kind: with fewer, endpoints differ by chance


def sharing(labels: Sequence[npt.NDArray[np.int64]], vocabularies: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return which conditions are made of the same source images, in groups with the largest condition first.

    Row i of each condition of a group is made of the group's image i, as for photographs under several corruptions.
    Such conditions are recognised by their labels: these are equal from the first row on and have two classes or more.
    Different photographs may have equal labels too, if both sets are sorted by class. The interval of such a group is
    wider than it need be, because what is hard about a class is then drawn together.

    Args:
        labels: class indices `[N]` of each condition.
        vocabularies: of each condition, the number of its list of classes.
    """
    groups: list[list[int]] = []
    for d in sorted(range(len(labels)), key=lambda d: (-len(labels[d]), d)):
        mine, n = labels[d], len(labels[d])
        same = (
            group
            for group in groups
            if vocabularies[group[0]] == vocabularies[d]
            and len(set(mine.tolist())) > 1
            and np.array_equal(labels[group[0]][:n], mine)
        )
        if (group := next(same, None)) is None:
            groups.append([d])
        else:
            group.append(d)
    return tuple(map(tuple, groups))


def fit_threshold(values: Values, accuracy: float) -> float:
    """Return the entropy at or below which lie as many of `values` `[N]` as images are right (ties aside).

    This is the threshold of average thresholded confidence (Garg et al., 2022).
    """
    ordered = np.sort(values)
    right = round(accuracy * len(ordered))
    if right == 0:
        return float(ordered[0]) - 1.0  # below every value
    return float(ordered[right - 1 : right + 1].mean())


def fit_temperature(logits: Tensor, labels: Tensor, *others: tuple[Tensor, Tensor]) -> float:
    """Return the temperature in [.05, 20] with the lowest NLL of softmax(logits / T) (Guo et al., 2017, section 4.2).

    The NLL is convex in 1/T, so a golden-section search over ln T (Kiefer, 1953) finds its one minimum.

    Args:
        logits: `[n, C]`.
        labels: `[n]`, class indices.
        others: further (logits, labels) samples; each sample has the same weight, whatever its size.
    """
    samples = ((logits, labels), *others)

    def nll(log_T: float) -> float:
        T = np.exp(log_T)
        return sum(float(torch.nn.functional.cross_entropy(logits / T, labels)) for logits, labels in samples)

    low, high, ratio = np.log(_RANGE[0]), np.log(_RANGE[1]), (np.sqrt(5.0) - 1.0) / 2.0
    while high - low > 1e-4:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if nll(a) < nll(b) else (a, high)
    return float(np.exp((low + high) / 2.0))


def serving_ratio(
    conditions: Sequence[tuple[Callable[[int], Tensor], Tensor]], alphas: Sequence[float], temperature: float
) -> float | None:
    """Return the ratio of temperatures, alpha 1 to alpha 0, at which `tsallis` chooses best.

    The temperature of lowest NLL makes probabilities right on average. Whether an objective then chooses the right
    endpoint is another question: with few classes to learn from, fine-tuned weights have so high a temperature on other
    classes that alpha stays half-way where they are right. So this searches ratios from .8 to 7.4 for those that serve
    the highest accuracy on labelled images, at the alphas that the objective would choose or nearly so. The logarithm
    of the temperature is linear in alpha. Conditions where zero-shot is better have the same weight as those where
    fine-tuned is. Among ratios that serve alike, the one is returned whose smaller margin is largest: the margin is by
    how many nats the objective prefers the better endpoint, as a mean over the conditions of a kind. Conditions without
    labels differ by a few tenths of a nat, and one on the wrong side of 0 is served by the wrong endpoint.

    Args:
        conditions: (logits, labels) of each condition: logits `[N, C]` at an alpha by its index, and labels `[N]`.
        alphas: the grid.
        temperature: the temperature at alpha 0.

    Returns:
        The ratio. None if conditions with a better endpoint are all of one kind, for an objective that always runs to
        that endpoint would serve most there; or if a kind has too few images.
    """
    last = len(alphas) - 1
    chosen = [*range(0, last, max(1, last // _PARTS)), last]
    kinds: tuple[list[Values], list[Values]] = ([], [])  # where alpha 0 is better, where alpha 1 is
    margins: tuple[list[Values], list[Values]] = ([], [])
    images = [0, 0]
    for logits, labels in conditions:
        at = {j: logits(j).double() for j in chosen}
        right = np.array([float((z.argmax(dim=-1) == labels).double().mean()) for z in at.values()])
        if abs(right[-1] - right[0]) >= LEAST_DIFFERENCE:
            found = np.array(
                [
                    [tsallis(z / (temperature * np.exp(log_ratio * alphas[j])), j).mean() for j, z in at.items()]
                    for log_ratio in _LOG_RATIOS
                ]
            )
            kind = int(right[-1] > right[0])
            kinds[kind].append(_served(found, right))
            margins[kind].append((found[:, 0] - found[:, -1]) * (1 if kind else -1))
            images[kind] += len(labels)
    if min(images) < _LEAST:
        return None
    served = np.mean([np.mean(kind, axis=0) for kind in kinds], axis=0)
    margin = np.min([np.mean(kind, axis=0) for kind in margins], axis=0)
    return float(np.exp(_LOG_RATIOS[np.where(served >= served.max() - _DRAW, margin, -np.inf).argmax()]))


def _served(objectives: Values, right: Values) -> Values:
    """Return the accuracy at each ratio, `[R]`: accuracies `[G]` weighted by a softmin of objectives `[R, G]`."""
    weights = np.exp((objectives.min(axis=1, keepdims=True) - objectives) / _ALIKE)
    served: Values = (weights * right).sum(axis=1) / weights.sum(axis=1)
    return served


def temperature_interval(logits: Tensor, labels: Tensor, temperature: float) -> tuple[float, float]:
    """Return the 95 % interval of a fitted temperature, for other images of the same kind.

    The variance of 1/T is the sandwich estimate (Huber, 1967; White, 1982): the sum of the images' squared derivatives
    of the NLL over the squared curvature. A temperature at an end of its range comes from images that are all right, or
    that carry no information; the interval is then the whole range.

    Args:
        logits: `[N, C]`.
        labels: `[N]`.
        temperature: the fitted one.
    """
    if not _RANGE[0] * 1.01 < temperature < _RANGE[1] / 1.01:
        return _RANGE
    p = (logits / temperature).softmax(dim=-1)
    means = (p * logits).sum(dim=-1)
    slopes = means - logits.gather(1, labels[:, None])[:, 0]
    curvature = float(((p * logits.square()).sum(dim=-1) - means.square()).sum())
    half = 1.96 * float(slopes.square().sum().sqrt()) / max(curvature, 1e-12)
    low, high = (1.0 / min(max(1.0 / temperature + sign * half, 1.0 / _RANGE[1]), 1.0 / _RANGE[0]) for sign in (1, -1))
    return low, high


def calibration_error(p: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error of probabilities `[N, C]` over 15 equal bins of confidence, in [0, 1].

    The definition is that of Naeini, Cooper and Hauskrecht (2015), as used by Guo et al. (2017, equation 3).
    """
    confidence, guess = p.max(dim=-1)
    correct = (guess == labels).double()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    gaps = torch.zeros(_BINS, dtype=torch.float64).index_add_(0, bins, correct - confidence.double())
    return float(gaps.abs().sum() / len(labels))
