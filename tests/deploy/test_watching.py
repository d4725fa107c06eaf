"""Rules, dashboard and runbook agree with each other and with the table of metrics; Prometheus' own tools take them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from adawise.cli import COMMANDS, command_of
from adawise.cli.parser import parse
from adawise.watch.metrics import CAMERA_METRICS, METRICS
from tests.deadlines import DEADLINE_S
from tests.deploy.watching import DASHBOARD, DEPLOY, RULES, TESTS, alerts, metrics_in, queries

RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text()
PAGES = dict(re.findall(r"^## (Adawise\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE))
OF_PROMETHEUS = {"up", "ALERTS"}
OF_THE_PROCESS = {"process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}


def known() -> set[str]:
    names = {spec.name for spec in METRICS} | {spec.name for spec in CAMERA_METRICS} | OF_PROMETHEUS | OF_THE_PROCESS
    return names | {f"{spec.name}_bucket" for spec in METRICS if spec.kind == "histogram"}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_it_means_whom_it_calls_and_has_a_page(name: str) -> None:
    rule = alerts()[name]
    assert metrics_in(rule["expr"]) <= known()
    assert rule["labels"]["severity"] in {"page", "ticket", "none"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"RUNBOOK.md#{name.lower()}"
    for part in ("Means", "Confirm", "Do", "Do not"):
        assert f"**{part}" in PAGES[name], (name, part)


def test_the_runbook_has_a_page_for_each_alert_and_no_other() -> None:
    assert list(PAGES) == list(alerts())


def test_every_query_of_the_dashboard_asks_for_metrics_that_there_are() -> None:
    requested = {name for _, expression in queries() for name in metrics_in(expression)}
    assert len(requested) > 25
    assert requested <= known()


def test_panels_name_alerts_that_there_are_and_lie_beside_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    named = {name for panel in panels for name in re.findall(r"Adawise\w+", panel.get("description", ""))}
    assert {"AdawiseWorkerDown", "AdawiseStoreFull"} <= named <= set(alerts())
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_provisioning_and_dashboard_name_the_same_source() -> None:
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    uids = set(re.findall(r'"type": "prometheus", "uid": "(\w+)"', DASHBOARD.read_text()))
    assert uids == {source["uid"] for source in provisioned["datasources"]}


def commands() -> list[str]:
    """Lines of the runbook's blocks, and code in its sentences, that call us."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", RUNBOOK, re.DOTALL | re.MULTILINE))
    sentences = re.findall(r"`(adawise [^`]+)`", RUNBOOK.replace("\n", " "))
    lines = [line.partition("#")[0].strip() for line in blocks.splitlines()]
    return sorted({line for line in [*lines, *sentences] if line.startswith("adawise ")})


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_runbook_is_one_that_is_taken(line: str) -> None:
    words = shlex.split(line)[1:]
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    assert name in COMMANDS, line
    parsed = parse(command_of(name), words[len(name.split()) :])
    assert not parsed.mistakes, line


def test_each_alert_is_shown_to_fire_and_to_hold_its_peace() -> None:
    fires, silent = set[str](), set[str]()
    for case in yaml.safe_load(TESTS.read_text())["tests"]:
        for check in case["alert_rule_test"]:
            (fires if check.get("exp_alerts") else silent).add(check["alertname"])
    assert fires == set(alerts())
    assert silent == set(alerts()) - {"AdawiseWatchdog"}


@pytest.mark.parametrize(
    "command",
    [
        ["promtool", "check", "rules", str(RULES)],
        pytest.param(["promtool", "test", "rules", str(TESTS)], marks=pytest.mark.check("deploy")),
        ["promtool", "check", "config", "--syntax-only", str(DEPLOY / "prometheus" / "prometheus.yml")],
        ["amtool", "check-config", str(DEPLOY / "alertmanager" / "alertmanager.yml")],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_what_prometheus_and_alertmanager_read_is_taken_by_their_own_tools(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}: apt-get install prometheus prometheus-alertmanager")
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_an_alert_goes_to_a_receiver_of_its_severity() -> None:
    config = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routed = {route["matchers"][0]: route["receiver"] for route in config["route"]["routes"]}
    assert routed == {'severity="page"': "page", 'severity="none"': "heartbeat"}
    assert {config["route"]["receiver"], *routed.values()} == receivers


def test_processes_of_cameras_are_scraped_as_a_job_of_their_own_which_the_alert_names() -> None:
    """Inhibition compares jobs: one of them that is dead must not silence what is wrong with the workers."""
    (scraped,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (relabel,) = scraped["relabel_configs"]
    assert (relabel["source_labels"], relabel["target_label"]) == (["__meta_dns_name"], "job")
    jobs = {
        name: relabel["replacement"] if re.fullmatch(relabel["regex"], name) else scraped["job_name"]
        for found in scraped["dns_sd_configs"]
        for name in found["names"]
    }
    assert jobs == {"worker": "adawise", "cameras": "adawise-cameras"}
    for alert in ("AdawiseWorkerDown", "AdawiseRestarts"):
        (pattern,) = re.findall(r'job=~"([^"]+)"', alerts()[alert]["expr"])
        assert all(re.fullmatch(pattern, job) for job in jobs.values())


def test_numbers_of_the_rules_are_those_of_the_settings() -> None:
    from adawise.settings import Settings

    settings = Settings()
    assert 3 * settings.sink.flush_age_s < 300, "AdawiseNotWritten waits for more than one segment"
    assert alerts()["AdawiseRetentionNear"]["expr"].endswith(f"* {7 * 86_400}")
    assert settings.http.port is None
    assert Path(DEPLOY / "prometheus" / "prometheus.yml").read_text().count("port: 8642") == 1
