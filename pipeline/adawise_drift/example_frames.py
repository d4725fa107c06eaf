"""Small pictures of single rows of a recording, for a report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adawise.app.parts import open_decoder, rendition
from adawise.decode.message import Decoder
from adawise.decode.rendition import Rendition
from adawise.errors import SettingsError
from adawise.recording.files import RecordedPartition, listing_of
from adawise.records import RowId, TopicPartition
from adawise.settings import DecodeSettings
from adawise.store.store import open_store

_WIDEST = 160  # pixels
_QUALITY = 60


class ExampleFrames:
    """Looks rows up by their place in a recording; what it does not have is left out.

    Args:
        root: folder or URL of the recording.
        decode: makes small pictures of a message, by `thumbnail`.

    Raises SettingsError if there is no recording.
    """

    def __init__(self, root: str, decode: Decoder) -> None:
        self.root, self._store, self._decode = root, open_store(root), decode
        self._partitions: dict[TopicPartition, RecordedPartition] = {}
        if not any(self._store.list("")):
            raise SettingsError(f"--recording {root}: expected a folder that `adawise record` wrote, but it is empty")

    def pictures(self, rows: Sequence[RowId]) -> dict[RowId, str]:
        """Return each row's picture as a `data:` URL. Raises SourceError where the recording is damaged."""
        found = {}
        for row in sorted(rows):
            image = self._image(row)
            if image is not None:
                found[row] = _data_url(image)
        return found

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return [first, next) of the offsets of a partition that are recorded. Raises SourceError for damage."""
        return self._partition(TopicPartition(topic, partition)).bounds

    def _partition(self, tp: TopicPartition) -> RecordedPartition:
        if tp not in self._partitions:
            self._partitions[tp] = RecordedPartition(listing_of(self.root, self._store, tp), "skip")
        return self._partitions[tp]

    def _image(self, row: RowId) -> Tensor | None:
        partition = self._partition(TopicPartition(row.topic, row.partition))
        start, end = partition.bounds
        if not start <= row.offset < end:
            return None
        partition.seek(row.offset)
        message = partition.head
        if message is None or message.offset != row.offset:
            return None
        frames = self._decode(message).frames
        return frames[row.index].image if row.index < len(frames) else None


def open_frames(root: str, settings: DecodeSettings) -> ExampleFrames:
    """Return the pictures of a recording, decoded as the settings say. Raises SettingsError if there is none."""
    return ExampleFrames(root, open_decoder(settings, partial(thumbnail, rendition(settings))))


def thumbnail(rendition: Rendition, image: Image.Image) -> Tensor:
    """Return a picture as a report shows it: `[3, H, W]`, uint8."""
    small = rendition(image, (_WIDEST, _WIDEST)).convert("RGB")
    small.thumbnail((_WIDEST, _WIDEST))
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def _data_url(image: Tensor) -> str:
    pixels: Any = image.permute(1, 2, 0).contiguous().numpy()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
