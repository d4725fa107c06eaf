"""Logit tables: the logits of both models and of every mixture between them for a labelled set of images, one npz file.

Any strategy runs on a table in seconds, since no image passes a model any more. Arrays of a file: `logits` `[G, n, C]`,
float16 or float32, scale applied; `labels` `[n]`; `alphas` `[G]`; `class_names` `[C]`; and, if known, `domain`,
`logit_scale` `[G]` and `pixels` `[n, 5]`. A file may come from anywhere: nothing in it is unpickled, and every array is
checked.

A table that is being computed is kept in files, too: a process that was stopped resumes from them, and several
processes that compute the same table share them.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from adawise.errors import SettingsError
from adawise.records import STATISTICS, FloatArray
from adawise.store.files import open_regular

SUFFIX = ".npz"
MAX_BYTES = 16 * 2**30  # of one array: a larger one is a damaged header or an attack
_REMEDY = "Make it again, or leave it out (--domains)"
_NEEDED = {"logits": ("f", 3), "labels": ("iu", 1), "alphas": ("f", 1), "class_names": ("U", 1)}
_ARRAYS = _NEEDED | {"domain": ("U", 0), "logit_scale": ("f", 1), "pixels": ("f", 2)}  # kinds and dimensions
_DAMAGED = (  # raised by zipfile and numpy for bytes that are not a table
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class TableSources:
    """The images to make tables of: at most `limit` of each place, clean and under `corruptions`; kept in `cache`."""

    places: tuple[Path, ...]
    corruptions: str | None
    cache: Path
    limit: int | None


@dataclass(frozen=True, eq=False)
class LogitTable:
    """One domain: n labelled images of C classes, with their logits at G alphas.

    Attributes:
        name: of the domain.
        logits: `[G, n, C]`, float16 or float32, finite.
        labels: int64 `[n]`, in [0, C).
        alphas: ascending from 0 to 1.
        class_names: C distinct names.
        logit_scale: `[G]`; already applied to the logits, kept for the record.
        pixels: appearance statistics of the images (`records.STATISTICS`), finite `[n, 5]`; None if unknown.
    """

    name: str
    logits: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    alphas: tuple[float, ...]
    class_names: tuple[str, ...]
    logit_scale: tuple[float, ...] | None = None
    pixels: FloatArray | None = None

    @property
    def group(self) -> str:
        """The kind of domain: its name up to the first underscore."""
        return self.name.partition("_")[0]

    def __len__(self) -> int:
        return len(self.labels)


def read_table(path: Path) -> LogitTable:
    """Read one table and name it after the file.

    Raises:
        SettingsError: no such file, not an npz file, or an array that is missing, of the wrong kind or out of range.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            arrays = {name: _read(archive, name) for name in _present(archive)}
        table = _table(path.name.removesuffix(SUFFIX), arrays)
    except OSError as error:
        raise SettingsError(f"{path}: the table cannot be read ({error.strerror or error}). {_REMEDY}.") from error
    except _DAMAGED as error:
        raise SettingsError(f"{path}: not a table of logits: {error}. {_REMEDY}.") from error
    return table


def write_table(path: Path, table: LogitTable) -> None:
    """Write a table atomically; `read_table` returns the same values bit for bit."""
    arrays: dict[str, Any] = {
        "logits": table.logits,
        "labels": table.labels.astype(np.int32),
        "alphas": np.asarray(table.alphas, dtype=np.float64),
        "class_names": np.asarray(table.class_names, dtype=np.str_),
        "domain": np.asarray(table.name, dtype=np.str_),
    }
    if table.logit_scale is not None:
        arrays["logit_scale"] = np.asarray(table.logit_scale, dtype=np.float64)
    if table.pixels is not None:
        arrays["pixels"] = table.pixels
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_tables(folder: Path, domains: Sequence[str] | None = None) -> tuple[LogitTable, ...]:
    """Read the tables of a folder, sorted by name: `domains`, or else all but `val*`, which serve to choose settings.

    Raises:
        SettingsError: no such folder, a domain that is not in it, no table at all, or tables of different alphas.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder}: there is no such folder; expected one with a table DOMAIN{SUFFIX} each domain")
    there = sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}") if not _hidden(path))
    chosen = [name for name in there if not name.startswith("val")] if domains is None else sorted(set(domains))
    missing = [name for name in chosen if name not in there]
    if missing or not chosen:
        wanted = f"no table of {missing[0]!r}" if missing else "no table of a domain whose name does not begin with val"
        raise SettingsError(f"{folder}: {wanted}; there are {', '.join(there) or 'none'}. Name others with --domains.")
    tables = tuple(read_table(folder / f"{name}{SUFFIX}") for name in chosen)
    for table in tables[1:]:
        if table.alphas != tables[0].alphas:
            raise SettingsError(
                f"{folder}: {table.name} has the alphas {list(table.alphas)} and {tables[0].name} "
                f"{list(tables[0].alphas)}; expected one grid. {_REMEDY}."
            )
    return tables


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _present(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield the names of the known arrays in the archive; others are not read.

    Raises:
        ValueError: a required array is missing.
    """
    names = set(archive.namelist())
    for name in _NEEDED:
        if f"{name}.npy" not in names:
            raise ValueError(f"expected the arrays {', '.join(_NEEDED)}; {name} is missing")
    yield from (name for name in _ARRAYS if f"{name}.npy" in names)


