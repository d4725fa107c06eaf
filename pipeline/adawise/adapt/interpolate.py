"""Interpolation of weights: theta(alpha) = (1 - alpha) * theta_0 + alpha * theta_1 (WiSE-FT: Wortsman et al., 2022).

Each weight set is flattened once. A module's parameters are views into the flat buffer that a merge writes. So a merge
is one pass over contiguous memory and allocates nothing, and what was compiled or captured over the views stays valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from adawise.errors import CheckpointError

_ALIGN_BYTES = 64  # a cache line; compilers copy inputs whose alignment is below 16
_PIECE = 1 << 18  # elements merged at a time, so that both inputs and the result stay in the processor's cache
_DEVICE_PIECE = 1 << 24  # on a GPU: the float32 intermediate takes 64 MiB, whatever the model

_NORMS_WITH_STATISTICS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Layout:
    """The place of each named tensor in a flat buffer of `numel` elements; starts are aligned."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    starts: tuple[int, ...]
    numel: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the layout of these tensors in their order, aligned for elements of 2 bytes and more."""
        step = _ALIGN_BYTES // 2
        starts, end = [], 0
        for tensor in tensors.values():
            starts.append(end)
            end += -(-tensor.numel() // step) * step
        return cls(tuple(tensors), tuple(t.shape for t in tensors.values()), tuple(starts), end)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the named tensors as views into `flat` `[numel]`."""
        return {
            name: flat[start : start + shape.numel()].view(shape)
            for name, shape, start in zip(self.names, self.shapes, self.starts, strict=True)
        }

    def flatten(self, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> Tensor:
        """Return a float32 copy `[numel]` of the tensors on `device`; the gaps are zero."""
        flat = torch.zeros(self.numel, dtype=torch.float32, device=device)
        for name, view in self.views(flat).items():
            view.copy_(tensors[name])
        return flat


def interpolate(theta_0: Tensor, theta_1: Tensor, alpha: float, *, out: Tensor) -> Tensor:
    """Write (1 - alpha) * theta_0 + alpha * theta_1 into `out` and return it; all `[numel]`, `out` of any float dtype.

    The formula is that of WiSE-FT (Wortsman et al., 2022, section 3). The result is computed in float32 and rounded
    once. At alpha 0 and 1 it is the endpoint in `out`'s dtype, bit for bit.

    Raises:
        ValueError: alpha outside [0, 1].
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if alpha in (0.0, 1.0):
        return out.copy_(theta_0 if alpha == 0.0 else theta_1)
    if out.dtype == theta_0.dtype:
        return torch.lerp(theta_0, theta_1, alpha, out=out)
    piece = _PIECE if theta_0.device.type == "cpu" else _DEVICE_PIECE
    for start in range(0, theta_0.numel(), piece):
        part = slice(start, start + piece)
        out[part].copy_(torch.lerp(theta_0[part], theta_1[part], alpha))
    return out


def check_pair(theta_0: nn.Module, theta_1: nn.Module) -> None:
    """Raise CheckpointError for two modules between which a straight line of weights is meaningless.

    Raises:
        CheckpointError: different keys, shapes or buffers, shared storage, weights that are equal or not finite, or
            activations that differ. The message names the key and the remedy.
    """
    check_shapes(theta_0, theta_1)
    _check_buffers(theta_0, theta_1)
    _check_activations(theta_0, theta_1)
    check_finite(theta_0, "theta_0")
    check_finite(theta_1, "theta_1")
    shared = {t.untyped_storage().data_ptr() for t in theta_0.parameters()}
    for name, parameter in theta_1.named_parameters():
        if parameter.untyped_storage().data_ptr() in shared:
            raise CheckpointError(
                f"theta_0 and theta_1 share the memory of '{name}': alpha 0 would be the fine-tuned model. Load "
                "each checkpoint into a separate module."
            )
    own = dict(theta_1.named_parameters(remove_duplicate=False))
    if all(torch.equal(p, own[name]) for name, p in theta_0.named_parameters(remove_duplicate=False)):
        raise CheckpointError(
            "theta_0 and theta_1 hold the same weights, so every alpha is the same model. "
            "Give the zero-shot checkpoint as model.theta_0 and the fine-tuned one as model.theta_1."
        )


def check_shapes(theta_0: nn.Module, theta_1: nn.Module) -> None:
    """Raise CheckpointError for two modules whose checkpoints differ in keys or shapes; the message names the first."""
    zero, one = theta_0.state_dict(), theta_1.state_dict()
    only_0, only_1 = sorted(zero.keys() - one.keys()), sorted(one.keys() - zero.keys())
    if only_0 or only_1:
        where, key = ("theta_0", only_0[0]) if only_0 else ("theta_1", only_1[0])
        raise CheckpointError(
            f"the checkpoints differ in {len(only_0) + len(only_1)} keys; '{key}' is in {where} only. "
            "Both must be of one architecture: fine-tune theta_1 from theta_0."
        )
    for key, tensor in zero.items():
        if tensor.shape != one[key].shape:
            raise CheckpointError(
                f"'{key}' is {list(tensor.shape)} in theta_0 and {list(one[key].shape)} in theta_1. "
                "Both must be of one architecture and one image size: fine-tune theta_1 from theta_0."
            )


def check_finite(theta: nn.Module, role: str) -> None:
    """Raise CheckpointError if a parameter is not finite; the message names the module by its `role`."""
    for name, parameter in theta.named_parameters():
        if not _is_finite(parameter):
            raise CheckpointError(
                f"'{name}' in {role} holds values that are not finite: its training diverged, or the file is damaged. "
                "Give an earlier checkpoint."
            )


def _is_finite(tensor: Tensor) -> bool:
    """Return True if every value is finite. Extremes take a sixth of the time of `isfinite`, and nan is one of them."""
    if not tensor.is_floating_point() or tensor.element_size() == 1:  # complex and float8 have no extremes
        return bool(torch.isfinite(tensor).all())
    return not tensor.numel() or all(math.isfinite(extreme) for extreme in torch.aminmax(tensor.detach()))


def freeze_statistics(theta: nn.Module) -> None:
    """Keep the running statistics of every BatchNorm as they are, also in training mode."""
    for module in theta.modules():
        if isinstance(module, _NORMS_WITH_STATISTICS):
            module.eval()
            # `train()` of a parent module calls this and must not switch the layer back.
            module.train = lambda _=True, module=module: module  # type: ignore[method-assign, misc]


def _check_buffers(theta_0: nn.Module, theta_1: nn.Module) -> None:
    """Raise CheckpointError if a buffer differs: buffers are not interpolated."""
    zero, one = (dict(theta.named_buffers(remove_duplicate=False)) for theta in (theta_0, theta_1))
    # A checkpoint's keys do not show it: a buffer may be no part of it, or be a parameter of the other model.
    if others := sorted(zero.keys() ^ one.keys()):
        raise CheckpointError(
            f"'{others[0]}' is a buffer of theta_{int(others[0] in one)} only. "
            "Both must be of one architecture: fine-tune theta_1 from theta_0."
        )
    for name, buffer in zero.items():
        if torch.equal(buffer, one[name]) or name.endswith(".num_batches_tracked"):
            continue
        owner = theta_0.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, _NORMS_WITH_STATISTICS):
            raise CheckpointError(
                f"the BatchNorm statistics '{name}' differ between theta_0 and theta_1, and no mixture of them is that "
                "of mixed weights. Fine-tune theta_1 with the statistics frozen (every BatchNorm in eval mode), as "
                "`adawise finetune` does."
            )
        raise CheckpointError(
            f"the buffer '{name}' differs between theta_0 and theta_1, and buffers are not interpolated. "
            "Fine-tune theta_1 from theta_0 without changing it."
        )


def _check_activations(theta_0: nn.Module, theta_1: nn.Module) -> None:
    """Raise CheckpointError if a module has another class: activations have no parameters that would show it."""
    types = {name: type(module).__name__ for name, module in theta_1.named_modules()}
    for name, module in theta_0.named_modules():
        kind = type(module).__name__
        if types.get(name) != kind:
            raise CheckpointError(
                f"'{name}' is {kind} in theta_0 and {types.get(name)} in theta_1. "
                "Both must be of one architecture: fine-tune theta_1 from theta_0."
            )
