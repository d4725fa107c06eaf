"""The rehearsal: the same fine-tuning without some of the classes, to see how it treats what it never saw.

theta_1 knows every class that has images. It cannot show how confident it is about unknown classes, and how rightly,
and an objective that takes confidence for knowledge fails there. So the recipe is run again on half of the classes: to
that model, the others are new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import structlog
import torch

from adawise.adapt.names import GRID
from adawise.adapt.search import forward_cost
from adawise.card.card import Condition
from adawise.clip.classifier import PairClassifier
from adawise.errors import DivergedError, SettingsError
from adawise.settings import Settings
from adawise_lab.evaluate.corrupt import Corruption, corrupt, parse
from adawise_lab.finetune.countdown import CARD, NEW, REHEARSAL, VERDICT, Countdown
from adawise_lab.finetune.images import HeldOut
from adawise_lab.finetune.train import FinetuneRun
from adawise_lab.finetune.training import Begin, Data, TrainingJob, prepare, starting_model, train, whole_passes
from adawise_lab.labelled import logits_of

_log = structlog.get_logger("finetune")

LEAST_CLASSES = 4
LEAVES_OUT = 0.5  # share of the classes
STEP = 4  # logits are computed at every fourth alpha, as they change little from one to the next
_SHIFTS = "gaussian_noise:2,motion_blur:2,fog:2,contrast:2,jpeg:4"
_SEED = 0


def kept_classes(classes: Sequence[str], seed: int) -> frozenset[str]:
    """Return the classes that a rehearsal is trained on; all of them if they are too few to leave some out."""
    if len(classes) < LEAST_CLASSES:
        return frozenset(classes)
    mixed = np.random.default_rng(seed).permutation(len(classes))
    return frozenset(classes[i] for i in mixed[round(LEAVES_OUT * len(classes)) :])


def shifts() -> tuple[Corruption, ...]:
    """Return the corruptions that images are judged under, beside clean ones; none if scikit-image is missing."""
    return parse(_SHIFTS) if find_spec("skimage") is not None else ()


def computed_alphas(alphas: Sequence[float]) -> int:
    """Return the number of alphas at which a condition's images pass the model."""
    return len(range(0, len(alphas) - 1, STEP)) + 1


def conditions_of(
    classifier: PairClassifier, images: HeldOut, group: str, kinds: Sequence[Corruption | None], countdown: Countdown
) -> Iterator[Condition]:
    """Yield the images as a condition for each kind of shift, None for clean ones: `GROUP_fog2`, `GROUP_clean`."""
    batches = list(images)
    bar = countdown.at_many_alphas(computed_alphas(classifier.alphas), classifier.tail_share)
    for kind in kinds:
        shifted = ((pixels if kind is None else _under(kind, pixels), labels) for pixels, labels in batches)
        logits, labels = logits_of(classifier, shifted, bar, step=STEP)
        yield Condition(f"{group}_{kind or 'clean'}", logits.__getitem__, labels)


def _under(kind: Corruption, pixels: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack([corrupt(image, kind, _SEED) for image in pixels.numpy()]))


def rehearse(
    job: TrainingJob, notes: list[str], *, epochs: int, resumes: bool, countdown: Countdown
) -> tuple[Condition, ...] | None:
    """Train a pair on some of the classes as theta_1 was, and return its results on images of the other classes.

    It is trained for `epochs`, as theta_1 was: trained longer, it would be more confident about unknown classes than
    theta_1 is.

    Returns:
        The conditions. They are empty if no rehearsal is asked for, if the images do not allow one, or if it fails,
        which is added to `notes`. None if it was stopped.
    """
    try:
        return _rehearsed(job, epochs, resumes, countdown)
    except (SettingsError, DivergedError) as error:  # theta_1 is made, and a rehearsal that fails must not lose it
        # DivergedError names the best epoch and says how to start anew, which is not for a rehearsal; its cause says
        # why.
        why = f"it diverged, {error.__cause__}" if error.__cause__ and isinstance(error, DivergedError) else str(error)
        note = "theta_1 does not change; the verdict does not cover classes without images"
        _log.warning("rehearsal_left_out", why=why, note=note)
        notes.append(f"New classes are not judged, as the rehearsal failed: {why}")
        return ()


def _rehearsed(job: TrainingJob, epochs: int, resumes: bool, countdown: Countdown) -> tuple[Condition, ...] | None:
    """Run the rehearsal; see `rehearse`.

    Raises:
        SettingsError: images cannot be read.
        DivergedError: the training diverged.
    """
    settings, data = job.settings, job.data
    part = part_of(data, settings)
    if not settings.finetune.rehearsal or isinstance(part, str):
        return ()
    kept = {data.train.labels[i] for i in part.train_rows}
    left_out = [i for i in data.train_rows if data.train.labels[i] not in kept]
    # Its curve is not reported to TensorBoard or MLflow, which have that of theta_1.
    untracked = settings.finetune.model_copy(update={"tensorboard": False, "mlflow": False})
    settings = settings.model_copy(update={"finetune": untracked})
    half = replace(job, settings=settings, data=part, folder=job.folder.rehearsal)
    start = starting_model(settings)
    run = half.run(start, ends_with=epochs)
    missing = len({data.train.labels[i] for i in left_out})
    _log.info("rehearsal_began", classes=len(kept), left_out=missing, images=len(part.train_rows))
    countdown.enter(REHEARSAL)
    prepare(run, half, start, Begin(resumes and half.folder.checkpoint.exists(), None))
    if not train(run, half, countdown):
        return None
    del run, start  # frees their memory for the pair
    model, chosen = half.model(), half.some(left_out, settings.finetune.judged_images)
    images, kinds = HeldOut(job.images, chosen, settings.finetune.batch_images), (None, *shifts())
    countdown.enter(NEW)
    return tuple(conditions_of(model.classifier, images, "new", kinds, countdown))


def part_of(data: Data, settings: Settings) -> Data | str:
    """Return the images that a rehearsal is trained on and judged by; or a text that says why there can be none."""
    labels = sorted({data.train.labels[i] for i in data.train_rows})
    kept = kept_classes(labels, settings.finetune.seed)
    if len(kept) == len(labels):
        return f"images of {len(labels)} classes, but leaving some out needs {LEAST_CLASSES}"
    held_out = [i for i in data.held_out_rows if data.held_out.labels[i] in kept]
    if not held_out:
        return f"no held-out image of {', '.join(sorted(kept)[:5])}, which it would learn"
    train = [i for i in data.train_rows if data.train.labels[i] in kept]
    return replace(data, train_rows=train, held_out_rows=held_out)


def stages_after(run: FinetuneRun, settings: Settings, data: Data) -> dict[str, float]:
    """Return the stages after the training, with the passes of images through the model that each takes."""
    part = part_of(data, settings)
    some = settings.finetune.judged_images
    card, few = (min(limit, len(data.held_out_rows)) for limit in (settings.finetune.card_images, some))
    conditions = len(shifts())
    # What is not trained is equal in the two models that are made.
    whole, each = (forward_cost(alphas, run.trained_share) for alphas in (len(GRID), computed_alphas(GRID)))
    ends = {CARD: card * whole + conditions * min(few, card) * each, VERDICT: 0.0}
    if not settings.finetune.rehearsal or isinstance(part, str):
        return ends
    new = min(some, len(data.train_rows) - len(part.train_rows))
    return {REHEARSAL: whole_passes(run, part), NEW: (1 + conditions) * new * each, **ends}
