"""Reading of files that a user names: only regular files, and only up to a bound.

A read from a pipe without a writer would never return, and a device such as /dev/zero has no end.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

SECRET_BYTES = 64 * 1024
TEXT_BYTES = 64 * 2**20
"""Most bytes of a file of settings, cameras, class names, prompts or known events, of a card, certificate or list."""

_WITH_AN_END = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/", os.devnull)
"""Paths that a shell passes for `<(command)` or `|`, whose pipes have a writer; and the path of an empty file."""


class NotRegular(OSError):
    """A pipe, a device or a link that leads back to itself was found where a regular file is expected."""


def read_bytes(path: Path, most: int = TEXT_BYTES) -> bytes:
    """Return the file's bytes.

    Raises:
        OSError: it cannot be read, holds more than `most` bytes, or is none of a regular file, a pipe that the shell
            passed, and /dev/null.
    """
    with open(path, "rb", opener=_regular_or_with_an_end) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to be read.

    The file has the path as its `name`, which code that maps it into memory needs.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a folder.
    """
    return open(path, "rb", opener=_regular)


def stat_of(path: Path) -> os.stat_result:
    """Return the status of a file.

    Raises:
        OSError: there is none; NotRegular if it is a link that leads back to itself.
    """
    try:
        return path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise NotRegular(errno.ELOOP, "it is a link that leads back to itself", str(path)) from error
        raise


def _regular_or_with_an_end(path: str, flags: int) -> int:
    return os.open(path, flags) if os.fspath(path).startswith(_WITH_AN_END) else _regular(path, flags)


def _regular(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)  # to open a pipe without a writer would block
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.ENODEV} and not stat.S_ISREG(stat_of(Path(path)).st_mode):
            raise NotRegular(errno.EINVAL, "it is a socket or a device", path) from error
        raise
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise NotRegular(errno.EINVAL, "it is not a regular file", path)
    return descriptor
