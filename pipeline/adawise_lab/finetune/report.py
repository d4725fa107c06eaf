"""The report of a run: notes on its data before it begins, its record, its curve and the settings for the pair."""

from __future__ import annotations

import json
import math
import platform
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from adawise import __version__
from adawise.adapt.search import forward_cost
from adawise.card.advice import advised_alpha, recommend
from adawise.card.card import Card, PairVerdict, read_card
from adawise.console import paper, print_json
from adawise.errors import SettingsError
from adawise.labels.folders.samples import Samples
from adawise.settings import FinetuneSettings, ModelSettings, Settings
from adawise.settings.requirements import LOCAL_FOLDER
from adawise.text import counted
from adawise_lab.card.show import verdict_table, verdict_text
from adawise_lab.finetune.folder import Folder
from adawise_lab.finetune.train import BARRIER, Comparison, FinetuneRun

_FEW_EACH = 8  # images of a class to learn from, below which there is a note
_FEW_HELD_OUT = 200  # held-out images, below which there is a note; these judge an accuracy to within 7 points
_UNEVEN = 10  # times as many images of one class as of another, from which on there is a note
_NAMED = 5  # names in a note
_SKIPPED_KEPT = 100  # skipped files, or reasons, in the record
_SHOWN = 3  # confusions, or reasons, that are printed


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
            f"only to within {within_points(held_out)} points. Give others with --validation, or raise "
            f"finetune.validation_share; {2 * _FEW_HELD_OUT} of them make it {within_points(2 * _FEW_HELD_OUT)}."
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
    if many >= _UNEVEN * few and not settings.balanced and settings.loss != "balanced":
        yield (
            f"Classes are uneven: {many} images of {most!r}, {few} of {least!r}. finetune.balanced draws as many "
            "of each, and finetune.loss balanced corrects the loss instead; check the accuracies by class."
        )


def within_points(images: int) -> int:
    """Return half the width of a 95 % interval of an accuracy of one half, in points."""
    return round(196 * math.sqrt(0.25 / images))


def _first(names: Sequence[str]) -> str:
    return ", ".join(islice(names, _NAMED)) + (", …" if len(names) > _NAMED else "")


def facts_of(
    run: FinetuneRun, found: Comparison, classes: Sequence[str], notes: Sequence[str], skipped: Mapping[str, str]
) -> dict[str, Any]:
    """Return what is known of a run that ended, before there is a card.

    It does not depend on how often the run was resumed.
    """
    best = run.progress.best
    assert best is not None  # a run has at least one epoch
    reasons = sorted(Counter(skipped.values()).items(), key=lambda item: (-item[1], item[0]))
    return {
        "settings": dict(run.settings),
        "images": {"train": len(run.train_rows), "held_out": len(run.held_out.rows), "skipped": len(skipped)},
        "notes": list(notes),
        "skipped": dict(sorted(skipped.items())[:_SKIPPED_KEPT]),
        "skipped_for": dict(reasons[:_SKIPPED_KEPT]),
        "curve": [row.as_row() for row in run.progress.curve],
        "extended_after": run.progress.extended_after,
        "best": best.as_row(),
        "classes": found.per_class(classes, [run.images.labels[i] for i in run.train_rows]),
        "confusions": found.confusions(classes),
        "versions": {
            "adawise": __version__,
            "torch": torch.__version__,
            "open_clip": version("open_clip_torch"),
            "python": platform.python_version(),
        },
    }


def record_of(
    settings: Settings, facts: Mapping[str, Any], card: Card, fe: float | None, held_out: Sequence[str]
) -> dict[str, Any]:
    """Return the record of a run: its facts, and what the card says.

    Args:
        settings: the settings of the run.
        facts: what was known before there was a card.
        card: the card.
        fe: the FE of adapting on the streams of the verdict; None without a verdict.
        held_out: names of the held-out images.
    """
    return {
        **facts,
        "theta_0": {"checkpoint": settings.model.theta_0, "hash": card.identity["theta_0"]},
        "theta_1": {"hash": card.identity["theta_1"], "epoch": facts["best"]["epoch"]},
        "barrier": card.has_barrier or facts["best"]["barrier"] > BARRIER,
        "best_alpha": card.best_alpha,
        "tail_share": card.tail_share,
        "verdict": None
        if card.verdict is None or fe is None
        else {
            **asdict(card.verdict),
            "advised_alpha": advised_alpha(card.verdict),
            "recommended": asdict(recommend(card.verdict)),
            "told": verdict_text(card.verdict),
            "fe": fe,
            "forward_cost": forward_cost(fe, card.tail_share),
        },
        "held_out": list(held_out),
    }


