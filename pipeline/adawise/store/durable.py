"""Files and folders that survive a power cut, and our errors for those of the operating system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from adawise.errors import SettingsError, StoreFull, StoreUnavailable

TEMPORARY = ".tmp-"
"""The prefix of the names of files that are being written."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
# The operator has to act on these: waiting does not help.
_LASTING = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,  # a file where a folder is needed; callers that create files handle this error themselves
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EXDEV,
}


@contextmanager
def temporary_file(path: Path, data: bytes) -> Iterator[Path]:
    """Write `data` to a durable temporary file beside `path`; delete that name at the end of the block."""
    _make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each durable before the next: a file in a lost folder is lost too."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translate errors of the operating system into ours, with the remedy."""
    try:
        yield
    except OSError as error:
        what = f"{path}: expected a folder that can be written and has hard links, but: {error.strerror or error}"
        if error.errno in _LASTING:
            raise SettingsError(f"{what}; set sink.root to one, or give this user the permission") from error
        if error.errno in _FULL:
            raise StoreFull(f"{path}: expected room for a file, but: {error.strerror}; {StoreFull.REMEDY}") from error
        raise StoreUnavailable(
            f"{what}; a worker tries again (free space, the mount and the disk are the usual causes)"
        ) from error
