"""What is measured of a run: each test's wall clock, processor time and processes, by file and fixture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.times import tables

TESTS = """
import subprocess, sys, time
import pytest

BUSY = "import time; end = time.process_time() + .2\\nwhile time.process_time() < end: pass"

@pytest.fixture(scope="module")
def dear():
    exec(BUSY)

def test_busy(dear):
    pass

def test_child():
    subprocess.run([sys.executable, "-S", "-c", BUSY], check=True)

def test_skipped():
    pytest.skip("for a reason")
"""


@pytest.fixture(scope="module", params=["one process", "two processes"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What a run of three tests measured, and what it printed."""
    folder = tmp_path_factory.mktemp("times")
    (folder / "test_it.py").write_text(TESTS, encoding="utf-8")
    processes = [] if request.param == "one process" else ["-n", "2"]
    call = [sys.executable, "-m", "pytest", "-q", "-p", "tests.times", "--times", "times.json", "--rootdir", "."]
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*call, *processes], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "times.json").read_text(encoding="utf-8")), done.stdout


@pytest.mark.check("tools")
def test_processor_time_goes_to_the_test_or_the_child_that_spent_it(measured: tuple[dict[str, Any], str]) -> None:
    found, _ = measured
    tests = {name.partition("::")[2]: spent for name, spent in found["tests"].items()}
    assert tests["test_busy"]["cpu_s"] >= 0.19
    assert tests["test_busy"]["children_s"] == 0.0
    assert tests["test_child"]["children_s"] >= 0.19
    assert [tests[name]["processes"] for name in ("test_busy", "test_child", "test_skipped")] == [0, 1, 0]
    assert [spent["tests"] for spent in tests.values()] == [1, 1, 1]
    assert found["fixtures"]["dear (module)"]["cpu_s"] >= 0.19


@pytest.mark.check("tools")
def test_the_end_of_a_run_names_the_slowest_files_and_the_total(measured: tuple[dict[str, Any], str]) -> None:
    found, result = measured
    assert "slowest 10 files" in result
    assert "3 tests  test_it.py" in result
    assert "3 tests  all 1 files" in result
    assert f"the run took {found['took_s']:.0f} s on {psutil.cpu_count()} x " in result


def test_a_table_has_a_row_for_each_folder_file_and_fixture() -> None:
    spent = {"tests": 1, "wall_s": 2.0, "cpu_s": 1.0, "children_s": 0.4, "processes": 3}
    found = tables(
        {
            "took_s": 9.0,
            "busy_s": 12.0,
            "stolen_s": 0.0,
            "tests": {"tests/a/test_b.py::test_c": spent},
            "fixtures": {"d (module)": spent},
        },
        5,
    )
    for row in ("| a | 1 | 2 | 1 | 0 | 3 |", "| a/test_b.py | 1 |", "| all 1 | 1 |", "| d (module) | 1 |"):
        assert row in found
