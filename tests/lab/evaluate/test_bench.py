"""The bench: what is looked up is what would have been computed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt.objective import Objective, Values, calibrated_entropy, raw_entropy
from adawise_lab.evaluate.bench import Bench, Replayed, quality
from tests.lab.evaluate.building import a_bench, a_table

TABLES = (a_table("a", 0.2), a_table("b", 0.9, classes=7), a_table("c", 0.5, images=50))


def test_quality_is_the_accuracy_confidence_and_nll_of_the_softmax() -> None:
    worth = quality(torch.tensor([[0.0, math.log(3.0)], [0.0, 2 * math.log(3.0)]]), torch.tensor([1, 0]), torch.ones(2))
    assert worth.correct.tolist() == [True, False]
    assert np.allclose(worth.confidence, [0.75, 0.9])
    assert np.allclose(worth.nll, [-math.log(0.75), -math.log(0.1)])
    cooler = quality(torch.tensor([[0.0, 2 * math.log(3.0)]]), torch.tensor([1]), torch.tensor([2.0]))
    assert np.allclose(cooler.confidence, [0.75])


def test_domains_of_the_same_classes_share_a_block_and_others_do_not() -> None:
    bench = a_bench(*TABLES)
    assert bench.vocabularies == (0, 1, 0)
    assert [tuple(block.shape) for block in bench.blocks] == [(21, 146, 10), (21, 96, 7)]
    for table, first, v in zip(bench.tables, bench.starts, bench.vocabularies, strict=False):
        rows = bench.row_of[first : first + len(table)]
        assert torch.equal(bench.blocks[v][:, torch.from_numpy(rows)], torch.from_numpy(table.logits))


def test_domains_are_of_the_same_images_where_their_labels_are_the_same_from_the_first_on() -> None:
    clean, part = a_table("yard_clean"), slice(40)
    fog = replace(a_table("yard_fog2"), labels=clean.labels)
    few = replace(a_table("yard_few"), labels=clean.labels[part], logits=clean.logits[:, part])
    named = replace(fog, name="b", class_names=tuple(f"{name}!" for name in clean.class_names))
    other = a_table("gate_clean")
    assert a_bench(few, clean, named, other, fog).sharing == ((1, 4, 0), (2,), (3,))


def test_accuracy_is_that_of_each_domain_at_each_alpha() -> None:
    bench = a_bench(*TABLES)
    for d, table in enumerate(TABLES):
        for j in (0, 7, 20):
            assert bench.accuracy[d, j] == (table.logits[j].argmax(axis=1) == table.labels).mean()
    low, high, _ = bench.accuracy
    assert low[4] > low[18] + 0.3  # best at .2, at .9
    assert high[18] > high[4] + 0.3


def test_temperatures_change_confidence_and_not_who_is_right() -> None:
    cold, warm = Bench(TABLES, (1.0,) * 21), Bench(TABLES, (4.0,) * 21)
    assert (cold.quality.correct == warm.quality.correct).all()
    assert (cold.quality.confidence > warm.quality.confidence).all()


@pytest.mark.parametrize("objective", [raw_entropy, calibrated_entropy([0.5 + j / 20 for j in range(21)])])
@pytest.mark.parametrize("classes", [2, 7, 100])
def test_an_objective_is_looked_up_with_the_bits_that_computing_it_gives(objective: Objective, classes: int) -> None:
    bench = a_bench(a_table("a", classes=classes, images=200))
    computed: list[int] = []

    def counted(logits: Tensor, index: int) -> Values:
        computed.append(len(logits))
        return objective(logits, index)

    replayed = Replayed(bench.blocks, counted, bench.values(objective))
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 8, 13, 32, 33):
        rows = torch.from_numpy(rng.permutation(200)[:n])
        index = int(rng.integers(21))
        z = replayed.logits(index, rows)
        assert torch.equal(z, bench.blocks[0][index][rows])
        assert replayed.objective(z, index).tobytes() == objective(z.clone(), index).tobytes()
        for part in torch.split(replayed.logits(index, rows, rows), [n, n]):
            assert replayed.objective(part, index).tobytes() == objective(z.clone(), index).tobytes()
    assert computed == []


def test_what_did_not_come_from_the_table_is_computed() -> None:
    bench = a_bench(*TABLES)
    wrong = tuple(np.full((21, block.shape[1]), np.nan) for block in bench.blocks)
    replayed = Replayed(bench.blocks, raw_entropy, wrong)
    rows = torch.arange(8)
    z = replayed.logits(3, rows)
    assert np.isnan(replayed.objective(z, 3)).all()  # looked up
    for other in (z.clone(), z + 1.0, z.double(), z[::2], z[:, :5]):
        assert np.array_equal(replayed.objective(other, 3), raw_entropy(other, 3))
    assert np.array_equal(replayed.objective(z, 4), raw_entropy(z, 4))  # of another alpha
    replayed.turn_to(1)
    assert replayed.logits(3, rows).shape == (8, 7)
    assert np.array_equal(replayed.objective(z, 3), raw_entropy(z, 3))  # of another batch
