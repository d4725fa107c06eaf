"""Files that settings name, read up to a bound: a device such as /dev/zero has no end."""

from __future__ import annotations

import errno
from pathlib import Path

SECRET_BYTES = 64 * 1024
TEXT_BYTES = 64 * 2**20
"""Of a file of settings, cameras, class names or prompts."""


def read_bytes(path: Path, most: int) -> bytes:
    """Return what the file holds. Raises OSError if it cannot be read, or holds more than `most` bytes."""
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data
