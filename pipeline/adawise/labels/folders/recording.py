"""Reads the labelled images of a recording, whose messages carry the true class, into `Samples`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from adawise.decode.arrow_batch import read_batch
from adawise.decode.message import Decoder
from adawise.errors import SettingsError, SourceError
from adawise.labels.folders.samples import Samples, Taken, digest_of, is_class_name
from adawise.recording.files import Forgotten
from adawise.recording.source import RecordingSource
from adawise.records import Frame, Message, RowId, TopicPartition

_POLL_RECORDS = 512
_NOT_THERE = "the recording does not have it"
_NEAR = 64  # messages to read and skip rather than seek past: about a row group

Decoding = Callable[[Callable[..., Tensor]], Decoder]
"""A function from the function that makes an image's tensor to a decoder of messages, within the limits that are set.
"""


class _RecordedImage(NamedTuple):
    """The place of an image; `row` is its row in the message, if that is a batch."""

    tp: TopicPartition
    offset: int
    row: int | None


def recorded_samples(path: Path, flag: str, classes: tuple[str, ...] | None, decoder: Decoding) -> Samples:
    """List the labelled images of a recording in the order of their offsets, without decoding pixels.

    Images that the decoder rejects, and those whose label is not in `classes`, are left out.

    Args:
        path: of the recording.
        flag: for messages.
        classes: the labels that are allowed; None: all.
        decoder: makes the decoder of its messages.

    Raises:
        SettingsError: no image in it has a label, or none can be used.
        SourceError: no recording, or a damaged one.
    """
    digest = hashlib.sha256()
    images: list[_RecordedImage] = []
    names: list[str] = []
    labels: list[str] = []
    taken: list[Taken] = []
    captured_us: list[int | None] = []
    left_out: dict[int, str] = {}
    unlabelled = 0
    known = None if classes is None else frozenset(classes)
    peek = decoder(lambda _: torch.empty(0, dtype=torch.uint8))
    for message in _messages(path):
        for part in (
            message.key,
            message.value,
            *(part for name, text in message.headers for part in (name.encode(), text)),
        ):
            digest.update(len(part or b"").to_bytes(8, "big") + (part or b""))
        decoded = peek(message)
        for frame in decoded.frames:
            if frame.true_label is None:
                unlabelled += 1
                continue
            if (why := _useless(frame, frame.true_label, known)) is not None:
                left_out[len(images)] = why
            row = frame.row_id.index if decoded.is_batch else None
            images.append(_RecordedImage(message.topic_partition, message.offset, row))
            names.append(str(frame.row_id))
            labels.append(frame.true_label)
            taken.append(Taken(frame.stream_id or "", frame.kafka_timestamp_ms))
            captured_us.append(frame.captured_at_us)
    if not images:
        raise SettingsError(
            f"{flag} {path}: none of the {unlabelled} images of this recording has a label. Send labels as a header "
            "`label` or a column `label`, as `adawise produce` does, or name a folder with a subfolder for each class."
        )
    if len(left_out) == len(images):
        raise SettingsError(
            f"{flag} {path}: none of the {len(images)} labelled images of this recording can be used, such as "
            f"{names[0]}: {left_out[0]}. Name another recording, or other class names."
        )
    used = sorted({label for i, label in enumerate(labels) if i not in left_out})
    read = _Reader(path, peek.max_rows)
    return Samples(
        str(path),
        names,
        labels,
        tuple(used),
        lambda i: read(images[i]),
        digest.hexdigest(),
        is_exact=True,
        left_out=left_out,
        unlabelled=unlabelled,
        taken=taken,
        captured_us=captured_us,
    )


def recorded_rows(
    path: str, truths: Mapping[RowId, str], classes: tuple[str, ...] | None, decoder: Decoding
) -> Samples:
    """List some rows of a recording with labels that came later; only their messages are read.

    Rows that the recording does not have (any more) are left out, as is what `recorded_samples` leaves out.

    Raises:
        SourceError: no recording, or a damaged one.
    """
    peek = decoder(lambda _: torch.empty(0, dtype=torch.uint8))
    read = _Reader(path, peek.max_rows, "skip")
    known = None if classes is None else frozenset(classes)
    images: list[_RecordedImage] = []
    left_out: dict[int, str] = {}
    rows = sorted(truths)
    last, decoded = None, None
    for i, row in enumerate(rows):
        tp = TopicPartition(row.topic, row.partition)
        if (tp, row.offset) != last:
            last, message = (tp, row.offset), read.message(tp, row.offset)
            decoded = None if message is None else peek(message)
        frame = None if decoded is None or row.index >= len(decoded.frames) else decoded.frames[row.index]
        why = _NOT_THERE if frame is None else _useless(frame, truths[row], known)
        if why is not None:
            left_out[i] = why
        images.append(_RecordedImage(tp, row.offset, row.index if decoded is not None and decoded.is_batch else None))
    names, labels = [str(row) for row in rows], [truths[row] for row in rows]
    return Samples(
        path,
        names,
        labels,
        tuple(sorted({label for i, label in enumerate(labels) if i not in left_out})),
        lambda i: read(images[i]),
        digest_of(names, labels, []),
        left_out=left_out,
    )


def _useless(frame: Frame, label: str, classes: frozenset[str] | None) -> str | None:
    if frame.reason is not None:
        return f"{frame.reason}: {frame.detail}"
    if classes is not None and label not in classes:
        return f"its label {label!r} is not among the class names of model.classes"
    if not is_class_name(label):
        return f"its label {label!r} is not of one line without spaces around it, as class names are"
    return None


def _messages(path: Path) -> Iterator[Message]:
    """Yield every message, partition by partition, in the order of offsets."""
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


class _Reader:
    """Encoded images of a recording, for any thread; the message that was read last stays in memory."""

    def __init__(self, path: str | Path, max_rows: int, forgotten: Forgotten = "fail") -> None:
        self._path, self._max_rows = path, max_rows
        self._source = RecordingSource(str(path), order="offset", seed=0, max_poll_records=1, forgotten=forgotten)
        self._source.poll(0.0)  # assigns the partitions
        self._at: tuple[TopicPartition, int] | None = None  # the message before the source's position
        self._held: tuple[TopicPartition, int] | None = None
        self._value, self._rows = b"", list[bytes | None]()
        self._lock = Lock()

    def __call__(self, image: _RecordedImage) -> bytes:
        """Return the image's bytes; empty if it is null. Raises SourceError: the recording is damaged, or changed."""
        place = image.tp, image.offset
        with self._lock:
            if self._held != place:
                message = self._message(*place)
                if message is None:
                    raise SourceError(f"{self._path}: {image.tp}/{image.offset} was removed (--keep). Start again.")
                self._held, self._value, self._rows = place, message.value or b"", []
            if image.row is None:
                return self._value
            if not self._rows:
                self._rows = [row.image for row in read_batch(self._value, max_rows=self._max_rows)]
            return self._rows[image.row] or b""

    def message(self, tp: TopicPartition, offset: int) -> Message | None:
        """Return the message at an offset; None if there is none. Raises SourceError: the recording is damaged."""
        with self._lock:
            return self._message(tp, offset)

    def _message(self, tp: TopicPartition, offset: int) -> Message | None:
        if tp not in self._source.log.partitions:
            return None
        last, after = self._at or (None, 0)
        if last != tp or not 0 < offset - after <= _NEAR:
            self._source.pause(list(self._source.log.partitions))
            self._source.seek(tp, offset)
            self._source.resume([tp])
        found = next((message for message in self._polled() if message.offset >= offset), None)
        is_there = found is not None and found.offset == offset
        self._at = (tp, offset) if is_there else None  # else the source's position is unknown
        return found if is_there else None

    def _polled(self) -> Iterator[Message]:
        while messages := self._source.poll(0.0).messages:
            yield from (message for message in messages if message.missing is None)
