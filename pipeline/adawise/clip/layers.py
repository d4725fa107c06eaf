"""Layers that replace those of open_clip's towers: the same parameters, names and results, in other operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from typing_extensions import override


class PatchProduct(nn.Module):
    """The patch embedding as one matrix product, in place of an `nn.Conv2d` whose stride is its kernel.

    cuDNN chooses among algorithms for a convolution, also by the free memory, and each rounds differently: the same
    image could have other logits on the same GPU. A product has one algorithm. In bfloat16 it takes about half the time
    on a CPU, in float32 up to twice (1 % of a forward).
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.kernel_size = self.stride = convolution.kernel_size

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, D, H // h, W // w]`; rows and columns beyond the last whole patch are ignored."""
        B, C, H, W = images.shape
        h, w = self.kernel_size
        rows, columns = H // h, W // w
        images = images[:, :, : rows * h, : columns * w]
        patches = images.reshape(B, C, rows, h, columns, w).permute(0, 2, 4, 1, 3, 5).reshape(B, rows * columns, -1)
        return linear(patches, self.weight.flatten(1), self.bias).transpose(1, 2).reshape(B, -1, rows, columns)


def multiply_patches(tower: nn.Module) -> int:
    """Replace the convolutions that cut images into patches in `tower`, in place; return how many were replaced."""
    found = [
        (module, name, child)
        for module in tower.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.Conv2d) and _cuts_patches(child)
    ]
    for module, name, child in found:
        setattr(module, name, PatchProduct(child))
    return len(found)


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    """Return True for a convolution of RGB images in patches that neither overlap nor leave gaps."""
    return (
        convolution.in_channels == 3
        and convolution.kernel_size == convolution.stride != (1, 1)
        and convolution.padding == (0, 0)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )


class PackedAttention(nn.Module):
    """Self-attention that stays fast with frozen parameters, in place of `nn.MultiheadAttention`; with its signature.

    open_clip's towers call `nn.MultiheadAttention`. Off its fast path (autocast, compile, frozen parameters) its input
    is no longer contiguous, and the call becomes four to six times slower. One contiguous qkv projection and
    `scaled_dot_product_attention` give the same numbers (up to rounding) and take the same time everywhere.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.num_heads = attention.num_heads

    @override
    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Map `[B, L, D]` to (`[B, L, D]`, None); query, key and value are one tensor.

        `attn_mask` `[L, L]`, or `[B * H, L, L]` as CoCa's text tower makes it, is added to the scores.
        """
        if key is not query or value is not query or need_weights:
            raise ValueError("PackedAttention is self-attention without weights")
        B, L, D = query.shape
        qkv = linear(query.contiguous(), self.in_proj_weight, self.in_proj_bias)  # [B, L, 3 D]
        q, k, v = qkv.view(B, L, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)  # [B, H, L, D / H]
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.view(B, self.num_heads, L, L)
        x = scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(x.transpose(1, 2).reshape(B, L, D)), None


def pack_attention(tower: nn.Module) -> int:
    """Replace the self-attention of every residual block in `tower`, in place; return how many were replaced.

    Attention pooling, whose query is not its key, keeps its module: it is one call a forward.
    """
    replaced = 0
    for module in tower.modules():
        attention = getattr(module, "attn", None)
        # A block with `ln_1_kv` is cross-attention.
        if isinstance(attention, nn.MultiheadAttention) and _is_plain(attention) and not hasattr(module, "ln_1_kv"):
            module.attn = PackedAttention(attention)
            replaced += 1
    return replaced


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    """Return True if the module has no option that `PackedAttention` lacks."""
    return (
        attention.batch_first
        and attention._qkv_same_embed_dim
        and attention.bias_k is None
        and not attention.add_zero_attn
        and attention.dropout == 0.0
        and isinstance(attention.in_proj_weight, torch.Tensor)
    )
