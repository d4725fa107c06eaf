"""The decoder that is fuzzed, and what every one of its results must be."""

from __future__ import annotations

from adawise.decode.message import MAX_DETAIL, Decoder
from adawise.decode.preprocess import Preprocess, ResizeMode
from adawise.decode.rendition import AS_OPEN_CLIP, Rendition
from adawise.records import DecodedMessage, Message
from tools.fuzz.messages import MAX_MESSAGE_BYTES, MAX_ROWS

SIZE = 64  # px
MAX_PIXELS = 34_000_000  # the default: whatever a header may claim, up to there it is believed


class EachMode:
    """The decoder, with each way to read an image and to fit it to the model in turn."""

    def __init__(self) -> None:
        modes: tuple[ResizeMode, ...] = ("shortest", "longest", "squash")
        otherwise = Rendition(orientation="apply", grey16_range=(7_000, 18_000), reduced=True)
        self._decoders = [
            Decoder(Preprocess(SIZE, mode, rendition=rendition), MAX_MESSAGE_BYTES, MAX_ROWS, MAX_PIXELS)
            for rendition in (AS_OPEN_CLIP, otherwise)
            for mode in modes
        ]

    def __call__(self, message: Message) -> DecodedMessage:
        return self._decoders[message.offset % len(self._decoders)](message)

    def streams(self, message: Message) -> frozenset[str]:
        """Told before it is decoded, which is the same in every mode."""
        return self._decoders[0].streams(message)


_STREAMS = Decoder(Preprocess(SIZE), MAX_MESSAGE_BYTES, MAX_ROWS, MAX_PIXELS).streams


def breach(decoded: DecodedMessage, sent: Message) -> str | None:
    """What of `DecodedMessage`'s contract a result breaks, None if nothing."""
    frames = decoded.frames
    if decoded.message is not sent or not frames or (decoded.dead and len(frames) != 1):
        return f"{len(frames)} frames, dead {decoded.dead}"
    if astray := {frame.stream_id for frame in frames if frame.image is not None} - _STREAMS(sent):
        return f"images of {astray}, which was not told before"
    for index, frame in enumerate(frames):
        place = frame.row_id
        if (place.topic, place.partition, place.offset, place.index) != (*sent.topic_partition, sent.offset, index):
            return f"frame {index} says that it is {place}"
        if (frame.image is None) == (frame.reason is None) or (frame.detail is None) != (frame.reason is None):
            return f"frame {index} has image, reason and detail {frame.image is not None, frame.reason, frame.detail}"
        if frame.image is not None and (tuple(frame.image.shape) != (3, SIZE, SIZE) or frame.stream_id is None):
            return f"frame {index} is {tuple(frame.image.shape)} of stream {frame.stream_id}"
        if frame.detail is not None and not (frame.detail.isprintable() and 0 < len(frame.detail) <= MAX_DETAIL):
            return f"frame {index} has the detail {frame.detail!r}"
    return None
