"""The result of a check: passed, a warning, failed, or not checked; and how results are shown.

A worker can live with a warning today. A failure ends it, or blocks a partition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adawise.console import print_json
from adawise.text import counted

Status = Literal["ok", "warn", "fail", "skip"]

_WORDS: dict[Status, str] = {"ok": "passed", "fail": "failed", "skip": "skipped"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The finding of a check, which ends with the remedy where one is needed, and the name of the part it is about."""

    status: Status
    detail: str = ""
    name: str = ""


def ok(detail: str = "") -> CheckResult:
    """Return the result that nothing is to be done."""
    return CheckResult("ok", detail)


def warn(detail: str) -> CheckResult:
    """Return the result that a worker runs, and that what was found is going to cost something."""
    return CheckResult("warn", detail)


def skip(detail: str) -> CheckResult:
    """Return the result that the part could not be checked, for a reason that is no fault of its own."""
    return CheckResult("skip", detail)


def warn_if_any(warnings: Iterable[str], detail: str) -> CheckResult:
    """Return a warning with all of `warnings`; without any, a pass with `detail`."""
    return warn("; ".join(found)) if (found := list(warnings)) else ok(detail)


def report(results: Iterable[CheckResult]) -> list[CheckResult]:
    """Print a line for each result as it comes, and a last one with counts; return the results."""
    shown = []
    for each in results:
        detail = each.detail.replace("\n", "\n" + " " * 6)
        print(f"{each.status.upper():<6}{each.name}{': ' if detail else ''}{detail}", flush=True)
        shown.append(each)
    counts = Counter(each.status for each in shown)
    words = (counted(n, "warning") if status == "warn" else f"{n} {_WORDS[status]}" for status, n in counts.items())
    print(", ".join(words))
    return shown


def report_json(results: Iterable[CheckResult]) -> list[CheckResult]:
    """Print one object with the list `checks`; return the results."""
    found = list(results)
    print_json({"checks": [{"name": o.name, "status": o.status, "detail": o.detail} for o in found]})
    return found
