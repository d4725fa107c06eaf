from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.names import WithoutCard
from adawise.adapt.objective import (
    NO_CARD,
    Objective,
    atc,
    calibrated_entropy,
    entropy,
    raw_entropy,
    relative,
    reliable,
    tsallis,
)

rows = st.lists(st.floats(-50.0, 50.0), min_size=2, max_size=12)


def test_the_entropy_of_equal_logits_is_ln_c_and_of_a_certain_answer_0() -> None:
    logits = torch.tensor([[3.0, 3.0, 3.0, 3.0], [500.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(entropy(logits), [math.log(4), 0.0], atol=1e-12)


def test_the_entropy_of_two_outcomes_is_the_textbooks() -> None:
    p = 0.2
    expected = -p * math.log(p) - (1 - p) * math.log(1 - p)
    logits = torch.tensor([[math.log(p), math.log(1 - p)]], dtype=torch.float64)
    np.testing.assert_allclose(entropy(logits), [expected], atol=1e-14)


@given(rows, st.floats(-100.0, 100.0), st.floats(0.1, 10.0))
def test_entropy_lies_between_0_and_ln_c_and_ignores_a_common_shift(
    row: list[float], shift: float, temperature: float
) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    (value,) = entropy(logits, temperature)
    assert -1e-9 <= value <= math.log(len(row)) + 1e-9
    np.testing.assert_allclose(entropy(logits + shift, temperature), [value], atol=1e-9)


@given(rows, st.floats(1.1, 10.0))
def test_a_higher_temperature_never_lowers_entropy(row: list[float], temperature: float) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    assert entropy(logits, temperature)[0] >= entropy(logits)[0] - 1e-9


def test_float32_logits_are_judged_in_double() -> None:
    logits = torch.randn(5, 10)
    assert entropy(logits).dtype == np.float64
    np.testing.assert_array_equal(entropy(logits), entropy(logits.double()))


def test_the_tsallis_entropy_of_two_outcomes_is_its_formula_and_of_a_certain_answer_0() -> None:
    p = 0.2
    logits = torch.tensor([[math.log(p), math.log(1 - p)], [0.0, 500.0]], dtype=torch.float64)
    np.testing.assert_allclose(tsallis(logits, 0), [8 / 3 * (1 - p**4 - (1 - p) ** 4), 0.0], atol=1e-14)


@given(rows, st.floats(-100.0, 100.0))
def test_tsallis_lies_between_0_and_8_thirds_whatever_the_alpha_and_ignores_a_common_shift(
    row: list[float], shift: float
) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    (value,) = tsallis(logits, 3)
    assert -1e-12 <= value <= 8 / 3
    np.testing.assert_allclose(tsallis(logits + shift, 7), [value], atol=1e-9)


def test_a_doubt_about_many_classes_weighs_less_in_tsallis_than_a_doubt_between_two() -> None:
    """What sets it apart from Shannon's entropy: there it is the other way round."""
    tail = torch.cat([torch.tensor([math.log(0.7)]), torch.full((300,), math.log(0.001))])[None]
    pair = torch.tensor([[math.log(0.6), math.log(0.4)]])
    assert tsallis(tail, 0)[0] < tsallis(pair, 0)[0]
    assert entropy(tail)[0] > entropy(pair)[0]


def test_the_objectives_that_need_no_card_are_those_that_the_settings_take_without_one() -> None:
    assert NO_CARD.keys() == set(get_args(WithoutCard))


@pytest.mark.parametrize("objective", NO_CARD.values(), ids=list(NO_CARD))
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_give_nan_for_their_image_alone(broken: float, objective: Objective) -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [1.0, broken, 3.0]])
    values = objective(logits, 0)
    assert np.isfinite(values[0])
    assert np.isnan(values[1])


def test_the_raw_objective_does_not_know_alpha_and_the_calibrated_takes_its_temperature() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)) * 3
    calibrated = calibrated_entropy((1.0, 2.0, 0.5))
    for index, temperature in enumerate((1.0, 2.0, 0.5)):
        np.testing.assert_array_equal(raw_entropy(logits, index), entropy(logits))
        np.testing.assert_array_equal(calibrated(logits, index), entropy(logits / temperature))


@pytest.mark.parametrize(("rows_", "classes"), [(1, 2), (32, 100), (7, 1000)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.3])
def test_the_quick_form_of_entropy_is_the_plain_one_bit_by_bit(
    rows_: int, classes: int, dtype: torch.dtype, temperature: float
) -> None:
    logits = (6.0 * torch.randn(rows_, classes, generator=torch.Generator().manual_seed(2))).to(dtype)
    log_p = (logits.double() / temperature).log_softmax(dim=-1)
    np.testing.assert_array_equal(entropy(logits, temperature), -(log_p.exp() * log_p).sum(dim=-1).numpy())


def test_relative_forgives_an_alpha_half_of_what_it_is_less_sure_on_the_cards_sample() -> None:
    sharp, blunt = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    references = [float(entropy(z)[0]) for z in (sharp, blunt)]
    objective = relative((1.0, 1.0), references)
    at_sharp, at_blunt = float(objective(sharp, 0)[0]), float(objective(blunt, 1)[0])
    assert at_blunt / at_sharp == pytest.approx((references[1] / references[0]) ** 0.5)
    assert at_sharp * at_blunt == pytest.approx((sum(references) / 2) * (references[0] * references[1]) ** 0.5)
    # of two alphas that are equally unsure here, the one that is elsewhere surer is the worse
    assert objective(blunt, 0) > objective(blunt, 1)


def test_relative_takes_its_alphas_temperature_and_bears_a_reference_of_zero() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    values = relative((2.0, 3.0), (0.5, 0.5))(logits, 1)
    np.testing.assert_allclose(values, entropy(logits, 3.0))
    assert np.isfinite(relative((1.0, 1.0), (0.0, 0.4))(logits, 0)).all()


def test_atc_counts_the_images_above_the_threshold_of_their_alpha() -> None:
    logits = torch.tensor([[9.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    values = entropy(logits)
    objective = atc((1.0, 1.0), (float(values[0]), float(values[1])))
    np.testing.assert_array_equal(objective(logits, 0), [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(objective(logits, 1), [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(atc((0.1, 1.0), (0.01, 0.0))(logits, 0), [0.0, 0.0, 1.0])  # at its temperature


def test_reliable_keeps_the_images_that_are_sure_in_the_mean_of_all_alphas() -> None:
    classes = 10
    margin = 0.4 * math.log(classes)
    at_a = np.array([0.0, margin + 0.3, margin + 0.3, margin - 0.01])
    at_b = np.array([0.0, margin - 0.5, margin + 0.3, margin - 0.01])
    np.testing.assert_array_equal(reliable([at_a, at_b], classes, 1), [True, True, False, True])


def test_all_images_count_if_fewer_than_the_minimum_are_reliable() -> None:
    values = np.array([0.0, 2.0, 2.0, 2.0])
    np.testing.assert_array_equal(reliable([values], 10, 1), [True, False, False, False])
    np.testing.assert_array_equal(reliable([values], 10, 2), [True, True, True, True])
