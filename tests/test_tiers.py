"""The second tier: its parts, what is recorded of them, and which of them a change asks for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from tests import tiers
from tests.deadlines import VARIABLE, factor
from tests.tiers import PARTS, RECORD, ROOT, Recorder, changed, choose, read_record, write_record
from tools.faults import FAULTS


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one file in the room `live` and one in `tools`."""
    for name in ("pipeline/adawise/live/state.py", "tools/bench/a.py", ".ci/run"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "change")


def test_a_part_that_passed_is_asked_for_again_once_a_file_of_its_paths_changes(repository: Path) -> None:
    assert changed(repository) == [*PARTS]
    assert write_record(PARTS, repository) == []
    assert changed(repository) == []
    (repository / "tools/bench/a.py").write_text("second\n", encoding="utf-8")
    commit(repository)
    assert changed(repository) == ["tools"]
    (repository / "pipeline/adawise/live/new.py").write_text("new\n", encoding="utf-8")
    commit(repository)
    assert set(changed(repository)) == {"tools", "browser", "deploy", "guide", tiers.EXAMPLES}


def test_a_part_whose_files_are_not_committed_is_not_recorded(repository: Path) -> None:
    (repository / "tools/bench/a.py").write_text("second\n", encoding="utf-8")
    assert write_record(["tools", "deploy"], repository) == ["tools"]
    assert [*read_record(repository)] == ["deploy"]


def test_a_file_that_is_not_known_to_git_yet_counts_as_not_committed(repository: Path) -> None:
    (repository / "tools/bench/b.py").write_text("new\n", encoding="utf-8")
    assert write_record(["tools"], repository) == ["tools"]


def test_parts_of_former_records_that_there_are_no_more_are_dropped(repository: Path) -> None:
    (repository / RECORD).write_text('{"gone": "0", "deploy": "1"}', encoding="utf-8")
    write_record(["tools"], repository)
    assert [*read_record(repository)] == ["deploy", "tools"]


class Reported:
    """Lines that a recorder writes, in place of pytest's terminal."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def recorded(repository: Path, chosen: list[str], *outcomes: tuple[str, str, str]) -> list[str]:
    """Return what a recorder says once reports of (part, phase, outcome) came."""
    recorder, terminal = Recorder(chosen, repository), Reported()
    for part, when, outcome in outcomes:
        report: Any = pytest.TestReport("a", ("a", 1, "a"), {}, cast("Any", outcome), None, cast("Any", when))
        report.parts = [part]
        recorder.pytest_runtest_logreport(report)
    recorder.pytest_terminal_summary(cast("Any", terminal))
    return terminal.lines


def test_only_a_part_of_which_every_test_passed_is_recorded(repository: Path) -> None:
    lines = recorded(
        repository,
        ["tools", "deploy", "browser", "models", "guide"],
        ("tools", "setup", "passed"),
        ("tools", "call", "passed"),
        ("deploy", "call", "passed"),
        ("deploy", "call", "failed"),
        ("browser", "call", "passed"),
        ("browser", "setup", "skipped"),
        ("models", "call", "passed"),
        ("models", "teardown", "failed"),
    )
    assert [*read_record(repository)] == ["tools"]
    assert lines[-1] == "not recorded, for not all of it passed: deploy, browser, models, guide"
    assert any(line.startswith("guide: no test") for line in lines)


def test_parts_are_asked_for_by_name() -> None:
    assert choose("tools, deploy") == ["tools", "deploy"]
    assert choose("all") == [*PARTS]
    with pytest.raises(ValueError, match=r"no part 'tool' of the second tier; there are chaos, kills"):
        choose("tool")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_paths_that_there_are(part: str) -> None:
    assert [path for path in PARTS[part].paths if not (ROOT / path).exists()] == []


def test_every_part_has_tests_and_every_mark_names_a_part() -> None:
    named = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        named |= set(re.findall(r"mark\.check\(\"(\w+)\"\)", file.read_text(encoding="utf-8")))
    assert named - {"part"} == PARTS.keys() - {tiers.EXAMPLES}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_can_be_planted_and_its_tests_are_there(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    copy = tmp_path / "pipeline" / "adawise" / fault.file
    copy.parent.mkdir(parents=True)
    original = (ROOT / "pipeline" / "adawise" / fault.file).read_text(encoding="utf-8")
    copy.write_text(original, encoding="utf-8")
    fault.plant(tmp_path)
    compile(copy.read_text(encoding="utf-8"), fault.file, "exec")
    assert copy.read_text(encoding="utf-8") != original
    assert [folder for folder in fault.tests.split() if not (ROOT / folder).is_dir()] == []
    with pytest.raises(ValueError, match=f"{fault.file}: expected .* once, found it"):
        fault.plant(tmp_path)


@pytest.mark.parametrize(("text", "expected"), [(None, 1.0), ("", 1.0), ("1", 1.0), ("2.5", 2.5), ("100", 100.0)])
def test_deadlines_are_stretched_by_what_the_environment_says(text: str | None, expected: float) -> None:
    assert factor(text) == expected


@pytest.mark.parametrize("text", ["0.5", "101", "nan", "inf", "-2", "two"])
def test_a_factor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=VARIABLE):
        factor(text)
