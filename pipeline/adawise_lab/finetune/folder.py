"""The files of a run: its folder, the best weights so far, and the state to resume from."""

from __future__ import annotations

import io
import json
import os
import secrets
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adawise.errors import SettingsError, TrainingError
from adawise.store.files import read_bytes
from adawise.store.store import sync_folder
from adawise_lab.finetune.recipe import IN_0_2

FORMAT = 1
CONTENTS = "contents of the images"
"""The setting that is a digest of every byte of the images; checkpoints of earlier versions do not have it."""
_TOKEN_BYTES, _HEX = 4, "[0-9a-f]"  # of the name of a temporary file
_EPOCHS = "finetune.epochs"


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replace a file atomically: temporary file, fsync, rename, fsync of the folder.

    Raises:
        TrainingError: no room, or not allowed; the earlier file is still in place.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN_BYTES)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"{path}: {len(content)} bytes could not be written ({error.strerror}). Free space, or give this user "
            "the right to write, then continue with --resume."
        ) from error


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write float32 safetensors. Raises TrainingError as `write_bytes`."""
    write_bytes(path, save({name: t.detach().cpu().contiguous().clone() for name, t in state.items()}))


def write_checkpoint(path: Path, *, settings: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write the state of a run, and the settings that decide the run. Raises TrainingError as `write_bytes`."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "settings": dict(settings), **state}, buffer)
    write_bytes(path, buffer.getbuffer())


def read_checkpoint(path: Path, *, settings: Mapping[str, str]) -> Mapping[str, Any]:
    """Read the state of a run.

    Raises:
        TrainingError: no such file, not a checkpoint, or one of a run with other settings; the message names each of
            them.
    """
    remedy = "Start anew with --overwrite"
    if not path.is_file():
        raise TrainingError(f"{path}: there is no checkpoint to resume from. Leave --resume out.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about pickles before it rejects them
            state = torch.load(path, map_location="cpu", weights_only=True)
        before, written = state["settings"], state["format"]
    except Exception as error:  # torch raises many kinds of errors for a damaged pickle
        first = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise TrainingError(f"{path}: not a checkpoint of this program, or damaged ({first}). {remedy}.") from error
    if written != FORMAT:
        raise TrainingError(f"{path}: expected a checkpoint of format {FORMAT}, got {written}. {remedy}.")
    check_settings(path, before, settings)
    return dict(state)


def check_settings(path: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise TrainingError, naming each setting that differs, if a file was made with other settings.

    A run of an earlier version has no digest of the images' contents; the contents are then assumed to be unchanged.
    """
    names = sorted(before.keys() | now.keys())
    then = {CONTENTS: now.get(CONTENTS, "not set"), **IN_0_2, **before}
    both = [(name, then.get(name, "not set"), now.get(name, "not set")) for name in names]
    changed = [f"{name} was {_in_words(name, old)}, is {_in_words(name, new)}" for name, old, new in both if old != new]
    if changed:
        remedy = "Set them back, or start anew with --overwrite"
        raise TrainingError(f"{path} is of a run with other settings: {'; '.join(changed)}. {remedy}.")


def _in_words(name: str, value: str) -> str:
    return "all" if (name, value) == ("finetune.blocks", "None") else value


def remove_leftovers(*files: Path) -> None:
    """Delete the temporary files that killed processes left behind in `write_bytes` of these files, and no others."""
    for file in files:
        for path in file.parent.glob(f".{file.name}.{_HEX * 2 * _TOKEN_BYTES}.tmp"):
            path.unlink(missing_ok=True)


class Folder:
    """The paths of a run's files, below `path`.

    Attributes:
        theta_1: the folder for open_clip's `local-dir:`. It must hold no other safetensors, since open_clip might load
            them.
        weights: the weights of theta_1 after the best epoch so far, float32.
        config: the architecture and preprocessing, in the form that open_clip's `local-dir:` needs.
        classes: the class names, one per line.
        templates: the prompts, one per line.
        card: the card of the pair.
        served: what the verdict's recommendation serves, image by image; absent without a verdict.
        record: the record: settings, split, curve and versions; written last.
        checkpoint: the state to resume from; deleted once the record is written.
        page: the record as a page for readers.
        events: the folder that TensorBoard reads.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.theta_1 = path, path / "theta_1"
        self.weights = self.theta_1 / "open_clip_model.safetensors"
        self.config = self.theta_1 / "open_clip_config.json"
        self.classes, self.templates = path / "classes.txt", path / "templates.txt"
        self.card, self.checkpoint, self.events = path / "card.json", path / "checkpoint.pt", path / "tensorboard"
        self.record, self.page = path / "finetune.json", path / "finetune.html"
        self.served = path / "served.parquet"

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
            *(self.card, self.served, self.record, self.page, self.checkpoint),
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
        self.clear()
        write_bytes(self.config, json.dumps(config, indent=1).encode())
        write_bytes(self.classes, "".join(f"{name}\n" for name in classes).encode())
        write_bytes(self.templates, "".join(f"{template}\n" for template in templates).encode())

    def clear(self) -> None:
        """Remove the files of a run. Files that no run wrote stay. Raises OSError with the file's name."""
        for file in self.files:
            file.unlink(missing_ok=True)
        remove_leftovers(*self.files)
        _remove_empty(self.rejected.theta_1, self.rejected.path, self.rehearsal.theta_1, self.rehearsal.path)

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
        # They are of this run, or of the run that it extended.
        for file in (self.card, self.served, self.record, self.page, self.checkpoint):
            file.unlink(missing_ok=True)
        return self.rejected

    def recorded(self) -> Mapping[str, str]:
        """Return the settings of the run in this folder; {} if they cannot be read, which resuming it reports."""
        try:
            if self.checkpoint.is_file():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # as in `read_checkpoint`
                    state = torch.load(self.checkpoint, map_location="cpu", weights_only=True, mmap=True)
            else:
                state = json.loads(read_bytes(self.record))
            return dict(state["settings"])
        except Exception:  # noqa: BLE001  # torch raises many kinds of errors for a damaged pickle
            return {}

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
