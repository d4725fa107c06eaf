"""The recipe: everything that decides what a run computes, besides its data and theta_0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Loss = Literal["cross_entropy", "balanced", "flyp"]
# The values that 0.2, which had no such settings, used.
IN_0_2 = {
    "finetune.jitter": "0.0",
    "finetune.balanced": "False",
    "finetune.lock_text": "False",
    "finetune.layer_decay": "1.0",
    "finetune.blocks": "None",
}

BLOCKS_SHARE = 1 / 3
"""The share of an image tower's blocks that `finetune.blocks = "auto"` trains."""
_LEAST_RATE, _MOST_RATE = 1e-5, 2e-5  # of those that were compared, docs/decisions/finetuning.md
_WAY = 1e-3  # updates times rate, as far as the pairs went that served most


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyperparameters of a run of fine-tuning.

    Args:
        loss: `cross_entropy` trains the image tower against the heads of all names that are served; `balanced` as well,
            with logits that are raised by the logarithms of how many images each class has; `flyp` both towers and the
            logit scale, against the prompts of a batch.
        epochs: passes over the images, at most.
        batch_images: images of a forward, and the number that an image is contrasted with.
        accumulate: batches whose gradients make one update.
        learning_rate: AdamW's highest.
        weight_decay: AdamW's, for matrices; norms, biases and single vectors do not decay.
        warmup: share of all updates in which the rate rises.
        label_smoothing: in [0, 1).
        clip_norm: largest norm of the gradient.
        patience: epochs without a new best one after which the run ends.
        crop_min: smallest share of an image's area that a random crop keeps; 1 is nearly the whole image.
        flip: probability that an image is mirrored.
        jitter: largest change of an image's brightness, contrast and saturation, as a share; 0: none.
        balanced: an epoch has equally many images of each class; images of a rare class come several times, each with
            another crop.
        lock_text: `flyp` trains the image tower alone, against prompts as theta_0 encodes them.
        layer_decay: the rate of a block divided by that of the block above it; 1: all equal.
        blocks: how many blocks of the image tower, counted from the last, are trained with what follows them; None:
            all, and what comes before them.
        seed: of the order of images, crops and prompts.
    """

    loss: Loss = "cross_entropy"
    epochs: int = 10
    batch_images: int = 64
    accumulate: int = 1
    learning_rate: float = 1e-5
    weight_decay: float = 0.1
    warmup: float = 0.1
    label_smoothing: float = 0.0
    clip_norm: float = 1.0
    patience: int = 3
    crop_min: float = 0.9
    flip: float = 0.0
    jitter: float = 0.0
    balanced: bool = False
    lock_text: bool = False
    layer_decay: float = 0.75
    blocks: int | None = None
    seed: int = 0

    def as_settings(self) -> Mapping[str, str]:
        """Return each value as text, by the name of its setting."""
        return {f"finetune.{name}": str(value) for name, value in asdict(self).items()}

    def updates(self, images: int) -> int:
        """Return the updates of an epoch, as `updates_of` counts them."""
        return updates_of(images, self.batch_images * self.accumulate)

    def rate(self, update: int, total: int) -> float:
        """Return the learning rate of an update, counted from 0 over the whole run.

        It rises linearly during the warm-up, then follows half a cosine down to 0.
        """
        rising = max(1, round(self.warmup * total))
        if update < rising:
            return self.learning_rate * (update + 1) / rising
        progress = (update - rising) / max(1, total - rising)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def order(self, epoch: int, labels: Sequence[int | str]) -> Iterator[Sequence[Sequence[int]]]:
        """Yield for each update of an epoch its batches, each a list of image numbers; equal at each call.

        `labels` has the class of each image.
        """
        random, images = self.random(epoch), len(labels)
        mixed = _balanced(labels, random) if self.balanced else random.permutation(images)
        size = self.batch_images * self.accumulate
        for update in range(self.updates(images)):
            rows = mixed[update * size : (update + 1) * size].tolist()
            yield [rows[start : start + self.batch_images] for start in range(0, len(rows), self.batch_images)]

    def random(self, *place: int) -> np.random.Generator:
        """Return random numbers of a place (epoch, image).

        They depend on it and the seed alone, so resuming needs no state.
        """
        return np.random.default_rng([self.seed, *place])


def updates_of(images: int, each: int) -> int:
    """Return the updates of an epoch, of `each` images; those that do not fill a last one wait for another epoch."""
    return max(1, images // each)


def auto_rate(loss: Loss, updates: int) -> float:
    """Return the learning rate that `finetune.learning_rate = "auto"` means for a run of that many updates.

    AdamW moves a weight by about its rate in an update, so few updates need a higher rate to get as far from theta_0.
    It was measured for `cross_entropy`, and `balanced` has the same; `flyp`, which trains both towers, keeps the lowest
    rate.
    """
    if loss == "flyp":
        return _LEAST_RATE
    return float(f"{min(max(_WAY / updates, _LEAST_RATE), _MOST_RATE):.1e}")


def _balanced(labels: Sequence[int | str], random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draw as many images as there are labels, equally many of each label up to one, and return their numbers.

    Each image of a class is drawn once before any of them is drawn again.
    """
    each = np.asarray(labels)
    drawn = []
    names = random.permutation(np.unique(each))
    for k, name in enumerate(names):
        members = np.flatnonzero(each == name)
        wanted = len(each) // len(names) + (k < len(each) % len(names))
        rounds = [random.permutation(members) for _ in range(-(-wanted // len(members)))]
        drawn.append(np.concatenate([*rounds, members[:0]])[:wanted])
    return random.permutation(np.concatenate(drawn))
