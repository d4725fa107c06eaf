"""Text heads on disk, so that no start encodes them: the heads file beside a card, and the cache of this machine.

Beside a card is one safetensors file with the class embeddings at each alpha. The card keeps its hash, which binds the
two. The cache has a file for each head, and a folder for each set of inputs: pair, prompts, libraries, processor and
threads. So a head from the cache is the one that this start would have made, and the fingerprint does not distinguish
them. A damaged head is made anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import structlog
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


_log = structlog.get_logger("model")

_HEAD, _SUM = "head", "sha256"
_NAME_LENGTH = 32  # hex digits of a folder's name; only folders with such a name are ever deleted
_WHOLE, _PART = ".safetensors", ".part"
_ABANDONED_S = 3_600.0  # an unfinished file that is older was left by a worker that died
_REMEDY = "heads are encoded at each start; set model.cache to a folder that the worker may write"


class HeadCache:
    """The heads of one pair, class list, library and machine, each float32 `[D, C]`; many workers share the folder.

    Args:
        folder: the heads of all pairs; created with the first head.
        key: everything that decides the bits of a head except its alpha.
        classes: C.
        limit_bytes: of the folder; the least recently used heads of other pairs are deleted to make room.
    """

    def __init__(self, folder: Path, *, key: str, classes: int, limit_bytes: int) -> None:
        self._key, self._classes, self._limit = key, classes, limit_bytes
        self._folder, self._home = folder, folder / sha256(key.encode()).hexdigest()[:_NAME_LENGTH]
        self._writes = True

    def read(self, alphas: Sequence[float]) -> dict[float, Tensor]:
        """Return the heads of `alphas` that are there. Damaged ones are deleted with a warning."""
        found = {}
        for alpha in alphas:
            path = self._path(alpha)
            try:
                head = self._head(self._content(path), alpha)
            except FileNotFoundError:
                continue
            except OSError as error:
                _log.warning("head_cache_not_read", file=str(path), error=str(error), remedy=_REMEDY)
                break
            if head is not None:
                found[alpha] = head
                continue
            _log.warning("head_damaged", file=str(path), note="it is deleted and encoded again, which takes a moment")
            with suppress(OSError):
                path.unlink()
        if found:
            # The time of the folder is that of its last use, by which `_make_room` deletes.
            with suppress(OSError):  # the folder may be read-only
                os.utime(self._home)
        return found

    def write(self, alpha: float, head: Tensor) -> None:
        """Store a head, whole or not at all. After the first failure, which is logged, nothing more is stored."""
        if not self._writes:
            return
        values = head.cpu().contiguous()
        digest = torch.frombuffer(bytearray(self._digest(alpha, values)), dtype=torch.uint8)
        content = save({_HEAD: values, _SUM: digest})
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._make_room(len(content)):
                _replace(self._path(alpha), content)
                return
            error = f"the heads of this pair need more than {self._limit} bytes (model.cache_mib)"
        except OSError as reason:
            error = str(reason)
        self._writes = False
        _log.warning("head_cache_not_written", folder=str(self._home), error=error, remedy=_REMEDY)

    def _path(self, alpha: float) -> Path:
        return self._home / f"{alpha:.6f}{_WHOLE}"

    def _content(self, path: Path) -> bytes:
        """Return the bytes of the file; empty if it is too large or not a regular file (a pipe would block)."""
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > 4 * WIDEST * self._classes:
            return b""
        return path.read_bytes()

    def _head(self, content: bytes, alpha: float) -> Tensor | None:
        """Return the head in a file's bytes; None if they are damaged or those of another head."""
        try:
            tensors = load(content)
            head, digest = tensors[_HEAD], tensors[_SUM].numpy().tobytes()
        except Exception:  # noqa: BLE001  # safetensors raises many kinds of errors for damaged bytes
            return None
        is_head = head.dtype == torch.float32 and head.ndim == 2 and head.shape[1] == self._classes
        return head if is_head and digest == self._digest(alpha, head) else None

    def _digest(self, alpha: float, head: Tensor) -> bytes:
        return sha256(f"{self._key} {alpha!r} {tuple(head.shape)} ".encode() + head.numpy().tobytes()).digest()

    def _make_room(self, size: int) -> bool:
        """Delete the least recently used folders until `size` bytes more fit; return False if our own alone do not."""
        sizes = dict(_sizes(self._folder))
        if sizes.get(self._home, 0) + size > self._limit:  # deleting others would not make room for it
            return False
        total = sum(sizes.values()) + size
        for folder in sorted(sizes, key=_used_s):
            if total <= self._limit:
                break
            if folder != self._home:
                _delete(folder)
                total -= sizes[folder]
        return True


def _sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield (folder of one key, bytes in it) below `folder`; unfinished files of dead workers are deleted."""
    for home in folder.iterdir():
        if re.fullmatch(rf"[0-9a-f]{{{_NAME_LENGTH}}}", home.name):
            yield home, sum(map(_size, _files(home)))


def _files(home: Path) -> list[Path]:
    """Return the files of the cache in a key's folder."""
    with suppress(FileNotFoundError, NotADirectoryError):  # another worker deletes it too
        return [path for path in home.iterdir() if path.suffix in {_WHOLE, _PART}]
    return []


def _size(path: Path) -> int:
    """Return the bytes of a file; delete it and return 0 if it was left unfinished."""
    with suppress(FileNotFoundError):
        status = path.stat()
        if path.suffix != _PART or time.time() - status.st_mtime < _ABANDONED_S:
            return status.st_size
        path.unlink()
    return 0


def _used_s(folder: Path) -> float:
    """Return when the folder was last used, in seconds of the epoch."""
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0


def _delete(folder: Path) -> None:
    with suppress(OSError):  # another worker has just written into it, or it has files that are not of the cache
        for path in _files(folder):
            path.unlink(missing_ok=True)
        folder.rmdir()


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside and rename it: a reader sees the old file or the new one, and the last writer wins."""
    part = path.with_name(f"{uuid4().hex}{_PART}")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
