"""A recording -> small pictures of single rows, for a report."""

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

from adawise.build.decoder import open_decoder, rendition
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
        root: of the recording.
        settings: limits of decoding, and how pictures are read.

    Raises SettingsError if there is no recording.
    """

    def __init__(self, root: str, settings: DecodeSettings) -> None:
        self._root, self._store = root, open_store(root)
        self._partitions: dict[TopicPartition, RecordedPartition] = {}
        self._decode = open_decoder(settings, partial(_thumbnail, rendition(settings)))
        if not any(self._store.list("")):
            raise SettingsError(f"--recording {root}: expected a folder that `adawise record` wrote, but it is empty")

    def pictures(self, rows: Sequence[RowId]) -> dict[RowId, str]:
        """Each row's picture as a `data:` URL. Raises SourceError where the recording is damaged."""
        found = {}
        for row in sorted(rows):
            picture = self._picture(row)
            if picture is not None:
                found[row] = picture
        return found

    def _picture(self, row: RowId) -> str | None:
        image = self._image(row)
        return None if image is None else _data_url(image)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """[first, next) of the offsets that it has of a partition. Raises SourceError where it is damaged."""
        return self._partition(TopicPartition(topic, partition)).bounds

    def _partition(self, tp: TopicPartition) -> RecordedPartition:
        if tp not in self._partitions:
            self._partitions[tp] = RecordedPartition(listing_of(self._root, self._store, tp), "skip")
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


def _thumbnail(rendition: Rendition, image: Image.Image) -> Tensor:
    small = rendition(image, (_WIDEST, _WIDEST)).convert("RGB")
    small.thumbnail((_WIDEST, _WIDEST))
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def _data_url(image: Tensor) -> str:
    pixels: Any = image.permute(1, 2, 0).contiguous().numpy()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
