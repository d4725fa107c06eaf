"""Plant faults against guarantees, and report which tier of the tests finds each, which test, and after how long.

    python -m tools.faults [--times test.json] [--check-times check.json] [NAME ...]

Each fault makes one line of the program wrong, in a copy of the last commit. The tests that concern it run there in the
order of a whole run, until one fails: those of the first tier, then those of the second. What fails is run again
without the fault, where it must pass. `--times` takes what `pytest --times FILE` wrote in a whole run of `make test`,
`--check-times` of `make check`: a fault is found when the test that it breaks ends in that run. The exit code is 1 if a
fault is not found, or if its test fails without it as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

ROOT = Path(__file__).parent.parent
TIERS = {"test": ("-m", "not soak and not check"), "check": ("--parts=all", "--hypothesis-profile", "check")}


@dataclass(frozen=True)
class PlantedFault:
    """A line that is made wrong.

    Args:
        breaks: the guarantee that does not hold any more.
        file: of the package.
        old: what stands there once.
        new: what is put in its place.
        tests: folders of tests that it is looked for in, with spaces.
    """

    breaks: str
    file: str
    old: str
    new: str
    tests: str

    def plant(self, root: Path) -> None:
        """Change the file below `root`. Raises ValueError unless `old` is there exactly once."""
        path = root / "pipeline" / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: expected {self.old!r} once, found it {count} times: write the fault anew")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


FAULTS: Mapping[str, PlantedFault] = {
    "exactly-once": PlantedFault(
        "each image once, whatever failpoint a worker is killed at: a worker that goes on from another's segment "
        "does not write the traces that are missing beside it",
        "adawise/sink/chain.py",
        "        segment.check_pages(data, key)\n        columns.write_traces(self._store, footer, key)\n",
        "        segment.check_pages(data, key)\n",
        "tests/worker tests/sink tests/replay tests/chaos",
    ),
    "replay": PlantedFault(
        "a replay equals the live run: a recording gives the broker's timestamps back to the second only",
        "adawise/recording/format.py",
        'timestamp_ms = stated_ms(cells.pop("timestamp_ms"))',
        'timestamp_ms = stated_ms(cells.pop("timestamp_ms") // 1000 * 1000)',
        "tests/replay tests/worker tests/recording",
    ),
    "codecs": PlantedFault(
        "what any client compresses is read: streams of snappy that follow each other",
        "adawise/kafka/batches.py",
        "            position += _FRAME_BYTES\n            continue\n",
        "            position += _FRAME_BYTES\n            break\n",
        "tests/kafka tests/contracts tests/worker",
    ),
    "bombs": PlantedFault(
        "an image of too many pixels is refused by its header",
        "adawise/decode/codec.py",
        "if width * height > max_pixels:",
        "if width > max_pixels:",
        "tests/decode tests/worker tests/fuzz",
    ),
    "owner": PlantedFault(
        "a root belongs to one group: another one is let in",
        "adawise/sink/owner.py",
        "same = (self.topic, self.group, self.purpose) == (other.topic, other.group, other.purpose)",
        "same = (self.topic, self.purpose) == (other.topic, other.purpose)",
        "tests/sink tests/worker tests/cli",
    ),
    "least-rights": PlantedFault(
        "a right that the worker lacks is named before its first record: nobody looks whether a topic may be written",
        "adawise/kafka/own_topic.py",
        "            self._expect_right(admin, topic)\n",
        "",
        "tests/kafka tests/worker tests/cli",
    ),
    "outbox-order": PlantedFault(
        "results of a camera are in order, also after a send that failed",
        "adawise/publish/outbox.py",
        "failed = each.has_failed or (failed and self._in_order)",
        "failed = each.has_failed",
        "tests/kafka tests/publish/results tests/publish/dead_letters",
    ),
    "retention": PlantedFault(
        "retention removes nothing of the day that is kept",
        "adawise/output/compaction/retain.py",
        "        if cover.day >= before.isoformat():\n",
        "        if cover.day > before.isoformat():\n",
        "tests/output tests/cli",
    ),
    "pair-switch": PlantedFault(
        "a pair that is switched to without its predecessor's states begins without them",
        "adawise/worker/partition.py",
        "self._streams.go_on_with(turn.serving.adaptation.strategy.initial, keeps_states=turn.keeps)",
        "self._streams.go_on_with(turn.serving.adaptation.strategy.initial, keeps_states=True)",
        "tests/pairs tests/worker tests/cli",
    ),
    "results": PlantedFault(
        "every row was published before its segment is committed: acknowledgements are not waited for",
        "adawise/worker/commit.py",
        "if not (self._publish_results(work, wait=wait) and self._results.settled(wait=wait)):",
        "if not self._publish_results(work, wait=wait):",
        "tests/publish/results tests/worker",
    ),
}


@contextmanager
def copied(fault: PlantedFault | None) -> Iterator[Path]:
    """Yield a copy of the last commit, with the fault in it."""
    with tempfile.TemporaryDirectory(prefix="adawise-fault-") as name:
        copy = Path(name) / "copy"
        subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, copy], check=True)
        for ignored in ("deploy/kafka/libs", "deploy/kafka/target"):
            if (ROOT / ignored).exists():
                (copy / ignored).symlink_to(ROOT / ignored)
        if fault:
            fault.plant(copy)
        yield copy


def failing(copy: Path, tests: Iterable[str], options: Iterable[str]) -> list[str]:
    """Run these tests in the copy until one fails, and return the ids of those that failed.

    Raises:
        RuntimeError: pytest could not run them.
    """
    # --no-loadscope-reorder: files start in the order that they are named in
    order = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-x"]
    call = [sys.executable, "-m", "pytest", "-q", "-rfE", *order, *options, *tests]
    paths = os.pathsep.join([str(copy / "pipeline"), str(copy)])
    done = subprocess.run(call, cwd=copy, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    # 2: interrupted by -x, 5: nothing was chosen
    if done.returncode not in (0, 1, 2, 5) or "error during collection" in done.stdout:
        raise RuntimeError(f"the tests could not be run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return [line.split(" - ")[0] for line in re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)]


def in_order(fault: PlantedFault, ended: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the test files that concern the fault, by when their first test ended; files without a time are last."""
    first: dict[str, float] = {}
    for test, spent in ended.items():
        file = test.partition("::")[0]
        first[file] = min(first.get(file, inf), spent["ended_s"])
    found = [path for folder in fault.tests.split() for path in (ROOT / folder).rglob("test_*.py")]
    names = sorted(path.relative_to(ROOT).as_posix() for path in found)
    return sorted(names, key=lambda name: first.get(name, inf))


