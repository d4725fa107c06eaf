"""The heads file beside a card: class embeddings of the text tower at each alpha, so that no start encodes them.

It is a safetensors file. The card keeps its hash, which binds the two.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from adawise.errors import CardError
from adawise.store.files import read_bytes

WIDEST = 10_000
"""The largest width D that embeddings in a file may have."""

_NAME = "class_embeddings"


def heads_path(card: Path) -> Path:
    """Return the path of a card's heads: `pair.card.json` -> `pair.card.heads.safetensors`."""
    return card.with_suffix(".heads.safetensors")


def encoded(embeddings: Tensor) -> tuple[bytes, str]:
    """Return the file of class embeddings `[H, D, C]`, and its hash, as the card keeps it."""
    content = save({_NAME: embeddings.contiguous()})
    return content, _hash(content)


def read_heads(path: Path, expected_hash: str, shape: tuple[int, int]) -> Tensor | None:
    """Return the class embeddings, float32 `[H, D, C]`, with `shape` (H, C); None if there is no such file.

    Raises:
        CardError: not the file that the card was made with, or not readable.
    """
    remedy = (
        "Delete it (each start then encodes the prompts), or make the card again: "
        "adawise card make --labelled FOLDER -o FILE"
    )
    try:
        content = read_bytes(path, 4 * WIDEST * (shape[0] * shape[1] + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CardError(f"{path}: the card's heads cannot be read ({error.strerror}). {remedy}") from error
    if _hash(content) != expected_hash:
        raise CardError(f"{path}: expected heads with hash {expected_hash}, got {_hash(content)}. {remedy}")
    try:
        embeddings = load(content)[_NAME]
    except (SafetensorError, KeyError) as error:
        raise CardError(f"{path}: not a card's heads ({error!r}). {remedy}") from error
    if embeddings.ndim != 3 or (embeddings.shape[0], embeddings.shape[2]) != shape or embeddings.dtype != torch.float32:
        raise CardError(
            f"{path}: expected float32 heads for {shape[0]} alphas and {shape[1]} classes, got {embeddings.dtype} "
            f"{list(embeddings.shape)}. {remedy}"
        )
    return embeddings


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
