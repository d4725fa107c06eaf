"""From a labelled sample: the temperature of an alpha, the threshold of `atc`, how well confidence fits accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.adapt.objective import Values, tsallis

_BINS = 15  # of the calibration error
_RANGE = (0.05, 20.0)  # of temperatures
APART = 0.03  # accuracy: with less between its ends a condition says nothing of where to go
_LOG_RATIOS = np.arange(-0.2, 2.01, 0.05)
_PARTS = 5  # of the grid: accuracies and objectives change little within one
_ALIKE = 0.01  # nats: a search hardly tells alphas apart whose objectives differ by less
_DRAW = 0.001  # accuracy: ratios that serve within this of the best are as good
_LEAST = 100  # images of a kind: of fewer, chance puts ends apart


def sharing(labels: Sequence[npt.NDArray[np.int64]], vocabularies: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return which conditions are of the same source images, in groups, each with its largest condition first.

    Row i of each condition of a group is made of the group's image i, as for photographs under several corruptions.
    Such conditions are recognised by their labels, which are equal from the first row on, and of two classes or more.
    Different photographs may have equal labels too, where both sets are sorted by class. Their interval is wider than
    it would be apart, since what is hard about a class is then drawn together.

    Args:
        labels: of each condition, class indices `[N]`.
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
    """The entropy below or at which lie as many of `values` `[N]` as images are right (ties aside)."""
    ordered = np.sort(values)
    right = round(accuracy * len(ordered))
    if right == 0:
        return float(ordered[0]) - 1.0
    return float(ordered[right - 1 : right + 1].mean())


def fit_temperature(logits: Tensor, labels: Tensor, *others: tuple[Tensor, Tensor]) -> float:
    """The T in [.05, 20] that minimises the NLL of softmax(logits / T) (Guo et al., arXiv 1706.04599).

    Of logits `[n, C]` and labels `[n]`; of other such samples as well, each of which weighs the same. The NLL is convex
    in 1/T, so a golden-section search over ln T finds its one minimum.
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
    """How much higher the temperature at alpha 1 is than `temperature`, at alpha 0, for `tsallis` to choose best.

    The lowest NLL makes probabilities right on the average. Whether an objective then chooses the right end is another
    question: with few classes to learn from, fine-tuned weights have so high a temperature on others that it stays
    half-way where they are right. So of ratios from .8 to 7.4 those are looked for that serve most: labelled images at
    the alphas that the objective would choose, or nearly so, with the logarithm of the temperature on a straight line
    between the ends. Conditions where zero-shot is better weigh as much as those where fine-tuned is. Of ratios that
    serve alike it is the one at which the objective tells the ends apart by most nats, in the kind where that is less:
    conditions that nobody labelled differ by a few tenths, and one on the wrong side of 0 is served by the wrong end.

    Args:
        conditions: of each, logits `[N, C]` of an alpha by its index, and labels `[N]`.
        alphas: the grid.
        temperature: at alpha 0.

    Returns:
        None where conditions with a better end are of one kind, for whatever always runs to that end serves most there;
        or where a kind has too few images to tell.
    """
    last = len(alphas) - 1
    chosen = [*range(0, last, max(1, last // _PARTS)), last]
    kinds: tuple[list[Values], list[Values]] = ([], [])  # where alpha 0 is better, where alpha 1 is
    margins: tuple[list[Values], list[Values]] = ([], [])
    images = [0, 0]
    for logits, labels in conditions:
        at = {j: logits(j).double() for j in chosen}
        right = np.array([float((z.argmax(dim=-1) == labels).double().mean()) for z in at.values()])
        if abs(right[-1] - right[0]) >= APART:
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
    """Accuracy `[R]` where alphas, right on shares `[G]`, are served the more the lower their objectives `[R, G]`."""
    weights = np.exp((objectives.min(axis=1, keepdims=True) - objectives) / _ALIKE)
    served: Values = (weights * right).sum(axis=1) / weights.sum(axis=1)
    return served


def temperature_interval(logits: Tensor, labels: Tensor, temperature: float) -> tuple[float, float]:
    """The 95 % interval of a fitted temperature, for other images of the same kind: `logits` `[N, C]`, `labels` `[N]`.

    The sandwich estimator of 1/T: the spread of the images' derivatives of the NLL over its curvature. A temperature at
    an end of its range is of images that are all right, or tell nothing: then it may be any.
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
    """Expected calibration error of probabilities `[N, C]` over 15 equal bins of confidence, in [0, 1]."""
    confidence, guess = p.max(dim=-1)
    correct = (guess == labels).double()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    gaps = torch.zeros(_BINS, dtype=torch.float64).index_add_(0, bins, correct - confidence.double())
    return float(gaps.abs().sum() / len(labels))
