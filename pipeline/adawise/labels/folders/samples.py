"""Labelled images as all commands use them: names, labels and bytes, and a held-out part.

Camera images are split by whole stretches of each camera's time: the frames before and after a held-out frame are near
copies of it. If the model were trained on them, accuracy on held-out frames would measure how well it remembers, and
the best epoch and the card would be chosen by that.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from adawise.errors import SettingsError

_AT_ONCE = 64  # images in memory while they are hashed
_READERS = 8  # threads: reading many small files from a network drive takes waiting, not computing
_SHORTEST = 8  # images of a stretch: a camera with fewer is held out whole or not at all
_LEAST = 2  # images of a stretch, if longer stretches (of cameras with few images) would hold out too much
_MOST = 1.5  # times the wanted share: if more is held out, stretches are cut shorter
_BESIDE = 0.1  # of a stretch's length: images on each side that are used for neither


class Taken(NamedTuple):
    """The camera of an image and when its message came: the broker's time in milliseconds, -1 if unknown."""

    camera: str
    at_ms: int


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
        captured_us: when the producer captured each image of a recording, microseconds since the epoch; None for an
            image of which it does not say so.
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
    # Beside `taken`, which decides what a run of fine-tuning holds out: with other times, none of an earlier version
    # could be resumed.
    captured_us: Sequence[int | None] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def usable(self) -> list[int]:
        """The numbers of the images that are not left out."""
        return [i for i in range(len(self)) if i not in self.left_out]

    def part(self, rows: Sequence[int]) -> Samples:
        """Return the images `rows` as samples of their own, in that order; what was passed over is not counted."""
        chosen, whole = list(rows), self.read
        labels = [self.labels[i] for i in chosen]
        used = {self.labels[i] for i in chosen if i not in self.left_out}
        return replace(
            self,
            names=[self.names[i] for i in chosen],
            labels=labels,
            classes=tuple(name for name in self.classes if name in used),
            read=lambda n: whole(chosen[n]),
            digest=hashlib.sha256(f"{self.digest} {chosen}".encode()).hexdigest(),
            left_out={n: self.left_out[i] for n, i in enumerate(chosen) if i in self.left_out},
            unlabelled=0,
            passed_over={},
            empty=(),
            taken=None if self.taken is None else [self.taken[i] for i in chosen],
            captured_us=None if self.captured_us is None else [self.captured_us[i] for i in chosen],
        )


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


def split_by_stretches(
    taken: Sequence[Taken], labels: Sequence[str], rows: Sequence[int], wanted: Mapping[str, int], seed: int
) -> tuple[list[int], list[int]]:
    """Return the rows to train on and those held out; rows beside a held-out stretch are usually in neither.

    Images of a camera are ordered by time, and by number where times are equal. About `wanted` images of each class are
    held out, and at least one is left to train on. A class that occurs in only one stretch is cut within it.

    Args:
        taken: of each image.
        labels: of each image.
        rows: the images to split.
        wanted: number of images by class, fewer than the class has.
        seed: of the choice of stretches.
    """
    by_camera: dict[str, list[int]] = {}
    for i in sorted(rows, key=lambda i: (*taken[i], i)):
        by_camera.setdefault(taken[i].camera, []).append(i)
    cameras = list(by_camera.values())
    share = sum(wanted.values()) / len(rows)
    parts = round(1.0 / min(share, 1.0 - share))
    shortest = _SHORTEST
    stretches = _cut(cameras, parts, shortest)
    held_out = _held_out(stretches, labels, wanted, seed)
    # Too much is held out: cut more stretches, and once that has no effect, allow shorter ones.
    while len(held_out) > _MOST * share * len(rows):
        longer = len(stretches)
        stretches = _cut(cameras, 2 * parts, shortest)
        if len(stretches) > longer:
            parts *= 2
        elif shortest > _LEAST:
            shortest //= 2
            stretches = _cut(cameras, parts, shortest)
        else:
            break
        held_out = _held_out(stretches, labels, wanted, seed)
    beside = {i for images in cameras for i in _beside(images, parts, held_out)}
    train = {*rows} - held_out - beside
    # A class that would have no training image left keeps its images beside a stretch.
    rare = set(wanted) - {labels[i] for i in train}
    train |= {i for i in beside if labels[i] in rare}
    return sorted(train), sorted(held_out)


def _cut(cameras: Sequence[list[int]], parts: int, shortest: int) -> list[list[int]]:
    """Return each camera's images in `parts` stretches, or fewer where these would be too short."""
    return [
        stretch.tolist()
        for images in cameras
        for stretch in np.array_split(images, max(1, min(parts, len(images) // shortest)))
    ]


def _held_out(stretches: Sequence[list[int]], labels: Sequence[str], wanted: Mapping[str, int], seed: int) -> set[int]:
    """Return the images of stretches that together have about what is wanted, choosing for the rarest class first."""
    counts = [Counter(labels[i] for i in stretch) for stretch in stretches]
    total = Counter(labels[i] for stretch in stretches for i in stretch)
    held: Counter[str] = Counter()
    chosen: set[int] = set()
    having: dict[str, list[int]] = {label: [] for label in wanted}
    for s in np.random.default_rng(seed).permutation(len(stretches)).tolist():
        for label in counts[s]:
            having[label].append(s)
    for label in sorted(wanted, key=lambda label: (total[label], label)):
        for s in having[label]:
            # A stretch may exceed what is wanted by half of its images; no class may lose all of its images.
            is_too_much = held[label] and held[label] + counts[s][label] / 2 > wanted[label]
            if s in chosen or is_too_much or any(held[other] + n >= total[other] for other, n in counts[s].items()):
                continue
            chosen.add(s)
            held.update(counts[s])
    images = {i for s in chosen for i in stretches[s]}
    # Classes that no stretch could hold out without taking all their images: hold out their last ones.
    missing: dict[str, list[int]] = {label: [] for label in wanted if not held[label]}
    for i in (i for stretch in stretches for i in stretch):
        if labels[i] in missing:
            missing[labels[i]].append(i)
    for label, own in missing.items():
        images.update(own[-wanted[label] :])
    return images


def _beside(images: list[int], parts: int, held_out: set[int]) -> set[int]:
    """Return a camera's images that are so near to a held-out stretch that they may be copies of its frames."""
    edges = np.flatnonzero(np.diff([0, *(i in held_out for i in images), 0]))
    beside: set[int] = set()
    for start, stop in edges.reshape(-1, 2).tolist():
        near = max(1, round(_BESIDE * min(stop - start, len(images) / parts)))
        beside.update(images[max(0, start - near) : start], images[stop : stop + near])
    return beside - held_out
