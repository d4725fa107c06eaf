"""What a report says of the scripted day against the script: found, how late, missed, and what nobody had scripted.

A change of the weather after which the same alpha is served is no change of alpha. So the alphas that were served are
asked first, by the script's times: only where they differ by as much as the report looks for can it have missed one.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from adawise.records import RowId
from adawise.sink.read.rows import read_predictions, read_traces
from tools.drift.day import FIXED
from tools.drift.day_script import Event

Numbers = npt.NDArray[Any]
Verdict = Literal["found", "missed", "alpha stayed", "false", "not scripted"]

_AROUND = 5  # batches that a change may be told too early by
_RUNNING = 5  # batches, over which a median says that alpha has moved


@dataclass(frozen=True)
class Finding:
    """An event of the script with what became of it, or (`event` None) a change that no event explains.

    Alphas are medians over batches of what was served in the later half of the stretch before and after; `best` are
    the fixed alphas with the most right answers there. `adapted_us`: when alpha had gone half of its way. `steps`: as
    how many changes the report tells it.
    """

    camera: str
    verdict: Verdict
    event: Event | None
    change: Mapping[str, Any] | None
    before: float = float("nan")
    after: float = float("nan")
    best: tuple[float | None, float | None] = (None, None)
    adapted_us: int | None = None
    steps: int = 1

    @property
    def late_us(self) -> int | None:
        """From the event's begin to when the report says that alpha changed."""
        return None if self.event is None or self.change is None else self.change["time_us"] - self.event.since_us


def judge(folder: Path) -> list[Finding]:
    """Every event of the script, then every change that belongs to none of them."""
    script = json.loads((folder / "script.json").read_text(encoding="utf-8"))
    report = json.loads((folder / "drift.json").read_text(encoding="utf-8"))
    events = [Event(**event) for event in script["events"]]
    paths, right = _paths(folder / "run"), _right(folder)
    slack_us = round(_AROUND * script["every_s"] * 1e6)
    findings = []
    for camera in report["cameras"]:
        name, changes = camera["stream_id"], list(camera["changes"])
        for event in (event for event in events if event.camera == name):
            finding = _finding(event, changes, paths[name], right.get(name), report["smallest"], slack_us)
            findings.append(finding)
            if finding.change is not None:
                first = changes.index(finding.change)
                del changes[first : first + finding.steps]
        findings += [_stray(name, change, paths[name], report["smallest"]) for change in changes]
    return findings


@dataclass(frozen=True)
class _Path:
    """Of one camera's batches, by time."""

    time_us: Numbers
    alpha: Numbers

    def level(self, since_us: int, until_us: int) -> float:
        within = (self.time_us >= since_us) & (self.time_us < until_us)
        return float(np.median(self.alpha[within])) if within.any() else float("nan")

    def crossed(self, since_us: int, until_us: int, before: float, after: float) -> int | None:
        """When the running median was nearer to `after` for the first time."""
        within = np.flatnonzero((self.time_us >= since_us) & (self.time_us < until_us))
        for i in within:
            median = float(np.median(self.alpha[i : i + _RUNNING]))
            if abs(median - after) < abs(median - before):
                return int(self.time_us[i])
        return None


