"""The tiers of the tests, and which parts of the second one a change asks for.

`make test` is the first tier, `make check` the second, `make soak` the third. A test is in the second tier by
`@pytest.mark.check("part")`, in the third by `@pytest.mark.soak`; of a test with `@pytest.mark.cases("part", every=5)`
one case in five is in the first tier, and the others are in the second. The second tier is divided into parts. `make
check` writes a digest of what each part depends on into `.ci/checked.json` for every part that passed; `.ci/run` runs
the parts whose digest is another. Part `examples` is the tests of hypothesis, which are in the first tier too, with
fewer examples.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORD = Path(".ci/checked.json")
EXAMPLES = "examples"


@dataclass(frozen=True)
class Part:
    """A part of the second tier.

    It also depends on its tests, on the modules of `tests` and `tools` that these import, and on what is not Python
    below `tests`.

    Args:
        about: what it shows.
        rooms: folders of `pipeline` that it depends on, with spaces; None: all of it.
        others: further paths, with spaces.
    """

    about: str
    rooms: str | None = None
    others: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths whose change may break it, beside the files that its tests import."""
        rooms = ("pipeline",) if self.rooms is None else (f"pipeline/{room}" for room in self.rooms.split())
        return (*_EVERYWHERE, *rooms, *self.others.split())


_EVERYWHERE = (
    *(
        "pyproject.toml",
        "constraints.txt",
        "Makefile",
        ".ci/run",
        "deploy/kafka",
        "tests/conftest.py",
        "tests/tiers.py",
    ),
)

PARTS: Mapping[str, Part] = {
    "chaos": Part("kills, zombies and outages on three brokers, by the judge of `make chaos`", others="tools/chaos"),
    "kills": Part(
        "kills beyond one at each failpoint: while results are published, while a recording is written, at any moment"
    ),
    "worker": Part("whole runs of workers: joins, other class lists, full disks, rewritten logs"),
    "search": Part("long streams under the search"),
    "brokers": Part("brokers that are killed, frozen, of three, or of other clients: commands and workers wait"),
    "secured": Part("TLS, logins and OAuth", others="docs/guide/security.md"),
    "replay": Part("the long equalities of a replay: rebalances, floods of names, batches of many cameras"),
    "browser": Part("pages in a browser beyond one smoke test each"),
    "models": Part("training and serving of unusual models: towers of other kinds, the compiler"),
    "real": Part("the given pair and photographs of shared/data, where they are"),
    "damage": Part("any file of a root damaged under any command; any call of the worker's ports failed"),
    "drift": Part("a fortnight of nights, one after the other", rooms="adawise adawise_drift"),
    "lab": Part("whole runs of fine-tuning, evaluation and cards", rooms="adawise adawise_lab"),
    "deploy": Part("deploy files and alerts by the tools that read them", rooms="adawise", others="deploy"),
    "tools": Part("tests of tools/: bench, fuzz, method", others="tools"),
    "guide": Part("the examples of CONTRIBUTING.md in a copy of the repository", others="tests tools CONTRIBUTING.md"),
    EXAMPLES: Part("hypothesis with 100 examples", others="tests tools"),
}


def parts_of(item: pytest.Item) -> set[str]:
    """Return the parts that a test belongs to; none if it is of the first or of the third tier alone.

    Raises:
        ValueError: it is marked as of a part that there is not.
    """
    named = {str(mark.args[0]) for mark in item.iter_markers("check")}
    if unknown := named - PARTS.keys():
        raise ValueError(f"{item.nodeid} is marked as of part {unknown.pop()!r}; there are {', '.join(PARTS)}")
    if item.get_closest_marker("soak"):
        return set()
    return named | {EXAMPLES} if item.get_closest_marker(EXAMPLES) else named


