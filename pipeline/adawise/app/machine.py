"""The cores and memory that this process may use, within the limits of a container (Linux's cgroups).

A container of two cores on a host of 64 sees 64: `os.cpu_count` and torch ignore its quota. As many threads as the host
has cores spend the quota in the first milliseconds of each period, and then all of them are stopped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
_UNLIMITED_BYTES = 1 << 60  # cgroup version 1 writes "none" as the largest number of pages
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}  # in the kernel's list of mounts


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of the kernel's list of mounts: the folder `root` of a file system is visible at the folder `at`."""

    root: PurePosixPath
    at: PurePosixPath
    kind: str
    options: frozenset[str]


def usable_cores(root: Path = ROOT) -> int:
    """Return the cores that this process may keep busy, at least 1: its affinity (cpuset), and its quota, rounded up.

    Args:
        root: the folder that has `proc` and the cgroups.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the least quota of the process's cgroup and those around it, in cores; None if there is none."""
    quotas = []
    for folder in _cgroups(root, "cpu"):
        with suppress(OSError, ValueError, IndexError):  # no such file: the other version, or no limit
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()[:2]
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if quota.strip() not in {"max", "-1"}:
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def usable_memory_bytes(root: Path = ROOT) -> int:
    """Return the bytes that this process and its children may have.

    That is the machine's memory, or its cgroup's limit if that is less; 0 if neither is known.
    """
    limits = [limit for limit in (memory_limit_bytes(root), _of_the_machine(root)) if limit]
    return min(limits, default=0)


def available_memory_bytes(root: Path = ROOT) -> int | None:
    """Return the bytes that this process may still take before others are affected; None if unknown.

    For the machine it is what the kernel calls available; for each cgroup it is the limit less the use, without
    inactive cached files.
    """
    found = [_field(root / "proc/meminfo", "MemAvailable", 1024)]
    for folder in _cgroups(root, "memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):
                most = int((folder / limit).read_text())
                if most < _UNLIMITED_BYTES:
                    cached = _field(folder / "memory.stat", "inactive_file", 1) or 0
                    found.append(max(0, most - int((folder / used).read_text()) + cached))
    return min((each for each in found if each is not None), default=None)


def resident_bytes() -> int:
    """Return the resident bytes of this process now; 0 if unknown."""
    return _field(ROOT / "proc/self/status", "VmRSS", 1024) or 0


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """Return the least memory limit of the process's cgroup and those around it, in bytes; None if there is none."""
    limits = []
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min((limit for limit in limits if limit < _UNLIMITED_BYTES), default=None)


def mounts(root: Path = ROOT) -> list[Mount]:
    """Return the mounts, as this process sees them; a later one hides an earlier one at the same place."""
    found = []
    with suppress(OSError):
        for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            fields, more = before.split(), after.split()
            if len(fields) > 4 and len(more) > 2:
                at = fields[4]
                for escape, character in _ESCAPES.items():
                    at = at.replace(escape, character)
                options = frozenset(more[2].split(","))
                found.append(Mount(PurePosixPath(fields[3]), PurePosixPath(at), more[0], options))
    return found


def _of_the_machine(root: Path) -> int | None:
    return _field(root / "proc/meminfo", "MemTotal", 1024)


def _field(path: Path, name: str, unit: int) -> int | None:
    """Return a number of a file of names and numbers, a line each, with or without a colon."""
    with suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.replace(":", " ").split()[:1] == [name]:
                return int(line.replace(":", " ").split()[1]) * unit
    return None


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process's cgroup for a controller and of those around it, as far as they are visible.

    In a container the path of its cgroup may be the host's, and begin above what is mounted: that part is left out.
    """
    paths: dict[str, PurePosixPath] = {}  # controller, "" for version 2: path
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, named = line.split(":", 2)
            paths |= dict.fromkeys(controllers.split(","), PurePosixPath(named))
    for mount in mounts(root):
        is_second = mount.kind == "cgroup2"
        if not is_second and (mount.kind != "cgroup" or controller not in mount.options):
            continue
        path = paths.get("" if is_second else controller)
        if path is None:
            continue
        inside = path.relative_to(mount.root) if path.is_relative_to(mount.root) else path.relative_to("/")
        top = root / mount.at.relative_to("/")
        folder = top / inside
        while folder != top:
            if folder.is_dir():
                yield folder
            folder = folder.parent
        yield top
