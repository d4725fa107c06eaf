"""The rehearsal: the same fine-tuning once more without some of the classes, to see how it treats what it never saw.

theta_1 knows every class that there are images of. How sure it is of what it does not know, and how rightly, cannot be
seen on it, and an objective that takes confidence for knowledge fails just there. So the recipe is run again on half of
the classes: to that model the others are new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import structlog
import torch

from adawise.adapt.card import Condition
from adawise.build.model import load_model
from adawise.clip.classifier import GRID, PairClassifier
from adawise.commands.finetune.countdown import CARD, NEW, REHEARSAL, VERDICT, Countdown
from adawise.commands.finetune.training import (
    Begin,
    Data,
    pair_settings,
    prepare,
    run_of,
    some_of,
    starting_model,
    train,
    whole_passes,
)
from adawise.commands.labelled import logits_of
from adawise.console import Progress
from adawise.errors import DivergedError, SettingsError
from adawise.evaluate.corrupt import Corruption, corrupt, parse
from adawise.finetune.folder import Folder
from adawise.finetune.images import HeldOut, Images
from adawise.settings import Settings

_log = structlog.get_logger("finetune")

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


def rehearse(
    settings: Settings,
    data: Data,
    folder: Folder,
    decoders: tuple[Images, Images],
    notes: list[str],
    *,
    epochs: int,
    resumes: bool,
    countdown: Countdown,
) -> tuple[Condition, ...] | None:
    """What a pair says that was made the same way of some classes alone, of images of the others; None if stopped.

    It is trained for `epochs`, as theta_1 was: longer, and it would be surer of what it does not know than theta_1 is.
    Empty where that is not asked for, or images do not allow it, or it fails; the last is noted here.
    """
    try:
        return _rehearsed(settings, data, folder, decoders, epochs, resumes, countdown)
    except (SettingsError, DivergedError) as error:  # theta_1 is made, and this is no reason to lose it
        # a run that diverged says where its best epoch lies and how to start anew, which is not for a rehearsal
        why = f"it diverged, {error.__cause__}" if error.__cause__ and isinstance(error, DivergedError) else str(error)
        note = "theta_1 stays as it is; the verdict says nothing of classes without images"
        _log.warning("rehearsal_left_out", why=why, note=note)
        notes.append(f"Nothing is said of new classes, as the rehearsal failed: {why}")
        return ()


def _rehearsed(
    settings: Settings,
    data: Data,
    folder: Folder,
    decoders: tuple[Images, Images],
    epochs: int,
    resumes: bool,
    countdown: Countdown,
) -> tuple[Condition, ...] | None:
    """As `rehearse`. Raises SettingsError: images cannot be read; DivergedError: as it says."""
    part = part_of(data, settings)
    if not settings.finetune.rehearsal or isinstance(part, str):
        return ()
    images, _ = decoders
    kept = {data.train.labels[i] for i in part.train_rows}
    left_out = [i for i in data.train_rows if data.train.labels[i] not in kept]
    place = folder.rehearsal
    untracked = settings.finetune.model_copy(update={"tensorboard": False, "mlflow": False})
    settings = settings.model_copy(update={"finetune": untracked})
    start = starting_model(settings)
    run = run_of(settings, part, start, place, decoders, ends_with=epochs)
    missing = len({data.train.labels[i] for i in left_out})
    _log.info("rehearsal_began", classes=len(kept), left_out=missing, images=len(part.train_rows))
    countdown.enter(REHEARSAL)
    prepare(run, place, part, start, Begin(resumes and place.checkpoint.exists(), None))
    if not train(settings, run, place, countdown):
        return None
    del run, start
    model = load_model(pair_settings(settings.model, place), settings.decode, with_card=False)
    chosen = HeldOut(
        images, some_of(settings, left_out, settings.finetune.judged_images), settings.finetune.batch_images
    )
    kinds = (None, *shifts())
    countdown.enter(NEW)
    return tuple(conditions_of(model.classifier, chosen, "new", kinds, countdown))


def part_of(data: Data, settings: Settings) -> Data | str:
    """The images that a rehearsal is trained on and judged by; or why there cannot be one."""
    labels = sorted({data.train.labels[i] for i in data.train_rows})
    kept = kept_classes(labels, settings.finetune.seed)
    if len(kept) == len(labels):
        return f"images of {len(labels)} classes, and it takes {LEAST_CLASSES} to leave some out"
    held_out = [i for i in data.held_out_rows if data.held_out.labels[i] in kept]
    if not held_out:
        return f"no held-out image of {', '.join(sorted(kept)[:5])}, which it would learn"
    train = [i for i in data.train_rows if data.train.labels[i] in kept]
    return replace(data, train_rows=train, held_out_rows=held_out)


def stages_after(settings: Settings, data: Data) -> dict[str, int]:
    """The stages after the training, and the passes of images through the model that each takes."""
    part = part_of(data, settings)
    some = settings.finetune.judged_images
    card, few = (min(limit, len(data.held_out_rows)) for limit in (settings.finetune.card_images, some))
    conditions, each = len(shifts()), computed_alphas(GRID)
    ends = {CARD: card * len(GRID) + conditions * min(few, card) * each, VERDICT: 0}
    if not settings.finetune.rehearsal or isinstance(part, str):
        return ends
    unseen = min(some, len(data.train_rows) - len(part.train_rows))
    return {REHEARSAL: whole_passes(settings, part), NEW: (1 + conditions) * unseen * each, **ends}
