"""Order and rate are functions of the seed and the place, so that nothing of them has to be kept."""

from __future__ import annotations

from collections import Counter

import pytest

from adawise_lab.finetune.recipe import Recipe


def test_an_epoch_shows_each_image_at_most_once_in_full_updates() -> None:
    recipe = Recipe(batch_images=4, accumulate=2)
    updates = list(recipe.order(1, range(27)))
    assert len(updates) == recipe.updates(27) == 3
    assert [len(batch) for batches in updates for batch in batches] == [4] * 6
    shown = [i for batches in updates for batch in batches for i in batch]
    assert len(set(shown)) == 24
    assert set(shown) <= set(range(27))


def test_fewer_images_than_an_update_wants_make_one_update_of_all() -> None:
    (batches,) = Recipe(batch_images=4, accumulate=8).order(1, range(10))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(i for batch in batches for i in batch) == list(range(10))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    recipe = Recipe(batch_images=8)
    assert list(recipe.order(2, range(64))) == list(recipe.order(2, range(64)))
    assert list(recipe.order(2, range(64))) != list(recipe.order(3, range(64)))
    assert list(recipe.order(2, range(64))) != list(Recipe(batch_images=8, seed=1).order(2, range(64)))


def test_the_rate_rises_to_the_highest_and_falls_to_nothing() -> None:
    recipe = Recipe(learning_rate=1.0, warmup=0.2)
    rates = [recipe.rate(update, 100) for update in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[19] == rates[20] == 1.0
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_a_run_of_one_update_has_a_rate(warmup: float) -> None:
    assert Recipe(learning_rate=1.0, warmup=warmup).rate(0, 1) == 1.0


def test_every_field_is_among_the_settings_that_decide_a_run() -> None:
    assert set(Recipe().as_settings()) == {f"finetune.{name}" for name in Recipe.__slots__}


def test_a_balanced_epoch_has_as_many_of_each_class_and_repeats_none_before_all_were_shown() -> None:
    labels = [0] * 50 + [1] * 5 + [2] * 9
    recipe = Recipe(batch_images=8, balanced=True)
    rows = [i for batches in recipe.order(1, labels) for batch in batches for i in batch]
    assert len(rows) == 64
    assert sorted(Counter(labels[i] for i in rows).values()) == [21, 21, 22]
    times = Counter(rows)
    assert max(times[i] for i in range(50)) == 1
    assert {times[i] for i in range(50, 55)} <= {4, 5}
    assert {times[i] for i in range(55, 64)} <= {2, 3}
    assert list(recipe.order(1, labels)) == list(recipe.order(1, labels))
