"""`adawise cameras` as a process: cameras by HTTP to a real Kafka, to a worker, to rows; reloaded, stopped, refused."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaConsumer

from adawise.app.worker import run_worker
from adawise.worker.events import Event, SegmentCommitted
from tests.brokers import CAPABILITIES, ApacheKafka, Broker, MakeTopic, Unavailable, create_topic, fresh_name
from tests.cameras.serving import Answer, HttpRequest, h264, http, jpeg, rtsp
from tests.deadlines import scaled
from tests.kafka.cluster import free_ports
from tests.kafka.sources import DEADLINE_S
from tests.models import PairFolder
from tests.process_log import ProcessLog
from tests.processes import Command, run
from tests.watch.web.client import request
from tests.worker.cameras import IMAGES, Topic, settings_for
from tests.worker.output import Output

PASSWORD = "hunter2-secret"


def live(requested: HttpRequest) -> None:
    """Ten frames a second, for as long as somebody reads."""
    requested.stream()
    never = threading.Event()
    for number in range(10_000):
        requested.part(jpeg(number))
        never.wait(0.1)


def closed(requested: HttpRequest) -> None:
    """The same, for those who know the password."""
    if requested.headers.get("authorization") != "Basic dmlld2VyOmh1bnRlcjItc2VjcmV0":
        requested.head(401, www_authenticate='Basic realm="camera"')
    else:
        live(requested)


@contextmanager
def cameras(folder: Path, text: str, *arguments: str, environ: Mapping[str, str] = {}) -> Iterator[ProcessLog]:
    """The command, with a file of cameras in `folder`."""
    (folder / "cameras.toml").write_text(text)
    call = ("cameras", "cameras.toml", "--log.format", "json", *arguments)
    environment = {**os.environ, **environ}
    with Command(*call, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        try:
            yield ProcessLog(started)
        finally:
            started.kill()


def sent(broker: Broker, topic: str) -> Mapping[str, list[tuple[int, bytes]]]:
    """(timestamp, value) of all messages, by camera, in their order."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    consumer = KafkaConsumer(
        topic, bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=1_000
    )
    with closing(consumer):
        for record in consumer:
            found.setdefault(record.key.decode(), []).append((record.timestamp, record.value))
    return found


def test_cameras_become_rows_of_a_worker_and_no_secret_is_seen_anywhere(
    broker: Broker, topic: MakeTopic, pair_folder: PairFolder, tmp_path: Path
) -> None:
    name, url_of = topic(2), f"http://127.0.0.1:{(port := free_ports(1))}/"
    (tmp_path / "wrong").write_text("another-secret\n")
    with http({"/gate": live, "/yard": closed}) as (url, _):
        text = f"""
            [defaults]
            rate = 8
            [camera.gate]
            url = "{url}/gate"
            [camera.yard]
            url = "{url}/yard"
            username = "viewer"
            password_env = "YARD"
            [camera.wrong]
            url = "{url}/yard"
            username = "viewer"
            password_file = "wrong"
        """
        kafka = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--kafka.topic", name]
        with cameras(tmp_path, text, *kafka, "--http.port", str(port), environ={"YARD": PASSWORD}) as process_log:
            process_log.until(lambda: all(process_log.events(event) for event in ("camera_failed", "camera_connected")))
            process_log.until(
                lambda: min((sent_by(url_of, camera) for camera in ("gate", "yard")), default=0) >= 2 * IMAGES
            )
            metrics, ready, page = (request(url_of, path) for path in ("/metrics", "/readyz", "/"))
            processes = [
                psutil.Process(process_log.process.pid),
                *psutil.Process(process_log.process.pid).children(recursive=True),
            ]
            seen = [*map(called, processes)]
            log = process_log.stop()
    psutil.wait_procs(processes, timeout=DEADLINE_S)
    assert not any(process.is_running() for process in processes)
    assert (ready.status, ready.json["status"]) == (200, "ready")
    assert 'adawise_camera_up{camera="yard"} 1.0' in metrics.text
    assert 'adawise_camera_up{camera="wrong"} 0.0' in metrics.text
    (failed,) = process_log.events("camera_failed")
    assert (failed["camera"], failed["refused"]) == ("wrong", True)
    for text in (metrics.text, page.text, log, *seen):
        assert "-secret" not in text

    frames = sent(broker, name)
    assert set(frames) == {"gate", "yard"}
    pictures = {jpeg(number) for number in range(500)}
    for messages in frames.values():
        times = [stamp for stamp, _ in messages]
        assert times == sorted(times)
        assert all(value in pictures for _, value in messages)

    root, many = tmp_path / "output", sum(map(len, frames.values()))
    settings = settings_for(Topic(broker, name), pair_folder, root, fresh_name("cameras"), http={"enabled": False})
    assert run_worker(settings, observer=StopsAfter(many)) == 0
    rows = Output(root).predictions.to_pylist()
    assert len(rows) == many
    assert {row["status"] for row in rows} == {"accepted"}
    assert {(row["stream_id"], dict(row["meta"])["clock"]) for row in rows} == {
        ("gate", "arrival"),
        ("yard", "arrival"),
    }


