"""Merged copies of the image tower, one for each recently requested alpha, within a memory budget.

A copy is a flat buffer and a tower whose parameters are views into it. An alpha that returns costs no merge. When the
budget is spent, the least recently used copy is overwritten in place, so no tensor is ever replaced.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adawise.adapt.interpolate import Layout, interpolate
from adawise.clip.device import Forward


@dataclass
class MergedCopy:
    """A merged copy of the tower.

    Attributes:
        flat: the buffer `[numel]`.
        tower: the tower over the buffer.
        forward: what the device captured of the tower; None before its first forward.
    """

    flat: Tensor
    tower: nn.Module
    forward: Forward | None = None


class Bank:
    """The towers at the alphas of a grid.

    Args:
        tower: the module whose parameters are interpolated; it is copied and never run itself.
        theta_0: name -> tensor, the zero-shot parameters of `tower`.
        theta_1: the fine-tuned parameters, likewise.
        alphas: the grid `[G]`.
        dtype: of the merged copies; the two endpoints are kept in float32.
        device: the device of all tensors.
        budget_bytes: for merged copies; there is always room for two, whatever the budget.

    Attributes:
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
    ) -> None:
        self._layout = Layout.of(theta_0)
        self._ends = self._layout.flatten(theta_0, device), self._layout.flatten(theta_1, device)
        self._skeleton = _without_parameters(tower)
        self._buffers = {name: buffer.to(device) for name, buffer in tower.named_buffers()}
        self._alphas, self._dtype, self._device = tuple(alphas), dtype, device
        self._copies: OrderedDict[int, MergedCopy] = OrderedDict()
        self.copy_bytes = self._layout.numel * dtype.itemsize
        self.capacity = min(len(alphas), max(2, budget_bytes // self.copy_bytes))
        self.merges = 0

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
            copied = MergedCopy(flat, self._over(flat))
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

    def _over(self, flat: Tensor) -> nn.Module:
        """Return a tower whose parameters are views into `flat`."""
        tower = copy.deepcopy(self._skeleton)
        for name, view in self._layout.views(flat).items():
            owner, _, leaf = name.rpartition(".")
            setattr(tower.get_submodule(owner), leaf, nn.Parameter(view, requires_grad=False))
        for name, buffer in self._buffers.items():
            owner, _, leaf = name.rpartition(".")
            cast = buffer.to(self._dtype) if buffer.is_floating_point() else buffer
            tower.get_submodule(owner).register_buffer(leaf, cast, persistent=False)
        return tower.eval()


def _without_parameters(tower: nn.Module) -> nn.Module:
    """Return a deep copy whose tensors take no memory."""
    # `deepcopy` takes a tensor's copy from `memo`, so it never allocates the real one.
    memo = {
        id(t): t.to("meta") if not isinstance(t, nn.Parameter) else nn.Parameter(t.to("meta"), requires_grad=False)
        for t in (*tower.parameters(), *tower.buffers())
    }
    return copy.deepcopy(tower, memo)
