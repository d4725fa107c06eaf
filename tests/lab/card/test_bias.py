"""The bias that late labels say an objective has: as the closed form has it, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from adawise.adapt.surrogate import Surrogate
from adawise_lab.card.bias import BiasModel, LabelledCondition

GRID = tuple(j / 20 for j in range(21))
K = 0.33
MODEL = BiasModel(GRID, K)

Floats = npt.NDArray[np.float64]


def conditions(
    error: Sequence[Floats], objective: Sequence[Floats], *, images: int = 25, seed: int = 0, alike: int = 1
) -> list[LabelledCondition]:
    """Images of as many conditions, wrong at each alpha as often as `error` `[G]` says, the same ones as far as may be.

    A harder image is wrong wherever an easier one is. So many are `alike`, of one batch.
    """
    rng = np.random.default_rng(seed)
    made = []
    for d, (errors, values) in enumerate(zip(error, objective, strict=True)):
        batch = np.arange(images) // alike
        hard = rng.uniform(size=(images, 1))[batch]
        spread = 0.3 * rng.normal(size=(images, 1))[batch]
        made.append(LabelledCondition(f"camera {d}", values + spread, (hard < errors).astype(float), batch))
    return made


def slopes(seed: int, count: int = 8) -> list[Floats]:
    """Mean objectives, nats: some conditions are better fine-tuned, others zero-shot."""
    a = np.asarray(GRID)
    return [1.5 + s * (a - 0.5) for s in np.random.default_rng(seed).uniform(-0.6, 0.6, size=count)]


def sound(
    seed: int, bias: Floats | float = 0.0, images: int = 25, count: int = 8, alike: int = 1
) -> list[LabelledCondition]:
    """Errors go as the objective does, and a bias of accuracy besides."""
    objective = slopes(seed, count)
    return conditions([0.4 + K * (v - 1.5) + bias for v in objective], objective, images=images, seed=seed, alike=alike)


def dense(labelled: Sequence[LabelledCondition], common: float, own: float) -> tuple[float, Floats, Floats]:
    """Log density of all means at once without their levels, and mean and covariance of the bias: one large matrix."""
    G, D = len(GRID), len(labelled)
    K_ = Surrogate(GRID, signal_sd=1.0).covariance
    Q = np.linalg.qr(np.column_stack([np.ones(G), np.eye(G)[:, :-1]]))[0][:, 1:]  # another basis than the program's
    residual = [one.wrong - K * one.objective for one in labelled]
    z = np.concatenate([Q.T @ r.mean(axis=0) for r in residual])
    covariance = np.kron(np.ones((D, D)), common**2 * Q.T @ K_ @ Q)
    for d, r in enumerate(residual):
        at = slice(d * (G - 1), (d + 1) * (G - 1))
        batch = labelled[d].batches
        B, sizes = len(set(batch)), np.bincount(batch)
        sums = np.stack([(r[batch == b] - r.mean(axis=0)).sum(axis=0) for b in range(B)])
        noise = (np.cov(sums, rowvar=False) * B + 0.022 * (sizes**2).sum() * np.eye(G)) / len(r) ** 2
        if len(r) == B:
            np.testing.assert_allclose(noise, (np.cov(r, rowvar=False) + 0.022 * np.eye(G)) / len(r), atol=1e-12)
        covariance[at, at] += Q.T @ (own**2 * K_ + noise) @ Q
    cross = np.tile(common**2 * Q.T @ K_ @ Q, D)  # of delta with the means
    solved = np.linalg.solve(covariance, z)
    density = -0.5 * z @ solved - 0.5 * np.linalg.slogdet(covariance)[1]
    posterior = common**2 * Q.T @ K_ @ Q - cross @ np.linalg.solve(covariance, cross.T)
    return float(density), Q @ (cross @ solved) / K, Q @ posterior @ Q.T / K**2


@pytest.mark.parametrize(("seed", "alike"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_it_is_what_one_large_gaussian_has(seed: int, alike: int) -> None:
    labelled = sound(seed, 0.1 * (np.asarray(GRID) - 0.5), images=12 + seed, count=5 + seed, alike=alike)
    found = MODEL.estimate(labelled)
    by_sds = {
        (common, own): dense(labelled, common, own) for common in (0.0, 0.02, 0.05, 0.1, 0.2) for own in (0.05, 0.1)
    }
    best = max(by_sds, key=lambda sds: by_sds[sds][0])
    without = max(density for (common, _), (density, _, _) in by_sds.items() if common == 0.0)
    assert (found.common_sd, found.own_sd) == best
    density, nats, covariance = by_sds[best]
    assert found.evidence == pytest.approx(density - without, abs=1e-6)
    np.testing.assert_allclose(found.nats, nats, atol=1e-8)
    np.testing.assert_allclose(found.sd, np.sqrt(np.maximum(np.diagonal(covariance), 0.0)), atol=1e-6)


def test_a_bias_that_all_conditions_have_is_found_and_rather_too_small_than_too_large() -> None:
    """An objective that prefers fine-tuned weights by a nat too much."""
    true = 1.0 * (np.asarray(GRID) - 0.5)
    found = [MODEL.estimate(sound(seed, K * true, images=40)) for seed in range(12)]
    assert all(one.is_clear for one in found)
    assert all(one.nats.mean() == pytest.approx(0.0, abs=1e-12) for one in found)
    shares = [one.nats[[0, -1]] / true[[0, -1]] for one in found]
    assert 0.5 < np.mean(shares) < 1.0
    assert np.std(shares) < 0.2


def test_labels_of_a_sound_objective_rarely_speak_against_it() -> None:
    found = [MODEL.estimate(sound(seed, images=13)) for seed in range(60)]
    assert np.mean([one.is_clear for one in found]) < 0.1
    assert any(one.common_sd == 0.0 for one in found)
    none = next(one for one in found if one.common_sd == 0.0)
    assert (none.evidence, none.nats.tolist(), none.sd.tolist()) == (0.0, [0.0] * 21, [0.0] * 21)
    assert not none.is_clear


def test_images_of_one_batch_are_no_more_evidence_than_they_are() -> None:
    """Ten like each are nearly as little as one."""
    bias = 0.15 * (np.asarray(GRID) - 0.5)
    once = [MODEL.estimate(sound(seed, bias, images=10)).evidence for seed in range(20)]
    ten_times = [MODEL.estimate(sound(seed, bias, images=100, alike=10)).evidence for seed in range(20)]
    gaps = [MODEL.estimate(sound(seed, bias, images=100)).evidence for seed in range(20)]
    assert np.mean(ten_times) == pytest.approx(np.mean(once), abs=1.0)
    assert np.mean(gaps) > np.mean(ten_times) + 2.0


def test_the_level_of_a_condition_says_nothing() -> None:
    labelled = sound(0, 0.2 * np.asarray(GRID))
    lifted = [
        LabelledCondition(one.name, one.objective + 7.0 * d, one.wrong, one.batches)
        for d, one in enumerate(labelled, start=1)
    ]
    one, other = MODEL.estimate(labelled), MODEL.estimate(lifted)
    np.testing.assert_allclose(one.nats, other.nats, atol=1e-9)
    assert one.evidence == pytest.approx(other.evidence, abs=1e-6)


def test_conditions_that_differ_have_no_bias_in_common() -> None:
    """Half of them would have it higher, the others lower: with labels without end nothing is common."""
    a = np.asarray(GRID) - 0.5
    objective = slopes(3)
    errors = [0.4 + K * (v - 1.5) + (0.2 if d % 2 else -0.2) * a for d, v in enumerate(objective)]
    assert not MODEL.estimate(conditions(errors, objective, images=2000)).is_clear


def test_a_condition_is_judged_without_its_own_labels() -> None:
    """One of five has many labels, by which it would be the other end that is right."""
    a = np.asarray(GRID) - 0.5
    odd = sound(7, -2.0 * K * a, images=200, count=1)[0]
    labelled = [odd, *sound(1, 0.5 * K * a, images=10, count=4)]
    choices = MODEL.cross_fitted(labelled)
    for i, (one, choice) in enumerate(zip(labelled, choices, strict=True)):
        mean = one.objective.mean(axis=0)
        others = MODEL.estimate([*labelled[:i], *labelled[i + 1 :]]).nats
        at = int(mean.argmin()), int((mean + others).argmin())
        assert choice.alphas == (GRID[at[0]], GRID[at[1]])
        assert (choice.condition, choice.images) == (one.name, len(one))
        assert choice.right == tuple(len(one) - int(one.wrong[:, j].sum()) for j in at)
    every = MODEL.estimate(labelled).nats
    assert (odd.objective.mean(axis=0) + every).argmin() != GRID.index(choices[0].alphas[1])


def test_a_grid_of_few_alphas_and_images_that_are_all_right_are_no_trouble() -> None:
    few = BiasModel((0.0, 0.5, 1.0), K)
    always = [LabelledCondition(f"{d}", np.full((8, 3), 0.5), np.zeros((8, 3)), np.arange(8)) for d in range(5)]
    found = few.estimate(always)
    assert (found.evidence, found.is_clear) == (0.0, False)
    assert np.isfinite(found.nats).all()
