"""An Apache Kafka of one broker or three for the tests, by deploy/kafka; each can be killed and restarted."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.deadlines import scaled

KAFKA = Path(__file__).parents[2] / "deploy" / "kafka" / "kafka"


class Unavailable(Exception):
    """This kind of broker cannot be had here; says why."""


class ApacheKafka:
    """Apache Kafka by deploy/kafka for as long as the `with` block lasts; `start` brings killed brokers back.

    Args:
        brokers: one or three.
        settings: further settings of each broker.
        port: the first of two a broker; None: any that are free.
        java: more words for the virtual machine.
        folder: where data, settings and logs are kept; None: a folder of its own, deleted at the end of the block.
    """

    def __init__(
        self,
        brokers: int = 1,
        settings: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        java: str = "",
        folder: Path | None = None,
    ) -> None:
        self._owned = contextlib.ExitStack()
        if folder is None:
            folder = Path(self._owned.enter_context(tempfile.TemporaryDirectory(prefix="adawise-kafka-")))
        self._folder = folder
        self._port = port or free_ports(2 * brokers)
        self._environment = {"KAFKA_HEAP_OPTS": f"-Xms128m -Xmx256m {java}"} if java else {}
        self._brokers = brokers
        self._start = [f"--port={self._port}", f"--brokers={brokers}"]
        self._start += [f"--set={name}={value}" for name, value in (settings or {}).items()]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{self._port + 2 * i}" for i in range(self._brokers))

    def pid(self, broker: int) -> int:
        """The process of broker 1, 2 or 3."""
        return int((self._folder / f"node-{broker}" / "broker.pid").read_text())

    @property
    def count(self) -> int:
        """How many brokers."""
        return self._brokers

    def kill(self, broker: int) -> None:
        """SIGKILL for broker 1, 2 or 3; returns when it is gone."""
        self._call("kill", f"--broker={broker}")

    def restart(self, broker: int) -> None:
        """Stop broker 1, 2 or 3 in peace, and start it again."""
        self._call("restart", f"--broker={broker}")

    def revive(self) -> Callable[[], bool]:
        """Begin to start what was killed. What it returns is to be asked: True when every broker answers."""
        call = [sys.executable, str(KAFKA), "start", "--dir", str(self._folder), *self._start]
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, env=os.environ | self._environment)

        def is_done() -> bool:
            if process.poll() not in (None, 0):
                raise Unavailable("a killed broker did not come back; see above")
            return process.poll() == 0

        return is_done

    def start(self) -> None:
        self._call("start", *self._start)

    def stop(self) -> None:
        self._call("stop")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._owned.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._owned.close()

    def _call(self, command: str, *arguments: str) -> None:
        call = [sys.executable, str(KAFKA), command, "--dir", str(self._folder), *arguments]
        done = subprocess.run(
            call, capture_output=True, text=True, timeout=scaled(280.0), env=os.environ | self._environment
        )
        if done.returncode:
            raise Unavailable(done.stderr.strip())


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, below those that the system hands to clients."""
    for _ in range(200):
        first = random.randrange(20000, 32000 - count)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    probe = stack.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise Unavailable(f"no {count} free ports in a row between 20000 and 32000")
