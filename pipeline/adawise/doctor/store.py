"""Checks of where a worker writes: output folder and recording, their file systems, and their clocks."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from uuid import uuid4

from adawise.app.machine import Mount, mounts
from adawise.doctor.broker import CLOCK_S
from adawise.doctor.known import CheckResult, Known, ok, skip, warn_if_any
from adawise.errors import ChainError, FatalError, SettingsError, StoreUnavailable
from adawise.settings import Settings
from adawise.text import as_duration, as_size, counted, some

if TYPE_CHECKING:
    from adawise.store.store import Store

_LEAST_BYTES = 2**30  # free bytes, below which a check fails
_LEAST_DAYS = 7.0  # days of room left at the pace of the last day, below which a check warns
_DAY_S = 86_400.0
_TICK_S = 1.0  # object stores report whole seconds
_TRIAL = b"by adawise doctor\n"
_SHORTLISTS_S = 3_600.0  # seconds up to now whose served images are compared with shortlists
_SEARCH_S = 5.0  # seconds to look for the files of the last day
_LEAST_NODES = 10_000  # names that the file system has room for, below which a check fails

_KINDS = {
    "nfs": "two hosts may see a new file at different times, and a server that hangs blocks a worker. Mount it "
    "`hard`, with version 4; an object store (s3://...) has no such risks",
    "cifs": "hard links and atomic names depend on the server. Use a local disk, NFS 4, or an object store (s3://...)",
    "fuse": "whether names are atomic and files durable depends on the storage behind it; on mounted object stores "
    "they are not. Name the store itself (s3://...), or use a local disk",
    "overlay": "it is the container's layer, which is deleted with the container. Mount a volume there",
    "tmpfs": "it is memory: its files are lost at a restart, and count towards the memory limit. Use a disk",
}
_ALSO = {"nfs4": "nfs", "smb3": "cifs", "smbfs": "cifs", "ramfs": "tmpfs", "aufs": "overlay"}


def output(known: Known) -> CheckResult:
    """Check that the output folder is ours, creates only what is absent, and replaces whole files."""
    from adawise.sink.claims import known_sink_id, prove_create_if_absent, read_sink_id, sink_id
    from adawise.sink.owner import Owner, check_commits, check_owner
    from adawise.store.store import open_store

    settings = known.settings
    store, kafka = open_store(settings.sink.root), settings.kafka
    uses_broker = "topic" not in known.failed
    ours = Owner(known.identity.cluster_id if uses_broker else "", kafka.topic, kafka.group, "run")
    if uses_broker and not settings.sink.begin_anew:
        check_commits(store, ours, known_sink_id(store), known.commits)
    if read_sink_id(store) is not None:
        sink_id(store, created_at=datetime.now(UTC).isoformat())
        prove_create_if_absent(store)
    prove_store(settings.sink.root)
    check_owner(store, ours)
    return ok(f"{store} supports conditional creation, and belongs to no other group")


def chains(known: Known) -> CheckResult:
    """Check that every segment exists that the newest ones count."""
    from adawise.sink.holes import of_root
    from adawise.store.store import open_store

    root = known.settings.sink.root
    if found := [f"{tp}: {hole}" for tp, hole in of_root(open_store(root))]:
        raise ChainError(
            f"expected every segment that the newest ones count, but {some(found, separator='; ')}. A worker still "
            f"goes on at the ends. `adawise verify {root}` lists all that is missing: restore it, or bridge it "
            f"with `adawise repair {root}`"
        )
    return ok("all segments that the newest ones count are there")


def shortlists(known: Known) -> CheckResult:
    """Check that each shortlist is of a camera, and what those that served within the last hour lacked.

    Classes that were added since do not count. What a list leaves out now and did not then is not known: an image that
    surely shows one of its classes was not counted.
    """
    from adawise.store.store import open_store
    from adawise.watch.status.cameras import cameras
    from adawise.watch.status.facts import LACKING_REMEDY, lacking
    from adawise.watch.status.root import RootReader

    now_s, given = time.time(), known.settings.scene.shortlists
    since_s = now_s - _SHORTLISTS_S
    chains = RootReader(open_store(known.settings.sink.root)).read(since_s).chains.values()
    rows = cameras(chains, (), since_s=since_s, now_s=now_s)
    warnings = []
    for row in rows:
        rule = next((each for each in reversed(given) if fnmatchcase(row.stream_id, each.streams)), None)
        if rule is not None and (rule.classes or rule.exclude):
            absent = {
                k: n for k, n in row.off_list.items() if (k not in rule.classes if rule.classes else k in rule.exclude)
            }
            warnings += [f"{row.stream_id}: {sentence}" for sentence in lacking(row.listed, absent)]
    found = [f"{some(warnings, separator='; ')}; {LACKING_REMEDY}"] if warnings else []
    names = [row.stream_id for row in rows]
    unused = [each.streams for each in given if names and not any(fnmatchcase(name, each.streams) for name in names)]
    if unused:
        found.append(f"no camera of the output is called {some(unused)}: correct streams, unless the camera is new")
    listed = counted(sum(row.listed > 0 for row in rows), "camera")
    return warn_if_any(
        found,
        f"of {listed} that served under a shortlist within the last hour, none often showed what it lacked and lacks "
        f"still. What else is left out now is not compared: `adawise shortlists {known.settings.sink.root}` names what "
        "cameras show",
    )


def recording(known: Known) -> CheckResult:
    """Check that the recording is this topic's, or can be begun."""
    from adawise.app.recording import recording_folder
    from adawise.recording.format import MANIFEST
    from adawise.store.store import open_store

    root, identity = known.settings.record.root, known.identity
    prove_store(root)
    if open_store(root).get(MANIFEST) is None:
        return ok(f"{root} supports conditional creation, and can hold a recording of {known.settings.kafka.topic}")
    folder = recording_folder(known.settings, identity)
    return ok(f"{folder.root} supports conditional creation, and is a recording of {known.settings.kafka.topic}")


