"""What every broker here is started from: Java, Apache Kafka's jars by Maven, and Kafka's own tools."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBS = HERE / "libs"
INSTALL = "On Debian: apt-get install default-jdk-headless maven"


class Failure(Exception):
    """What the user reads: what was expected, what came, and the remedy."""


def java_command() -> list[str]:
    """Return the Java call that every tool and broker shares; fetch the jars if they are missing."""
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
    """Return the version of Apache Kafka that pom.xml asks for."""
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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One start, stop or fetch at a time; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
