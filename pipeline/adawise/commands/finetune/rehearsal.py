"""The rehearsal: the same fine-tuning once more without some of the classes, to see how it treats what it never saw.

theta_1 knows every class that there are images of. How sure it is of what it does not know, and how rightly, cannot be
seen on it, and an objective that takes confidence for knowledge fails just there. So the recipe is run again on half of
the classes: to that model the others are new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import numpy as np
import torch

from adawise.adapt.card import Condition
from adawise.clip.classifier import PairClassifier
from adawise.commands.labelled import logits_of
from adawise.console import Progress
from adawise.evaluate.corrupt import Corruption, corrupt, parse
from adawise.finetune.images import HeldOut

LEAST_CLASSES = 4
LEAVES_OUT = 0.5  # of the classes
STEP = 4  # alphas: logits change little from one to the next
_SHIFTS = "gaussian_noise:2,motion_blur:2,fog:2,contrast:2,jpeg:4"
_SEED = 0


def kept_classes(classes: Sequence[str], seed: int) -> frozenset[str]:
    """The classes that a rehearsal is trained on; all of them where they are too few to leave some out."""
    if len(classes) < LEAST_CLASSES:
        return frozenset(classes)
    mixed = np.random.default_rng(seed).permutation(len(classes))
    return frozenset(classes[i] for i in mixed[round(LEAVES_OUT * len(classes)) :])


def shifts() -> tuple[Corruption, ...]:
    """What images are judged under, beside as they are; nothing where scikit-image is missing."""
    return parse(_SHIFTS) if find_spec("skimage") is not None else ()


def computed_alphas(alphas: Sequence[float]) -> int:
    """How many alphas a condition's images pass the model at."""
    return len(range(0, len(alphas) - 1, STEP)) + 1


def conditions_of(
    classifier: PairClassifier, images: HeldOut, group: str, kinds: Sequence[Corruption | None], bar: Progress
) -> Iterator[Condition]:
    """The images under each shift, None for as they are: conditions `GROUP_fog2`, `GROUP_clean`."""
    batches = list(images)
    for kind in kinds:
        shifted = ((pixels if kind is None else _under(kind, pixels), labels) for pixels, labels in batches)
        logits, labels = logits_of(classifier, shifted, bar, step=STEP)
        yield Condition(f"{group}_{kind or 'clean'}", logits.__getitem__, labels)


def _under(kind: Corruption, pixels: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack([corrupt(image, kind, _SEED) for image in pixels.numpy()]))
