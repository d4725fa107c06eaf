"""Changes of the mix of served classes: where it moved, and which classes came and went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise_drift.changes.cycle import daily_cycle
from adawise_drift.changes.find import Change, Sensitivity, find_changes
from adawise_drift.changes.noise import block_means
from adawise_drift.changes.times import DAY_US
from adawise_drift.events.measures import filled

_IMAGES = 64  # of a point
_BLOCKS = 30  # of a camera's time, of whose means the directions are
_DIRECTIONS = 2
_LEAST = 0.15  # total variation between the mixes before and after
_SENSITIVITY = Sensitivity(smallest=0.08, spread=0.15, memory=16.0, penalty=8.0, settle=32, bins=1024)
_NAMED = 2


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """How many images were served each class, `[bins, labels]`; the last label may be all the others."""

    time_us: Integers
    batches: Integers
    labels: Sequence[str]
    counts: Integers


NO_MIX = Mixed(np.empty(0, np.int64), np.empty(0, np.int64), (), np.empty((0, 0), np.int64))


def joined(one: Mixed, other: Mixed) -> Mixed:
    """Return one after the other; a class that one of them does not name was not served there."""
    labels = sorted({*one.labels, *other.labels})
    counts = []
    for each in (one, other):
        wide = np.zeros((len(each.time_us), len(labels)), np.int64)
        wide[:, [labels.index(name) for name in each.labels]] = each.counts
        counts.append(wide)
    times, batches = (np.concatenate([getattr(one, n), getattr(other, n)]) for n in ("time_us", "batches"))
    return Mixed(times, batches, tuple(labels), np.concatenate(counts))


def mix_changes(of: Mixed, zone: tzinfo = UTC) -> Iterator[tuple[Change, str]]:
    """Yield the changes by time, with `size` the total variation, and what came and went in words.

    Shares are looked at as square roots, whose distances are Hellinger's, along the directions in which the mix moves
    most over long times, each as a series of its own.
    """
    starts = filled(of.counts.sum(axis=1), _IMAGES)
    if len(starts) < 2 * _BLOCKS or of.counts.shape[1] < 2:
        return
    counts = np.add.reduceat(of.counts, starts, axis=0)
    batches, time_us = np.add.reduceat(of.batches, starts), of.time_us[starts]
    roots = np.sqrt(counts / counts.sum(axis=1, keepdims=True))
    for column in range(roots.shape[1]):
        roots[:, column] -= daily_cycle(time_us, roots[:, column], least=_SENSITIVITY.cycle, zone=zone)
    width = -(-len(roots) // _BLOCKS)
    slow = np.stack([block_means(column, width) for column in roots.T], axis=1)
    ways = np.linalg.svd(slow - slow.mean(axis=0), full_matrices=False)[2][:_DIRECTIONS]
    found: list[Change] = []
    for way in ways:
        series: Floats = roots @ way
        changes = find_changes(time_us, series, batches=batches, sensitivity=replace(_SENSITIVITY, cycle=1.0))
        found += [c for c in changes if not any(abs(c.time_us - known.time_us) < DAY_US for known in found)]
    found.sort(key=lambda change: change.time_us)
    bounds = [int(time_us[0]), *(change.time_us for change in found), int(time_us[-1]) + 1]
    for number, change in enumerate(found):
        until_us = change.end_us
        before = counts[(time_us >= bounds[number]) & (time_us < change.time_us)].sum(axis=0)
        after = counts[(time_us >= min(until_us, bounds[number + 2] - 1)) & (time_us < bounds[number + 2])].sum(axis=0)
        if not before.sum() or not after.sum():
            continue
        moved = after / after.sum() - before / before.sum()
        distance = float(np.abs(moved).sum() / 2.0)
        if distance >= _LEAST:
            yield replace(change, before=0.0, after=distance), _words(of.labels, before, after, moved)


def _words(labels: Sequence[str], before: Integers, after: Integers, moved: Floats) -> str:
    """Return the classes that moved most in words: car 12 % to 55 %; bus 40 % to 5 %."""
    most = np.argsort(-np.abs(moved))[:_NAMED]
    shares = (before / before.sum(), after / after.sum())
    return "; ".join(f"{labels[k]} {shares[0][k]:.0%} to {shares[1][k]:.0%}" for k in most)
