"""The work of `adawise finetune`: make theta_1 and its card from theta_0 and labelled images."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from adawise.app.labelled import logits_of, tell_skipped
from adawise.app.model import load_model, use_cores
from adawise.app.signals import INTERRUPTED
from adawise.card.advice import OWN, judge
from adawise.card.card import Card, Condition, make_card
from adawise.console import print_json, progress
from adawise.errors import TrainingError
from adawise.page import NEEDS as PAGE_NEEDS
from adawise.settings import Settings
from adawise.text import counted
from adawise_lab.card.write import write_card
from adawise_lab.evaluate.verdict import verdict_of
from adawise_lab.finetune.checkpoint import CONTENTS, write_bytes
from adawise_lab.finetune.comparison import SHOWN, Comparison, WrongImage
from adawise_lab.finetune.countdown import CARD, TRAINING, VERDICT, Countdown
from adawise_lab.finetune.folder import Folder
from adawise_lab.finetune.forecast import Forecast
from adawise_lab.finetune.images import HeldOut, Images
from adawise_lab.finetune.notes import check_classes, note_on_stretches, notes_on
from adawise_lab.finetune.rehearsal import conditions_of, part_of, rehearse, shifts, stages_after
from adawise_lab.finetune.report import facts_of, print_curve, record_of, show_record
from adawise_lab.finetune.trackers import check_trackers
from adawise_lab.finetune.training import (
    Begin,
    Data,
    decided_by,
    decoders,
    pair_settings,
    passes_left,
    prepare,
    read_data,
    run_of,
    some_of,
    starting_model,
    train,
)

if TYPE_CHECKING:
    from adawise_lab.cli.finetune.options import FinetuneCommand

_UNKNOWN_CONTENTS = (
    "The version that began the run stored names, labels and sizes of its images, but not hashes of their "
    "contents: an image that was replaced by one of equal size is not noticed."
)

_log = structlog.get_logger("finetune")


def finetune(asked: FinetuneCommand) -> int:
    """Train, or go on training; then make the card and print the record.

    Returns:
        0, or 130 if it was stopped before its end.

    Raises:
        TrainingError: the pair that was made must not serve.
    """
    settings, resume = asked.settings, asked.resume
    check_trackers(settings.finetune)
    folder = Folder(asked.output)
    folder.check(resume=resume, overwrite=asked.overwrite)
    use_cores(settings.model.threads)
    data = read_data(settings, asked.labelled, asked.validation)
    start = starting_model(settings)
    decided = decided_by(settings, data, start)
    ended = folder.finished(decided) if resume else None
    if ended is not None and ended["settings"].items() <= decided.items():
        _show(ended, asked, folder)
        return 0
    notes = _notes(settings, data)
    for note in notes:
        _log.warning("data_questioned", note=note)
    with decoders(settings, data, start.preprocess) as (images, judges), ExitStack() as stack:
        run = run_of(settings, data, start, folder, (images, judges))
        after = stages_after(settings, data)
        forecast = Forecast(run, after)
        if CONTENTS not in prepare(run, folder, data, start, Begin(resume and ended is None, ended)):
            notes.append(_UNKNOWN_CONTENTS)
            _log.warning("data_questioned", note=_UNKNOWN_CONTENTS)
        stages = {TRAINING: passes_left(run), **after}
        countdown = Countdown(stack.enter_context(progress("fine-tuned", sum(stages.values()), "passes")), stages)
        countdown.enter(TRAINING)
        if not train(settings, run, folder, countdown, forecast):
            return INTERRUPTED
        found = run.compare()
        broken = {**run.skipped, **judges.skipped}
        if broken:
            tell_skipped(data.train.where, broken)
        skipped = {**data.train.passed_over, **data.held_out.passed_over, **broken}
        facts = facts_of(run, found, data.classes, notes, skipped)
        if found.ruin is not None:
            stack.close()  # ends the bar, which would capture what is printed
            _reject(folder, facts, found.ruin, asked)
        del run, start  # frees their memory for the rehearsal
        try:
            epochs, told = facts["best"]["epoch"], facts["notes"]
            unseen = rehearse(
                *(settings, data, folder, (images, judges), told), epochs=epochs, resumes=resume, countdown=countdown
            )
            if unseen is None:
                return INTERRUPTED
            card = _card(settings, folder, judges, data, unseen, countdown)
        except KeyboardInterrupt:
            print("stopped before there was a card; the same command with --resume goes on", file=sys.stderr)
            return INTERRUPTED
        record = record_of(settings, facts, card, [data.held_out.names[i] for i in data.held_out_rows])
        write_bytes(folder.record, json.dumps(record, indent=1).encode())
        _write_page(folder, record, asked, _wrong(data, judges, found))
    # Before the checkpoint, which says that the run is not over: it would hinder an extension.
    folder.remove_rehearsal()
    folder.checkpoint.unlink(missing_ok=True)
    _show(record, asked, folder)
    return 0


def _show(record: Mapping[str, Any], asked: FinetuneCommand, folder: Folder) -> None:
    held_out = asked.labelled if asked.validation is None else asked.validation
    show_record(record, asked.settings.model, held_out, folder, as_json=asked.as_json)


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


def _reject(folder: Folder, facts: Mapping[str, Any], ruin: str, asked: FinetuneCommand) -> NoReturn:
    """Put theta_1 into a folder of its own with its record, and say why.

    Raises:
        TrainingError: always.
    """
    record = {**facts, "ruin": ruin}
    apart = folder.reject()
    write_bytes(apart.record, json.dumps(record, indent=1).encode())
    if asked.as_json:
        print_json({**record, "output": str(apart.path)})
    else:
        print_curve(record)
    rate = asked.settings.finetune.learning_rate
    raise TrainingError(
        f"the pair must not serve: {ruin}. It is kept in {apart.path}, without a card. Lower "
        f"finetune.learning_rate (it was {rate:g}) or finetune.epochs, and start with --overwrite."
    )


def _write_page(folder: Folder, record: Mapping[str, Any], asked: FinetuneCommand, wrong: Sequence[WrongImage]) -> None:
    """Write the page beside the record; if a package for it is missing, print a line instead."""
    missing = [package for module, package in PAGE_NEEDS.items() if find_spec(module) is None]
    if missing:
        note = f"{folder.path}: no {folder.page.name}, it needs {', '.join(missing)} (pip install 'adawise[report]')"
        print(note, file=sys.stderr)
        return
    from adawise_lab.finetune.page.write import page

    write_bytes(folder.page, page(record, asked.written_out(), wrong).encode())


def _wrong(data: Data, judges: Images, found: Comparison) -> list[WrongImage]:
    """Return the first held-out images that theta_1 takes for something else, with thumbnails."""
    rows = [i for i in data.held_out_rows if data.held_out.names[i] not in judges.skipped]
    # An image could be read only some of the times, so that rows and labels cannot be matched.
    if len(rows) != len(found.labels):
        return []
    named = zip(rows, found.labels, found.fine_tuned, strict=True)
    mistaken = [(i, own, other) for i, own, other in named if own != other][:SHOWN]
    return [
        WrongImage(data.held_out.names[i], data.classes[own], data.classes[other], picture)
        for i, own, other in mistaken
        if (picture := judges.thumbnail(i)) is not None
    ]


def _card(
    settings: Settings,
    folder: Folder,
    judges: Images,
    data: Data,
    unseen: Sequence[Condition],
    countdown: Countdown,
) -> Card:
    """Load the pair as a worker would, and make its card from held-out images, clean and shifted.

    The card is judged on these and on `unseen`, the conditions of a rehearsal.
    """
    limit, judged, batch = (getattr(settings.finetune, f"{name}_images") for name in ("card", "judged", "batch"))
    model = load_model(pair_settings(settings.model, folder), settings.decode, with_card=False)
    mixed, alphas, kinds = some_of(settings, data.held_out_rows, limit), model.classifier.alphas, shifts()
    few = HeldOut(judges, mixed[:judged], batch)
    countdown.enter(CARD)
    logits, labels = logits_of(model.classifier, HeldOut(judges, mixed, batch), countdown)
    shifted = [*conditions_of(model.classifier, few, "shifted", kinds, countdown), *unseen]
    countdown.enter(VERDICT)
    card = make_card(
        logits.__getitem__,
        labels,
        shifted,
        alphas=alphas,
        identity=model.classifier.identity,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    home = Condition(OWN, logits.__getitem__, labels)
    card = replace(card, judged=judge(home, shifted, card))
    if shifted:
        card = replace(card, verdict=verdict_of(card, [replace(home, name="home"), *shifted]))
    return write_card(folder.card, card, model.classifier.embeddings())
