from __future__ import annotations

import numpy as np
import pytest

from adawise_drift.changes.find import ALPHA, Change, Sensitivity, find_changes
from tests.drift.series import DAY_US, MINUTE_US, holding, times
from tests.drift.simulate import Path, served


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def one(changes: tuple[Change, ...]) -> Change:
    (change,) = changes
    return change


def test_a_step_is_found_with_its_time_its_size_and_where_it_may_lie(rng: np.random.Generator) -> None:
    alpha = np.repeat([0.3, 0.7], [300, 250]) + holding(rng, 550)
    change = one(find_changes(times(550), alpha))
    assert change.kind == "step"
    assert change.index == change.end_index == pytest.approx(300, abs=10)
    assert change.time_us == change.end_us == times(550)[change.index]
    assert (change.before, change.after, change.size) == pytest.approx((0.3, 0.7, 0.4), abs=0.05)
    assert change.interval_us[0] <= 300 * 10 * MINUTE_US <= change.interval_us[1]
    assert change.interval_us[1] - change.interval_us[0] < 150 * 10 * MINUTE_US


def test_a_search_that_only_wanders_is_no_change(rng: np.random.Generator) -> None:
    false = sum(len(find_changes(times(500), 0.5 + holding(rng, 500))) for _ in range(40))
    assert false <= 4  # .2 per 1,000 batches


def test_what_the_default_strategy_serves_is_read_rightly() -> None:
    rng = np.random.default_rng(3)
    optimum = np.repeat([0.25, 0.8], [180, 180])
    alpha = served(Path(times(360), optimum, ()), rng)
    assert np.count_nonzero(np.diff(alpha)) > 2  # it does not follow in one move
    change = one(find_changes(times(360), alpha))
    assert change.index == pytest.approx(180, abs=20)
    assert change.size == pytest.approx(0.55, abs=0.15)


def test_a_moment_elsewhere_is_no_change(rng: np.random.Generator) -> None:
    alpha = 0.5 + holding(rng, 400)
    alpha[200 : 200 + ALPHA.settle // 2] = 1.0
    assert find_changes(times(400), alpha) == ()


def test_what_is_smaller_than_what_matters_is_left_out(rng: np.random.Generator) -> None:
    level = np.repeat([0.40, 0.48], 5_000) + holding(rng, 10_000, sd=0.03)
    assert find_changes(times(10_000, 1.0), level, sensitivity=ALPHA) == ()
    fine = find_changes(times(10_000, 1.0), level, sensitivity=Sensitivity(0.05, 0.05, memory=1.0))
    assert one(fine).size == pytest.approx(0.08, abs=0.02)


def test_a_slow_move_is_one_ramp_not_a_staircase(rng: np.random.Generator) -> None:
    alpha = np.interp(np.arange(600), [150, 350], [0.2, 0.8]) + holding(rng, 600)
    change = one(find_changes(times(600), alpha))
    assert change.kind == "ramp"
    assert change.index == pytest.approx(150, abs=50)
    assert change.end_index == pytest.approx(350, abs=50)
    assert change.size == pytest.approx(0.6, abs=0.1)
    assert change.end_us > change.time_us


def test_day_and_night_are_no_change_and_a_step_on_top_of_them_is(rng: np.random.Generator) -> None:
    at = times(6 * 144)
    cycle = 0.2 * np.sin(2.0 * np.pi * at / DAY_US)
    alpha = 0.4 + cycle + holding(rng, len(at), hold=10.0)
    assert find_changes(at, alpha) == ()
    alpha[400:] += 0.3
    change = one(find_changes(at, alpha))
    assert change.index == pytest.approx(400, abs=40)
    assert change.size == pytest.approx(0.3, abs=0.08)


def test_silence_alone_is_no_change_and_a_change_across_it_spans_it(rng: np.random.Generator) -> None:
    at = times(500)
    at[250:] += 5 * DAY_US
    alpha = 0.4 + holding(rng, 500)
    assert find_changes(at, alpha) == ()
    alpha[250:] += 0.4
    change = one(find_changes(at, alpha))
    assert change.index == pytest.approx(250, abs=5)
    assert change.interval_us[0] < at[249] + MINUTE_US
    assert change.interval_us[1] >= at[250]


def test_values_that_are_not_finite_are_left_out_and_indices_count_them(rng: np.random.Generator) -> None:
    level = np.repeat([1.0, 2.0], 200) + rng.normal(0.0, 0.1, 400)
    level[:150] = np.nan
    level[300] = np.inf
    assert one(find_changes(times(400), level, sensitivity=Sensitivity(0.3, 0.3, memory=1.0))).index == pytest.approx(
        200, abs=2
    )
    assert find_changes(times(3), np.full(3, np.nan)) == ()


def test_means_of_many_batches_are_read_as_such(rng: np.random.Generator) -> None:
    alpha = np.repeat([0.3, 0.7], 600) + holding(rng, 1_200)
    means = alpha.reshape(-1, 20).mean(axis=1)
    change = one(find_changes(times(60, 200.0), means, batches=np.full(60, 20)))
    assert change.index == pytest.approx(30, abs=1)
    whole = one(find_changes(times(1_200), alpha))
    assert change.score == pytest.approx(whole.score, rel=0.5)


def test_a_long_series_is_cut_at_the_batch_although_it_is_searched_in_bins(rng: np.random.Generator) -> None:
    alpha = np.repeat([0.3, 0.6], [31_234, 28_766]) + rng.normal(0.0, 0.02, 60_000)
    assert one(find_changes(times(60_000, 1.0), alpha)).index == 31_234


@pytest.mark.parametrize("batches", [0, 1, 2, 20, 63])
def test_a_series_too_short_to_say_anything_has_no_changes(batches: int) -> None:
    assert find_changes(times(batches), np.linspace(0.0, 1.0, batches)) == ()


def test_a_series_that_never_moves_has_no_changes() -> None:
    assert find_changes(times(10_000), np.full(10_000, 0.5)) == ()


def test_a_jump_to_and_fro_gives_two_changes_in_order(rng: np.random.Generator) -> None:
    alpha = np.repeat([0.3, 0.8, 0.3], 200) + holding(rng, 600)
    first, second = find_changes(times(600), alpha)
    assert first.time_us < second.time_us
    assert first.size > 0 > second.size


def test_series_of_unequal_length_or_that_go_back_in_time_are_refused() -> None:
    with pytest.raises(ValueError, match="got 3 times, 2 values"):
        find_changes(times(3), np.zeros(2))
    with pytest.raises(ValueError, match="sort the series"):
        find_changes(times(3)[::-1], np.zeros(3))


def test_many_changes_of_a_short_series_do_not_hide_each_other_as_noise() -> None:
    served = [  # a day of a camera of `tools.drift.day`: alpha, batches
        *((0.0, 180), (0.4, 27), (1.0, 67), (0.0, 110), (1.0, 51), (0.0, 1), (0.85, 1), (0.5, 61), (0.0, 8)),
        *((0.35, 24), (0.0, 8), (1.0, 61), (0.6, 8), (0.1, 8), (0.0, 105)),
    ]
    found = find_changes(times(720, 2.0), np.repeat([alpha for alpha, _ in served], [n for _, n in served]))
    steps = [(change.index, round(change.after, 1)) for change in found]
    assert steps[-5:] == [(274, 0.0), (384, 1.0), (435, 0.4), (538, 1.0), (607, 0.0)]
