"""A training run, as the settings ask for it: its images, its model, and its epochs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import structlog
import torch

from adawise.app.machine import usable_cores
from adawise.app.model import ModelPair, load_model, number_format, open_device
from adawise.app.parts import rendition
from adawise.app.prompts import prompt_templates, read_lines
from adawise.app.signals import stop_signals
from adawise.clip.classifier import digest
from adawise.clip.device import Device
from adawise.clip.load import StartingModel, load_starting_model, stated_blocks
from adawise.console import progress
from adawise.decode.preprocess import Preprocess
from adawise.errors import SettingsError
from adawise.labels.folders.samples import Samples, contents_digest, split
from adawise.settings import FinetuneSettings, Settings
from adawise_lab.finetune.countdown import Countdown, Forecast
from adawise_lab.finetune.folder import CONTENTS, Folder, remove_leftovers
from adawise_lab.finetune.images import HeldOut, Images
from adawise_lab.finetune.learner import Learner, check_blocks, image_blocks
from adawise_lab.finetune.recipe import BLOCKS_SHARE, IN_0_2, Recipe, auto_rate, updates_of
from adawise_lab.finetune.trackers import trackers
from adawise_lab.finetune.train import Epoch, FinetuneRun
from adawise_lab.labelled import open_samples

_log = structlog.get_logger("finetune")

UNKNOWN_CONTENTS = (
    "The version that began the run stored names, labels and sizes of its images, but not hashes of their "
    "contents: an image that was replaced by one of equal size is not noticed."
)


@dataclass(frozen=True, eq=False)
class Data:
    """The images to train on and the held-out ones, by row; class names and prompts; a digest of the images."""

    train: Samples
    train_rows: list[int]
    held_out: Samples
    held_out_rows: list[int]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    contents: str

    @property
    def counts(self) -> list[int]:
        """The images to train on of each class, `[C]`."""
        found = Counter(self.train.labels[i] for i in self.train_rows)
        return [found[name] for name in self.classes]


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """A model to be trained: by which settings, on which images, and into which folder.

    Attributes:
        settings: the settings.
        data: the images, by row.
        folder: the folder for what is made.
        images: the decoder of the images to train on.
        held_out_images: the decoder of the held-out images.
    """

    settings: Settings
    data: Data
    folder: Folder
    images: Images
    held_out_images: Images

    def run(self, start: StartingModel, *, ends_with: int | None = None) -> FinetuneRun:
        """Return the run before its start.

        Args:
            start: theta_0.
            ends_with: an epoch after which the run ends and whose weights are taken; None: as the recipe says.
        """
        settings, data, device = self.settings, self.data, open_device(self.settings.model)
        learner = Learner(
            start.model,
            start.tokenizer([template.replace("{}", name) for name in data.classes for template in data.templates]),
            classes=len(data.classes),
            counts=data.counts,
            mean=start.mean,
            std=start.std,
            recipe=recipe_of(settings.finetune),
            device=device.where,
            dtype=_training_format(settings, device),
        )
        trunk = learner.trunk(start.preprocess.size)
        held_out = HeldOut(self.held_out_images, data.held_out_rows, settings.finetune.batch_images)
        return FinetuneRun(
            learner=learner,
            images=self.images,
            train_rows=data.train_rows,
            prompts=len(data.templates),
            held_out=learner.behind(trunk, held_out),
            checkpoint=self.folder.checkpoint,
            weights=self.folder.weights,
            settings=decided_by(settings, data, start),
            checkpoint_every_s=settings.finetune.checkpoint_every_s,
            ends_with=ends_with,
            trained_share=1.0 if trunk is None else trunk.tail_share,
        )

    def some(self, rows: Sequence[int], limit: int) -> list[int]:
        """Return at most `limit` rows, drawn at random."""
        mixed: list[int] = recipe_of(self.settings.finetune).random().permutation(rows).tolist()
        return mixed[:limit]

    def model(self) -> ModelPair:
        """Return the pair that was made, as a worker loads it."""
        folder, settings = self.folder, self.settings
        made = {"theta_1": f"local-dir:{folder.theta_1}", "classes": folder.classes, "templates": folder.templates}
        return load_model(settings.model.model_copy(update=made), settings.decode, with_card=False)


class Begin(NamedTuple):
    """The beginning of a run: at a checkpoint, after a run that `ended`, or anew."""

    resumes: bool
    ended: Mapping[str, Any] | None


def read_data(settings: Settings, labelled: Path | Samples, validation: Path | None) -> Data:
    """Read the labelled images, unless they are listed already, and choose which are held out.

    Raises:
        SettingsError: labels, names and images do not agree.
    """
    named = settings.model.classes
    known = read_lines(named, "model.classes", "class name") if named is not None else None
    train = labelled if isinstance(labelled, Samples) else open_samples(settings.decode, labelled, "--labelled", known)
    classes = known or train.classes
    if validation is not None:
        held_out = open_samples(settings.decode, validation, "--validation", classes, listed=known is not None)
        rows = train.usable, held_out.usable
    else:
        held_out, rows = train, split(train, settings.finetune.validation_share, settings.finetune.seed)
    contents = _contents([(train, rows[0]), (held_out, rows[1])])
    return Data(train, rows[0], held_out, rows[1], classes, prompt_templates(settings.model), contents)


def _contents(used: Sequence[tuple[Samples, Sequence[int]]]) -> str:
    """Return a digest of every byte of the images. That of a recording is known from listing it."""
    unread = sum(len(rows) for samples, rows in used if not samples.is_exact)
    with progress("inspected", unread) as bar:
        return digest(" ".join(s.digest if s.is_exact else contents_digest(s, rows, bar.advance) for s, rows in used))


def check_stated_blocks(settings: Settings) -> None:
    """Raise SettingsError if `finetune.blocks` is too large by the config of theta_0, which is read at once.

    A tower whose config does not state its blocks is checked once it is loaded.
    """
    model, blocks = settings.model, settings.finetune.blocks
    assert model.theta_0 is not None  # the command line has checked it
    if isinstance(blocks, int) and (there := stated_blocks(model.architecture, model.theta_0)) is not None:
        check_blocks(blocks, there)


def starting_model(settings: Settings) -> StartingModel:
    """Return theta_0, to be trained."""
    model = settings.model
    assert model.theta_0 is not None  # the command line has checked it
    start = load_starting_model(model.architecture, model.theta_0, wanted=model.preprocessing)
    return replace(start, preprocess=replace(start.preprocess, rendition=rendition(settings.decode)))


def decided_by(settings: Settings, data: Data, start: StartingModel) -> Mapping[str, str]:
    """Return all that decides what is computed, by name. Where the files lie does not decide it."""
    device = open_device(settings.model)
    return {
        **recipe_of(settings.finetune).as_settings(),
        "model.theta_0": start.hash,
        "model.classes": digest("\n".join(data.classes)),
        "model.templates": digest("\n".join(data.templates)),
        "model.device": device.where.type,
        "model.precision": str(_training_format(settings, device)).removeprefix("torch."),
        "preprocessing": start.preprocess.oldest,
        "--labelled": f"{len(data.train_rows)} images {digest(f'{data.train.digest} {data.train_rows}')}",
        CONTENTS: data.contents,
        "--validation": f"{len(data.held_out_rows)} images {digest(f'{data.held_out.digest} {data.held_out_rows}')}",
    }


def recipe_of(settings: FinetuneSettings) -> Recipe:
    """Return the settings that decide what a run computes. No setting of the recipe may be `auto` any more."""
    blocks = None if settings.blocks == "all" else settings.blocks
    return Recipe(**settings.model_dump(include={field.name for field in fields(Recipe)}) | {"blocks": blocks})


def for_run(settings: Settings, start: StartingModel, images: int) -> Settings:
    """Return the settings with the learning rate and the blocks that `auto` means for theta_0 and so many images."""
    recipe = settings.finetune
    blocks, rate = recipe.blocks, recipe.learning_rate
    if blocks == "auto":
        there = image_blocks(name for name, _ in start.model.named_parameters())
        blocks = "all" if there < 2 or recipe.loss == "flyp" else max(1, round(there * BLOCKS_SHARE))
    if rate == "auto":
        rate = auto_rate(recipe.loss, recipe.epochs * updates_of(images, recipe.batch_images * recipe.accumulate))
    return _with_recipe(settings, {"learning_rate": rate, "blocks": blocks})


def as_recorded(settings: Settings, folder: Folder) -> Settings:
    """Return the settings for a run that is resumed: what is `auto` stays as it was when the run began.

    What `auto` means depends on the processor, and on the version.
    """
    recorded = folder.recorded()
    if not recorded:
        return settings
    then = {**IN_0_2, **recorded}
    for name in ("learning_rate", "blocks"):
        if getattr(settings.finetune, name) == "auto" and f"finetune.{name}" in then:
            with suppress(ValueError):  # resuming names a value that is damaged
                settings = _with_recipe(settings, {name: _unless_none(then[f"finetune.{name}"])})
    began = then.get("model.precision", "")
    if settings.model.precision != "auto" or began not in _SETTINGS:
        return settings
    now = _training_format(settings, open_device(settings.model))
    if now == getattr(torch, began):
        return settings
    note = f"the run goes on in {began}, in which it began; a new one would be in {now} on this machine"
    _log.info("precision_followed", precision=began, note=note.replace("torch.", ""))
    return settings.model_copy(update={"model": settings.model.model_copy(update={"precision": _SETTINGS[began]})})


def _unless_none(value: str) -> str | None:
    return None if value == "None" else value


def _with_recipe(settings: Settings, values: Mapping[str, Any]) -> Settings:
    recipe = FinetuneSettings.model_validate({**settings.finetune.model_dump(), **values})
    return settings.model_copy(update={"finetune": recipe})


_SETTINGS = {"float32": "fp32", "bfloat16": "bf16"}  # number formats of training, by their names in a record


def _training_format(settings: Settings, device: Device) -> torch.dtype:
    """Return bfloat16 for mixed precision, or float32: float16 would need its losses scaled, and tf32 is for serving.

    Raises:
        SettingsError: the settings ask for fp16 or tf32.
    """
    if settings.model.precision in {"fp16", "tf32"}:
        raise SettingsError(
            f"model.precision is {settings.model.precision}: a model is fine-tuned in bf16 or fp32. "
            "Set one of them, or auto."
        )
    dtype = number_format(settings.model, device)
    return torch.float32 if dtype == torch.float16 else dtype


@contextmanager
def job_of(settings: Settings, data: Data, folder: Folder, preprocess: Preprocess) -> Iterator[TrainingJob]:
    """Yield the job; its decoders end with the block."""
    index = {name: number for number, name in enumerate(data.classes)}
    limits = {"max_pixels": settings.decode.max_pixels, "threads": settings.decode.threads or usable_cores()}
    with (
        closing(Images(data.train, index, preprocess=preprocess, **limits)) as images,
        closing(Images(data.held_out, index, preprocess=preprocess, **limits)) as held_out_images,
    ):
        yield TrainingJob(settings, data, folder, images, held_out_images)


def prepare(run: FinetuneRun, job: TrainingJob, start: StartingModel, begin: Begin) -> None:
    """Put a run where it begins: its checkpoint, the end of the run before, or an empty folder."""
    if begin.resumes:
        remove_leftovers(*job.folder.files)
        run.resume()
    elif (ended := begin.ended) is not None:
        run.extend(
            [Epoch.of_row(row) for row in ended["curve"]],
            ended.get("extended_after", []),
            # A record that an extension wrote has the digest of the day of the extension, and the note alone remains.
            contents_unknown=CONTENTS not in ended["settings"] or UNKNOWN_CONTENTS in ended["notes"],
        )
    else:
        job.folder.begin(start.config, job.data.classes, job.data.templates)


def train(run: FinetuneRun, job: TrainingJob, bar: Countdown, forecast: Forecast | None = None) -> bool:
    """Train to the end (return True) or until stopped, and log the progress."""
    with stop_signals() as stopping:
        run.on_evaluated = bar.advance
        if not run.progress.curve:
            run.start()
        done = run.progress
        zero = done.curve[0].accuracy
        _log.info(
            "training_began",
            images=len(run.train_rows),
            held_out=len(run.held_out.rows),
            theta_0=zero,
            learning_rate=run.recipe.learning_rate,
            blocks=run.recipe.blocks or "all",
        )
        with trackers(job.settings.finetune, job.folder, run) as track:

            def on_update(images: int, loss: float) -> None:
                bar.note(f"epoch {done.epoch} of {run.last_epoch}, loss {loss:.3f}")
                bar.advance(run.update_passes * images)
                if forecast is not None:
                    forecast.updated()

            def on_epoch(row: Epoch) -> None:
                _log.info("epoch_finished", **row.as_row())
                if row.has_barrier:
                    _log.warning("barrier_found", accuracy=row.accuracy, accuracy_half=row.accuracy_half)
                track(row)

            finished = run.go(stopping=stopping, on_update=on_update, on_epoch=on_epoch)
    if not finished:
        where = f"epoch {done.epoch} after {done.update} updates, in {job.folder.path}"
        print(f"stopped in {where}; the same command with --resume continues from there", file=sys.stderr)
    return finished


def passes_left(run: FinetuneRun) -> float:
    """Return the passes that are left to train and to judge.

    An image is judged twice in an epoch, and once before, to judge theta_0. In a run that is resumed, it passes the
    frozen layers once more.
    """
    done, images, held_out = run.progress, len(run.train_rows), len(run.held_out.rows)
    epochs = run.last_epoch - done.epoch + 1
    left = epochs * _passes(run, images, held_out) - run.update_passes * done.images
    return max(0.0, left) + held_out * (1.0 - run.judging_passes if done.curve else 1.0)


def whole_passes(run: FinetuneRun, data: Data) -> float:
    """Return the passes of a run like this one on other images, from its beginning, if it has all of its epochs."""
    held_out = len(data.held_out_rows)
    return run.recipe.epochs * _passes(run, len(data.train_rows), held_out) + held_out


def _passes(run: FinetuneRun, images: int, held_out: int) -> float:
    """Return the passes of an epoch; fewer images than a batch make an update as well."""
    recipe = run.recipe
    per_epoch = min(images, recipe.updates(images) * recipe.batch_images * recipe.accumulate)
    return run.update_passes * per_epoch + 2 * run.judging_passes * held_out
