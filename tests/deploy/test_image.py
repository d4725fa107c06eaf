"""The image is built by buildah on a Debian that mmdebstrap makes; the demo runs in it, read-only, as nobody.

No image registry is asked: where there is Docker, `docker build -f deploy/Dockerfile .` is the same file. It takes a
quarter of an hour, 20 GB of disk and 3 GB of downloads, so it wants to be asked for: ADAWISE_SOAK_IMAGE=1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.deadlines import scaled
from tests.deploy.watching import DEPLOY

pytestmark = pytest.mark.soak
NEEDS = ("buildah", "mmdebstrap", "unshare", "setpriv")
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
TAG, BASE = "localhost/adawise:soak", "localhost/adawise-base:soak"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# As `docker run --read-only --cap-drop ALL --user 10001 --tmpfs ...`, in namespaces of its own. $1: the image's files.
IN_THE_IMAGE = """
set -e
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for each in null zero full random urandom; do touch "$root/dev/$each"; mount --bind "/dev/$each" "$root/dev/$each"; done
mkdir "$root/dev/shm"; mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
for each in lib cache; do mount -t tmpfs -o uid=10001,gid=10001 tmpfs "$root/var/$each/adawise"; done
exec chroot "$root" setpriv --reuid 10001 --regid 10001 --clear-groups \
  --no-new-privs --bounding-set=-all --inh-caps=-all tini -- "$@"
"""


def call(*words: str, timeout_s: float = 3_000.0, environ: Mapping[str, str] = ENVIRONMENT) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=scaled(timeout_s), env=dict(environ), cwd=DEPLOY.parent
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's files, mounted."""
    if os.environ.get("ADAWISE_SOAK_IMAGE") != "1":
        pytest.skip("ADAWISE_SOAK_IMAGE=1 builds an image: 20 GB of disk, 3 GB of downloads")
    if lacking := [name for name in NEEDS if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(lacking)}: apt-get install buildah mmdebstrap util-linux")
    folder = tmp_path_factory.mktemp("image")
    include = "--include=ca-certificates,python3,python3-venv"
    sources = sorted(map(str, Path("/etc/apt/sources.list.d").glob("*.sources")))
    call("mmdebstrap", "--variant=minbase", include, "bookworm", str(folder / "base.tar"), *sources)
    empty = call("buildah", "from", "scratch")
    call("buildah", "add", empty, str(folder / "base.tar"), "/")
    call("buildah", "copy", empty, f"/{CERTIFICATES}", f"/{CERTIFICATES}")  # a company's proxy has its own
    call("buildah", "commit", "--rm", empty, BASE)
    build = ("buildah", "build", "--format", "docker", "--layers=false", "--build-arg", f"BASE={BASE}")
    call(*build, "-f", str(DEPLOY / "Dockerfile"), "-t", TAG, ".")
    container = call("buildah", "from", TAG)
    yield Path(call("buildah", "mount", container))
    call("buildah", "rm", container)
    call("buildah", "rmi", TAG, BASE)


def in_the_image(files: Path, *words: str) -> str:
    environ = {
        "PATH": "/opt/adawise/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/var/lib/adawise",
        "XDG_CACHE_HOME": "/var/cache",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    return call(*namespaces, "sh", "-c", IN_THE_IMAGE, "sh", str(files), *words, timeout_s=600.0, environ=environ)


def test_it_runs_as_nobody_and_can_write_where_it_says_alone(files: Path) -> None:
    output = in_the_image(
        files, "sh", "-c", "id -u; cat /proc/1/comm; touch /opt/adawise/x || touch /var/lib/adawise/x /tmp/x"
    )
    assert output.split() == ["10001", "tini"]


def test_the_demo_runs_to_its_end(files: Path) -> None:
    output = in_the_image(files, "adawise", "demo", "--images", "600", "--output", "/var/lib/adawise/demo")
    assert "images in = rows out = 600, each exactly once" in output


def test_it_says_what_it_is(files: Path) -> None:
    inspected = call("buildah", "inspect", "--type", "image", TAG)
    for word in ("10001:10001", "tini", "8642/tcp", "/livez", "Apache-2.0"):
        assert word in inspected
