"""Settings -> the decoder: the limits of messages are set once, for the worker and for all who read its messages."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor

from adawise.decode.message import Decoder
from adawise.decode.rendition import Rendition
from adawise.settings import DecodeSettings


def rendition(settings: DecodeSettings) -> Rendition:
    """Return how pictures are treated before they are resized."""
    low, _, high = settings.grey16_range.partition("-")
    return Rendition(
        orientation=settings.orientation,
        grey16_range=(int(low), int(high)) if high else None,
        reduced=settings.reduced,
    )


def open_decoder(settings: DecodeSettings, preprocess: Callable[[Image.Image], Tensor]) -> Decoder:
    """Return a decoder from messages to images by `preprocess`, within the limits of the settings."""
    return Decoder(
        preprocess,
        max_message_bytes=settings.max_message_bytes,
        max_rows=settings.max_rows,
        max_pixels=settings.max_pixels,
    )
