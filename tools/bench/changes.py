"""Change points on simulated traces with known truth: what is found, what is missed, and what is false.

Settings (ours and those of the baselines) were chosen on the development half; the printed table is of the other one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import ruptures
import torch

from adawise.app.machine import usable_cores
from adawise_drift.changes.find import find_changes
from tests.drift.simulate import Trace, TrueChange, simulate

DEVELOPMENT, TEST = range(500), range(500, 1000)  # seeds
TOLERANCE = 60  # batches: where alpha stays for dozens of them, nobody can say more precisely
SIZES = ((0.1, 0.2), (0.2, 0.4), (0.4, 1.0))

Found = list[tuple[int, int, float]]  # first batch, last batch (equal for a step), signed size
Detector = Callable[[Trace], Found]


@dataclass(frozen=True)
class Detections:
    """What a detector made of one trace: pairs of (truth, found), what it missed, what was false."""

    trace: Trace
    hits: tuple[tuple[TrueChange, tuple[int, int, float]], ...]
    missed: tuple[TrueChange, ...]
    false: int


def ours(trace: Trace) -> Found:
    """What the product finds."""
    return [(c.index, c.end_index, c.size) for c in find_changes(trace.times_us, trace.alpha)]


def pelt(times_variance: float, settle: int = 2) -> Detector:
    """PELT with squared error, for independent noise: a penalty of so many times variance of the noise x ln n."""

    def detect(trace: Trace) -> Found:
        x = trace.alpha
        variance = float(np.diff(x).var()) / 2.0
        penalty = max(1e-9, times_variance * variance * math.log(len(x)))
        search = ruptures.KernelCPD(kernel="linear", min_size=settle).fit(x.reshape(-1, 1))
        bounds = [0, *search.predict(pen=penalty)]
        means = [float(x[a:b].mean()) for a, b in pairwise(bounds)]
        return [(at, at, b - a) for at, a, b in zip(bounds[1:-1], means[:-1], means[1:], strict=True)]

    return detect


def two_windows(width: int, threshold: float) -> Detector:
    """Where the means of `width` batches before and after differ by more than a threshold, at the local maxima."""

    def detect(trace: Trace) -> Found:
        total = np.concatenate([[0.0], np.cumsum(trace.alpha)])
        at = np.arange(width, len(trace.alpha) - width)
        gap = (total[at + width] - 2.0 * total[at] + total[at - width]) / width
        found: Found = []
        left = np.abs(gap)
        while len(left) and left.max() > threshold:
            i = int(np.argmax(left))
            found.append((int(at[i]), int(at[i]), float(gap[i])))
            left[max(0, i - width) : i + width + 1] = 0.0
        return sorted(found)

    return detect


def evaluated(trace: Trace, found: Found) -> Detections:
    """Each change is found once at most, by what lies within `TOLERANCE` of it and has its sign, the nearest first."""
    pairs = sorted(
        (max(0, change.start - end, first - change.end), abs(change.start - first), i, j)
        for i, change in enumerate(trace.truth)
        for j, (first, end, size) in enumerate(found)
        if size * change.size > 0
    )
    taken: dict[int, int] = {}
    for distance, _, i, j in pairs:
        if distance <= TOLERANCE and i not in taken and j not in taken.values():
            taken[i] = j
    hits = tuple((trace.truth[i], found[j]) for i, j in sorted(taken.items()))
    missed = tuple(change for i, change in enumerate(trace.truth) if i not in taken)
    return Detections(trace, hits, missed, len(found) - len(hits))


BASELINES: Mapping[str, Detector] = {
    "PELT, BIC": pelt(2.0),
    "PELT, tuned": pelt(1_024.0, settle=32),  # of 2, 8, 32, ... 2,048: the best F1 on the development half
    "two windows, tuned": two_windows(80, 0.22),  # of 20 to 100 batches and .15 to .3: likewise
}
YEAR = 500_000  # batches of one camera


def main() -> None:
    """Print the table of the test half, and what a camera's year costs."""
    found = traces(TEST)
    print(f"{len(found)} traces, {sum(len(trace.alpha) for trace in found)} batches")
    print(*table(found, {"ours": ours, **BASELINES}), sep="\n")
    alpha = np.resize(np.concatenate([trace.alpha for trace in found]), YEAR)
    times_us = np.arange(YEAR) * 63_000_000
    started = time.perf_counter()
    changes = find_changes(times_us, alpha)
    print(f"a year of {YEAR} batches: {time.perf_counter() - started:.2f} s, {len(changes)} changes")


