"""A class prior beside each strategy: the figures of `scene_label` against those of the label that was served."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from adawise_lab.evaluate.bench import Bench, Floats
from adawise_lab.evaluate.camera import rare_images
from adawise_lab.evaluate.result import Difference, RareRecall, SceneFigures
from adawise_lab.evaluate.run import Plan, TaskResult
from adawise_lab.evaluate.score import (
    Score,
    calibration_error,
    domain_accuracy,
    flicker,
    interval,
    mean,
    mean_nll,
    resampled_accuracies,
    total,
)


def scene_figures(bench: Bench, plan: Plan, runs: Sequence[TaskResult]) -> Mapping[int, SceneFigures]:
    """Return the figures of each candidate by its number, from its `runs` on one kind and order of streams.

    There are none without a class prior.
    """
    if not plan.prior:
        return {}
    everything = np.ones((plan.seeds, bench.starts[-1]))
    every = _compared(bench, plan, runs, everything)
    rare = np.stack([_rare(bench, plan.shows, seed) for seed in range(plan.seeds)])
    came = any((run.score.visits * rare[run.task.seed]).any() for run in runs)  # short streams may have none
    of_rare = _compared(bench, plan, runs, rare) if came else None
    found = {}
    for number in range(len(plan.candidates)):
        gaps = every.scene[number] - every.served[number]
        worst = int(np.nanargmin(gaps))
        accuracies = zip(bench.tables, every.scene[number], strict=True)
        mine = [run for run in runs if run.task.candidate == number]
        found[number] = SceneFigures(
            accuracy=mean(every.scene[number]),
            over_served=every.difference(number),
            ece=mean(calibration_error(bench, every.scores[number])),
            nll=mean(mean_nll(bench, every.scores[number])),
            flicker=mean(flicker(every.scores[number])),
            gate=fmean(gate for run in mine for gate in run.path.scene_gate),
            smoothing=fmean(weight for run in mine for weight in run.path.scene_smoothing) if plan.smooths else None,
            worst_domain_gap=float(gaps[worst]),
            worst_domain=bench.tables[worst].name,
            domains={table.name: float(accuracy) for table, accuracy in accuracies if not np.isnan(accuracy)},
            rare=None if of_rare is None else of_rare.recall(number),
        )
    return found


def _rare(bench: Bench, shows: str, seed: int) -> Floats:
    """Return 1 for images of rare classes, 0 for others, `[N]`."""
    images = np.arange(bench.starts[-1])
    return np.isin(images, rare_images(shows, bench.domains, seed=seed)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Compared:
    """The accuracy of S candidates on some images.

    Attributes:
        scores: of `scene_label`, for each candidate.
        served: accuracy of the served label, `[S, D]`; nan for a domain without visits.
        scene: that of `scene_label`, likewise.
        samples: of the difference of both, in each resample, `[S, 1000]`.
    """

    scores: tuple[Score, ...]
    served: Floats
    scene: Floats
    samples: Floats

    def difference(self, number: int) -> Difference:
        return Difference(mean(self.scene[number] - self.served[number]), interval(self.samples[number]))

    def recall(self, number: int) -> RareRecall:
        return RareRecall(mean(self.served[number]), mean(self.scene[number]), self.difference(number))


def _compared(bench: Bench, plan: Plan, runs: Sequence[TaskResult], counted: Floats) -> _Compared:
    """Compare both labels on the images that count, `[seeds, N]`: 1, or 0 if an image does not count."""
    served, scenes = [], []
    for number in range(len(plan.candidates)):
        mine = [run for run in runs if run.task.candidate == number]
        served.append(total([_only(run.score, counted[run.task.seed]) for run in mine]))
        scenes.append(total([_only(run.scene, counted[run.task.seed]) for run in mine if run.scene is not None]))
    both = (*served, *scenes)
    accuracies = np.stack([domain_accuracy(bench, each) for each in both])
    with warnings.catch_warnings():
        # A resample may lack every image of rare classes; numpy warns, and its difference is nan, which does not count.
        warnings.simplefilter("ignore", RuntimeWarning)
        samples = resampled_accuracies(
            bench, np.stack([each.hits for each in both]), np.stack([each.visits for each in both])
        )
    S = len(served)
    return _Compared(tuple(scenes), accuracies[:S], accuracies[S:], samples[S:] - samples[:S])


def _only(score: Score, counted: Floats) -> Score:
    return replace(score, visits=score.visits * counted, hits=score.hits * counted)
