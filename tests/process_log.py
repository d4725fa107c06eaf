"""What a process says on its error output, and a disk that has no room: for tests of real commands."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.sources import DEADLINE_S


class ProcessLog:
    """What a process says, read by a thread: a pipe that nobody reads would stop it."""

    def __init__(self, started: subprocess.Popen[str]) -> None:
        self.process, self.lines = started, list[str]()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def events(self, name: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in [*self.lines] if line.startswith("{")]
        return [event for event in found if event["event"] == name]

    def until(self, done: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
        give_up, never = time.monotonic() + within_s, threading.Event()
        while not done():
            assert time.monotonic() < give_up, "".join(self.lines)
            assert self.process.poll() is None, "".join(self.lines)
            never.wait(0.05)

    def stop(self) -> str:
        """SIGTERM; what it said on the error output."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE_S) == 0, "".join(self.lines)
        return self.ended()

    def ended(self) -> str:
        """What it said in all; to be called once it has ended."""
        self._thread.join(DEADLINE_S)
        return "".join(self.lines)


def fill(ballast: Path) -> None:
    """To the last byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            with suppress(OSError):
                while file.write(random.randbytes(size)):
                    pass


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own; skips where this user may not mount one."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a full disk needs the right to mount one: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
