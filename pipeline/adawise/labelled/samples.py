"""Labelled images on disk -> names, labels and bytes; and the part of them that is held out.

A folder with a subfolder for each class, or one Parquet or Arrow file with the columns `image` and `label`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adawise.errors import SettingsError
from adawise.produce.files import list_folder

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_EXPECTED = "expected a folder FOLDER/CLASS/IMAGE, or a Parquet or Arrow file with the columns image and label"


@dataclass(frozen=True, eq=False)
class Samples:
    """N labelled images, read when they are needed. `digest` changes with the names, labels and sizes."""

    where: str
    names: Sequence[str]
    labels: Sequence[str]  # class names
    read: Callable[[int], bytes]  # raises OSError
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that occur, in the order of the file's own list, else sorted."""
        return tuple(dict.fromkeys(self.labels))


def read_samples(path: Path, flag: str, classes: tuple[str, ...] | None) -> Samples:
    """List the labelled images of a folder or file.

    Args:
        path: what `flag` named.
        flag: for messages.
        classes: all that a label may be; None: whatever occurs.

    Raises:
        SettingsError: no such path, no image, no label, an unknown label or a file of another kind.
    """
    if not path.exists():
        raise SettingsError(f"{flag} {path}: there is no such folder or file; {_EXPECTED}")
    samples = _folder(path, flag) if path.is_dir() else _file(path, flag, classes)
    if not len(samples):
        raise SettingsError(f"{flag} {path}: found no image; {_EXPECTED}")
    unknown = sorted(set(samples.labels) - set(classes)) if classes is not None else []
    if unknown:
        named = ", ".join(repr(name) for name in unknown[:5]) + (f" and {len(unknown) - 5} more" * (len(unknown) > 5))
        raise SettingsError(
            f"{flag} {path}: the labels {named} are not among the {len(classes or ())} class names of model.classes. "
            "Add them there, rename them here, or leave model.classes out to take the labels as class names."
        )
    for name in samples.classes:
        if not name.strip() or name != " ".join(name.splitlines()).strip():
            raise SettingsError(
                f"{flag} {path}: expected class names of one line without spaces around them, got {name!r}. Rename it."
            )
    return samples


def declared_classes(path: Path) -> tuple[str, ...] | None:
    """The class names that a Parquet file brings in its metadata, in their order; None where there are none."""
    try:
        return _class_names(pq.read_schema(path)) if path.is_file() else None
    except (pa.ArrowException, OSError):  # another kind of file; `read_samples` says so if it is none of its kinds
        return None


def _folder(folder: Path, flag: str) -> Samples:
    files = [file for file in list_folder(folder) if file.path.suffix.lower() in _SUFFIXES]
    bare = [file.name for file in files if file.label is None]
    if bare:
        raise SettingsError(
            f"{flag} {folder}: {len(bare)} images have no label, such as {bare[0]}; put each into a subfolder that "
            f"has the name of its class ({folder}/CLASS/{bare[0]})"
        )
    sizes = [file.path.stat().st_size for file in files]
    paths = [file.path for file in files]
    labels = [file.label or "" for file in files]
    names = [file.name for file in files]
    return Samples(str(folder), names, labels, lambda i: paths[i].read_bytes(), _digest(names, labels, sizes))


def _file(path: Path, flag: str, classes: tuple[str, ...] | None) -> Samples:
    table = _table(path, flag)
    for column in ("image", "label"):
        if column not in table.column_names:
            found = ", ".join(table.column_names) or "none"
            raise SettingsError(f"{flag} {path}: there is no column {column!r} among {found}; {_EXPECTED}")
    images = _bytes_column(table.column("image"), f"{flag} {path}")
    known = _class_names(table.schema) or classes
    labels = _label_names(table.column("label"), known, f"{flag} {path}")
    if known:  # the file's own order of classes
        rank = {name: number for number, name in enumerate(known)}
        order = sorted(range(len(labels)), key=lambda i: (rank.get(labels[i], len(rank)), i))
    else:
        order = sorted(range(len(labels)), key=lambda i: (labels[i], i))
    names = [f"row {i}" for i in order]
    sorted_labels = [labels[i] for i in order]
    lengths = pc.binary_length(images).to_pylist()
    sizes = [lengths[i] or 0 for i in order]

    def read(i: int) -> bytes:
        value = images[order[i]].as_py()
        return b"" if value is None else bytes(value)

    return Samples(str(path), names, sorted_labels, read, _digest(names, sorted_labels, sizes))


def _table(path: Path, flag: str) -> pa.Table:
    with path.open("rb") as file:
        head = file.read(8)
    try:
        if head[:4] == b"PAR1":
            return pq.read_table(path, memory_map=True)
        with pa.memory_map(str(path)) as source:
            if head[:6] == b"ARROW1":
                return pa.ipc.open_file(source).read_all()
            return pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).splitlines()[0][:200]
        raise SettingsError(
            f"{flag} {path}: not a Parquet or Arrow file that can be read ({first}); {_EXPECTED}"
        ) from error


def _bytes_column(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Encoded images; a struct with the field `bytes`, as data-set libraries write it, is opened."""
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks], kind.field("bytes").type)
        kind = column.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise SettingsError(f"{where}: expected encoded images (binary) in the column image, got {kind}. Convert it.")
    return column


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """The names behind integer labels: `class_names` in the metadata, or the features that `datasets` writes there."""
    metadata: dict[bytes, bytes] = schema.metadata or {}
    try:
        if b"class_names" in metadata:
            names: Any = json.loads(metadata[b"class_names"])
        elif b"huggingface" in metadata:
            names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
        else:
            return None
    except (ValueError, KeyError, TypeError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _label_names(column: pa.ChunkedArray, known: tuple[str, ...] | None, where: str) -> list[str]:
    values: list[Any] = column.to_pylist()
    if None in values:
        raise SettingsError(f"{where}: row {values.index(None)} has no label. Label it or leave it out.")
    if all(isinstance(value, str) for value in values):
        return values
    if not pa.types.is_integer(column.type):
        raise SettingsError(f"{where}: expected text or whole numbers in the column label, got {column.type}.")
    if known is None:
        raise SettingsError(
            f"{where}: the labels are numbers, and nothing says what they mean. Write text, put the names as a JSON "
            "list into the file's metadata under class_names, or set model.classes."
        )
    wrong = next((i for i, value in enumerate(values) if not 0 <= value < len(known)), None)
    if wrong is not None:
        raise SettingsError(f"{where}: row {wrong} has label {values[wrong]}, expected 0 to {len(known) - 1}.")
    return [known[value] for value in values]


def _digest(names: Sequence[str], labels: Sequence[str], sizes: Sequence[int]) -> str:
    text = json.dumps([list(names), list(labels), list(sizes)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split(samples: Samples, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Image numbers to train on, and those held out: of each class the same share, at least one of each.

    Raises:
        SettingsError: a class with one image.
    """
    by_class: dict[str, list[int]] = {}
    for i, label in enumerate(samples.labels):
        by_class.setdefault(label, []).append(i)
    single = [label for label, members in by_class.items() if len(members) < 2]
    if single:
        raise SettingsError(
            f"{samples.where}: the class {single[0]!r} has one image, and at least two are needed, one of them to be "
            f"held out ({len(single)} such classes). Add images, leave the class out, or give --validation."
        )
    train, held_out = [], []
    random = np.random.default_rng(seed)
    for label in sorted(by_class):
        members = random.permutation(by_class[label]).tolist()
        count = min(len(members) - 1, max(1, round(share * len(members))))
        held_out += members[:count]
        train += members[count:]
    return sorted(train), sorted(held_out)
