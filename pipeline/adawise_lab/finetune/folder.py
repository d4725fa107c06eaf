"""The output folder of a run: theta_1 as a folder for open_clip, card, record and, until the end, a checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adawise.errors import SettingsError
from adawise.store.files import read_bytes
from adawise_lab.finetune.checkpoint import check_settings, remove_leftovers, write_bytes

_EPOCHS = "finetune.epochs"


@dataclass(frozen=True)
class Folder:
    """The paths of a run's files, below `path`."""

    path: Path

    @property
    def theta_1(self) -> Path:
        """The folder for open_clip's `local-dir:`.

        It must hold no other safetensors, since open_clip might load them.
        """
        return self.path / "theta_1"

    @property
    def weights(self) -> Path:
        """The weights of theta_1 after the best epoch so far, float32."""
        return self.theta_1 / "open_clip_model.safetensors"

    @property
    def config(self) -> Path:
        """The architecture and preprocessing, in the form that open_clip's `local-dir:` needs."""
        return self.theta_1 / "open_clip_config.json"

    @property
    def classes(self) -> Path:
        """The class names, one per line."""
        return self.path / "classes.txt"

    @property
    def templates(self) -> Path:
        """The prompts, one per line."""
        return self.path / "templates.txt"

    @property
    def card(self) -> Path:
        """The card of the pair."""
        return self.path / "card.json"

    @property
    def record(self) -> Path:
        """The record: settings, split, curve and versions; written last."""
        return self.path / "finetune.json"

    @property
    def checkpoint(self) -> Path:
        """The state to resume from; deleted once the record is written."""
        return self.path / "checkpoint.pt"

    @property
    def page(self) -> Path:
        """The record as a page for readers."""
        return self.path / "finetune.html"

    @property
    def events(self) -> Path:
        """The folder that TensorBoard reads."""
        return self.path / "tensorboard"

    @property
    def rejected(self) -> Folder:
        """The folder for a theta_1 that must not serve."""
        return Folder(self.path / "rejected")

    @property
    def rehearsal(self) -> Folder:
        """The folder of the rehearsal, a run on some of the classes; deleted once the record is written."""
        return Folder(self.path / "rehearsal")

    @property
    def files(self) -> Sequence[Path]:
        """All files that a run may write."""
        rejected, rehearsal = self.rejected, self.rehearsal
        return (
            *(self.weights, self.config, self.classes, self.templates),
            *(self.card, self.record, self.page, self.checkpoint),
            *(rejected.weights, rejected.config, rejected.record, rejected.page),
            *(rehearsal.weights, rehearsal.config, rehearsal.classes, rehearsal.templates, rehearsal.checkpoint),
        )

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Raise SettingsError for a folder that already has a run, or, with `resume`, for one without a run."""
        if self.path.exists() and not self.path.is_dir():
            raise SettingsError(f"--output {self.path}: expected a folder, but it is a file. Name another.")
        begun = {self.config, self.classes, self.templates}  # a run that could not read any image writes only these
        there = [str(file.relative_to(self.path)) for file in self.files if file.exists() and file not in begun]
        if resume and not (self.checkpoint.exists() or self.record.exists()):
            raise SettingsError(f"--output {self.path}: there is no run to resume. Leave --resume out to start one.")
        if there and not (resume or overwrite):
            raise SettingsError(
                f"--output {self.path}: there is a run already ({', '.join(there)}). Continue with --resume, start "
                "anew with --overwrite, or name another folder."
            )

    def begin(self, config: Mapping[str, Any], classes: Sequence[str], templates: Sequence[str]) -> None:
        """Create the folder, remove an earlier run, and write what is known before training.

        Raises:
            OSError: the folder cannot be created, or an old file not removed; it has the file's name.
            TrainingError: as `write_bytes`.
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
        """Remove the rehearsal's files. Files in its folder that no run wrote stay."""
        place = self.rehearsal
        for file in place.files:
            file.unlink(missing_ok=True)
        remove_leftovers(*place.files)
        _remove_empty(place.theta_1, place.path)

    def reject(self) -> Folder:
        """Move theta_1 where it is not served by accident, and return that folder; the run is over."""
        self.rejected.theta_1.mkdir(parents=True, exist_ok=True)
        os.replace(self.weights, self.rejected.weights)
        os.replace(self.config, self.rejected.config)
        for file in (self.card, self.record, self.page, self.checkpoint):  # of this run, or of the run that it extended
            file.unlink(missing_ok=True)
        return self.rejected

    def finished(self, settings: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Return the record of a run that ended; None if it did not end, or is being extended.

        A record with fewer epochs than the settings is accepted, since such a run can be extended.

        Raises:
            TrainingError: the run had other settings.
            SettingsError: the record cannot be read.
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
        with suppress(OSError):  # absent, or with files of others
            folder.rmdir()


def _is_longer(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    epochs = before.get(_EPOCHS, ""), now.get(_EPOCHS, "")
    return all(map(str.isdigit, epochs)) and int(epochs[0]) < int(epochs[1])
