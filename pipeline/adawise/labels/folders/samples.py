"""Labelled images as all commands use them: names, labels and bytes, and a held-out part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from adawise.errors import SettingsError
from adawise.labels.folders.stretches import Taken, split_by_stretches

_AT_ONCE = 64  # images in memory while they are hashed
_READERS = 8  # threads: reading many small files from a network drive takes waiting, not computing


@dataclass(frozen=True, eq=False)
class Samples:
    """N labelled images, read when they are needed.

    Args:
        where: the folder, file or recording.
        names: of the images, unique in it.
        labels: class names.
        classes: the class names among usable images, in the source's own order, else sorted.
        read: returns encoded image i, from any thread. Raises OSError, or SourceError for a damaged recording.
        digest: changes with the names, labels and sizes; with every byte if `is_exact`.
        is_exact: whether `digest` covers every byte.
        declared: class names that a file declares, in its order, whether they occur or not.
        left_out: images that are known to be unusable before decoding: number to reason.
        unlabelled: number of further images, without a label.
        passed_over: further files whose suffix is not that of a supported image: name to reason.
        empty: folders of classes without an image.
        taken: the camera and time of each image of a recording; None if unknown.
    """

    where: str
    names: Sequence[str]
    labels: Sequence[str]
    classes: tuple[str, ...]
    read: Callable[[int], bytes]
    digest: str
    is_exact: bool = False
    declared: tuple[str, ...] | None = None
    left_out: Mapping[int, str] = field(default_factory=dict)
    unlabelled: int = 0
    passed_over: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    taken: Sequence[Taken] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def usable(self) -> list[int]:
        """The numbers of the images that are not left out."""
        return [i for i in range(len(self)) if i not in self.left_out]


def is_class_name(text: str) -> bool:
    """Return True for one non-empty line without spaces around it, as in a file of class names."""
    return bool(text) and text == " ".join(text.splitlines()).strip()


def digest_of(names: Sequence[str], labels: Sequence[str], sizes: Sequence[int]) -> str:
    """Return a digest of images in this order; sizes are in bytes."""
    text = json.dumps([list(names), list(labels), list(sizes)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def contents_digest(samples: Samples, rows: Sequence[int], on_read: Callable[[int], object] = lambda _: None) -> str:
    """Return the digest of the labels and of every byte of these images; each file is read once.

    Args:
        samples: where they are.
        rows: their numbers; the order counts.
        on_read: called with the number of images that were read since the last call.
    """

    def read(i: int) -> bytes:
        try:
            return samples.read(i)
        except OSError:  # the decoding of the image reports the error
            return b""

    digest = hashlib.sha256()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="hash") as pool:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            for i, data in zip(some, pool.map(read, some), strict=True):
                digest.update(samples.labels[i].encode() + b"\0" + len(data).to_bytes(8, "big") + data)
            on_read(len(some))
    return digest.hexdigest()


def split(samples: Samples, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return image numbers to train on and those held out: the same share of each class, at least one of each.

    Of a recording, whole stretches of time are held out, about that share; see `split_by_stretches`.

    Raises:
        SettingsError: a class has only one image.
    """
    by_class: dict[str, list[int]] = {}
    for i in samples.usable:
        by_class.setdefault(samples.labels[i], []).append(i)
    single = [label for label, members in by_class.items() if len(members) < 2]
    if single:
        raise SettingsError(
            f"{samples.where}: the class {single[0]!r} has one image, and at least two are needed, one of them to be "
            f"held out ({len(single)} such classes). Add images, leave the class out, or give --validation."
        )
    wanted = {label: min(len(own) - 1, max(1, round(share * len(own)))) for label, own in by_class.items()}
    if samples.taken is not None:
        return split_by_stretches(samples.taken, samples.labels, samples.usable, wanted, seed)
    train, held_out = [], []
    random = np.random.default_rng(seed)
    for label in sorted(by_class):
        members = random.permutation(by_class[label]).tolist()
        held_out += members[: wanted[label]]
        train += members[wanted[label] :]
    return sorted(train), sorted(held_out)
