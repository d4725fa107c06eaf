"""The storage of the chain: a store that creates a key only if it is absent, and says so if it is not.

That one promise carries the whole sink: of two workers that create the same key, exactly one succeeds, and the key
never changes afterwards. `LocalStore` keeps it by a hard link, on one file system; `object_store.ObjectStore` by
conditional requests. Renaming and plain uploads overwrite silently, so `put` is only for derived files.
Files and folders survive a power cut, and errors of the operating system become ours.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol
from uuid import uuid4

from typing_extensions import override

from adawise.errors import ChainError, SettingsError, StoreFull, StoreUnavailable
from adawise.store.answers import AlreadyExists
from adawise.store.files import NotRegular, open_regular, stat_of

TEMPORARY = ".tmp-"
"""The prefix of the names of files that are being written."""

_NOT_REGULAR = (
    "{}: expected a regular file, but it is a pipe, a device or a link to itself; move it away, and restore the file "
    "from a backup"
)
_FULL = {errno.ENOSPC, errno.EDQUOT}
# The operator has to act on these: waiting does not help.
_LASTING = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,  # a file where a folder is needed; callers that create files handle this error themselves
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EXDEV,
}


@contextmanager
def temporary_file(path: Path, data: bytes) -> Iterator[Path]:
    """Write `data` to a durable temporary file beside `path`; delete that name at the end of the block."""
    _make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Create or replace a file atomically and durably, and remove what killed writers left behind in its folder.

    Raises:
        OSError: it cannot be written; the earlier file is still in place.
    """
    with temporary_file(path, data) as temporary:
        os.replace(temporary, path)
        sync_folder(path.parent)
    with suppress(OSError):  # those of another user
        _sweep(path.parent, f"{TEMPORARY}{'[0-9a-f]' * 32}")  # the folder may have files of other programs


def _sweep(folder: Path, pattern: str) -> None:
    """Remove the files of this pattern that are older than `STALE_S`."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # its writer is done with it, or another process swept it
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def _make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each durable before the next: a file in a lost folder is lost too."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translate errors of the operating system into ours, with the remedy."""
    try:
        yield
    except NotRegular as error:  # as any file that is damaged: to wait does not help, and others may go on without it
        raise ChainError(_NOT_REGULAR.format(error.filename)) from error
    except OSError as error:
        what = f"{path}: expected a folder that can be written and has hard links, but: {error.strerror or error}"
        if error.errno in _LASTING:
            raise SettingsError(f"{what}; set sink.root to one, or give this user the permission") from error
        if error.errno in _FULL:
            raise StoreFull(f"{path}: expected room for a file, but: {error.strerror}; {StoreFull.REMEDY}") from error
        raise StoreUnavailable(
            f"{what}; check free space, the mount and the disk ({StoreUnavailable.REMEDY})"
        ) from error


FAILPOINTS = (
    "segment.encoded",
    "segment.temp_written",
    "segment.linked",
    "segment.folder_synced",
    "segment.created",
    "traces.temp_written",
    "traces.renamed",
    "traces.written",
)
"""Points where a worker can die between complete rows and the committed offset; `failpoint` gets each, in order.

The middle ones of each file exist only in `LocalStore`. Tests kill real processes here.
"""

Failpoint = Callable[[str], None]
"""Called with the name of a crash point, just after the step of that name was done."""

STALE_S = 3600.0
"""Age in seconds from which a temporary file belongs to no living writer."""


DOCUMENT = "_sink.json"
"""The key that identifies a root: while the folder has the document that was first read there, it is the same root."""

_PLACE = re.compile(r"(?:[a-z_]+/(?:[a-z]+/)?)?topic-[^/]+(?:/partition-[^/]+)?")  # of a recording, without a prefix
_LOST_AND_FOUND = "lost+found"  # a folder of the file system itself, which only root may read
_KINDS = {"predictions": "segment", "traces": "traces"}  # the prefix of crash points, by the first folder of a key


