"""The files of one recorded partition, read as one sequence of messages with one row group in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import merge
from io import BufferedReader, FileIO
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from adawise.errors import SourceError, Vanished
from adawise.recording import format as layout
from adawise.records import Message, TopicPartition
from adawise.store.parquet import open_parquet
from adawise.store.store import Store

Forgotten = Literal["fail", "skip"]
"""The reaction to messages whose images are no longer there."""


class RecordedFile:
    """One file of a recording. It is opened for each call, and stays open only while its messages are read."""

    def __init__(self, root: str, store: Store, key: str, first: int, *, redacted: bool = False) -> None:
        self.first = first
        self.redacted = redacted
        self.key = key
        self._root = root
        self._store = store

    @override
    def __str__(self) -> str:
        return f"{self._root}/{self.key}"

    def footer(self) -> layout.Footer:
        """Return the file's footer; raise SourceError if the file is damaged, or its name does not match."""
        with self.opened() as file:
            return self.checked(file)

    def messages(self, offset: int, forgotten: Forgotten = "fail") -> Generator[Message, None, int]:
        """Yield the messages from `offset` on, with placeholders for what is missing; return the file's `next`.

        Raises:
            SourceError: the file is damaged, or has no images (unless these are to be skipped).
        """
        with self.opened() as file:
            footer = self.checked(file)
            messages: Iterator[Message] = iter(())
            if footer.images:
                messages = layout.messages_from(file, offset)
            elif forgotten == "fail":
                self.expect_images(file, footer, offset)
            yield from merge(messages, layout.missing_from(footer, offset), key=lambda message: message.offset)
            return footer.next

    def first_at(self, timestamp_ms: int) -> int | None:
        """Return the first offset that is not older, None if all messages are; raise SourceError for a damaged file."""
        with self.opened() as file:
            self.checked(file)
            return layout.first_at(file, timestamp_ms)

    def expect_images(self, file: pq.ParquetFile, footer: layout.Footer, offset: int) -> None:
        """Raise SourceError if the file has messages, some of them from `offset` on, and no images."""
        if not footer.images and file.metadata.num_rows and offset < footer.next:
            raise SourceError(
                f"{self}: the images of {footer.tp} from offset {footer.first} to {footer.next - 1} were "
                "removed (--forget-images-after). Begin after them, or leave them out with --skip-forgotten."
            )

    def checked(self, file: pq.ParquetFile) -> layout.Footer:
        """Return the footer of the open file; raise SourceError as `footer` does."""
        footer = layout.decode_footer(file, str(self))
        named = layout.key_of(footer.tp, footer.first, "redacted" if self.redacted else "full")
        if named != self.key:
            raise SourceError(
                f"{self}: by its footer, this file is {named}. Files of a recording must not be renamed: give it "
                "that name again."
            )
        return footer

    @contextmanager
    def opened(self) -> Iterator[pq.ParquetFile]:
        """Yield the open Parquet file; raise SourceError if it is not one, Vanished if it was removed."""
        data = self._store.open(self.key)
        if data is None:
            raise self._vanished()
        with data:
            try:
                # A local file is mapped, so that Python does not hold a second copy of what is read.
                mapped = isinstance(data, BufferedReader) and isinstance(data.raw, FileIO)
                source = pa.memory_map(data.name) if mapped else data
                with open_parquet(source, memory_map=True, page_checksum_verification=True) as file:
                    yield file
            except FileNotFoundError as error:
                raise self._vanished() from error
            except (pa.ArrowException, OSError) as error:
                raise SourceError(f"{self}: expected a Parquet file, but: {error}. {layout.DAMAGED}") from error

    def _vanished(self) -> Vanished:
        return Vanished(f"{self}: the file was removed while the recording was read (--keep). Start again.")


class RecordedPartition:
    """A position in the files of one partition."""

    def __init__(self, listing: Listing, forgotten: Forgotten = "fail") -> None:
        files = self._files = listing.files
        self._firsts = [file.first for file in files]
        self._forgotten: Forgotten = forgotten
        start = listing.start or 0
        self.bounds = (files[0].first, files[-1].footer().next) if files else (start, start)
        self.position = self.bounds[0]
        self.time_ms = -1  # never decreasing, so that a late timestamp does not let other partitions run ahead
        self._messages = self._read(self.position)
        self._head: Message | None = None

    def seek(self, offset: int) -> None:
        """Read next from `offset`, or from the first message after it."""
        self.close()
        self.position = offset
        self.time_ms = -1
        self._messages = self._read(offset)
        self._head = None

    def first_at(self, timestamp_ms: int) -> int | None:
        """Return the first offset that is not older; None if every message is older, as Kafka answers it."""
        found = (file.first_at(timestamp_ms) for file in self._files)
        return next((offset for offset in found if offset is not None), None)

    @property
    def head(self) -> Message | None:
        """The next message, None at the end; raises SourceError where the recording is damaged or without images."""
        if self._head is None:
            self._head = next(self._messages, None)
            if self._head is None:
                self.position = max(self.position, self.bounds[1])
            else:
                self.time_ms = max(self.time_ms, self._head.timestamp_ms)
        return self._head

    def take(self) -> Message:
        """Deliver the head; raise IndexError at the end."""
        message = self.head
        if message is None:
            raise IndexError("the end of the recording was reached")
        self._head = None
        self.position = message.next_offset
        return message

    def close(self) -> None:
        """Close the file that is open."""
        self._messages.close()

    def _read(self, offset: int) -> Generator[Message, None, None]:
        begin = max(0, bisect_right(self._firsts, offset) - 1)
        end: int | None = None
        for file in self._files[begin:]:
            if end is not None and file.first != end:
                # A file is named after its first offset, which is where the file before it must end.
                raise SourceError(
                    f"the file before {file} ends at offset {end}: a file of the recording is missing between "
                    "them. Restore it, or record again."
                )
            end = yield from file.messages(offset, self._forgotten)


@dataclass(frozen=True, slots=True)
class Listing:
    """The contents of a partition's folder.

    Attributes:
        files: the files that count, in the order of their offsets.
        start: the offset at which the recording begins since the last removal; None if nothing was ever removed.
        voids: keys that no longer count: retention died between two steps, or a recorder that had been suspended wrote
            what was removed meanwhile.
    """

    files: Sequence[RecordedFile]
    start: int | None
    voids: Sequence[str]


def listing_of(root: str, store: Store, tp: TopicPartition) -> Listing:
    """List a partition; files that do not belong to a recording are ignored."""
    found = [(key, name) for key in store.list(layout.folder(tp)) if (name := layout.named(key)) is not None]
    start = max((name.first for _, name in found if name.form == "start"), default=None)
    redacted = {name.first for _, name in found if name.form == "redacted"}
    files: list[RecordedFile] = []
    voids: list[str] = []
    for key, name in found:
        if name.first < (start or 0) or (name.form == "full" and name.first in redacted):
            voids.append(key)
        elif name.form != "start":
            files.append(RecordedFile(root, store, key, name.first, redacted=name.form == "redacted"))
    return Listing(sorted(files, key=lambda file: file.first), start, voids)


def partitions_of(store: Store) -> list[TopicPartition]:
    """Return the partitions of which a recording has any file."""
    return sorted({name.tp for key in store.list("") if (name := layout.named(key)) is not None})
