"""The pixels of labelled images, as the models receive them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
import torch

from adawise.app.model import ModelPair
from adawise.decode.codec import open_image
from adawise.errors import InvalidMessage
from adawise.labels.folders.samples import Samples

_AT_ONCE = 256  # images whose pixels are in memory at once
_MAX_PIXELS = 200_000_000

_log = structlog.get_logger("card")


def read_pixels(model: ModelPair, samples: Samples, rows: Sequence[int]) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Yield the readable images of `rows` as uint8 `[N, 3, S, S]` with their rows, at most 256 at a time.

    An image that cannot be read is logged and left out.

    Raises:
        SourceError: the images are in a recording that is damaged.
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
