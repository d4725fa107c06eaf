"""The demo's broker: the embedded one, or Apache Kafka by this repository's script; it leaves nothing behind."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adawise.errors import BrokerUnavailable, SettingsError
from adawise.kafka.embedded import HOST, EmbeddedBroker

KAFKA = Path(__file__).parents[3] / "deploy" / "kafka" / "kafka"


@dataclass(frozen=True, slots=True)
class Running:
    """A running broker."""

    bootstrap_servers: str
    name: str
    check: Callable[[], None] = lambda: None
    """Raises BrokerUnavailable if the broker is known to have ended by itself."""


@contextlib.contextmanager
def broker(kind: Literal["embedded", "kafka"]) -> Iterator[Running]:
    """Run a broker on a free port of this machine inside the block.

    Raises:
        SettingsError: it is not installed.
        BrokerUnavailable: it does not start.
    """
    if kind == "embedded":
        with EmbeddedBroker() as embedded:

            def check() -> None:
                if embedded.pid is None:
                    where, why = embedded.bootstrap_servers, embedded.last_words()
                    raise BrokerUnavailable(f"the embedded broker at {where} ended by itself: {why}. Start again")

            yield Running(embedded.bootstrap_servers, f"embedded broker (Tansu {embedded.version})", check)
        return
    if not KAFKA.is_file():
        raise SettingsError(
            f"--broker kafka needs the script {KAFKA}, which comes with the source tree: clone the repository and "
            "run `make demo BROKER=kafka` there, or use --broker embedded"
        )
    with tempfile.TemporaryDirectory(prefix="adawise-kafka-") as folder:
        port = _two_free_ports()
        try:
            _call("start", "--dir", folder, "--port", str(port))
            yield Running(f"{HOST}:{port}", "Apache Kafka")
        finally:
            _call("stop", "--dir", folder)


def _call(*arguments: str) -> None:
    # A session of its own: Ctrl-C then reaches the demo only, which stops the broker last.
    call = [sys.executable, str(KAFKA), *arguments]
    done = subprocess.run(call, capture_output=True, text=True, start_new_session=True, check=False)
    if done.returncode:
        raise BrokerUnavailable(
            f"Apache Kafka: `{' '.join(call[1:3])}` ended with code {done.returncode}: {done.stderr.strip()}. See "
            "deploy/kafka/README.md for its requirements, or use --broker embedded"
        )


def _two_free_ports() -> int:
    """Return the first of two consecutive free ports, for the broker and its controller.

    They are below the range that the system hands to clients.

    Raises:
        BrokerUnavailable: no such ports were found.
    """
    for first in random.sample(range(20_000, 32_000, 2), 200):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in (first, first + 1):
                probe = stack.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
            return first
    raise BrokerUnavailable("there are no two adjacent free ports between 20000 and 32000; free some")
