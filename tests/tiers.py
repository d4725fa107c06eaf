"""The tiers of the tests, and which parts of the second one a change asks for.

`make test` is the first tier, `make check` the second, `make soak` the third. A test is in the second tier by
`@pytest.mark.check("part")`, in the third by `@pytest.mark.soak`. The second tier is divided into parts, each of which
names the paths that it depends on. `make check` writes the digest of these paths into `.ci/checked.json` for every part
that passed; `.ci/run` runs the parts whose digest is another. Part `examples` is the tests of hypothesis, which are in
the first tier too, with fewer examples.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORD = Path(".ci/checked.json")
EXAMPLES = "examples"


@dataclass(frozen=True)
class Part:
    """A part of the second tier.

    Args:
        about: what it shows.
        rooms: rooms of the package that it depends on, with spaces; None: the whole package.
        others: further paths, with spaces.
    """

    about: str
    rooms: str | None
    others: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths whose change may break it."""
        rooms = ("pipeline/adawise",) if self.rooms is None else (f"pipeline/adawise/{r}" for r in self.rooms.split())
        return (*_EVERYWHERE, *rooms, *self.others.split())


_EVERYWHERE = ("pyproject.toml", "constraints.txt", "tests/conftest.py", "tests/tiers.py", "tests/processes.py")
_STREAM = "kafka decode worker sink store build results alerts dead_letters recording"
_WORKERS = "tests/brokers.py tests/hostile.py tests/kafka tests/models.py tests/worker deploy/kafka"

PARTS: Mapping[str, Part] = {
    "chaos": Part(
        "kills, zombies and outages on three brokers, by the judge of `make chaos`",
        _STREAM,
        f"{_WORKERS} tools/chaos tests/chaos",
    ),
    "kills": Part(
        "kills beyond one at each failpoint: while results are published, while a recording is written, at any moment",
        f"{_STREAM} replay",
        f"{_WORKERS} tests/results tests/store",
    ),
    "brokers": Part(
        "brokers that are killed, frozen, of three, or of other clients: commands and workers wait and go on",
        f"{_STREAM} commands labels",
        f"{_WORKERS} tests/commands",
    ),
    "secured": Part("TLS, logins and OAuth", "kafka build", "tests/kafka tests/commands deploy/kafka"),
    "replay": Part(
        "the long equalities of a replay: rebalances, floods of names, batches of many cameras",
        f"{_STREAM} replay adapt clip",
        f"{_WORKERS} tests/replay",
    ),
    "browser": Part(
        "pages in a browser beyond one smoke test each",
        "page web live drift/page evaluate/page finetune/page",
        "tests/page tests/web tests/drift/page tests/evaluate/page",
    ),
    "models": Part(
        "training and serving of real and of unusual models: the given pair, towers of other kinds, the compiler",
        "clip adapt finetune evaluate build decode commands",
        "tests/clip tests/finetune tests/evaluate tests/real tests/gpu tests/models.py",
    ),
    "drift": Part("a fortnight of nights, one after the other", "drift labels sink alerts", "tests/drift"),
    "deploy": Part("deploy files by the tools that read them", "live", "deploy tests/deploy"),
    "tools": Part(
        "tests of tools/: bench, fuzz, method", "", "tools tests/bench tests/fuzz tests/method tests/sink/read"
    ),
    "guide": Part("the examples of CONTRIBUTING.md in a copy of the repository", None, "tests CONTRIBUTING.md"),
    EXAMPLES: Part("hypothesis with 100 examples", None, "tests"),
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


def digest(part: str, root: Path = ROOT) -> str:
    """Return a digest of the contents of all files below the paths of the part, as git has them in its index."""
    paths = PARTS[part].paths
    listed = subprocess.run(["git", "ls-files", "-s", "--", *paths], cwd=root, capture_output=True, check=True).stdout
    return hashlib.sha256(listed).hexdigest()[:16]


def is_clean(part: str, root: Path = ROOT) -> bool:
    """Return whether the files of the part are as they were committed."""
    paths = PARTS[part].paths
    found = subprocess.run(["git", "status", "--porcelain", "--", *paths], cwd=root, capture_output=True, check=True)
    return not found.stdout


def read_record(root: Path = ROOT) -> dict[str, str]:
    """Return the digest that each part last passed with."""
    file = root / RECORD
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def write_record(passed: Iterable[str], root: Path = ROOT) -> list[str]:
    """Record that these parts passed; return those that were not recorded since their files are not committed."""
    record, dirty = read_record(root), []
    for part in passed:
        if is_clean(part, root):
            record[part] = digest(part, root)
        else:
            dirty.append(part)
    kept = {part: record[part] for part in sorted(PARTS) if part in record}
    (root / RECORD).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return dirty


def changed(root: Path = ROOT) -> list[str]:
    """Return the parts whose files are not what they last passed with."""
    record = read_record(root)
    return [part for part in PARTS if record.get(part) != digest(part, root)]


def choose(asked: str) -> list[str]:
    """Return the parts that a list with commas names; `all` names every part.

    Raises:
        ValueError: there is no such part.
    """
    if asked == "all":
        return [*PARTS]
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PARTS]:
        raise ValueError(f"there is no part {unknown[0]!r} of the second tier; there are {', '.join(PARTS)}")
    return names


class Recorder:
    """Record the parts that passed in this run, where all tests of the parts that were asked for were run.

    A part of which a test was skipped is not recorded: what it needs was not there.
    """

    def __init__(self, chosen: Iterable[str], root: Path = ROOT) -> None:
        self._chosen, self._root = tuple(chosen), root
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the report for each part of its test."""
        for part in getattr(report, "parts", ()):
            if report.when == "call" or report.outcome != "passed":
                self._outcomes[part][report.outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the record, and say what is not in it and why."""
        passed = []
        terminalreporter.section("second tier")
        for part in self._chosen:
            found = self._outcomes[part]
            if found["passed"] and not found["failed"] and not found["skipped"]:
                passed.append(part)
            counts = ", ".join(f"{found[name]} {name}" for name in ("passed", "failed", "skipped") if found[name])
            terminalreporter.write_line(f"{part}: {counts or 'no test'}  ({PARTS[part].about})")
        if dirty := write_record(passed, self._root):
            terminalreporter.write_line(f"not recorded, for files are not committed: {', '.join(dirty)}")
        if missed := [part for part in self._chosen if part not in passed]:
            terminalreporter.write_line(f"not recorded, for not all of it passed: {', '.join(missed)}")


if __name__ == "__main__":
    print(",".join(changed()))