def called(process: psutil.Process) -> str:
    """Its command line; empty if it has ended, as a reader that is refused does."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


class StopsAfter:
    """Sends SIGTERM once so many rows are durable."""

    def __init__(self, rows: int) -> None:
        self._left = rows

    def observe(self, event: Event) -> None:
        if isinstance(event, SegmentCommitted):
            self._left -= event.commit.rows
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGTERM)


def sent_by(url: str, camera: str) -> float:
    """Frames that a camera has sent, as /metrics has them; 0 while it does not answer."""
    try:
        text = request(url, "/metrics").text
    except ConnectionError:
        return 0.0
    found = re.search(rf'adawise_camera_frames_total{{camera="{camera}"}} (\S+)', text)
    return float(found[1]) if found else 0.0


def test_a_reload_changes_what_the_file_says_and_a_mistake_in_it_changes_nothing(
    broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    answers: Mapping[str, Answer] = {"/gate": live, "/yard": live, "/shed": live}
    with http(answers) as (url, seen):
        kafka = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--kafka.topic", (name := topic())]
        text = f'[defaults]\nrate = 5\n[camera.gate]\nurl = "{url}/gate"\n'
        shed, yard = f'[camera.shed]\nurl = "{url}/shed"\n', f'[camera.yard]\nurl = "{url}/yard"\n'
        with cameras(tmp_path, text + shed, *kafka, "--no-http.enabled") as log:
            log.until(lambda: len(log.events("camera_connected")) == 2)
            (tmp_path / "cameras.toml").write_text("[camera.gate]\nrate = 0\n")
            log.process.send_signal(signal.SIGHUP)
            log.until(lambda: bool(log.events("cameras_not_reloaded")))
            (tmp_path / "cameras.toml").write_text(text + yard)
            log.process.send_signal(signal.SIGHUP)
            log.until(lambda: len(log.events("camera_connected")) == 3)
            log.stop()
        (reloaded,) = log.events("cameras_reloaded")
        assert (reloaded["added"], reloaded["changed"], reloaded["removed"]) == (["yard"], [], ["shed"])
        assert "expected a number above 0" in log.events("cameras_not_reloaded")[0]["error"]
        assert sorted(seen) == ["/gate", "/shed", "/yard"]
    assert set(sent(broker, name)) <= {"gate", "shed", "yard"}


@pytest.mark.soak
def test_it_waits_for_a_broker_that_is_not_there_and_is_stopped_meanwhile(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_ports(1)}"
    with cameras(tmp_path, '[camera.a]\ndevice = "/dev/video77"\n', "--kafka.bootstrap-servers", nobody) as log:
        log.until(lambda: bool(log.events("retry_scheduled")))
        assert "Traceback" not in log.stop()
        assert log.events("cameras_stopped")[0]["note"].startswith("it was asked to stop before the broker answered")


@pytest.fixture
def own_broker() -> Iterator[tuple[Broker, int]]:
    """A broker that a test may stop, and its process."""
    try:
        with ApacheKafka() as kafka:
            broker = Broker(kafka.bootstrap_servers, "Apache Kafka", "this test's", CAPABILITIES)
            create_topic(broker, "frames", 1)
            yield broker, kafka.pid(1)
    except Unavailable as reason:
        pytest.skip(f"Apache Kafka by Maven cannot be had: {reason}")


@contextmanager
def while_a_broker_is_stopped(folder: Path, broker: Broker, pid: int) -> Iterator[ProcessLog]:
    """A camera that has sent some frames to a broker which then stands still, and some seconds of frames since."""
    url_of = f"http://127.0.0.1:{(port := free_ports(1))}/"
    flags = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--http.port", str(port)]
    with http({"/gate": live}) as (url, _):
        text = f'[camera.gate]\nurl = "{url}/gate"\nrate = 5\n'
        with cameras(folder, text, *flags) as log:
            log.until(lambda: sent_by(url_of, "gate") >= 3)
            os.kill(pid, signal.SIGSTOP)
            try:
                log.until(lambda: sent_by(url_of, "gate") >= 30)
                yield log
            finally:
                os.kill(pid, signal.SIGCONT)


@pytest.mark.soak
def test_frames_that_a_broker_failed_to_take_are_sent_again_after_sigterm_once_it_is_back(
    own_broker: tuple[Broker, int], tmp_path: Path
) -> None:
    broker, pid = own_broker
    with while_a_broker_is_stopped(tmp_path, broker, pid) as log:
        assert not log.events("retry_scheduled")
        log.process.send_signal(signal.SIGTERM)
        log.until(lambda: bool(log.events("retry_scheduled")))
        os.kill(pid, signal.SIGCONT)
        assert log.process.wait(DEADLINE_S) == 0, "".join(log.lines)
    times = sorted({stamp for stamp, _ in sent(broker, "frames")["gate"]})
    assert max(after - before for before, after in pairwise(times)) < 5_000, "none of an outage of 11 s is missing"


@pytest.mark.soak
def test_frames_that_no_broker_takes_after_sigterm_end_it_with_1_within_its_grace(
    own_broker: tuple[Broker, int], tmp_path: Path
) -> None:
    with while_a_broker_is_stopped(tmp_path, *own_broker) as log:
        began_s = time.monotonic()
        log.process.send_signal(signal.SIGTERM)
        assert log.process.wait(DEADLINE_S) == 1
        assert time.monotonic() - began_s < scaled(18.0)  # 10 s, and what a busy machine takes to end
        log.ended()
    assert "Traceback" not in "".join(log.lines)
    (last,) = log.events("program_failed")
    assert last["exit_code"] == 1
    assert last["error"].startswith("could not send a frame to topic 'frames' at ")


def checked(folder: Path, text: str) -> tuple[int, str]:
    (folder / "cameras.toml").write_text(text)
    environment = {**os.environ, "YARD": PASSWORD}
    done = run("cameras", "cameras.toml", "--check", cwd=folder, env=environment, timeout=DEADLINE_S)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_check_tries_each_once_and_a_source_that_is_refused_is_exit_1(tmp_path: Path) -> None:
    with http({"/gate": live, "/yard": closed}) as (url, seen):
        good = f'[camera.gate]\nurl = "{url}/gate"\n[camera.yard]\nurl = "{url}/yard"\nusername = "viewer"\n'
        good += 'password_env = "YARD"\n'
        code, output = checked(tmp_path, good)
        assert code == 0, output
        assert "mjpeg 320x240" in output
        bad = f'[camera.none]\nurl = "{url}/none"\n[camera.closed]\nurl = "{url}/yard"\n'
        bad += '[camera.device]\ndevice = "/dev/video77"\n'
        code, output = checked(tmp_path, good + bad)
    assert code == 1
    for words in ("no such stream (404)", "refuses the credentials (401)", "no such device or file"):
        assert words in output
    assert seen.count("/none") == 1
    assert "hunter2" not in output


def test_a_check_that_is_told_to_stop_ends_at_once_with_130(tmp_path: Path) -> None:
    """Whoever is still being tried would have had ten minutes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        text = "".join(f'[camera.c{n}]\nurl = "{url}/{n}"\n' for n in range(20))
        (tmp_path / "cameras.toml").write_text(f"[defaults]\ntimeout_s = 600\n{text}")
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with Command("cameras", "cameras.toml", "--check", cwd=tmp_path, **streams) as process:
            silent.settimeout(DEADLINE_S)
            taken, _ = silent.accept()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=DEADLINE_S)
            taken.close()
    assert (process.returncode, out, err) == (130, "", "")


def test_a_mistake_in_the_file_is_exit_2(tmp_path: Path) -> None:
    code, output = checked(tmp_path, '[camera.a]\nurl = "gopher://a/1"\n')
    assert code == 2
    assert "camera.a.url  (cameras.toml line 2)" in output


@pytest.mark.soak
def test_a_service_that_is_killed_leaves_no_reader(broker: Broker, topic: MakeTopic, tmp_path: Path) -> None:
    with rtsp({"/ball": h264()}) as server:
        kafka = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--kafka.topic", topic()]
        with cameras(tmp_path, f'[camera.a]\nurl = "{server.url("/ball")}"\n', *kafka) as log:
            log.until(lambda: bool(log.events("camera_connected")))
            readers = psutil.Process(log.process.pid).children(recursive=True)
            log.process.send_signal(signal.SIGKILL)
            log.process.wait(DEADLINE_S)
            gone, alive = psutil.wait_procs(readers, timeout=DEADLINE_S)
            assert gone
            assert not alive
