"""What is deployed agrees with the program: every file of settings and every variable is one that it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from adawise.settings import Settings, read
from tests.deploy.watching import DEPLOY

GRACE_S = 15 + 30 + 10 + 5  # docs/guide/faults.md: a store that fails, one that is silent, letters and results, leaving


def variables(found: object) -> Iterator[tuple[str, str]]:
    """ADAWISE_... of a document, as lists of {name, value} or as tables."""
    if isinstance(found, Mapping):
        if str(found.get("name", "")).startswith("ADAWISE_"):
            yield found["name"], str(found["value"])
        for name, value in found.items():
            if isinstance(name, str) and name.startswith("ADAWISE_"):
                yield name, str(value)
            elif isinstance(value, str) and "ADAWISE_" in value and "\n" in value:  # a patch
                yield from variables(yaml.safe_load(value))
            else:
                yield from variables(value)
    elif isinstance(found, list):
        for each in found:
            yield from variables(each)


def documents() -> Iterator[tuple[str, Any]]:
    for path in sorted(DEPLOY.rglob("*.yaml")):
        if not {"prometheus", "grafana"} & set(path.relative_to(DEPLOY).parts[:-1]):
            for document in yaml.safe_load_all(path.read_text()):
                yield str(path.relative_to(DEPLOY)), document


def environments() -> dict[str, dict[str, str]]:
    """Where variables are set -> what they are."""
    found = {name: dict(variables(document)) for name, document in documents()}
    dockerfile = re.findall(r"(ADAWISE_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text())
    units = {
        str(path.relative_to(DEPLOY)): dict(re.findall(r"Environment=(ADAWISE_\w+)=(\S+)", path.read_text()))
        for path in sorted((DEPLOY / "systemd").glob("*.service"))
    }
    return {name: them for name, them in {**found, "Dockerfile": dict(dockerfile), **units}.items() if them}


@pytest.mark.parametrize("file", sorted(DEPLOY.rglob("*.toml")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_file_of_settings_is_taken_whole(file: Path, tmp_path: Path) -> None:
    reading = read((), environ={}, folder=tmp_path, config=str(file), uses=frozenset())
    assert not reading.mistakes
    assert reading.settings.http.port == 8642
    assert not reading.settings.http.is_loopback or "systemd" in file.parts


@pytest.mark.parametrize("name", environments())
def test_variables_are_settings_with_values_that_are_allowed(name: str, tmp_path: Path) -> None:
    environ = dict(environments()[name])
    for variable, value in environ.items():
        if variable.endswith("_FILE"):  # a secret, where it is mounted
            (tmp_path / variable).write_text("0123456789abcdef")
            assert value.startswith(("/run/", "%d/"))
            environ[variable] = str(tmp_path / variable)
        environ[variable] = environ[variable].replace("$(POD_NAME)", "adawise-0").replace("%i", "yard")
    reading = read((), environ=environ, folder=tmp_path, config=None, uses=frozenset())
    assert not reading.mistakes
    assert reading.settings != Settings()


def test_grace_periods_are_as_long_as_a_stop_may_take() -> None:
    worker = yaml.safe_load((DEPLOY / "kubernetes/base/worker.yaml").read_text())
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= GRACE_S
    assert f"{GRACE_S} s" in (DEPLOY.parent / "docs/guide/faults.md").read_text()


def test_ports_and_users_are_those_of_the_image() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\1$", dockerfile, re.MULTILINE)
    (port,) = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE)
    assert f"ADAWISE_HTTP__PORT={port}" in dockerfile
    for name, document in documents():
        if name.startswith("kubernetes/"):
            text = yaml.safe_dump(document)
            assert set(re.findall(r"(?:runAsUser|runAsGroup|fsGroup): (\d+)", text)) <= {user}, name
            probes = set(re.findall(r"name: ADAWISE_HTTP__PROBES_PORT\n\s+value: '(\d+)'", text))
            assert set(re.findall(r"containerPort: (\d+)", text)) <= {port, *probes}, name
