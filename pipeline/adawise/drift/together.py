"""Cameras whose alphas move together: a common cause (weather, light, a model) is likelier there than a fault of one.

Each camera's series is taken to steps of a fiftieth of the span; cameras are joined by average linkage while the mean
correlation of a group stays above a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from adawise.drift.result import CameraChange, CameraGroup, Floats, Series

_STEPS = 50
_LEAST = 0.6  # mean correlation of a group
_OVERLAP = 10  # steps that both cameras of a pair must have


def groups(
    series: Mapping[str, Series], changes: Mapping[str, Sequence[CameraChange]], span_us: tuple[int, int]
) -> tuple[CameraGroup, ...]:
    """Groups of at least two cameras that drifted, the largest first."""
    names = [name for name in series if changes[name]]
    if len(names) < 2:
        return ()
    paths = np.array([_stepped(series[name], span_us) for name in names])
    together = _correlations(paths)
    tree = linkage(squareform(1.0 - together, checks=False), method="average")
    marks = fcluster(tree, t=1.0 - _LEAST, criterion="distance")
    found = []
    for mark in np.unique(marks):
        members = np.flatnonzero(marks == mark)
        if len(members) > 1:
            among = together[np.ix_(members, members)]
            mean = float(among[~np.eye(len(members), dtype=bool)].mean())
            ids = tuple(names[i] for i in members)
            found.append(CameraGroup(ids, mean, _sentence(len(ids), mean, paths[members])))
    return tuple(sorted(found, key=lambda group: (-len(group.stream_ids), group.stream_ids)))


def at_once(changes: Mapping[str, Sequence[CameraChange]], near_us: int) -> dict[str, list[tuple[str, ...]]]:
    """By camera, for each of its changes: the other cameras that moved the same way then, or within `near_us` of it."""
    names = list(changes)
    every = [(at, change) for at, name in enumerate(names) for change in changes[name]]
    camera = np.array([at for at, _ in every], dtype=np.int64)
    up = np.array([change.size > 0 for _, change in every], dtype=bool)
    since_us = np.array([change.earliest_us for _, change in every], dtype=np.int64)
    until_us = np.array([change.latest_us for _, change in every], dtype=np.int64)
    found: dict[str, list[tuple[str, ...]]] = {name: [] for name in names}
    for at, change in every:
        meets = (since_us <= change.latest_us + near_us) & (until_us >= change.earliest_us - near_us)
        alike = np.unique(camera[meets & (up == (change.size > 0)) & (camera != at)])
        found[names[at]].append(tuple(names[other] for other in alike))
    return found


def _stepped(series: Series, span_us: tuple[int, int]) -> Floats:
    """`[steps]`: mean alpha of each; nan where there was no batch."""
    since_us, until_us = span_us
    step = np.minimum((series.time_us - since_us) * _STEPS // max(until_us - since_us, 1), _STEPS - 1).clip(0)
    known = np.isfinite(series.alpha)
    weights = np.bincount(step[known], series.images[known], _STEPS)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.bincount(step[known], (series.alpha * series.images)[known], _STEPS) / weights
    return mean


def _correlations(paths: Floats) -> Floats:
    """`[n, n]` over the steps that both have; 0 where these are too few, or one of them stands still."""
    n = len(paths)
    found = np.eye(n)
    for i in range(n):
        for j in range(i):
            both = np.isfinite(paths[i]) & np.isfinite(paths[j])
            a, b = paths[i][both], paths[j][both]
            if len(a) >= _OVERLAP and a.std() > 0.0 and b.std() > 0.0:
                found[i, j] = found[j, i] = float(np.corrcoef(a, b)[0, 1])
    return found


def _sentence(count: int, mean: float, paths: Floats) -> str:
    with np.errstate(invalid="ignore"):
        known = np.isfinite(paths).any(axis=0)
        path = np.nanmean(paths[:, known], axis=0)
    return (
        f"{count} cameras move together (mean correlation {mean:.2f}): their mean alpha ranges from {path.min():.2f} "
        f"to {path.max():.2f}."
    )
