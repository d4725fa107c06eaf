"""Plant faults against guarantees, and say which tier of the tests finds each, by which test and how soon.

    python -m tools.faults --times times.json [NAME ...]

Each fault is one line of the program that is made wrong in a copy of the last commit. The tests of the rooms that it
concerns are run there: those of the first tier, and if they find nothing those of the second. `--times` is what
`pytest --times FILE` wrote in a whole run of `make test`: a fault is found when the first of the tests that it breaks
ends there. The exit code is 1 if a fault is not found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
        tests: where it is looked for, with spaces.
    """

    breaks: str
    file: str
    old: str
    new: str
    tests: str

    def plant(self, root: Path) -> None:
        """Change the file below `root`. Raises ValueError unless `old` is there exactly once."""
        path = root / "pipeline" / "adawise" / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: expected {self.old!r} once, found it {count} times: write the fault anew")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


FAULTS: Mapping[str, PlantedFault] = {
    "exactly-once": PlantedFault(
        "each image once, whatever failpoint a worker is killed at: a worker that goes on from another's segment "
        "does not write the traces that are missing beside it",
        "sink/chain.py",
        "        segment.check_pages(data, key)\n        traces.write(self._store, footer, key)\n",
        "        segment.check_pages(data, key)\n",
        "tests/worker tests/sink tests/replay tests/chaos",
    ),
    "replay": PlantedFault(
        "a replay equals the live run: a recording gives the broker's timestamps back to the second only",
        "recording/format.py",
        'timestamp_ms = stated_ms(cells.pop("timestamp_ms"))',
        'timestamp_ms = stated_ms(cells.pop("timestamp_ms") // 1000 * 1000)',
        "tests/replay tests/worker tests/recording",
    ),
    "codecs": PlantedFault(
        "what any client compresses is read: streams of snappy that follow each other",
        "kafka/unpack.py",
        "            position += _FRAME_BYTES\n            continue\n",
        "            position += _FRAME_BYTES\n            break\n",
        "tests/kafka tests/contracts tests/worker",
    ),
    "bombs": PlantedFault(
        "an image of too many pixels is refused by its header",
        "decode/codec.py",
        "if width * height > max_pixels:",
        "if width > max_pixels:",
        "tests/decode tests/worker tests/fuzz",
    ),
    "owner": PlantedFault(
        "a root belongs to one group: another one is let in",
        "sink/owner.py",
        "same = (self.topic, self.group, self.purpose) == (other.topic, other.group, other.purpose)",
        "same = (self.topic, self.purpose) == (other.topic, other.purpose)",
        "tests/sink tests/worker tests/commands",
    ),
    "least-rights": PlantedFault(
        "a right that the worker lacks is named before its first record: nobody looks whether a topic may be written",
        "kafka/own_topic.py",
        "            self._expect_right(admin, topic)\n",
        "",
        "tests/kafka tests/worker tests/commands",
    ),
    "outbox-order": PlantedFault(
        "results of a camera are in order, also after a send that failed",
        "kafka/outbox.py",
        "failed = each.has_failed or (failed and self._in_order)",
        "failed = each.has_failed",
        "tests/kafka tests/results tests/dead_letters tests/worker",
    ),
    "retention": PlantedFault(
        "retention removes nothing of the day that is kept",
        "sink/retention/retain.py",
        "        if cover.day >= before.isoformat():\n",
        "        if cover.day > before.isoformat():\n",
        "tests/sink tests/commands",
    ),
    "pair-switch": PlantedFault(
        "a pair that is switched to without its predecessor's states begins without them",
        "worker/partition.py",
        "self._streams.go_on_with(turn.serving.adaptation.strategy.initial, keeps_states=turn.keeps)",
        "self._streams.go_on_with(turn.serving.adaptation.strategy.initial, keeps_states=True)",
        "tests/pairs tests/worker tests/commands",
    ),
    "results": PlantedFault(
        "every row was published before its segment is committed: acknowledgements are not waited for",
        "worker/commit.py",
        "if not (self._told(work, wait=wait) and self._results.settled(wait=wait)):",
        "if not self._told(work, wait=wait):",
        "tests/results tests/worker",
    ),
}


@contextmanager
def planted(fault: PlantedFault) -> Iterator[Path]:
    """A copy of the last commit with the fault in it."""
    with tempfile.TemporaryDirectory(prefix="adawise-fault-") as name:
        copy = Path(name) / "copy"
        subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, copy], check=True)
        for ignored in ("deploy/kafka/libs", "deploy/kafka/target"):
            if (ROOT / ignored).exists():
                (copy / ignored).symlink_to(ROOT / ignored)
        fault.plant(copy)
        yield copy


def failing(copy: Path, fault: PlantedFault, tier: str) -> list[str]:
    """Return the ids of the tests of this tier that fail there."""
    paths = os.pathsep.join([str(copy / "pipeline"), str(copy)])
    call = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rfE",
        "-n",
        "2",
        "--dist",
        "loadfile",
        *TIERS[tier],
        *fault.tests.split(),
    ]
    done = subprocess.run(call, cwd=copy, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    if done.returncode not in (0, 1, 5):
        raise RuntimeError(f"the tests could not be run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return [line.split(" - ")[0] for line in re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)]


def main() -> int:
    """Plant the faults, and print a row of a table for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which faults: {', '.join(FAULTS)}; all if none")
    parser.add_argument("--times", type=Path, metavar="FILE", help="of a whole run of the first tier")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in FAULTS]:
        parser.error(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    ended = json.loads(asked.times.read_text(encoding="utf-8"))["tests"] if asked.times else {}
    print("| guarantee | tier | tests that fail | the first | found after |\n|---|---|---|---|---|")
    missed = 0
    for name in asked.names or FAULTS:
        fault = FAULTS[name]
        with planted(fault) as copy:
            tier, found = next(((tier, found) for tier in TIERS if (found := failing(copy, fault, tier))), ("none", []))
        missed += not found
        moments = sorted((ended[test]["ended_s"], test) for test in found if test in ended)
        first = moments[0][1] if moments else (found[0] if found else "")
        when = f"{moments[0][0] / 60.0:.1f} min" if moments else ""
        print(f"| {name}: {fault.breaks} | {tier} | {len(found)} | `{first}` | {when} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
