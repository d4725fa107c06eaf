"""Accuracy by images that were drawn with known probabilities: an interval and an alarm that hold at every look.

Of each group of batches one image is drawn, whose term x = mean confidence of the group + (right - confidence) / ratio
has the accuracy of the group's images as its expectation, whatever confidence is worth (prediction-powered:
Angelopoulos et al., 2023; by unequal probabilities: Horvitz and Thompson, 1952; Zrnic and Candès, 2024). An image
without a label counts as wrong in what bounds accuracy from below, and as right in what bounds it from above and in the
evidence of a drop, so that no assumption is made on why it has none. docs/decisions/formulas.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from adawise.labels.arrays import Floats
from adawise.labels.benefit.helped import Interval
from adawise.labels.sample.days import SampledImage

LEVEL = 0.05
"""Chance, within a year, that an interval is ever wrong, or that any camera of a fleet is ever reported in error."""
LEAST_RESPONSE = 0.8
"""The least share of drawn images with a label, over all days of a camera's year, for any guarantee."""
LEARNED_DAYS = 28
"""Days of labels that a camera's usual accuracy is learned from."""
YEAR_DAYS = 365

TOLERATED = 0.02
"""Drop below the learned accuracy that is not reported."""

_AIMED = 0.08  # drop below the bound that bets are made for; this and the next four by tools.drift.sampled_bars
_SPREAD = 0.5  # of the stake: in equal parts over the days of a year; the rest waits for days of low confidence
_PART = 0.9  # of what waits, staked on the day after such a one
_UNUSUAL = 3.5  # standard deviations of the days before
_BEFORE = (7, 28)  # least and most of these days
_LEAST = 0.005  # standard deviation of these days
_SHARE = 0.9  # of the largest bet that cannot lose everything
_PRIOR = (20.0, 0.1)  # draws, and the variance of a term, that are taken as known before
_OFF = 0.25  # most that confidence is taken to be off
_LAMBDAS = np.geomspace(0.01, 0.9, 16)  # of a bet, as shares of the largest
_BELOW, _ABOVE, _STEP = 0.12, 0.02, 0.002  # accuracies around the learned one at which a drop is tested


@dataclass(frozen=True, slots=True, eq=False)
class SampledDay:
    """A camera's day: arrays `[groups]`, with one image drawn of each; `right` is 1 or 0, and nan without a label.

    `weight`: images of the group, as a share of a group's part of the day. `expected`: mean confidence of the group,
    `confidence` that of the image. `ratio`: probability beside that of a uniform draw, `floor` the least of the design.
    `mean`: mean confidence of the whole day.
    """

    day: int
    weight: Floats
    expected: Floats
    ratio: Floats
    confidence: Floats
    right: Floats
    mean: float
    floor: float

    @property
    def response(self) -> float:
        """Share of the drawn images that have a label."""
        return float(np.isfinite(self.right).mean())

    def terms(self, missing: float) -> Floats:
        """Return what each group says of its accuracy, with `missing` (0 or 1) for answers that are not there."""
        return self.expected + (np.nan_to_num(self.right, nan=missing) - self.confidence) / self.ratio


def collected(sample: Mapping[int, Sequence[SampledImage]]) -> dict[str, list[SampledDay]]:
    """Return the days of each camera of a sample, by time."""
    found: dict[str, list[SampledDay]] = {}
    for day, images in sorted(sample.items()):
        by_camera: dict[str, list[SampledImage]] = {}
        for each in images:
            by_camera.setdefault(each.stream_id, []).append(each)
        for name, rows in by_camera.items():
            found.setdefault(name, []).append(_day(rows, day))
    return found


def _day(found: Sequence[SampledImage], day: int) -> SampledDay:
    first = found[0]
    return SampledDay(
        day,
        np.array([each.group_images * first.groups / first.images for each in found]),
        np.array([each.group_confidence for each in found]),
        np.array([each.ratio for each in found]),
        np.array([each.confidence for each in found]),
        np.array([math.nan if each.is_right is None else float(each.is_right) for each in found]),
        first.mean_confidence,
        first.floor,
    )


