"""`deploy/kafka/kafka` says what is wrong so that it can be acted on. (That it works, the `broker` fixture shows.)"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import KAFKA, free_ports
from tests.deadlines import DEADLINE_S, scaled


def kafka(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k != "JAVA_HOME"} | ({"PATH": str(path)} if path else {})
    call = [sys.executable, str(KAFKA), *arguments]
    return subprocess.run(call, capture_output=True, text=True, env=environ, timeout=scaled(200.0))


def on_path(folder: Path, name: str, text: str) -> Path:
    """A PATH with nothing but `name`, a shell script."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    if not (shutil.which("java") and (shutil.which("mvn") or (KAFKA.parent / "libs" / ".complete").exists())):
        pytest.skip("needs Java and Maven")
    folder, port = tmp_path / "cluster", free_ports(2)
    started = kafka("start", "--dir", str(folder), "--port", str(port))
    assert started.returncode == 0, started.stderr
    yield folder, port
    kafka("stop", "--dir", str(folder))


@pytest.mark.check("brokers")
def test_start_stop_and_status_can_be_repeated(running: tuple[Path, int]) -> None:
    folder, port = running
    again = kafka("start", "--dir", str(folder), "--port", str(port))
    assert (again.returncode, again.stdout[:15]) == (0, "already running")
    output = kafka("status", "--json", "--dir", str(folder))
    assert output.returncode == 0
    status = json.loads(output.stdout)
    assert status["bootstrap_servers"] == f"127.0.0.1:{port}"
    assert [row["answers"] for row in status["brokers"]] == [True]

    elsewhere = kafka("start", "--dir", str(folder), "--port", str(port + 10))
    assert elsewhere.returncode == 1
    assert "stop --wipe" in elsewhere.stderr

    unknown = kafka("kill", "--broker", "2", "--dir", str(folder))
    assert unknown.returncode == 1
    assert "--broker must be one of [1]" in unknown.stderr
    assert "leave out --broker" in kafka("stop", "--wipe", "--broker", "1", "--dir", str(folder)).stderr

    assert kafka("stop", "--dir", str(folder)).stdout.startswith("stopped 1")
    assert kafka("status", "--dir", str(folder)).returncode == 3
    assert kafka("stop", "--wipe", "--dir", str(folder)).stdout.startswith("nothing runs")
    assert not (folder / "cluster.json").exists()


@pytest.mark.check("brokers")
def test_it_listens_on_loopback_only(running: tuple[Path, int]) -> None:
    _folder, port = running
    table = Path("/proc/net/tcp6")
    if not table.exists():
        pytest.skip("needs /proc to see sockets")
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    ours = {
        row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) in (port, port + 1)
    }
    assert ours
    assert ours <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same as an IPv6 address


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    port = free_ports(2)
    with socket.create_server(("127.0.0.1", port)):
        done = kafka("start", "--dir", str(tmp_path), "--port", str(port))
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "--port N" in done.stderr


def test_without_java_the_package_to_install_is_named(tmp_path: Path) -> None:
    done = kafka("start", "--dir", str(tmp_path), path=tmp_path)
    assert done.returncode == 1
    assert "Java 17 or newer is needed" in done.stderr
    assert "apt-get install" in done.stderr


def test_an_old_java_is_refused(tmp_path: Path) -> None:
    path = on_path(tmp_path, "java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    done = kafka("start", "--dir", str(tmp_path), path=path)
    assert done.returncode == 1
    assert '"11.0.2"' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "output"),
    [(("--port", "80"), "1024"), (("--set", "no-value"), "NAME=VALUE"), (("--set", "a=b\nc=d"), "NAME=VALUE")],
)
def test_a_wrong_argument_is_refused(tmp_path: Path, arguments: tuple[str, ...], output: str) -> None:
    done = kafka("start", "--dir", str(tmp_path), *arguments)
    assert done.returncode == 1
    assert output in done.stderr


@pytest.mark.check("brokers")
def test_a_setting_that_kafka_refuses_is_shown_in_kafkas_words(tmp_path: Path) -> None:
    if not (shutil.which("java") and (shutil.which("mvn") or (KAFKA.parent / "libs" / ".complete").exists())):
        pytest.skip("needs Java and Maven")
    done = kafka("start", "--dir", str(tmp_path), "--port", str(free_ports(2)), "--set", "num.io.threads=0")
    assert done.returncode == 1
    assert "num.io.threads" in done.stderr


def test_maven_without_a_network_is_told_apart_from_a_broken_broker(tmp_path: Path) -> None:
    copy = tmp_path / "kafka"
    shutil.copytree(KAFKA.parent, copy, ignore=shutil.ignore_patterns("libs", "target", "__pycache__"))
    path = on_path(tmp_path, "mvn", "echo '[ERROR] Unknown host repository' ; exit 1")
    call = [sys.executable, str(copy / "kafka"), "fetch"]
    done = subprocess.run(call, capture_output=True, text=True, env={"PATH": str(path)}, timeout=DEADLINE_S)
    assert done.returncode == 1
    assert "Maven could not fetch Apache Kafka" in done.stderr
    assert "Unknown host repository" in done.stderr
    assert "settings.xml" in done.stderr
