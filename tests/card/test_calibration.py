from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt.objective import tsallis
from adawise.card.calibration import calibration_error, fit_temperature, serving_ratio, temperature_interval

Labelled = tuple[Callable[[int], Tensor], Tensor]  # logits of an alpha by its index, labels


def sample(n: int, temperature: float, *, classes: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits `[n, C]` whose softmax at `temperature` is the law that the labels `[n]` were drawn from."""
    generator = torch.Generator().manual_seed(seed)
    calibrated = 2.0 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(calibrated.softmax(dim=-1), 1, generator=generator).flatten()
    return calibrated * temperature, labels


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0, 10.0])
def test_the_temperature_that_made_the_labels_is_found_again(temperature: float) -> None:
    logits, labels = sample(20_000, temperature)
    assert math.isclose(fit_temperature(logits, labels), temperature, rel_tol=0.03)  # 20,000 labels: sd about 1 %


@pytest.mark.parametrize("n", [100, 1000])
def test_the_interval_of_a_temperature_holds_it_nineteen_times_in_twenty(n: int) -> None:
    widths, held = [], 0
    for seed in range(200):
        logits, labels = sample(n, 1.5, seed=seed)
        low, high = temperature_interval(logits, labels, fit_temperature(logits, labels))
        held += low <= 1.5 <= high
        widths.append(high - low)
    assert 180 <= held <= 197  # 95 %: 190, sd 3
    assert sum(widths) / 200 == pytest.approx(7.0 / math.sqrt(n), rel=0.1)


def test_samples_that_are_fitted_together_weigh_the_same() -> None:
    many, few = sample(4000, 1.0), sample(400, 2.0, seed=1)
    together = fit_temperature(*many, few)
    assert together == pytest.approx(fit_temperature(*few, many), rel=1e-6)
    assert fit_temperature(*many) * 1.1 < together < fit_temperature(*few) / 1.1


def test_no_neighbouring_temperature_has_a_lower_loss() -> None:
    logits, labels = sample(300, 2.0)
    best = fit_temperature(logits, labels)
    losses = [float(torch.nn.functional.cross_entropy(logits / T, labels)) for T in (best, best * 1.02, best / 1.02)]
    assert losses[0] == min(losses)


def test_a_sample_that_any_temperature_separates_stops_at_the_lowest() -> None:
    labels = torch.tensor([0, 1, 2])
    separated = torch.eye(3, dtype=torch.float64)
    lowest = fit_temperature(separated, labels)
    assert math.isclose(lowest, 0.05, rel_tol=1e-3)
    assert temperature_interval(separated, labels, lowest) == (0.05, 20.0), "three right answers tell nothing"


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    p = torch.tensor([[0.9, 0.1]] * 10)
    assert math.isclose(calibration_error(p, torch.tensor([0] * 9 + [1])), 0.0, abs_tol=1e-6)
    assert math.isclose(calibration_error(p, torch.tensor([0] * 4 + [1] * 6)), 0.5, abs_tol=1e-6)
    # two bins, of which one is right, weighted by their images: 3/4 * 0 + 1/4 * .6
    mixed = torch.cat([torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[0.4, 0.6]])])
    assert math.isclose(calibration_error(mixed, torch.tensor([0, 0, 0, 0])), 0.15, abs_tol=1e-6)


def test_gaps_of_opposite_sign_cancel_within_a_bin_and_not_between_bins() -> None:
    one_bin = torch.tensor([[0.81, 0.19], [0.81, 0.19]])
    assert math.isclose(calibration_error(one_bin, torch.tensor([0, 1])), 0.31, abs_tol=1e-6)
    two_bins = torch.tensor([[0.61, 0.39], [0.99, 0.01]])
    assert math.isclose(calibration_error(two_bins, torch.tensor([0, 1])), (0.39 + 0.99) / 2, abs_tol=1e-6)


def ends(rights: tuple[float, float, float], sure: tuple[float, float, float], seed: int) -> Labelled:
    """Images that so many are right on at each of three alphas, with logits as large as `sure`, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (600,), generator=generator)
    luck = torch.rand(600, generator=generator)
    noise = 0.2 * torch.randn(600, 4, generator=generator)

    def logits(j: int) -> Tensor:
        named = torch.where(luck < rights[j], labels, (labels + 1) % 4)
        return torch.nn.functional.one_hot(named, 4) * sure[j] + noise

    return logits, labels


KNOWN = ends((0.5, 0.7, 0.8), (3.0, 5.0, 7.0), 1)


@pytest.mark.parametrize("sure_of_the_unknown", [3.5, 5.0])
def test_the_ratio_of_temperatures_lets_each_end_be_chosen_where_it_is_right(sure_of_the_unknown: float) -> None:
    unknown = ends((0.8, 0.6, 0.3), (3.0, 0.5 * (3.0 + sure_of_the_unknown), sure_of_the_unknown), 2)
    alphas = (0.0, 0.5, 1.0)
    ratio = serving_ratio([KNOWN, unknown], alphas, 1.0)
    assert ratio is not None

    def chosen(condition: Labelled, ratio: float) -> int:
        return int(np.argmin([tsallis(condition[0](j).double() / ratio ** alphas[j], j).mean() for j in range(3)]))

    assert chosen(unknown, 1.0) == 2, "at one temperature for all, sure is taken for right"
    assert (chosen(KNOWN, ratio), chosen(unknown, ratio)) == (2, 0)


def test_of_ratios_that_serve_alike_it_is_the_one_that_tells_both_kinds_of_condition_apart_by_as_much() -> None:
    two_alphas, grid = (0.0, 1.0), np.arange(-0.2, 2.01, 0.01)
    conditions = [ends((0.5, 0.8, 0.8), (3.0, 9.0, 9.0), 1), ends((0.8, 0.3, 0.3), (4.0, 4.0, 4.0), 2)]

    def margins(ratio: float) -> tuple[float, float]:
        values = [[tsallis(z(j).double() / ratio**j, j).mean() for j in (0, 1)] for z, _ in conditions]
        (known_0, known_1), (unknown_0, unknown_1) = values
        return known_0 - known_1, unknown_1 - unknown_0

    ratio = serving_ratio(conditions, two_alphas, 1.0)
    assert ratio is not None
    right = [log_ratio for log_ratio in grid if min(margins(np.exp(log_ratio))) > 0.02]
    assert right[0] < right[-1] - 0.3, "many ratios serve alike"
    assert min(margins(ratio)) >= max(min(margins(np.exp(log_ratio))) for log_ratio in right) - 0.05
    middle = np.exp((right[0] + right[-1]) / 2)
    assert min(margins(ratio)) > min(margins(middle)) + 0.02


def test_no_ratio_is_told_where_one_end_is_better_in_all_conditions_or_the_ends_are_alike() -> None:
    alike = ends((0.6, 0.6, 0.61), (3.0, 3.0, 3.0), 3)
    assert serving_ratio([KNOWN], (0.0, 0.5, 1.0), 1.0) is None
    assert serving_ratio([KNOWN, alike], (0.0, 0.5, 1.0), 1.0) is None


def test_a_few_images_decide_no_ratio() -> None:
    logits, labels = ends((0.8, 0.6, 0.3), (3.0, 3.2, 3.5), 2)

    def first(n: int) -> Labelled:
        return (lambda j: logits(j)[:n]), labels[:n]

    assert serving_ratio([KNOWN, first(60)], (0.0, 0.5, 1.0), 1.0) is None
    assert serving_ratio([KNOWN, first(60), first(60)], (0.0, 0.5, 1.0), 1.0) is not None