def answered(days: Sequence[SampledDay]) -> list[SampledDay]:
    """Return the days with any label, by time.

    Leaving out days of few labels would choose them by what they show, where an image has none because of its answer.
    """
    return sorted((day for day in days if day.response > 0.0), key=lambda day: day.day)


# -- the interval


def interval(days: Sequence[SampledDay], level: float = LEVEL) -> Interval:
    """Return the mean accuracy over days, with a confidence sequence for it at the last of them.

    Empirical-Bernstein bets, mixed over 16 sizes (Howard et al., 2021, theorem 4; the inequality is that of Fan et al.,
    2015): unlike bets on one mean they hold for the mean over days whose accuracies differ. With a chance of 1 - level,
    the intervals of all days hold at once. Days are `answered`, of one year at most, each weighted by its draws.
    """
    if not days:
        return Interval(math.nan, 0.0, 1.0)
    draws = sum(len(day.right) for day in days)
    low, high = (_reach(days, missing, level / 2) / draws for missing in (0.0, 1.0))
    means = [day.weight * (day.terms(0.0) + day.terms(1.0)) / 2 for day in days]
    middle = float(np.clip(np.concatenate(means).mean(), 0.0, 1.0))
    return Interval(middle, min(max(0.0, low), middle), max(min(1.0, -high), middle))


def _reach(days: Sequence[SampledDay], missing: float, level: float) -> float:
    """Return a lower bound of the sum of the groups' accuracies for missing 0, and minus an upper one for missing 1."""
    sign, heaviest = 1.0 - 2.0 * missing, max(float(day.weight.max()) for day in days)
    scale = heaviest * (1.0 + 1.0 / min(day.floor for day in days)) + _OFF  # no term is farther from its forecast
    total = off = squares = known = 0.0
    for day in days:
        terms = day.weight * day.terms(missing)
        forecast = day.mean + float(np.clip(off / (known + _PRIOR[0]), -_OFF, _OFF))  # by the days before alone
        squares += float(((terms - forecast) ** 2).sum())
        off, known = off + float((terms - day.mean).sum()), known + len(terms)
        total += sign * float(terms.sum())
    lambdas = _LAMBDAS / scale
    price = (-np.log1p(-_LAMBDAS) - _LAMBDAS) / scale**2 * squares + math.log(len(_LAMBDAS) / level)
    # The largest deviation s with log mean exp(lambda s - psi(lambda) V) <= log(1 / level).
    least = brentq(lambda s: float(logsumexp(lambdas * s - price)), 0.0, float((price / lambdas).min()) + 1.0)
    return total - float(least)


# -- the evidence that accuracy fell


def evidence(days: Sequence[SampledDay], bounds: Floats) -> Floats:
    """Return e-processes against "no day's accuracy was expected below the bound", after each day `[days, bounds]`.

    A stake of 1 is divided over the days on which a drop may begin: half of it in equal parts over the days of a year,
    and most of what is left of the rest on each day after one whose mean confidence was unusually low. Each part is bet
    from its day on (Shiryaev, 1963; Roberts, 1966; as an e-process: Shin, Ramdas and Rinaldo, 2023), so that its sum is
    1 / level or more with a chance of level at most (Ville, 1939). The size of a bet goes by
    the days before, and is the same for all bounds, so that evidence rises with the bound.

    Args:
        days: those that are `answered`, by time, of one year at most.
        bounds: accuracies, ascending.
    """
    waiting, kept, staked = 1.0 - _SPREAD, _SPREAD, np.zeros(len(bounds))
    draws, squares = _PRIOR[0], _PRIOR[0] * _PRIOR[1]
    # A bet that went by the day's own confidence would know more than the days before.
    highest = 1.0 + 1.0 / min((day.floor for day in days), default=1.0) - float(bounds[0])
    found = np.empty((len(days), len(bounds)))
    for number, day in enumerate(days):
        stake = _SPREAD / (YEAR_DAYS + 1)
        kept -= stake
        if _is_unusual([each.mean for each in days[max(0, number - _BEFORE[1] - 1) : number]]):
            stake, waiting = stake + _PART * waiting, (1.0 - _PART) * waiting
        bet = min(_SHARE / highest / float(day.weight.max()), _AIMED / (squares / draws + _AIMED**2))
        terms = day.terms(1.0)
        growth = np.log1p(bet * day.weight * (bounds[:, None] - terms)).sum(axis=1)
        staked = np.minimum((staked + stake) * np.exp(np.minimum(growth, 300.0)), 1e290)
        squares, draws = squares + float(((terms - terms.mean()) ** 2).sum()), draws + len(terms)
        found[number] = staked + kept + waiting
    return found


