"""The second tier: its parts, what is recorded of them, and which of them a change asks for."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from _pytest.config.argparsing import Parser

from tests import tiers
from tests.conftest import pytest_addoption
from tests.deadlines import VARIABLE, factor
from tests.tiers import (
    PARTS,
    RECORD,
    ROOT,
    Recorder,
    changed,
    choose,
    digest,
    imported,
    other_options,
    read_record,
    without_git,
    write_record,
)
from tools.faults import FAULTS


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one file in the room `live` and one in `tools`."""
    for name in ("pipeline/adawise/watch/state.py", "tools/bench/a.py", ".ci/run"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, env=without_git(os.environ), check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "change")


def test_a_part_that_passed_is_asked_for_again_once_a_file_of_its_paths_changes(repository: Path) -> None:
    assert changed(repository) == [*PARTS]
    write_record({part: digest(part, repository) for part in PARTS}, repository)
    assert changed(repository) == []
    (repository / "tools/bench/a.py").write_text("second\n", encoding="utf-8")
    assert changed(repository) == ["tools", "guide", "examples"], "committed or not"
    commit(repository)
    assert changed(repository) == ["tools", "guide", "examples"]
    (repository / "deploy").mkdir()
    (repository / "deploy/new.yml").write_text("new\n", encoding="utf-8")
    assert changed(repository) == ["deploy", "tools", "guide", "examples"], "known to git or not"
    (repository / ".gitignore").write_text("*.pyc\n", encoding="utf-8")
    (repository / "tools/bench/a.pyc").write_text("", encoding="utf-8")
    (repository / "tools/bench/a.py").write_text("first\n", encoding="utf-8")
    (repository / "deploy/new.yml").unlink()
    assert changed(repository) == []


def test_one_case_in_some_stays_in_the_first_tier() -> None:
    class Item:
        """A test as pytest collects it, with what `divide_cases` uses of it."""

        def __init__(self, test: str, *marks: pytest.Mark) -> None:
            self.nodeid, self.marks = test, [*marks]

        def get_closest_marker(self, name: str) -> pytest.Mark | None:
            return next((mark for mark in self.marks if mark.name == name), None)

        def add_marker(self, mark: pytest.MarkDecorator) -> None:
            self.marks.append(mark.mark)

    divided = pytest.mark.cases("kills", every=3).mark
    items = [Item(f"{test}[{case}]", divided) for case in range(9) for test in ("a.py::one", "a.py::two")]
    items += [Item("a.py::one[late]", pytest.mark.soak.mark, divided), Item("a.py::plain[0]")]
    tiers.divide_cases(cast("list[pytest.Item]", items))
    left = {item.nodeid: mark.args for item in items if (mark := item.get_closest_marker("check"))}
    cases = [f"{test}[{case}]" for case in (1, 2, 3, 4, 6, 8) for test in ("a.py::one", "a.py::two")]
    assert left == dict.fromkeys(cases, ("kills",))


@pytest.mark.parametrize("part", [part for part in PARTS if PARTS[part].rooms is None])
def test_a_change_anywhere_in_the_package_asks_for_a_part_that_runs_the_program(repository: Path, part: str) -> None:
    before = digest(part, repository)
    (repository / "pipeline/adawise/new.py").write_text("new\n", encoding="utf-8")
    assert digest(part, repository) != before


def test_parts_of_former_records_that_there_are_no_more_are_dropped(repository: Path) -> None:
    (repository / RECORD).write_text('{"gone": "0", "deploy": "1"}', encoding="utf-8")
    write_record({"tools": "2"}, repository)
    assert read_record(repository) == {"deploy": "1", "tools": "2"}


class Reported:
    """Lines that a recorder writes, in place of pytest's terminal."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def recorded(
    repository: Path,
    chosen: list[str],
    *outcomes: tuple[str, str, str],
    code: int = 0,
    change: str = "",
    others: Sequence[str] = (),
    lacks: Sequence[str] = (),
) -> list[str]:
    """Return what a recorder says once reports of (part, phase, outcome) came, and the run ended with the code."""
    recorder, terminal = Recorder(chosen, repository, others), Reported()
    for part, when, outcome in outcomes:
        report: Any = pytest.TestReport("a", ("a", 1, "a"), {}, cast("Any", outcome), None, cast("Any", when))
        report.parts, report.broker_lacks = [part], lacks
        recorder.pytest_runtest_logreport(report)
    if change:
        (repository / change).write_text("changed meanwhile\n", encoding="utf-8")
    recorder.pytest_terminal_summary(cast("Any", terminal), code)
    return terminal.lines


PASSED = (("tools", "setup", "passed"), ("tools", "call", "passed"), ("tools", "teardown", "passed"))


def test_a_part_is_recorded_if_all_of_its_tests_passed(repository: Path) -> None:
    lines = recorded(repository, ["tools", "browser", "guide"], *PASSED, ("browser", "setup", "skipped"))
    assert read_record(repository) == {"tools": digest("tools", repository)}
    assert [line.partition("  (")[0] for line in lines[1:]] == [
        "tools: 1 passed; recorded",
        "browser: 1 skipped; not recorded: not all of it was run",
        "guide: no test; not recorded: not all of it was run",
    ]


@pytest.mark.parametrize("code", [code for code in pytest.ExitCode if code != pytest.ExitCode.OK])
def test_nothing_is_recorded_of_a_run_that_did_not_pass(repository: Path, code: int) -> None:
    lines = recorded(repository, ["tools"], *PASSED, code=code)
    assert lines[-1].startswith("tools: 1 passed; not recorded: this run did not pass")
    assert not (repository / RECORD).exists()


def test_a_part_whose_files_were_changed_while_its_tests_ran_is_not_recorded(repository: Path) -> None:
    lines = recorded(repository, ["tools"], *PASSED, change="tools/bench/a.py")
    assert lines[-1].startswith("tools: 1 passed; not recorded: its files were changed meanwhile")
    assert not (repository / RECORD).exists()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_is_understood_on_the_command_line_of_make_check(part: str) -> None:
    """Some are called as a folder is, which pytest would take for a path without the sign of equality."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert '--parts="$$parts"' in recipe
    parser = Parser(_ispytest=True)
    pytest_addoption(parser)
    known, rest = parser.parse_known_and_unknown_args([f"--parts={part}"])
    assert (known.parts, rest) == (part, [])


