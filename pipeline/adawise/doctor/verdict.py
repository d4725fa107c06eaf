"""The result of a check: passed, a warning, failed, or not checked; and how results are shown.

A worker can live with a warning today. A failure ends it, or blocks a partition.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, TextIO

from adawise.console import print_json
from adawise.text import counted

Status = Literal["ok", "warn", "fail", "skip"]

_WORDS: dict[Status, str] = {"ok": "passed", "fail": "failed", "skip": "skipped"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The finding of a check; it ends with the remedy where one is needed."""

    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check, with its name."""

    name: str
    status: Status
    detail: str = ""


def ok(detail: str = "") -> Verdict:
    """Return a verdict that nothing is to be done."""
    return Verdict("ok", detail)


def warn(detail: str) -> Verdict:
    """Return a verdict that a worker runs, and that what was found is going to cost something."""
    return Verdict("warn", detail)


def skip(detail: str) -> Verdict:
    """Return a verdict that the part could not be checked, for a reason that is no fault of its own."""
    return Verdict("skip", detail)


def judged(warnings: Iterable[str], detail: str) -> Verdict:
    """Return a warning with all of `warnings`; without any, a pass with `detail`."""
    return warn("; ".join(told)) if (told := list(warnings)) else ok(detail)


def report(checks: Iterable[Check], stream: TextIO | None = None) -> list[Check]:
    """Print a line for each check as it comes, and a last one with counts; return the checks.

    The lines are the result, so they go to standard output, or to `stream` where that is given.
    """
    out = stream if stream is not None else sys.stdout
    told = []
    for check in checks:
        detail = check.detail.replace("\n", "\n" + " " * 6)
        print(f"{check.status.upper():<6}{check.name}{': ' if detail else ''}{detail}", file=out, flush=True)
        told.append(check)
    counts = Counter(check.status for check in told)
    print(", ".join(_counted(status, count) for status, count in counts.items()), file=out)
    return told


def _counted(status: Status, count: int) -> str:
    return counted(count, "warning") if status == "warn" else f"{count} {_WORDS[status]}"


def report_json(checks: Iterable[Check], stream: TextIO | None = None) -> list[Check]:
    """Print one object with the list `checks`; return the checks."""
    told = list(checks)
    print_json({"checks": [asdict(check) for check in told]}, stream)
    return told
