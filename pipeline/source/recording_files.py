"""The files of one recorded partition, read as one sequence of messages with one row group in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.records import Message, TopicPartition
from pipeline.sink.store import Store
from pipeline.source import recording_format as layout


class RecordedFile:
    """One file; it is opened for each question, and stays open only while its messages are read."""

    def __init__(self, root: str, store: Store, key: str, first: int) -> None:
        self.first = first
        self._root = root
        self._store = store
        self._key = key

    def __str__(self) -> str:
        return f"{self._root}/{self._key}"

    def footer(self) -> layout.Footer:
        """What the file says of itself. Raises SourceError if it is damaged, or not what its name says."""
        with self._opened() as file:
            return self._checked(file)

    def messages(self, offset: int) -> Generator[Message, None, int]:
        """The messages from `offset` on; returns the file's `next`. Raises SourceError if it is damaged."""
        with self._opened() as file:
            footer = self._checked(file)
            yield from layout.messages_from(file, offset)
            return footer.next

    def first_at(self, timestamp_ms: int) -> int | None:
        """The first offset that is not older; None if every message is. Raises SourceError if the file is damaged."""
        with self._opened() as file:
            self._checked(file)
            return layout.first_at(file, timestamp_ms)

    def _checked(self, file: pq.ParquetFile) -> layout.Footer:
        footer = layout.decode_footer(file, str(self))
        named = layout.key_of(TopicPartition(footer.topic, footer.partition), footer.first)
        if named != self._key:
            msg = (
                f"{self}: the footer says that this is {named}. Files of a recording are not to be renamed: name it so."
            )
            raise SourceError(msg)
        return footer

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        try:
            local = Path(str(self))
            data = local if "://" not in self._root else pa.BufferReader(self._store.get(self._key) or b"")
            with pq.ParquetFile(data, memory_map=True, page_checksum_verification=True) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            msg = f"{self}: expected a Parquet file, but: {error}. Remove it and what follows it, and record again."
            raise SourceError(msg) from error


class RecordedPartition:
    """A position in the files of one partition."""

    def __init__(self, files: Sequence[RecordedFile]) -> None:
        self._files = files
        self._firsts = [file.first for file in files]
        self.bounds = (files[0].first, files[-1].footer().next) if files else (0, 0)
        self.position = self.bounds[0]
        self.time_ms = -1  # never decreasing, so that a late timestamp does not let other partitions run ahead
        self._messages = self._read(self.position)
        self._head: Message | None = None

    def seek(self, offset: int) -> None:
        """Read from `offset` next, or from the first message after it."""
        self.close()
        self.position = offset
        self.time_ms = -1
        self._messages = self._read(offset)
        self._head = None

    def first_at(self, timestamp_ms: int) -> int | None:
        """The first offset that is not older; None if every message is, as Kafka answers that question."""
        found = (file.first_at(timestamp_ms) for file in self._files)
        return next((offset for offset in found if offset is not None), None)

    @property
    def head(self) -> Message | None:
        """The next message; None at the end. Raises SourceError where the recording is damaged."""
        if self._head is None:
            self._head = next(self._messages, None)
            if self._head is None:
                self.position = max(self.position, self.bounds[1])
            else:
                self.time_ms = max(self.time_ms, self._head.timestamp_ms)
        return self._head

    def take(self) -> Message:
        """Deliver the head. Raises IndexError at the end."""
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
                msg = (
                    f"the file before {file} ends at offset {end}: a file of the recording is missing between them. "
                    "Put it back, or record again."
                )
                raise SourceError(msg)
            end = yield from file.messages(offset)


def files_of(root: str, store: Store, tp: TopicPartition) -> list[RecordedFile]:
    """The files of a partition in the order of their offsets; what is no file of a recording is ignored."""
    keys = [(first, key) for key in store.list(layout.folder(tp)) if (first := layout.first_of(key)) is not None]
    return [RecordedFile(root, store, key, first) for first, key in sorted(keys)]
