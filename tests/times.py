"""Times of a run of the tests: the slowest files and the total at its end, and all of it as JSON with `--times FILE`.

`python -m tests.times FILE` prints such a file as the tables of docs/measurements/testing.md.

The wall clock says how long a contributor waits, and hides what runs beside it: a test that starts a worker costs the
processor twice. So each phase of a test also reports the processor time of its process and of the child processes that
ended in it, those that were forked from a server too, and how many it started. What a broker takes is in no test's
figures; it is in the processor time of the whole machine, which means something if nothing else runs on it.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

SLOWEST = 10


@dataclass
class Spent:
    """Seconds and processes, of a phase, a test, a file or a fixture."""

    tests: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    children_s: float = 0.0
    processes: int = 0
    ended_s: float = 0.0  # after the run began, of the last that was added

    def add(self, other: Spent) -> None:
        self.ended_s = max(self.ended_s, other.ended_s)
        self.tests += other.tests
        self.wall_s += other.wall_s
        self.cpu_s += other.cpu_s
        self.children_s += other.children_s
        self.processes += other.processes


@dataclass(frozen=True)
class Clock:
    """A moment, by all the clocks."""

    wall_s: float
    cpu_s: float
    children_s: float
    processes: int

    @classmethod
    def now(cls) -> Clock:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        cpu, ended = (usage.ru_utime + usage.ru_stime for usage in (own, children))
        return cls(time.monotonic(), cpu, ended + _forked_s(), _started.total())

    def until(self, later: Clock, tests: int = 0) -> Spent:
        """Return what was spent between this moment and `later`."""
        return Spent(
            tests,
            later.wall_s - self.wall_s,
            later.cpu_s - self.cpu_s,
            later.children_s - self.children_s,
            later.processes - self.processes,
        )


def _forked_s() -> float:
    """Return the processor time of the server that multiprocessing forks from, and of its children that ended."""
    if (server := forkserver._forkserver._forkserver_pid) is None:  # type: ignore[attr-defined]
        return 0.0
    try:
        return sum(psutil.Process(server).cpu_times()[:4])
    except psutil.NoSuchProcess:
        return 0.0


_started = Counter[str]()


def _count_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "tests.fork"):
        _started[event] += 1


class InProcess:
    """Measures the tests of this process, and sends what it measured with their reports."""

    def __init__(self) -> None:
        self._fixtures: dict[str, Spent] = {}
        self._began = Clock.now()
        sys.addaudithook(_count_processes)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        began = Clock.now()
        try:
            return (yield)
        finally:
            name = f"{fixturedef.argname} ({fixturedef.scope})"
            self._fixtures.setdefault(name, Spent()).add(began.until(Clock.now(), 1))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        self._began = Clock.now()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        report = yield
        ended = Clock.now()
        spent = asdict(self._began.until(ended, report.when == "call" or report.failed or report.skipped))
        report.spent = {name: value for name, value in spent.items() if name != "ended_s"}
        report.fixtures = {name: asdict(spent) for name, spent in self._fixtures.items()}
        self._began, self._fixtures = ended, {}
        return report


def busy_s() -> tuple[float, float]:
    """Return for how long the processors of this machine worked since it started, and were kept from it.

    Seconds of all of them together. A virtual machine is kept from its processors while its host gives them to others:
    it is slower then, and nothing in it is the cause.
    """
    times = psutil.cpu_times()
    stolen = getattr(times, "steal", 0.0)
    idle = times.idle + sum(getattr(times, name, 0.0) for name in ("iowait", "guest", "guest_nice"))
    return sum(times) - idle - stolen, stolen


def machine() -> str:
    """Return the number and the name of this machine's processors: what a run took is compared on equal ones."""
    name = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
    return f"{psutil.cpu_count()} x {name}"


