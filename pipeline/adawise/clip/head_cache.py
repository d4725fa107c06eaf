"""Text heads on disk, so that the next start encodes none: a file for each head, a folder for each set of inputs.

A file is read only if pair, prompts, libraries, processor and threads are those that made it. So a head from the cache
is the one that this start would have made, and the fingerprint does not distinguish them. A damaged head is made anew.
"""

from __future__ import annotations

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
from safetensors.torch import load, save
from torch import Tensor

from adawise.clip.heads import WIDEST

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