def evidence_of_drop(learned: Sequence[SampledDay], days: Sequence[SampledDay], tolerated: float) -> Floats:
    """Return the e-process against "no day was expected more than `tolerated` below the mean of `learned`" `[days]`.

    For each accuracy b that the learned days may have had, bets that theirs was above b, times bets that a later one is
    below b - tolerated, are an e-process if b is true; so their least over all b is one, too. Bets on the learned days
    are of 16 fixed sizes, mixed with not betting (Waudby-Smith and Ramdas, 2023); accuracies may differ from day to
    day, for the product of 1 + lambda (x - b) has a mean of (1 + lambda (mean - b))^n at most, by concavity.
    """
    x, weight = (np.concatenate(each) for each in zip(*((d.terms(0.0), d.weight) for d in learned), strict=True))
    grid = np.clip((weight * x).mean(), 0.0, 1.0) + np.arange(-_BELOW, _ABOVE + _STEP / 2, _STEP)
    lambdas = _LAMBDAS / (1.0 / min(day.floor for day in learned) + 1.0 + _ABOVE) / float(weight.max())
    bets = np.log1p(lambdas[:, None, None] * weight * (x - grid[:, None])).sum(axis=2)  # [lambdas, grid]
    above = np.logaddexp(0.0, logsumexp(bets, axis=0) - math.log(len(lambdas))) - math.log(2.0)
    below = evidence(days, grid - tolerated)
    # Between two points of the grid, the one factor is no less than at the upper, the other than at the lower one.
    between = (np.log(below[:, :-1]) + above[1:]).min(axis=1)
    over = np.log(below[:, -1]) - math.log(2.0)
    # Under the grid at least what is not staked is left of the second factor.
    under = above[0] + np.log(_SPREAD * (1.0 - np.arange(1, len(days) + 1) / (YEAR_DAYS + 1)))
    least: Floats = np.exp(np.minimum(np.minimum(between, over), np.minimum(under, 300.0)))
    return least


def _is_unusual(means: Sequence[float]) -> bool:
    """Return whether the last of these mean confidences is far below those before."""
    *before, last = means or [0.0]
    if len(before) < _BEFORE[0]:
        return False
    return last < float(np.mean(before)) - _UNUSUAL * max(float(np.std(before, ddof=1)), _LEAST)


def discoveries(e_values: Mapping[str, float], level: float) -> frozenset[str]:
    """Return the cameras that are reported together, by e-BH: the k largest, if all are K / (k level) or more.

    Of the K cameras k is the most for which that holds (Wang and Ramdas, 2022).

    E-values of cameras may depend on each other in any way, and are never multiplied (Vovk and Wang, 2021). If no
    camera fell, one is ever reported with a chance of level at most: any report needs a mean of all e-values of 1 /
    level.
    """
    ordered = sorted(e_values, key=lambda name: -e_values[name])
    passed = [k for k, name in enumerate(ordered, 1) if e_values[name] * k * level >= len(ordered)]
    return frozenset(ordered[: max(passed, default=0)])


@dataclass(frozen=True, slots=True)
class SampledAccuracy:
    """A camera's accuracy by sampled labels over `days` of the sample's year; `why`: why nothing is guaranteed, or "".

    The interval of `accuracy` holds at all times. `bound`: what accuracy is held against; nan while that is learned.
    `evidence` is the e-value against "never below"; `alarm_day`: the day whose labels showed a fall.
    """

    stream_id: str
    first_day: int
    last_day: int
    days: int
    draws: int
    response: float
    accuracy: Interval
    bound: float = math.nan
    evidence: float = 1.0
    alarm_day: int | None = None
    why: str = ""


