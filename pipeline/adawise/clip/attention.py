"""An attention module that stays fast with frozen parameters, in place of `nn.MultiheadAttention`.

open_clip's towers call `nn.MultiheadAttention`. Off its fast path (autocast, compile, frozen parameters) its input is
no longer contiguous, and the call becomes four to six times slower. One contiguous qkv projection and
`scaled_dot_product_attention` give the same numbers (up to rounding) and take the same time everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from typing_extensions import override


class PackedAttention(nn.Module):
    """Self-attention with the parameters, names and signature of the `nn.MultiheadAttention` that it replaces."""

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
