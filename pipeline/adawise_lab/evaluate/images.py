"""Build tables of logits from labelled images, one for each domain: the clean images, and each corruption of them.

Every image is decoded once, and every corrupted image is made once. The forwards of a block of images run alpha by
alpha, so that one merge of the weights serves the whole block, and layers that both models share are computed once for
each image. All results stay in a folder, so that a run that was stopped resumes. A table is computed once for each
combination of pair, preprocessing, number format, images, corruption and seed.

Memory holds one block of pixels with its activations, and one table. The decoded images are in an unnamed temporary
file.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.console import Progress, progress
from adawise.decode.statistics import statistics
from adawise.errors import ImagesUnusable, SettingsError
from adawise.ports import Classifier
from adawise_lab.evaluate.corrupt import Corruption, Pixels, corrupt
from adawise_lab.evaluate.tables import SUFFIX, LogitTable, Partial, read_table, write_table
from adawise_lab.labelled import logits_at

FORMAT = 1  # of the keys of tables; a change recomputes every table
CLEAN = "clean"
BLOCK_BYTES = 256 * 2**20  # of pixels held at once
_ROWS = 64  # images of one call of the classifier; the progress bar moves after each


class Sample(NamedTuple):
    """One image of a set: uint8 `[3, S, S]` and its class; or None, and `trouble` says why."""

    where: str
    pixels: Tensor | None
    label: int = -1
    trouble: str = ""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images from one place.

    Args:
        name: the group of its domains; without underscores, which end a group's name.
        classes: C class names that labels index.
        digest: changes with the images' bytes, their labels and their order.
        count: the number of samples, if known.
        samples: returns the images in order, from the start at each call; they are decoded and preprocessed lazily.
    """

    name: str
    classes: tuple[str, ...]
    digest: str
    count: int | None
    samples: Callable[[], Iterable[Sample]]


@dataclass(frozen=True)
class Made:
    """A domain's table, and the images that were left out of it, as (where, why)."""

    table: LogitTable
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Domain:
    name: str
    corruption: Corruption | None
    path: Path

    @property
    def record(self) -> Path:
        """The file beside the table that says what the table was made of, and which images were left out."""
        return self.path.with_suffix(".json")


