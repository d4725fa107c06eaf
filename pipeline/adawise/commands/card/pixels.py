"""Labelled images -> what the models see of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
import torch

from adawise.build.model import ModelPair
from adawise.decode.codec import open_image
from adawise.errors import InvalidMessage
from adawise.labelled.samples import Samples

_AT_ONCE = 256  # images held as pixels
_MAX_PIXELS = 200_000_000

_log = structlog.get_logger("card")


def read_pixels(model: ModelPair, samples: Samples, rows: Sequence[int]) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """The readable ones of `rows` as uint8 `[N, 3, S, S]` and which they are, some at a time; the others are told of.

    Raises SourceError: they are of a recording, and it is damaged.
    """
    for start in range(0, len(rows), _AT_ONCE):
        images, kept = [], []
        for i in rows[start : start + _AT_ONCE]:
            try:
                images.append(model.checkpoints.preprocess(open_image(samples.read(i), max_pixels=_MAX_PIXELS)))
                kept.append(i)
            except (InvalidMessage, OSError, ValueError, SyntaxError) as error:
                _log.warning("image_skipped", path=f"{samples.where}/{samples.names[i]}", error=str(error))
        if images:
            yield torch.stack(images), kept
