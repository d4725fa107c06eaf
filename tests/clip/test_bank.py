from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from adawise.clip.bank import Bank
from adawise.clip.classifier import GRID
from adawise.clip.load import CheckpointPair
from tests.models import SIZE

DTYPES = [torch.float32, torch.bfloat16]


def bank(pair: CheckpointPair, dtype: torch.dtype = torch.float32, budget_bytes: int = 0) -> Bank:
    return Bank(
        pair.tower,
        pair.theta_0,
        pair.theta_1,
        alphas=GRID,
        dtype=dtype,
        device=torch.device("cpu"),
        budget_bytes=budget_bytes,
    )


def images(dtype: torch.dtype) -> Tensor:
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(dtype)


def fresh(pair: CheckpointPair, theta: dict[str, Tensor], dtype: torch.dtype) -> nn.Module:
    """A tower with these weights, made without the bank."""
    tower = copy.deepcopy(pair.tower)
    tower.load_state_dict({**dict(tower.named_buffers()), **theta})
    return tower.to(dtype).eval()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_are_the_checkpoints_bit_for_bit(pair: CheckpointPair, dtype: torch.dtype) -> None:
    made = bank(pair, dtype)
    for index, theta in ((0, pair.theta_0), (20, pair.theta_1)):
        tower = made.tower(index)
        for name, parameter in tower.named_parameters():
            assert torch.equal(parameter, theta[name].to(dtype))
        with torch.inference_mode():
            assert torch.equal(tower(images(dtype)), fresh(pair, dict(theta), dtype)(images(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [3, 10, 17])
def test_between_them_a_tower_equals_a_fresh_one_with_interpolated_weights(
    pair: CheckpointPair, dtype: torch.dtype, index: int
) -> None:
    theta = {name: torch.lerp(pair.theta_0[name], pair.theta_1[name], GRID[index]) for name in pair.theta_0}
    with torch.inference_mode():
        actual = bank(pair, dtype).tower(index)(images(dtype))
        assert torch.equal(actual, fresh(pair, theta, dtype)(images(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_after_many_merges_in_place_every_output_is_that_of_a_fresh_bank(
    pair: CheckpointPair, dtype: torch.dtype
) -> None:
    worn = bank(pair, dtype)
    assert worn.capacity == 2
    generator = torch.Generator().manual_seed(1)
    requested = torch.randint(0, 21, (60,), generator=generator).tolist()
    expected: dict[int, Tensor] = {}
    with torch.inference_mode():
        for index in requested:
            if index not in expected:
                expected[index] = bank(pair, dtype).tower(index)(images(dtype))
            assert torch.equal(worn.tower(index)(images(dtype)), expected[index])
    assert worn.merges > 40
    assert len({tuple(value.flatten().tolist()) for value in expected.values()}) == len(expected)


def test_a_returning_alpha_costs_no_merge_and_the_one_not_used_for_longest_goes(pair: CheckpointPair) -> None:
    made = bank(pair)
    made = bank(pair, budget_bytes=3 * made.copy_bytes)
    assert made.capacity == 3
    for index in (0, 5, 9, 0, 5):
        made.tower(index)
    assert made.merges == 3
    made.tower(20)  # over the copy of 9
    made.tower(0)
    made.tower(5)
    assert made.merges == 4
    made.tower(9)
    assert made.merges == 5


def test_an_evicted_copy_is_merged_over_in_the_same_memory(pair: CheckpointPair) -> None:
    made = bank(pair)
    addresses = {parameter.data_ptr() for index in (0, 1) for parameter in made.tower(index).parameters()}
    for index in range(2, 21):
        assert {parameter.data_ptr() for parameter in made.tower(index).parameters()} <= addresses


@pytest.mark.parametrize(("copies", "capacity"), [(0, 2), (1, 2), (2, 2), (5, 5), (1000, 21)])
def test_the_capacity_is_what_the_budget_holds_at_least_two_at_most_the_grid(
    pair: CheckpointPair, copies: int, capacity: int
) -> None:
    size = bank(pair).copy_bytes
    assert bank(pair, budget_bytes=copies * size).capacity == capacity
    assert size >= 4 * sum(p.numel() for p in pair.theta_0.values())
    assert bank(pair, torch.bfloat16).copy_bytes == size // 2


def test_the_pair_itself_is_never_changed(pair: CheckpointPair) -> None:
    before = {name: tensor.clone() for name, tensor in pair.tower.state_dict().items()}
    made = bank(pair, torch.bfloat16)
    for index in (0, 7, 20):
        made.tower(index)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pair.tower.state_dict().items())
    assert all(p.device.type == "cpu" for p in pair.tower.parameters())


def test_towers_are_frozen_and_in_evaluation_mode(pair: CheckpointPair) -> None:
    tower = bank(pair).tower(4)
    assert not tower.training
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not any(t.is_meta for t in (*tower.parameters(), *tower.buffers()))


def test_floating_buffers_are_cast_and_others_kept() -> None:
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)
            self.inner.register_buffer("shift", torch.tensor([0.1, 0.2, 0.3]))
            self.register_buffer("order", torch.tensor([2, 0, 1]), persistent=False)

    zero, one = Tower(), Tower()
    made = Bank(
        zero,
        {n: p.detach() for n, p in zero.named_parameters()},
        {n: p.detach() for n, p in one.named_parameters()},
        alphas=(0.0, 1.0),
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
        budget_bytes=0,
    )
    buffers = dict(made.tower(1).named_buffers())
    assert buffers["inner.shift"].dtype == torch.bfloat16
    assert buffers["order"].tolist() == [2, 0, 1]
