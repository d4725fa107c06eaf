from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from adawise.adapt.interpolate import Layout, check_pair, freeze_statistics, interpolate
from adawise.errors import CheckpointError

ALPHAS = [j / 20 for j in range(21)]
DTYPES = [torch.float32, torch.bfloat16]


class Tower(nn.Module):
    """Shapes that do not fill a cache line, a scalar, and a buffer."""

    def __init__(self, seed: int = 0, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(7, 13)
        self.act = activation()
        self.norm = nn.LayerNorm(13)
        self.scale = nn.Parameter(torch.tensor(1.0 + seed))
        self.mask: Tensor
        self.register_buffer("mask", torch.arange(5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.act(self.first(x))) * self.scale
        return y


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters()}


def ends(numel: int = 1000) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(numel)
    return torch.randn(numel, generator=generator), torch.randn(numel, generator=generator)


@given(st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=8))
def test_a_flattened_set_gives_every_tensor_back_and_none_overlaps(shapes: list[list[int]]) -> None:
    tensors = {f"t{i}": torch.randn(shape) for i, shape in enumerate(shapes)}
    layout = Layout.of(tensors)
    views = layout.views(layout.flatten(tensors))
    assert list(views) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(views[name], tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_view_begins_on_a_cache_line_of_the_buffer(dtype: torch.dtype) -> None:
    layout = Layout.of(parameters(Tower()))
    flat = torch.zeros(layout.numel, dtype=dtype)
    for view in layout.views(flat).values():
        assert (view.data_ptr() - flat.data_ptr()) % 64 == 0
        assert view.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()


def test_half_precision_weights_are_flattened_to_float32_without_loss() -> None:
    half = {"w": torch.randn(5, 3).half()}
    layout = Layout.of(half)
    flat = layout.flatten(half)
    assert flat.dtype == torch.float32
    assert torch.equal(layout.views(flat)["w"], half["w"].float())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("alpha", "end"), [(0.0, 0), (1.0, 1)])
def test_at_the_ends_the_result_is_the_endpoint_bit_for_bit(dtype: torch.dtype, alpha: float, end: int) -> None:
    theta = ends()
    theta[end][3] = torch.finfo(torch.float32).tiny / 2  # a subnormal, which a product with 1 could flush
    theta[1 - end][5] = torch.inf  # which a product with 0 would make nan
    out = torch.full((1000,), torch.nan, dtype=dtype)
    interpolate(*theta, alpha, out=out)
    assert torch.equal(out, theta[end].to(dtype))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_float32_is_exactly_torch_lerp_and_close_to_the_formula(alpha: float) -> None:
    theta_0, theta_1 = ends(100_003)
    out = interpolate(theta_0, theta_1, alpha, out=torch.empty(100_003))
    if 0.0 < alpha < 1.0:
        assert torch.equal(out, torch.lerp(theta_0, theta_1, alpha))
    formula = (1.0 - alpha) * theta_0.double() + alpha * theta_1.double()
    torch.testing.assert_close(out.double(), formula, rtol=0.0, atol=1e-6)  # float32 of values of a few units


@pytest.mark.parametrize("alpha", [0.05, 0.5, 0.85])
def test_bfloat16_is_rounded_once_across_the_pieces_of_a_long_buffer(alpha: float) -> None:
    theta_0, theta_1 = ends(3 * 2**18 + 17)
    out = interpolate(theta_0, theta_1, alpha, out=torch.empty_like(theta_0, dtype=torch.bfloat16))
    assert torch.equal(out, torch.lerp(theta_0, theta_1, alpha).bfloat16())
    twice = torch.lerp(theta_0.bfloat16(), theta_1.bfloat16(), alpha)
    assert not torch.equal(out, twice)


@pytest.mark.parametrize("alpha", [0.15, 0.5, 0.95])
def test_a_module_over_the_buffer_equals_a_fresh_module_with_interpolated_weights(alpha: float) -> None:
    zero, one = Tower(0), Tower(1)
    layout = Layout.of(parameters(zero))
    flat = torch.empty(layout.numel)
    interpolate(layout.flatten(parameters(zero)), layout.flatten(parameters(one)), alpha, out=flat)
    fresh = Tower(2)
    merged = {n: torch.lerp(p, parameters(one)[n], alpha) for n, p in parameters(zero).items()}
    fresh.load_state_dict({**merged, "mask": zero.mask})
    x = torch.randn(4, 7)
    assert torch.equal(torch.func.functional_call(zero, layout.views(flat), (x,)), fresh(x))
    assert not torch.equal(fresh(x), zero(x))


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan"), float("inf")])
def test_an_alpha_outside_the_unit_interval_is_an_error(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
        interpolate(*ends(), alpha, out=torch.empty(1000))


def test_a_pair_of_one_architecture_passes() -> None:
    check_pair(Tower(0), Tower(1))


def test_a_key_that_only_one_has_is_named_with_its_side() -> None:
    other = Tower(1)
    other.extra = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"differ in 2 keys; 'extra\.bias' is in theta_1 only.*one architecture"):
        check_pair(Tower(0), other)
    with pytest.raises(CheckpointError, match=r"'extra\.bias' is in theta_0 only"):
        check_pair(other, Tower(0))


