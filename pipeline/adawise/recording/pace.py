"""The pace at which a recording grows, for the progress of a recorder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from adawise.recording.recorder import RecordingProgress
from adawise.text import as_duration, as_size

_SOON_S, _FEW = 10.0, 100  # seconds and messages that it may be behind and still count as having caught up


class Pace:
    """The pace at which a recording grows, and how long the disk has room for that.

    Args:
        root: where the recording is stored.
        free_bytes: returns the bytes that are free there; None if that is not known.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        root: str,
        *,
        free_bytes: Callable[[str], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._free_bytes, self._clock = root, free_bytes or _free_bytes, clock
        self._is_behind = False
        self._since = clock(), RecordingProgress(), 0

    def of(self, recorded: RecordingProgress, taken: int, waiting: int) -> str:
        """Return the progress as `1.2 MiB, 4.50 GB/h, disk full in 7 h`.

        Size and rate count the bytes of the messages; the time until the disk is full counts what is stored of them.
        While more than a hundred messages wait, and taking them needs more than ten seconds, the recorder is catching
        up. Its rate then says nothing about the topic's, which is measured from the moment when it has caught up.

        Args:
            recorded: what is stored so far.
            taken: messages that were taken, stored or not yet.
            waiting: messages that the topic has beyond these.
        """
        now_s, size = self._clock(), as_size(recorded.size_bytes)
        since_s, before, had = self._since
        elapsed_s = max(now_s - since_s, 1e-3)
        if waiting > _FEW and waiting * elapsed_s > _SOON_S * max(1, taken - had):
            self._is_behind = True
            return f"{size}, {waiting:,} messages behind"
        if self._is_behind:
            self._is_behind, self._since = False, (now_s, recorded, taken)
            return size
        if had and elapsed_s < _SOON_S:
            return size
        rate = f"{(recorded.size_bytes - before.size_bytes) / elapsed_s * 3600 / 1e9:.3g} GB/h"
        free, stored = self._free_bytes(self._root), recorded.stored_bytes - before.stored_bytes
        if free is None or not stored:
            return f"{size}, {rate}"
        return f"{size}, {rate}, disk full in {as_duration(free / stored * elapsed_s)}"


def _free_bytes(root: str) -> int | None:
    if "://" in root:
        return None
    folder = Path(root)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
