"""The table of a sweep for the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from adawise.labels.benefit.helped import Interval
from adawise_lab.sweep.table import SweepFigures, VariantFigures, show

GAIN = Interval(0.05, -0.01, 0.11)


def test_a_line_for_each_variant_and_one_that_failed_says_why() -> None:
    variants = [{"search.price": value} for value in (".02", ".03", ".04")]
    found = SweepFigures(
        "recordings/yard",
        [
            VariantFigures(0, variants[0], 1200, 0, 1.234, 40, Interval(0.5, 0.4, 0.6), Interval(0.0, 0.0, 0.0), {}),
            VariantFigures(
                1, variants[1], 1200, 60, None, 40, Interval(0.55, 0.4, 0.6), Interval(0.05, -0.01, 0.11), {}
            ),
            VariantFigures(2, variants[2], failed="shard 0: no such pair"),
        ],
        "labels.csv",
        ["a note"],
    )
    out = io.StringIO()
    show(found, Console(file=out, width=200))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "0 .02 1,200 1.23 0.0 % 0.500 +0.000 +0.000 to +0.000" in lines
    assert "1 .03 1,200 - 5.0 % 0.550 +0.050 -0.010 to +0.110" in lines
    assert "2 .04 failed - - - - -" in lines
    assert lines[-3:] == [
        "accuracy of 40 labelled images; labels from labels.csv",
        "variant 2 (search.price=.04) failed: shard 0: no such pair",
        "a note",
    ]
