from __future__ import annotations

import numpy as np
import pytest

from adawise_lab.evaluate.references import best_path, lag_batches, path_error
from adawise_lab.evaluate.streams import share_of_second
from tests.lab.evaluate.building import a_bench, a_table

BEST = 0.75 * (1.0 - share_of_second())


@pytest.mark.parametrize("lag", [0, 1, 7, 30])
def test_a_path_that_follows_late_has_that_lag(lag: int) -> None:
    late = np.concatenate([np.full(lag, BEST[0]), BEST[: len(BEST) - lag]])
    rng = np.random.default_rng(lag)
    noisy = [late + rng.normal(0.0, 0.05, size=len(late)) for _ in range(5)]
    measured = lag_batches(noisy, BEST)
    assert measured is not None
    assert abs(measured - lag) <= 2  # of the noise


def test_a_path_that_does_not_follow_has_no_lag() -> None:
    rng = np.random.default_rng(0)
    assert lag_batches([np.full(len(BEST), 0.5)], BEST) is None
    assert lag_batches([rng.uniform(size=len(BEST))], BEST) is None
    assert lag_batches([BEST], np.full(len(BEST), 0.5)) is None


def test_the_error_of_a_path_is_its_mean_distance_over_all_seeds() -> None:
    assert path_error([BEST + 0.1, BEST - 0.3], BEST) == pytest.approx(0.2)


def test_the_best_path_goes_from_the_firsts_best_alpha_to_the_seconds_and_back() -> None:
    bench = a_bench(a_table("known", 0.8, images=400), a_table("new", 0.1, images=400))
    path = best_path(bench, ((0,), (1,)))
    ends = [bench.alphas[j] for j in bench.accuracy.argmax(axis=1)]
    assert (path[0], path[-1]) == (ends[0], ends[0])
    assert path[99:101].min() == pytest.approx(ends[1], abs=0.05)
    assert 0.2 < path[50] < 0.7