def show_record(
    record: Mapping[str, Any], model: ModelSettings, held_out: Path, folder: Folder, *, as_json: bool
) -> None:
    """Print the record as JSON, or as text: the curve, what is odd about it, and the settings that use the pair.

    Of a pair that must not serve, there is the curve alone.

    Args:
        record: the record of the run.
        model: the settings of the run.
        held_out: the place of the labelled images among which the held-out ones are.
        folder: the run's folder.
        as_json: print JSON.
    """
    if "ruin" in record:
        if as_json:
            print_json({**record, "output": str(folder.path)})
        else:
            print_curve(record)
        return
    another, verdict = another_card(held_out, folder), read_card(folder.card).verdict
    use_lines = settings_lines(model, folder, verdict)
    if as_json:
        use = {"use": use_lines, "another_card": another}
        print_json({**record, "output": str(folder.path), **use})
        return
    print_curve(record)
    if verdict is not None:
        paper().print(verdict_table(verdict))
        paper().print(verdict_text(verdict), soft_wrap=True)
    for line in _oddities(record, folder):
        print(line)
    page = f", {folder.page}" if folder.page.exists() else ""
    print(f"\n{folder.weights}, {folder.card}, {folder.record}{page} are written.")
    print(
        f"The card is for the names in {folder.classes}; make one for those in OTHER.txt, with the settings below, by:"
    )
    print(f"  {another}\n\nIn adawise.toml:\n")
    print("\n".join(use_lines))


def another_card(place: Path, folder: Folder) -> str:
    """Return the command that makes a card for other names from the held-out images."""
    words = ["adawise", "card", "make", "--labelled", str(place), "--held-out", str(folder.record)]
    return shlex.join([*words, "--model.classes", "OTHER.txt", "-o", str(folder.path / "OTHER.card.json")])


def settings_lines(model: ModelSettings, folder: Folder, verdict: PairVerdict | None) -> list[str]:
    """Return the lines of adawise.toml that use theta_1 and its card as recommended."""
    search = []
    if verdict is not None and not (recommended := recommend(verdict)).is_auto:
        search = ["[search]", 'strategy = "fixed"', f"alpha = {recommended.alpha}", ""]
    values = {
        "architecture": model.theta_0 if (model.theta_0 or "").startswith(LOCAL_FOLDER) else model.architecture,
        "theta_0": model.theta_0,
        "theta_1": f"local-dir:{folder.theta_1}",
        "classes": str(folder.classes),
        "templates": str(folder.templates),
        "card": str(folder.card),
    }
    return [
        *search,
        "[model]",
        *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()),
    ]


def print_curve(record: Mapping[str, Any]) -> None:
    """Print the table of epochs."""
    table = Table("epoch", "loss", "accuracy", "NLL", "ECE", "accuracy at alpha .5", caption_justify="left")
    for row in record["curve"]:
        first = row["epoch"] == 0
        cells = [
            "theta_0" if first else str(row["epoch"]),
            "" if first else f"{row['loss']:.3f}",
            *(f"{row[name]:.3f}" for name in ("accuracy", "nll", "ece")),
            "" if first else f"{row['accuracy_half']:.3f}",
        ]
        table.add_row(*cells, style="bold" if row["epoch"] == record["best"]["epoch"] else "")
    images = record["images"]
    table.caption = f"of {images['held_out']} held-out images; trained on {images['train']}. Bold: theta_1."
    paper().print(table)


def _oddities(record: Mapping[str, Any], folder: Folder) -> list[str]:
    lines = []
    if record["best"]["accuracy"] < record["curve"][0]["accuracy"]:
        lines.append("theta_1 is worse than theta_0 on held-out images: lower finetune.learning_rate.")
    if record["barrier"]:
        lines.append(
            "There is an accuracy barrier between theta_0 and theta_1: do not interpolate this pair. "
            "Lower finetune.learning_rate or finetune.epochs."
        )
    for confusion in record.get("confusions", [])[:_SHOWN]:
        if confusion["images"] > 1:
            lines.append(
                "{images} of {of} held-out images of {class!r} are taken for {taken_for!r}.".format(**confusion)
            )
    if skipped := record["images"]["skipped"]:
        lines.append(f"{counted(skipped, 'file was', 'files were')} skipped; {folder.record.name} names the first:")
    for why, count in list(record.get("skipped_for", {}).items())[:_SHOWN]:
        name = next((name for name, reason in record["skipped"].items() if reason == why), "one beyond these")
        lines.append(f"  {count}, such as {name}: {why}")
    return [*lines, *record.get("notes", [])]
