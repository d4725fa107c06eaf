"""The weights of a TorchScript archive, the format in which OpenAI published CLIP, read without running its code.

torch loads such a file by compiling the code in it. Its tensors lie beside that code as in any checkpoint: bytes, and a
pickle that says where each belongs. This module reads these two only, and the pickle may name only tensors and plain
objects.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from adawise.errors import CheckpointError

_OF_OPENAI = b"input_resolution"  # an attribute that only OpenAI's own models keep among their weights
_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
"""The dtype of each typed storage that a pickle may name; torch itself warns where one is looked up."""
_SPARE_BYTES = 1 << 26  # torch compresses only the code of TorchScript, which has a few million bytes
_UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, StopIteration, zipfile.BadZipFile, zlib.error)


def is_archive(checkpoint: str, *, of_openai: bool = False) -> bool:
    """Return True if the file is a TorchScript archive; with `of_openai`, only if it is also one of OpenAI's models."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
            if not (scripted and of_openai):
                return scripted
            return not _unpacks_to_too_much(archive) and _OF_OPENAI in _read(archive, _pickle(archive))
    except _UNREADABLE:
        return False  # not an archive, or damaged: the error of loading it says more


def check_unpacked_size(checkpoint: str) -> None:
    """Raise CheckpointError for a zip file that would take far more memory than it has bytes, before it is unpacked.

    A file that is no zip file, or a damaged one, passes: the code that loads it reports that.

    Raises:
        CheckpointError: it would unpack to more than its own size and 64 MiB.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            is_too_much = _unpacks_to_too_much(archive)
    except _UNREADABLE:
        return
    if is_too_much:
        raise CheckpointError(
            f"{checkpoint}: expected an archive as torch writes it, about as large as its content, but it would "
            "unpack to many times its size. Save the state_dict again, or use a file from a trusted source."
        )


def _unpacks_to_too_much(archive: zipfile.ZipFile) -> bool:
    """Return True if the archive's directory announces too many bytes; overlapping members count each.

    `_read` reads no more of a member than the directory says, so the directory can be trusted.
    """
    assert archive.fp is not None
    packed = archive.fp.seek(0, io.SEEK_END)
    return sum(member.file_size for member in archive.infolist()) > packed + _SPARE_BYTES


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member, up to the size in the directory: `ZipFile.read` unpacks everything before it checks that."""
    member = archive.getinfo(name)
    with archive.open(member) as file:
        return file.read(member.file_size)


def read_archive(checkpoint: str) -> dict[str, Tensor]:
    """Return every tensor of the archive's modules by its dotted name; masks too, which a state dict does not have.

    Raises:
        CheckpointError: it would unpack to many times its size.
        pickle.UnpicklingError: it names something other than tensors and plain objects.
        Exception: it is damaged.
    """
    check_unpacked_size(checkpoint)
    with zipfile.ZipFile(checkpoint) as archive:
        root = _TensorReader(archive).load()
    return dict(_tensors(root, ""))


def _pickle(archive: zipfile.ZipFile) -> str:
    return next(name for name in archive.namelist() if name.endswith("/data.pkl"))


class _Attributes:
    """A stand-in for a module of the archive, with its attributes and none of its code."""


class _TensorReader(pickle.Unpickler):
    """An unpickler that builds tensors and attributes only; it never imports a name of the archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        name = _pickle(archive)
        super().__init__(io.BytesIO(_read(archive, name)))
        self._archive, self._data = archive, name.removesuffix(".pkl")
        self._storages: dict[tuple[str, str], Tensor] = {}

    @override
    def find_class(self, module: str, name: str, /) -> Any:
        if module.startswith("__torch__"):
            return _Attributes
        if module == "torch" and name in _DTYPES:
            return name
        if module == "torch.jit._pickle":  # functions that restore lists which TorchScript gave a type
            return _first
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    @override
    def persistent_load(self, pid: Any, /) -> Tensor:
        _, storage, key, *_ = pid
        if (storage, key) not in self._storages:  # tensors may share a storage, which is read once
            dtype = _DTYPES[storage]
            data = bytearray(_read(self._archive, f"{self._data}/{key}"))
            self._storages[storage, key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[storage, key]


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _tensors(module: _Attributes, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, _Attributes):
            yield from _tensors(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            yield f"{prefix}{name}", value
