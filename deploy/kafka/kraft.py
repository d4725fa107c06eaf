"""One Apache Kafka broker in KRaft mode: its jars, its settings, its process, and whether it answers."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import string
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBS = HERE / "libs"
Process = subprocess.Popen[bytes]
INSTALL = "On Debian: apt-get install default-jdk-headless maven"


class Failure(Exception):
    """What the user reads: what was expected, what came, and the remedy."""


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
        """The process, or None: it holds a lock on its pid file for as long as it lives, however it dies."""
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
    """The nodes that were set up in `folder`; none if none were."""
    try:
        saved = json.loads((folder / "cluster.json").read_text())
        return plan(folder, saved["port"], saved["brokers"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{folder}/cluster.json was not written by this script ({error}); delete the folder") from error


def plan(folder: Path, port: int, brokers: int) -> list[Node]:
    """The nodes of a cluster: two ports each, from `port` on."""
    return [Node(i + 1, port + 2 * i, folder / f"node-{i + 1}") for i in range(brokers)]


def prepare(missing: Sequence[Node], nodes: Sequence[Node], settings: Sequence[str], java: Sequence[str]) -> None:
    """Write each broker's settings, and format its data folder if it has none."""
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
        node.properties.write_text(filled + "".join(f"{setting}\n" for setting in settings))
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


def java_command() -> list[str]:
    """The Java call that every tool and broker shares. Fetches the jars if they are not here."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(os.path.join(home, "bin", "java") if home else "java")
    if java is None:
        raise Failure(
            f"Java 17 or newer is needed, none found {'in JAVA_HOME=' + home if home else 'on PATH'}. {INSTALL}"
        )
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < 17:
        raise Failure(f"Java 17 or newer is needed, {java} says {said.splitlines()[:1]}. {INSTALL}")
    fetch()
    heap = os.environ.get("KAFKA_HEAP_OPTS", "-Xms128m -Xmx256m").split()
    lean = [
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:MaxDirectMemorySize=128m",
        "-XX:+ExitOnOutOfMemoryError",
    ]
    logs = f"-Dlog4j2.configurationFile=file:{HERE / 'log4j2.properties'}"
    return [java, *heap, *lean, "-Djava.awt.headless=true", logs, "-cp", f"{LIBS}/*"]


def fetch() -> None:
    """Let Maven copy the jars of the version in pom.xml into libs/; nothing to do if they are there."""
    stamp = LIBS / ".complete"  # written last: a fetch that was interrupted is done again
    with locked(HERE / "target" / ".fetch.lock"):
        if stamp.exists() and stamp.read_text() == (HERE / "pom.xml").read_text():
            return
        if shutil.which("mvn") is None:
            raise Failure(f"Maven is needed once, to fetch Apache Kafka {version()}, and is not on PATH. {INSTALL}")
        shutil.rmtree(LIBS, ignore_errors=True)
        print(f"fetching Apache Kafka {version()} with Maven", flush=True)
        call = ["mvn", "--batch-mode", "--quiet", "--no-transfer-progress", "--file", str(HERE / "pom.xml"), "package"]
        done = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            errors = re.findall(r"\[ERROR\] (\S.*)", done.stdout) or done.stdout.splitlines()
            raise Failure(
                f"Maven could not fetch Apache Kafka {version()}: {errors[0] if errors else 'it said nothing'}\n"
                f"Is there a network, or a mirror in ~/.m2/settings.xml? In full: {' '.join(call)}"
            )
        stamp.write_text((HERE / "pom.xml").read_text())


def version() -> str:
    """The Apache Kafka version that pom.xml asks for."""
    found = re.search(r"<kafka\.version>(.+?)</kafka\.version>", (HERE / "pom.xml").read_text())
    if found is None:
        raise Failure(f"{HERE}/pom.xml must have <kafka.version>")
    return found[1]


def run_tool(call: Sequence[str]) -> None:
    """Run one of Kafka's own tools."""
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if re.search(r"Exception|Error|ERROR", line)]
        raise Failure("\n  ".join([f"{' '.join(call[-6:])} failed", *said[:5]]))


def bootstrap(nodes: Sequence[Node]) -> str:
    """What a client needs to find the cluster."""
    return ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def describe(nodes: Sequence[Node]) -> str:
    """The cluster in one line."""
    return f"Apache Kafka {version()}, {len(nodes)} broker(s) at {bootstrap(nodes)}, in {nodes[0].folder.parent}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One start, stop or fetch at a time; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