def file_system(known: Known, root: Path = Path("/")) -> CheckResult:
    """Say what kind of file system each folder is on, and warn where that has risks.

    Args:
        known: the settings, and what earlier checks found.
        root: the folder with `proc`, which has the kernel's list of mounts.
    """
    table = mounts(root)
    found = {folder: mount for folder in folders(known.settings) if (mount := _mount_of(folder, table))}
    warnings = []
    for folder, mount in found.items():
        kind = "fuse" if mount.kind.startswith("fuse") else _ALSO.get(mount.kind, mount.kind)
        if kind in _KINDS:
            warnings.append(f"{folder} is on {mount.kind}: {_KINDS[kind]}")
    if not found:
        return skip("no folder of this machine is written to, or its mounts are not known")
    return warn_if_any(warnings, ", ".join(f"{folder} is on {mount.kind}" for folder, mount in found.items()))


def space(known: Known) -> CheckResult:
    """Check the free space, and how long it lasts at the pace at which the folder grew within the last day."""
    found, warnings = [], []
    for folder in folders(known.settings):
        there = existing(folder)
        usage, nodes = shutil.disk_usage(there), os.statvfs(there)
        if usage.free < _LEAST_BYTES:
            raise FatalError(
                f"{folder}: expected {as_size(_LEAST_BYTES)} of free space or more, got {as_size(usage.free)} of "
                f"{as_size(usage.total)}. Remove what is not needed, or use a larger disk."
            )
        if nodes.f_files > 0 and nodes.f_favail < _LEAST_NODES:
            raise FatalError(
                f"{folder}: expected room for {_LEAST_NODES} more files, but the file system has {nodes.f_favail} "
                "inodes left. Remove small files (`adawise compact`), or use another disk."
            )
        pace = _bytes_a_day(folder)
        days = usage.free / pace if pace else None
        if days is not None and days < _LEAST_DAYS:
            warnings.append(
                f"{folder} grew by {as_size(pace or 0)} a day, and {as_size(usage.free)} are free: enough for "
                f"{as_duration(days * _DAY_S)}. Free space, or keep less"
            )
        lasts = f", enough for {as_duration(days * _DAY_S)} at the rate of the last day" if days is not None else ""
        found.append(f"{folder}: {as_size(usage.free)} free{lasts}")
    if not found:
        return skip("no folder of this machine is written to")
    return warn_if_any(warnings, "; ".join(found))


