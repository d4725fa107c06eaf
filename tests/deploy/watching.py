"""The shipped rules and dashboard, read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
RULES, TESTS = DEPLOY / "prometheus" / "alerts.yaml", DEPLOY / "prometheus" / "alerts_test.yaml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "adawise.json"


def alerts() -> dict[str, dict[str, Any]]:
    """Name -> rule."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def queries() -> Iterator[tuple[str, str]]:
    """(title of the panel, expression), its variables replaced as Grafana does for all workers."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")


def metrics_in(expression: str) -> set[str]:
    """Names of metrics that an expression of PromQL asks for."""
    code = re.sub(r'"[^"]*"', '""', expression)
    code = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)", "", code)
    return set(re.findall(r"\b(up|ALERTS|(?:adawise|process)_\w+)", code))
