"""What a report says of the scripted day against the script: told by what, how late, missed, and told of nothing.

An event is of a happening if it may have begun, or gone back, while that came. A line through what comes slowly, and in
curves, may begin before it and end after it. What the search makes of it (alpha, and all that is measured of answers)
may come later: the search has to notice first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adawise.output.read.rows import read_traces
from tools.drift.day_script import Happening

Numbers = npt.NDArray[Any]

_AROUND = 5  # batches that an event may be told too early or too late by, beyond its interval
_ADAPTS = 60  # batches within which the search has followed
_CURVED = 0.5  # of the time that it takes to come: by how much a line through it may be longer on each side
_ANSWERS = frozenset({"alpha", "objective", "confidence", "agreement", "forwards", "accuracy", "mix"})
_PASSES = frozenset({"spike", "silence"})


@dataclass(frozen=True)
class Edge:
    """The begin of an event of the report, or the end of one that goes back: between `earliest_us` and `latest_us`."""

    camera: str
    measure: str
    shape: str
    is_end: bool
    time_us: int
    earliest_us: int
    latest_us: int
    before: float | None
    after: float | None

    def __str__(self) -> str:
        return f"{self.measure} {self.shape}{' ends' if self.is_end else ''}"


@dataclass(frozen=True)
class DayFinding:
    """A happening of the script with what was told of it, the measures that are to tell it first.

    `before`, `after`: medians over batches of the alpha that was served in the later half of the stretch on each side.
    """

    happening: Happening
    named: tuple[Edge, ...]
    others: tuple[Edge, ...]
    before: float
    after: float
    smallest: float

    @property
    def late_us(self) -> int | None:
        """From its begin to that of the first event that names it."""
        return self.named[0].time_us - self.happening.since_us if self.named else None

    @property
    def leaves_alpha(self) -> bool:
        """Neither was another alpha served than before, nor is one told."""
        stays = not abs(self.after - self.before) >= self.smallest  # where it served nothing, no more is known
        return stays and not any(edge.measure == "alpha" for edge in (*self.named, *self.others))


@dataclass(frozen=True)
class DayVerdict:
    """All findings by camera and time, and what was told of nothing: an alpha that did move is not `false`."""

    findings: tuple[DayFinding, ...]
    moved: tuple[Edge, ...]
    false: tuple[Edge, ...]


def assess(folder: Path) -> DayVerdict:
    """Compare the report of a folder with its script."""
    script = json.loads((folder / "script.json").read_text(encoding="utf-8"))
    report = json.loads((folder / "drift.json").read_text(encoding="utf-8"))
    happenings = [Happening(**{**each, "moves": tuple(each["moves"])}) for each in script["happenings"]]
    batch_us, paths = round(script["every_s"] * 1e6), _paths(folder / "run")
    summary: dict[Happening | None, list[Edge]] = {happening: [] for happening in (None, *happenings)}
    for edge in (edge for event in report["events"] for edge in _edges(event)):
        summary[_of(edge, happenings, batch_us)].append(edge)
    findings = [_finding(each, summary[each], paths[each.camera], report["smallest"]) for each in happenings]
    strays = sorted(summary[None], key=lambda edge: (edge.camera, edge.time_us))
    moved = [edge.measure == "alpha" and paths[edge.camera].has_moved(edge, report["smallest"]) for edge in strays]
    return DayVerdict(
        tuple(findings),
        tuple(edge for edge, is_true in zip(strays, moved, strict=True) if is_true),
        tuple(edge for edge, is_true in zip(strays, moved, strict=True) if not is_true),
    )


def _edges(event: Mapping[str, Any]) -> Iterator[Edge]:
    since, until, earliest, latest = (_us(event[name]) for name in ("since", "until", "earliest", "latest"))
    of = event["stream_id"], event["measure"], event["shape"]
    levels = event["from"], event["to"]
    yield Edge(*of, False, since, min(earliest, since), max(latest, until if of[2] == "ramp" else since), *levels)
    if of[2] in _PASSES:  # its end is known as well as its begin
        yield Edge(*of, True, until, until - (since - min(earliest, since)), until + max(latest - since, 0), *levels)


def _us(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1e6)


def _of(edge: Edge, happenings: Sequence[Happening], batch_us: int) -> Happening | None:
    """The nearest of those in whose time it may lie."""
    early_us, late_us = _AROUND * batch_us, (_ADAPTS if edge.measure in _ANSWERS else _AROUND) * batch_us
    near = []
    for each in happenings:
        curved_us = _CURVED * (each.settled_us - each.since_us)
        is_after = edge.latest_us >= each.since_us - curved_us - early_us
        if each.camera == edge.camera and is_after and edge.earliest_us <= each.settled_us + curved_us + late_us:
            near.append(each)
    return min(near, key=lambda each: abs(edge.time_us - each.since_us), default=None)


@dataclass(frozen=True)
class _Path:
    """Of one camera's batches, by time."""

    time_us: Numbers
    alpha: Numbers

    def level(self, since_us: int, until_us: int) -> float:
        within = (self.time_us >= since_us) & (self.time_us < until_us)
        return float(np.median(self.alpha[within])) if within.any() else float("nan")

    def has_moved(self, edge: Edge, smallest: float) -> bool:
        around_us = 30 * 60_000_000
        before = self.level(edge.earliest_us - around_us, edge.earliest_us)
        return abs(self.level(edge.latest_us, edge.latest_us + around_us) - before) >= smallest


