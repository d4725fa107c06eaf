"""Intervals cover what they should, and are as wide as the images warrant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adawise_lab.evaluate.bench import Bench, Floats
from adawise_lab.evaluate.score import RESAMPLES, interval, resampled_accuracies
from tests.lab.evaluate.building import a_bench, a_table

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


def corrupted(*images: int) -> Bench:
    """Domains of so many images each, of the same photographs: the first of those of the largest domain."""
    largest = a_table("a", images=max(images), classes=4)
    return a_bench(*(replace(largest, name=f"a_{d}", labels=largest.labels[:n]) for d, n in enumerate(images)))


@pytest.mark.parametrize("correlation", [0.2, 0.8])
def test_one_photograph_under_six_corruptions_is_one_image_of_evidence(correlation: float) -> None:
    bench, covered, trials = corrupted(*[N] * 6), 0, 300
    for seed in range(trials):
        rng = np.random.default_rng((7, seed))
        common, own = rng.normal(size=(1, N)), rng.normal(size=(6, N))
        latent = np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own
        better = (latent > 1.0).astype(float) - (latent < -1.0)  # of an image at one alpha over another: -1, 0 or 1
        hits = np.stack([better > 0.0, better < 0.0]).reshape(2, -1).astype(float)
        samples = resampled_accuracies(bench, hits, np.ones_like(hits), seed=seed)
        low, high = interval(samples[0] - samples[1])
        covered += low <= 0.0 <= high
    assert 0.90 <= covered / trials <= 0.99  # 95 %, less for 60 images; 3 sd of 300 draws are 3.8 points


def test_an_image_that_was_left_out_of_some_domains_is_drawn_once_for_the_others() -> None:
    bench = corrupted(N, 20, 20)
    never = []
    for first in (0, 60, 80):  # the first photograph, in each domain
        hits = np.zeros((1, 100))
        hits[0, first] = 1.0
        never.append(resampled_accuracies(bench, hits, np.ones_like(hits))[0] == 0.0)
    assert 200 < never[0].sum() < 500
    assert np.array_equal(never[0], never[1])
    assert np.array_equal(never[0], never[2])


def test_domains_that_share_no_image_are_drawn_as_if_each_were_alone() -> None:
    hits = drawn(np.random.default_rng(3), (0.7, 0.5))
    both = resampled_accuracies(BENCH, hits, ONCE)[0]
    alone = resampled_accuracies(BENCH, hits, np.concatenate([ONCE[:, :N], 0 * ONCE[:, N:]], axis=1))[0]
    assert np.corrcoef(alone, 2 * both - alone)[0, 1] < 0.1
