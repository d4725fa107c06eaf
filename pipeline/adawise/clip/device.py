"""The port between the classifier and a device: the little that differs between a processor and a card.

All else in `clip` is plain torch on tensors that say where they are. An implementation for CUDA is in `clip/cuda.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

Forward = Callable[[Tensor], Tensor]
"""uint8 `[rows, 3, S, S]` on the device -> float32 features `[rows, D]` there."""


class Device(Protocol):
    """What runs the image tower. All calls come from one thread, in inference mode."""

    @property
    def where(self) -> torch.device:
        """Where tensors live."""

    @property
    def has_bfloat16(self) -> bool:
        """True if it has instructions for bfloat16; torch's own answer counts emulation, as on T4."""

    @property
    def numerics(self) -> str:
        """What of the device decides the bits of a forward; part of the model fingerprint."""

    def stage(self, images: Sequence[Tensor], rows: int) -> Tensor:
        """uint8 `[n_i, 3, S, S]` on the processor, together at most `rows` -> `[rows, 3, S, S]` on the device.

        What is missing is zeros. The caller may change `images` at once. The result is good for work that is enqueued
        before the next call of `stage`.
        """

    def capture(self, forward: Forward, chunk: Tensor) -> Forward:
        """The same forward, cheaper to launch, for chunks of the shape of `chunk`.

        What `forward` reads beside its argument must stay where it is, and may change in place. A result is good for
        work that is enqueued before the next call of any captured forward.
        """

    def fetch(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors `[n_i, C]` on the device -> one `[N, C]` on the processor: waits for all that was enqueued."""

    def guarded(self) -> AbstractContextManager[None]:
        """Within it, a failure of the device itself is raised as DeviceError; out of memory stays what it is."""

    def free(self) -> None:
        """Give unused memory back, so that the next allocation can have it."""


class Plain:
    """A device without queues of its own: the processor."""

    def __init__(self, where: torch.device) -> None:
        self.where = where
        self.numerics = where.type
        has = torch.cpu.get_capabilities()
        self.has_bfloat16 = bool(has.get("avx512_bf16") or has.get("amx_bf16"))

    @override
    def __str__(self) -> str:
        return str(self.where)

    def stage(self, images: Sequence[Tensor], rows: int) -> Tensor:
        """See `Device`."""
        chunk = torch.empty(rows, *images[0].shape[1:], dtype=torch.uint8)
        fill(chunk, images)
        return chunk.to(self.where)

    def capture(self, forward: Forward, chunk: Tensor) -> Forward:
        """See `Device`."""
        del chunk
        return forward

    def fetch(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Device`."""
        return torch.cat(list(parts)).cpu()

    def guarded(self) -> AbstractContextManager[None]:
        """See `Device`."""
        return nullcontext()

    def free(self) -> None:
        """See `Device`."""


def fill(chunk: Tensor, images: Iterable[Tensor]) -> None:
    """Write the images into the first rows of `chunk` and zeros into the others."""
    filled = 0
    for part in images:
        chunk[filled : filled + len(part)] = part
        filled += len(part)
    chunk[filled:] = 0


def chunks(images: Sequence[Tensor], rows: int) -> Iterator[tuple[int, list[Tensor]]]:
    """The images in chunks of at most `rows`, as views: how many a chunk has, and which; none is empty."""
    chunk: list[Tensor] = []
    filled = 0
    for part in images:
        while len(part):
            taken = part[: rows - filled]
            chunk.append(taken)
            filled += len(taken)
            part = part[len(taken) :]
            if filled == rows:
                yield filled, chunk
                chunk, filled = [], 0
    if filled:
        yield filled, chunk


def tokens_of(tower: nn.Module) -> int:
    """Vectors that an image becomes in the tower: patches and class token of a ViT; 196 where nobody says."""
    embedding = getattr(tower, "positional_embedding", None)
    return int(embedding.shape[0]) if isinstance(embedding, Tensor) and embedding.ndim == 2 else 196
