"""The shipped Alertmanager silences what follows from an alert at the same place, and nothing of another worker."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

import pytest
import yaml

from tests.deadlines import DEADLINE_S
from tests.deploy.watching import DEPLOY, TESTS, alerts
from tests.watch.web.client import request

PLACE = {"job", "instance", "partition"}
CASES = yaml.safe_load(TESTS.read_text())["tests"]
RULES = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())["inhibit_rules"]


def labels_of(name: str) -> set[str]:
    """Return the labels that the alert has where promtool's tests expect it."""
    checks = [check for case in CASES for check in case["alert_rule_test"] if check["alertname"] == name]
    return {label for check in checks for alert in check.get("exp_alerts", ()) for label in alert["exp_labels"]}


def named(matchers: list[str]) -> list[str]:
    """Return the alerts that the first of a rule's matchers names."""
    found = re.fullmatch(r'alertname=~?"(\w+)(?:\(([\w|]+)\))?"', matchers[0])
    assert found is not None, matchers
    return [found[1] + end for end in (found[2] or "").split("|")]


PAIRS = [
    pytest.param(source, target, rule, id=f"{source}-{target}")
    for rule in RULES
    for source in named(rule["source_matchers"])
    for target in named(rule["target_matchers"])
]


@pytest.mark.parametrize(("source", "target", "rule"), PAIRS)
def test_a_rule_compares_all_that_both_alerts_know_of_the_place(source: str, target: str, rule: dict[str, Any]) -> None:
    assert {source, target} <= set(alerts())
    assert set(rule["equal"]) == labels_of(source) & labels_of(target) & PLACE
    for matcher in rule["target_matchers"][1:]:
        assert re.split(r"\W", matcher)[0] in labels_of(target)


def labels(alert: str, job: str) -> dict[str, str]:
    """Return the labels of an alert that is written as `name instance=a partition=0`, without `Adawise`."""
    name, *fields = alert.split()
    return {"alertname": f"Adawise{name}", "job": job} | dict(field.split("=") for field in fields)


CAMERAS = [f"CamerasInTrouble state={state}" for state in ("failing", "rejected", "silent")]
BEHIND = ["FallsBehind instance=a partition=0", "StaysBehind instance=a partition=0"]
OTHERS = ["FallsBehind instance=b partition=1", "StaysBehind instance=b partition=2", "NotWritten instance=b"]
FOLLOWS = [  # source, what follows from it, what does not
    (
        "StoreFull instance=a",
        [*BEHIND, "NotWritten instance=a", "StoreFails instance=a of=store", CAMERAS[0]],
        [*OTHERS, *CAMERAS[1:]],
    ),
    ("StoreFails instance=a of=store", [*BEHIND, "NotWritten instance=a", CAMERAS[0]], [*OTHERS, *CAMERAS[1:]]),
    (
        "BrokerFails instance=a of=broker",
        [*BEHIND, "ResultsWait instance=a", "TopicRefuses instance=a of=topic", CAMERAS[0], CAMERAS[2]],
        [*OTHERS, "ResultsWait instance=b", "TopicRefuses instance=c of=topic", CAMERAS[1]],
    ),
    ("TopicRefuses instance=a of=topic", [*BEHIND, "NotWritten instance=a"], [*OTHERS, *CAMERAS]),
    (BEHIND[0], BEHIND[1:], ["StaysBehind instance=a partition=1", "StaysBehind instance=b partition=0"]),
    (
        "WorkerDown instance=a",
        ["NotReady instance=a", "NotWritten instance=a", "Restarts instance=a", "PartitionsUnowned", "WorkersMissing"],
        ["NotReady instance=b", "NotWritten instance=b", "Restarts instance=b", BEHIND[0]],
    ),
]


@pytest.mark.parametrize(("source", "follows", "others"), FOLLOWS, ids=[source.split()[0] for source, _, _ in FOLLOWS])
def test_what_follows_from_an_alert_is_silenced_and_nothing_of_another_worker(
    alertmanager: str, source: str, follows: list[str], others: list[str]
) -> None:
    job = source.split()[0]  # the jobs keep the cases apart: each rule compares them
    sent = [{"labels": labels(alert, job)} for alert in (source, *follows, *others)]
    body = json.dumps(sent).encode()
    reply = request(alertmanager, "/api/v2/alerts", method="POST", body=body, content_type="application/json")
    assert reply.status == 200, reply.text

    def silenced() -> list[dict[str, str]]:
        found = request(alertmanager, "/api/v2/alerts").json
        return [each["labels"] for each in found if each["labels"]["job"] == job and each["status"]["inhibitedBy"]]

    give_up = time.monotonic() + DEADLINE_S
    while len(silenced()) < len(follows) and time.monotonic() < give_up:
        threading.Event().wait(0.1)  # the source reaches the inhibitor after the reply
    expected = [labels(alert, job) for alert in follows]
    assert sorted(silenced(), key=str) == sorted(expected, key=str)
