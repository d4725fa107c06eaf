"""The tables of the real pair, where they are: only those for choices; the others are for reports."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from adawise_lab.evaluate.tables import read_tables
from tests.lab.evaluate.building import GRID, a_bench, a_plan, run_here

FOLDER = Path(os.environ.get("ADAWISE_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "logits"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real tables in {FOLDER} (ADAWISE_REAL_DATA)")


def test_the_real_tables_are_read_and_strategies_run_on_them() -> None:
    tables = read_tables(FOLDER, ["val_clean", "val_mix"])
    bench = a_bench(*tables)
    assert bench.alphas == GRID
    for table in tables:
        assert table.logits.dtype == np.float16
        assert (table.logits.max(axis=-1) == 0.0).all()  # as they are documented
        assert table.logit_scale is not None
    assert ((bench.accuracy > 0.5) & (bench.accuracy < 0.9)).all()  # of 100 classes: labels and logits belong together
    warm, grid = run_here(bench, a_plan("warm,grid"))
    for ran in (warm, grid):
        assert ran.score.hits.sum() / ran.score.visits.sum() > bench.accuracy[:, 0].mean()  # zero-shot is worst here
    assert warm.score.forwards.sum() < 0.2 * grid.score.forwards.sum()