MAKE_CHECK = ["-n", "3", "--dist", "loadfile", "--hypothesis-profile", "check", "--parts=kills,real"]


def test_a_run_of_make_check_records_and_one_that_may_leave_something_out_does_not() -> None:
    assert other_options(MAKE_CHECK, {}) == []
    assert other_options(MAKE_CHECK, {"PYTEST_ADDOPTS": "--times=/tmp/a.times -q"}) == []
    for option in ("-kfast", "--deselect=a", "-otestpaths=tests/store", "--sw-skip", "-pno:xdist", "-m", "tests/store"):
        assert other_options([*MAKE_CHECK, option], {}) == [option]
        assert other_options(MAKE_CHECK, {"PYTEST_ADDOPTS": option}) == [option]
    assert other_options(["--parts=examples"], {}) == ["no --hypothesis-profile check"]


def test_nothing_is_recorded_of_a_run_with_other_options(repository: Path) -> None:
    lines = recorded(repository, ["tools"], *PASSED, others=["-k", "fast"])
    assert lines[-1].startswith("tools: 1 passed; not recorded: `make check` does not ask -k fast")
    assert not (repository / RECORD).exists()


def test_a_part_that_ran_on_a_broker_which_cannot_do_everything_is_not_recorded(repository: Path) -> None:
    lines = recorded(repository, ["tools"], *PASSED, lacks=["end_offsets"])
    assert lines[-1].startswith("tools: 1 passed; not recorded: the broker cannot do end_offsets")
    assert not (repository / RECORD).exists()


@pytest.mark.parametrize("content", ["", "{", "<<<<<<< ours", "[]", "null"])
def test_a_record_that_cannot_be_read_says_nothing_of_any_part(repository: Path, content: str) -> None:
    (repository / RECORD).write_text(content, encoding="utf-8")
    assert changed(repository) == [*PARTS]


def test_records_that_are_written_at_once_are_both_kept(repository: Path) -> None:
    for _ in range(20):
        (repository / RECORD).unlink(missing_ok=True)
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda part: write_record({part: "1"}, repository), ["tools", "deploy"]))
        assert read_record(repository) == {"deploy": "1", "tools": "1"}


def test_a_part_depends_on_what_its_tests_import(repository: Path) -> None:
    write = {
        "tests/a/test_a.py": 'from tests.b import c\n@pytest.mark.check("kills")\ndef test_a(): ...\n',
        "tests/a/conftest.py": "import tools.d\n",
        "tests/b/__init__.py": "",
        "tests/b/c.py": 'PLUGIN = "tests.e"\n',
        "tests/e.py": "",
        "tests/f.py": "",
        "tests/data.json": "{}",
        "tools/d.py": "",
    }
    for name, text in write.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text, encoding="utf-8")
    for name in write:
        before = digest("kills", repository)
        (repository / name).write_text(f"{write[name]} ", encoding="utf-8")
        assert (digest("kills", repository) == before) is (name == "tests/f.py")
    (repository / "tests/e.py").chmod(0o755)
    assert digest("kills", repository) != before


def test_what_the_server_of_each_process_loads_is_a_dependency_of_who_forks_from_it() -> None:
    assert {"tests/preloaded.py", "tests/worker/process.py"} <= {*imported("kills")}
    assert "tests/worker/process.py" not in imported("drift")


def test_parts_are_asked_for_by_name() -> None:
    assert choose("tools, deploy") == ["tools", "deploy"]
    assert choose("all") == [*PARTS]
    with pytest.raises(ValueError, match=r"no part 'tool' of the second tier; there are chaos, kills"):
        choose("tool")
    with pytest.raises(ValueError, match="no part of the second tier is named"):
        choose(" ,")


def test_the_repository_of_a_hook_or_a_rebase_is_none_of_the_tests(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert changed(repository) == [*PARTS]
    (repository / "new").write_text("new\n", encoding="utf-8")
    commit(repository)
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "index").exists()


def test_what_changed_is_not_known_without_git_and_that_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"what changed is asked of git, which says: .*not a git repository"):
        changed(tmp_path)


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
    copy = tmp_path / "pipeline" / fault.file
    copy.parent.mkdir(parents=True)
    original = (ROOT / "pipeline" / fault.file).read_text(encoding="utf-8")
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