def _read(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """Read one array, after checking its header against the size in the archive.

    Without the check, a forged header could claim any size.
    """
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        shape, dtype = _header(file)
        size_bytes = math.prod(shape) * dtype.itemsize
        kinds, dimensions = _ARRAYS[name]
        if dtype.kind not in kinds or len(shape) != dimensions:
            raise ValueError(f"{name}: expected {dimensions} dimensions of kind {kinds!r}, got {len(shape)} of {dtype}")
        if size_bytes > MAX_BYTES or not 0 < member.file_size - size_bytes < 2**16:
            raise ValueError(f"{name}: its header says {size_bytes} bytes, the archive has {member.file_size}")
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    reader: BinaryIO = file
    version = np.lib.format.read_magic(reader)
    if version not in {(1, 0), (2, 0)}:
        raise ValueError(f"expected version 1 or 2 of numpy's format, got {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(reader)
    return shape, dtype


def _table(name: str, arrays: dict[str, npt.NDArray[Any]]) -> LogitTable:
    logits, labels = arrays["logits"], arrays["labels"].astype(np.int64)
    alphas = tuple(round(float(a), 6) for a in arrays["alphas"])  # .05 stored as float32 becomes .05 again
    class_names = tuple(str(c) for c in arrays["class_names"])
    G, n, C = logits.shape
    if min(G - 1, n, C - 1) < 1:
        raise ValueError(f"logits: expected at least 2 alphas, 1 image and 2 classes, got {logits.shape}")
    for what, got, want in (
        ("labels", len(labels), n),
        ("alphas", len(alphas), G),
        ("class_names", len(class_names), C),
    ):
        if got != want:
            raise ValueError(f"{what}: expected {want} for logits {logits.shape}, got {got}")
    if alphas[0] != 0.0 or alphas[-1] != 1.0 or any(b <= a for a, b in pairwise(alphas)):
        raise ValueError(f"alphas: expected them to ascend from 0 to 1, got {alphas}")
    if labels.min() < 0 or labels.max() >= C:
        raise ValueError(f"labels: expected class indices below {C}, got {labels.min()} to {labels.max()}")
    if len(set(class_names)) != C:
        raise ValueError("class_names: expected each once")
    if not np.isfinite(logits).all():
        j, i, _ = np.argwhere(~np.isfinite(logits))[0]
        raise ValueError(f"logits: expected finite numbers; image {i} at alpha {alphas[j]} has none")
    logits = logits.astype(np.float32) if logits.dtype.itemsize > 4 else logits
    table = LogitTable(name, logits.astype(logits.dtype.newbyteorder("="), copy=False), labels, alphas, class_names)
    if (pixels := arrays.get("pixels")) is not None:
        if pixels.shape != (n, len(STATISTICS)) or not np.isfinite(pixels).all():
            raise ValueError(f"pixels: expected finite numbers {(n, len(STATISTICS))}, got {pixels.shape}")
        table = replace(table, pixels=pixels.astype(np.float32))
    if (scale := arrays.get("logit_scale")) is not None:
        if len(scale) != G or not np.isfinite(scale).all():
            raise ValueError(f"logit_scale: expected {G} finite numbers, got {scale}")
        table = replace(table, logit_scale=tuple(float(s) for s in scale))
    return table


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
