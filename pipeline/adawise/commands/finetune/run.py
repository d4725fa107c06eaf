"""Settings -> theta_1 and its card from theta_0 and labelled images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import structlog
import torch

from adawise.adapt.advice import OWN, judge
from adawise.adapt.card import Card, Condition, make_card
from adawise.build.decoder import rendition
from adawise.build.machine import usable_cores
from adawise.build.model import load_model, number_format, open_device, use_cores
from adawise.build.prompts import prompt_templates, read_lines
from adawise.build.signals import INTERRUPTED, stop_signals
from adawise.clip.classifier import GRID, digest
from adawise.clip.device import Device
from adawise.clip.heads import heads_path, write_heads
from adawise.clip.load import StartingModel, load_starting_model
from adawise.commands.finetune.forecast import Forecast
from adawise.commands.finetune.notes import check_classes, notes_on
from adawise.commands.finetune.rehearsal import LEAST_CLASSES, computed_alphas, conditions_of, kept_classes, shifts
from adawise.commands.finetune.report import facts_of, print_curve, record_of, tell
from adawise.commands.finetune.trackers import check_trackers, trackers
from adawise.commands.labelled import logits_of, open_samples, tell_skipped
from adawise.console import print_json, progress
from adawise.decode.preprocess import Preprocess
from adawise.errors import SettingsError, TrainingError
from adawise.evaluate.verdict import verdict_of
from adawise.finetune.checkpoint import remove_leftovers, write_bytes
from adawise.finetune.comparison import SHOWN, Comparison, WrongImage
from adawise.finetune.folder import Folder
from adawise.finetune.images import HeldOut, Images
from adawise.finetune.learner import Learner
from adawise.finetune.recipe import Recipe
from adawise.finetune.run import Epoch, FinetuneRun
from adawise.labelled.samples import Samples, split
from adawise.page import NEEDS as PAGE_NEEDS
from adawise.page.notation import counted
from adawise.settings import FinetuneSettings, ModelSettings, Settings

if TYPE_CHECKING:
    from adawise.commands.finetune.options import FinetuneCommand

_log = structlog.get_logger("finetune")


@dataclass(frozen=True, eq=False)
class Data:
    """What is trained on and what is held out, by image numbers; class names and prompts."""

    train: Samples
    train_rows: list[int]
    held_out: Samples
    held_out_rows: list[int]
    classes: tuple[str, ...]
    templates: tuple[str, ...]


class _Begin(NamedTuple):
    """How a run begins: at a checkpoint, behind a run that `ended`, or anew."""

    resumes: bool
    ended: Mapping[str, Any] | None
    repeated: float = 0.0  # share of the training that comes again, for the rehearsal
    forwards: int = 0  # of images, after the training


def finetune(asked: FinetuneCommand) -> int:
    """Train, or go on training; then make the card and print the record. 130 if it was stopped before its end."""
    settings, resume = asked.settings, asked.resume
    check_trackers(settings.finetune)
    folder = Folder(asked.output)
    folder.check(resume=resume, overwrite=asked.overwrite)
    use_cores(settings.model.threads)
    data = _read(settings, asked.labelled, asked.validation)
    start = _start(settings)
    decided = _decided_by(settings, data, start)
    ended = folder.finished(decided) if resume else None
    if ended is not None and ended["settings"] == dict(decided):
        tell(ended, asked, folder)
        return 0
    notes = _notes(settings, data)
    for note in notes:
        _log.warning("data_questioned", note=note)
    with _decoders(settings, data, start.preprocess) as (images, judges):
        run = _run(settings, data, start, folder, images, judges)
        begin = _Begin(resume and ended is None, ended, *_work_after(settings, data))
        if not _train(settings, run, folder, data, start, begin):
            return INTERRUPTED
        found = run.compare()
        broken = {**run.skipped, **judges.skipped}
        if broken:
            tell_skipped(data.train.where, broken)
        skipped = {**data.train.passed_over, **data.held_out.passed_over, **broken}
        facts = facts_of(run, found, data.classes, notes, skipped)
        if found.ruin is not None:
            _reject(folder, facts, found.ruin, asked)
        del run, start  # their memory is for the rehearsal
        try:
            unseen = _rehearse(settings, data, folder, (images, judges), resumes=resume)
            if unseen is None:
                return INTERRUPTED
            card = _card(settings, folder, judges, data, unseen)
        except KeyboardInterrupt:
            print("stopped before there was a card; the same command with --resume goes on", file=sys.stderr)
            return INTERRUPTED
        record = record_of(settings, facts, card, [data.held_out.names[i] for i in data.held_out_rows])
        write_bytes(folder.record, json.dumps(record, indent=1).encode())
        _write_page(folder, record, asked, _wrong(data, judges, found))
    folder.checkpoint.unlink(missing_ok=True)
    folder.remove_rehearsal()
    tell(record, asked, folder)
    return 0


def _start(settings: Settings) -> StartingModel:
    """theta_0, to be trained."""
    model = settings.model
    assert model.theta_0 is not None  # the command line has seen to it
    start = load_starting_model(model.architecture, model.theta_0, wanted=model.preprocessing)
    return replace(start, preprocess=replace(start.preprocess, rendition=rendition(settings.decode)))


def _rehearse(
    settings: Settings, data: Data, folder: Folder, decoders: tuple[Images, Images], *, resumes: bool
) -> tuple[Condition, ...] | None:
    """What a pair says that was made the same way of some classes alone, of images of the others; None if stopped.

    Empty where that is not asked for, or images do not allow it, which is told: here, or by `_notes`.
    """
    try:
        return _rehearsed(settings, data, folder, decoders, resumes=resumes)
    except SettingsError as error:  # theta_1 is made, and images of some of its classes are no reason to lose it
        _log.warning("rehearsal_left_out", why=str(error), note="the verdict says nothing of classes without images")
        return ()


def _rehearsed(
    settings: Settings, data: Data, folder: Folder, decoders: tuple[Images, Images], *, resumes: bool
) -> tuple[Condition, ...] | None:
    """As `_rehearse`. Raises SettingsError: images cannot be read."""
    part = _rehearsal_part(data, settings)
    if not settings.finetune.rehearsal or isinstance(part, str):
        return ()
    images, judges = decoders
    kept = {data.train.labels[i] for i in part.train_rows}
    left_out = [i for i in data.train_rows if data.train.labels[i] not in kept]
    place = folder.rehearsal
    untracked = settings.finetune.model_copy(update={"tensorboard": False, "mlflow": False})
    settings = settings.model_copy(update={"finetune": untracked})
    start = _start(settings)
    run = _run(settings, part, start, place, images, judges)
    missing = len({data.train.labels[i] for i in left_out})
    _log.info("rehearsal_began", classes=len(kept), left_out=missing, images=len(part.train_rows))
    begin = _Begin(resumes and place.checkpoint.exists(), None)
    if not _train(settings, run, place, part, start, begin):
        return None
    del run, start
    model = load_model(pair_settings(settings.model, place), settings.decode, with_card=False)
    chosen = HeldOut(images, _some(settings, left_out, settings.finetune.judged_images), settings.finetune.batch_images)
    kinds = (None, *shifts())
    with progress("judged unseen classes", total=len(kinds) * len(chosen.rows) * computed_alphas(GRID)) as bar:
        return tuple(conditions_of(model.classifier, chosen, "new", kinds, bar))


def _rehearsal_part(data: Data, settings: Settings) -> Data | str:
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


def _work_after(settings: Settings, data: Data) -> tuple[float, int]:
    """What comes after the training: the share of it that is rehearsed, and forwards of images for card and verdict."""
    part = _rehearsal_part(data, settings)
    some = settings.finetune.judged_images
    card, few = (min(limit, len(data.held_out_rows)) for limit in (settings.finetune.card_images, some))
    conditions, each = len(shifts()), computed_alphas(GRID)
    forwards = card * len(GRID) + conditions * min(few, card) * each
    if not settings.finetune.rehearsal or isinstance(part, str):
        return 0.0, forwards
    rehearsed = len(part.train_rows)
    unseen = min(some, len(data.train_rows) - rehearsed)
    return rehearsed / len(data.train_rows), forwards + (1 + conditions) * unseen * each


def _some(settings: Settings, rows: Sequence[int], limit: int) -> list[int]:
    """At most so many, at random."""
    mixed: list[int] = _recipe(settings.finetune).random().permutation(rows).tolist()
    return mixed[:limit]


def _notes(settings: Settings, data: Data) -> list[str]:
    check_classes(data.train)
    labels = [data.train.labels[i] for i in data.train_rows]
    are_listed = settings.model.classes is not None
    notes = notes_on(settings.finetune, labels, len(data.held_out_rows), data.classes, are_listed=are_listed)
    if empty := sorted({*data.train.empty, *data.held_out.empty}):
        have = counted(len(empty), "folder of a class has", "folders of classes have")
        notes.append(f"{have} no image: {', '.join(empty[:5])}.")
    if settings.finetune.rehearsal and isinstance(why := _rehearsal_part(data, settings), str):
        notes.append(f"Nothing is said of new classes, as there is no rehearsal: {why}.")
    if not shifts():
        notes.append("Nothing is said of shifts, as scikit-image is missing (pip install 'adawise[report]').")
    return notes


def _reject(folder: Folder, facts: Mapping[str, Any], ruin: str, asked: FinetuneCommand) -> NoReturn:
    """Keep what was made apart, with its record, and say why. Raises TrainingError."""
    record = {**facts, "ruin": ruin}
    apart = folder.reject()
    write_bytes(apart.record, json.dumps(record, indent=1).encode())
    if asked.as_json:
        print_json({**record, "output": str(apart.path)})
    else:
        print_curve(record)
    rate = asked.settings.finetune.learning_rate
    raise TrainingError(
        f"the pair must not serve: {ruin}. It is kept apart in {apart.path}, without a card. "
        f"Lower finetune.learning_rate (it was {rate:g}) or finetune.epochs, and start with --overwrite."
    )


def _write_page(folder: Folder, record: Mapping[str, Any], asked: FinetuneCommand, wrong: Sequence[WrongImage]) -> None:
    """The page beside the record; one line in its place if it cannot be made here."""
    missing = [package for module, package in PAGE_NEEDS.items() if find_spec(module) is None]
    if missing:
        note = f"{folder.path}: no {folder.page.name}, it needs {', '.join(missing)} (pip install 'adawise[report]')"
        print(note, file=sys.stderr)
        return
    from adawise.finetune.page.write import page

    write_bytes(folder.page, page(record, asked.written_out(), wrong).encode())


def _run(
    settings: Settings, data: Data, start: StartingModel, folder: Folder, images: Images, judges: Images
) -> FinetuneRun:
    return FinetuneRun(
        learner=_learner(settings, data, start),
        images=images,
        train_rows=data.train_rows,
        prompts=len(data.templates),
        held_out=HeldOut(judges, data.held_out_rows, settings.finetune.batch_images),
        checkpoint=folder.checkpoint,
        weights=folder.weights,
        settings=_decided_by(settings, data, start),
        checkpoint_every_s=settings.finetune.checkpoint_every_s,
    )


def _read(settings: Settings, labelled: Path, validation: Path | None) -> Data:
    named = settings.model.classes
    known = read_lines(named, "model.classes", "class name") if named is not None else None
    train = open_samples(settings.decode, labelled, "--labelled", known)
    classes = known or train.classes
    if validation is not None:
        held_out = open_samples(settings.decode, validation, "--validation", classes, listed=known is not None)
        rows = train.usable, held_out.usable
    else:
        held_out, rows = train, split(train, settings.finetune.validation_share, settings.finetune.seed)
    return Data(train, rows[0], held_out, rows[1], classes, prompt_templates(settings.model))


def _recipe(settings: FinetuneSettings) -> Recipe:
    return Recipe(**settings.model_dump(include={field.name for field in fields(Recipe)}))


def _wrong(data: Data, judges: Images, found: Comparison) -> list[WrongImage]:
    """The first held-out images that theta_1 takes for something else, small."""
    rows = [i for i in data.held_out_rows if data.held_out.names[i] not in judges.skipped]
    if len(rows) != len(found.labels):  # one that could be read at some times alone: nobody knows which is which
        return []
    named = zip(rows, found.labels, found.fine_tuned, strict=True)
    mistaken = [(i, own, other) for i, own, other in named if own != other][:SHOWN]
    return [
        WrongImage(data.held_out.names[i], data.classes[own], data.classes[other], picture)
        for i, own, other in mistaken
        if (picture := judges.thumbnail(i)) is not None
    ]


def _decided_by(settings: Settings, data: Data, start: StartingModel) -> Mapping[str, str]:
    """All that decides what is computed, by name; where the files lie does not."""
    device = open_device(settings.model)
    return {
        **_recipe(settings.finetune).as_settings(),
        "model.theta_0": start.hash,
        "model.classes": digest("\n".join(data.classes)),
        "model.templates": digest("\n".join(data.templates)),
        "model.device": device.where.type,
        "model.precision": str(_training_format(settings, device)).removeprefix("torch."),
        "preprocessing": start.preprocess.oldest,
        "--labelled": f"{len(data.train_rows)} images {digest(f'{data.train.digest} {data.train_rows}')}",
        "--validation": f"{len(data.held_out_rows)} images {digest(f'{data.held_out.digest} {data.held_out_rows}')}",
    }


def _learner(settings: Settings, data: Data, start: StartingModel) -> Learner:
    device = open_device(settings.model)
    return Learner(
        start.model,
        start.tokenizer([template.replace("{}", name) for name in data.classes for template in data.templates]),
        classes=len(data.classes),
        mean=start.mean,
        std=start.std,
        recipe=_recipe(settings.finetune),
        device=device.where,
        dtype=_training_format(settings, device),
    )


def _training_format(settings: Settings, device: Device) -> torch.dtype:
    """bfloat16 for mixed precision or float32: float16 would need its losses scaled, and tf32 is for serving."""
    if settings.model.precision in {"fp16", "tf32"}:
        raise SettingsError(
            f"model.precision is {settings.model.precision}: a model is fine-tuned in bf16 or fp32. "
            "Set one of them, or auto."
        )
    dtype = number_format(settings.model, device)
    return torch.float32 if dtype == torch.float16 else dtype


@contextmanager
def _decoders(settings: Settings, data: Data, preprocess: Preprocess) -> Iterator[tuple[Images, Images]]:
    """What decodes the images to train on, and those that judge: one, if they lie in one place."""
    index = {name: number for number, name in enumerate(data.classes)}

    def decoder(samples: Samples) -> Images:
        return Images(
            samples,
            index,
            preprocess=preprocess,
            max_pixels=settings.decode.max_pixels,
            threads=settings.decode.threads or usable_cores(),
        )

    with closing(decoder(data.train)) as images, closing(decoder(data.held_out)) as judges:
        yield images, judges


def _train(
    settings: Settings, run: FinetuneRun, folder: Folder, data: Data, start: StartingModel, begin: _Begin
) -> bool:
    """Train to the end (True) or until stopped; what happens is told as it does."""
    forecast = Forecast(run, repeated=begin.repeated, forwards=begin.forwards)
    recipe = run.recipe
    if begin.resumes:
        remove_leftovers(folder.path)
        remove_leftovers(folder.theta_1)
        run.resume()
    elif begin.ended is not None:
        run.extend([Epoch.of_row(row) for row in begin.ended["curve"]], begin.ended.get("extended_after", []))
    else:
        folder.begin(start.config, data.classes, data.templates)
    with progress("trained and judged", total=_images_left(run)) as bar, stop_signals() as stopping:
        run.on_judged = bar.advance
        if not run.progress.curve:
            run.start()
        done = run.progress
        zero = done.curve[0].accuracy
        _log.info("training_began", images=len(run.train_rows), held_out=len(run.held_out.rows), theta_0=zero)
        with trackers(settings.finetune, folder, run) as track:

            def on_update(images: int, loss: float) -> None:
                bar.note(f"epoch {done.epoch} of {recipe.epochs}, loss {loss:.3f}")
                bar.advance(images)
                forecast.updated()

            def on_epoch(row: Epoch) -> None:
                _log.info("epoch_finished", **row.as_row())
                if row.has_barrier:
                    _log.warning("barrier_found", accuracy=row.accuracy, accuracy_half=row.accuracy_half)
                track(row)

            finished = run.go(stopping=stopping, on_update=on_update, on_epoch=on_epoch)
    if not finished:
        where = f"epoch {done.epoch} after {done.update} updates, in {folder.path}"
        print(f"stopped in {where}; the same command with --resume goes on from there", file=sys.stderr)
    return finished


def _images_left(run: FinetuneRun) -> int:
    """To train on, and to judge with: twice an epoch, and theta_0 once."""
    recipe, done = run.recipe, run.progress
    per_epoch = recipe.updates(len(run.train_rows)) * recipe.batch_images * recipe.accumulate
    held_out = len(run.held_out.rows)
    left = (recipe.epochs - done.epoch + 1) * (per_epoch + 2 * held_out) - done.images
    return max(0, left) + (0 if done.curve else held_out)


def _card(settings: Settings, folder: Folder, judges: Images, data: Data, unseen: Sequence[Condition]) -> Card:
    """Load the pair as a worker would, and make its card from held-out images, as they are and shifted.

    It is judged on these and on `unseen`, conditions of a pair that was made the same way.
    """
    limit, judged, batch = (getattr(settings.finetune, f"{name}_images") for name in ("card", "judged", "batch"))
    model = load_model(pair_settings(settings.model, folder), settings.decode, with_card=False)
    mixed, alphas, kinds = _some(settings, data.held_out_rows, limit), model.classifier.alphas, shifts()
    few = HeldOut(judges, mixed[:judged], batch)
    forwards = len(mixed) * len(alphas) + len(kinds) * len(few.rows) * computed_alphas(alphas)
    with progress("calibrated", total=forwards) as bar:
        logits, labels = logits_of(model.classifier, HeldOut(judges, mixed, batch), bar)
        shifted = [*conditions_of(model.classifier, few, "shifted", kinds, bar), *unseen]
    card = make_card(
        logits.__getitem__,
        labels,
        shifted,
        alphas=alphas,
        identity=model.classifier.identity,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    heads = write_heads(heads_path(folder.card), model.classifier.embeddings())
    home = Condition(OWN, logits.__getitem__, labels)
    card = replace(card, judged=judge(home, shifted, card), heads=heads)
    if shifted:
        card = replace(card, verdict=verdict_of(card, [replace(home, name="home"), *shifted]))
    write_bytes(folder.card, card.to_json().encode())
    return card


def pair_settings(settings: ModelSettings, folder: Folder) -> ModelSettings:
    """The settings of a worker that uses what was made."""
    made = {"theta_1": f"local-dir:{folder.theta_1}", "classes": folder.classes, "templates": folder.templates}
    return settings.model_copy(update=made)
