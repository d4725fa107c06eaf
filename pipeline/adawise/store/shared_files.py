"""The objects of a store as files that threads share, for Arrow and DuckDB, which read parts of Parquet files.

DuckDB gives one Python file to all of its threads, and moves it and reads it in two calls. A file with one position
(obstore's own, fsspec's buffered ones) then returns bytes of another place.
"""

from __future__ import annotations

import io
import os
import re
import threading
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from obstore.fsspec import FsspecStore
from typing_extensions import override

from adawise.errors import ChainError

if TYPE_CHECKING:
    from obstore import ObjectMeta

_REMEMBERED = 10_000  # files that were opened


class SharedFile(io.RawIOBase):
    """An object of which each thread has a position of its own. A read is one request for its range.

    The thread that opens it begins at 0; another one has to seek to a place before it reads. (A library that lets go of
    Python's thread between both calls loses the position with it, and gets an error, not the bytes of another place.)

    Attributes:
        meta: the answer of the store when the file was opened.
    """

    def __init__(self, store: obstore.store.ObjectStore, key: str) -> None:
        """Open the object. Raises FileNotFoundError if it is absent."""
        self.meta = obstore.head(store, key)
        self._store, self._key = store, key
        self._of_thread = threading.local()
        self._of_thread.position = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return int(getattr(self._of_thread, "position", 0))

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position()
        elif whence == os.SEEK_END:
            offset += self.meta["size"]
        elif whence != os.SEEK_SET:
            raise ValueError(f"{self._key}: expected to seek from 0, 1 or 2, got {whence}")
        if offset < 0:
            raise ValueError(f"{self._key}: expected to seek to a position of 0 or more, got {offset}")
        self._of_thread.position = offset
        return offset

    def _position(self) -> int:
        if not hasattr(self._of_thread, "position"):
            raise RuntimeError(f"{self._key}: read by a thread that did not seek first")
        return int(self._of_thread.position)

    @override
    def read(self, size: int = -1) -> bytes:
        first, end = self._position(), self.meta["size"]
        until = end if size < 0 else min(first + size, end)
        if until <= first:
            return b""
        try:
            data = bytes(obstore.get_range(self._store, self._key, start=first, end=until))
        except BaseError as error:
            # A place behind the end, of which the store says so: else the store itself may have failed.
            if re.search(r"\brange\b|\b416\b", str(error), re.IGNORECASE) and self._has_changed():
                raise self._changed(first, until, 0) from None
            raise
        if len(data) != until - first:
            raise self._changed(first, until, len(data))
        self._of_thread.position = first + len(data)
        return data

    def _has_changed(self) -> bool:
        with suppress(BaseError, OSError):
            return bool(obstore.head(self._store, self._key)["size"] != self.meta["size"])
        return False

    def _changed(self, first: int, until: int, count: int) -> ChainError:
        return ChainError(
            f"{self._key}: expected {until - first} bytes from {first} on, got {count}: it has changed since it was "
            "opened; read again"
        )

    @override
    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class SharedFiles(FsspecStore):
    """A file system whose files threads can share.

    The size and the time of a file are those of when it was opened last, without a request: DuckDB asks for them each
    time that it has opened a file. (They are not kept by a weak reference to the file. While Python removes one, it
    ignores exceptions, and would lose Ctrl-C.)
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._opened: dict[str, ObjectMeta] = {}

    @override
    def _open(self, path: str, mode: str = "rb", *args: Any, **options: Any) -> SharedFile:  # type: ignore[override]
        if mode != "rb":
            raise io.UnsupportedOperation(f"{path}: expected to be read, but opened as {mode}")
        bucket, key = self._split_path(path)
        file = SharedFile(self._construct_store(bucket), key)
        if len(self._opened) >= _REMEMBERED:
            self._opened.clear()
        self._opened[path] = file.meta
        return file

    @override
    def size(self, path: str) -> int:
        opened = self._opened.get(path)
        return super().size(path) if opened is None else opened["size"]

    @override
    def modified(self, path: str) -> datetime:
        opened = self._opened.get(path)
        return super().modified(path) if opened is None else opened["last_modified"]
