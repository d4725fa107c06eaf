"""The brokers of a cluster in KRaft mode: their settings, their processes, and whether they answer."""

from __future__ import annotations

import base64
import fcntl
import json
import re
import socket
import string
import struct
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jars import HERE, Failure, run_tool, version

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Node:
    """One broker: its ports and its folder."""

    id: int
    port: int
    folder: Path

    @property
    def controller_port(self) -> int:
        """Where the controllers talk to each other."""
        return self.port + 1

    @property
    def properties(self) -> Path:
        """The settings, written at each start."""
        return self.folder / "server.properties"

    @property
    def log(self) -> Path:
        """All that the broker says, over all starts."""
        return self.folder / "broker.log"

    @property
    def data(self) -> Path:
        """The topics; kept by a stop."""
        return self.folder / "data"

    def pid(self) -> int | None:
        """Return the id of the process, or None: a process that lives holds a lock on its pid file, however it dies."""
        try:
            with self._pid_file.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None
        except FileNotFoundError:
            pass
        return None

    def spawn(self, java: Sequence[str]) -> Process:
        """Start the broker in a session of its own, so that Ctrl-C in this terminal does not reach it."""
        with self._pid_file.open("w") as file, self.log.open("ab") as log:
            fcntl.flock(file, fcntl.LOCK_EX)
            process = subprocess.Popen(
                [*java, "kafka.Kafka", str(self.properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                pass_fds=[file.fileno()],
            )
            file.write(str(process.pid))
        return process

    @property
    def _pid_file(self) -> Path:
        return self.folder / "broker.pid"


def cluster(folder: Path) -> list[Node]:
    """Return the nodes that were set up in `folder`; none if none were."""
    try:
        saved = json.loads((folder / "cluster.json").read_text())
        return plan(folder, saved["port"], saved["brokers"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{folder}/cluster.json was not written by this script ({error}); delete the folder") from error


def plan(folder: Path, port: int, brokers: int) -> list[Node]:
    """Return the nodes of a cluster: two ports each, from `port` on."""
    return [Node(i + 1, port + 2 * i, folder / f"node-{i + 1}") for i in range(brokers)]


def prepare(
    missing: Sequence[Node], nodes: Sequence[Node], settings: Sequence[str] | None, java: Sequence[str]
) -> None:
    """Write each broker's settings (None: leave what is there), and format its data folder if it has none."""
    folder = nodes[0].folder.parent
    state = folder / "cluster.json"
    known = json.loads(state.read_text()) if state.exists() else {}
    cluster_id = known.get("cluster_id") or base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip(
        "="
    )
    state.write_text(json.dumps({"port": nodes[0].port, "brokers": len(nodes), "cluster_id": cluster_id}))
    template = string.Template((HERE / "server.properties").read_text())
    for node in missing:
        node.folder.mkdir(exist_ok=True)
        filled = template.substitute(
            node_id=node.id,
            port=node.port,
            controller_port=node.controller_port,
            voters=",".join(f"{n.id}@127.0.0.1:{n.controller_port}" for n in nodes),
            data_dir=node.data,
            replication=len(nodes),
            min_isr=len(nodes) // 2 + 1,
        )
        if settings is not None or not node.properties.exists():
            node.properties.write_text(filled + "".join(f"{setting}\n" for setting in settings or ()))
        if not (node.data / "meta.properties").exists():
            run_tool([*java, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(node.properties)])


def wait_until_ready(
    nodes: Sequence[Node], processes: Mapping[Node, subprocess.Popen[bytes]], timeout_s: float
) -> None:
    """Return once every broker answers a metadata request with all of the cluster's brokers in it."""
    deadline = time.monotonic() + timeout_s
    waiting = list(nodes)
    while waiting:
        for node, process in processes.items():
            if process.poll() is not None:
                raise Failure(f"broker {node.id} ended with code {process.returncode}: {last_words(node)}")
        waiting = [node for node in waiting if len(brokers_known_to(node.port)) != len(nodes)]
        if waiting and time.monotonic() > deadline:
            raise Failure(f"broker {waiting[0].id} did not answer in {timeout_s:.0f} s: {last_words(waiting[0])}")
        if waiting:
            time.sleep(0.05)


def brokers_known_to(port: int) -> list[int]:
    """Ask the broker at `port` (Metadata, version 1, no topics) which brokers there are; none if it does not answer."""
    request = struct.pack(">hhi", 3, 1, 1) + struct.pack(">h", 5) + b"kafka" + struct.pack(">i", 0)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(struct.pack(">i", len(request)) + request)
            _size, _correlation, count = struct.unpack(">iii", answer.read(12))
            ids = []
            for _ in range(count):
                broker_id, length = struct.unpack(">ih", answer.read(6))
                answer.read(length + 4)  # host and port
                (length,) = struct.unpack(">h", answer.read(2))
                answer.read(max(length, 0))  # rack, -1 if it has none
                ids.append(broker_id)
            return ids
    except (OSError, struct.error):
        return []


def refuse_used(port: int) -> None:
    """Raise Failure if something listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Failure(
                f"port {port} must be free, but cannot be had ({error.strerror}). Choose another: --port N"
            ) from error


def last_words(node: Node) -> str:
    """Why the broker failed, as far as its log tells, and where the log is."""
    lines = node.log.read_text(errors="replace").splitlines()
    bad = [line for line in lines if re.search(r" (ERROR|FATAL) |Exception|Error:", line)]
    return "\n".join([f"see {node.log}", *(f"  {line}" for line in (bad or lines)[-5:])])


def bootstrap(nodes: Sequence[Node]) -> str:
    """Return what a client needs to find the cluster."""
    return ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def describe(nodes: Sequence[Node]) -> str:
    """Return the cluster in one line."""
    return f"Apache Kafka {version()}, {len(nodes)} broker(s) at {bootstrap(nodes)}, in {nodes[0].folder.parent}"
