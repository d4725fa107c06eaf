"""Opens stores as a user does, by URL and environment, at servers on this machine."""

from __future__ import annotations

import atexit
import base64
import hmac
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import suppress
from email.utils import formatdate
from functools import cache
from pathlib import Path

import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from adawise.store.store import Store, open_store
from tests.brokers import free_ports
from tests.store.buckets import ACCOUNT

ACCOUNT_KEY = (  # which everybody knows
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
ROOT = Path(__file__).parents[2]
MOTO_PAGE = 100  # names in one answer
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@cache
def s3_server() -> str:
    """The URL of an S3 server in a process of its own, which ends with this one."""
    pytest.importorskip("moto.server", reason="needs moto[server] (extra: test)")
    port = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "tests.store.moto_server", str(port)]
    environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(MOTO_PAGE), "MOTO_PORT": str(port)}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    atexit.register(_end, server)
    assert server.stderr is not None
    for line in server.stderr:
        if "Running on" in line:
            break
    else:
        pytest.fail("the S3 server ended before it was ready")
    # Its log goes on; unread, it would fill the pipe and stop the server.
    threading.Thread(target=server.stderr.read, daemon=True).start()
    return f"http://{address}"


def _end(server: subprocess.Popen[str]) -> None:
    server.terminate()
    server.wait()


class SeaweedFS:
    """An S3 that keeps what it has on disk and may be killed: master, volumes, filer and S3, in one process."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="seaweedfs-")
        names = [f"{part}.{port}" for part in ("s3", "master", "volume", "filer") for port in ("port", "port.grpc")]
        first = free_ports(len(names))
        self.address = f"http://127.0.0.1:{first}"
        self._command = [
            *(program, "server", "-s3", "-ip=127.0.0.1", f"-dir={self._folder.name}", "-s3.port.iceberg=0"),
            *("-master.volumeSizeLimitMB=64", "-volume.max=0", "-master.telemetry=false"),
            *(f"-{name}={first + number}" for number, name in enumerate(names)),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._folder.cleanup)
        atexit.register(self.kill)

    def start(self) -> None:
        """It serves what it had, when this returns."""
        environment = {name: KEYS[name] for name in KEYS if name != "AWS_DEFAULT_REGION"}  # who may do what: these keys
        with (Path(self._folder.name) / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=os.environ | environment)
        for _ in range(600):
            if self._process.poll() is None and self._writes():
                return
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
        pytest.fail(f"SeaweedFS does not serve: {(Path(self._folder.name) / 'log').read_text()[-2_000:]}")

    def kill(self) -> None:
        """At once: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def new_bucket(self) -> str:
        """Of a fresh name: it makes those that are written to."""
        name = f"bucket-{os.urandom(4).hex()}"
        bucket = self._bucket(name)
        bucket.put("made", b"")
        bucket.delete("made")
        return name

    def _writes(self) -> bool:
        try:
            self._bucket("ready").put("now", b"")
        except BaseError:
            return False
        return True

    def _bucket(self, name: str) -> S3Store:
        return S3Store(
            name,
            endpoint=self.address,
            region=KEYS["AWS_DEFAULT_REGION"],
            access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )


@cache
def seaweedfs() -> SeaweedFS:
    """A SeaweedFS that serves; skips where there is none."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("needs SeaweedFS (extra: soak)")
    server = SeaweedFS(program)
    server.start()
    return server


def new_bucket() -> str:
    """Makes a bucket of a fresh name on the S3 server."""
    name = f"bucket-{os.urandom(4).hex()}"
    with urllib.request.urlopen(urllib.request.Request(f"{s3_server()}/{name}", method="PUT")):
        return name


def s3_environment(endpoint: str) -> dict[str, str]:
    """What the environment says of an S3 in clear text."""
    return {**KEYS, "AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true"}


@cache
def azurite() -> str:
    """The URL of Azurite, Microsoft's emulator of Azure's blobs, in a process of its own; skips where it is not."""
    program = os.environ.get("ADAWISE_TEST_AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs azurite-blob (npm install azurite), on PATH or named by ADAWISE_TEST_AZURITE")
    port, folder = free_ports(1), tempfile.TemporaryDirectory(prefix="azurite-")
    command = [program, "--blobPort", str(port), "--location", folder.name, "--silent", "--skipApiVersionCheck"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    atexit.register(folder.cleanup)
    atexit.register(_end, server)
    assert server.stdout is not None
    for line in server.stdout:
        if "successfully listen" in line:
            return f"http://127.0.0.1:{port}"
    pytest.fail("Azurite ended before it was ready")


def new_container() -> str:
    """Makes a container of a fresh name in Azurite, by a request that is signed with its well-known key."""
    name, version = f"container-{os.urandom(4).hex()}", "2021-08-06"
    when = formatdate(usegmt=True)
    headers = f"x-ms-date:{when}\nx-ms-version:{version}"
    kind = "application/octet-stream"
    signed = f"PUT{chr(10) * 5}{kind}{chr(10) * 7}{headers}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(ACCOUNT_KEY), signed.encode(), "sha256")).decode()
    request = urllib.request.Request(
        f"{azurite()}/{ACCOUNT}/{name}?restype=container",
        b"",
        {
            "content-type": kind,
            "x-ms-date": when,
            "x-ms-version": version,
            "authorization": f"SharedKey {ACCOUNT}:{signature}",
        },
        method="PUT",
    )
    with urllib.request.urlopen(request):
        return name


def open_s3(monkeypatch: pytest.MonkeyPatch, endpoint: str, url: str, **environment: str) -> Store:
    """The store of an `s3://` URL at this endpoint; the environment is read once, here."""
    for name, value in (s3_environment(endpoint) | environment).items():
        monkeypatch.setenv(name, value)
    return open_store(url)


def open_cloud(monkeypatch: pytest.MonkeyPatch, endpoint: str, url: str) -> Store:
    """The store of a `gs://` or `az://` URL at this endpoint."""
    account = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": ""}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps({**account, "private_key_id": ""}))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", endpoint)
    return open_store(url)