class Store(Protocol):
    """A mapping from keys (relative, with "/") to bytes. Safe to use from several threads and processes at once.

    Every method raises StoreUnavailable when the store does not answer, and SettingsError when it never will: no
    permission, no such bucket, a file system without hard links.
    """

    def create(self, key: str, data: bytes) -> None:
        """Create `key` whole and durable. Raises AlreadyExists, and then the existing key is durable.

        After StoreUnavailable the key may or may not have been created. A store that retries by itself may find what
        its own first try created: AlreadyExists does not say who created it.
        """

    def put(self, key: str, data: bytes) -> None:
        """Create or replace `key` atomically. Only for files that can be derived again."""

    def get(self, key: str) -> bytes | None:
        """Return all bytes of `key`; None if it does not exist."""

    def open(self, key: str) -> BinaryIO | None:
        """Open `key` to read it in parts; None if it does not exist. The caller closes the file."""

    def list(self, prefix: str) -> list[str]:
        """Return all keys under the folder `prefix` ("" is the root), at any depth, sorted."""

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """Return the keys as `list`, each with its size in bytes."""

    def page(self, folder: str, after: str = "") -> tuple[Sequence[str], bool]:
        """Return the first keys directly in `folder` after the name `after`, sorted, and whether no more follow.

        It returns as many as one request brings, at least one if there is any. It serves to find the end of a long
        list, not to read the list.
        """

    def delete(self, key: str) -> None:
        """Remove `key` if it exists.

        Only for files that readers no longer look for, and never for the head of a chain.
        """

    def modified(self, key: str) -> datetime | None:
        """Return when `key` was last written, by the store's clock; None if it does not exist."""

    def sweep(self, prefix: str) -> None:
        """Remove what dead writers left behind in the folder `prefix`."""


def open_store(root: str, *, failpoint: Failpoint = lambda _: None) -> Store:
    """Open the store of a path, or of a URL such as `s3://bucket/prefix`.

    Raises:
        SettingsError: the URL names no store, or its extra is not installed.
    """
    if "://" not in root:
        return LocalStore(Path(root), failpoint=failpoint)
    if root.startswith("file://"):
        return LocalStore(Path(root.removeprefix("file://")), failpoint=failpoint)
    # Imported here, because only this store needs the extra `s3`.
    from adawise.store import object_store

    return object_store.open_url(root)


def free_bytes(store: Store) -> int | None:
    """Return how many bytes the file system of a store still takes, 0 where it takes no more files.

    None of an object store, and where it is not known: a quota of the user is not seen here.
    """
    if not isinstance(store, LocalStore):
        return None
    try:
        space = os.statvfs(str(store))
    except OSError:
        return None
    return 0 if space.f_files > 0 and space.f_favail == 0 else space.f_bavail * space.f_frsize


def check_regular(store: Store, keys: Iterable[str]) -> None:
    """Raise ChainError if one of these keys is a pipe, a device or a link to itself.

    Call it before DuckDB or Arrow opens them by name: either would wait for the writer of a pipe for ever. A key that
    is gone is left to the reader.
    """
    if not isinstance(store, LocalStore):
        return
    for key in keys:
        path = Path(str(store), key)
        try:
            is_regular = stat.S_ISREG(stat_of(path).st_mode)
        except NotRegular:
            is_regular = False
        except OSError:
            continue
        if not is_regular:
            raise ChainError(_NOT_REGULAR.format(path))


def as_pattern(path: str) -> str:
    """Return the pattern that matches this path alone, since DuckDB takes each path as a pattern."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def is_of_no_file(error: Exception) -> bool:
    """Return True for DuckDB's error for a local file that was removed, before the query or while it ran."""
    first = str(error).strip().partition("\n")[0]
    absent = f": {os.strerror(errno.ENOENT)}"
    return "No files found that match the pattern" in first or ("Cannot open file" in first and first.endswith(absent))


