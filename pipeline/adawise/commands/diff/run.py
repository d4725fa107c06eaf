"""Settings -> the comparison of two runs."""

from __future__ import annotations

from collections.abc import Sequence

from adawise.console import paper, print_json

FOUND = 3


def compare(*, root_a: str, root_b: str, streams: Sequence[str] | None, whole: bool, as_json: bool) -> int:
    """Compare the outputs of two runs and print what was found: 0 if they are equal, else 3.

    With `whole`, what only one of them has is a difference, too, wherever the other one ended.

    Raises:
        SettingsError: no worker wrote there, or the two have nothing in common.
        ChainError, StoreUnavailable: by the outputs.
    """
    from adawise.compare.compare import compare as compare_runs
    from adawise.compare.show import show

    found = compare_runs(root_a, root_b, streams)
    if as_json:
        print_json(found.as_json())
    else:
        show(found, paper())
    return FOUND if found.differs or (whole and not found.overlaps_wholly) else 0
