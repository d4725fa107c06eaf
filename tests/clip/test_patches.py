from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from adawise.clip.patches import PatchProduct, multiply_patches
from tests.models import CONFIG


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
