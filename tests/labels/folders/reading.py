"""The reader of labelled images, with bounds for recordings that are wide enough for any test."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from adawise.decode.message import Decoder
from adawise.labels.folders.read import read_samples
from adawise.labels.folders.samples import Samples

DECODING = partial(Decoder, max_message_bytes=2**20, max_rows=64, max_pixels=10_000)


def read(path: Path, classes: tuple[str, ...] | None = None, *, own_classes: bool = False) -> Samples:
    """As `--labelled` would."""
    return read_samples(path, "--labelled", classes, DECODING, own_classes=own_classes)
