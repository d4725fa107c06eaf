"""The class list through the text tower: one head for each alpha, encoded in parts that fit into idle moments.

A causal tower reads nothing behind the end of a text, so the context is cut behind the longest prompt. Ten tokens
instead of CLIP's 77 are an eighth of the work, and the same result in real arithmetic.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cached_property
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

ENCODER = "prompts/2"
"""The version of this code, which decides the bits of a head beside weights, tokens and machine; in fingerprints."""

Encoding = Generator[None, None, Tensor]
"""A head in progress: each `next` encodes one part of the prompts, and `StopIteration` has the head."""

_AT_ONCE = {"cpu": 16, "cuda": 256}  # prompts in a part; 16 of ten tokens take ViT-B/32 .08 s on two cores


class Prompts:
    """The prompts of C classes, ready for the text tower of a pair.

    The parts of a head always have the same shapes, so a head is the same bits whether it is made at once or in parts.

    Args:
        models: open_clip's two models.
        tokens: int64 `[C * templates, context]`, those of a class together.
        classes: C.
    """

    def __init__(self, models: tuple[Any, Any], tokens: Tensor, classes: int) -> None:
        self._models, self._classes = models, classes
        self._cut = _longest(tokens) if _stops_at_the_end(models[0]) else tokens.shape[1]
        self._tokens, self._is_cut = tokens[:, : self._cut], self._cut < tokens.shape[1]

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the sha256 of the tokens and of how they belong to classes."""
        shape = f"{tuple(self._tokens.shape)} {self._classes} "
        return sha256(shape.encode() + self._tokens.contiguous().numpy().tobytes()).hexdigest()[:16]

    def encode(self, alpha: float, where: torch.device) -> Encoding:
        """Encode the head at theta(alpha), float32 `[D, C]`, on the device `where`.

        A column is the mean of the unit embeddings of a class's prompts, normalised, without logit scale (as
        open_clip's zero-shot classifier).
        """
        encoder, theta = _TextEncoder(self._models[0]), self._theta(alpha, where)
        parts = []
        for part in torch.split(self._tokens, _AT_ONCE[where.type]):
            with torch.inference_mode():
                parts.append(torch.func.functional_call(encoder, theta, (part.to(where),), strict=False))
            yield
        with torch.inference_mode():
            embeddings = torch.cat(parts).view(self._classes, -1, parts[0].shape[-1]).mean(dim=1)  # [C, D]
            head = torch.nn.functional.normalize(embeddings, dim=-1).T.contiguous()
        return head.clone()  # cloned outside of inference mode, whose tensors cannot be used everywhere

    def head(self, alpha: float, where: torch.device = torch.device("cpu")) -> Tensor:  # noqa: B008 - a constant
        """Return the whole head at once; see `encode`."""
        making = self.encode(alpha, where)
        while True:
            try:
                next(making)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]

    def _theta(self, alpha: float, where: torch.device) -> dict[str, Tensor]:
        """Return the text tower's tensors at alpha on the device, with positions and mask cut to the used context."""
        zero, one = (text_parameters(model) for model in self._models)
        theta = {name: torch.lerp(zero[name], one[name], alpha) for name in zero}
        theta |= {name: buffer for name, buffer in self._models[0].named_buffers() if not name.startswith(_NOT_TEXT)}
        if self._is_cut:
            prefix, cut = _home(self._models[0])[1], self._cut
            theta[f"{prefix}positional_embedding"] = theta[f"{prefix}positional_embedding"][:cut]
            theta[f"{prefix}attn_mask"] = theta[f"{prefix}attn_mask"][:cut, :cut]
        return {f"model.{name}": tensor.to(where) for name, tensor in theta.items()}


class _TextEncoder(nn.Module):
    """`encode_text` as a forward, so that `functional_call` can run it with other parameters."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.model.encode_text(tokens, normalize=True)
        return embeddings


_NOT_TEXT = ("visual.", "logit_scale", "logit_bias")


def text_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of the text tower by name."""
    return {name: p.detach() for name, p in model.named_parameters() if not name.startswith(_NOT_TEXT)}


def _home(model: Any) -> tuple[Any, str]:
    """Return the module that has the text tower's mask and positions, and the prefix of their names."""
    return (model.text, "text.") if hasattr(model, "text") else (model, "")


def _stops_at_the_end(model: Any) -> bool:
    """Return True if nothing behind the end of a text matters: the tower is causal, and reads out at the end only.

    The end is the token with the highest number (`argmax`). open_clip's only mask of a text tower is the causal one.
    """
    home, _ = _home(model)
    pools = getattr(home, "text_pool_type", None) or getattr(home, "pool_type", None)
    is_causal = isinstance(getattr(home, "attn_mask", None), Tensor)
    return pools == "argmax" and is_causal and getattr(home, "cls_emb", None) is None


def _longest(tokens: Tensor) -> int:
    """Return the number of tokens of the longest text, its end included."""
    return int(tokens.argmax(dim=-1).max()) + 1
