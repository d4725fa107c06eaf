"""The tiers of the tests, and which parts of the second one a change asks for.

`make test` is the first tier, `make check` the second, `make soak` the third. A test is in the second tier by
`@pytest.mark.check("part")`, in the third by `@pytest.mark.soak`. The second tier is divided into parts, each of which
names the paths that it depends on. `make check` writes the digest of the files there into `.ci/checked.json` for every
part that passed; `.ci/run` runs the parts whose digest is another. Part `examples` is the tests of hypothesis, which
are in the first tier too, with fewer examples.
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
_HELPERS = " ".join(
    f"tests/{name}.py" for name in ("brokers", "deadlines", "dying", "fakes", "hostile", "models", "preloaded", "told")
)
_WORKERS = f"{_HELPERS} tests/kafka tests/worker tests/sink tests/store tests/replay deploy/kafka"

PARTS: Mapping[str, Part] = {
    "chaos": Part(
        "kills, zombies and outages on three brokers, by the judge of `make chaos`",
        None,
        f"{_WORKERS} tools/chaos tests/chaos",
    ),
    "kills": Part(
        "kills beyond one at each failpoint: while results are published, while a recording is written, at any moment",
        None,
        f"{_WORKERS} tests/results",
    ),
    "brokers": Part(
        "brokers that are killed, frozen, of three, or of other clients: commands and workers wait and go on",
        None,
        f"{_WORKERS} tests/commands tests/dead_letters",
    ),
    "secured": Part("TLS, logins and OAuth", None, f"{_WORKERS} tests/commands"),
    "replay": Part(
        "the long equalities of a replay: rebalances, floods of names, batches of many cameras", None, _WORKERS
    ),
    "browser": Part(
        "pages in a browser beyond one smoke test each",
        None,
        "tests/deadlines.py tests/page tests/web tests/drift tests/evaluate",
    ),
    "models": Part(
        "training and serving of unusual models: towers of other kinds, the compiler",
        None,
        f"{_HELPERS} tests/clip tests/finetune tests/evaluate tests/gpu tests/replay",
    ),
    "real": Part(
        "the given pair and photographs of shared/data, where they are",
        None,
        f"{_HELPERS} tests/real tests/finetune tests/evaluate",
    ),
    "drift": Part("a fortnight of nights, one after the other", None, "tests/drift tests/deadlines.py tools/drift"),
    "deploy": Part("deploy files by the tools that read them", "live", "deploy tests/deploy tests/deadlines.py"),
    "tools": Part(
        "tests of tools/: bench, fuzz, method", None, f"{_HELPERS} tools tests/bench tests/fuzz tests/method tests/sink"
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
    """Return a digest of all files below the paths of the part as they are now, those that git ignores left out."""
    found = hashlib.sha256()
    call = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PARTS[part].paths]
    names = subprocess.run(call, cwd=root, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in sorted({name for name in names if name and (root / name).is_file()}):
        found.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return found.hexdigest()[:16]


def read_record(root: Path = ROOT) -> dict[str, str]:
    """Return the digest that each part last passed with."""
    file = root / RECORD
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def write_record(passed: Mapping[str, str], root: Path = ROOT) -> None:
    """Record the digests that these parts passed with."""
    record = {**read_record(root), **passed}
    kept = {part: record[part] for part in sorted(PARTS) if part in record}
    (root / RECORD).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


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
    """Record the parts that passed, with the digest of their files when the run began.

    Nothing is recorded of a run in which anything failed, or that was interrupted. A part of which a test was skipped
    is not recorded either, for what it needs was not there; nor one whose files were changed meanwhile.
    """

    def __init__(self, chosen: Iterable[str], root: Path = ROOT) -> None:
        self._began = {part: digest(part, root) for part in chosen}
        self._root = root
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the report for each part of its test."""
        for part in getattr(report, "parts", ()):
            if report.when == "call" or report.outcome != "passed":
                self._outcomes[part][report.outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Write the record, and say what is not in it and why."""
        passed: dict[str, str] = {}
        terminalreporter.section("second tier")
        for part, began in self._began.items():
            found = self._outcomes[part]
            counts = ", ".join(f"{found[name]} {name}" for name in ("passed", "failed", "skipped") if found[name])
            if exitstatus != pytest.ExitCode.OK:
                why = "not recorded: this run did not pass"
            elif not found["passed"] or found["skipped"]:
                why = "not recorded: not all of it was run"
            elif digest(part, self._root) != began:
                why = "not recorded: its files were changed meanwhile"
            else:
                passed[part], why = began, "recorded"
            terminalreporter.write_line(f"{part}: {counts or 'no test'}; {why}  ({PARTS[part].about})")
        if passed:
            write_record(passed, self._root)


if __name__ == "__main__":
    print(",".join(changed()))
