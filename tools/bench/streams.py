"""What reading 20 RTSP cameras costs, by `adawise cameras` and by an `ffmpeg` for each; how soon a cut is over.

A real RTSP server (GStreamer's) gives 640x480 at 25 frames a second with a keyframe every second, to all of them from
one encoder. Processor time is of all processes of the reader together, memory what they have for themselves (USS) and
with their part of what they share (PSS). A cut is a server that is killed; it is over with the first frame.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from adawise.kafka.embedded import EmbeddedBroker
from adawise_cameras.child import Child
from tests.cameras.serving import h264, mjpeg, rtsp, spec
from tests.cameras.test_watch import Taken

CAMERAS, BEGINS_S, LASTS_S = 20, 15.0, 40.0
CUTS, AWAY_S = 8, (0.0, 10.0)
_CASES = (  # what it is, path, keys of the file
    ("H.264 at 1 a second", "/h264", "rate = 1"),
    ("H.264 at 2 a second", "/h264", "rate = 2"),
    ("H.264 at 5 a second", "/h264", "rate = 5"),
    ("H.264 at 1 a second, keyframes", "/h264", "rate = 1\nkeyframes = true"),
    ("MJPEG at 2 a second, passed on", "/mjpeg", "rate = 2"),
)


def main() -> None:
    """Print a line a case."""
    streams = {"/h264": h264(), "/mjpeg": mjpeg()}
    for what, path, keys in _CASES:
        with rtsp(streams) as server, _service(server.url(path), keys) as service:
            _print(what, _family(service))
    with rtsp(streams) as server, _ffmpegs(server.url("/h264"), rate=2) as running:
        _print("one ffmpeg a camera, H.264 at 2 a second", running)
    for away_s in AWAY_S:
        print(f"a server that is back {away_s:g} s after it was killed: {_cuts(away_s)}")


def _print(what: str, processes: Sequence[psutil.Process]) -> None:
    before_s, began_s = _cpu_s(processes), time.monotonic()
    time.sleep(LASTS_S)
    share = (_cpu_s(processes) - before_s) / (time.monotonic() - began_s)
    memory = [process.memory_full_info() for process in processes]
    own, with_shared = (sum(getattr(each, kind) for each in memory) / 2**20 for kind in ("uss", "pss"))
    load = os.getloadavg()[0]
    print(
        f"{what}: {100 * share:.0f} % of a core, {own:.0f} MiB (USS), {with_shared:.0f} MiB (PSS), "
        f"{len(processes)} processes; load {load:.0f}"
    )


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


@contextmanager
def _service(url: str, keys: str) -> Iterator[psutil.Process]:
    """The command at work, with a broker of its own."""
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cameras.toml")
        file.write_text(f"[defaults]\n{keys}\n" + "".join(f'[camera.c{n}]\nurl = "{url}"\n' for n in range(CAMERAS)))
        kafka = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--create-topic", "--log.level", "error"]
        command = [sys.executable, "-m", "adawise", "cameras", str(file), *kafka, "--http.port", "0"]
        with subprocess.Popen(command) as started:
            service = psutil.Process(started.pid)
            try:
                while len(service.children(recursive=True)) < CAMERAS:
                    time.sleep(1.0)
                time.sleep(BEGINS_S)
                yield service
            finally:
                started.terminate()


@contextmanager
def _ffmpegs(url: str, rate: int) -> Iterator[list[psutil.Process]]:
    """What `produce` did: one program a camera, which writes JPEGs into a pipe."""
    command = ["ffmpeg", "-nostdin", "-v", "quiet", "-rtsp_transport", "tcp", "-i", url, "-threads", "1"]
    command += ["-vf", f"fps={rate}", "-q:v", "3", "-f", "mpjpeg", "pipe:1"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(CAMERAS)]
    try:
        time.sleep(BEGINS_S)
        yield [psutil.Process(each.pid) for each in running]
    finally:
        for each in running:
            each.kill()
            each.wait()


def _cuts(away_s: float) -> str:
    took: list[float] = []
    for _ in range(CUTS):
        with rtsp({"/ball": h264()}) as server:
            taken = Taken(Child, spec(server.url("/ball"), rate=10.0))
            taken.watch.start()
            taken.take(5)
            server.kill()
            time.sleep(away_s)
            while taken.came.acquire(blocking=False):
                taken.backlog.take()
            server.start()
            began_s = time.monotonic()
            taken.take(1)
            took.append(time.monotonic() - began_s)
            taken.watch.stop()
            taken.watch.join()
    load = os.getloadavg()[0]
    return f"median {median(took):.1f} s from its return to the first frame, longest {max(took):.1f} s; load {load:.0f}"
