"""The division of cameras between shards: balanced first, and then with as little read twice as that allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.replay.assign import SLACK, Unit, assign, loads, reads


def units(*partitions: list[float]) -> list[Unit]:
    return [Unit(p, f"camera-{n}", cost) for p, costs in enumerate(partitions) for n, cost in enumerate(costs)]


def test_partitions_of_equal_cost_are_kept_together() -> None:
    given_ = units(*8 * [[1.0, 2.0, 3.0]])
    for shards in (1, 2, 4, 8):
        chosen = assign(given_, shards, dict.fromkeys(range(8), 100))
        assert len(reads(given_, chosen)) == 8, "each partition is read once"
        assert loads(given_, chosen, shards) == shards * [48.0 / shards]


def test_a_large_partition_is_divided_and_the_small_ones_are_not() -> None:
    given_ = units([1.0] * 90, [1.0] * 10, [1.0] * 10, [1.0] * 10)
    chosen = assign(given_, 4, {0: 900, 1: 100, 2: 100, 3: 100})
    assert max(loads(given_, chosen, 4)) <= SLACK * 30
    assert sorted(partition for partition, _ in reads(given_, chosen)) in ([0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 1, 2, 3])


def test_a_camera_that_costs_most_bounds_the_whole() -> None:
    given_ = units([50.0, 1.0, 1.0, 1.0])
    assert max(loads(given_, assign(given_, 3, {0: 1}), 3)) == 50.0


def test_many_shards_of_few_partitions_each_get_cameras_of_few_partitions() -> None:
    given_ = units(*4 * [[1.0] * 25])
    chosen = assign(given_, 40, dict.fromkeys(range(4), 1))
    assert max(loads(given_, chosen, 40)) == 3.0
    assert len(reads(given_, chosen)) <= 60, "balance alone takes 100, and 40 would be the fewest"


@given(
    st.lists(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(1, 9),
)
@pytest.mark.examples
def test_every_unit_has_a_shard_every_shard_a_unit_and_the_balance_is_that_of_a_greedy_division(
    partitions: list[list[float]], shards: int
) -> None:
    given_ = units(*partitions)
    shards = min(shards, len(given_))
    chosen = assign(given_, shards, {p: 1 + p for p in range(len(partitions))})
    assert len(chosen) == len(given_)
    assert {*chosen} == {*range(shards)}
    mean, dearest = sum(unit.cost for unit in given_) / shards, max(unit.cost for unit in given_)
    assert max(loads(given_, chosen, shards)) <= SLACK * (mean + dearest) + 1e-6, "as of any greedy division"
    assert chosen == assign(given_, shards, {p: 1 + p for p in range(len(partitions))})
