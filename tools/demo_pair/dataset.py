"""Frames of many simulated cameras as tensors, for training and measuring the demo's pair.

Frames are kept at the height that the model wants, full width, so that training can crop at any place; measuring
crops in the middle, as open_clip's own preprocessing does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adawise.demo.scene import CLASSES, HEIGHT, WIDTH, StreetCamera
from adawise.demo.weather import PRESETS, Weather, blend

NOTHING = CLASSES.index("empty street")
SplitWeather = Callable[[np.random.Generator], Weather]


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """N labelled frames: `pixels` uint8 `[N, S, W, 3]`, `labels` int64 `[N]`, `boxes` float32 `[N, 4]`.

    A box is left, top, right, bottom in pixels of `pixels`; of an empty street all zero.
    """

    pixels: Tensor
    labels: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def centred(self) -> Tensor:
        """The middle squares, in the model's units: float32 `[N, 3, S, S]` in [-1, 1]."""
        size, width = self.pixels.shape[1:3]
        left = (width - size) // 2
        return in_model_units(self.pixels[:, :, left : left + size])

    def crops(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Randomly shifted and mirrored squares of some frames, and the boxes in them: `[n, 3, S, S]`, `[n, 4]`."""
        size, width = self.pixels.shape[1:3]
        left = int(torch.randint(4, width - size - 3, (), generator=generator))
        pixels, boxes = self.pixels[rows, :, left : left + size], self.boxes[rows].clone()
        boxes[:, 0::2] -= left
        images = in_model_units(pixels)
        if torch.rand((), generator=generator) < 0.5:
            images = images.flip(3)
            boxes[:, 0], boxes[:, 2] = size - boxes[:, 2], size - boxes[:, 0]
        return images, boxes


def in_model_units(pixels: Tensor) -> Tensor:
    """uint8 `[N, H, W, 3]` to float32 `[N, 3, H, W]` with mean .5 and standard deviation .5 taken out."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1.0).contiguous()


def any_weather(rng: np.random.Generator) -> Weather:
    """A condition at a severity from mild to full, now and then mixed with another."""
    conditions = list(PRESETS.values())
    weather = blend(PRESETS["clear"], conditions[int(rng.integers(len(conditions)))], rng.uniform(0.3, 1.0))
    if rng.random() < 0.2:
        weather = blend(weather, conditions[int(rng.integers(len(conditions)))], rng.uniform(0.2, 0.6))
    return weather


def clear_day(rng: np.random.Generator) -> Weather:
    """A clear day at any hour of it, seen by good and bad cameras: noise, compression, smear and dust vary."""
    day = blend(PRESETS["clear"], PRESETS["dusk"], rng.uniform(0.0, 0.12))
    worse = rng.random(4) ** 2
    return replace(
        day,
        noise=0.005 + 0.12 * float(worse[0]),
        jpeg_quality=90.0 - 75.0 * float(worse[1]),
        motion_blur=8.0 * float(worse[2]),
        dirt=0.5 * float(worse[3]),
    )


def render(count: int, cameras: int, first_seed: int, weather: SplitWeather, size: int) -> Frames:
    """`count` frames of `cameras` cameras with the seeds from `first_seed` on, `size` pixels high."""
    rng = np.random.default_rng(first_seed)
    streets = [StreetCamera(f"camera-{seed}", seed) for seed in range(first_seed, first_seed + cameras)]
    width = round(WIDTH * size / HEIGHT)
    pixels = np.empty((count, size, width, 3), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    boxes = np.zeros((count, 4), dtype=np.float32)
    for row in range(count):
        number, street = row // cameras, streets[row % cameras]
        image, label = street.frame(number, weather(rng))
        pixels[row] = np.asarray(image.resize((width, size), Image.Resampling.BICUBIC))
        labels[row] = CLASSES.index(label)
        box = street.box(number)
        if box is not None:
            boxes[row] = np.asarray(box, dtype=np.float32) * (size / HEIGHT)
    return Frames(torch.from_numpy(pixels), torch.from_numpy(labels), torch.from_numpy(boxes))


def patch_labels(labels: Tensor, boxes: Tensor, size: int, patch: int) -> Tensor:
    """What each patch shows: int64 `[N, (size / patch)^2]`, -100 (torch's "ignore") where a thing only touches it.

    Args:
        labels: `[N]` classes of the frames.
        boxes: `[N, 4]` where the thing is in the square image.
        size: side of the image in pixels.
        patch: side of a patch in pixels.
    """
    edges = torch.arange(0, size, patch, dtype=torch.float32)
    x = (torch.minimum(boxes[:, 2, None], edges + patch) - torch.maximum(boxes[:, 0, None], edges)).clamp(0, patch)
    y = (torch.minimum(boxes[:, 3, None], edges + patch) - torch.maximum(boxes[:, 1, None], edges)).clamp(0, patch)
    share = (y[:, :, None] * x[:, None, :]).flatten(1) / patch**2  # [N, P]
    shown = torch.where(share > 0.35, labels[:, None], torch.full_like(labels, -100)[:, None])
    return torch.where(share < 0.05, torch.full_like(shown, NOTHING), shown)
