"""Files that a user or an operator names: regular ones alone, read up to a bound.

A pipe that nobody writes to would be waited for, and a device such as /dev/zero has no end.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

SECRET_BYTES = 64 * 1024
TEXT_BYTES = 64 * 2**20
"""Of a file of settings, cameras, class names, prompts or known events, of a card, a certificate or a list."""

_WITH_AN_END = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/", os.devnull)
"""What a shell hands over by `<(command)` or `|`, where somebody writes to the pipe; and what stands for no file."""


def read_bytes(path: Path, most: int = TEXT_BYTES) -> bytes:
    """Return what the file holds.

    Raises:
        OSError: it cannot be read, is no regular file (nor a pipe that the shell handed over, nor /dev/null), or holds
            more than `most` bytes.
    """
    with open(path, "rb", opener=_regular_or_with_an_end) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def open_regular(path: Path) -> BinaryIO:
    """Open a file to be read. Raises OSError also for a pipe or a device.

    The file has the path as its `name`: who maps a file into memory asks for that.
    """
    return open(path, "rb", opener=_regular)


def _regular_or_with_an_end(path: str, flags: int) -> int:
    return os.open(path, flags) if os.fspath(path).startswith(_WITH_AN_END) else _regular(path, flags)


def _regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor
