"""A module without its tensors, from which modules over flat buffers, or over other tensors, are made."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, fx, nn

from adawise.adapt.interpolate import Layout


class Skeleton:
    """A tower, or a part of it, without tensors.

    Args:
        module: the module on the device `meta`.
        theta: name -> tensor of the tower; the module has all or some of these parameters, by the same names.
        buffers: the tower's buffers, likewise.

    Attributes:
        layout: the places of the module's parameters in a flat buffer.
    """

    def __init__(self, module: nn.Module, theta: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        own = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        self.layout = Layout.of({name: tensor for name, tensor in theta.items() if name in own})
        self._module = module
        self._buffers = {name: buffers[name] for name, _ in module.named_buffers(remove_duplicate=False)}

    def over(self, flat: Tensor) -> nn.Module:
        """Return a module whose parameters are views into `flat` `[numel]`; buffers are on its device, of its dtype."""
        tensors: dict[str, Tensor] = {
            name: nn.Parameter(view, requires_grad=False) for name, view in self.layout.views(flat).items()
        }
        for name, buffer in self._buffers.items():
            tensors[name] = buffer.to(flat.device, flat.dtype if buffer.is_floating_point() else buffer.dtype)
        return with_tensors(self._module, tensors)


def with_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a module on the device `meta` that has these parameters and buffers, and shares their memory.

    `tensors` has all of the module's names, and may have more.
    """
    module = copy.deepcopy(module)
    own = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    for name in [name for name, _ in own]:
        _put(module, name, tensors[name])
    if isinstance(module, fx.GraphModule):
        # Its graph refers back to it. Without that circle, a copy that is given up frees its memory at once, and not
        # when the garbage collector comes by.
        module.graph.owning_module = None
    return module.eval()


def without_tensors(module: nn.Module) -> nn.Module:
    """Return a deep copy whose tensors take no memory, on the device `meta`."""
    # `deepcopy` takes a tensor's copy from `memo`, so it never allocates the real one.
    memo = {
        id(t): t.to("meta") if not isinstance(t, nn.Parameter) else nn.Parameter(t.to("meta"), requires_grad=False)
        for t in (*module.parameters(), *module.buffers())
    }
    return copy.deepcopy(module, memo)


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Set a parameter or a buffer by its qualified name."""
    owner, _, leaf = name.rpartition(".")
    if isinstance(tensor, nn.Parameter):
        setattr(module.get_submodule(owner), leaf, tensor)
    else:
        module.get_submodule(owner).register_buffer(leaf, tensor, persistent=False)
