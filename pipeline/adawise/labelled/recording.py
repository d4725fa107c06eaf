"""A labelled recording -> the images in it, whose messages carry their true class."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from adawise.decode.message import Decoder
from adawise.decode.preprocess import Preprocess
from adawise.errors import SettingsError
from adawise.recording.source import RecordingSource
from adawise.records import Frame, Message

_POLL_RECORDS = 512

Decoding = Callable[[Callable[..., Tensor]], Decoder]
"""From what makes an image's tensor to a decoder of messages, within the bounds that are set."""


class Recorded(NamedTuple):
    """Where a labelled image of a recording lies: the number of its message, its place in it; and its label."""

    message: int
    row: int
    label: str


@dataclass(frozen=True, eq=False)
class RecordedImages:
    """The labelled images of a recording, in the order of their offsets; those without a label are only counted."""

    path: Path
    decoder: Decoding
    entries: tuple[Recorded, ...]
    unlabelled: int
    digest: str

    def frames(self, chosen: Sequence[int], preprocess: Preprocess) -> Iterator[Frame]:
        """The frames of the entries numbered `chosen` (ascending), decoded; an entry's message is decoded once."""
        wanted: dict[int, list[int]] = {}
        for entry in (self.entries[i] for i in chosen):
            wanted.setdefault(entry.message, []).append(entry.row)
        decoder = self.decoder(preprocess)
        for number, message in enumerate(_messages(self.path)):
            if number in wanted:
                frames = decoder(message).frames
                yield from (frames[row] for row in wanted[number])


def recorded_images(path: Path, decoder: Decoding) -> RecordedImages:
    """Look through a recording without decoding pixels; `decoder` makes what decodes its messages.

    Raises:
        SettingsError: no image in it has a label.
        SourceError: no recording, or a damaged one.
    """
    digest = hashlib.sha256()
    entries: list[Recorded] = []
    unlabelled = 0
    peek = decoder(lambda _: torch.empty(0, dtype=torch.uint8))
    for number, message in enumerate(_messages(path)):
        for part in (
            message.key,
            message.value,
            *(part for name, text in message.headers for part in (name.encode(), text)),
        ):
            digest.update(len(part or b"").to_bytes(8, "big") + (part or b""))
        for frame in peek(message).frames:
            if frame.true_label is None:
                unlabelled += 1
            else:
                entries.append(Recorded(number, frame.row_id.index, frame.true_label))
    if not entries:
        raise SettingsError(
            f"--images {path}: none of the {unlabelled} images of this recording has a label. Send labels as a header "
            "`label` or a column `label`, as `adawise produce` does, or name a folder with a subfolder for each class."
        )
    return RecordedImages(path, decoder, tuple(entries), unlabelled, digest.hexdigest())


def _messages(path: Path) -> Iterator[Message]:
    """Every message, partition by partition in the order of offsets."""
    source = RecordingSource(str(path), order="offset", seed=0, max_poll_records=_POLL_RECORDS)
    try:
        for tp in source.poll(0.0).assigned:
            source.seek(tp, source.log.origin(tp))
            source.resume([tp])
            while not source.drained(tp):
                yield from (message for message in source.poll(0.0).messages if message.missing is None)
            source.pause([tp])
    finally:
        source.close()
