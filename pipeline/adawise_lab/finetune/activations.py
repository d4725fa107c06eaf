"""Held-out images behind the layers that a run does not train: computed once, and read for every epoch and alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from adawise_lab.finetune.images import HeldOut

KEPT_BYTES = 2**30
"""What the activations of a run's held-out images may take in memory, counted as float32."""


class HeldOutActivations:
    """The activations of held-out images behind the layers that are not trained, kept in CPU memory.

    The first pass computes and keeps them; later passes decode no image and run none of these layers.

    Args:
        held_out: the images.
        compute: maps pixels uint8 `[n, 3, S, S]` to activations `[n, ...]` on the CPU.
        tail: maps activations to the result of the image tower, with the weights of the moment.
    """

    def __init__(self, held_out: HeldOut, compute: Callable[[Tensor], Tensor], tail: nn.Module) -> None:
        self._held_out, self._compute, self.tail = held_out, compute, tail
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    @property
    def rows(self) -> Sequence[int]:
        """The numbers of the images."""
        return self._held_out.rows

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield activations `[n, ...]` and class indices int64 `[n]`, batch by batch."""
        if self._kept is not None:
            yield from self._kept
            return
        kept = []
        for pixels, labels in self._held_out.once():
            batch = self._compute(pixels), labels
            kept.append(batch)
            yield batch
        self._kept = kept
