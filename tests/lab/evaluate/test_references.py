"""Fixed alphas and oracles, against what follows from the tables by counting."""

from __future__ import annotations

import numpy as np
import pytest

from adawise.adapt.objective import raw_entropy
from adawise_lab.evaluate import references as ref
from adawise_lab.evaluate.references import Came, Visits
from adawise_lab.evaluate.score import domain_accuracy, flicker, mean
from adawise_lab.evaluate.streams import make_streams
from tests.lab.evaluate.building import a_bench, a_plan, a_table, run_here

BENCH = a_bench(a_table("a", 0.1), a_table("b", 0.9), a_table("c", 0.5, classes=7))
EVERYTHING = np.ones(BENCH.starts[-1])


def test_visits_know_their_batches() -> None:
    visits = Visits.of(((np.array([4, 5]), np.array([6])), (np.array([0, 1, 2]),)))
    assert visits.ids.tolist() == [4, 5, 6, 0, 1, 2]
    assert visits.batch.tolist() == [0, 0, 1, 2, 2, 2]
    assert visits.follows.tolist() == [False, True, True, False, True, True]
    assert visits.batch_means(np.array([1.0, 3.0, 5.0, 1.0, 1.0, 4.0])).tolist() == [2.0, 5.0, 2.0]


@pytest.mark.parametrize("j", [0, 10, 20])
def test_a_fixed_alpha_serves_what_the_table_has_there(j: int) -> None:
    assert domain_accuracy(BENCH, ref.fixed(BENCH, EVERYTHING, j)) == pytest.approx(BENCH.accuracy[:, j])
    twice = ref.fixed(BENCH, 2 * EVERYTHING, j)
    assert twice.visits.sum() == 2 * EVERYTHING.sum()
    assert domain_accuracy(BENCH, twice) == pytest.approx(BENCH.accuracy[:, j])


def test_a_fixed_alpha_of_streams_flickers_as_its_predictions_change() -> None:
    seeds = [make_streams("stationary", "runs", BENCH.domains, seed=seed) for seed in range(2)]
    came = Came(BENCH, [Visits.of(streams) for streams in seeds])
    scored, alone = came.fixed(10), ref.fixed(BENCH, came.times, 10)
    for name in ("visits", "hits", "bins", "nll"):
        assert np.array_equal(getattr(scored, name), getattr(alone, name)), name
    pairs, changes = np.zeros(3), np.zeros(3)
    for d, stream in [each for streams in seeds for each in enumerate(streams)]:
        rows = np.concatenate(stream) - BENCH.starts[d]
        labels, predicted = BENCH.tables[d].labels[rows], BENCH.tables[d].logits[10, rows].argmax(axis=1)
        same = labels[1:] == labels[:-1]
        pairs[d] += same.sum()
        changes[d] += (same & (predicted[1:] != predicted[:-1])).sum()
    assert np.array_equal(flicker(scored), changes / pairs)
    assert 0.0 < mean(flicker(scored)) < 1.0


def test_best_fixed_is_best_of_the_mean_over_the_domains_that_came() -> None:
    best = ref.best_fixed((BENCH, EVERYTHING))
    means = BENCH.accuracy.mean(axis=0)
    assert means[best] == means.max()
    only_first = np.where(BENCH.domain_of == 0, 1.0, 0.0)
    assert BENCH.accuracy[0, ref.best_fixed((BENCH, only_first))] == BENCH.accuracy[0].max()
    half = np.where(np.arange(len(EVERYTHING)) % 2, EVERYTHING, 0.0)
    assert ref.best_fixed((BENCH, half), (BENCH, EVERYTHING - half)) == best
    # domains weigh the same however often they came
    assert ref.best_fixed((BENCH, np.where(BENCH.domain_of == 0, 50.0, 1.0))) == best


def test_the_domain_oracle_is_no_worse_than_any_fixed_alpha_on_any_domain() -> None:
    oracle = domain_accuracy(BENCH, ref.fixed(BENCH, EVERYTHING, ref.domain_oracle(BENCH)))
    assert oracle == pytest.approx(BENCH.accuracy.max(axis=1))


def test_the_split_half_oracle_does_not_profit_from_noise() -> None:
    """Alphas that differ by chance alone: the oracle finds one that is better on these images, and it is not."""
    rng = np.random.default_rng(0)
    table = a_table("noise", images=100, depth=0.0)
    logits = table.logits + rng.normal(0.0, 3.0, size=table.logits.shape).astype(np.float32)
    noise = a_bench(type(table)("noise", logits, table.labels, table.alphas, table.class_names))
    assert noise.accuracy.max() > noise.accuracy.mean() + 0.05
    assert abs(ref.split_half(noise).mean() - noise.accuracy.mean()) < 0.025
    assert (ref.split_half(BENCH) <= 1.0).all()


def test_the_split_half_oracle_finds_what_is_there() -> None:
    plain = a_bench(a_table("plain", 0.3, images=400, depth=12.0))
    assert ref.split_half(plain).mean() > plain.accuracy.max() - 0.03


def test_the_batch_oracle_takes_the_best_of_each_batch() -> None:
    visits = Visits.of(make_streams("short", "iid", BENCH.domains, seed=0))
    index = ref.batch_oracle(BENCH, visits)
    correct = BENCH.quality.correct
    for batch in range(36):
        mine = visits.batch == batch
        of_all = correct[:, visits.ids[mine]].mean(axis=1)
        assert set(index[mine]) == {int(of_all.argmax())}
    served = ref.served_at(BENCH, visits, index, 21.0)
    assert mean(domain_accuracy(BENCH, served)) >= BENCH.accuracy.max(axis=1).mean() - 1e-9
    assert served.forwards.sum() == 21.0 * len(visits.ids)


@pytest.mark.parametrize("order", ["iid", "runs"])
def test_the_grid_without_a_search_serves_what_the_strategy_grid_serves(order: str) -> None:
    plan = a_plan("grid", orders=[order])
    (searched,) = run_here(BENCH, plan)
    visits = Visits.of(plan.streams(BENCH, "short", order, 0))
    index = ref.grid_batch(BENCH, visits, BENCH.values(raw_entropy), plan.candidates[0].exploration.min_images)
    assert np.asarray(BENCH.alphas)[index[::32]].tolist() == searched.path.alpha
    scored = ref.served_at(BENCH, visits, index, 21.0)
    for name in ("visits", "hits", "forwards"):
        assert np.array_equal(getattr(scored, name), getattr(searched.score, name)), name
    assert scored.nll == pytest.approx(searched.score.nll, rel=1e-6)
