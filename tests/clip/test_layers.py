from __future__ import annotations

import copy
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from adawise.clip.layers import PackedAttention, PatchProduct, multiply_patches, pack_attention
from tests.models import CONFIG, SIZE


@pytest.mark.parametrize(
    ("kernel", "side", "bias"), [((16, 16), (64, 96), False), ((14, 14), (50, 43), True), ((4, 8), (32, 32), True)]
)
def test_a_product_is_the_convolution_to_rounding(kernel: tuple[int, int], side: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    convolution, images = nn.Conv2d(3, 40, kernel, kernel, bias=bias), torch.randn(5, 3, *side)
    convolved, product = convolution(images), PatchProduct(convolution)(images)
    assert product.shape == convolved.shape
    torch.testing.assert_close(product, convolved, rtol=1e-5, atol=1e-5)


def test_a_tower_keeps_its_parameters_their_names_and_its_features() -> None:
    torch.manual_seed(0)
    vision = {"image_size": 224, "patch_size": 32, "width": 64, "layers": 2, "head_width": 16}
    tower: Any = open_clip.CLIP(**{**CONFIG["model_cfg"], "vision_cfg": vision}).visual.eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        before, names = tower(images), list(tower.state_dict())
        assert multiply_patches(tower) == 1
        after = tower(images)
    assert list(tower.state_dict()) == names
    assert isinstance(tower.conv1, PatchProduct)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert multiply_patches(tower) == 0


def test_other_convolutions_are_left_alone() -> None:
    others = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2),  # overlap
        nn.Conv2d(3, 8, 4, 4, padding=1),
        nn.Conv2d(3, 9, 4, 4, groups=3),
        nn.Conv2d(3, 8, 2, 2, dilation=2),
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 2, 2),  # within a network, not at its door
    )
    assert multiply_patches(others) == 0


@pytest.fixture
def attention() -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    nn.init.normal_(module.in_proj_bias)
    nn.init.normal_(module.out_proj.bias)
    return module


def causal(length: int) -> Tensor:
    return torch.full((length, length), -torch.inf).triu(1)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)  # float32, other order of sums


@pytest.mark.parametrize("mask", [None, causal(9)], ids=["all", "causal"])
def test_it_gives_what_the_module_that_it_replaces_gives(attention: nn.MultiheadAttention, mask: Tensor | None) -> None:
    x = torch.randn(5, 9, 32)
    expected = attention(x, x, x, need_weights=False, attn_mask=mask)[0]
    assert_close(PackedAttention(attention)(x, x, x, attn_mask=mask)[0], expected)


def test_a_mask_for_each_image_and_head_is_taken_as_the_module_takes_it(attention: nn.MultiheadAttention) -> None:
    x = torch.randn(3, 6, 32)
    mask = torch.randn(3 * 4, 6, 6)
    expected = attention(x, x, x, need_weights=False, attn_mask=mask)[0]
    assert_close(PackedAttention(attention)(x, x, x, attn_mask=mask)[0], expected)


def test_its_parameters_are_the_modules_own_under_the_same_names(attention: nn.MultiheadAttention) -> None:
    packed = PackedAttention(attention)
    theirs, ours = dict(attention.named_parameters()), dict(packed.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)


def test_it_refuses_what_is_not_self_attention(attention: nn.MultiheadAttention) -> None:
    packed, x = PackedAttention(attention), torch.randn(2, 3, 32)
    for inputs, need_weights in (((x, x.clone(), x), False), ((x, x, x.clone()), False), ((x, x, x), True)):
        with pytest.raises(ValueError, match="self-attention without weights"):
            packed(*inputs, need_weights=need_weights)


def test_whole_towers_give_what_open_clips_give() -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG["model_cfg"]).eval()
    packed = copy.deepcopy(model)
    assert pack_attention(packed) == 3 + 2  # every layer of both towers
    images = torch.randn(4, 3, SIZE, SIZE)
    tokens = open_clip.get_tokenizer("ViT-B-32")(["a photo of a car.", "a bus"])[:, :16]
    with torch.inference_mode():
        assert_close(packed.encode_image(images), model.encode_image(images))
        assert_close(packed.encode_text(tokens), model.encode_text(tokens))
    assert packed.state_dict().keys() == model.state_dict().keys()


def test_in_bfloat16_a_tower_differs_by_rounding_alone() -> None:
    torch.manual_seed(0)
    tower = open_clip.CLIP(**CONFIG["model_cfg"]).visual.eval().bfloat16()
    packed = copy.deepcopy(tower)
    pack_attention(packed)
    images = torch.randn(4, 3, SIZE, SIZE).bfloat16()
    with torch.inference_mode():
        expected, actual = tower(images).float(), packed(images).float()
    # bfloat16 has 8 bits: a few roundings of 2^-8 relative to the size of a feature vector
    assert (actual - expected).norm() < 0.02 * expected.norm()


def test_modules_with_another_arithmetic_are_left_alone() -> None:
    class Block(nn.Module):
        def __init__(self, attn: nn.Module) -> None:
            super().__init__()
            self.attn = attn

    plain = Block(nn.MultiheadAttention(8, 2, batch_first=True))
    others = [
        Block(nn.MultiheadAttention(8, 2, batch_first=False)),
        Block(nn.MultiheadAttention(8, 2, batch_first=True, kdim=4)),
        Block(nn.MultiheadAttention(8, 2, batch_first=True, add_zero_attn=True)),
        Block(nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)),
        Block(nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)),
        Block(nn.Linear(8, 8)),
    ]
    cross = Block(nn.MultiheadAttention(8, 2, batch_first=True))
    cross.ln_1_kv = nn.LayerNorm(8)
    assert pack_attention(nn.ModuleList([plain, *others, cross])) == 1
    assert isinstance(plain.attn, PackedAttention)
