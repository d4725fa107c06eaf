"""Reads labelled images of any form (`FORMS`) into `Samples`."""

from __future__ import annotations

from pathlib import Path

from adawise.errors import SettingsError
from adawise.labels.folders import FORMS
from adawise.labels.folders.recording import Decoding, recorded_samples
from adawise.labels.folders.samples import Samples, digest_of, is_class_name
from adawise.labels.folders.table import table_samples
from adawise.produce.files import LOST_AND_FOUND, list_folder
from adawise.recording.manifest import MANIFEST

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