def clock(known: Known) -> CheckResult:
    """Compare the clock of each store with this machine's, by the time that it gives to a file written now."""
    found, warnings = [], []
    for place in _places(known.settings):
        by = ahead_s(place)
        if abs(by) > CLOCK_S:
            warnings.append(
                f"{place}: the store's clock is {as_duration(abs(by))} {'ahead of' if by > 0 else 'behind'} this "
                "machine's: removal by age and signed requests depend on it. Set both by NTP"
            )
        found.append(f"{place}: {abs(by):.1f} s difference")
    return warn_if_any(warnings, "; ".join(found))


def _places(settings: Settings) -> list[str]:
    """Return the places that a worker with these settings writes to."""
    return [settings.sink.root, *([settings.record.root] if settings.record.enabled else [])]


def folders(settings: Settings) -> list[Path]:
    """Return the folders of this machine that a worker with these settings writes to."""
    return [Path(place.removeprefix("file://")) for place in _places(settings) if _is_local(place)]


def _is_local(place: str) -> bool:
    return "://" not in place or place.startswith("file://")


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    resolved = Path(os.path.realpath(folder))
    # `Path.exists` may raise, this does not.
    return next(path for path in (resolved, *resolved.parents) if os.path.exists(path))


def _mount_of(folder: Path, table: list[Mount]) -> Mount | None:
    """Return the mount that the folder is on: of those with the longest path, the last."""
    where = PurePosixPath(existing(folder))
    fitting = [mount for mount in table if where.is_relative_to(mount.at)]
    return max(reversed(fitting), key=lambda mount: len(mount.at.parts), default=None)


def _bytes_a_day(folder: Path) -> float | None:
    """Return the bytes of files written within the last day, scaled to a whole day; None if there are none.

    A folder of very many files is looked at for a few seconds, and what was seen by then counts.
    """
    began, now = time.monotonic(), time.time()
    written, oldest = 0, now
    for entry in _files(folder):
        if time.monotonic() - began > _SEARCH_S:
            break
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:  # removed meanwhile
            continue
        if now - _DAY_S < found.st_mtime <= now:
            written, oldest = written + found.st_size, min(oldest, found.st_mtime)
    return written * _DAY_S / max(now - oldest, 3600.0) if written else None


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry
        except OSError:  # does not exist yet, or may not be read
            continue


def prove_store(root: str) -> None:
    """Create a key twice, which the store must refuse, and replace it whole. No key or folder is left.

    Raises:
        SettingsError: the store does not do so, or may not be written.
        StoreUnavailable: the store does not answer.
    """
    from adawise.sink.claims import OVERWRITES
    from adawise.store.answers import AlreadyExists

    with _trial(root) as (store, key):
        with suppress(AlreadyExists):  # the first call succeeded, and its answer was lost
            store.create(key, _TRIAL)
        try:
            store.create(key, b"again\n")
        except AlreadyExists:
            pass
        else:
            raise SettingsError(OVERWRITES.format(store))
        replaced = _TRIAL + uuid4().bytes
        store.put(key, replaced)
        if (found := store.get(key)) != replaced:
            raise SettingsError(
                f"{store}: expected a store that returns what was written last, but it has "
                f"{'nothing' if found is None else f'{len(found)} other bytes'}: another store answers in its "
                "place, or it returns old copies. Use a local folder or a consistent store"
            )


def ahead_s(root: str) -> float:
    """Return by how many seconds the store's clock is ahead of ours, by a key that is written and deleted.

    Negative if it is behind; 0 if the difference lies within the time of the write and the store's resolution. Raises
    SettingsError and StoreUnavailable.
    """
    with _trial(root) as (store, key):
        began = time.time()
        store.create(key, _TRIAL)
        ended = time.time()
        written = store.modified(key)
        if written is None:
            raise StoreUnavailable(f"{store}: {key} was created but cannot be found; try again")
    at = written.timestamp()
    # The write was between `began` and `ended`, and its time may be rounded down by a tick.
    return max(at - ended, 0.0) + min(at + _TICK_S - began, 0.0)


@contextmanager
def _trial(root: str) -> Iterator[tuple[Store, str]]:
    """Yield a store with an unused key, which is deleted at the end with the folders that were made."""
    from adawise.store.store import open_store

    places = [] if "://" in root else [Path(root), *Path(root).parents]
    made = [folder for folder in places if not folder.exists()]
    store, key = open_store(root), f"_check-{uuid4().hex}"
    try:
        yield store, key
    finally:
        store.delete(key)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
