"""A card that computes nothing: torch's `FakeTensorMode` knows of each tensor only its shape, dtype and device.

An operation on tensors of two devices raises, and so does one that asks for a value (`.item`, `nonzero`). What it lets
pass is refused here: an index or a scalar that stayed on the processor. What it cannot do at all is behind the port
`clip.device.Device`: pinned memory, queues, graphs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from adawise.clip import prompts
from adawise.clip.layers import multiply_patches, pack_attention
from adawise.clip.load import CheckpointPair
from adawise.clip.preprocessing import Preprocessing
from adawise.clip.trunk import NoTrunkError, Trunk
from adawise.decode.preprocess import Preprocess

CARD = torch.device("cuda:0")
_TRANSFERS = {"aten::_to_copy", "aten::copy_"}


class MixedDevices(Exception):
    """An operation on the card was given a tensor of the processor."""


class _Strict(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [t for t in _pytree.tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
        devices = {t.device.type for t in tensors}
        if len(devices) > 1 and func._schema.name not in _TRANSFERS:
            shapes = ", ".join(f"{t.device.type} {list(t.shape)}" for t in tensors)
            raise MixedDevices(f"{func._schema.name} of {shapes}")
        return func(*args, **(kwargs or {}))


class FakeCard:
    """Brings pairs and images into the fake world; `running` is that world."""

    def __init__(self) -> None:
        self._mode = FakeTensorMode()

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._mode, _Strict(), pytest.MonkeyPatch.context() as patch:  # type: ignore[no-untyped-call]
            patch.setattr(prompts, "_longest", lambda tokens: min(10, tokens.shape[1]))  # a value of tokens
            yield

    def pair(self, pair: CheckpointPair) -> CheckpointPair:
        """The loaded pair with fake tensors in place of its own, on the processor as they are."""
        _ = pair.text_is_shared, pair.trunk  # these compare values
        parts = (pair.trunk.trunk, pair.trunk.tail) if isinstance(pair.trunk, Trunk) else ()
        models = [t for model in (*pair._models, *parts) for t in (*model.parameters(), *model.buffers())]
        memo = {id(t): self._mode.from_tensor(t) for t in (*models, *pair.theta_0.values(), *pair.theta_1.values())}
        return copy.deepcopy(pair, memo)

    def untrained(self, architecture: str) -> CheckpointPair:
        """A pair of any architecture that open_clip knows; it takes no memory."""
        models = [without_memory(architecture) for _ in range(2)]
        for model in models:
            model.requires_grad_(False)
            pack_attention(model)
            multiply_patches(model)
        tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
        with self._mode:
            memo = {id(t): _like(t) for t in tensors}
        models = copy.deepcopy(models, memo)
        size = models[0].visual.image_size
        pair = CheckpointPair(
            tower=models[0].visual,
            theta_0=dict(models[0].visual.named_parameters()),
            theta_1=dict(models[1].visual.named_parameters()),
            preprocess=Preprocess(size if isinstance(size, int) else size[0], "shortest", "bicubic", 0),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            preparation=Preprocessing({}, {}),
            log_scales=(4.6, 4.6),
            hashes=("zero", "one"),
            config="as it is made",
            _models=(models[0], models[1]),
            _tokenizer=open_clip.get_tokenizer(architecture),
        )
        pair.__dict__.update(text_is_shared=False, trunk=NoTrunkError("no values"))
        return pair

    def images(self, n: int, size: int) -> Tensor:
        """uint8 `[n, 3, size, size]` on the processor."""
        return self._mode.from_tensor(torch.zeros(n, 3, size, size, dtype=torch.uint8))


def without_memory(architecture: str) -> Any:
    """An open_clip model whose tensors have no data; timm's trunks ask for values while they are made."""
    timm = open_clip.get_model_config(architecture)["vision_cfg"].get("timm_model_name")
    with torch.device("cpu" if timm else "meta"):
        return open_clip.create_model(architecture, load_weights=False, device="meta").eval()


def _like(t: Tensor) -> Tensor:
    empty = torch.empty(t.shape, dtype=t.dtype)
    return torch.nn.Parameter(empty, requires_grad=False) if isinstance(t, torch.nn.Parameter) else empty
