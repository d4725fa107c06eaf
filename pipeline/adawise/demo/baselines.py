"""The baselines: labels at fixed alphas, from a second reading of the same messages.

The worker evaluates the endpoints on some images only, and a comparison on those would be biased. So the same
classifier classifies every image again, and the rows are joined by (partition, offset).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from adawise.app.model import ModelPair
from adawise.decode.message import Decoder
from adawise.errors import BrokerUnavailable
from adawise.ports import Source
from adawise.records import Message

FIXED = (0.0, 1.0, 0.5)
"""Zero-shot, fine-tuned, and .5, which WiSE-FT's authors recommend if nothing else is known."""

_SILENT_S = 30.0
_AT_ONCE = 256  # images held as pixels

Labels = dict[tuple[int, int], tuple[str, ...]]
"""(partition, offset) -> the label at each alpha of `FIXED`."""


def fixed_labels(model: ModelPair, decoder: Decoder, source: Source, images: int) -> Labels:
    """Classify the topic's first `images` messages, one image each, at the alphas of `FIXED`.

    Raises:
        BrokerUnavailable: the topic delivers no more messages before there are that many.
    """
    labels: Labels = {}
    waiting: list[Message] = []
    received_s = time.monotonic()
    while len(labels) < images:
        poll = source.poll(0.1)
        for tp in poll.assigned:
            source.seek(tp, 0)
            source.resume([tp])
        waiting += (message for message in poll.messages if message.missing is None)
        if poll.messages:
            received_s = time.monotonic()
        elif time.monotonic() - received_s > _SILENT_S:
            raise BrokerUnavailable(
                f"expected {images} images when the topic was read again, got {len(labels) + len(waiting)} and then "
                f"nothing for {_SILENT_S:.0f} s. The output is complete; only the comparison is missing"
            )
        while len(waiting) >= _AT_ONCE or (waiting and len(labels) + len(waiting) >= images):
            labels |= _classify(model, decoder, waiting[:_AT_ONCE])
            del waiting[:_AT_ONCE]
    return labels


def _classify(model: ModelPair, decoder: Decoder, messages: Sequence[Message]) -> Labels:
    frames = [frame for message in messages for frame in decoder(message).frames]
    pixels = torch.stack([frame.image for frame in frames if frame.image is not None])
    columns = []
    for alpha in FIXED:
        index = model.classifier.alphas.index(alpha)
        columns.append([model.classes[i] for i in model.classifier.logits(index, pixels).argmax(dim=1).tolist()])
    keys = [(frame.row_id.partition, frame.row_id.offset) for frame in frames if frame.image is not None]
    return dict(zip(keys, zip(*columns, strict=True), strict=True))
