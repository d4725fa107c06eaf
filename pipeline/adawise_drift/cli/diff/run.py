"""The work of `adawise diff`: compare two runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adawise.cli.command import separated
from adawise.console import paper, print_json
from adawise.errors import SettingsError
from adawise.labels.compare.compare import compare
from adawise_drift.show_diff import show

if TYPE_CHECKING:
    from adawise_drift.cli.diff.options import DiffCommand

FOUND = 3


def diff(asked: DiffCommand) -> int:
    """Compare the outputs of two runs and print what was found. Return 0 if they are equal, else 3.

    With --whole, what only one of them has is a difference too, wherever the other one ended.

    Raises:
        SettingsError: no worker wrote there, the two have nothing in common, or the file of labels cannot be used.
        ChainError, StoreUnavailable: an output cannot be read.
    """
    within_us = round(asked.label_within * 1e6)
    a, b = (_roots(given) for given in (asked.root_a, asked.root_b))
    found = compare(a, b, separated(asked.streams), labels=asked.labels, label_within_us=within_us)
    if asked.as_json:
        print_json(found.as_json())
    else:
        show(found, paper())
    return FOUND if found.differs or (asked.whole and not found.overlaps_wholly) else 0


def _roots(given: str) -> list[str]:
    """Return the roots that commas separate. A path that exists is one root, as its name may have a comma.

    Raises:
        SettingsError: a name is empty.
    """
    roots = [given] if "://" not in given and Path(given).exists() else [each.strip() for each in given.split(",")]
    if not all(roots):
        raise SettingsError(f"expected folders or URLs separated by commas, got {given!r}: remove the empty one")
    return roots
