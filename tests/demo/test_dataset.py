"""Frames as tensors: reproducible, cropped as open_clip crops, boxes where the things are."""

from __future__ import annotations

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from adawise.demo.scene import CLASSES, StreetCamera
from adawise.demo.weather import PRESETS
from tools.demo_pair.dataset import NOTHING, clear_day, patch_labels, render


def test_rendering_is_reproducible_and_another_seed_is_another_set() -> None:
    first, again, other = (render(12, 3, seed, clear_day, 72) for seed in (40, 40, 50))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.pixels, other.pixels)
    assert first.pixels.shape == (12, 72, 96, 3)


def test_the_middle_square_is_what_open_clip_makes_of_the_frame() -> None:
    frames = render(4, 4, 60, lambda _: PRESETS["clear"], 72)
    settings = PreprocessCfg(size=72, mean=(0.5,) * 3, std=(0.5,) * 3)
    transform = image_transform_v2(settings, is_train=False)
    for row in range(4):
        image, _ = StreetCamera("a", 60 + row).frame(0, PRESETS["clear"])
        # one level of 255 is 2/255 in these units: both resize with Pillow, so nothing else may differ
        assert (transform(image) - frames.centred()[row]).abs().max() <= 2.01 / 255


def test_a_box_holds_what_differs_from_the_empty_street() -> None:
    frames = render(200, 1, 70, lambda _: PRESETS["clear"], 72)
    pixels = frames.pixels.to(torch.float32)
    street = pixels[frames.labels == NOTHING].median(0).values
    inside, outside = [], []
    for row in range(len(frames)):
        if frames.labels[row] == NOTHING:
            assert frames.boxes[row].abs().sum() == 0
            continue
        left, top, right, bottom = frames.boxes[row].round().int().clamp(min=0).tolist()
        difference = (pixels[row] - street).abs().amax(-1)
        inside.append(difference[top:bottom, left:right].mean())
        outside.append((difference.sum() - difference[top:bottom, left:right].sum()) / difference.numel())
    assert torch.stack(inside).mean() > 4 * torch.stack(outside).mean()


def test_crops_move_and_mirror_the_box_with_the_picture() -> None:
    frames = render(30, 3, 80, clear_day, 72)
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(30)
    for _ in range(8):
        images, boxes = frames.crops(rows, generator)
        assert images.shape == (30, 3, 72, 72)
        assert torch.allclose(boxes[:, 2] - boxes[:, 0], frames.boxes[:, 2] - frames.boxes[:, 0], atol=1e-4)
    assert frames.boxes.equal(render(30, 3, 80, clear_day, 72).boxes)  # the frames themselves stay as they are


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0.0, 0.0, 12.0, 12.0], [3, NOTHING, NOTHING, NOTHING]),
        ([0.0, 0.0, 24.0, 24.0], [3, 3, 3, 3]),
        ([0.0, 0.0, 15.0, 12.0], [3, -100, NOTHING, NOTHING]),  # a quarter of the second patch: neither
        ([0.0, 0.0, 0.0, 0.0], [NOTHING] * 4),
    ],
)
def test_a_patch_is_labelled_with_what_covers_it(box: list[float], expected: list[int]) -> None:
    labels = patch_labels(torch.tensor([3]), torch.tensor([box]), size=24, patch=12)
    assert labels.tolist() == [expected]
    assert CLASSES[NOTHING] == "empty street"
