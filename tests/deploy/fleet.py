"""A Prometheus and an Alertmanager with the shipped rules, in seconds, over workers that a test starts and breaks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests.brokers import free_ports
from tests.deadlines import DEADLINE_S
from tests.deploy.watching import DEPLOY, RULES
from tests.loopback import Answering, Server, serving
from tests.watch.web.client import request

WINDOW = "20s"
SHORTER = {  # numbers of the rules, and what stands in their place where minutes are seconds
    "AdawiseFallsBehind": ("> 600", "> 2"),
    "AdawiseStaysBehind": ("> 600", "> 2"),
    "AdawiseNotWritten": ("> 300", "> 4"),
    "AdawiseStoreFails": ("> 300", "> 3"),
    "AdawiseBrokerFails": ("> 300", "> 3"),
    "AdawiseTopicRefuses": ("> 300", "> 3"),
    "AdawiseWorkersMissing": ("[1d:5m]", "[1m:1s]"),
    "AdawiseRetentionNear": ("604800", "8"),
    "AdawiseResultsWait": ("> 1048576", "> 2048"),
    "AdawiseRestarts": ("[1h]", "[5m]"),
}


def in_seconds(rules: Path = RULES) -> str:
    """The rules with `for`, windows and times of seconds; what they ask for stays."""
    document = yaml.safe_load(rules.read_text())
    for rule in [rule for group in document["groups"] for rule in group["rules"]]:
        if "for" in rule:
            rule["for"] = "1s"
        long, short = SHORTER.get(rule["alert"], ("", ""))
        assert long in rule["expr"], rule["alert"]
        if "[" not in long:
            rule["expr"] = re.sub(r"(?<=\[)\d+[mh](?=\])|(?<=offset )\d+[mh]", WINDOW, rule["expr"])
        rule["expr"] = rule["expr"].replace(long, short)
    return str(yaml.safe_dump(document))


@dataclass
class Fleet:
    """What is scraped, and what came of it.

    Args:
        folder: of all files.
        prometheus, alertmanager: their URLs.
    """

    folder: Path
    prometheus: str
    alertmanager: str
    received: list[tuple[str, str]] = field(default_factory=list)  # (receiver, alert) that Alertmanager sent
    meanwhile: Callable[[], object] = lambda: None  # called while something is waited for
    diary: Callable[[], str] = lambda: ""  # what is worth knowing where it was waited for in vain

    def scrape(self, *ports: int) -> None:
        """These workers from now on, and no others."""
        targets = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        beside = self.folder / "targets.new"
        beside.write_text(json.dumps(targets))
        beside.rename(self.folder / "targets.json")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's samples."""
        reply = request(self.prometheus, f"/api/v1/query?query={quote(expression)}").json
        assert reply["status"] == "success", (expression, reply)
        found: list[dict[str, Any]] = reply["data"]["result"]
        return found

    def alerts(self) -> dict[str, dict[str, Any]]:
        """What Alertmanager has, by name."""
        return {alert["labels"]["alertname"]: alert for alert in request(self.alertmanager, "/api/v2/alerts").json}

    def until(self, done: Callable[[], object], what: str, but: Callable[[], object] | None = None) -> None:
        """Ask twice a second; `but` tells what is not so in the end."""
        give_up = time.monotonic() + DEADLINE_S
        while not done():
            self.meanwhile()
            seen = but() if but else sorted(self.alerts())
            assert time.monotonic() < give_up, f"{what}: {seen}\n{self.diary()}"
            threading.Event().wait(0.5)

    def until_fires(self, *names: str) -> None:
        """Until Alertmanager has all of them."""
        for name in names:
            self.until(lambda name=name: name in self.alerts(), name)  # type: ignore[misc]


@contextmanager
def running(folder: Path) -> Iterator[Fleet]:
    """Both, until the block ends."""
    first = free_ports(3)
    alertmanager, prometheus, receiver = first, first + 1, first + 2
    fleet = Fleet(folder, f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}")
    (folder / "alerts.yaml").write_text(in_seconds())
    scraping = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    scraping["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
    scraping["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{alertmanager}"]}]
    (job,) = scraping["scrape_configs"]
    del job["dns_sd_configs"], job["authorization"]
    job["file_sd_configs"] = [{"files": ["targets.json"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(scraping))
    routing = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
    routing = re.sub(r"http://notify:8080", f"http://127.0.0.1:{receiver}", routing)
    routing = re.sub(r"group_(wait|interval): \w+", r"group_\1: 1s", routing)
    (folder / "alertmanager.yml").write_text(routing)
    fleet.scrape()
    with ExitStack() as stack:
        stack.enter_context(_receiver(receiver, fleet.received))
        paths = ["--storage.path=am", "--config.file=alertmanager.yml", "--cluster.listen-address="]
        stack.enter_context(_process(folder, "prometheus-alertmanager", alertmanager, paths))
        paths = ["--storage.tsdb.path=tsdb", "--config.file=prometheus.yml"]
        stack.enter_context(_process(folder, "prometheus", prometheus, paths))
        yield fleet


def lacking() -> list[str]:
    """What a machine needs and does not have."""
    return [name for name in ("prometheus", "prometheus-alertmanager") if shutil.which(name) is None]


@contextmanager
def _process(folder: Path, name: str, port: int, arguments: Sequence[str]) -> Iterator[None]:
    with (folder / f"{name}.log").open("w") as log:
        call = [name, f"--web.listen-address=127.0.0.1:{port}", *arguments]
        process = subprocess.Popen(call, cwd=folder, stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + DEADLINE_S
            while True:
                assert process.poll() is None, (folder / f"{name}.log").read_text()[-2_000:]
                assert time.monotonic() < give_up, name
                try:
                    if request(f"http://127.0.0.1:{port}", "/-/ready").status == 200:
                        break
                except OSError:
                    pass
                threading.Event().wait(0.2)
            yield
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


@contextmanager
def _receiver(port: int, received: list[tuple[str, str]]) -> Iterator[None]:
    class Receiver(Answering):
        def post(self) -> None:
            document = json.loads(self.body())
            received.extend((self.path.strip("/"), alert["labels"]["alertname"]) for alert in document["alerts"])
            self.answer(200)

    with serving(Server(Receiver, port)):
        yield


@contextmanager
def alertmanager(folder: Path) -> Iterator[str]:
    """One alone, with the shipped routes, until the block ends; its URL."""
    port = free_ports(1)
    shutil.copy(DEPLOY / "alertmanager" / "alertmanager.yml", folder)
    paths = ["--storage.path=am", "--config.file=alertmanager.yml", "--cluster.listen-address="]
    with _process(folder, "prometheus-alertmanager", port, paths):
        yield f"http://127.0.0.1:{port}"