def _finding(
    event: Event,
    changes: Sequence[Mapping[str, Any]],
    path: _Path,
    right: tuple[Numbers, Numbers] | None,
    smallest: float,
    slack_us: int,
) -> Finding:
    before = path.level((event.from_us + event.since_us) // 2, event.since_us)
    after = path.level((event.settled_us + event.until_us) // 2, event.until_us)
    best = _best(right, event.from_us, event.since_us), _best(right, event.settled_us, event.until_us)
    begin_us, end_us = event.since_us - slack_us, event.until_us - slack_us
    near = [change for change in changes if _ends(change) >= begin_us and change["time_us"] < end_us]
    moved = abs(after - before) >= smallest
    ways = [(change["size"] > 0) == (after > before) for change in near]
    first = ways.index(True) if True in ways else None
    change = None if first is None else near[first]
    steps = 1 if first is None else [*ways[first:], False].index(False)
    verdict: Verdict
    if moved:
        verdict = "found" if change else "missed"
    else:
        verdict, change = "alpha stayed", None
    adapted_us = path.crossed(event.since_us, event.until_us, before, after) if moved else None
    return Finding(event.camera, verdict, event, change, before, after, best, adapted_us, steps)


def _ends(change: Mapping[str, Any]) -> int:
    """When it is over: the line of a ramp often begins before the script's event."""
    return int(change["latest_us"] if change["kind"] == "ramp" else change["time_us"])


def _stray(camera: str, change: Mapping[str, Any], path: _Path, smallest: float) -> Finding:
    """A change beside the script: a false one, if what was served did not move by so much either."""
    around_us = 30 * 60_000_000
    before = path.level(change["earliest_us"] - around_us, change["earliest_us"])
    after = path.level(change["latest_us"], change["latest_us"] + around_us)
    verdict: Verdict = "not scripted" if abs(after - before) >= smallest else "false"
    return Finding(camera, verdict, None, change, before, after)


def _paths(root: Path) -> dict[str, _Path]:
    rows = read_traces(root, columns=["stream_id", "time", "alpha"]).table().sort_by("time")
    names = np.array(rows["stream_id"].to_pylist())
    time_us, alpha = rows["time"].cast("int64").to_numpy(), rows["alpha"].to_numpy()
    return {str(name): _Path(time_us[names == name], alpha[names == name]) for name in np.unique(names)}


def _right(folder: Path) -> dict[str, tuple[Numbers, Numbers]]:
    """By camera: times `[rows]`, and whether each fixed alpha was right `[rows, alphas]`; empty without the replays."""
    roots = [folder / f"fixed-{alpha:g}" for alpha in FIXED]
    if not all(root.is_dir() for root in roots):
        return {}
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as lines:
        labels = {row["row_id"]: row["label"] for row in csv.DictReader(lines)}
    columns = ["topic", "partition", "offset", "index", "stream_id", "time", "label"]
    found: dict[str, dict[int, list[bool]]] = {}
    times: dict[str, dict[int, int]] = {}
    for root in roots:
        rows = read_predictions(root, columns=columns).table()
        at_us = rows["time"].cast("int64").to_pylist()
        for row, time_us in zip(rows.to_pylist(), at_us, strict=True):
            key = str(RowId(row["topic"], row["partition"], row["offset"], row["index"]))
            found.setdefault(row["stream_id"], {}).setdefault(row["offset"], []).append(row["label"] == labels[key])
            times.setdefault(row["stream_id"], {})[row["offset"]] = time_us
    result = {}
    for name, answers in found.items():
        whole = [offset for offset in sorted(answers) if len(answers[offset]) == len(FIXED)]  # a replay may be stopped
        result[name] = (np.array([times[name][o] for o in whole]), np.array([answers[o] for o in whole]))
    return result


def _best(right: tuple[Numbers, Numbers] | None, since_us: int, until_us: int) -> float | None:
    if right is None:
        return None
    within = (right[0] >= since_us) & (right[0] < until_us)
    return FIXED[int(right[1][within].sum(axis=0).argmax())] if within.any() else None


def told(findings: Sequence[Finding]) -> str:
    """A table for people, by camera and time, and a count of the verdicts."""
    heads = ("camera", "at", "script", "best alpha", "served", "alpha went", "report", "late", "kind")
    rows = [heads, *(_row(finding) for finding in sorted(findings, key=lambda f: (f.camera, _at(f))))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts = Counter(finding.verdict for finding in findings)
    return "\n".join([*lines, "", ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())])


def _row(finding: Finding) -> tuple[str, ...]:
    event, change = finding.event, finding.change
    best = "" if finding.best[0] is None else f"{finding.best[0]:g} -> {finding.best[1]:g}"
    adapted = "" if finding.adapted_us is None or event is None else _minutes(finding.adapted_us - event.since_us)
    late = "" if finding.late_us is None else _minutes(finding.late_us)
    kind = "" if change is None else f"{change['kind']} {change['before']:.2f} -> {change['after']:.2f}"
    served = f"{finding.before:.2f} -> {finding.after:.2f}"
    said = "" if event is None else event.said
    verdict = finding.verdict if finding.steps == 1 else f"{finding.verdict}, {finding.steps} steps"
    return (finding.camera, _clock(_at(finding)), said, best, served, adapted, verdict, late, kind)


def _at(finding: Finding) -> int:
    if finding.event is not None:
        return finding.event.since_us
    assert finding.change is not None
    return int(finding.change["time_us"])


def _clock(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%H:%M}"


def _minutes(us: int) -> str:
    return f"{us / 60e6:+.0f} min"