class LocalStore:
    """A folder of one file system with hard links; several processes, also on several hosts, may share it.

    Once the root's document was read, a folder without it is no longer that root. An unmounted disk leaves an empty
    folder behind, which must not be taken for an empty store, and must not be written to.
    """

    def __init__(self, root: Path, *, failpoint: Failpoint = lambda _: None) -> None:
        self._root = root
        self._failpoint = failpoint
        self._document: bytes | None = None  # of the root, once it was read

    @override
    def __str__(self) -> str:
        return str(self._root)

    def create(self, key: str, data: bytes) -> None:
        """See `Store.create`. Temporary file, fsync, hard link (which never replaces), fsync of the folder."""
        path, kind = self._path(key), _kind(key)
        with self._there(path), temporary_file(path, data) as temporary:
            self._failpoint(f"{kind}.temp_written")
            try:
                os.link(temporary, path)
            except FileExistsError:
                # A process that reads the existing file now may build on it, so its name must survive a power cut too.
                sync_folder(path.parent)
                raise AlreadyExists(key) from None
            self._failpoint(f"{kind}.linked")
            sync_folder(path.parent)
        self._failpoint(f"{kind}.folder_synced")
        if key == DOCUMENT:
            self._document = data

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        path, kind = self._path(key), _kind(key)
        with self._there(path), temporary_file(path, data) as temporary:
            self._failpoint(f"{kind}.temp_written")
            os.replace(temporary, path)
            self._failpoint(f"{kind}.renamed")
            sync_folder(path.parent)

    def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        path = self._path(key)
        with translated(path):
            try:
                with open_regular(path) as file:
                    data = file.read()
            except FileNotFoundError:
                self._check_root()
                return None
        if key == DOCUMENT and self._document is None:
            self._document = data
        return data

    def open(self, key: str) -> BinaryIO | None:
        """See `Store.open`."""
        path = self._path(key)
        with translated(path):
            try:
                return open_regular(path)
            except FileNotFoundError:
                self._check_root()
                return None

    def list(self, prefix: str) -> list[str]:
        """See `Store.list`."""
        start = self._path(prefix)
        with translated(start):
            found = []
            for folder, folders, names in os.walk(start, onerror=_raise_unless_absent, followlinks=True):
                folders[:] = [name for name in folders if self._is_followed(Path(folder, name))]
                key = (
                    Path(folder).relative_to(self._root).as_posix()
                )  # once per folder: with 10,000 names this dominates the cost
                before = "" if key == "." else f"{key}/"
                found += [before + name for name in names if not name.startswith(TEMPORARY)]
            self._check_root()
        return sorted(found)

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """See `Store.sizes`."""
        found = {}
        for key in self.list(prefix):
            path = self._path(key)
            with translated(path), suppress(FileNotFoundError, NotRegular):  # removed since it was listed
                found[key] = stat_of(path).st_size
        return found

    def page(self, folder: str, after: str = "") -> tuple[Sequence[str], bool]:
        """See `Store.page`. All keys are returned, since the names of a folder come in no order."""
        path, before = self._path(folder), folder.removesuffix("/")
        with translated(path):
            try:
                names = os.listdir(path)  # ten times faster than `os.walk` for millions of names
            except FileNotFoundError:
                names = []
            self._check_root()
        return [f"{before}/{name}" for name in sorted(names) if name > after and not name.startswith(TEMPORARY)], True

    def delete(self, key: str) -> None:
        """See `Store.delete`. If a power cut undoes a deletion, the caller deletes again."""
        path = self._path(key)
        with self._there(path):
            path.unlink(missing_ok=True)

    def modified(self, key: str) -> datetime | None:
        """See `Store.modified`."""
        path = self._path(key)
        with translated(path):
            try:
                return datetime.fromtimestamp(stat_of(path).st_mtime, UTC)
            except FileNotFoundError:
                self._check_root()
                return None

    def sweep(self, prefix: str) -> None:
        """See `Store.sweep`. Temporary files older than `STALE_S` are removed.

        A living writer whose file is removed tries again.
        """
        folder = self._path(prefix)
        with translated(folder):
            _sweep(folder, f"{TEMPORARY}*")

    def _is_followed(self, folder: Path) -> bool:
        """Return True for a folder, and for a link in place of the folder of a topic or a partition.

        Such a link may lead to another disk. Other links are not followed, so that circles of links end; nor is the
        folder that a file system keeps at its top.
        """
        if folder == self._root / _LOST_AND_FOUND:
            return False
        return not folder.is_symlink() or _PLACE.fullmatch(folder.relative_to(self._root).as_posix()) is not None

    @contextmanager
    def _there(self, path: Path) -> Iterator[None]:
        """Check before and after the block that the root is still there, and that listings will find the path.

        Otherwise it is unknown where the block acted. A folder at the top of the root may be a link to another disk,
        since every listing begins in such a folder.
        """
        with translated(path):
            self._check_root()
            for folder in path.relative_to(self._root).parents:
                at = self._root / folder
                if len(folder.parts) > 1 and at.is_symlink() and not self._is_followed(at):
                    raise ChainError(
                        f"{at}: expected a folder, but it is a link that no listing follows, so that what is written "
                        "there would not be found again; replace it by the folder (the folders at the top of "
                        f"{self._root}, and those of topics and partitions, may be links)"
                    )
            yield
            self._check_root()

    def _check_root(self) -> None:
        """Raise StoreUnavailable if the folder no longer has the root's document that was read before."""
        if self._document is None:
            return
        try:
            with open_regular(self._root / DOCUMENT) as file:
                found = file.read()
        except (FileNotFoundError, PermissionError, NotRegular):  # also a mount point that is closed to all users
            found = None
        if found != self._document:
            raise StoreUnavailable(
                f"{self._root}: expected the {DOCUMENT} that was there before, but "
                f"{'it is gone' if found is None else 'another one is there'}: the folder was unmounted, moved or "
                "removed; mount or restore it, and work goes on (nothing is written meanwhile); for a new output, "
                "stop and set another sink.root"
            )

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"a key is relative and stays below the root, but this one is {key!r}")
        return self._root / parts


def _kind(key: str) -> str:
    """Return the prefix of a key's crash points."""
    return _KINDS.get(key.split("/")[0], "claim")


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
