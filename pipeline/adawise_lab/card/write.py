"""Functions that write a card, and its text heads beside it, in place of older ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from adawise.card.card import Card
from adawise.clip.heads import encoded, heads_path
from adawise.errors import CardError
from adawise.store.durable import sync_folder, temporary_file


def write_card(path: Path, card: Card, embeddings: Tensor) -> Card:
    """Write the card with these heads, the class embeddings float32 `[H, D, C]`; return the card, which names them.

    The old heads are removed first, and the new ones are written last. If the process is killed in between, the card is
    without heads, and the next start encodes them.

    Raises:
        CardError: it could not be written.
    """
    content, digest = encoded(embeddings)
    card, heads = replace(card, heads=digest), heads_path(path)
    try:
        heads.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(heads, error) from error
    replace_card(path, card)
    _replace(heads, content)
    return card


def replace_card(path: Path, card: Card) -> None:
    """Write the card alone; its heads stay as they are.

    Raises:
        CardError: it could not be written.
    """
    _replace(path, card.to_json().encode())


def _replace(path: Path, content: bytes) -> None:
    try:
        with temporary_file(path, content) as temporary:
            os.replace(temporary, path)
            sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> CardError:
    return CardError(
        f"{path}: could not be written ({error.strerror or error}). Free space, or give this user the right to write."
    )
