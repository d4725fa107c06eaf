"""Deadlines of tests: one factor for all, by ADAWISE_TEST_DEADLINES, for a machine that is busy or slow.

A deadline only ends a test that would wait for ever. It is long enough that no test depends on how fast the machine is.
Where the subject is a bound on time, the bound is generous and is stretched likewise.
"""

from __future__ import annotations

import os

VARIABLE = "ADAWISE_TEST_DEADLINES"


def factor(text: str | None) -> float:
    """Return the factor that the environment names, 1 to 100.

    Raises:
        ValueError: what it names is no such number.
    """
    if not text:
        return 1.0
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1.0 <= found <= 100.0:
        raise ValueError(f"{VARIABLE} must be a number between 1 and 100, got {text!r}")
    return found


FACTOR = factor(os.environ.get(VARIABLE))


def scaled(seconds: float) -> float:
    """Return `seconds` of a quiet machine as a deadline on this one."""
    return FACTOR * seconds


DEADLINE_S = scaled(150.0)  # for what takes seconds