def divide_cases(items: Iterable[pytest.Item]) -> None:
    """Mark for the second tier what `@pytest.mark.cases` leaves out of the first: all but one in `every` cases."""
    seen: Counter[str] = Counter()
    for item in items:
        is_later = item.get_closest_marker("check") or item.get_closest_marker("soak")
        if (mark := item.get_closest_marker("cases")) and not is_later:
            test = item.nodeid.partition("[")[0]
            # Shifted by one from round to round, so that a parameter with `every` values keeps them all.
            every = int(mark.kwargs["every"])
            if (seen[test] + seen[test] // every) % every:
                item.add_marker(pytest.mark.check(*mark.args))
            seen[test] += 1


def digest(part: str, root: Path = ROOT) -> str:
    """Return a digest of what the part depends on, of the files as they are now, those that git ignores left out."""
    found = hashlib.sha256()
    paths = [*PARTS[part].paths, *imported(part, root)]
    known = _listed(root, *paths) | {name for name in _listed(root, "tests") if not name.endswith(".py")}
    for name in sorted(known):
        file = root / name
        found.update(f"{name}\0{file.stat().st_mode & 0o111:o}\0".encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]


def without_git(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which git knows the repository by its folder, and ignores and signs nothing more."""
    kept = {name: value for name, value in environment.items() if not name.startswith("GIT_")}
    settings = {"core.excludesFile": os.devnull, "commit.gpgSign": "false"}
    for number, (key, value) in enumerate(settings.items()):
        kept |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {**kept, "GIT_CONFIG_COUNT": str(len(settings))}


def _listed(root: Path, *paths: str) -> set[str]:
    call = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    try:
        done = subprocess.run(call, cwd=root, env=without_git(os.environ), capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        found = getattr(error, "stderr", None) or error
        raise ValueError(f"{root}: what changed is asked of git, which says: {str(found).strip()[:300]}") from error
    names = done.stdout.split("\0")
    return {name for name in names if name and (root / name).is_file()}


def imported(part: str, root: Path = ROOT) -> list[str]:
    """Return the tests of a part, and all modules of `tests`, `tools` and `deploy` that they import, as paths."""
    mark = re.compile(rf'mark\.(?:check|cases)\("{part}"')
    files = [file for file in (root / "tests").rglob("test_*.py") if mark.search(file.read_text(encoding="utf-8"))]
    waiting = [*files, *(folder / "conftest.py" for file in files for folder in file.parents)]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file() or root not in file.parents:
            continue
        found.add(file)
        waiting += _imports(file, root)
        if file == root / "tests/processes.py":  # the server of each process loads these
            waiting += [root / "tests/preloaded.py", root / "tests/worker/process.py"]
    return sorted(file.relative_to(root).as_posix() for file in found)


@cache
def _imports(file: Path, root: Path) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE.fullmatch(node.value):
            names.add(node.value)  # a plugin, or what `python -m` runs
    ours = [root.joinpath(*name.split(".")) for name in names if name.partition(".")[0] in {"tests", "tools", "deploy"}]
    folders = {root / name for name in ("tests", "tools", "deploy")}
    parents = {folder for path in ours for folder in path.parents if folder in folders or folders & {*folder.parents}}
    packages = [path / "__init__.py" for path in {*ours, *parents}]
    return [path for path in [*(path.with_suffix(".py") for path in ours), *packages] if path.is_file()]


_MODULE = re.compile(r"(?:tests|tools)(?:\.[a-z_0-9]+)+")


def read_record(root: Path = ROOT) -> dict[str, str]:
    """Return the digest that each part last passed with. One that cannot be read says nothing of any."""
    file = root / RECORD
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(part): str(known) for part, known in found.items()} if isinstance(found, dict) else {}


def write_record(passed: Mapping[str, str], root: Path = ROOT) -> None:
    """Record the digests that these parts passed with."""
    with _alone(root / RECORD.parent):
        record = {**read_record(root), **passed}
        kept = {part: record[part] for part in sorted(PARTS) if part in record}
        written = root / RECORD.with_suffix(".new")
        written.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        os.replace(written, root / RECORD)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def changed(root: Path = ROOT) -> list[str]:
    """Return the parts whose files are not what they last passed with."""
    record = read_record(root)
    return [part for part in PARTS if record.get(part) != digest(part, root)]


def choose(requests: str) -> list[str]:
    """Return the parts that a list with commas names; `all` names every part.

    Raises:
        ValueError: there is no such part.
    """
    if requests == "all":
        return [*PARTS]
    names = [name.strip() for name in requests.split(",") if name.strip()]
    if not names:
        raise ValueError(f"no part of the second tier is named; there are {', '.join(PARTS)}, and all")
    if unknown := [name for name in names if name not in PARTS]:
        raise ValueError(f"there is no part {unknown[0]!r} of the second tier; there are {', '.join(PARTS)}, and all")
    return names


_HARMLESS = re.compile(
    r"-n=?[0-9]*|[0-9]+|--dist|loadfile|--max-worker-restart|--hypothesis-profile|check|--parts=[a-z,]+|-v|-q|--times=.+"
)


def other_options(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the options of a run that `make check` does not have: it may have left tests or examples out."""
    given = [*arguments, *shlex.split(environment.get("PYTEST_ADDOPTS", ""))]
    others = [option for option in given if not _HARMLESS.fullmatch(option)]
    return others if "check" in given else [*others, "no --hypothesis-profile check"]


class Recorder:
    """Record the parts that passed, with the digest of what they depended on when the run began.

    Nothing is recorded of a run in which anything failed, that was interrupted, or that was asked otherwise than by
    `make check`. A part of which a test was skipped, or ran on a broker that cannot do everything, is not recorded
    either: what it needs was not there; nor one whose files were changed meanwhile.

    Args:
        chosen: the parts of this run.
        others: what it was asked beside, as `other_options` has it.
    """

    def __init__(self, chosen: Iterable[str], root: Path = ROOT, others: Sequence[str] = ()) -> None:
        self._began = {part: digest(part, root) for part in chosen}
        self._root, self._others = root, others
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self._lacks: dict[str, set[str]] = defaultdict(set)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that skips itself as a whole: of which parts its tests are is not known."""
        if report.skipped:
            self._others = [*self._others, f"the skip of {report.nodeid}"]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the report for each part of its test."""
        for part in getattr(report, "parts", ()):
            self._lacks[part] |= {*getattr(report, "broker_lacks", ())}
            if report.when == "call" or report.outcome != "passed":
                self._outcomes[part][report.outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Write the record, and report what is not in it and why."""
        passed: dict[str, str] = {}
        terminalreporter.section("second tier")
        for part, began in self._began.items():
            found = self._outcomes[part]
            counts = ", ".join(f"{found[name]} {name}" for name in ("passed", "failed", "skipped") if found[name])
            if exitstatus != pytest.ExitCode.OK:
                why = "not recorded: this run did not pass"
            elif self._others:
                why = f"not recorded: `make check` does not ask {' '.join(self._others)}"
            elif not found["passed"] or found["skipped"]:
                why = "not recorded: not all of it was run"
            elif lacks := self._lacks[part]:
                why = f"not recorded: the broker cannot do {', '.join(sorted(lacks))}"
            elif digest(part, self._root) != began:
                why = "not recorded: its files were changed meanwhile"
            else:
                passed[part], why = began, "recorded"
            terminalreporter.write_line(f"{part}: {counts or 'no test'}; {why}  ({PARTS[part].about})")
        if passed:
            write_record(passed, self._root)


if __name__ == "__main__":
    try:
        print(",".join(changed()))
    except ValueError as error:
        sys.exit(f"{error}\n`make check` runs all parts without git")
