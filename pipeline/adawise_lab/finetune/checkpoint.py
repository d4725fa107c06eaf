"""The files of a run: its state, to resume from, and the best weights so far; each is written atomically."""

from __future__ import annotations

import io
import os
import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adawise.errors import TrainingError
from adawise_lab.finetune.recipe import IN_0_2

FORMAT = 1
CONTENTS = "contents of the images"
"""The setting that is a digest of every byte of the images; checkpoints of earlier versions do not have it."""

_TOKEN_BYTES, _HEX = 4, "[0-9a-f]"  # of the name of a temporary file


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
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
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
    changed = [f"{name} was {old}, is {new}" for name, old, new in both if old != new]
    if changed:
        remedy = "Set them back, or start anew with --overwrite"
        raise TrainingError(f"{path} is of a run with other settings: {'; '.join(changed)}. {remedy}.")


def remove_leftovers(*files: Path) -> None:
    """Delete the temporary files that killed processes left behind in `write_bytes` of these files, and no others."""
    for file in files:
        for path in file.parent.glob(f".{file.name}.{_HEX * 2 * _TOKEN_BYTES}.tmp"):
            path.unlink(missing_ok=True)
