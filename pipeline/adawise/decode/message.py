"""Message bytes -> frames, or the reason why not: the second stage, between the source and the batch. Pure.

All input is taken to be hostile, and each kind of harm has a `Reason`. A message that cannot be read as a whole gives
one rejected frame, and is `dead`. A bad row of a batch is rejected alone. Every message gives at least one frame, so
that each offset is in the output. Whatever the bytes are, the result is a DecodedMessage, and the work for it is
capped: bytes, rows, pixels of an image and of a message, and CPU time in proportion to the bytes (`cost`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile

from adawise.decode import arrow_batch, codec, cost
from adawise.decode.headers import (
    MAX_META,
    Headers,
    NamedStream,
    check_stream_id,
    check_timestamp,
    read_headers,
    read_stream,
    read_time,
)
from adawise.decode.share import CameraShare
from adawise.decode.statistics import statistics
from adawise.errors import InvalidMessage, Reason
from adawise.records import DecodedMessage, Frame, Message, RowId

if TYPE_CHECKING:  # as in `preprocess`, torch is slow to load
    from torch import Tensor

IMAGE_TYPES = ("image/jpeg", "image/jpg", "image/pjpeg", "image/png", "image/webp", "image/bmp", "image/x-ms-bmp")
PIXEL_ALLOWANCE = 12  # the images of a message have at most this many times `max_pixels` together
MAX_DETAIL = 300  # characters

_SCHEMA_REGISTRY_MAGIC = b"\x00"


class _Allowance:
    """The pixels and the CPU time that a message's images may still take; an image that proves broken counts too."""

    def __init__(self, max_pixels: int, message_bytes: int) -> None:
        self._max_pixels, self._pixels = max_pixels, PIXEL_ALLOWANCE * max_pixels
        self._bytes, self._ns = message_bytes, cost.allowed_ns(message_bytes)

    def spend(self, image: ImageFile.ImageFile) -> None:
        """Charge an image before it is decoded; raise InvalidMessage: too_many_pixels, or too_few_bytes."""
        pixels, ns = image.width * image.height, cost.estimated_ns(image)
        if pixels > self._pixels:
            raise InvalidMessage(
                Reason.TOO_MANY_PIXELS,
                f"the message's images have more than {PIXEL_ALLOWANCE} x {self._max_pixels} pixels together: "
                "send fewer in one message",
            )
        if ns > self._ns:
            needed = f"{image.width} x {image.height} pixels of {image.format} {image.mode} ask for {ns / 1e6:.0f} ms"
            left = f"a message of {self._bytes} bytes has {self._ns / 1e6:.0f} ms left"
            raise InvalidMessage(Reason.TOO_FEW_BYTES, f"{needed}, {left}: send smaller pictures, or fewer at once")
        self._pixels -= pixels
        self._ns -= ns


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder of messages. Many threads may call it at once, as it holds nothing but its limits.

    Args:
        preprocess: an opened image -> uint8 `[3, S, S]`; in the child process, which has no torch, a NumPy array.
        max_message_bytes: the most bytes of a value.
        max_rows: the most rows of a batch.
        max_pixels: the most pixels of one image, by its header.
        share: the shard whose rows alone are returned; None for all rows.
    """

    preprocess: Callable[[Image.Image], Tensor]
    max_message_bytes: int
    max_rows: int
    max_pixels: int
    share: CameraShare | None = None

    def __call__(self, message: Message) -> DecodedMessage:
        """Return one frame per image, in order. Raise nothing that a message could cause."""
        if self.share is None:
            return self._decoded(message)
        return own_rows(self._decoded(message), self.share, self.streams(message))

    def refused(self, message: Message, why: InvalidMessage) -> DecodedMessage:
        """Return what a call does of a batch, but with its images rejected: each is opened, and none is decoded."""
        decoded = self._decoded(message, why)
        return decoded if self.share is None else own_rows(decoded, self.share, self.streams(message))

    def _decoded(self, message: Message, refuse: InvalidMessage | None = None) -> DecodedMessage:
        headers = read_headers(message.key, message.headers)
        if message.value is None:
            tombstone = InvalidMessage(Reason.TOMBSTONE, "the message has no value")
            return DecodedMessage(message, (_rejected(message, 0, headers, tombstone),))
        try:
            if self._is_batch(headers.content_type, message.value):
                return self._batch(message, message.value, headers, refuse)
        except InvalidMessage as invalid:
            return _whole_rejected(message, headers, invalid)
        frame = self._single(message, message.value, headers)
        return DecodedMessage(message, (frame,), dead=frame.reason is not None)

    def streams(self, message: Message) -> frozenset[str]:
        """Return all streams that accepted images of the message may belong to, without decoding any image."""
        stream, found = read_stream(message.key, message.headers), set[str]()
        with contextlib.suppress(InvalidMessage):
            if stream.stated:
                return frozenset([_stream_of(None, stream)])
            named: set[bytes | None] = {None}
            content_type = read_headers(message.key, message.headers).content_type
            if message.value is not None and self._is_batch(content_type, message.value):
                named = arrow_batch.stream_ids(message.value, max_rows=self.max_rows)
            for raw in named:
                with contextlib.suppress(InvalidMessage):
                    found.add(_stream_of(raw, stream))
        return frozenset(found)

    def _is_batch(self, content_type: str | None, value: bytes) -> bool:
        """Return True if the value is an Arrow stream, by the header, or by the first bytes where there is none.

        Among the image formats the bytes decide: cameras mislabel PNG as JPEG, and that does no harm.

        Raises:
            InvalidMessage: the value is empty, too large, or neither Arrow nor one of the image formats.
        """
        if not value:
            raise InvalidMessage(Reason.EMPTY, "the value has no bytes")
        if len(value) > self.max_message_bytes:
            raise InvalidMessage(
                Reason.TOO_LARGE,
                f"expected at most {self.max_message_bytes} bytes (decode.max_message_bytes), got {len(value)}",
            )
        sniffed = codec.sniff(value)
        if (
            content_type != arrow_batch.ARROW_STREAM
            and sniffed is None
            and (foreign := codec.foreign(value)) is not None
        ):
            raise InvalidMessage(
                Reason.UNSUPPORTED_FORMAT,
                f"expected JPEG, PNG, WebP, BMP or an Arrow stream, got {foreign}: re-encode it",
            )
        if value.startswith(_SCHEMA_REGISTRY_MAGIC) and len(value) >= 5:
            raise InvalidMessage(
                Reason.SCHEMA_FRAMED,
                f"the value begins with a zero byte and schema id {int.from_bytes(value[1:5], 'big')}: "
                "send the image or Arrow bytes without a serializer",
            )
        if content_type == arrow_batch.ARROW_STREAM or (
            content_type is None and value.startswith(arrow_batch.ARROW_STREAM_MAGIC)
        ):
            return True
        if content_type is None and value.startswith(arrow_batch.ARROW_FILE_MAGIC):
            raise InvalidMessage(Reason.BAD_ARROW, "expected an Arrow stream, got an Arrow file: write with new_stream")
        if content_type is None and sniffed is None:
            expected = "a content-type header, or JPEG, PNG, WebP, BMP or an Arrow stream"
            raise InvalidMessage(Reason.UNSUPPORTED_FORMAT, f"expected {expected}, got {value[:8]!r}")
        if content_type is not None and content_type not in IMAGE_TYPES:
            expected = f"image/jpeg, image/png, image/webp, image/bmp or {arrow_batch.ARROW_STREAM}"
            raise InvalidMessage(Reason.UNSUPPORTED_FORMAT, f"expected content-type {expected}, got {content_type!r}")
        if sniffed is None:
            raise InvalidMessage(Reason.UNDECODABLE_IMAGE, f"declared as {content_type}, begins with {value[:8]!r}")
        return False

    def _single(self, message: Message, value: bytes, headers: Headers) -> Frame:
        try:
            _stream_of(None, headers.stream)
            return _accepted(message, 0, headers, self._image(value, _Allowance(self.max_pixels, len(value))))
        except InvalidMessage as invalid:
            return _rejected(message, 0, headers, invalid)

    def _batch(
        self, message: Message, value: bytes, headers: Headers, refuse: InvalidMessage | None = None
    ) -> DecodedMessage:
        if headers.stream.stated:
            headers.stream.check()
        rows = arrow_batch.read_batch(value, max_rows=self.max_rows)
        if not rows:
            empty = InvalidMessage(Reason.EMPTY, "the batch has no rows")
            return DecodedMessage(message, (_rejected(message, 0, headers, empty),), is_batch=True)
        frames = []
        allowance = _Allowance(self.max_pixels, len(value))
        streams = self.streams(message) if self.share is not None else frozenset[str]()
        for index, row in enumerate(rows):
            facts = _facts_of(row, headers)
            try:
                stream_id = _stream_of(row.stream_id, headers.stream)
                if stream_id != facts.stream.stream_id:
                    facts = replace(facts, stream=NamedStream(row.stream_id, stream_id))
                if row.image is None:
                    raise InvalidMessage(Reason.UNDECODABLE_IMAGE, "expected an image, got null")
                if self.share is not None and not self.share.keeps(message, streams, stream_id):
                    self._charge(row.image, allowance)
                    continue
                if refuse is not None:
                    self._charge(row.image, allowance)
                    raise refuse
                frames.append(_accepted(message, index, facts, self._image(row.image, allowance)))
            except InvalidMessage as invalid:
                frames.append(_rejected(message, index, facts, invalid))
        return DecodedMessage(message, tuple(frames), is_batch=True)

    def _charge(self, data: bytes, allowance: _Allowance) -> None:
        """Charge an image of another shard, which is not decoded: what is left for later rows depends on it."""
        with contextlib.suppress(InvalidMessage):
            allowance.spend(codec.open_image(data, max_pixels=self.max_pixels))

    def _image(self, data: bytes, allowance: _Allowance) -> Tensor:
        """Return the preprocessed image, uint8 `[3, S, S]`; raise InvalidMessage."""
        if not data:
            raise InvalidMessage(Reason.EMPTY, "the image has no bytes")
        image = codec.open_image(data, max_pixels=self.max_pixels)
        try:
            allowance.spend(image)
            return self.preprocess(image)
        except InvalidMessage:
            raise
        except Exception as error:  # see codec.undecodable
            raise codec.undecodable(image.format or "image", error) from error


def own_rows(decoded: DecodedMessage, share: CameraShare, streams: frozenset[str]) -> DecodedMessage:
    """Return a message with only those frames that are of the shard; there may be none."""
    frames = tuple(frame for frame in decoded.frames if share.keeps(decoded.message, streams, frame.stream_id))
    return replace(decoded, frames=frames, dead=decoded.dead and bool(frames))


def whole_rejected(message: Message, invalid: InvalidMessage) -> DecodedMessage:
    """Return the result for a message that cannot be read as a whole."""
    return _whole_rejected(message, read_headers(message.key, message.headers), invalid)


def _whole_rejected(message: Message, headers: Headers, invalid: InvalidMessage) -> DecodedMessage:
    return DecodedMessage(message, (_rejected(message, 0, headers, invalid),), dead=True)


def _stream_of(own: bytes | None, stream: NamedStream) -> str:
    """Return the stream of an image that names `own`, or leaves it to key and headers; raise InvalidMessage."""
    if own is None:
        stream.check()
        if stream.stream_id is None:
            raise InvalidMessage(
                Reason.MISSING_STREAM_ID,
                "expected the stream id as key, in a stream-id header or in a stream_id column, got none of them",
            )
        return stream.stream_id
    stream_id = check_stream_id(own)
    if stream.stated and stream_id != stream.stream_id:
        raise InvalidMessage(
            Reason.STREAM_ID_MISMATCH,
            f"expected the message's stream {stream.stream_id!r} in each row, got {stream_id!r}: "
            "send one stream per message",
        )
    return stream_id


def _facts_of(row: arrow_batch.ImageRow, headers: Headers) -> Headers:
    """Return the facts about a row's image: the row's own and, where it has none, the message's."""
    captured_at_us, note = headers.captured_at_us, headers.note
    if row.captured_at_us is not None:
        captured_at_us, wrong = read_time(partial(check_timestamp, row.captured_at_us))
        note = note or wrong
    meta = row.meta
    if headers.meta:
        others = [item for item in headers.meta.items() if item[0] not in row.meta]
        meta = {**row.meta, **dict(others[: MAX_META - len(row.meta)])}
    label = row.label or headers.label
    return replace(headers, frame_id=row.frame_id, captured_at_us=captured_at_us, label=label, meta=meta, note=note)


def _accepted(message: Message, index: int, facts: Headers, image: Tensor) -> Frame:
    return _frame(message, index, facts, image=image)


def _rejected(message: Message, index: int, facts: Headers, invalid: InvalidMessage) -> Frame:
    return _frame(message, index, facts, reason=invalid.reason, detail=_shown(invalid.detail))


def _shown(text: str) -> str:
    """Return the text shortened and printable, as it goes into logs."""
    short = text[: 2 * MAX_DETAIL]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)[:MAX_DETAIL]


def _frame(
    message: Message,
    index: int,
    facts: Headers,
    *,
    image: Tensor | None = None,
    reason: Reason | None = None,
    detail: str | None = None,
) -> Frame:
    return Frame(
        RowId(message.topic, message.partition, message.offset, index),
        message.timestamp_ms,
        facts.stream.stream_id,
        image=image,
        reason=reason,
        detail=detail,
        frame_id=facts.frame_id,
        captured_at_us=facts.captured_at_us,
        true_label=facts.label,
        meta={**facts.meta, **facts.trace} if facts.trace else facts.meta,
        note=None if facts.note is None else _shown(facts.note),
        statistics=None if image is None or not image.nbytes else statistics(np.asarray(image)),
    )
