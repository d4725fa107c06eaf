"""The output of a run: theta_1 as a folder that open_clip loads, card, record and, until the end, a checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adawise.errors import SettingsError
from adawise.files import read_bytes
from adawise.finetune.checkpoint import check_settings, remove_leftovers, write_bytes

_EPOCHS = "finetune.epochs"


@dataclass(frozen=True)
class Folder:
    """The files of a run in `path`."""

    path: Path

    @property
    def theta_1(self) -> Path:
        """The folder for open_clip's `local-dir:`; no other safetensors may lie there, it might take them."""
        return self.path / "theta_1"

    @property
    def weights(self) -> Path:
        """theta_1 of the best epoch so far, float32."""
        return self.theta_1 / "open_clip_model.safetensors"

    @property
    def config(self) -> Path:
        """Architecture and preprocessing, as open_clip's `local-dir:` wants it."""
        return self.theta_1 / "open_clip_config.json"

    @property
    def classes(self) -> Path:
        """Class names, one a line."""
        return self.path / "classes.txt"

    @property
    def templates(self) -> Path:
        """Prompts, one a line."""
        return self.path / "templates.txt"

    @property
    def card(self) -> Path:
        """The card of the pair."""
        return self.path / "card.json"

    @property
    def record(self) -> Path:
        """Settings, split, curve and versions; written last."""
        return self.path / "finetune.json"

    @property
    def checkpoint(self) -> Path:
        """State to resume from; gone once the record is written."""
        return self.path / "checkpoint.pt"

    @property
    def page(self) -> Path:
        """The record for people."""
        return self.path / "finetune.html"

    @property
    def events(self) -> Path:
        """The folder that TensorBoard reads."""
        return self.path / "tensorboard"

    @property
    def rejected(self) -> Folder:
        """Where a theta_1 goes that must not serve."""
        return Folder(self.path / "rejected")

    @property
    def rehearsal(self) -> Folder:
        """The run on some of the classes; gone once the record is written."""
        return Folder(self.path / "rehearsal")

    @property
    def files(self) -> Sequence[Path]:
        """All that a run may write."""
        rejected, rehearsal = self.rejected, self.rehearsal
        return (
            *(self.weights, self.config, self.classes, self.templates),
            *(self.card, self.record, self.page, self.checkpoint),
            *(rejected.weights, rejected.config, rejected.record, rejected.page),
            *(rehearsal.weights, rehearsal.config, rehearsal.classes, rehearsal.templates, rehearsal.checkpoint),
        )

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder with a run in it, or to resume one that is not there. Raises SettingsError."""
        if self.path.exists() and not self.path.is_dir():
            raise SettingsError(f"--output {self.path}: expected a folder, and it is a file. Name another.")
        begun = {self.config, self.classes, self.templates}  # by a run that could not read one image
        there = [str(file.relative_to(self.path)) for file in self.files if file.exists() and file not in begun]
        if resume and not (self.checkpoint.exists() or self.record.exists()):
            raise SettingsError(f"--output {self.path}: there is no run to resume. Leave --resume out to start one.")
        if there and not (resume or overwrite):
            raise SettingsError(
                f"--output {self.path}: there is a run already ({', '.join(there)}). "
                "Go on with --resume, start anew with --overwrite, or name another folder."
            )

    def begin(self, config: Mapping[str, Any], classes: Sequence[str], templates: Sequence[str]) -> None:
        """Make the folder, remove an earlier run, and write what is known before training.

        Raises OSError with the file's name, and TrainingError as `write_bytes`.
        """
        self.theta_1.mkdir(parents=True, exist_ok=True)
        for file in self.files:
            file.unlink(missing_ok=True)
        remove_leftovers(*self.files)
        _remove_empty(self.rejected.theta_1, self.rejected.path, self.rehearsal.theta_1, self.rehearsal.path)
        write_bytes(self.config, json.dumps(config, indent=1).encode())
        write_bytes(self.classes, "".join(f"{name}\n" for name in classes).encode())
        write_bytes(self.templates, "".join(f"{template}\n" for template in templates).encode())

    def remove_rehearsal(self) -> None:
        """It has done its duty. What else lies there is not ours, and stays."""
        place = self.rehearsal
        for file in place.files:
            file.unlink(missing_ok=True)
        remove_leftovers(*place.files)
        _remove_empty(place.theta_1, place.path)

    def reject(self) -> Folder:
        """Put theta_1 where nobody serves it by accident, and say where; the run is over."""
        self.rejected.theta_1.mkdir(parents=True, exist_ok=True)
        os.replace(self.weights, self.rejected.weights)
        os.replace(self.config, self.rejected.config)
        for file in (self.card, self.record, self.page, self.checkpoint):  # of it, or of the run that it extended
            file.unlink(missing_ok=True)
        return self.rejected

    def finished(self, settings: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The record of a run that ended, None if it did not, or is being extended; with fewer epochs, it may be.

        Raises:
            TrainingError: it was made by other settings.
            SettingsError: it cannot be read.
        """
        if not self.record.exists() or self.checkpoint.exists():
            return None
        try:
            record: Mapping[str, Any] = json.loads(read_bytes(self.record))
            before = dict(record["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"{self.record}: not the record of a run ({error!r}). Use --overwrite.") from error
        if _is_longer(before, settings):
            before[_EPOCHS] = settings[_EPOCHS]
        check_settings(self.record, before, settings)
        return record


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):  # not there, or with files of others
            folder.rmdir()


def _is_longer(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    epochs = before.get(_EPOCHS, ""), now.get(_EPOCHS, "")
    return all(map(str.isdigit, epochs)) and int(epochs[0]) < int(epochs[1])
