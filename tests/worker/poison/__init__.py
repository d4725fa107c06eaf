"""A codec that a message can make to crash, in a worker and, by `sitecustomize` here, in what that starts."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

SEGFAULT, MEMORY = b"follows a null pointer", b"takes all memory"
_FOLDER = Path(__file__).parent
_BLOCK_BYTES = 256 * 2**20


def arm() -> None:
    """In this process, and by the environment in those that it will start."""
    from adawise.decode import arrow_batch, codec

    open_image, stream_ids = codec.open_image, arrow_batch.stream_ids

    def crashing(data: bytes, *, max_pixels: int) -> object:
        if SEGFAULT in data:
            ctypes.string_at(0)
        if MEMORY in data:
            _take_all()
        return open_image(data, max_pixels=max_pixels)

    def crashing_for_names(value: bytes, *, max_rows: int) -> set[bytes | None]:
        if SEGFAULT in value:
            ctypes.string_at(0)
        return stream_ids(value, max_rows=max_rows)

    codec.open_image = crashing  # type: ignore[assignment]
    arrow_batch.stream_ids = crashing_for_names
    root = _FOLDER.parents[2]
    paths = [str(_FOLDER), str(root / "pipeline"), str(root), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


def _take_all() -> None:
    """What a system would answer by its OOM killer; where there is a limit, up to that."""
    import resource

    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        os.kill(os.getpid(), signal.SIGKILL)
    taken = []
    while True:
        taken.append(bytearray(_BLOCK_BYTES))
