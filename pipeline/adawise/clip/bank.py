"""Merged copies of the image tower, one for each recently requested alpha, within a memory budget.

A copy is a flat buffer and a tower whose parameters are views into it. An alpha that returns costs no merge. When the
budget is spent, the least recently used copy is overwritten in place, so no tensor is ever replaced. Of a tower that is
cut (`clip/trunk.py`), only the tail is merged; the trunk is kept once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adawise.adapt.interpolate import interpolate
from adawise.clip.device import Forward
from adawise.clip.skeleton import Skeleton, without_tensors
from adawise.clip.trunk import Trunk


@dataclass
class MergedCopy:
    """A merged copy of the tower.

    Attributes:
        flat: the buffer `[numel]`.
        tower: the tower over the buffer, or its tail.
        forward: what the device captured of the tower; None before its first forward.
    """

    flat: Tensor
    tower: nn.Module
    forward: Forward | None = None


class Bank:
    """The towers at the alphas of a grid.

    Args:
        tower: the module whose parameters are interpolated; it is copied and never run itself.
        theta_0: name -> tensor, the zero-shot parameters of `tower`; one with two names is there by both.
        theta_1: the fine-tuned parameters, likewise.
        alphas: the grid `[G]`.
        dtype: of the merged copies; the two endpoints are kept in float32.
        device: the device of all tensors.
        budget_bytes: for merged copies; there is always room for two, whatever the budget.
        trunk: where the tower is cut; None if it is merged as a whole.

    Attributes:
        trunk: the part of the tower that is equal at all alphas; None if there is none.
        activation_bytes: bytes of the activations of one image behind the trunk; 0 if there is none.
        copy_bytes: bytes of one copy.
        capacity: how many copies there may be.
        merges: how often a copy was merged.
    """

    def __init__(
        self,
        tower: nn.Module,
        theta_0: Mapping[str, Tensor],
        theta_1: Mapping[str, Tensor],
        *,
        alphas: Sequence[float],
        dtype: torch.dtype,
        device: torch.device,
        budget_bytes: int,
        trunk: Trunk | None = None,
    ) -> None:
        buffers = dict(tower.named_buffers(remove_duplicate=False))
        self._skeleton = Skeleton(without_tensors(tower) if trunk is None else trunk.tail, theta_0, buffers)
        self._layout = self._skeleton.layout
        self._ends = self._layout.flatten(theta_0, device), self._layout.flatten(theta_1, device)
        self.trunk: nn.Module | None = None
        self._shared: dict[str, Tensor] = {}
        self.activation_bytes = 0
        if trunk is not None:
            self.activation_bytes = trunk.shape.numel() * dtype.itemsize
            shared = Skeleton(trunk.trunk, theta_0, buffers)
            flat = shared.layout.flatten(theta_0, device)
            self.trunk = shared.over(flat.to(dtype))
            if dtype == flat.dtype:
                self._shared = shared.layout.views(flat)
        self._alphas, self._dtype, self._device = tuple(alphas), dtype, device
        self._copies: OrderedDict[int, MergedCopy] = OrderedDict()
        self.copy_bytes = self._layout.numel * dtype.itemsize
        self.capacity = min(len(alphas), max(2, budget_bytes // self.copy_bytes))
        self.merges = 0

    @property
    def ends(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The parameters of theta_0 and of theta_1 that the bank has in float32, by name: views of its buffers.

        They are those that are merged and, if the towers run in float32, those of the trunk.
        """
        zero, one = (self._layout.views(flat) | self._shared for flat in self._ends)
        return zero, one

    def tower(self, index: int) -> nn.Module:
        """Return the image tower at `alphas[index]`, valid until `capacity` other alphas were requested."""
        return self.copy(index).tower

    @torch.no_grad()
    def copy(self, index: int) -> MergedCopy:
        """Return the merged copy at `alphas[index]`, valid as that of `tower`.

        It must not run in inference mode: tensors made there could not be overwritten outside of it.

        Raises:
            torch.OutOfMemoryError: the copy that was to be overwritten is then given up.
        """
        if index in self._copies:
            self._copies.move_to_end(index)
            return self._copies[index]
        if len(self._copies) < self.capacity:
            flat = torch.empty(self._layout.numel, dtype=self._dtype, device=self._device)
            copied = MergedCopy(flat, self._skeleton.over(flat))
        else:
            # The least recently used copy keeps its memory, and with it what was captured over it.
            _, copied = self._copies.popitem(last=False)
        try:
            interpolate(*self._ends, self._alphas[index], out=copied.flat)
        except torch.OutOfMemoryError:
            self.capacity = max(1, len(self._copies))
            raise
        self.merges += 1
        self._copies[index] = copied
        return copied

    def shrink(self) -> bool:
        """Drop the less recently used half of the copies for good; return False if there is only one or none."""
        if self.capacity == 1 or not self._copies:
            return False
        for _ in range(len(self._copies) // 2):
            self._copies.popitem(last=False)
        self.capacity = len(self._copies)
        return True