def traces(seeds: Sequence[int]) -> list[Trace]:
    """Simulated on all cores; some minutes for 500."""
    with ProcessPoolExecutor(usable_cores(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(pool.map(simulate, seeds, chunksize=5))


def figures(verdicts: Sequence[Detections]) -> Mapping[str, float]:
    """The columns of the table; nan where there is nothing to divide by."""
    hits = [(v.trace, *hit) for v in verdicts for hit in v.hits]
    truths = [(v.trace, change) for v in verdicts for change in v.trace.truth]
    false = sum(v.false for v in verdicts)
    late = np.array([found[0] - change.start for _, change, found in hits if change.start == change.end])
    hours = [
        abs(int(trace.times_us[found[0]]) - int(trace.times_us[change.start])) / 3.6e9
        for trace, change, found in hits
        if change.start == change.end
    ]
    sizes = [abs(found[2] - change.size) for _, change, found in hits]
    result = {
        "precision": _ratio(len(hits), len(hits) + false),
        "recall": _ratio(len(hits), len(truths)),
    }
    for low, high in SIZES:
        wanted = sum(low <= abs(change.size) < high for _, change in truths)
        result[f"recall {low:g}-{high:g}"] = _ratio(sum(low <= abs(c.size) < high for _, c, _ in hits), wanted)
    result["delay, batches"] = float(np.median(late)) if len(late) else math.nan
    result["error, batches"] = float(np.median(np.abs(late))) if len(late) else math.nan
    result["error, hours"] = float(np.median(hours)) if hours else math.nan
    result["error of size"] = float(np.median(sizes)) if sizes else math.nan
    for name, still in (("flat", _is_flat), ("day and night", _is_cycle)):
        of = [v for v in verdicts if still(v.trace)]
        batches = sum(len(v.trace.alpha) for v in of)
        months = sum(int(v.trace.times_us[-1] - v.trace.times_us[0]) for v in of) / (30 * 86_400e6)
        result[f"false per 1,000 batches, {name}"] = _ratio(1e3 * sum(v.false for v in of), batches)
        result[f"false per camera-month, {name}"] = _ratio(sum(v.false for v in of), months)
        result[f"traces with an alarm, {name}"] = _ratio(sum(v.false > 0 for v in of), len(of))
    return result


def _is_flat(trace: Trace) -> bool:
    return not trace.truth and trace.kind != "cycle"


def _is_cycle(trace: Trace) -> bool:
    return trace.kind == "cycle"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def table(of: Sequence[Trace], detectors: Mapping[str, Detector]) -> list[str]:
    """Lines of a Markdown table, a row for each figure."""
    columns = {name: figures([evaluated(t, detect(t)) for t in of]) for name, detect in detectors.items()}
    kinds = {name: recall_by_kind(of, detect) for name, detect in detectors.items()}
    rows = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for figure in next(iter(columns.values())):
        rows.append(f"| {figure} | " + " | ".join(f"{column[figure]:.3g}" for column in columns.values()) + " |")
    for kind in next(iter(kinds.values())):
        cells = (f"{by[kind][0]} of {by[kind][1]}, {by[kind][2]} false" for by in kinds.values())
        rows.append(f"| {kind} | " + " | ".join(cells) + " |")
    return rows


def recall_by_kind(of: Sequence[Trace], detect: Detector) -> Mapping[str, tuple[int, int, int]]:
    """Found, to be found and false, for each kind of trace."""
    result: dict[str, tuple[int, int, int]] = {}
    for trace in of:
        verdict = evaluated(trace, detect(trace))
        found, wanted, false = result.get(trace.kind, (0, 0, 0))
        result[trace.kind] = (found + len(verdict.hits), wanted + len(trace.truth), false + verdict.false)
    return dict(sorted(result.items()))
