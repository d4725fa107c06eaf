"""Intervals cover what they should, and are as wide as the images warrant."""

from __future__ import annotations

import numpy as np

from adawise.evaluate.bench import Floats
from adawise.evaluate.bootstrap import RESAMPLES, interval, resampled_accuracies
from tests.evaluate.building import a_bench, a_table

N = 60
BENCH = a_bench(a_table("a", images=N), a_table("b", images=N))
ONCE = np.ones((1, 2 * N))


def drawn(rng: np.random.Generator, rates: tuple[float, float]) -> Floats:
    """`[1, 2 N]`: which images are right, at a rate for each domain."""
    return np.concatenate([rng.uniform(size=N) < rate for rate in rates]).astype(float)[None]


def test_the_interval_covers_the_true_accuracy_about_19_times_in_20() -> None:
    covered = 0
    for seed in range(200):
        samples = resampled_accuracies(BENCH, drawn(np.random.default_rng(seed), (0.8, 0.4)), ONCE, seed=seed)
        low, high = interval(samples[0])
        covered += low <= 0.6 <= high
    assert 0.90 <= covered / 200 <= 0.99  # 95 %, less for 60 images; 3 sd of 200 draws are 4.6 points


def test_a_difference_on_the_same_images_is_known_better_than_either() -> None:
    rng = np.random.default_rng(0)
    first = drawn(rng, (0.6, 0.6))
    second = np.where(rng.uniform(size=first.shape) < 0.05, 1.0 - first, first)  # differs on one image in twenty
    samples = resampled_accuracies(BENCH, np.concatenate([first, second]), np.repeat(ONCE, 2, axis=0))
    width = {
        name: np.subtract(*interval(s)[::-1]) for name, s in (("one", samples[0]), ("both", samples[0] - samples[1]))
    }
    assert samples.shape == (2, RESAMPLES)
    assert width["both"] < 0.6 * width["one"]


def test_seeing_the_same_images_again_is_no_more_evidence() -> None:
    hits = drawn(np.random.default_rng(0), (0.7, 0.5))
    once = interval(resampled_accuracies(BENCH, hits, ONCE)[0])
    often = interval(resampled_accuracies(BENCH, 40 * hits, 40 * ONCE)[0])
    assert np.allclose(once, often)


def test_domains_weigh_the_same_and_one_that_did_not_come_nothing() -> None:
    hits = np.concatenate([np.ones(N), np.zeros(N)])[None]
    visits = np.concatenate([np.full(N, 9.0), np.ones(N)])[None]
    assert np.allclose(resampled_accuracies(BENCH, 9 * hits, visits), 0.5)
    visits[:, N:] = 0.0
    assert np.allclose(resampled_accuracies(BENCH, 9 * hits, visits), 1.0)
