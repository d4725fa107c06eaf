"""Shortlists in search and prediction: the figures of each strategy against the same search among all classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.lists import NONE
from adawise_lab.evaluate.result import Difference, ListFigures
from adawise_lab.evaluate.run import Plan, TaskResult
from adawise_lab.evaluate.score import by_domain, domain_accuracy, interval, mean, ratio, resampled_accuracies, total


def list_figures(bench: Bench, plan: Plan, runs: Sequence[TaskResult]) -> Mapping[int, ListFigures]:
    """Return the figures of each candidate by its number, from its `runs` on one kind and order of streams.

    There are none where cameras have no shortlists.
    """
    found: dict[int, ListFigures] = {}
    for number in range(len(plan.candidates) if plan.lists != NONE else 0):
        mine = [run for run in runs if run.task.candidate == number]
        listed = [run.listed for run in mine if run.listed is not None]
        scores = [
            total([run.score for run in mine]),
            total([each.predicted for each in listed]),
            total([each.without for each in listed]),
        ]
        row, predicted, without = (domain_accuracy(bench, each) for each in scores)
        samples = resampled_accuracies(
            bench, np.stack([each.hits for each in scores]), np.stack([each.visits for each in scores])
        )
        found[number] = ListFigures(
            predicted=mean(predicted),
            without=mean(without),
            over_predicted=Difference(mean(row - predicted), interval(samples[0] - samples[1])),
            over_without=Difference(mean(row - without), interval(samples[0] - samples[2])),
            fe=mean(ratio(scores[2].forwards, by_domain(bench, scores[2].visits))),
            names=fmean(each.names for each in listed),
        )
    return found
