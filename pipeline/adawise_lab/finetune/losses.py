"""The losses of fine-tuning: the contrastive loss of pre-training, or cross-entropy over a frozen text head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def flyp(images: Tensor, texts: Tensor, labels: Tensor, *, scale: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the contrastive loss of images against prompts of their own classes (FLYP, arXiv 2212.00638), in nats.

    It is the mean of both directions, image to text and text to image. Another image of the same class is no negative:
    its pair is left out of the sums, where the usual loss would push an image away from a correct prompt.

    Args:
        images: unit embeddings `[B, D]`.
        texts: unit embeddings `[B, D]`; row i is a prompt of the class of image i.
        labels: class indices `[B]`.
        scale: factor of the cosines (exp of the model's logit scale), scalar.
        smoothing: share of the target that is spread over all pairs that count, in [0, 1).
    """
    logits = scale * images.float() @ texts.float().T  # [B, B]
    same = labels[:, None] == labels[None, :]
    left_out = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = logits.masked_fill(left_out, -torch.inf)
    return (_own_pair(logits, left_out, smoothing) + _own_pair(logits.T, left_out.T, smoothing)) / 2


def _own_pair(logits: Tensor, left_out: Tensor, smoothing: float) -> Tensor:
    log_p = log_softmax(logits, dim=-1)
    loss = -log_p.diagonal()
    if smoothing > 0:
        counted = (~left_out).sum(dim=-1)
        spread = -log_p.masked_fill(left_out, 0.0).sum(dim=-1) / counted
        loss = (1 - smoothing) * loss + smoothing * spread
    return loss.mean()


def cross_entropy(images: Tensor, head: Tensor, labels: Tensor, *, scale: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy over all classes, in nats, for unit rows `images` `[B, D]` and `head` `[C, D]`."""
    logits = scale * images.float() @ head.float().T  # [B, C]
    return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
