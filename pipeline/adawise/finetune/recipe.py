"""How long, how fast and with which randomness: all that decides what a run computes, beside its data and theta_0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Loss = Literal["cross_entropy", "flyp"]
# What 0.2, which had no such settings, did.
IN_0_2 = {
    "finetune.jitter": "0.0",
    "finetune.balanced": "False",
    "finetune.lock_text": "False",
    "finetune.layer_decay": "1.0",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run of fine-tuning, in numbers.

    Args:
        loss: `cross_entropy` trains the image tower against the heads of all names that are served; `flyp` both towers
            and the logit scale, against the prompts of a batch.
        epochs: passes over the images, at most.
        batch_images: images of a forward, and what an image is contrasted with.
        accumulate: batches whose gradients make one update.
        learning_rate: AdamW's highest.
        weight_decay: AdamW's, of matrices; norms, biases and single vectors have none.
        warmup: share of all updates in which the rate rises.
        label_smoothing: in [0, 1).
        clip_norm: longest gradient.
        patience: epochs that do not become the best one, after which to end.
        crop_min: smallest share of an image's area that a random crop keeps; 1 is nearly the whole image.
        flip: chance that an image is mirrored.
        jitter: most that brightness, contrast and saturation of an image change, as a share; 0: not at all.
        balanced: an epoch has as many images of each class, the few of a rare one several times, each cropped anew.
        lock_text: `flyp` trains the image tower alone, against prompts as theta_0 encodes them.
        layer_decay: what the rate of a block is of that of the block above it; 1: all alike.
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
    seed: int = 0

    def as_settings(self) -> Mapping[str, str]:
        """Each value by the name of its setting, as text."""
        return {f"finetune.{name}": str(value) for name, value in asdict(self).items()}

    def updates(self, images: int) -> int:
        """Updates of an epoch: images that do not fill the last one wait for the next epoch's order."""
        return max(1, images // (self.batch_images * self.accumulate))

    def rate(self, update: int, total: int) -> float:
        """The learning rate of an update, counted from 0 over the whole run: up a line, down half a cosine to 0."""
        rising = max(1, round(self.warmup * total))
        if update < rising:
            return self.learning_rate * (update + 1) / rising
        progress = (update - rising) / max(1, total - rising)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def order(self, epoch: int, labels: Sequence[int | str]) -> Iterator[Sequence[Sequence[int]]]:
        """For each update of an epoch its batches, each a list of image numbers; the same each time it is asked.

        `labels` has the class of each image.
        """
        random, images = self.random(epoch), len(labels)
        mixed = _balanced(labels, random) if self.balanced else random.permutation(images)
        size = self.batch_images * self.accumulate
        for update in range(self.updates(images)):
            rows = mixed[update * size : (update + 1) * size].tolist()
            yield [rows[start : start + self.batch_images] for start in range(0, len(rows), self.batch_images)]

    def random(self, *place: int) -> np.random.Generator:
        """Random numbers of a place (epoch, image): nothing of them has to be kept to resume."""
        return np.random.default_rng([self.seed, *place])


def _balanced(labels: Sequence[int | str], random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """As many numbers as there are labels, as many of each label, one more or less: no member is drawn a second time
    before each of its class was drawn once."""
    each = np.asarray(labels)
    drawn = []
    names = random.permutation(np.unique(each))
    for k, name in enumerate(names):
        members = np.flatnonzero(each == name)
        wanted = len(each) // len(names) + (k < len(each) % len(names))
        rounds = [random.permutation(members) for _ in range(-(-wanted // len(members)))]
        drawn.append(np.concatenate([*rounds, members[:0]])[:wanted])
    return random.permutation(np.concatenate(drawn))
