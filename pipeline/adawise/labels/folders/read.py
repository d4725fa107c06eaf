"""Reads labelled images of any form (`FORMS`) into `Samples`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adawise.errors import SettingsError
from adawise.labels.folders import FORMS
from adawise.labels.folders.recording import Decoding, recorded_samples
from adawise.labels.folders.samples import Samples, digest_of, is_class_name
from adawise.produce.files import LOST_AND_FOUND, list_folder
from adawise.recording.format import MANIFEST
from adawise.store.files import open_regular
from adawise.store.parquet import open_parquet

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def is_recording(path: Path) -> bool:
    """Return True if `path` is the folder of a recording."""
    return (path / MANIFEST).is_file()


def read_samples(
    path: Path,
    flag: str,
    classes: tuple[str, ...] | None,
    decoder: Decoding,
    *,
    own_classes: bool = False,
    listed: bool = True,
) -> Samples:
    """List the labelled images of a folder, file or recording.

    An unknown label raises an error. In a recording, which cannot be corrected, it only leaves the image out.

    Args:
        path: the value of `flag`.
        flag: for messages.
        classes: the labels that are allowed; None: all.
        decoder: of a recording's messages.
        own_classes: the class names in a file may be labels in place of `classes`.
        listed: `classes` are those of model.classes, not labels of other images.

    Raises:
        SettingsError: no such path, no image, no label, an unknown label or a file of another kind.
        SourceError: a damaged recording.
    """
    if not path.exists():
        raise SettingsError(f"{flag} {path}: there is no such folder or file; expected {FORMS}")
    if is_recording(path):
        return recorded_samples(path, flag, classes, decoder)
    samples = _folder(path, flag) if path.is_dir() else table_samples(path, flag, classes)
    if not len(samples):
        raise SettingsError(f"{flag} {path}: found no image; expected {FORMS}")
    known = (samples.declared if own_classes else None) or classes
    unknown = sorted(set(samples.labels) - set(known)) if known is not None else []
    if unknown:
        named = ", ".join(repr(name) for name in unknown[:5]) + (f" and {len(unknown) - 5} more" * (len(unknown) > 5))
        if own_classes and samples.declared:
            of, remedy = "class names that the file declares", "or remove the names that it declares"
        elif listed:
            of, remedy = "class names of model.classes", "or leave model.classes out to take the labels as class names"
        else:
            of, remedy = "labels of --labelled", "or list all served names in a file for --model.classes"
        raise SettingsError(
            f"{flag} {path}: the labels {named} are not among the {len(known or ())} {of}. "
            f"Add them there, rename them here, {remedy}."
        )
    for name in samples.classes:
        if not is_class_name(name):
            raise SettingsError(
                f"{flag} {path}: expected class names of one line without spaces around them, got {name!r}. Rename it."
            )
    return samples


def _folder(folder: Path, flag: str) -> Samples:
    """List the images of a folder by subfolder; images beside the subfolders are only counted, if there are others."""
    listed = list_folder(folder, linked=True)
    found = [file for file in listed if file.path.suffix.lower() in _SUFFIXES]
    files = [file for file in found if file.label is not None]
    if found and not files:
        raise SettingsError(
            f"{flag} {folder}: {len(found)} images have no label, such as {found[0].name}; put each into a subfolder "
            f"that has the name of its class ({folder}/CLASS/{found[0].name})"
        )
    parts = sorted({file.label or "" for file in files})
    if parts and {part.lower() for part in parts} <= _SPLITS:
        raise SettingsError(
            f"{flag} {folder}: its subfolders, {', '.join(parts)}, are parts of a data set, not classes. "
            f"Name one, such as {flag} {folder / parts[0]}."
        )
    names, labels = [file.name for file in files], [file.label or "" for file in files]
    sizes = [file.path.stat().st_size for file in files]
    return Samples(
        str(folder),
        names,
        labels,
        tuple(dict.fromkeys(labels)),
        lambda i: files[i].path.read_bytes(),
        digest_of(names, labels, sizes),
        unlabelled=len(found) - len(files),
        passed_over={
            file.name: f"{file.path.suffix.lower() or 'no suffix'}: not JPEG, PNG, WebP or BMP"
            for file in listed
            if file.path.suffix.lower() not in _SUFFIXES
        },
        empty=tuple(sorted(_subfolders(folder) - set(labels))),
    )


def _subfolders(folder: Path) -> set[str]:
    found = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    return found - {LOST_AND_FOUND}


def table_samples(path: Path, flag: str, classes: tuple[str, ...] | None) -> Samples:
    """Return the rows of a table, sorted by class; `classes` names integer labels if the file does not.

    Raises:
        SettingsError: it cannot be read, or its columns are missing or of the wrong type.
    """
    table = _table(path, flag)
    for column in ("image", "label"):
        if column not in table.column_names:
            found = ", ".join(table.column_names) or "none"
            raise SettingsError(f"{flag} {path}: there is no column {column!r} among {found}; expected {FORMS}")
    images = _bytes_column(table.column("image"), f"{flag} {path}")
    declared = _class_names(table.schema)
    known = declared or classes
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

    occurring = tuple(dict.fromkeys(sorted_labels))
    digest = digest_of(names, sorted_labels, sizes)
    return Samples(str(path), names, sorted_labels, occurring, read, digest, declared=declared)


def _table(path: Path, flag: str) -> pa.Table:
    try:
        with open_regular(path) as file:
            head = file.read(8)
            if head[:4] == b"PAR1":
                open_parquet(file)  # for its bound on the rows
                return pq.read_table(path, memory_map=True)
        with pa.memory_map(str(path)) as source:
            if head[:6] == b"ARROW1":
                return pa.ipc.open_file(source).read_all()
            return pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).splitlines()[0][:200]
        raise SettingsError(
            f"{flag} {path}: not a Parquet or Arrow file that can be read ({first}); expected {FORMS}"
        ) from error


def _bytes_column(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return the encoded images; from a struct, as data-set libraries write it, its field `bytes`."""
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks], kind.field("bytes").type)
        kind = column.type
        if len(column) and column.null_count == len(column):
            raise SettingsError(
                f"{where}: no row of the column image has bytes, only paths of files. Embed them when the file is "
                "written (`datasets` does by embed_table_storage), or name their folder."
            )
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise SettingsError(f"{where}: expected encoded images (binary) in the column image, got {kind}. Convert it.")
    return column


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Return the names of integer labels: `class_names` in the metadata, or the features that `datasets` writes there.

    None if the metadata has neither.
    """
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
            f"{where}: the labels are numbers without names. Write text, put the names as a JSON list into the "
            "file's metadata under class_names, or set model.classes."
        )
    wrong = next((i for i, value in enumerate(values) if not 0 <= value < len(known)), None)
    if wrong is not None:
        raise SettingsError(f"{where}: row {wrong} has label {values[wrong]}, expected 0 to {len(known) - 1}.")
    return [known[value] for value in values]
