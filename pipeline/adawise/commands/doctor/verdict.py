"""What a check answers: passed, a warning, failed, or not looked at; and how that is shown.

A warning is what a worker can live with today. Whatever fails ends it, or makes it stand.
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

_WORDS: dict[Status, str] = {"ok": "passed", "fail": "failed", "skip": "not looked at"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found; it ends in the remedy where one is needed."""

    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str = ""


def ok(detail: str = "") -> Verdict:
    """Nothing is to be done."""
    return Verdict("ok", detail)


def warn(detail: str) -> Verdict:
    """A worker runs, and this is going to cost something."""
    return Verdict("warn", detail)


def skip(detail: str) -> Verdict:
    """It could not be looked at, for a reason that is no fault of its own."""
    return Verdict("skip", detail)


def judged(warnings: Iterable[str], detail: str) -> Verdict:
    """A warning if there are some, else passed with `detail`."""
    return warn("; ".join(told)) if (told := list(warnings)) else ok(detail)


def report(checks: Iterable[Check], stream: TextIO | None = None) -> list[Check]:
    """Print a line for each check as it comes, and a last one that counts; return them.

    The lines are the result, so they go to the output proper, in place of which `stream` may be given.
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
    """Print one object with the list `checks`; return them."""
    told = list(checks)
    print_json({"checks": [asdict(check) for check in told]}, stream)
    return told
