from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch import Tensor, nn

from adawise.clip.attention import PackedAttention, pack_attention
from tests.models import CONFIG, SIZE


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
