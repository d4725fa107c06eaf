"""ViT-B-32's image tower: images a second by number format and attention, chunks of 8, in turn and repeated."""

from __future__ import annotations

import logging
import time
import warnings
from statistics import median

import torch
from torch import nn

from adawise.clip.attention import pack_attention
from adawise.clip.patches import multiply_patches

_ROWS, _REPEATS = 8, 7


def tower(dtype: torch.dtype, *, packed: bool) -> nn.Module:
    """ViT-B-32's image tower with random weights."""
    logging.getLogger().setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip

    torch.manual_seed(0)
    visual: nn.Module = open_clip.create_model("ViT-B-32").visual.eval().requires_grad_(False).to(dtype)
    if packed:
        pack_attention(visual)
        multiply_patches(visual)
    return visual


def seconds(model: nn.Module, x: torch.Tensor) -> float:
    """One forward."""
    started = time.perf_counter()
    with torch.inference_mode():
        model(x)
    return time.perf_counter() - started


def main() -> None:
    """Print images/s, median of 7 interleaved runs."""
    cases = {
        f"{name}, {'packed' if packed else 'nn.MultiheadAttention'}": (tower(dtype, packed=packed), dtype)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        for packed in (False, True)
    }
    x = torch.randn(_ROWS, 3, 224, 224)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(_REPEATS + 1):
        for name, (model, dtype) in cases.items():
            t = seconds(model, x.to(dtype))
            if repeat:  # the first is warm-up
                times[name].append(t)
    base = median(times["fp32, nn.MultiheadAttention"])
    for name, values in times.items():
        print(f"{name:32s} {_ROWS / median(values):7.1f} images/s   x{base / median(values):.2f}")