def _finding(happening: Happening, edges: Sequence[Edge], path: _Path, smallest: float) -> DayFinding:
    ordered = sorted(edges, key=lambda edge: edge.time_us)
    named = tuple(edge for edge in ordered if edge.measure in happening.moves)
    others = tuple(edge for edge in ordered if edge.measure not in happening.moves)
    before = path.level((happening.from_us + happening.since_us) // 2, happening.since_us)
    after = path.level((happening.settled_us + happening.until_us) // 2, happening.until_us)
    return DayFinding(happening, named, others, before, after, smallest)


def _paths(root: Path) -> dict[str, _Path]:
    rows = read_traces(root, columns=["stream_id", "time", "alpha"]).table().sort_by("time")
    names = np.array(rows["stream_id"].to_pylist())
    time_us, alpha = rows["time"].cast("int64").to_numpy(), rows["alpha"].to_numpy()
    return {str(name): _Path(time_us[names == name], alpha[names == name]) for name in np.unique(names)}


def summary(day: DayVerdict) -> str:
    """A table of what happened, one of what was told of nothing, and the sum of both."""
    lines = ["| camera | at | what happens | alpha served | told by | late | and by |", "|---" * 7 + "|"]
    lines += [f"| {' | '.join(_row(finding))} |" for finding in day.findings]
    strays = [(edge, "alpha did move") for edge in day.moved] + [(edge, "") for edge in day.false]
    lines += [
        f"{edge.camera} {_clock(edge.time_us)} {edge}, {_levels(edge)}: of nothing. {why}" for edge, why in strays
    ]
    named = [finding for finding in day.findings if finding.named]
    alone = [finding for finding in named if finding.leaves_alpha]
    others = [finding for finding in day.findings if not finding.named and finding.others]
    missed = [finding for finding in day.findings if not finding.named and not finding.others]
    return "\n".join(
        [
            *lines,
            "",
            f"{len(named)} of {len(day.findings)} told by what names them, {len(alone)} of which leave alpha alone; "
            f"{len(others)} told by other measures alone, {len(missed)} missed; "
            f"of nothing {len(day.false)}, and {len(day.moved)} of an alpha that moved by itself",
            f"leave alpha alone and are told: {sentences_of(alone)}",
            f"told by other measures alone: {sentences_of(others)}",
            f"missed: {sentences_of(missed)}",
        ]
    )


def _row(finding: DayFinding) -> tuple[str, ...]:
    happening = finding.happening
    went = " to ".join("none" if np.isnan(level) else f"{level:.2f}" for level in (finding.before, finding.after))
    late = "" if finding.late_us is None else _minutes(finding.late_us)
    named = ", ".join(dict.fromkeys(map(str, finding.named)))
    others = ", ".join(dict.fromkeys(edge.measure for edge in finding.others))
    return happening.camera, _clock(happening.since_us), happening.text, went, named, late, others


def _levels(edge: Edge) -> str:
    return "" if edge.before is None or edge.after is None else f"{edge.before:.2f} to {edge.after:.2f}"


def sentences_of(findings: Sequence[DayFinding]) -> str:
    return "; ".join(f"{f.happening.camera}, {f.happening.text}" for f in findings) or "none"


def _clock(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%H:%M}"


def _minutes(us: int) -> str:
    return f"{us / 60e6:+.0f} min"
