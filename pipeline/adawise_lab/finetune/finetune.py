"""Fine-tuning from its beginning to its end: theta_1, the card of the pair and the record of the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from adawise.app.model import use_cores
from adawise.card.advice import OWN
from adawise.card.card import Card, Condition
from adawise.console import progress
from adawise.errors import TrainingError
from adawise.labels.folders.samples import Samples
from adawise.settings import Settings
from adawise.text import counted
from adawise_lab.card.make import evaluated_card, write_card
from adawise_lab.evaluate.assessment import Judgement
from adawise_lab.evaluate.show import can_write_page
from adawise_lab.finetune.countdown import CARD, TRAINING, VERDICT, Countdown, Forecast
from adawise_lab.finetune.folder import Folder, write_bytes
from adawise_lab.finetune.images import HeldOut
from adawise_lab.finetune.rehearsal import conditions_of, part_of, rehearse, shifts, stages_after
from adawise_lab.finetune.report import check_classes, facts_of, note_on_stretches, notes_on, record_of
from adawise_lab.finetune.trackers import check_trackers
from adawise_lab.finetune.train import SHOWN, Comparison, WrongImage
from adawise_lab.finetune.training import (
    UNKNOWN_CONTENTS,
    Begin,
    Data,
    TrainingJob,
    as_recorded,
    check_stated_blocks,
    decided_by,
    for_run,
    job_of,
    passes_left,
    prepare,
    read_data,
    starting_model,
    train,
)
from adawise_lab.labelled import log_skipped, logits_of

_log = structlog.get_logger("finetune")


@dataclass(frozen=True, slots=True)
class FinetuneRequest:
    """A request to make theta_1, or to go on with that.

    Args:
        settings: theta_0, the recipe, and how images are decoded.
        labelled: the labelled images: their place, or as listed from it.
        output: the folder for theta_1, card and record.
        validation: the images that judge each epoch; None: a share of each class of `labelled`.
        resume: go on with the run in the folder.
        overwrite: start anew in the folder.
        command: the arguments that the page names.
        begins: called once all is checked, before a run that is not resumed replaces what is in the folder.
    """

    settings: Settings
    labelled: Path | Samples
    output: Path
    validation: Path | None = None
    resume: bool = False
    overwrite: bool = False
    command: Sequence[str] = ()
    begins: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Finetuned:
    """A run that ended: its record, the folder of its files, and the reason if the pair must not serve."""

    record: Mapping[str, Any]
    folder: Folder
    rejected: TrainingError | None = None


def finetune(request: FinetuneRequest) -> Finetuned | None:
    """Train, or go on training; then make the card and write the record. Return None if it was stopped before its end.

    Raises:
        SettingsError: settings, images and the folder do not agree.
        TrainingError: the training failed.
    """
    settings, resume = request.settings, request.resume
    check_trackers(settings.finetune)
    folder = Folder(request.output)
    folder.check(resume=resume, overwrite=request.overwrite)
    check_stated_blocks(settings)
    if resume:
        settings = as_recorded(settings, folder)
    use_cores(settings.model.threads)
    data = read_data(settings, request.labelled, request.validation)
    start = starting_model(settings)
    settings = for_run(settings, start, len(data.train_rows))
    decided = decided_by(settings, data, start)
    ended = folder.finished(decided) if resume else None
    if ended is not None and ended["settings"].items() <= decided.items():
        return Finetuned(ended, folder)
    notes = _notes(settings, data)
    for note in notes:
        _log.warning("data_questioned", note=note)
    with job_of(settings, data, folder, start.preprocess) as job, ExitStack() as stack:
        run = job.run(start)
        after = stages_after(run, settings, data)
        forecast = Forecast(run, after)
        if request.begins is not None and not resume:
            request.begins()
        prepare(run, job, start, Begin(resume and ended is None, ended))
        if run.progress.contents_unknown:
            notes.append(UNKNOWN_CONTENTS)
            _log.warning("data_questioned", note=UNKNOWN_CONTENTS)
        stages = {TRAINING: passes_left(run), **after}
        total = round(sum(stages.values()))
        countdown = Countdown(stack.enter_context(progress("fine-tuned", total, "passes")), stages)
        countdown.enter(TRAINING)
        if not train(run, job, countdown, forecast):
            return None
        found = run.compare()
        broken = {**run.skipped, **job.held_out_images.skipped}
        if broken:
            log_skipped(data.train.where, broken)
        skipped = {**data.train.passed_over, **data.held_out.passed_over, **broken}
        facts = facts_of(run, found, data.classes, notes, skipped)
        if found.ruin is not None:
            return _rejected(settings, folder, facts, found.ruin)
        del run, start, forecast  # frees their memory for the rehearsal
        try:
            epochs, notes = facts["best"]["epoch"], facts["notes"]
            rehearsed = rehearse(job, notes, epochs=epochs, resumes=resume, countdown=countdown)
            if rehearsed is None:
                return None
            card, judgement = _card(job, rehearsed, countdown)
        except KeyboardInterrupt:
            print("stopped before there was a card; the same command with --resume continues", file=sys.stderr)
            return None
        _keep_served(folder, card, judgement)
        fe = None if judgement is None else judgement.fe
        record = record_of(settings, facts, card, fe, [data.held_out.names[i] for i in data.held_out_rows])
        write_bytes(folder.record, json.dumps(record, indent=1).encode())
        if can_write_page(folder.path, folder.page.name):
            from adawise_lab.finetune.page import page

            wrong = _wrong(job, found)
            write_bytes(folder.page, page(record, request.command, wrong).encode())
    # Before the checkpoint, which says that the run is not over: it would hinder an extension.
    folder.remove_rehearsal()
    folder.checkpoint.unlink(missing_ok=True)
    return Finetuned(record, folder)


def _notes(settings: Settings, data: Data) -> list[str]:
    check_classes(data.train)
    labels = [data.train.labels[i] for i in data.train_rows]
    are_listed = settings.model.classes is not None
    notes = notes_on(settings.finetune, labels, len(data.held_out_rows), data.classes, are_listed=are_listed)
    if data.held_out is data.train and (note := note_on_stretches(data.train, data.train_rows, data.held_out_rows)):
        notes.append(note)
    if empty := sorted({*data.train.empty, *data.held_out.empty}):
        have = counted(len(empty), "folder of a class has", "folders of classes have")
        notes.append(f"{have} no image: {', '.join(empty[:5])}.")
    if settings.finetune.rehearsal and isinstance(why := part_of(data, settings), str):
        notes.append(f"New classes are not judged, as there is no rehearsal: {why}.")
    if not shifts():
        notes.append("Shifts are not judged, as scikit-image is missing (pip install 'adawise[report]').")
    return notes


def _rejected(settings: Settings, folder: Folder, facts: Mapping[str, Any], ruin: str) -> Finetuned:
    """Put theta_1 into a folder of its own with its record, and return the reason with them."""
    record, rejected = {**facts, "ruin": ruin}, folder.reject()
    write_bytes(rejected.record, json.dumps(record, indent=1).encode())
    error = TrainingError(
        f"the pair must not serve: {ruin}. It is kept in {rejected.path}, without a card. "
        f"Lower finetune.learning_rate (it was {settings.finetune.learning_rate:g}) or finetune.epochs, and start with "
        "--overwrite."
    )
    return Finetuned(record, rejected, error)


def _wrong(job: TrainingJob, found: Comparison) -> list[WrongImage]:
    """Return the first held-out images that theta_1 takes for something else, with thumbnails."""
    data, held_out_images = job.data, job.held_out_images
    rows = [i for i in data.held_out_rows if data.held_out.names[i] not in held_out_images.skipped]
    # An image could be read only some of the times, so that rows and labels cannot be matched.
    if len(rows) != len(found.labels):
        return []
    named = zip(rows, found.labels, found.fine_tuned, strict=True)
    mistaken = [(i, own, other) for i, own, other in named if own != other][:SHOWN]
    return [
        WrongImage(data.held_out.names[i], data.classes[own], data.classes[other], picture)
        for i, own, other in mistaken
        if (picture := held_out_images.thumbnail(i)) is not None
    ]


def _keep_served(folder: Folder, card: Card, judgement: Judgement | None) -> None:
    """Write what the recommendation serves, for comparisons with other runs; without a verdict there is no file."""
    if judgement is None:
        folder.served.unlink(missing_ok=True)
    else:
        write_bytes(folder.served, judgement.served.to_bytes(card.identity["theta_1"]))


def _card(job: TrainingJob, rehearsed: Sequence[Condition], countdown: Countdown) -> tuple[Card, Judgement | None]:
    """Load the pair as a worker would, and make its card from held-out images, clean and shifted.

    The pair is judged on these and on `rehearsed`, the conditions of a rehearsal.
    """
    chosen, kinds, model = job.settings.finetune, shifts(), job.model()
    mixed = job.some(job.data.held_out_rows, chosen.card_images)
    few, all_of_them = (
        HeldOut(job.held_out_images, rows, chosen.batch_images) for rows in (mixed[: chosen.judged_images], mixed)
    )
    countdown.enter(CARD)
    classifier = model.classifier
    bar = countdown.at_many_alphas(len(classifier.alphas), classifier.tail_share)
    logits, labels = logits_of(classifier, all_of_them, bar)
    shifted = [*conditions_of(classifier, few, "shifted", kinds, countdown), *rehearsed]
    countdown.enter(VERDICT)
    card, judgement = evaluated_card(model, Condition(OWN, logits.__getitem__, labels), shifted, group="home")
    return write_card(job.folder.card, card, classifier.embeddings()), judgement
