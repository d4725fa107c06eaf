"""A table of logits that is being computed, kept in a file.

A process that was stopped resumes from the file, and several processes that compute the same table share it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adawise.errors import SettingsError
from adawise.records import STATISTICS, FloatArray


@dataclass(frozen=True, eq=False)
class Partial:
    """Logits `[G, n, C]` and statistics `[n, 5]`, float32, in memory-mapped files; nan where not computed yet."""

    path: Path
    logits: FloatArray
    pixels: FloatArray

    @classmethod
    @contextmanager
    def open(cls, table: Path, shape: tuple[int, int, int]) -> Iterator[Partial]:
        """Open the partial table for the file `table`: the existing one if it has that shape, else an empty one."""
        path = table.with_name(f".{table.name}.partial.npy")
        logits, pixels = _mapped(path, shape), _mapped(_beside(path), (shape[1], len(STATISTICS)))
        try:
            yield cls(path, logits, pixels)
        finally:
            logits.flush()
            pixels.flush()

    def has(self, j: int, rows: slice) -> bool:
        """Return True if all of these rows are known at alpha number j."""
        return not np.isnan(self.logits[j, rows]).any()

    def is_whole(self, rows: slice) -> bool:
        """Return True if logits and statistics of these rows are known at every alpha."""
        return not (np.isnan(self.logits[:, rows]).any() or np.isnan(self.pixels[rows]).any())

    def put(self, j: int, rows: slice, logits: FloatArray) -> None:
        """Store the logits of these rows at alpha number j.

        Raises:
            SettingsError: they are not all finite.
        """
        if not np.isfinite(logits).all():
            row = rows.start + int(np.argwhere(~np.isfinite(logits))[0, 0])
            raise SettingsError(
                f"{self.path.name}: expected finite logits; image {row} at alpha number {j} has none. "
                "Check the checkpoints, or set model.precision to fp32."
            )
        self.logits[j, rows] = logits

    def remove(self) -> None:
        """Delete the files, once the table is written.

        Another process that computes the same table keeps its own mapping of them.
        """
        self.path.unlink(missing_ok=True)
        _beside(self.path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(".pixels.npy")


def _mapped(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float32]]:
    if _shape(path) != shape:
        _create(path, shape)
    return np.lib.format.open_memmap(path, mode="r+")


def _shape(path: Path) -> tuple[int, ...] | None:
    """Return the shape of the array in the file; None if there is no such file, or it has another dtype."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError):  # absent, or truncated while it was created
        return None
    return array.shape if array.dtype == np.float32 else None


def _create(path: Path, shape: tuple[int, ...]) -> None:
    """Create the complete file at once: a process that joins must never find half of it, nor replace another's.

    The file is written, not mapped: a full disk then raises an error, where a write to a mapping would kill the
    process.
    """
    path.unlink(missing_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    unknown = np.full(shape[1:], np.nan, dtype=np.float32).tobytes()
    try:
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(shape[0]):
                file.write(unknown)
        # If another process was faster, its file is the one to use.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
