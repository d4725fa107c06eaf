from __future__ import annotations

import numpy as np
import pytest

from adawise_drift.changes.find import daily_cycle, daily_profile
from tests.drift.series import DAY_US, holding, times

AT = times(6 * 144)
NIGHT = ((AT % DAY_US) > 0.7 * DAY_US).astype(np.float64)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_night_that_returns_is_found_although_it_is_no_sine(rng: np.random.Generator) -> None:
    found = daily_cycle(AT, 0.5 - 0.3 * NIGHT + holding(rng, len(AT), sd=0.03), least=0.2)
    assert found[NIGHT > 0].mean() - found[NIGHT == 0].mean() == pytest.approx(-0.3, abs=0.06)
    assert found.mean() == pytest.approx(0.0, abs=0.01)


def test_a_step_and_a_ramp_leave_no_cycle_behind(rng: np.random.Generator) -> None:
    noise = holding(rng, len(AT), sd=0.03)
    for path in (np.where(np.arange(len(AT)) < 400, 0.2, 0.8), np.linspace(0.1, 0.9, len(AT))):
        assert daily_profile(AT, path + noise, least=0.2) is None


def test_noise_has_no_cycle(rng: np.random.Generator) -> None:
    found = [daily_profile(AT, holding(rng, len(AT)), least=0.2) for _ in range(50)]
    assert sum(profile is not None for profile in found) <= 1


def test_one_night_is_no_cycle() -> None:
    assert daily_profile(AT[:200], 0.3 * NIGHT[:200], least=0.2) is None


def test_a_cycle_is_in_the_hours_of_the_day_whenever_the_series_begins_and_however_long_it_is_silent() -> None:
    later = AT + 5 * DAY_US // 24
    later[400:] += 3 * DAY_US
    hour = later % DAY_US // (DAY_US // 24)
    profile = daily_profile(later, np.where(hour == 3, 1.0, 0.0), least=0.2)
    assert profile is not None
    assert int(np.argmax(profile)) == 3
    assert np.delete(profile, 3) == pytest.approx(-profile[3] / 23, abs=0.02)


def test_a_cycle_that_ends_is_taken_out_where_it_was_alone(rng: np.random.Generator) -> None:
    at = times(24 * 6 * 120)  # 120 days
    night = np.where((at // 3_600_000_000) % 24 < 12, 0.15, -0.15)
    there = at - at[0] < 50 * 86_400_000_000  # in the middle of a month
    cycle = daily_cycle(at, 0.5 + np.where(there, night, 0.0) + rng.normal(0.0, 0.03, len(at)), least=0.2)
    np.testing.assert_allclose(np.abs(cycle[there]).mean(), 0.15, atol=0.03)
    assert np.abs(cycle[at - at[0] > 51 * 86_400_000_000]).max() < 0.01