def make_tables(
    images: ImageSet,
    corruptions: Sequence[Corruption],
    classifier: Classifier,
    *,
    fingerprint: str,
    cache: Path,
    seed: int,
    block_bytes: int = BLOCK_BYTES,
    block_images: int | None = None,
) -> tuple[Made, ...]:
    """Return the tables of the clean images and of each corruption, from the folder `cache` or computed and kept there.

    Args:
        images: the labelled images.
        corruptions: without the clean images, which come first in the result.
        classifier: of the set's classes.
        fingerprint: identifies what the logits depend on: equal fingerprints give equal logits.
        cache: created if absent.
        seed: of the corruptions.
        block_bytes: pixels held in memory at once, bytes.
        block_images: most images of these, so that the classifier can keep their activations; None: any number.

    Raises:
        SettingsError: no image can be read, logits are not finite, or the folder cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        domains = [_domain(images, corruption, fingerprint, cache, seed) for corruption in (None, *corruptions)]
        kept = {domain.name: _kept(domain) for domain in domains}
        missing = [domain for domain in domains if kept[domain.name] is None]
        if missing:
            _make(images, missing, classifier, fingerprint, seed, (block_bytes, block_images))
        return tuple(kept[domain.name] or _read(domain) for domain in domains)
    except OSError as error:
        raise SettingsError(
            f"{error.filename or cache}: tables could not be cached here ({error.strerror or error}). Name a "
            "folder that can be written, with space for decoded images and logits, as --cache."
        ) from error


def domain_name(images: str, corruption: Corruption | None) -> str:
    """Return the name of a domain of the images, such as `yard_fog2` or `yard_clean`."""
    return f"{images}_{corruption or CLEAN}"


def _domain(images: ImageSet, corruption: Corruption | None, fingerprint: str, cache: Path, seed: int) -> _Domain:
    made_of = [FORMAT, fingerprint, images.digest, *(() if corruption is None else (str(corruption), seed))]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]
    name = domain_name(images.name, corruption)
    return _Domain(name, corruption, cache / f"{name}@{key}{SUFFIX}")


def _kept(domain: _Domain) -> Made | None:
    """Return what an earlier run made; None if it is absent or damaged and must be made again."""
    try:
        return _read(domain)
    except (SettingsError, OSError, ValueError, KeyError, TypeError):
        return None


def _read(domain: _Domain) -> Made:
    record = json.loads(domain.record.read_text(encoding="utf-8"))
    left_out = tuple((str(where), str(why)) for where, why in record["left_out"])
    return Made(replace(read_table(domain.path), name=domain.name), left_out)


def _make(
    images: ImageSet,
    domains: Sequence[_Domain],
    classifier: Classifier,
    fingerprint: str,
    seed: int,
    most: tuple[int, int | None],
) -> None:
    """Compute what the domains lack, block by block, and write each table once it is complete.

    `most` is the size of a block: bytes of pixels, and images.
    """
    with ExitStack() as stack:
        spool = stack.enter_context(tempfile.TemporaryFile(dir=domains[0].path.parent))
        with progress("decoded", images.count, "images") as bar:
            pixels, labels, left_out = _decoded(images, spool, bar)
        shape = (len(classifier.alphas), len(labels), len(images.classes))
        partials = [stack.enter_context(Partial.open(domain.path, shape)) for domain in domains]
        with progress("classified", len(domains) * shape[0] * shape[1], "forwards") as bar:
            for block in _blocks(pixels, len(domains), *most):
                _fill(block, pixels, [d.corruption for d in domains], partials, classifier, seed, bar)
        for domain, partial in zip(domains, partials, strict=True):
            table = LogitTable(
                domain.name, partial.logits, labels, tuple(classifier.alphas), images.classes, pixels=partial.pixels
            )
            record = {
                "domain": domain.name,
                "corruption": str(domain.corruption or CLEAN),
                "seed": seed,
                "images": len(labels),
                "source": images.digest,
                "model": fingerprint,
                "left_out": left_out,
            }
            domain.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            write_table(domain.path, table)
            partial.remove()


def _decoded(
    images: ImageSet, spool: BinaryIO, bar: Progress
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[tuple[str, str]]]:
    """Decode all images into the file.

    Return pixels `[n, 3, S, S]` mapped from it, labels `[n]` and what is left out.
    """
    labels: list[int] = []
    left_out: list[tuple[str, str]] = []
    shape: tuple[int, ...] = ()
    for sample in images.samples():
        if sample.pixels is None:
            left_out.append((sample.where, sample.trouble))
        else:
            shape = tuple(sample.pixels.shape)
            spool.write(sample.pixels.contiguous().numpy().tobytes())
            labels.append(sample.label)
        bar.advance()
    if not labels:
        first = f"; the first: {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise ImagesUnusable(
            f"{images.name}: none of {len(left_out)} images can be used{first}. Name labelled JPEG, PNG, WebP or BMP."
        )
    spool.flush()
    pixels = np.memmap(spool, dtype=np.uint8, mode="r", shape=(len(labels), *shape))
    return pixels, np.asarray(labels, dtype=np.int64), left_out


def _blocks(
    pixels: Pixels, domains: int, most_bytes: int, most_images: int | None
) -> Iterator[list[tuple[int, slice]]]:
    """Yield blocks of the images of all domains, in order; each block is a list of (domain, rows)."""
    n = len(pixels)
    at_once = max(1, min(most_bytes // pixels[0].nbytes, most_images or domains * n))
    for start in range(0, domains * n, at_once):
        stop = min(start + at_once, domains * n)
        yield [(d, slice(max(start - d * n, 0), min(stop - d * n, n))) for d in range(start // n, (stop - 1) // n + 1)]


def _fill(
    block: Sequence[tuple[int, slice]],
    pixels: Pixels,
    corruptions: Sequence[Corruption | None],
    partials: Sequence[Partial],
    classifier: Classifier,
    seed: int,
    bar: Progress,
) -> None:
    """Compute statistics and logits of a block, alpha by alpha, so that one merge serves all its images."""
    pieces: list[Tensor] = []
    places: list[tuple[int, slice]] = []  # of the pieces: domain and rows
    for d, rows in block:
        if partials[d].is_whole(rows):
            bar.advance(len(classifier.alphas) * (rows.stop - rows.start))
            continue
        bar.note(f"making {corruptions[d] or CLEAN}")
        images = _corrupted(pixels[rows], corruptions[d], seed)
        partials[d].pixels[rows] = [statistics(image) for image in images.numpy()]
        for piece, start in zip(torch.split(images, _ROWS), range(rows.start, rows.stop, _ROWS), strict=True):
            part = slice(start, start + len(piece))
            if partials[d].is_whole(part):
                bar.advance(len(classifier.alphas) * len(piece))
            else:
                pieces.append(piece)
                places.append((d, part))

    def missing() -> Iterator[tuple[int, int]]:
        for j, alpha in enumerate(classifier.alphas):
            bar.note(f"alpha {alpha:g}")
            for number, (d, rows) in enumerate(places):
                # Asked as late as this: another process may have computed it meanwhile.
                if not partials[d].has(j, rows):
                    yield j, number
                bar.advance(rows.stop - rows.start)

    for j, number, logits in logits_at(classifier, pieces, missing()):
        d, rows = places[number]
        partials[d].put(j, rows, logits.numpy())


def _corrupted(pixels: Pixels, corruption: Corruption | None, seed: int) -> Tensor:
    if corruption is None:
        return torch.from_numpy(np.array(pixels))
    return torch.from_numpy(np.stack([corrupt(np.asarray(image), corruption, seed) for image in pixels]))