def by_sample(
    drawn: Mapping[str, Sequence[SampledDay]], bound: float | None = None, tolerated: float = TOLERATED
) -> tuple[SampledAccuracy, ...]:
    """Return the accuracy of each camera by its days, and which fell below a bound, at a level of 5 % for all together.

    Args:
        drawn: every day of each camera, with labels or without.
        bound: the accuracy that all cameras are held against; None: that of the first 28 days of each.
        tolerated: drop below what was learned that is not reported.
    """
    learned = 0 if bound is not None else LEARNED_DAYS
    first = _first_day({day.day for days in drawn.values() for day in answered(days)})
    usable = {name: answered([day for day in days if day.day >= first]) for name, days in drawn.items()}
    newest = max((days[-1].day for days in usable.values() if days), default=first)
    begin = newest - (newest - first) % YEAR_DAYS
    found: dict[str, SampledAccuracy] = {}
    paths: dict[str, dict[int, float]] = {}
    for name in sorted(drawn):
        current = [day for day in usable[name] if day.day >= begin]
        found[name] = result = _level_of(name, drawn[name], current, begin)
        before, after = usable[name][:learned], usable[name][learned:]
        judged = [day for day in after if day.day >= begin]
        if result.why or not judged:
            continue
        if before and (known := _response(before)) < LEAST_RESPONSE:  # what has no label would count as wrong for good
            of = f"{known:.0%} of the draws of the first {LEARNED_DAYS} days have a label"
            why = f"{of}, and to learn from them takes {LEAST_RESPONSE:.0%}; give --least-accuracy"
            found[name] = replace(result, why=why)
            continue
        if bound is None:
            at = float(np.mean([(day.weight * day.terms(0.0)).mean() for day in before])) - tolerated
            path = evidence_of_drop(before, judged, tolerated)
        else:
            at, path = bound, evidence(judged, np.array([bound]))[:, 0]
        paths[name] = {day.day: float(value) for day, value in zip(judged, path, strict=True)}
        found[name] = replace(result, bound=at, evidence=float(path[-1]))
    cameras = sum(any(day.day >= first for day in days) for days in drawn.values())
    for name, day in _alarms(paths, cameras, LEVEL).items():
        found[name] = replace(found[name], alarm_day=day)
    return tuple(found.values())


def _first_day(days: Collection[int]) -> int:
    """Return the first day since the last pause of a year, which one image of a wrong clock makes; 0 without days.

    Days are those with a label: a file without any begins nothing.
    """
    ordered = sorted(days)
    begins = [day for before, day in pairwise(ordered) if day - before >= YEAR_DAYS]
    return begins[-1] if begins else min(ordered, default=0)


def _response(days: Sequence[SampledDay]) -> float:
    """Return the share of the draws of these days that have a label; 0 without days."""
    return float(np.concatenate([np.isfinite(day.right) for day in days]).mean()) if days else 0.0


def _level_of(name: str, drawn: Sequence[SampledDay], current: Sequence[SampledDay], begin: int) -> SampledAccuracy:
    """Return the interval of a camera's answered days of this year, or why there is none."""
    last = max((day.day for day in current or drawn if day.day >= begin), default=begin)
    reached = [day for day in drawn if begin <= day.day <= last]
    response = _response(reached)
    draws, known = sum(len(day.right) for day in current), interval(current)
    found = SampledAccuracy(name, begin, last, len(current), draws, response, known)
    if current and response >= LEAST_RESPONSE:
        return found
    why = f"{response:.0%} of the draws have a label, and a guarantee needs {LEAST_RESPONSE:.0%}"
    if not reached:
        why = "no image was drawn since the year of the sample began"
    return replace(found, accuracy=Interval(math.nan, math.nan, math.nan), why=why)


def _alarms(paths: Mapping[str, Mapping[int, float]], cameras: int, level: float) -> dict[str, int]:
    """Return the first day on which each camera was reported; cameras without evidence count as having 1."""
    latest = {f"{n}": 1.0 for n in range(cameras - len(paths))} | dict.fromkeys(paths, 1.0)
    alarms: dict[str, int] = {}
    for day in sorted({day for path in paths.values() for day in path}):
        latest |= {name: path[day] for name, path in paths.items() if day in path}
        for name in discoveries(latest, level) & paths.keys():
            alarms.setdefault(name, day)
    return alarms
