"""Which classes are taken for which, of each arm."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import numpy as np

from adawise.drift.judge import queries
from adawise.drift.judge.helped import Confusion

_CLASSES = 12  # of a table, `other` among them


def confusions(connection: duckdb.DuckDBPyConnection) -> dict[int, Confusion]:
    """By arm, by the view `answers`."""
    counts: dict[int, dict[tuple[str, str], int]] = {}
    for arm, truth, answer, images in connection.execute(queries.CONFUSIONS).fetchall():
        counts.setdefault(arm, {})[truth, answer] = images
    return {arm: _confusion(cells) for arm, cells in counts.items()}


def _confusion(cells: Mapping[tuple[str, str], int]) -> Confusion:
    often: dict[str, int] = {}
    for (truth, answer), images in cells.items():
        often[truth] = often.get(truth, 0) + images
        often.setdefault(answer, 0)
    classes = sorted(often, key=lambda name: (-often[name], name))
    if len(classes) > _CLASSES:
        classes = [*classes[: _CLASSES - 1], "other"]
    place = {name: number for number, name in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)), np.int64)
    for (truth, answer), images in cells.items():
        table[place.get(truth, len(classes) - 1), place.get(answer, len(classes) - 1)] += images
    return Confusion(tuple(classes), tuple(tuple(int(count) for count in row) for row in table))
