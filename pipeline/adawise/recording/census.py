"""The census of a recording: the messages and bytes of each camera, counted without reading an image.

It reads the footers of the files, and of their columns the offsets, the keys and, for messages without a key, the
headers. A row group has the size of its values as a whole; a camera is charged the mean size of the messages there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adawise.decode.headers import read_stream
from adawise.errors import SourceError
from adawise.recording.files import Forgotten, RecordedFile, listing_of
from adawise.recording.format import Footer, folder, read_manifest
from adawise.records import TopicPartition
from adawise.store.store import Store, open_store

Range = tuple[int, int]  # [from, until) of offsets


@dataclass(slots=True)
class CameraCount:
    """The messages of a camera in a partition, and their bytes as far as the sizes of row groups show them."""

    frames: int = 0
    size_bytes: float = 0.0


@dataclass(slots=True)
class PartitionCensus:
    """The messages of a part of one partition.

    Attributes:
        cameras: the messages of each camera that a key or a header names.
        nameless: the messages that name no camera there, such as Arrow batches with a column of cameras.
        stored_bytes: bytes of the files with these messages, which each reader of the partition reads.
        digest: a hash of the names and the writers of these files, 16 hex digits.
    """

    cameras: dict[str, CameraCount] = field(default_factory=dict)
    nameless: CameraCount = field(default_factory=CameraCount)
    stored_bytes: int = 0
    digest: str = ""


def take_census(
    root: str, parts: Mapping[TopicPartition, Range], forgotten: Forgotten
) -> dict[TopicPartition, PartitionCensus]:
    """Return the census of these parts [from, until) of a recording.

    Raises:
        SourceError: there is no recording, a file is damaged, or images that are not to be skipped were removed.
        StoreUnavailable: the store does not answer.
    """
    store, found = open_store(root), {}
    for tp, (begin, until) in parts.items():
        sizes, count, digest = (
            store.sizes(folder(tp)),
            PartitionCensus(),
            hashlib.sha256(),
        )
        for file in _within(root, store, tp, begin, until):
            with file.opened() as parquet:
                footer = file.checked(parquet)
                _note(digest, file, footer)
                if footer.images or forgotten == "fail":
                    file.expect_images(parquet, footer, begin)
                    _count(count, parquet, begin, until)
            count.stored_bytes += sizes.get(file.key, 0)
        count.digest = digest.hexdigest()[:16]
        found[tp] = count
    return found


def digests(root: str, parts: Mapping[TopicPartition, Range]) -> dict[TopicPartition, str]:
    """Return the hashes of `PartitionCensus.digest` for these parts, from the footers alone.

    Raises:
        SourceError: there is no recording, or a file is damaged.
        StoreUnavailable: the store does not answer.
    """
    store, found = open_store(root), {}
    read_manifest(store, root, "Name the recording that the plan was made for.")
    for tp, (begin, until) in parts.items():
        digest = hashlib.sha256()
        for file in _within(root, store, tp, begin, until):
            _note(digest, file, file.footer())
        found[tp] = digest.hexdigest()[:16]
    return found


def _note(digest: hashlib._Hash, file: RecordedFile, footer: Footer) -> None:
    digest.update(f"{file.key}\0{footer.attempt}\0{footer.next}\0".encode())


def _within(root: str, store: Store, tp: TopicPartition, begin: int, until: int) -> Iterator[RecordedFile]:
    """Yield the files that have offsets of [begin, until). A file ends where the next one begins."""
    files = listing_of(root, store, tp).files
    for number, file in enumerate(files):
        is_before = number + 1 < len(files) and files[number + 1].first <= begin
        if not is_before and file.first < until:
            yield file


def _count(count: PartitionCensus, file: pq.ParquetFile, begin: int, until: int) -> None:
    """Add the messages of [begin, until) of a file that has images."""
    value = file.schema_arrow.names.index("value")
    assert file.schema.column(value).path == "value"  # the columns before it are flat
    for number in range(file.num_row_groups):
        table = file.read_row_group(number, columns=["offset", "key"])
        if not table.num_rows:
            continue
        mean_bytes = file.metadata.row_group(number).column(value).total_compressed_size / table.num_rows
        is_wanted = pc.and_(pc.greater_equal(table["offset"], begin), pc.less(table["offset"], until))
        for name, frames in _cameras(file, number, table, is_wanted).items():
            counted = count.nameless if name is None else count.cameras.setdefault(name, CameraCount())
            counted.frames += frames
            counted.size_bytes += frames * mean_bytes


def _cameras(file: pq.ParquetFile, number: int, table: pa.Table, is_wanted: pa.ChunkedArray) -> Counter[str | None]:
    """Return how many of the wanted messages of a row group name each camera; None for those that name none."""
    found: Counter[str | None] = Counter()
    for counted in pc.value_counts(table["key"].filter(is_wanted)):
        key = counted["values"].as_py()
        if key:  # a header of another name would refuse it; the census need not be so exact
            found[read_stream(key, ()).stream_id] += counted["counts"].as_py()
    has_no_key = pc.and_(is_wanted, pc.equal(pc.fill_null(pc.binary_length(table["key"]), 0), 0))
    if pc.any(has_no_key).as_py():
        for headers in file.read_row_group(number, columns=["headers"])["headers"].filter(has_no_key).to_pylist():
            found[read_stream(None, [(each["key"], each["value"]) for each in headers]).stream_id] += 1
    return found


def check_recording(root: str, parts: Mapping[TopicPartition, Range], expected: Mapping[TopicPartition, str]) -> None:
    """Raise SourceError unless these parts of a recording are in the files that they were in when it was counted."""
    for tp, digest in digests(root, parts).items():
        if digest != expected[tp]:
            begin, until = parts[tp]
            raise SourceError(
                f"{root}: offsets {begin} to {until - 1} of {tp} are not in the files that the plan was made for: "
                "they were removed, written anew, or are of another recording. Name that recording, or make a new "
                "plan in a new folder."
            )
