"""Settings -> labelled images, for every command that asks for them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import structlog

from adawise.build.decoder import open_decoder
from adawise.labelled.read import read_samples
from adawise.labelled.samples import Samples
from adawise.settings import DecodeSettings

_log = structlog.get_logger("labelled")


def open_samples(
    settings: DecodeSettings, path: Path, flag: str, classes: tuple[str, ...] | None, *, own_classes: bool = False
) -> Samples:
    """As `read_samples`; tells of images without a label.

    Raises:
        SettingsError, SourceError: there are none.
    """
    samples = read_samples(path, flag, classes, partial(open_decoder, settings), own_classes=own_classes)
    if samples.unlabelled:
        _log.info("images_not_labelled", images=str(path), count=samples.unlabelled)
    return samples
