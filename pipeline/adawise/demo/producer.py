"""The demo's cameras as a process of their own: they draw and send frames while the worker classifies others.

`python -m adawise.demo.producer BOOTSTRAP_SERVERS TOPIC IMAGES SCENES` is the process; `Cameras` starts it. Flow
control is by credit: each byte on its standard input allows one more image, so it never runs further ahead of the
worker than the parent lets it. The end of the input ends it. On its standard output it reports how many images of each
camera the broker has acknowledged, one JSON list per line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer, errors

from adawise.demo.scene import StreetCamera
from adawise.demo.script import CameraScript, order, scripts
from adawise.errors import BrokerUnavailable
from adawise.kafka.client import open_client, translated

_END_WITHIN_S, _GIVE_UP_WITHIN_S = 30.0, 2.0  # for the last images to be acknowledged; for an exit after an error
_REPORT_EVERY = 16  # images


class Cameras:
    """The running process. `acknowledged` is how many images of each camera are in the topic so far.

    Args:
        bootstrap_servers: of the broker.
        topic: an existing topic with a partition for each camera.
        images: of all cameras together.
        scenes: what the cameras see.
        ahead: images that may be sent before `served` allows more, >= 1.
    """

    def __init__(self, bootstrap_servers: str, topic: str, images: int, scenes: str, ahead: int) -> None:
        arguments = [bootstrap_servers, topic, str(images), scenes]
        self._command = [sys.executable, "-m", "adawise.demo.producer", *arguments]
        self._ahead = ahead
        self._expected = [camera.frames for camera in scripts(images, scenes)]
        self.acknowledged = [0] * len(self._expected)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._read, name="cameras", daemon=True)

    def __enter__(self) -> Self:
        # A session of its own: Ctrl-C then reaches the parent only, which ends the cameras by closing their input.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        self._reader.start()
        self.served(self._ahead)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        self.stop()
        try:
            process.wait(_END_WITHIN_S if kind is None else _GIVE_UP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        if process.stdout is not None:
            process.stdout.close()

    @property
    def complete(self) -> bool:
        """True once every image is acknowledged."""
        return self.acknowledged == self._expected

    def served(self, images: int) -> None:
        """Allow as many more images as were classified."""
        assert self._process is not None
        assert self._process.stdin is not None
        # The process may have sent everything and ended; `check` distinguishes that from a failure.
        with contextlib.suppress(BrokenPipeError):
            if not self._process.stdin.closed:
                self._process.stdin.write(b"+" * images)

    def stop(self) -> None:
        """Let the process send nothing more; the images that it has sent are still acknowledged."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()

    def check(self) -> None:
        """Raise BrokerUnavailable if the process failed before it had sent everything."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None and code != 0:
            raise BrokerUnavailable(
                f"the simulated cameras ended with code {code} after {sum(self.acknowledged)} of "
                f"{sum(self._expected)} images; their output is above. Check that the broker is still running, and "
                "start again"
            )

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.acknowledged = json.loads(line)


def send(
    producer: Any,
    topic: str,
    cameras: tuple[CameraScript, ...],
    credit: Callable[[], int],
    report: Callable[[str], None],
) -> None:
    """Draw every frame in order and send it to its camera's partition, as far as credit allows.

    Args:
        producer: kafka-python's.
        topic: to send to.
        cameras: with their scripts.
        credit: waits for credit and returns the number of images; 0: stop.
        report: takes lines for `Cameras`.
    """
    streets = [StreetCamera(camera.camera_id, camera.seed, runs=True) for camera in cameras]
    acknowledged = [0] * len(cameras)
    waiting: deque[tuple[int, Any]] = deque()
    left = 0

    def settle(until: int) -> None:
        while len(waiting) > until:
            index, future = waiting.popleft()
            future.get()
            acknowledged[index] += 1
        report(json.dumps(acknowledged))

    for index, number in order(cameras):
        if left == 0:
            settle(0)
            left = credit()
            if left == 0:
                return
        left -= 1
        moment = cameras[index].moment(number)
        jpeg, label = streets[index].jpeg(number, moment.weather, moment.view)
        waiting.append((index, _send(producer, topic, index, cameras[index], number, jpeg, label)))
        if len(waiting) > 2 * _REPORT_EVERY:
            settle(_REPORT_EVERY)
    settle(0)


def _send(producer: Any, topic: str, index: int, camera: CameraScript, number: int, jpeg: bytes, label: str) -> Any:
    headers = {
        "content-type": "image/jpeg",
        "frame-id": camera.frame_id(number),
        "captured-at": camera.captured_at(number).isoformat(),
        "label": label,
        "meta-condition": camera.moment(number).condition,
    }
    return producer.send(
        topic,
        partition=index,
        key=camera.camera_id.encode(),
        value=jpeg,
        headers=[(name, value.encode()) for name, value in headers.items()],
    )


def main(bootstrap_servers: str, topic: str, images: int, scenes: str) -> int:
    """Send this many frames; return 0 when all are acknowledged or the input has ended, 1 when the broker fails."""
    logging.getLogger("kafka").setLevel(logging.ERROR)  # delays on a slow machine are not worth a message
    producer = open_client(KafkaProducer, bootstrap_servers, {}, linger_ms=5, allow_auto_create_topics=False)
    try:
        send(
            producer,
            topic,
            scripts(images, scenes),
            credit=lambda: len(os.read(sys.stdin.fileno(), 65536)),
            report=lambda line: print(line, flush=True),
        )
    except errors.KafkaError as error:
        print(f"cameras: {translated(error, bootstrap_servers, 'send images')}", file=sys.stderr)
        return 1
    finally:
        producer.close(timeout=5)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
