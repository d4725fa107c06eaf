"""Cores and memory that a process may use, by trees of cgroups as containers have them, and by a real one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from adawise.app.machine import cpu_quota, memory_limit_bytes, mounts, usable_cores, usable_memory_bytes
from tests.deadlines import DEADLINE_S

CORES = 64
SECOND = "24 1 0:22 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
FIRST = (
    "31 24 0:27 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 24 0:28 {root} /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n"
)


@pytest.fixture(autouse=True)
def _host_of_64_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(CORES)))


def tree(root: Path, cgroup: str, mountinfo: str, files: Mapping[str, str]) -> Path:
    """A machine whose process has this cgroup; `files` lie below /sys/fs/cgroup."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mountinfo)
    (root / "proc/meminfo").write_text("MemTotal:       65536000 kB\nMemFree:  1 kB\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("written", "cores"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),  # what is begun of a core can be kept busy
        ("50000 100000", 1),
        ("10000000 100000", CORES),  # more than there are
        ("max 100000", CORES),
        ("garbage", CORES),
        ("", CORES),
    ],
)
def test_the_quota_of_version_2_bounds_the_cores(tmp_path: Path, written: str, cores: int) -> None:
    """As a container sees itself: its cgroup is the root of what is mounted."""
    root = tree(tmp_path, "0::/\n", SECOND.format(root="/"), {"cpu.max": written})
    assert usable_cores(root) == cores


def test_the_least_quota_of_all_cgroups_around_the_process_counts(tmp_path: Path) -> None:
    quotas = {
        "kubepods/cpu.max": "max 100000",
        "kubepods/pod7/cpu.max": "300000 100000",
        "kubepods/pod7/worker/cpu.max": "max 100000",
        "kubepods/pod8/cpu.max": "100000 100000",  # somebody else's
    }
    root = tree(tmp_path, "0::/kubepods/pod7/worker\n", SECOND.format(root="/"), quotas)
    assert cpu_quota(root) == 3.0
    assert usable_cores(root) == 3


@pytest.mark.parametrize("at", ["/", "/docker/abc"])
def test_the_quota_of_version_1_is_found_whether_the_path_is_the_host_s_or_not(tmp_path: Path, at: str) -> None:
    """In a container without a namespace of its own, the process's path is the host's, and so is the mount's root."""
    below = "docker/abc/" if at == "/" else ""
    files = {
        f"cpu,cpuacct/{below}cpu.cfs_quota_us": "250000\n",
        f"cpu,cpuacct/{below}cpu.cfs_period_us": "100000\n",
        f"memory/{below}memory.limit_in_bytes": "2147483648\n",
    }
    root = tree(tmp_path, "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n", FIRST.format(root=at), files)
    assert cpu_quota(root) == 2.5
    assert usable_cores(root) == 3
    assert memory_limit_bytes(root) == usable_memory_bytes(root) == 2**31


def test_without_a_limit_the_machine_s_own_counts(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    root = tree(tmp_path, "4:memory:/\n3:cpu,cpuacct:/\n", FIRST.format(root="/"), files)
    assert (cpu_quota(root), usable_cores(root)) == (None, CORES)
    assert (memory_limit_bytes(root), usable_memory_bytes(root)) == (None, 65536000 * 1024)


@pytest.mark.parametrize(("written", "limit"), [("1073741824\n", 2**30), ("max\n", None)])
def test_the_memory_of_version_2_is_the_least_of_all_cgroups(tmp_path: Path, written: str, limit: int | None) -> None:
    root = tree(tmp_path, "0::/pod\n", SECOND.format(root="/"), {"memory.max": "max\n", "pod/memory.max": written})
    assert memory_limit_bytes(root) == limit


def test_a_machine_that_tells_nothing_has_the_cores_of_the_affinity(tmp_path: Path) -> None:
    assert (usable_cores(tmp_path), usable_memory_bytes(tmp_path), mounts(tmp_path)) == (CORES, 0, [])


def test_a_folder_with_a_blank_in_its_name_is_read_as_it_is_called(tmp_path: Path) -> None:
    line = "36 25 8:1 / /mnt/big\\040disk rw - nfs4 server:/export rw\n"
    (mount,) = mounts(tree(tmp_path, "", line, {}))
    assert (str(mount.at), mount.kind) == ("/mnt/big disk", "nfs4")


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A real cgroup whose processes may have half a core and 3 GiB; removed after the test."""
    name = f"adawise-test-{uuid.uuid4().hex[:8]}"
    second = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    places = (
        {"": Path("/sys/fs/cgroup") / name}
        if second
        else {kind: Path("/sys/fs/cgroup") / kind / name for kind in ("cpu", "memory")}
    )
    limits = (
        {"cpu.max": "50000 100000", "memory.max": str(3 * 2**30)}
        if second
        else {"cpu.cfs_quota_us": "50000", "memory.limit_in_bytes": str(3 * 2**30)}
    )
    made = []
    try:
        try:
            for kind, place in places.items():
                place.mkdir()
                made.append(place)
                for file, limit in limits.items():
                    if file.startswith(kind):
                        (place / file).write_text(limit)
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        yield made[0].parent
    finally:
        for place in made:
            place.rmdir()


def test_a_process_in_a_real_cgroup_sees_its_limits(half_a_core: Path) -> None:
    del half_a_core
    places = [*Path("/sys/fs/cgroup").glob("adawise-test-*"), *Path("/sys/fs/cgroup").glob("*/adawise-test-*")]
    program = (
        "import os, sys\n"
        "for place in sys.argv[1:]:\n"
        "    open(f'{place}/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from adawise.app.machine import *\n"
        "print(usable_cores(), cpu_quota(), memory_limit_bytes())\n"
    )
    command = [sys.executable, "-c", program, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout.split() == ["1", "0.5", str(3 * 2**30)], done.stderr