def test_a_key_of_different_shapes_is_named_with_both() -> None:
    other = Tower(1)
    other.first = nn.Linear(7, 14)
    with pytest.raises(CheckpointError, match=r"'first\.weight' is \[13, 7\] in theta_0 and \[14, 7\] in theta_1"):
        check_pair(Tower(0), other)


def test_batch_norm_makes_a_pair_if_its_statistics_were_frozen() -> None:
    norm = nn.BatchNorm2d(4)
    zero = nn.Sequential(nn.Conv2d(3, 4, 1), norm)
    images = torch.rand(8, 3, 2, 2)
    zero(images)
    one = copy.deepcopy(zero)
    freeze_statistics(one)
    one.train()
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
    one(images).square().mean().backward()
    optimizer.step()
    check_pair(zero, one)
    assert not torch.equal(norm.weight, one.get_parameter("1.weight"))
    other = copy.deepcopy(zero).train()
    other(1 + images)
    with pytest.raises(CheckpointError, match=r"the BatchNorm statistics '1\.running_mean' differ.*as `adawise finet"):
        check_pair(zero, other)


def test_two_names_of_one_memory_are_refused() -> None:
    zero, one = Tower(0), Tower(1)
    one.first.weight.data = zero.first.weight.data
    with pytest.raises(CheckpointError, match=r"share the memory of 'first\.weight'.*separate module"):
        check_pair(zero, one)


def test_equal_weights_are_refused() -> None:
    zero = Tower(0)
    with pytest.raises(CheckpointError, match="same weights, so every alpha is the same model"):
        check_pair(zero, copy.deepcopy(zero))


def test_different_activations_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"'act' is GELU in theta_0 and ReLU in theta_1"):
        check_pair(Tower(0), Tower(1, nn.ReLU))


def test_a_buffer_that_differs_is_refused_by_name() -> None:
    other = Tower(1)
    other.mask += 1
    with pytest.raises(CheckpointError, match="buffer 'mask' differs"):
        check_pair(Tower(0), other)


@pytest.mark.parametrize("side", [0, 1])
def test_a_buffer_that_only_one_has_is_refused_by_name_and_side(side: int) -> None:
    pair = Tower(0), Tower(1)
    pair[side].register_buffer("causal", torch.ones(2), persistent=False)  # which is no key of a checkpoint
    with pytest.raises(CheckpointError, match=rf"'causal' is a buffer of theta_{side} only.*one architecture"):
        check_pair(*pair)


@pytest.mark.parametrize("side", [0, 1])
def test_a_tensor_that_is_a_parameter_of_one_and_a_buffer_of_the_other_is_refused_by_name(side: int) -> None:
    pair = Tower(0), Tower(1)
    del pair[side].mask
    pair[side].mask = nn.Parameter(torch.ones(5))
    with pytest.raises(CheckpointError, match=rf"'mask' is a buffer of theta_{1 - side} only.*one architecture"):
        check_pair(*pair)


@pytest.mark.parametrize("side", [0, 1])
def test_equal_weights_are_refused_if_one_model_has_two_names_for_a_tensor(side: int) -> None:
    zero, one = (nn.ModuleDict({"first": nn.Linear(2, 2), "second": nn.Linear(2, 2)}) for _ in range(2))
    zero["second"].load_state_dict(zero["first"].state_dict())
    one.load_state_dict(zero.state_dict())
    pair = zero, one
    pair[side]["second"].weight = pair[side]["first"].weight
    with pytest.raises(CheckpointError, match="same weights, so every alpha is the same model"):
        check_pair(*pair)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_weights_that_are_not_finite_are_refused_by_name_and_side(side: int, value: float) -> None:
    pair = Tower(0), Tower(1)
    pair[side].first.weight.data[1, 2] = value
    with pytest.raises(CheckpointError, match=rf"'first\.weight' in theta_{side} holds values that are not finite"):
        check_pair(*pair)
