"""Notes on data that is too little to learn from, or too little to judge by.

They are logged before a run begins, and are in its record at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from adawise.errors import SettingsError
from adawise.labels.folders.samples import Samples
from adawise.settings import FinetuneSettings
from adawise.text import counted

_FEW_EACH = 8  # images of a class to learn from, below which there is a note
_FEW_HELD_OUT = 200  # held-out images, below which there is a note; these judge an accuracy to within 7 points
_UNEVEN = 10  # times as many images of one class as of another, from which on there is a note
_NAMED = 5  # names in a note


def check_classes(train: Samples) -> None:
    """Check that there is something to learn.

    Raises:
        SettingsError: all images are of one class.
    """
    if len(train.classes) < 2:
        raise SettingsError(
            f"--labelled {train.where}: expected images of two classes at least, found {len(train.usable)} of "
            f"{train.classes[0]!r} only: there is no class to distinguish it from. Add images of what else the "
            "cameras see."
        )


def notes_on(
    settings: FinetuneSettings, train: Sequence[str], held_out: int, classes: Sequence[str], *, are_listed: bool
) -> list[str]:
    """Return notes on the images and the class names.

    Args:
        settings: the settings of the run.
        train: the labels of the images to train on.
        held_out: the number of held-out images.
        classes: all class names.
        are_listed: True if the user listed them.
    """
    return [*_names(train, classes, are_listed), *_few(settings, train, held_out), *_uneven(settings, train)]


def note_on_stretches(samples: Samples, train: Sequence[int], held_out: Sequence[int]) -> str | None:
    """Return a note if the held-out images are whole stretches of time of cameras, else None."""
    if samples.taken is None:
        return None
    cameras = len({samples.taken[i].camera for i in held_out})
    beside = len(samples.usable) - len(train) - len(held_out)
    return (
        f"The {len(held_out)} held-out images are whole stretches of time of "
        f"{counted(cameras, 'camera', 'cameras')}; {beside} beside them are used for neither. Frames of a stretch "
        "are alike, so their accuracy is less certain than that of as many single images. Give a recording of "
        "other days with --validation if you have one."
    )


def _names(train: Sequence[str], classes: Sequence[str], are_listed: bool) -> Iterator[str]:
    without = [name for name in classes if name not in set(train)]
    if not are_listed:
        yield (
            f"The {len(classes)} labels are used as all served class names. If there are others, list all in "
            "--model.classes FILE: an image gets one of these names, whatever it shows."
        )
    elif without:
        yield (
            f"{len(without)} of {len(classes)} names have no image to learn from ({_first(without)}): the model "
            "knows of them only what theta_0 does, and no held-out image judges them."
        )


def _few(settings: FinetuneSettings, train: Sequence[str], held_out: int) -> Iterator[str]:
    if held_out < _FEW_HELD_OUT:
        yield (
            f"{held_out} held-out images judge the epochs and make the card: few, since their accuracy is known "
            f"only to within {_within(held_out)} points. Give others with --validation, or raise "
            f"finetune.validation_share; {2 * _FEW_HELD_OUT} of them make it {_within(2 * _FEW_HELD_OUT)}."
        )
    rare = [name for name, count in Counter(train).items() if count < _FEW_EACH]
    if rare:
        have = counted(len(rare), "class has", "classes have")
        yield f"{have} fewer than {_FEW_EACH} images to learn from ({_first(rare)}): add some."
    if len(train) < settings.batch_images:
        yield (
            f"All {len(train)} images to learn from are fewer than a batch (finetune.batch_images is "
            f"{settings.batch_images}): an epoch is one update. Add images, or lower it."
        )


def _uneven(settings: FinetuneSettings, train: Sequence[str]) -> Iterator[str]:
    counts = Counter(train).most_common()
    (most, many), (least, few) = counts[0], counts[-1]
    if many >= _UNEVEN * few and not settings.balanced:
        yield (
            f"Classes are uneven: {many} images of {most!r}, {few} of {least!r}. finetune.balanced draws as many "
            "of each; check the accuracies by class."
        )


def _within(images: int) -> int:
    """Return half the width of a 95 % interval of an accuracy of one half, in points."""
    return round(196 * math.sqrt(0.25 / images))


def _first(names: Sequence[str]) -> str:
    return ", ".join(islice(names, _NAMED)) + (", …" if len(names) > _NAMED else "")
