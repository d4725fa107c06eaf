from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.probe import StratifiedSample


@given(st.integers(1, 70), st.integers(1, 40))
def test_no_image_is_dealt_twice_before_all_were_dealt_once(images: int, count: int) -> None:
    sample, unseen = StratifiedSample(np.random.default_rng(images).random(images)), np.ones(images, dtype=np.bool_)
    dealt: list[int] = []
    while len(dealt) + count <= images:
        rows = sample.draw(count, unseen=unseen)
        assert rows.tolist() == sorted(rows.tolist())
        dealt += rows.tolist()
    assert len(set(dealt)) == len(dealt)


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_every_hand_stands_for_easy_and_hard_images_alike(count: int) -> None:
    values = np.random.default_rng(0).random(32)
    sample, unseen = StratifiedSample(values), np.ones(32, dtype=np.bool_)
    ranks = np.argsort(np.argsort(values))
    for _ in range(32 // count):
        hand = ranks[sample.draw(count, unseen=unseen)]
        assert sorted(hand * count // 32) == list(range(count))  # one of each part of the batch


def test_what_an_alpha_has_seen_is_not_dealt_to_it_again() -> None:
    unseen = np.zeros(16, dtype=np.bool_)
    unseen[[3, 7, 8]] = True
    assert StratifiedSample(np.arange(16.0)).draw(8, unseen=unseen).tolist() == [3, 7, 8]