def row(name: str, times: Mapping[str, Mapping[str, Mapping[str, float]]]) -> tuple[str, bool]:
    """Plant a fault, look for it, and return a row of the table and whether it was found."""
    fault = FAULTS[name]
    with copied(fault) as copy:
        for tier, options in TIERS.items():
            ended = times.get(tier, {})
            if found := failing(copy, in_order(fault, ended), options):
                break
        else:
            return f"| {name}: {fault.breaks} | **none** | | |", False
    with copied(None) as copy:
        if also := failing(copy, found, options):
            return f"| {name}: {fault.breaks} | fails without the fault too | `{also[0]}` | |", False
    moments = sorted((ended[test]["ended_s"], test) for test in found if test in ended)
    first, when = (moments[0][1], f"{moments[0][0] / 60.0:.1f} min") if moments else (found[0], "")
    return f"| {name}: {fault.breaks} | {tier} | `{first}` | {when} |", True


def main() -> int:
    """Plant the faults, and print a row of a table for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which faults: {', '.join(FAULTS)}; all if none")
    parser.add_argument("--times", type=Path, metavar="FILE", help="of a whole run of the first tier")
    parser.add_argument("--check-times", type=Path, metavar="FILE", help="of a whole run of the second tier")
    requested = parser.parse_args()
    if unknown := [name for name in requested.names if name not in FAULTS]:
        parser.error(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    files = {"test": requested.times, "check": requested.check_times}
    times = {tier: json.loads(file.read_text(encoding="utf-8"))["tests"] for tier, file in files.items() if file}
    print("| guarantee | tier | the first test that fails | found after |\n|---|---|---|---|", flush=True)
    found = True
    for name in requested.names or FAULTS:
        line, is_found = row(name, times)
        found = found and is_found
        print(line, flush=True)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
