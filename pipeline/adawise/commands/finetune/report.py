"""What a run of fine-tuning leaves behind and tells: its record, its curve, and how to use what it made."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from rich.table import Table

from adawise import __version__
from adawise.adapt.card import Card
from adawise.console import paper, print_json
from adawise.finetune.folder import Folder
from adawise.finetune.run import FinetuneRun
from adawise.labelled.samples import Samples
from adawise.settings import ModelSettings, Settings
from adawise.settings.requirements import LOCAL_FOLDER

_SKIPPED_KEPT = 100


def record_of(
    settings: Settings,
    run: FinetuneRun,
    card: Card,
    held_out: Samples,
    rows: Sequence[int],
    skipped: Mapping[str, str],
) -> dict[str, Any]:
    """The record of a finished run: the same for the same run, however often it was resumed."""
    best = run.progress.best
    assert best is not None  # a run has at least one epoch
    return {
        "settings": dict(run.settings),
        "theta_0": {"checkpoint": settings.model.theta_0, "hash": card.identity["theta_0"]},
        "theta_1": {"hash": card.identity["theta_1"], "epoch": best.epoch},
        "images": {"train": len(run.train_rows), "held_out": len(rows), "skipped": len(skipped)},
        "skipped": dict(list(skipped.items())[:_SKIPPED_KEPT]),
        "curve": [row.as_row() for row in run.progress.curve],
        "best": best.as_row(),
        "barrier": card.has_barrier or best.has_barrier,
        "best_alpha": card.best_alpha,
        "held_out": [held_out.names[i] for i in rows],
        "versions": {
            "adawise": __version__,
            "torch": torch.__version__,
            "open_clip": version("open_clip_torch"),
            "python": platform.python_version(),
        },
    }


def tell(record: Mapping[str, Any], model: ModelSettings, folder: Folder, *, as_json: bool) -> None:
    """Print the record as JSON, or for people: the curve, what is odd about it, and the settings that use it."""
    if as_json:
        print_json({**record, "output": str(folder.path), "use": settings_lines(model, folder)})
        return
    _print_curve(record)
    for line in _oddities(record):
        print(line)
    print(f"\n{folder.weights}, {folder.card} and {folder.record} are written. In adawise.toml:\n")
    print("\n".join(settings_lines(model, folder)))


def settings_lines(model: ModelSettings, folder: Folder) -> list[str]:
    """The lines of adawise.toml that use theta_1 and its card."""
    values = {
        "architecture": model.theta_0 if (model.theta_0 or "").startswith(LOCAL_FOLDER) else model.architecture,
        "theta_0": model.theta_0,
        "theta_1": f"local-dir:{folder.theta_1}",
        "classes": str(folder.classes),
        "templates": str(folder.templates),
        "card": str(folder.card),
    }
    return ["[model]", *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())]


def _print_curve(record: Mapping[str, Any]) -> None:
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


def _oddities(record: Mapping[str, Any]) -> list[str]:
    lines = []
    if record["best"]["accuracy"] < record["curve"][0]["accuracy"]:
        lines.append("theta_1 is worse than theta_0 on held-out images: lower finetune.learning_rate.")
    if record["barrier"]:
        lines.append(
            "There is an accuracy barrier between theta_0 and theta_1: do not interpolate this pair. "
            "Lower finetune.learning_rate or finetune.epochs."
        )
    if record["skipped"]:
        name, why = next(iter(record["skipped"].items()))
        lines.append(f"{record['images']['skipped']} images could not be read, such as {name}: {why}")
    return lines