@dataclass(eq=False)  # pluggy hashes it
class OfTheRun:
    """Adds up what the reports bring, and prints it at the end."""

    file: Path | None
    began: float = field(default_factory=time.monotonic)
    before_s: tuple[float, float] = field(default_factory=busy_s)
    tests: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    fixtures: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if spent := getattr(report, "spent", None):
            self.tests[report.nodeid].add(Spent(**spent, ended_s=time.monotonic() - self.began))
        for name, of_fixture in getattr(report, "fixtures", {}).items():
            self.fixtures[name].add(Spent(**of_fixture))

    def files(self) -> dict[str, Spent]:
        """Return what each file of tests took, the slowest first."""
        files: dict[str, Spent] = defaultdict(Spent)
        for nodeid, spent in self.tests.items():
            files[nodeid.partition("::")[0]].add(spent)
        return dict(sorted(files.items(), key=lambda item: -item[1].wall_s))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        files = self.files()
        if not files:
            return
        total = Spent()
        for spent in files.values():
            total.add(spent)
        took = time.monotonic() - self.began
        terminalreporter.section(f"slowest {SLOWEST} files")
        for name, spent in list(files.items())[:SLOWEST]:
            terminalreporter.write_line(_line(name, spent))
        terminalreporter.write_line(_line(f"all {len(files)} files", total))
        busy, stolen = (now - before for now, before in zip(busy_s(), self.before_s, strict=True))
        processors = f"all processors worked for {busy:.0f} s, and for {stolen:.0f} s their host gave them to others"
        terminalreporter.write_line(f"the run took {took:.0f} s on {machine()}; {processors}")
        if self.file:
            measured = {
                "took_s": took,
                "busy_s": busy,
                "stolen_s": stolen,
                "tests": self.tests,
                "fixtures": self.fixtures,
            }
            self.file.write_text(json.dumps(measured, default=asdict), encoding="utf-8")


def tables(measured: dict[str, Any], rows: int) -> str:
    """Return what a run took as tables of Markdown: by folder, file and fixture, dearest to the processor first."""
    tests = {nodeid: Spent(**spent) for nodeid, spent in measured["tests"].items()}
    by_folder: dict[str, Spent] = defaultdict(Spent)
    by_file: dict[str, Spent] = defaultdict(Spent)
    total = Spent()
    for nodeid, spent in tests.items():
        file = nodeid.partition("::")[0].removeprefix("tests/")
        for sums in (by_folder[file.partition("/")[0]], by_file[file], total):
            sums.add(spent)
    fixtures = {name: Spent(**spent) for name, spent in measured["fixtures"].items()}
    spent, stolen = measured["busy_s"], measured["stolen_s"]
    fields = f"The run took {measured['took_s']:.0f} s, and {spent:.0f} s of the processors"
    lines = [f"{fields}, which the host gave to others for {stolen:.0f} s.", ""]
    for head, found in (("folder", by_folder), ("file", by_file), ("fixture (scope)", fixtures)):
        lines += [f"| {head} | count | wall s | processor s | in children s | processes |", "|---|---|---|---|---|---|"]
        dearest = sorted(found.items(), key=lambda item: -(item[1].cpu_s + item[1].children_s))
        lines += [_row(name, spent) for name, spent in dearest[:rows]]
        if head != "fixture (scope)":
            lines.append(_row(f"all {len(found)}", total))
        lines.append("")
    return "\n".join(lines)


def _row(name: str, spent: Spent) -> str:
    seconds = " | ".join(f"{each:.0f}" for each in (spent.wall_s, spent.cpu_s, spent.children_s))
    return f"| {name} | {spent.tests} | {seconds} | {spent.processes} |"


def _line(name: str, spent: Spent) -> str:
    return (
        f"{spent.wall_s:7.1f} s, processor {spent.cpu_s:6.1f} s and {spent.children_s:6.1f} s in "
        f"{spent.processes:3d} child processes, {spent.tests:4d} tests  {name}"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=Path, metavar="FILE", help="write what each test and fixture took, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(OfTheRun(config.getoption("--times")), "times-of-the-run")
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.register(InProcess(), "times-in-process")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(tables(json.loads(Path(name).read_text(encoding="utf-8")), rows=15))
